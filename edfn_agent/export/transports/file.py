"""IPFIX into a file (RFC 5655): messages as they would go over TCP, nothing between them.

In: Messages. Out: a file that any reader of RFC 5655 takes. Never: half a message at its end; when the disk is full the
file is cut back to its last whole write.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from edfn_agent.export.transports.base import TransportDown, TransportFault

if TYPE_CHECKING:
    from ipfix import Messages

RETRY_AFTER = 10.0
"""Seconds until a disk that was full is tried again."""


class WholeWrites:
    """A new file that only ever grows by whole writes. Raises TransportFault and TransportDown."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise TransportFault(f"{path}: cannot be written: {error.strerror or error}") from error
        self._good = 0

    def write(self, octets: memoryview | bytes) -> int:
        view = memoryview(octets)
        done = 0
        try:
            while done < len(view):
                done += self._file.write(view[done:]) or 0
        except OSError as error:
            text = f"{self._path}: {error.strerror or error}"
            try:
                self._file.truncate(self._good)
                self._file.seek(self._good)
            except OSError as second:
                text = f"{text}; its end is broken from octet {self._good} on ({second.strerror})"
            raise TransportDown(text, retry_after=RETRY_AFTER) from error
        self._good += done
        return done

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


class FileTransport:
    """One file, begun with the first `open`, is one session: templates are written once."""

    reliable = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.session = 0
        self.messages = 0
        self.octets = 0
        self.errors: Counter[str] = Counter()
        self._file: WholeWrites | None = None

    def open(self) -> None:
        if self._file is None:
            self._file = WholeWrites(self.path)
            self.session += 1

    def send(self, messages: Messages, source: IPv4Address | None) -> None:
        from ipfix import FileWriter

        if self._file is None:
            raise TransportDown(f"{self.name}: not open")
        try:
            FileWriter(self._file).write(messages)
        except TransportDown:
            self.errors["write"] += 1
            raise
        self.messages += len(messages)
        self.octets += messages.buffer.size

    def drain(self, timeout: float) -> bool:
        return True  # nothing is buffered in this process

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
