"""One SQS queue: receive its messages, read the objects they announce, settle each message by how its objects came out.

In: a queue, clients, settings. Out: a Delivery per object, handed to `submit` in a worker's thread. Never: a deletion
before the acknowledgement, a listing of a bucket, a write to one.

Threads of one queue: one that receives (long polling), up to `concurrency` that read, one that keeps messages
(keeper.py). A settled delivery comes back on whatever thread let go of it. What becomes of a message is decided in
fate.py alone.

In memory are `concurrency` chunks of 256 KiB, what `IN_HAND` messages say of their objects (less than 1 KiB each), and
what the pipeline holds of the records, which it bounds itself.
"""

from __future__ import annotations

import queue as queues_of_threads
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from edfn_agent.delivery import Delivery, Origin, Outcome
from edfn_agent.inputs import keys, queues
from edfn_agent.inputs.claims import Claims
from edfn_agent.inputs.clock import Clock, Deadline
from edfn_agent.inputs.errors import Kind, ReadFailed, fault
from edfn_agent.inputs.fate import Action, Fate, Rules, fate
from edfn_agent.inputs.health import Health, HealthRecord
from edfn_agent.inputs.keeper import DELETE_DELAY, Held, Keeper
from edfn_agent.inputs.notifications import Notification, ObjectRef, Shape, parse
from edfn_agent.inputs.objects import Gone, Objects
from edfn_agent.inputs.queues import Queue
from edfn_agent.inputs.sent import Sent
from edfn_agent.ops.metrics import Metrics
from edfn_agent.state import State, StateError

INPUT = "s3"

WAIT = 20
"""Seconds of long polling: the most SQS takes; an idle queue then costs 130,000 calls a month."""

IN_HAND = 256
"""Messages of one queue read and not yet settled: small objects wait up to 200 ms in the pipeline for company, at 1,000
objects a second that is 200 of them. It is also what a kill can cost in duplicates."""

FACTS_FOR = 300.0
"""Seconds after which a queue is asked again for its visibility timeout and redrive policy."""

FAILURES_IN_A_ROW = 5
"""After so many refused objects without one that was read, the queue pauses: it is the permission, not the object."""

LOOK_AHEAD = 1.0
"""Seconds of work received ahead of the workers, by their measured speed: small objects are not waited for one by one,
big ones are left for other readers of the queue."""

ENDLESS = 3
"""Times `max_receives`: a message that was received so often never came to its end. What kills the agent (or its host)
each time is not read again: without a redrive policy it goes to the quarantine untried."""

Clients = Callable[[str, str, str], Any]
"""(account id, region, service) -> boto3 client. May raise what botocore raises for bad credentials."""

log = structlog.get_logger("edfn.inputs.s3")


@dataclass(frozen=True)
class Settings:
    concurrency: int = 2  # objects read at a time, per queue
    max_receives: int = 5  # without a redrive policy: tries before the quarantine
    delete_foreign: bool = False  # notifications of something else: False leaves them to whoever shares the queue
    filter: keys.KeyFilter = field(default_factory=keys.KeyFilter)
    duplicate_window: float = 12 * 3600.0  # seconds; 0: a second announcement is sent again
    requester_pays: bool = False
    read_through: Mapping[str, str] = field(default_factory=dict)  # bucket -> access point ARN
    wait: int = WAIT
    in_hand: int = IN_HAND
    delete_delay: float = DELETE_DELAY


class Message:
    """A received message, and how its objects came out so far."""

    def __init__(self, held: Held, body: str, receives: int, found: Notification) -> None:
        self.held, self.receives, self.notification = held, receives, found
        self.body = body if found.shape is Shape.UNREADABLE else ""  # only the quarantine wants it
        self.foreign = bool(found.foreign) or found.shape is Shape.FOREIGN
        self.several = len(found.objects) > 1
        self.jobs: list[Job] = []
        self.open = 0
        self.lock = threading.Lock()


