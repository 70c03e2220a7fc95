"""Keeps a queue's messages while they are worked on, and gives the queue its answers: extend, delete, return.

In: messages just received, and the word for each (delete, give back, leave). Out: ChangeMessageVisibilityBatch and
DeleteMessageBatch, ten at a time. Never: a decision (fate.py), a deletion nobody asked for.

A message stays the agent's for as long as its objects take, by extension at half of the queue's own timeout, and also
while its deletion is being tried. It ends at 12 hours, where SQS lets nobody go on, or when the receipt is dead: then
the message comes again, and costs duplicates. AWS SQS Developer Guide, "Visibility timeout".

All the work is in `step`, which one thread calls; a test calls it with a clock of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import structlog

from edfn_agent.inputs.clock import Clock
from edfn_agent.inputs.errors import Fault, Kind, fault
from edfn_agent.ops.metrics import Metrics

BATCH = 10
"""Entries in one batch call: what SQS takes."""

LONGEST = 12 * 3600 - 60
"""Seconds a message can be held from its receipt on: SQS's 12 hours, less a minute for clocks and calls."""

DELETE_DELAY = 0.5
"""Seconds a deletion waits for company. Longer saves calls, and costs more duplicates when the agent is killed."""

RETURN_TRIES = 5
"""Then the message is left: its visibility ends by itself."""

_NEVER = float("inf")
_DEAD = {
    *("ReceiptHandleIsInvalid", "AWS.SimpleQueueService.MessageNotInflight", "MessageNotInflight"),
    *("InvalidParameterValue", "InvalidIdFormat", "QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"),
}

log = structlog.get_logger("edfn.inputs.s3")


class Wish(Enum):
    KEEP = "keep"
    DELETE = "delete"
    RETURN = "return"


@dataclass(slots=True, eq=False)
class Held:
    """One message in hand. Times are the monotonic clock's."""

    receipt: str
    name: str  # the message id, for the log
    timeout: float
    received: float
    extend_at: float = 0.0
    wish: Wish = Wish.KEEP
    due: float = 0.0  # when the deletion or return is to be tried (again)
    asked: float = 0.0
    pause: int = 0
    tries: int = 0
    lost: bool = field(default=False)

    @property
    def end(self) -> float:
        return self.received + LONGEST


