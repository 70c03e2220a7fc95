"""IPFIX files (RFC 5655): messages one after the other in a file, nothing between them.

In: a binary file object the caller has opened. Out: messages written, or read one at a time, so memory is bounded by
one message (64 kB). Never: opening, naming or syncing a file; what is in the messages, which is `collecting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from .errors import EncodingError, HeaderError, TruncatedError
from .messages import MESSAGE_HEADER, VERSION, Messages


class Writable(Protocol):
    def write(self, octets: memoryview, /) -> int | None: ...


class Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


class FileWriter:
    """Writes messages to a file object; counts them and their octets."""

    def __init__(self, fileobj: Writable) -> None:
        self._file = fileobj
        self.messages = self.octets = 0

    def write(self, messages: Messages | bytes) -> None:
        """Many messages as packed, or the octets of one."""
        if isinstance(messages, Messages):
            view, count = messages.buffer.data, len(messages)
        else:
            view, count = memoryview(messages), 1
            said = MESSAGE_HEADER.unpack_from(view)[:2] if len(view) >= MESSAGE_HEADER.size else None
            if said != (VERSION, len(view)):
                raise EncodingError(f"{len(view)} octets are not one IPFIX message (version and length say {said})")
        self.messages += count
        self.octets += len(view)
        while view:  # an unbuffered file may take less than it was given
            written = self._file.write(view)
            if not written:
                raise BlockingIOError("the file takes no octets now; write to one that blocks")
            view = view[written:]


class FileReader:
    """Iterates over the messages of a file. Whatever is wrong is raised where it is met, after the good ones."""

    def __init__(self, fileobj: Readable) -> None:
        self._file = fileobj
        self.offset = 0  # of the next message

    def __iter__(self) -> Iterator[bytes]:
        while head := self._read(4):
            version, length = int.from_bytes(head[:2], "big"), int.from_bytes(head[2:], "big")
            if len(head) >= 2 and version != VERSION:
                raise HeaderError(f"version {version} is not 10, so here is no IPFIX message", offset=self.offset)
            if len(head) == 4 and length < MESSAGE_HEADER.size:
                raise HeaderError(f"a message length of {length} is shorter than its header", offset=self.offset)
            message = head + self._read(max(0, length - 4)) if len(head) == 4 else head
            if len(head) < 4 or len(message) < length:
                raise TruncatedError(f"the file ends {len(message)} octets into a message", offset=self.offset)
            self.offset += length
            yield message

    def _read(self, size: int) -> bytes:
        octets = b""
        while len(octets) < size and (more := self._file.read(size - len(octets))):
            octets += more
        return octets
