"""The agent's end of the couriers' socket.

In: frames from the couriers, one connection for each shard under lease (`courier` has the exchanges). Out: one Delivery
per record to `submit`, in the connection's thread, and the word `done` to the courier when all records of its batch are
settled. One Delivery per record, because a record that is rubbish must not take its neighbours to the quarantine.
Never: `done` for a batch of which a record was returned, or could not be put into quarantine.

What is in the agent at one time: a batch per shard, which AWS keeps below 10 MiB; the courier sends the next only when
the one before is settled, and a frame is refused above its limit before anything is allocated.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edfn_agent.delivery import Delivery, Origin, Outcome
from edfn_agent.inputs.kinesis.courier import pack, read_frame
from edfn_agent.inputs.kinesis.figures import ShardFigures, StreamFigures

log = logging.getLogger(__name__)

Submit = Callable[[Delivery], None]
Quarantine = Callable[[Delivery, str, bytes], None]
"""Keeps (delivery, reason, payload) for a person. Raises when it cannot: the record then stays in the stream."""

WORKING_EVERY = 10.0
"""Seconds between two `working`: a sixth of the courier's patience."""
_PEER = struct.Struct("3i")  # SO_PEERCRED: pid, uid, gid


class SocketError(Exception):
    """The place for the socket cannot be used."""


class Batch:
    """Records of one processRecords call, until the last of them is settled. Then `answer` is called, once."""

    __slots__ = ("_answer", "_lock", "_open", "_quarantine", "_reason", "_returned", "count", "started")

    def __init__(self, answer: Callable[[Batch, int | None, str], None], quarantine: Quarantine) -> None:
        self.count = 0
        self.started = time.monotonic()
        self._answer = answer
        self._quarantine = quarantine
        self._lock = threading.Lock()
        self._open = 1  # held by the reader, until the last portion is handed over
        self._returned: int | None = None  # the first record that has to come again
        self._reason = ""

    def record(self, origin: Origin, name: str, data: memoryview) -> Delivery:
        with self._lock:
            self._open += 1
        number = self.count
        self.count += 1
        record = _Record(self, number, data)
        record.delivery = Delivery(origin, name, record.chunks, record.settle)
        return record.delivery

    def settle(self, number: int, delivery: Delivery, data: memoryview, outcome: Outcome, reason: str) -> None:
        if outcome is Outcome.QUARANTINED:
            try:
                self._quarantine(delivery, reason, bytes(data))
            except Exception as error:
                outcome, reason = Outcome.RETURNED, f"{delivery.name} cannot be quarantined ({reason}): {error}"
        with self._lock:
            if outcome is Outcome.RETURNED and (self._returned is None or number < self._returned):
                self._returned, self._reason = number, reason
        self.release()

    def release(self) -> None:
        with self._lock:
            self._open -= 1
            if self._open:
                return
        self._answer(self, self._returned, self._reason)


class _Record:
    __slots__ = ("batch", "data", "delivery", "number")

    delivery: Delivery

    def __init__(self, batch: Batch, number: int, data: memoryview) -> None:
        self.batch = batch
        self.number = number
        self.data = data

    def chunks(self) -> Iterable[bytes]:
        return (bytes(self.data),)

    def settle(self, outcome: Outcome, reason: str) -> None:
        self.batch.settle(self.number, self.delivery, self.data, outcome, reason)


class _Refused(Exception):
    """What a courier sent that no courier sends."""


