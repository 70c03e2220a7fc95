"""What is around the text: gzip members, and the kinds of input that are certainly no flow log.

In come the chunks of a delivery; out comes what is inside, into memory of the caller. Nothing here looks at lines.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Iterator
from gzip import BadGzipFile
from typing import BinaryIO, Protocol, cast

from isal import isal_zlib

from edfn_agent.delivery import Delivery
from edfn_agent.formats.errors import CorruptInput, TruncatedInput

_InflateFault = cast(type[Exception], isal_zlib.IsalError)  # its type stub calls it an instance

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"

PIECE = 256 * 1024
"""Octets of a piece: large enough that the work per piece does not show, small enough to stay in the cache."""

_COMPRESSED = 64 * 1024  # octets of compressed input at a time
IDLE_LIMIT = 64 << 20
"""Octets that lead to nothing (padding, empty members, lines that cannot be read) before an input is given up."""

_OTHER_KINDS = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"BZh", "compressed with bzip2, which is not read: decompress it first"),
    (b"\xfd7zXZ\x00", "compressed with xz, which is not read: decompress it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard, which is not read: decompress it first"),
    (b"\x04\x22\x4d\x18", "compressed with LZ4, which is not read: decompress it first"),
    (b"\xff\x06\x00\x00sNaPpY", "compressed with Snappy, which is not read: decompress it first"),
    (b"Obj\x01", "an Avro file"),
    (b"ORC", "an ORC file"),
    (b"\x7fELF", "a program"),
    (b"<?xml", "XML"),
    (b"<html", "HTML"),
    (b"<!DOC", "HTML"),
    (b"\xd4\xc3\xb2\xa1", "a packet capture"),
    (b"\xa1\xb2\xc3\xd4", "a packet capture"),
    (b"\x0a\x0d\x0d\x0a", "a packet capture"),
)


_FIRST_OCTETS = frozenset(magic[:1] for magic, _ in _OTHER_KINDS)


def other_kind(head: bytes) -> str | None:
    """What an input is that cannot be a flow log, by its first octets."""
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if head[:1] not in _FIRST_OCTETS:
        return None
    for magic, name in _OTHER_KINDS:
        if head.startswith(magic):
            return name
    return None


class Source(Protocol):
    """Octets, taken a stretch at a time."""

    def readinto(self, view: memoryview, /) -> int:
        """Fill at most the view; how many octets there were, 0 at the end. May raise whatever reading raises."""


class Chunks:
    """The octets of a delivery as it hands them over. They are counted there as they come."""

    __slots__ = ("_at", "_chunk", "_chunks", "_delivery")

    def __init__(self, delivery: Delivery, chunks: Iterable[bytes]) -> None:
        self._delivery = delivery
        self._chunks = iter(chunks)
        self._chunk: bytes | bytearray | memoryview = b""
        self._at = 0

    def readinto(self, view: memoryview, /) -> int:
        while self._at == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._delivery.octets += len(chunk)
            self._chunk, self._at = chunk, 0
        at, size = self._at, min(len(view), len(self._chunk) - self._at)
        view[:size] = self._chunk[at : at + size] if size < len(self._chunk) else self._chunk
        self._at += size
        return size


class Again:
    """A source of which the first octets were taken already."""

    def __init__(self, head: bytes, rest: Source) -> None:
        self._head, self._rest = head, rest

    def readinto(self, view: memoryview, /) -> int:
        if not self._head:
            return self._rest.readinto(view)
        size = min(len(view), len(self._head))
        view[:size] = self._head[:size]
        self._head = self._head[size:]
        return size


def pieces(source: Source) -> Iterator[bytes]:
    """What a source holds, in pieces of at most PIECE octets."""
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    while size := source.readinto(view):
        yield bytes(view[:size])


class Gunzip:
    """What is inside of one or more gzip members.

    Zero octets after a member are padding (tar and tape drives write them), anything else that is no member is damage
    (or a member cut off, if it is shorter than the header of one).
    Raises TruncatedInput or CorruptInput after what came before the fault was given out.
    """

    def __init__(self, source: Source) -> None:
        self._input = _Input(source)
        # What `igzip.open` reads with; it inflates into memory of the caller, which saves a tenth of the time.
        self._reader = isal_zlib._GzipReader(cast(BinaryIO, self._input), _COMPRESSED)
        self._rest: Iterator[bytes] = iter(())  # what can still be had of a damaged member
        self._fault: Exception | None = None

    def readinto(self, view: memoryview, /) -> int:
        if self._fault is None:
            before = self._reader.tell()
            try:
                size = self._reader.readinto(view)
            except Exception as error:
                size = self._reader.tell() - before
                self._fault = self._named(error)
                if isinstance(error, _InflateFault):  # the call that fails keeps its output to itself
                    self._rest = _until_fault(self._input.kept, before + size, len(view))
            if size or self._fault is None:
                self._input.idle = 0
                return size
        for piece in self._rest:
            view[: len(piece)] = piece
            return len(piece)
        raise self._fault

    def _named(self, error: Exception) -> Exception:
        if isinstance(error, EOFError):
            return TruncatedInput("gzip: it ends in the middle of a member")
        if isinstance(error, BadGzipFile) and "Not a gzipped file" in str(error):
            return CorruptInput("gzip: something else stands behind the last member")
        if isinstance(error, BadGzipFile | OverflowError | _InflateFault):
            return CorruptInput(f"gzip: {_said(error)}")
        return error  # of the source


class _Input(io.RawIOBase):
    """The compressed octets on their way to the decompressor, and the first of them again, for when there is damage."""

    KEPT = 1 << 20

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self.kept = bytearray()
        self.idle = 0  # octets taken since the last time that something came out

    def readable(self) -> bool:
        return True

    def readinto(self, view: memoryview, /) -> int:  # type: ignore[override]
        size = self._source.readinto(view)
        self.idle += size
        if self.idle > IDLE_LIMIT:
            raise CorruptInput(f"gzip: {IDLE_LIMIT >> 20} MiB without content")
        if len(self.kept) < self.KEPT:
            self.kept += view[:size]
        return size


def _until_fault(data: bytearray, given: int, most: int) -> Iterator[bytes]:
    """What gzip members hold before the fault, less the first `given` octets, in pieces of at most `most` octets.

    The decompressor keeps back the output of the call that fails, so all is read again, at the end octet by octet, with
    zlib: its state can be copied.
    """
    member = zlib.decompressobj(31)
    produced = at = 0
    step = _COMPRESSED
    while at < len(data):
        before = member.copy()
        try:
            piece = member.decompress(data[at : at + step])
        except zlib.error:
            if step == 1:
                return
            member, step = before, 1
            continue
        at += step
        if member.eof:
            at -= len(member.unused_data)
            while at < len(data) and data[at] == 0:
                at += 1
            member = zlib.decompressobj(31)
        fresh = piece[max(0, given - produced) :]
        produced += len(piece)
        for start in range(0, len(fresh), most):
            yield fresh[start : start + most]


def _said(error: Exception) -> str:
    """What is wrong, without numbers ("Error -6 Incorrect checksum found", "CRC check failed 1 != 2")."""
    text = re.sub(r"^Error -?\d+ ", "", str(error))
    if text.startswith("CRC check failed"):
        return "incorrect checksum found"
    return text[:1].lower() + text[1:]
