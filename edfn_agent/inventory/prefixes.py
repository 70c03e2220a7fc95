"""Longest-prefix match over many addresses at once.

In: prefixes with a number each. Out: for an address the number of its longest prefix. Nested prefixes are cut into
stretches that do not overlap when the table is made, so a look-up is one binary search.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

import numpy as np
from numpy.typing import NDArray

NOTHING = 0


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

    def find4(self, addresses: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The number for each IPv4 address."""
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
