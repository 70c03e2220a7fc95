"""Which log events were read already, within the time that is read again and again.

In: the times and ids of events. Out: which of them are new. An event is kept as 8 octets of hash, in arrays by minute,
so an hour of 1,000 events a second is 29 MB in memory and one minute (480 kB) is what is written when a page of it goes
out. With a million ids in hand, one event in 10**13 would wrongly be taken for known. Never: a clock, a file.

An id is *pending* from the time it is handed over and *done* once acknowledged. Only what is done is kept durably.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

MINUTE = 60_000  # milliseconds
Ids = NDArray[np.uint64]
Page = dict[int, Ids]
"""Ids by minute."""


def event_id(*parts: object) -> int:
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


class EventIds:
    """Not safe to use from several threads by itself."""

    def __init__(self) -> None:
        self._done: Page = {}
        self._pending: dict[int, list[Ids]] = {}

    def new(self, times: NDArray[np.int64], ids: Ids) -> NDArray[np.bool_]:
        """Per event, whether it is neither done nor pending (and no repetition of one before it in the same arrays)."""
        fresh = np.zeros(len(ids), dtype=np.bool_)
        fresh[np.unique(ids, return_index=True)[1]] = True
        minutes = times // MINUTE
        for minute in np.unique(minutes):
            here = minutes == minute
            for known in (self._done.get(int(minute)), *self._pending.get(int(minute), ())):
                if known is not None:
                    fresh[here] &= ~np.isin(ids[here], known)
        return fresh

    def hand_over(self, times: NDArray[np.int64], ids: Ids) -> Page:
        """These are pending now. The page is what `done` or `returned` is told later."""
        minutes = times // MINUTE
        page = {int(minute): ids[minutes == minute] for minute in np.unique(minutes)}
        for minute, part in page.items():
            self._pending.setdefault(minute, []).append(part)
        return page

    def done(self, page: Page) -> Iterable[int]:
        """Acknowledged. Returns the minutes that are to be stored again."""
        self.returned(page)
        for minute, part in page.items():
            before = self._done.get(minute)
            self._done[minute] = np.unique(part if before is None else np.concatenate((before, part)))
        return page.keys()

    def returned(self, page: Page) -> None:
        """Not acknowledged: they count as new again."""
        for minute, part in page.items():
            left = [other for other in self._pending.get(minute, ()) if other is not part]
            if left:
                self._pending[minute] = left
            else:
                self._pending.pop(minute, None)

    def forget_before(self, time: int) -> list[int]:
        """Nothing older than `time` will be read again. Returns the minutes that are gone."""
        gone = [minute for minute in self._done if (minute + 1) * MINUTE <= time]
        for minute in gone:
            del self._done[minute]
        return gone

    def stored(self, minute: int) -> str:
        """One minute's done ids, as text for the state."""
        return base64.b64encode(self._done[minute].astype("<u8").tobytes()).decode()

    def load(self, minutes: Mapping[int, str]) -> None:
        for minute, text in minutes.items():
            self._done[minute] = np.frombuffer(base64.b64decode(text), dtype="<u8").astype(np.uint64)

    def __len__(self) -> int:
        return sum(map(len, self._done.values())) + sum(len(part) for parts in self._pending.values() for part in parts)