class Connection:
    """One courier, from `hello` until it leaves. Runs in a thread of its own, from which it submits."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self._server = server
        self._socket = connection
        self._file = connection.makefile("rb", buffering=2**16)
        self._send_lock = threading.Lock()
        self._batch: Batch | None = None
        self._figures: StreamFigures | None = None
        self._shard: ShardFigures | None = None
        self._origin: Origin | None = None
        self._why_ended = ""

    def run(self) -> None:
        reason = "its process ended"
        try:
            self._greet()
            while frame := read_frame(self._file.read):
                self._take(*frame)
        except (OSError, ValueError, KeyError, TypeError, _Refused) as error:
            if not self._server.closed:
                reason = str(error) or type(error).__name__
                self._send({"is": "refused", "count": 0, "reason": reason})
        finally:
            self.close()
            if self._figures is not None and self._shard is not None:
                expected = bool(self._why_ended) or self._server.closed
                if not expected:
                    log.warning("kinesis %s %s: courier lost: %s", self._figures.name, self._shard.name, reason)
                self._figures.left(self._shard, self._why_ended or reason, expected)

    def close(self) -> None:
        """From any thread: the reader wakes up with an end of stream."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def working(self) -> None:
        if self._batch is not None:
            self._send({"is": "working"})

    def _greet(self) -> None:
        _, uid, _ = _PEER.unpack(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in (os.getuid(), 0):
            raise _Refused(f"user {uid} is not the agent's")
        frame = read_frame(self._file.read)
        if frame is None:
            return
        hello = frame[0]
        if hello.get("is") != "hello":
            raise _Refused("no hello")
        figures = self._server.stream(str(hello["stream"]))
        if figures is None:
            raise _Refused(f"stream {hello['stream']!r} is not read by this agent")
        self._figures = figures
        self._shard = figures.arrived(str(hello["shard"]), int(hello["pid"]))
        self._origin = Origin("kinesis", figures.arn, region=figures.region)
        self._send({"is": "ready"})

    def _take(self, header: dict[str, Any], body: bytes) -> None:
        assert self._shard is not None
        match header.get("is"):
            case "records":
                self._records(header, body)
            case "checkpoint":
                self._shard.checkpointed(header["sequence"], int(header["tries"]))
            case "end":
                # The first word is the reason: on a shutdown, leaseLost follows shutdownRequested.
                self._why_ended = self._why_ended or str(header["why"])
            case unknown:
                raise _Refused(f"frame {unknown!r} is not known")

    def _records(self, header: dict[str, Any], body: bytes) -> None:
        assert self._figures is not None
        assert self._shard is not None
        assert self._origin is not None
        sizes, sequences, subs = header["sizes"], header["sequences"], header["subs"]
        if not (len(sizes) == len(sequences) == len(subs)) or sum(sizes) != len(body) or min(sizes, default=0) < 0:
            raise _Refused("the sizes of the records do not add up")
        batch = self._batch
        if batch is None:
            batch = self._batch = Batch(self._settled, self._server.quarantine)
        view = memoryview(body)
        prefix = f"{self._figures.name}:{self._shard.name}:"
        position = 0
        for size, sequence, sub in zip(sizes, sequences, subs, strict=True):
            name = f"{prefix}{sequence}.{sub}" if sub else f"{prefix}{sequence}"
            delivery = batch.record(self._origin, name, view[position : position + size])
            position += size
            try:
                self._server.submit(delivery)
            except Exception as error:
                # Whether or not it came to be settled: this batch is not complete, and the courier has to know.
                log.warning("kinesis %s: not taken: %s", name, error)
                raise _Refused(f"{name} was not taken: {error}") from error
        self._shard.received(len(sizes), len(body), header.get("behind"), header.get("arrived"))
        if header.get("more"):
            self._send({"is": "more"})
        else:
            batch.release()

    def _settled(self, batch: Batch, returned: int | None, reason: str) -> None:
        """In whichever thread let go last."""
        assert self._shard is not None
        self._batch = None
        self._shard.settled(returned is not None, time.monotonic() - batch.started)
        if returned is None:
            self._send({"is": "done"})
        else:
            log.warning(
                "kinesis %s: %d of %d records stay in the stream: %s",
                self._shard.name,
                batch.count - returned,
                batch.count,
                reason,
            )
            self._send({"is": "refused", "count": returned, "reason": reason})

    def _send(self, header: dict[str, Any]) -> None:
        # A courier that is gone needs no answer: its records come again with the next one.
        with suppress(OSError), self._send_lock:
            self._socket.sendall(pack(header))


class Server:
    """Listens at `path`, in a directory that only the agent's user can enter."""

    def __init__(
        self, path: Path, submit: Submit, quarantine: Quarantine, stream: Callable[[str], StreamFigures | None]
    ) -> None:
        self.path = path
        self.submit = submit
        self.quarantine = quarantine
        self.stream = stream
        self.closed = False
        self._connections: set[Connection] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._listener: socket.socket | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        directory = self.path.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            self.path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(self.path))
            self.path.chmod(0o600)
            listener.listen(128)
        except OSError as error:
            raise SocketError(f"no socket for Kinesis at {self.path}: {error}. Check `state_directory`.") from error
        self._listener = listener
        for run, name in ((self._accept, "kinesis-accept"), (self._tick, "kinesis-tick")):
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """After the daemons have ended. A batch that is still on its way is settled to nobody."""
        self.closed = True
        self._wake.set()
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # close alone does not wake up accept
            self._listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close()
        for thread in self._threads:
            thread.join(5)
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        assert self._listener is not None
        while not self.closed:
            try:
                accepted, _ = self._listener.accept()
            except OSError as error:
                if not self.closed:
                    log.error("kinesis: no courier can be accepted: %s", error)
                    self._wake.wait(1)  # out of descriptors, most likely; the couriers come again
                continue
            threading.Thread(target=self._serve, args=(accepted,), name="kinesis-courier", daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        connection = Connection(self, accepted)
        with self._lock:
            self._connections.add(connection)
        try:
            connection.run()
        finally:
            with self._lock:
                self._connections.discard(connection)

    def _tick(self) -> None:
        while not self._wake.wait(WORKING_EVERY):
            with self._lock:
                connections = list(self._connections)
            for connection in connections:
                connection.working()
