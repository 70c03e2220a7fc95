"""Longest-prefix match over many addresses at once.

In: prefixes with a number each. Out: for an address the number of its longest prefix. Nested prefixes are cut into
stretches that do not overlap when the table is made, so a look-up is one binary search.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network

import numpy as np
from numpy.typing import NDArray

NOTHING = 0
VARIES = 0xFFFFFFFF
"""In the place of a number: a block of addresses that has more than one."""


class PrefixTable:
    """Prefixes of both families; the number 0 is no prefix. Of two equal prefixes the first wins."""

    def __init__(self, prefixes: Iterable[tuple[str | IPv4Network | IPv6Network, int]]) -> None:
        four: list[tuple[int, int, int]] = []
        six: list[tuple[int, int, int]] = []
        for text, number in prefixes:
            network = ip_network(text, strict=False)
            stretch = (int(network.network_address), int(network.broadcast_address), number)
            (four if network.version == 4 else six).append(stretch)
        starts, numbers = _flatten(four, 2**32)
        self._starts4 = np.array(starts, np.uint32)
        self._numbers4 = np.array(numbers, np.uint32)
        self._starts6, self._numbers6 = _flatten(six, 2**128)

    @property
    def stretches4(self) -> tuple[list[int], list[int]]:
        """Where each stretch of IPv4 addresses with one answer begins, and the answer; the first begins at 0."""
        return self._starts4.tolist(), self._numbers4.tolist()

    @property
    def stretches6(self) -> tuple[list[int], list[int]]:
        """The same of IPv6 addresses, by their upper 64 bits.

        Prefixes longer than /64, which no subnet of a VPC has, count for the whole /64.
        """
        found: dict[int, int] = {}
        for start, number in zip(self._starts6, self._numbers6, strict=True):
            found.setdefault(start >> 64, number)
        return list(found), list(found.values())

    def find4(self, addresses: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The number for each IPv4 address."""
        halves, quarters, quarters_of = self._by_block
        found = halves.take(addresses >> np.uint32(16))
        rows = np.flatnonzero(found == VARIES)
        if len(rows):
            left = addresses[rows]
            at = quarters_of.take(left >> np.uint32(16))
            at += left >> np.uint32(8) & np.uint32(0xFF)
            finer = quarters.take(at)
            odd = np.flatnonzero(finer == VARIES)
            finer[odd] = self._searched4(left[odd])
            found[rows] = finer
        return found

    def blocks4(self, bits: int) -> NDArray[np.uint32]:
        """By the first bits of an IPv4 address the number of all that begin so, or VARIES."""
        return self._numbers_of(np.arange(1 << bits, dtype=np.uint32) << np.uint32(32 - bits), bits)

    def _numbers_of(self, firsts: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
        """The numbers of blocks that begin there and are of so many bits."""
        lasts = firsts + np.uint32((1 << 32 - bits) - 1)
        first, last = (np.searchsorted(self._starts4, each, side="right") - 1 for each in (firsts, lasts))
        numbers = self._numbers4[first]
        numbers[first != last] = VARIES
        return numbers

    @cached_property
    def _by_block(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.intp]]:
        """Numbers of blocks of 65,536 addresses; of blocks of 256 within those that vary; where those of one begin.

        Few prefixes that are published are longer than 24 bits, so that little is left to search for.
        """
        halves = self.blocks4(16)
        varying = np.flatnonzero(halves == VARIES)
        firsts = varying.astype(np.uint32)[:, None] << np.uint32(16) | np.arange(256, dtype=np.uint32) << np.uint32(8)
        begin = np.zeros(1 << 16, np.intp)
        begin[varying] = np.arange(len(varying)) * 256
        return halves, self._numbers_of(firsts.reshape(-1), 24), begin

    def _searched4(self, addresses: NDArray[np.uint32]) -> NDArray[np.uint32]:
        return self._numbers4[np.searchsorted(self._starts4, addresses, side="right") - 1]

    def find6(self, address: int) -> int:
        """The number for one IPv6 address."""
        return self._numbers6[bisect_right(self._starts6, address) - 1]


