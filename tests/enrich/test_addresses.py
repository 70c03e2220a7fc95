"""The table behind the look-up of addresses: every key is found, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from edfn_agent.inventory.addresses import KeyTable


@pytest.mark.parametrize("count", [*range(20), 31, 32, 33, 100, 1000, 50_000])
def test_every_key_is_found_and_nothing_else(count: int) -> None:
    """Many of those with 8 and 16 keys, which fill half of their places: in one of a hundred nobody finds a way."""
    random = np.random.default_rng(count)
    for _ in range(1000 if count in (8, 16) else max(1, 200 // (count + 1))):
        scattered = np.unique(random.integers(0, 2**64, 2 * count, np.uint64))
        # addresses in a row in VPCs with small numbers, as inventories have them
        many = np.arange(2 * count, dtype=np.uint64)
        dense = many % np.uint64(3) << np.uint64(32) | many + np.uint64(random.integers(2**31))
        for keys in (random.permutation(scattered), random.permutation(dense)):
            there, others = keys[:count], keys[count:]
            table = KeyTable(there, np.arange(1, len(there) + 1, dtype=np.uint32))
            assert table.find(there).tolist() == list(range(1, len(there) + 1))
            assert not table.find(others).any()
            assert len(table.find(keys[:0])) == 0


def test_the_key_zero_is_one_like_others() -> None:
    zero = np.zeros(1, np.uint64)
    assert KeyTable(zero, np.array([7], np.uint32)).find(zero).tolist() == [7]
    assert KeyTable(zero + np.uint64(1), np.array([7], np.uint32)).find(zero).tolist() == [0]