class Job:
    """One object of a message."""

    def __init__(self, message: Message, ref: ObjectRef, about: keys.KeyFacts) -> None:
        self.message, self.ref, self.about = message, ref, about
        self.outcome: Outcome | None = None
        self.reason = ""
        self.claimed = False


class QueueReader:
    """Reads one queue. Made, started and stopped by S3Input."""

    def __init__(
        self,
        queue: Queue,
        clients: Clients,
        submit: Callable[[Delivery], object],
        state: State,
        metrics: Metrics,
        settings: Settings,
        claims: Claims,
        sent: Sent,
        clock: Clock,
    ) -> None:
        self.queue, self.settings = queue, settings
        self._clients, self._submit, self._state, self._metrics = clients, submit, state, metrics
        self._claims, self._sent, self._clock = claims, sent, clock
        self._record = HealthRecord(INPUT, queue.name, clock, log, metrics)
        self._stopping, self._abort = threading.Event(), threading.Event()
        self._objects = Objects(
            lambda region: clients(queue.account_id, region, "s3"),
            queue.account_id,
            queue.region,
            metrics,
            clock=clock,
            abort=self._abort,
            requester_pays=settings.requester_pays,
            read_through=settings.read_through,
        )
        self._keeper = Keeper(queue.name, self._call, metrics, clock, settings.delete_delay)
        self._facts, self._facts_until = queues.Facts(), 0.0
        self._url: str | None = None
        self._jobs: queues_of_threads.SimpleQueue[Job | None] = queues_of_threads.SimpleQueue()
        self._room = threading.Condition()
        self._waiting = 0  # jobs received and not begun
        self._busy = 0
        self._workers = 0
        self._seconds = 0.0  # per object, smoothed
        self._failures = 0  # in a row
        self._hold_until = 0.0
        self._receiver = threading.Thread(target=self._receive, name=f"receive {queue.name}", daemon=True)

    # From outside

    def start(self) -> None:
        self._keeper.start()
        self._receiver.start()

    def health(self) -> Health:
        return self._record.get()

    def stop_reading(self) -> None:
        """No new message, no new object. What is begun goes on."""
        self._stopping.set()
        with self._room:
            self._room.notify_all()

    def stop(self, deadline: Deadline) -> None:
        """Wait for what is in hand until `deadline`, give back the rest, say all deletions."""
        self.stop_reading()
        reserve = last_calls(deadline.left())
        with self._room:
            while self._unsettled() and (left := deadline.left() - reserve) > 0:
                self._room.wait(min(left, 0.1))
        self._abort.set()
        returned = self._keeper.give_back_all()
        if returned:
            log.warning("stopped with messages in hand, returned to the queue", source=self.queue.name, count=returned)
        for _ in range(self._workers):
            self._jobs.put(None)
        self._keeper.stop(max(deadline.left(), 0.0))

    def _unsettled(self) -> int:
        return self._keeper.kept

    # Receiving

    def _call(self) -> tuple[Any, str]:
        client = self._clients(self.queue.account_id, self.queue.region, "sqs")
        if self._url is None:
            self._url = self.queue.find(client)
        return client, self._url

    def _receive(self) -> None:
        while (room := self.wait_for_room()) > 0:
            try:
                messages = self.receive(room)
            except Exception as error:
                pause = self._receive_failed(error)
                self._clock.wait(self._stopping, pause)
                continue
            self._record.succeeded("receive")
            for message in messages:
                try:
                    self.take(message)
                except Exception:  # a bug: this message comes again by itself, the others are read
                    log.exception("taking a message failed", source=self.queue.name, message=message.get("MessageId"))

    def _receive_failed(self, error: Exception) -> float:
        found = fault(error)
        if found.kind is Kind.MISSING:
            self._url = None  # made again, it may have another
        action = {Kind.DENIED: "sqs:ReceiveMessage is missing", Kind.KEY_DENIED: "kms:Decrypt is missing"}
        tried = action.get(found.kind, "ReceiveMessage failed")
        text = f"{tried} (account {self.queue.account_id}, region {self.queue.region}): {found}"
        return self._record.failed("receive", text)

    def wait_for_room(self) -> int:
        """How many messages can be worked on now; waits for at least one. 0: the agent stops."""
        with self._room:
            while not self._stopping.is_set():
                held = self._hold_until - self._clock.monotonic()
                room = receive_size(
                    self.settings.concurrency, self._busy, self._waiting, self._seconds, self.settings.in_hand
                )
                room = min(room, self.settings.in_hand - self._keeper.count)
                if room > 0 and held <= 0:
                    return room
                self._room.wait(held if held > 0 else None)
        return 0

    def receive(self, room: int) -> list[Any]:
        client, url = self._call()
        self._refresh_facts(client, url)
        # While it is not known to work, the answer is wanted at once: readiness does not wait for a long poll.
        wait = self.settings.wait if self._record.get().ok else 0
        request: dict[str, Any] = {"QueueUrl": url, "MaxNumberOfMessages": room, "WaitTimeSeconds": wait}
        request["MessageSystemAttributeNames"] = ["ApproximateReceiveCount"]
        if self._facts.asked_timeout is not None:
            request["VisibilityTimeout"] = self._facts.asked_timeout
        messages: list[Any] = client.receive_message(**request).get("Messages", [])
        self._metrics.sqs_received.inc(len(messages))
        return messages

    def _refresh_facts(self, client: Any, url: str) -> None:
        now = self._clock.monotonic()
        if now < self._facts_until:
            return
        try:
            self._facts = queues.facts(client, url)
        except Exception as error:
            found = fault(error)
            if found.kind not in (Kind.DENIED, Kind.KEY_DENIED):
                raise
            log.warning(
                "the queue's visibility timeout and redrive policy are not known: sqs:GetQueueAttributes is missing",
                source=self.queue.name,
                visibility_s=self._facts.visibility,
                error=str(found),
            )
        self._facts_until = now + FACTS_FOR

    def take(self, received: Mapping[str, Any]) -> None:
        """One received message: sort it, keep it, give its objects to the workers."""
        held = self._keeper.take(received["ReceiptHandle"], received["MessageId"], self._facts.visibility)
        if self._stopping.is_set():  # the long poll ended after the stop
            self._keeper.give_back(held, 0)
            self._keeper.step()  # its thread may be gone by now
            return
        receives = int(received.get("Attributes", {}).get("ApproximateReceiveCount", 1))
        message = Message(held, received["Body"], receives, parse(received["Body"]))
        for ref in message.notification.objects:
            self._sort(message, ref)
        if not self._facts.redrive and receives > ENDLESS * self.settings.max_receives:
            for job in message.jobs:
                job.outcome, job.reason = Outcome.QUARANTINED, f"received {receives} times and never came to an end"
        todo = [job for job in message.jobs if job.outcome is None]
        message.open = len(todo)
        if not todo:
            self._finish(message)
            return
        self._metrics.deliveries_in_flight.labels(INPUT).inc(len(todo))
        for job in todo:
            self._put(job)

    def _sort(self, message: Message, ref: ObjectRef) -> None:
        """An object to read becomes a job; what is no flow log by its key is counted, or left with the message."""
        about = keys.facts(ref.key)
        if about.kind is keys.Kind.FOREIGN or not self.settings.filter.allows(ref.key):
            message.foreign = True
            self._ignored("filtered", message, object=ref.name)
            return
        if about.kind is keys.Kind.WRITE_TEST:
            self._ignored(about.kind.value, message, object=ref.name)
            return
        message.jobs.append(Job(message, ref, about))

    def _ignored(self, reason: str, message: Message, **facts: str) -> None:
        self._metrics.notifications_left.labels(reason).inc()
        log.info("message names no flow log", source=self.queue.name, kind=reason, message=message.held.name, **facts)

    def _put(self, job: Job) -> None:
        with self._room:
            self._waiting += 1
            more = self._workers < min(self.settings.concurrency, self._busy + self._waiting)
            if more:
                self._workers += 1
        self._jobs.put(job)
        if more:
            threading.Thread(target=self._work, name=f"read {self.queue.name}", daemon=True).start()

    # Reading

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            started = self._clock.monotonic()
            with self._room:
                self._waiting -= 1
                self._busy += 1
            try:
                self.read(job)
            except Exception as error:  # a bug, or the pipeline's trouble: the message decides, the worker lives on
                log.exception("reading an object failed", object=job.ref.name)
                self._settle(job, Outcome.RETURNED, f"{type(error).__name__}: {error}")
            finally:
                took = self._clock.monotonic() - started
                with self._room:
                    self._busy -= 1
                    self._seconds = took if self._seconds == 0 else 0.8 * self._seconds + 0.2 * took
                    self._room.notify_all()

    def read(self, job: Job) -> None:
        """Open the object, hand it over, and see that the job is settled (now, or by the delivery later)."""
        pause = self._hold_until - self._clock.monotonic()
        if pause > 0:  # received before the others were refused; it is the next to find out
            self._clock.wait(self._stopping, pause)
        if self._stopping.is_set():
            self._settle(job, Outcome.RETURNED, "the agent stops")
        elif self._was_sent(job):
            self._settle(job, Outcome.DUPLICATE, "announced again")
        elif self._claim(job):
            try:
                opened = self._objects.open(job.ref)
            except Gone:
                self._metrics.objects_gone.inc()
                log.warning("object is gone, nothing to send", object=job.ref.name, source=self.queue.name)
                self._settle(job, Outcome.ACKNOWLEDGED, "gone")
            except ReadFailed as failed:
                self._refused(failed)
                self._settle(job, failed.outcome, failed.reason)
            else:
                delivery = Delivery(
                    self._origin(job), job.ref.name, opened.chunks, lambda *result: self._settle(job, *result)
                )
                try:
                    self._submit(delivery)
                except ReadFailed:
                    pass  # said by the delivery's outcome
                finally:
                    opened.close()

    def _origin(self, job: Job) -> Origin:
        about = job.about
        region = about.region or job.ref.region or self.queue.region
        return Origin(INPUT, self.queue.name, about.account_id, region, flow_log_id=about.flow_log_id)

    def _refused(self, failed: ReadFailed) -> None:
        with self._room:
            self._failures += 1
            holding = self._clock.monotonic() < self._hold_until
            if self._failures >= FAILURES_IN_A_ROW and not holding:
                self._hold_until = self._clock.monotonic() + self._record.failed("objects", failed.reason)

    def _read_well(self) -> None:
        if self._failures:
            with self._room:
                self._failures, self._hold_until = 0, 0.0
                self._room.notify_all()
            self._record.succeeded("objects")

    # Duplicates

    def _was_sent(self, job: Job) -> bool:
        message = job.message
        return self._sent.contains(job.ref, message.held.name, message.several, self.settings.duplicate_window)

    def _claim(self, job: Job) -> bool:
        if self.settings.duplicate_window <= 0:
            return True
        job.claimed = self._claims.claim(job.ref.identity, lambda *result: self._settle(job, *result))
        return job.claimed

    # Settling

    def _settle(self, job: Job, outcome: Outcome, reason: str) -> None:
        """One object has come out. With the last one, its message has."""
        message = job.message
        with message.lock:
            if job.outcome is not None:
                return
            job.outcome, job.reason = outcome, reason
            message.open -= 1
            last = message.open == 0
        self._metrics.deliveries_in_flight.labels(INPUT).dec()
        if outcome is Outcome.ACKNOWLEDGED:
            self._sent.add(job.ref, message.held.name, message.several, self.settings.duplicate_window)
            self._read_well()
        if job.claimed:
            self._claims.release(job.ref.identity, outcome)
        if last:
            self._finish(message)

    def _finish(self, message: Message) -> None:
        """Carry out the message's fate."""
        outcomes = [(job.outcome, job.reason) for job in message.jobs if job.outcome is not None]
        shape = message.notification.shape
        rules = Rules(self._facts.redrive, self.settings.max_receives, self.settings.delete_foreign)
        verdict = fate(shape, outcomes, message.foreign, message.receives, rules, self._stopping.is_set())
        if shape in (Shape.TEST, Shape.FOREIGN):
            self._ignored(shape.value, message, events=", ".join(message.notification.foreign))
        if verdict.action is Action.QUARANTINE and not self._quarantine(message, verdict):
            verdict = Fate(Action.RETURN, verdict.pause, verdict.reason)
        self._count(message, verdict)
        match verdict.action:
            case Action.DELETE | Action.QUARANTINE:
                self._keeper.delete(message.held)
            case Action.RETURN:
                self._keeper.give_back(message.held, verdict.pause)
                log.warning(
                    "message returned to the queue",
                    source=self.queue.name,
                    reason=verdict.reason,
                    receives=message.receives,
                    again_in_s=verdict.pause,
                )
            case Action.LEAVE:
                self._keeper.leave(message.held)
        with self._room:
            self._room.notify_all()

    def _count(self, message: Message, verdict: Fate) -> None:
        count = self._metrics.deliveries
        for job in message.jobs:
            outcome = job.outcome
            if outcome in (Outcome.RETURNED, Outcome.QUARANTINED):
                outcome = Outcome.QUARANTINED if verdict.action is Action.QUARANTINE else Outcome.RETURNED
            assert outcome is not None
            count.labels(INPUT, outcome.value).inc()
        if message.notification.shape is Shape.UNREADABLE:
            quarantined = verdict.action is Action.QUARANTINE
            count.labels(INPUT, (Outcome.QUARANTINED if quarantined else Outcome.RETURNED).value).inc()

    def _quarantine(self, message: Message, verdict: Fate) -> bool:
        """Record what is given up. False: it could not be recorded, so it must not go."""
        about = {"queue": self.queue.name, "account_id": self.queue.account_id, "receives": message.receives}
        now = self._clock.now()
        try:
            for job in message.jobs:
                if job.outcome in (Outcome.RETURNED, Outcome.QUARANTINED):
                    detail = about | _place(job.ref)
                    self._state.quarantine.add(INPUT, self.queue.name, job.ref.name, job.reason, now, None, detail)
                    log.error("object quarantined", object=job.ref.name, reason=job.reason, receives=message.receives)
            if message.notification.shape is Shape.UNREADABLE:
                reason = f"{verdict.reason}: {message.notification.reason}"
                name = f"message {message.held.name}"
                self._state.quarantine.add(
                    INPUT, self.queue.name, name, reason, now, message.body.encode("utf-8", "replace"), about
                )
                log.error("message quarantined", source=self.queue.name, message=message.held.name, reason=reason)
        except StateError as error:
            self._metrics.state_errors.inc()
            log.error("quarantine cannot be written, returned instead", source=self.queue.name, error=str(error))
            return False
        return True


def last_calls(timeout: float) -> float:
    """Seconds of a stop that are kept for the last calls of SQS: what is not said holds messages back from others."""
    return min(4.0, max(0.0, timeout / 4))


def receive_size(concurrency: int, busy: int, waiting: int, seconds: float, limit: int) -> int:
    """How many messages to ask for: the free workers' and, by their speed, those of the next second; at most ten."""
    ahead = int(concurrency * LOOK_AHEAD / seconds) if seconds > 0 else 0
    return max(0, min(10, limit, concurrency - busy + ahead - waiting))


def _place(ref: ObjectRef) -> dict[str, Any]:
    return {
        "bucket": ref.bucket,
        "key": ref.key,
        "version_id": ref.version_id,
        "etag": ref.etag,
        "region": ref.region,
        "size": ref.size,
    }
