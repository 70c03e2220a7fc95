"""Who owns an address of a VPC: exact look-up of many addresses at once.

In: (VPC number, address, number of the owner). Out: for columns of VPCs and addresses the owners' numbers, 0 for
nobody. The tables are made once; VPCs may have the same addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

import numpy as np
from numpy.typing import NDArray

Owned = tuple[int, IPv4Address | IPv6Address, int]  # VPC, address, owner

Halves = NDArray[np.uint64]
"""IPv6 addresses as upper and lower 64 bits: shape (rows, 2)."""


class KeyTable:
    """64-bit keys to numbers, for many at a time; 0 is not there.

    Two tables with a place for each key, by two hashes, four times as large as needed: what finds its place in the
    first taken is in the second, and the few that are in neither are searched for. A key lies beside its number, so
    that a look-up is one access to memory.
    """

    _HASHES = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93))
    _PLACE = np.dtype([("key", np.uint64), ("number", np.uint32)], align=True)

    def __init__(self, keys: NDArray[np.uint64], numbers: NDArray[np.uint32]) -> None:
        bits = max(4, int(4 * max(1, len(keys)) - 1).bit_length())
        self._shift = np.uint64(64 - bits)
        self._tables = []
        for hash in self._HASHES:
            # where nothing is, the number is 0, so the key 0 there does no harm
            places = np.zeros(1 << bits, self._PLACE)
            at = self._hashed(keys, hash)
            places["key"][at], places["number"][at] = keys, numbers  # of those with one place the last stays
            left = places["key"][at] != keys
            keys, numbers = keys[left], numbers[left]
            self._tables.append(places)
        order = np.argsort(keys)
        self._rest, self._rest_numbers = keys[order], numbers[order]

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        found = self._look(0, keys)
        rows = np.flatnonzero(found == 0)
        if len(rows):
            left = keys.take(rows)
            second = self._look(1, left)
            if len(self._rest):
                near = np.minimum(np.searchsorted(self._rest, left), len(self._rest) - 1)
                second = np.where(self._rest[near] == left, self._rest_numbers[near], second)
            found[rows] = second
        return found

    def _look(self, which: int, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        places = self._tables[which].take(self._hashed(keys, self._HASHES[which]))
        number: NDArray[np.uint32] = places["number"] * (places["key"] == keys)
        return number

    def _hashed(self, keys: NDArray[np.uint64], hash: np.uint64) -> NDArray[np.intp]:
        return ((keys * hash) >> self._shift).view(np.intp)


class Owners4:
    """Owners of IPv4 addresses."""

    def __init__(self, owned: Iterable[Owned]) -> None:
        found = {vpc << 32 | int(address): owner for vpc, address, owner in owned if address.version == 4}
        self._keys = np.array(list(found), np.uint64)
        self._table = KeyTable(self._keys, np.array(list(found.values()), np.uint32))

    def find(self, vpc: NDArray[np.uint32], addresses: NDArray[np.uint32]) -> NDArray[np.uint32]:
        return self._table.find(vpc.astype(np.uint64) << np.uint64(32) | addresses)

    def ranges(self, vpcs: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """By VPC the lowest address that is owned, and how far above it the highest is."""
        vpc = (self._keys >> np.uint64(32)).astype(np.intp)
        address = (self._keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        lowest, highest = np.full(vpcs, 0xFFFFFFFF, np.uint32), np.zeros(vpcs, np.uint32)
        np.minimum.at(lowest, vpc, address)
        np.maximum.at(highest, vpc, address)
        return lowest, np.where(highest >= lowest, highest - lowest, np.uint32(0))


class Owners6:
    """Owners of IPv6 addresses. Their key mixes VPC and address: of an inventory no two mix to one in practice."""

    def __init__(self, owned: Iterable[Owned]) -> None:
        rows = [(vpc, *divmod(int(address), 1 << 64), owner) for vpc, address, owner in owned if address.version == 6]
        vpc, upper, lower, owner = np.array(rows, np.uint64).reshape(-1, 4).T
        self._table = KeyTable(self._mixed(vpc, upper, lower), owner.astype(np.uint32))

    def find(self, vpc: NDArray[np.uint32], addresses: Halves) -> NDArray[np.uint32]:
        return self._table.find(self._mixed(vpc.astype(np.uint64), addresses[:, 0], addresses[:, 1]))

    @staticmethod
    def _mixed(vpc: NDArray[np.uint64], upper: NDArray[np.uint64], lower: NDArray[np.uint64]) -> NDArray[np.uint64]:
        mixed: NDArray[np.uint64] = (upper ^ vpc * np.uint64(0x165667B19E3779F9)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= lower * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed ^= mixed >> np.uint64(29)
        return mixed


def halves(octets: NDArray[np.uint8]) -> Halves:
    """Addresses of shape (rows, 16) as upper and lower 64 bits."""
    return np.ascontiguousarray(octets).view(">u8").astype(np.uint64)