class Keeper:
    """For one queue. `call()` gives the client and the queue's URL."""

    def __init__(
        self,
        queue: str,
        call: Callable[[], tuple[Any, str]],
        metrics: Metrics,
        clock: Clock,
        delay: float = DELETE_DELAY,
    ) -> None:
        self._queue, self._call, self._metrics, self._clock, self._delay = queue, call, metrics, clock, delay
        self._lock, self._stepping = threading.Lock(), threading.Lock()
        self._held: dict[int, Held] = {}
        self._wake = threading.Event()
        self._flush = False
        self._ending = False
        self._thread: threading.Thread | None = None

    @property
    def count(self) -> int:
        return len(self._held)

    @property
    def kept(self) -> int:
        """Those whose fate is open."""
        with self._lock:
            return sum(held.wish is Wish.KEEP for held in self._held.values())

    def take(self, receipt: str, name: str, timeout: float) -> Held:
        now = self._clock.monotonic()
        held = Held(receipt, name, timeout, now, extend_at=now + timeout / 2)
        with self._lock:
            self._held[id(held)] = held
        self._wake.set()
        return held

    def delete(self, held: Held) -> None:
        self._ask(held, Wish.DELETE, 0)

    def give_back(self, held: Held, pause: int) -> None:
        """Visible again after `pause` seconds."""
        self._ask(held, Wish.RETURN, pause)

    def leave(self, held: Held) -> None:
        """Visible again when its time is up."""
        self._forget(held)

    def give_back_all(self) -> int:
        """The agent stops and its patience is over: what is still in hand goes back at once. How many that were."""
        with self._lock:
            kept = [held for held in self._held.values() if held.wish is Wish.KEEP]
        for held in kept:
            self.give_back(held, 0)
        return len(kept)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"keeper {self._queue}", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Say everything that was asked for, as far as it goes in `timeout` seconds."""
        self._ending = self._flush = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def step(self) -> float | None:
        """Do what is due. Seconds until something will be; None: nothing in hand."""
        with self._stepping:
            self._do_what_is_due()
        return self._next()

    def _do_what_is_due(self) -> None:
        now = self._clock.monotonic()
        with self._lock:
            held = list(self._held.values())
        returns = [each for each in held if each.wish is Wish.RETURN and each.due <= now]
        extends = [each for each in held if each.wish is not Wish.RETURN and each.extend_at <= now]
        deletes = [each for each in held if each.wish is Wish.DELETE and each.due <= now]
        for part in _parts(returns):
            self._return(part)
        for part in _parts(extends):
            self._extend(part)
        full = len(deletes) - len(deletes) % BATCH
        if self._flush or any(each.asked + self._delay <= now for each in deletes):
            full = len(deletes)
        for part in _parts(deletes[:full]):
            self._delete(part)

    def _next(self) -> float | None:
        now = self._clock.monotonic()
        with self._lock:
            times = [self._due(each) for each in self._held.values()]
        return max(0.0, min(times) - now) if times else None

    def _due(self, held: Held) -> float:
        if held.wish is Wish.RETURN:
            return held.due
        if held.wish is Wish.DELETE:
            return min(held.extend_at, max(held.due, held.asked + (0.0 if self._flush else self._delay)))
        return held.extend_at

    def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                pause = self.step()
            except Exception:  # a bug here must not end the extensions of everything else in hand
                log.exception("keeping messages failed", source=self._queue)
                pause = 1.0
            if self._ending and pause is None:
                return
            self._clock.wait(self._wake, pause)

    def _ask(self, held: Held, wish: Wish, pause: int) -> None:
        with self._lock:
            if id(held) not in self._held or held.wish is Wish.RETURN:
                return  # given back already, by a stop: too late for another word
            held.wish, held.pause, held.tries = wish, pause, 0
            held.asked = held.due = self._clock.monotonic()
        self._wake.set()

    def _forget(self, held: Held) -> None:
        with self._lock:
            self._held.pop(id(held), None)

    def _extend(self, part: Sequence[Held]) -> None:
        now = self._clock.monotonic()
        entries = []
        for number, held in enumerate(part):
            seconds = int(min(held.timeout, held.end - now))
            if seconds < 1:
                held.extend_at = _NEVER
                self._lose(held, "12 hours are over, SQS extends no longer")
            else:
                entries.append({"Id": str(number), "ReceiptHandle": held.receipt, "VisibilityTimeout": seconds})
        for held, found in self._batch("change_message_visibility_batch", part, entries):
            if found is None:
                held.extend_at = now + min(held.timeout, held.end - now) / 2
                self._metrics.sqs_extended.inc()
            elif found.code in _DEAD or found.kind is Kind.MISSING:
                held.extend_at = _NEVER
                self._lose(held, str(found))
            else:
                held.extend_at = now + min(5.0, held.timeout / 8)

    def _return(self, part: Sequence[Held]) -> None:
        entries = [
            {"Id": str(number), "ReceiptHandle": held.receipt, "VisibilityTimeout": held.pause}
            for number, held in enumerate(part)
        ]
        for held, found in self._batch("change_message_visibility_batch", part, entries):
            held.tries += 1
            if found is None:
                self._metrics.sqs_returned.inc()
            if found is None or found.code in _DEAD or found.kind is Kind.MISSING or held.tries >= RETURN_TRIES:
                self._forget(held)
            else:
                held.due = self._clock.monotonic() + min(5.0, 0.5 * 2.0**held.tries)

    def _delete(self, part: Sequence[Held]) -> None:
        entries = [{"Id": str(number), "ReceiptHandle": held.receipt} for number, held in enumerate(part)]
        for held, found in self._batch("delete_message_batch", part, entries):
            held.tries += 1
            if found is None:
                self._metrics.sqs_deleted.inc()
                self._forget(held)
            elif found.code in _DEAD or found.kind is Kind.MISSING:
                self._lose(held, str(found))
                self._forget(held)
            else:
                held.due = self._clock.monotonic() + min(30.0, 0.5 * 2.0 ** min(held.tries, 10))

    def _batch(
        self, action: str, part: Sequence[Held], entries: list[dict[str, Any]]
    ) -> list[tuple[Held, Fault | None]]:
        """One batch call: for each entry, what AWS said against it. A call that failed whole failed for each."""
        if not entries:
            return []
        try:
            client, url = self._call()
            answer = getattr(client, action)(QueueUrl=url, Entries=entries)
            failed = {entry["Id"]: _entry_fault(entry) for entry in answer.get("Failed", [])}
        except Exception as error:
            found = fault(error)
            log.warning("queue does not take the answers", source=self._queue, tried=action, error=str(found))
            failed = {entry["Id"]: found for entry in entries}
        return [(part[int(entry["Id"])], failed.get(entry["Id"])) for entry in entries]

    def _lose(self, held: Held, why: str) -> None:
        if not held.lost:
            held.lost = True
            self._metrics.sqs_lost.inc()
            log.warning("message is lost to the queue, it comes again", source=self._queue, message=held.name, why=why)


def _entry_fault(entry: dict[str, Any]) -> Fault:
    return Fault(Kind.OTHER, str(entry.get("Code", "")), str(entry.get("Message", "")))


def _parts(all_of_them: Sequence[Held]) -> list[Sequence[Held]]:
    """Ten at a time; a receipt that was handed over twice is not twice in one call, which would be refused whole."""
    parts: list[list[Held]] = []
    receipts: list[set[str]] = []
    for held in all_of_them:
        if not parts or len(parts[-1]) == BATCH or held.receipt in receipts[-1]:
            parts.append([])
            receipts.append(set())
        parts[-1].append(held)
        receipts[-1].add(held.receipt)
    return list(parts)
