"""The courier: the child that the MultiLangDaemon starts for one shard. Standard library only; run by its path.

In: the daemon's JSON lines on stdin. Out: each batch of records to the agent over a unix socket; then, when the agent
says that all of it has gone out, a checkpoint and a status line to the daemon. Never: anything else on stdout, a
checkpoint past what was acknowledged, a status line after an error. On any error it leaves with status 1, because the
daemon takes a shard up again only when its child is gone: a status line would lose the batch at the next checkpoint.

The socket speaks in frames: two lengths (4 octets each), a JSON object, then raw octets. Exchanges never overlap:

    courier                                         agent
    {"is": "hello", "stream", "shard", "pid"}   →
                                                ←   {"is": "ready"}
    {"is": "records", "sizes", "sequences",     →   one frame holds at most PORTION octets, or one record
     "subs", "more", "behind",
     "arrived"} + the records
                                                ←   {"is": "working"}    any number of times: be patient
                                                ←   {"is": "more"}       taken in, where "more" is true
                                                ←   {"is": "done"}       every record of the batch has gone out, or
                                                ←   {"is": "refused", "count", "reason"}  only the first `count` have
    {"is": "checkpoint", "sequence", "tries"}   →   nothing comes back to these two
    {"is": "end", "why"}                        →
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import time
from binascii import a2b_base64
from collections.abc import Callable
from typing import Any, BinaryIO

Frame = tuple[dict[str, Any], bytes]

LENGTHS = struct.Struct("!II")
HEADER_LIMIT = 4 * 2**20
"""Longest JSON part: some 30 000 sequence numbers; a portion has at most PORTION_RECORDS of them."""
BODY_LIMIT = 16 * 2**20
"""Longest raw part. Kinesis allows records of 10 MiB."""
PORTION = 2**20
PORTION_RECORDS = 2000
PATIENCE = 60.0
"""Seconds without a word from the agent. It says `working` every ten, however long its collectors keep it waiting, so a
minute of silence means that it hangs: then another agent should have the lease."""
CHECKPOINT_PAUSE = 0.5
CHECKPOINT_TRIES = 6  # 0.5 + 1 + 2 + 4 + 8 seconds in between, as the lease table's throttling rarely lasts longer
RETRIED = frozenset({"ThrottlingException", "KinesisClientLibDependencyException"})


class Failure(Exception):
    """Why the courier leaves. The daemon logs it, and starts again from the last checkpoint."""


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    encoded = json.dumps(header, separators=(",", ":")).encode()
    return LENGTHS.pack(len(encoded), len(body)) + encoded + body


def read_frame(read: Callable[[int], bytes]) -> Frame | None:
    """The next frame, None at a clean end. `read(n)` gives n octets, fewer only at the end.

    Raises ValueError for what is no frame, before any memory is spent on it.
    """
    lengths = read(LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < LENGTHS.size:
        raise ValueError("the connection ended within a frame")
    header_size, body_size = LENGTHS.unpack(lengths)
    if header_size > HEADER_LIMIT or body_size > BODY_LIMIT:
        raise ValueError(f"a frame of {header_size} + {body_size} octets is over the limit")
    encoded = read(header_size)
    body = read(body_size) if body_size else b""
    if len(encoded) < header_size or len(body) < body_size:
        raise ValueError("the connection ended within a frame")
    header = json.loads(encoded)
    if not isinstance(header, dict):
        raise ValueError("a frame without a JSON object")
    return header, body


class Agent:
    """The courier's end of the socket. Also watches stdin while it waits: a dead daemon needs no courier."""

    def __init__(self, path: str, stdin: int, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(patience)
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(stdin, 0)  # nothing asked for: what is told all the same is the hang-up
        self._stdin = stdin
        try:
            self._socket.connect(path)
        except OSError as error:
            raise Failure(f"the agent cannot be reached at {path}: {error}") from error

    def tell(self, header: dict[str, Any], body: bytes = b"") -> None:
        try:
            self._socket.sendall(pack(header, body))
        except OSError as error:
            raise Failure(f"the agent does not listen: {error}") from error

    def ask(self, header: dict[str, Any], body: bytes = b"") -> dict[str, Any]:
        self.tell(header, body)
        while True:
            try:
                frame = read_frame(self._read)
            except (OSError, ValueError) as error:
                raise Failure(f"the agent's answer cannot be read: {error}") from error
            if frame is None:
                raise Failure("the agent is gone")
            if frame[0].get("is") != "working":
                return frame[0]

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            ready = dict(self._poll.poll(self._patience * 1000))
            if self._stdin in ready:
                raise Failure("the daemon is gone")
            if not ready:
                raise Failure(f"the agent said nothing for {self._patience:.0f} s")
            part = self._socket.recv(size - len(data))
            if not part:
                break
            data += part
        return data


class Courier:
    """One shard's traffic, for as long as the daemon holds its lease."""

    def __init__(self, lines: BinaryIO, out: BinaryIO, socket_path: str, stream: str) -> None:
        self._lines = lines
        self._out = out
        self._socket_path = socket_path
        self._stream = stream
        self._agent: Agent | None = None

    def run(self) -> None:
        """Until the end of stdin."""
        while line := self._lines.readline():
            message = json.loads(line)
            action = message["action"]
            if action == "initialize":
                self._initialize(message)
            elif action == "processRecords":
                self._process(message)
            elif action == "shardEnded":
                # Without this checkpoint the shards that came out of a split or a merge are never read.
                self._checkpoint(None, None)
                self._end(action)
            elif action in ("leaseLost", "shutdownRequested"):
                # What was acknowledged is checkpointed already, and a lost lease takes no checkpoint.
                self._end(action)
            else:
                raise Failure(f"the daemon asks for {action!r}, which this courier does not know")
            self._say({"action": "status", "responseFor": action})

    def _initialize(self, message: dict[str, Any]) -> None:
        self._agent = Agent(self._socket_path, self._lines.fileno())
        hello = {"is": "hello", "stream": self._stream, "shard": message["shardId"], "pid": os.getpid()}
        answer = self._agent.ask(hello)
        if answer.get("is") != "ready":
            raise Failure(f"the agent does not want this shard: {answer.get('reason', answer)}")

    def _process(self, message: dict[str, Any]) -> None:
        records = message["records"]
        accepted = self._hand_over(records, message.get("millisBehindLatest"))
        if accepted.get("is") == "done":
            count = len(records)
        elif accepted.get("is") == "refused":
            count = min(int(accepted["count"]), len(records))
        else:
            raise Failure(f"the agent answers {accepted!r}")
        if count:
            last = records[count - 1]
            self._checkpoint(last["sequenceNumber"], last.get("subSequenceNumber"))
        if accepted["is"] == "refused":
            raise Failure(f"{len(records) - count} of {len(records)} records did not go out: {accepted.get('reason')}")

    def _hand_over(self, records: list[dict[str, Any]], behind: int | None) -> dict[str, Any]:
        """Portion by portion; the answer to the last one is for all of them."""
        if self._agent is None:
            raise Failure("records before initialize")
        start = 0
        while True:
            bodies: list[bytes] = []
            size = 0
            for record in records[start : start + PORTION_RECORDS]:
                body = a2b_base64(record["data"])
                if bodies and size + len(body) > PORTION:
                    break
                bodies.append(body)
                size += len(body)
            portion = records[start : start + len(bodies)]
            start += len(bodies)
            header = {
                "is": "records",
                "sizes": [len(body) for body in bodies],
                "sequences": [record["sequenceNumber"] for record in portion],
                "subs": [record.get("subSequenceNumber") for record in portion],
                "more": start < len(records),
                "behind": behind,
                "arrived": portion[-1].get("approximateArrivalTimestamp") if portion else None,
            }
            answer = self._agent.ask(header, b"".join(bodies))
            if not header["more"] or answer.get("is") != "more":
                return answer

    def _checkpoint(self, sequence: str | None, sub: int | None) -> None:
        """Tell the daemon how far the shard is done. None is the end of the shard."""
        for tries in range(1, CHECKPOINT_TRIES + 1):
            self._say({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub})
            line = self._lines.readline()
            if not line:
                raise Failure("the daemon ended during a checkpoint")
            answer = json.loads(line)
            if answer.get("action") != "checkpoint":
                raise Failure(f"the daemon answers a checkpoint with {answer.get('action')!r}")
            error = answer.get("error")
            if not error:
                if self._agent is not None:
                    self._agent.tell({"is": "checkpoint", "sequence": sequence, "tries": tries})
                return
            if error == "ShutdownException":
                # Another worker has the lease and will bring these records again: nothing to retry, leaseLost follows.
                return
            if error not in RETRIED or tries == CHECKPOINT_TRIES:
                raise Failure(f"checkpoint at {sequence or 'the end of the shard'} failed, try {tries}: {error}")
            time.sleep(CHECKPOINT_PAUSE * 2 ** (tries - 1))

    def _end(self, why: str) -> None:
        if self._agent is not None:
            self._agent.tell({"is": "end", "why": why})

    def _say(self, message: dict[str, Any]) -> None:
        # A newline on both sides: should anything else ever have reached this pipe, the message still has its own line.
        self._out.write(b"\n" + json.dumps(message, separators=(",", ":")).encode() + b"\n")
        self._out.flush()


def main(arguments: list[str]) -> int:
    socket_path, stream = arguments
    # The daemon's process group may be told to end: the batch under way comes first, and the end is that of stdin.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Descriptor 1 belongs to the protocol alone; whatever else prints goes to stderr, which the daemon logs.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        Courier(sys.stdin.buffer, out, socket_path, stream).run()
    except Failure as failure:
        sys.stderr.write(f"courier: {failure}\n")
        return 1
    except BaseException as error:
        sys.stderr.write(f"courier: {type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)  # not sys.exit: flushing a pipe whose reader is gone must not change the status
