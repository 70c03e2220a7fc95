"""Who owns an address of a VPC: exact look-up of many addresses at once.

In: (VPC number, address, number of the owner). Out: for columns of VPCs and addresses the owners' numbers, 0 for
nobody. The tables are made once; VPCs may have the same addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

import numpy as np
from numpy.typing import NDArray

Owned = tuple[int, IPv4Network | IPv6Network, int]
"""VPC, address or block, owner. Blocks are those that AWS delegates to an interface: /28, and /80 of IPv6."""

_BLOCK6 = 80
_BLOCK6_MASK = np.uint64(0xFFFF << 48)  # of the lower half

Halves = NDArray[np.uint64]
"""IPv6 addresses as upper and lower 64 bits: shape (rows, 2)."""


class KeyTable:
    """64-bit keys to numbers, for many at a time; 0 is not there.

    A perfect hash by displacement (Fox, Chen, Heath 1992): a first hash puts a key into a bucket, a second one to a
    place, and all keys of a bucket move by the same displacement, chosen so that no two keys of the table meet. So a
    look-up never has to go on searching, and a key lies beside its number: one access to a large memory.
    """

    _PLACE = np.dtype([("key", np.uint64), ("number", np.uint32)], align=True)
    _PER_BUCKET = 4
    _TRIES = 200  # at least half of all places are free, so that few buckets need more than a dozen

    def __init__(self, keys: NDArray[np.uint64], numbers: NDArray[np.uint32]) -> None:
        """Keys are distinct."""
        bits = max(4, (2 * len(keys) - 1).bit_length() if len(keys) else 0)
        self._bucket_shift = np.uint64(64 - max(1, bits - 1 - (self._PER_BUCKET - 1).bit_length()))
        self._place_shift = np.uint64(64 - bits)
        random = np.random.default_rng(0)
        displacements = None
        while displacements is None:
            self._first, self._second = (np.uint64(each | 1) for each in random.integers(2**63, 2**64, 2, np.uint64))
            displacements = self._displaced(keys, 1 << bits, random)
        self._displacements = displacements
        # where nothing is, the number is 0, so the key 0 there does no harm
        self._places = np.zeros(1 << bits, self._PLACE)
        at = self._place(keys)
        self._places["key"][at], self._places["number"][at] = keys, numbers

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        place = self._places.take(self._place(keys))
        number: NDArray[np.uint32] = place["number"] * (place["key"] == keys)
        return number

    def _place(self, keys: NDArray[np.uint64]) -> NDArray[np.intp]:
        place = keys * self._second
        place >>= self._place_shift
        place ^= self._displacements.take((keys * self._first >> self._bucket_shift).view(np.intp))
        return place.view(np.intp)

    def _displaced(self, keys: NDArray[np.uint64], size: int, random: np.random.Generator) -> NDArray[np.uint32] | None:
        """A displacement for each bucket; None where there is none with these hashes, which small tables may have.

        Large buckets choose first. All buckets of a size try at once; those that meet nobody stay.
        """
        bucket = (keys * self._first >> self._bucket_shift).astype(np.intp)
        place = (keys * self._second >> self._place_shift).astype(np.intp)
        if len(np.unique(bucket * size + place)) < len(keys):
            return None  # two keys of a bucket have one place, wherever they move
        displacements = np.zeros(1 << 64 - int(self._bucket_shift), np.uint32)
        taken = np.zeros(size, np.bool_)
        sizes = np.bincount(bucket, minlength=len(displacements))
        by_bucket = place[np.argsort(bucket, kind="stable")]
        starts = np.cumsum(sizes) - sizes
        for count in range(int(sizes.max(initial=0)), 0, -1):
            left = np.flatnonzero(sizes == count)
            places = by_bucket[starts[left][:, None] + np.arange(count)]  # a row for each bucket
            for _ in range(self._TRIES):
                if not len(left):
                    break
                tried = random.integers(0, size, len(left))
                moved = places ^ tried[:, None]
                _, which, times = np.unique(moved, return_inverse=True, return_counts=True)
                settled = ~(taken[moved] | (times[which] > 1).reshape(moved.shape)).any(axis=1)
                displacements[left[settled]] = tried[settled]
                taken[moved[settled]] = True
                left, places = left[~settled], places[~settled]
            if len(left):
                return None
        return displacements


class Owners4:
    """Owners of IPv4 addresses."""

    def __init__(self, owned: Iterable[Owned]) -> None:
        found = {
            vpc << 32 | int(address): owner
            for vpc, network, owner in owned
            if isinstance(network, IPv4Network)
            for address in network
        }
        self._table = KeyTable(np.array(list(found), np.uint64), np.array(list(found.values()), np.uint32))

    def find(self, vpc: NDArray[np.uint32], addresses: NDArray[np.uint32]) -> NDArray[np.uint32]:
        return self._table.find(vpc.astype(np.uint64) << np.uint64(32) | addresses)


class Owners6:
    """Owners of IPv6 addresses. Their key mixes VPC and address: of an inventory no two mix to one in practice."""

    def __init__(self, owned: Iterable[Owned]) -> None:
        six = [(vpc, network, owner) for vpc, network, owner in owned if isinstance(network, IPv6Network)]
        self._addresses = self._table([each for each in six if each[1].prefixlen != _BLOCK6])
        blocks = [each for each in six if each[1].prefixlen == _BLOCK6]
        self._blocks = self._table(blocks) if blocks else None

    def find(self, vpc: NDArray[np.uint32], addresses: Halves) -> NDArray[np.uint32]:
        vpcs, upper, lower = vpc.astype(np.uint64), addresses[:, 0], addresses[:, 1]
        found = self._addresses.find(self._mixed(vpcs, upper, lower))
        if self._blocks is not None:
            rows = np.flatnonzero(found == 0)
            found[rows] = self._blocks.find(self._mixed(vpcs[rows], upper[rows], lower[rows] & _BLOCK6_MASK))
        return found

    def _table(self, owned: Iterable[tuple[int, IPv6Network, int]]) -> KeyTable:
        rows = [(vpc, *divmod(int(network.network_address), 1 << 64), owner) for vpc, network, owner in owned]
        vpc, upper, lower, owner = np.array(rows, np.uint64).reshape(-1, 4).T
        keys, first = np.unique(self._mixed(vpc, upper, lower), return_index=True)
        return KeyTable(keys, owner[first].astype(np.uint32))

    @staticmethod
    def _mixed(vpc: NDArray[np.uint64], upper: NDArray[np.uint64], lower: NDArray[np.uint64]) -> NDArray[np.uint64]:
        mixed: NDArray[np.uint64] = (upper ^ vpc * np.uint64(0x165667B19E3779F9)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= lower * np.uint64(0xC2B2AE3D27D4EB4F)
        mixed ^= mixed >> np.uint64(29)
        return mixed


def halves(octets: NDArray[np.uint8]) -> Halves:
    """Addresses of shape (rows, 16) as upper and lower 64 bits."""
    return np.ascontiguousarray(octets).view(">u8").astype(np.uint64)
