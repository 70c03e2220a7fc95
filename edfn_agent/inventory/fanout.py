"""Many small jobs side by side, fairly: so many at once in all, so many at once for each group.

In: (group, function) pairs. Out: their results in the same order. Never: more threads than allowed, or a group that is
slow or throttled in the way of the others. The threads are daemons, so that Ctrl-C ends a command at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

IN_ALL = 32
"""Threads. Waiting for AWS takes 50 to 300 ms, so 32 give some 200 calls a second, about what a processor can parse."""

PER_GROUP = 8
"""Calls at once to one account: EC2 refills a Describe bucket with 20 calls a second per account and region."""


def fan_out(
    jobs: Iterable[tuple[str, Callable[[], T]]],
    *,
    in_all: int = IN_ALL,
    per_group: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[T]:
    """Runs the jobs; `progress` is told (done, all). The first exception ends it: jobs catch what they expect."""
    numbered = list(enumerate(jobs))
    waiting: dict[str, deque[tuple[int, Callable[[], T]]]] = {}
    for number, (group, job) in numbered:
        waiting.setdefault(group, deque()).append((number, job))
    rotation = deque(waiting)  # groups take turns, so that a large account does not hold up the small ones
    running = dict.fromkeys(waiting, 0)
    results: list[Any] = [None] * len(numbered)
    failure: list[BaseException] = []
    done = 0
    changed = threading.Condition()

    def take() -> tuple[str, int, Callable[[], T]] | None:
        """The next job that may start; None when there is no job left. Waits while all groups are at their limit."""
        while not failure:
            if not any(waiting.values()):
                return None
            for _ in range(len(rotation)):
                group = rotation[0]
                rotation.rotate(-1)
                if waiting[group] and (per_group is None or running[group] < per_group):
                    running[group] += 1
                    return (group, *waiting[group].popleft())
            changed.wait()
        return None

    def work() -> None:
        nonlocal done
        while True:
            with changed:
                taken = take()
            if taken is None:
                return
            group, number, job = taken
            try:
                results[number] = job()
            except BaseException as error:
                failure.append(error)
            with changed:
                running[group] -= 1
                done += 1
                changed.notify_all()
                if progress is not None and not failure:
                    progress(done, len(numbered))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(in_all, len(numbered)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failure:
        raise failure[0]
    return results