def _flatten(stretches: list[tuple[int, int, int]], end: int) -> tuple[list[int], list[int]]:
    """Where each stretch without overlap begins, and its number. Prefixes nest or are apart, never half over."""
    starts, numbers = [0], [NOTHING]

    def begin(at: int, number: int) -> None:
        if at == end:
            return
        if starts[-1] == at:
            numbers[-1] = number
        elif numbers[-1] != number:
            starts.append(at)
            numbers.append(number)

    around: list[tuple[int, int]] = []  # (last address, number) of the prefixes that hold the present one
    seen: set[tuple[int, int]] = set()
    for first, last, number in sorted(stretches, key=lambda each: (each[0], -each[1])):
        if (first, last) in seen:
            continue
        seen.add((first, last))
        _leave(around, first, begin)
        begin(first, number)
        around.append((last, number))
    _leave(around, None, begin)
    return starts, numbers


def _leave(around: list[tuple[int, int]], before: int | None, begin: Callable[[int, int], None]) -> None:
    """Close the prefixes that end before an address (None: all); what holds them goes on behind each."""
    while around and (before is None or around[-1][0] < before):
        last, _ = around.pop()
        begin(last + 1, around[-1][1] if around else NOTHING)


class Tables:
    """The stretches of many prefix tables, to look up a different table in each row. Answers are numbers.

    Most tables have few stretches: those are compared with one after the other, a column at a time, which is quicker
    than a binary search in each row. The others are searched.
    """

    COMPARED = 16
    """Stretches up to which comparing is quicker."""

    def __init__(
        self, tables: Sequence[tuple[Sequence[int], Sequence[int]]], dtype: type[np.uint32 | np.uint64]
    ) -> None:
        few = [len(starts) <= self.COMPARED for starts, _ in tables]
        self._width = max((len(starts) for (starts, _), small in zip(tables, few, strict=True) if small), default=1)
        # the first stretch begins at 0 and need not be compared with
        self._starts = np.full((self._width - 1, len(tables)), np.iinfo(dtype).max, dtype)
        self._numbers = np.zeros((len(tables), self._width), np.uint32)
        for place, ((starts, numbers), small) in enumerate(zip(tables, few, strict=True)):
            if small:
                self._starts[: len(starts) - 1, place] = starts[1:]
                self._numbers[place] = numbers[-1]
                self._numbers[place, : len(numbers)] = numbers
        large = [(place, *table) for place, (table, small) in enumerate(zip(tables, few, strict=True)) if not small]
        self._is_large = ~np.array(few)
        # of the large ones each stretch is a key: the place, then the rank of where it begins among all that begin
        self._firsts = np.unique(np.array([start for _, starts, _ in large for start in starts], dtype))
        self._keys = np.array(
            [
                place << 32 | rank
                for place, starts, _ in large
                for rank in np.searchsorted(self._firsts, np.array(starts, dtype)).tolist()
            ],
            np.uint64,
        )
        self._answers = np.array([number for _, _, numbers in large for number in numbers], np.uint32)

    def find(self, places: NDArray[np.uint32], values: NDArray[np.uint32] | NDArray[np.uint64]) -> NDArray[np.uint32]:
        """The answer of table `places[i]` for `values[i]`."""
        place = places.astype(np.intp)
        at = place * self._width
        for starts in self._starts:
            at += values >= starts.take(place)
        found = self._numbers.reshape(-1).take(at)
        if len(self._keys):
            rows = np.flatnonzero(self._is_large.take(place))
            rank = np.searchsorted(self._firsts, values[rows], side="right") - 1
            key = places[rows].astype(np.uint64) << np.uint64(32) | rank.astype(np.uint64)
            found[rows] = self._answers.take(np.searchsorted(self._keys, key, side="right") - 1)
        return found
