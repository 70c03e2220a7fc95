"""IPFIX into a file (RFC 5655): messages as they would go over TCP, nothing between them.

In: Messages. Out: a file that any reader of RFC 5655 takes. Never: half a message at its end. When the disk is full the
file is cut back to its last drain, because that is where a caller starts again on a transport that is reliable.
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


class DrainedFile:
    """A new file that keeps what has drained, and loses the rest when a write fails. Raises TransportError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            raise TransportFault(f"{path}: cannot be written: {error.strerror or error}") from error
        self._end = 0
        self._good = 0  # everything up to here has drained
        self.failed = False

    def write(self, octets: memoryview | bytes) -> int:
        view = memoryview(octets)
        done = 0
        try:
            while done < len(view):
                done += self._file.write(view[done:]) or 0
        except OSError as error:
            self.failed = True
            text = f"{self._path}: {error.strerror or error}"
            try:
                self._file.truncate(self._good)
                self._end = self._file.seek(self._good)
            except OSError as second:
                text = f"{text}; its end is broken from octet {self._good} on ({second.strerror})"
            raise TransportDown(text, retry_after=RETRY_AFTER) from error
        self._end += done
        return done

    def drain(self) -> None:
        self._good = self._end

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


class FileTransport:
    """One file is one session, and templates are written once, unless a write failed: then a second one follows."""

    reliable = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.session = 0
        self.messages = 0
        self.octets = 0
        self.errors: Counter[str] = Counter()
        self._file: DrainedFile | None = None

    def open(self) -> None:
        if self._file is None:
            self._file = DrainedFile(self.path)
        elif not self._file.failed:
            return
        self._file.failed = False
        self.session += 1

    def send(self, messages: Messages, source: IPv4Address | None) -> None:
        from ipfix import FileWriter

        if self._file is None or self._file.failed:
            raise TransportDown(f"{self.name}: not open")
        try:
            FileWriter(self._file).write(messages)
        except TransportDown:
            self.errors["write"] += 1
            raise
        self.messages += len(messages)
        self.octets += messages.buffer.size

    def drain(self, timeout: float) -> bool:
        """Nothing is buffered in this process; what is written is the kernel's."""
        if self._file is not None and not self._file.failed:
            self._file.drain()
        return True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
