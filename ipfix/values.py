"""Values: the octets of one field as a Python value, by abstract data type (RFC 7011 section 6.1).

In: a field of a template, then octets of the right length. Out: int, float, bool, str, bytes, an address, a datetime in
UTC. Never: an exception; octets that are no value of their type (a boolean of 7, text that is not UTF-8, a time beyond
the year 9999) come back as the plain integer or octets they are.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from .elements import VARIABLE_LENGTH
from .templates import Field

Value: TypeAlias = bool | int | float | str | bytes | IPv4Address | IPv6Address | datetime

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NTP_EPOCH = datetime(1900, 1, 1, tzinfo=UTC)
_LAST_MILLISECOND = int((datetime.max.replace(tzinfo=UTC) - _UNIX_EPOCH) / timedelta(milliseconds=1))


def with_length(octets: bytes) -> bytes:
    """A value of variable length, 65535 octets at most, as it goes on the wire (RFC 7011 section 7)."""
    return (bytes((len(octets),)) if len(octets) < 255 else struct.pack(">BH", 255, len(octets))) + octets


def length_at(octets: bytes, at: int) -> tuple[int, int]:
    """Where a value of variable length begins and how long it is (RFC 7011 section 7). Beyond the end: far beyond."""
    if at >= len(octets):
        return at, VARIABLE_LENGTH + 1
    if octets[at] < 255:
        return at + 1, octets[at]
    if at + 3 > len(octets):
        return at, VARIABLE_LENGTH + 1
    return at + 3, octets[at + 1] << 8 | octets[at + 2]


def reader(field: Field) -> Callable[[bytes], Value]:
    """The function that turns octets of this field into a value."""
    kind = field.element.data_type
    if kind.startswith("unsigned"):
        return _unsigned
    if kind.startswith("signed"):
        return _signed
    if kind == "string":
        return _text if field.length == VARIABLE_LENGTH else _padded_text
    return _READERS.get(kind, _octets)


def _unsigned(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def _signed(octets: bytes) -> int:
    return int.from_bytes(octets, "big", signed=True)


def _float(octets: bytes) -> float:
    value: float = struct.unpack(">d" if len(octets) == 8 else ">f", octets)[0]
    return value


def _boolean(octets: bytes) -> bool | int:
    return {1: True, 2: False}.get(octets[0], octets[0])


def _mac(octets: bytes) -> str:
    return octets.hex(":")


def _text(octets: bytes) -> str | bytes:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets


def _padded_text(octets: bytes) -> str | bytes:
    return _text(octets.rstrip(b"\0"))


def _octets(octets: bytes) -> bytes:
    return octets


def _seconds(octets: bytes) -> datetime:
    return _UNIX_EPOCH + timedelta(seconds=_unsigned(octets))


def _milliseconds(octets: bytes) -> datetime | int:
    value = _unsigned(octets)
    return _UNIX_EPOCH + timedelta(milliseconds=value) if value <= _LAST_MILLISECOND else value


def _ntp(octets: bytes) -> datetime:
    """32 bits of seconds since 1900 and 32 bits of fraction, to the microsecond, the most a datetime can hold."""
    value = _unsigned(octets)
    return _NTP_EPOCH + timedelta(
        seconds=value >> 32, microseconds=((value & 0xFFFFFFFF) * 1_000_000 + (1 << 31)) >> 32
    )


_READERS: dict[str, Callable[[bytes], Value]] = {
    "float32": _float,
    "float64": _float,
    "boolean": _boolean,
    "macAddress": _mac,
    "ipv4Address": IPv4Address,
    "ipv6Address": IPv6Address,
    "dateTimeSeconds": _seconds,
    "dateTimeMilliseconds": _milliseconds,
    "dateTimeMicroseconds": _ntp,
    "dateTimeNanoseconds": _ntp,
}
