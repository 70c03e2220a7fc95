"""Records as the Kinesis Producer Library aggregates them.

Magic octets, a protobuf message, its MD5. AWS: Kinesis Producer Library, "KPL aggregated record format"
(https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

MAGIC = bytes.fromhex("f3899ac2")

UserRecord = tuple[str, str | None, bytes]
"""partition key, explicit hash key (decimal, 128 bits), data"""


def aggregated(records: Sequence[UserRecord]) -> bytes:
    keys = list(dict.fromkeys(key for key, _, _ in records))
    hashes = list(dict.fromkeys(hash for _, hash, _ in records if hash is not None))
    message = b"".join(_octets(1, key.encode()) for key in keys)
    message += b"".join(_octets(2, hash.encode()) for hash in hashes)
    for key, hash, data in records:
        own = _number(1, keys.index(key))
        own += _number(2, hashes.index(hash)) if hash is not None else b""
        message += _octets(3, own + _octets(3, data))
    return MAGIC + message + hashlib.md5(message).digest()


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _octets(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 127:
        octets.append(value & 127 | 128)
        value >>= 7
    return bytes([*octets, value])
