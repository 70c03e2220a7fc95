"""What is around the text: gzip members, and the kinds of input that are certainly no flow log.

In come the chunks of a delivery; out go pieces of bounded size of what is inside. Nothing here looks at lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import cast

from isal import isal_zlib

from edfn_agent.delivery import Delivery
from edfn_agent.formats.errors import CorruptInput, TruncatedInput

_GzipFault = cast(type[Exception], isal_zlib.IsalError)  # its type stub calls it an instance

GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"

PIECE = 256 * 1024
"""Octets of a piece: large enough that the work per piece does not show, small enough to stay in the cache."""

_SLICE = 16 * 1024  # of compressed input at a time: the decompressor copies what it has not used yet
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


def pieces(delivery: Delivery) -> Iterator[bytes]:
    """Its chunks as pieces that are not empty and not too large; their octets are counted as they come."""
    for chunk in delivery.chunks():
        delivery.octets += len(chunk)
        if len(chunk) <= 4 * PIECE:
            if chunk:
                yield bytes(chunk) if type(chunk) is not bytes else chunk
        else:
            for start in range(0, len(chunk), PIECE):
                yield bytes(chunk[start : start + PIECE])


def gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What is inside of one or more gzip members, in pieces of at most PIECE octets.

    Zero octets after a member are padding (tar and tape drives write them), anything else there is damage. Raises
    TruncatedInput or CorruptInput after what came before the fault has been given out.
    """
    member = None
    begin = given = 0  # where in this chunk the member begins (-1: in an earlier one), octets it has given out
    padded = False
    idle = 0
    held = b""  # the first octet of a member's magic, when a chunk ends between the two
    for chunk in chunks:
        at = 0
        if held:
            chunk, held = held + chunk, b""
        while at < len(chunk):
            if member is None:
                if padded or chunk[at] == 0:
                    padded = True
                    if chunk.count(0, at) != len(chunk) - at:
                        raise CorruptInput("gzip: something else stands behind the padding of the last member")
                    idle += len(chunk)
                    break
                if at + 1 == len(chunk) and chunk[at] == GZIP_MAGIC[0]:
                    held = chunk[at:]
                    break
                if not chunk.startswith(GZIP_MAGIC, at):
                    raise CorruptInput("gzip: something else stands behind the last member")
                member = isal_zlib.decompressobj(31)
                begin, given = at, 0
            data = chunk if at == 0 and len(chunk) <= _SLICE else chunk[at : at + _SLICE]
            try:
                piece = member.decompress(data, PIECE)
            except _GzipFault as error:
                if begin >= 0:
                    yield from _until_fault(chunk[begin:], given)
                raise CorruptInput(f"gzip: {_said(error)}") from None
            if member.eof:
                at += len(data) - len(member.unused_data)
                member = None
            else:
                at += len(data) - len(member.unconsumed_tail)
            if piece:
                idle = 0
                given += len(piece)
                yield piece
            else:
                idle += len(data)
                if idle > IDLE_LIMIT:
                    break
        if idle > IDLE_LIMIT:
            raise CorruptInput(f"gzip: {IDLE_LIMIT >> 20} MiB without content")
        begin = -1
    if held:
        raise CorruptInput("gzip: something else stands behind the last member")
    while member is not None:  # all input is used; some output may still be held back by the limit
        piece = member.decompress(b"", PIECE)
        if piece:
            yield piece
        if member.eof:
            return
        if piece:
            continue
        raise TruncatedInput("gzip: it ends in the middle of a member")


def _until_fault(data: bytes, given: int) -> Iterator[bytes]:
    """What a damaged member holds before the fault, less the first `given` octets.

    The decompressor keeps back the output of the call that fails, so the member is read again octet by octet.
    """
    member = isal_zlib.decompressobj(31)
    for at in range(len(data)):
        rest = data[at : at + 1]
        while True:
            try:
                piece = member.decompress(rest, PIECE)
            except _GzipFault:
                return
            if len(piece) > given:
                yield piece[given:]
            given = max(0, given - len(piece))
            rest = member.unconsumed_tail
            if len(piece) < PIECE and not rest:
                break


def _said(error: Exception) -> str:
    """What ISA-L complains about, without its number ("Error -6 Incorrect checksum found")."""
    text = re.sub(r"^Error -?\d+ ", "", str(error))
    return text[:1].lower() + text[1:]
