"""Numbers that follow from ids: the same id has the same number in every run, in the service and in `export`.

In: an id, and the numbers that are taken. Out: a number from 1 to a bound. Nothing is stored here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container


class NumbersUsedUp(ValueError):
    """Every number up to the bound is taken."""


def stable_number(key: str, most: int) -> int:
    """A number from 1 to `most` that follows from the id."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % most + 1


def free_number(key: str, most: int, taken: Container[int]) -> int:
    """The id's own number, or the next one that is free."""
    number = stable_number(key, most)
    for _ in range(most):
        if number not in taken:
            return number
        number = number % most + 1
    raise NumbersUsedUp(f"all {most} numbers are taken")
