"""Messages: records packed greedily under a size limit (RFC 7011 section 3.1 to 3.3).

In: runs of records, each of one template, in the order they are to be sent, and whole template sets. Out: `Messages`,
many messages in one buffer. Order is kept, records are never split, a set changes when the template does, a message is
filled before the next one starts. Python works a run or a message, never a record. Never: padding (RFC 7011 allows it
and needs it nowhere), the clock, what was sent before; see `exporting`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .errors import EncodingError, TooLongError
from .records import Records

VERSION = 10
MESSAGE_HEADER = struct.Struct(">HHIII")  # version, length, export time, sequence number, observation domain
SET_HEADER = struct.Struct(">HH")  # set id, length
MAX_MESSAGE_SIZE = 65535  # what the length of a header can say

_HEADERS = np.dtype(  # both headers of a message with one set
    [
        *(("version", ">u2"), ("length", ">u2"), ("time", ">u4"), ("sequence", ">u4"), ("domain", ">u4")),
        *(("set_id", ">u2"), ("set_length", ">u2")),
    ]
)


_ZERO = np.zeros(1, np.int64)


class Messages:
    """Messages back to back in one buffer. Iterating gives a memoryview of each; nothing is copied."""

    __slots__ = ("_starts", "buffer", "counts", "lengths", "records")

    def __init__(
        self,
        buffer: NDArray[np.uint8],
        lengths: NDArray[np.int64],
        counts: NDArray[np.int64],
        records: int | None = None,
    ) -> None:
        self.buffer = buffer  # exactly the octets of the messages
        self.lengths = lengths  # of each message
        self.counts = counts  # how many data records, options records included, each message carries
        self.records = int(counts.sum()) if records is None else records  # in all messages
        self._starts: NDArray[np.int64] | None = None

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each message begins in the buffer. Worked out when asked for, as one small batch needs it never."""
        if self._starts is None:
            self._starts = np.cumsum(self.lengths) - self.lengths
        return self._starts

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[memoryview]:
        view = self.buffer.data
        at = 0
        for length in self.lengths.tolist():
            yield view[at : at + length]
            at += length

    def __getitem__(self, part: slice) -> Messages:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError("messages are sliced in order, step 1")
        stop = max(start, stop)
        lengths = self.lengths[start:stop]
        begin = int(self.starts[start]) if start < len(self) else 0
        return Messages(self.buffer[begin : begin + int(lengths.sum())], lengths, self.counts[start:stop])

    def __bytes__(self) -> bytes:
        return self.buffer.tobytes()

    def __repr__(self) -> str:
        return f"<{len(self)} messages, {self.records} records, {self.buffer.size} octets>"


def pack(
    pieces: Sequence[Records | bytes],
    *,
    export_time: int,
    domain: int,
    sequence: int = 0,
    max_message_size: int = 1400,
) -> Messages:
    """Packs runs of records, and whole sets given as octets (template sets, which no sequence number counts).

    `sequence` is the number of data records sent before in this transport session and domain (RFC 7011 section 3.1).
    """
    for name, value in (("export time", export_time), ("observation domain", domain)):
        if not 0 <= value <= 0xFFFFFFFF:
            raise EncodingError(f"{name} {value} is not in 0..4294967295")
    if not MESSAGE_HEADER.size + SET_HEADER.size < max_message_size <= MAX_MESSAGE_SIZE:
        raise EncodingError(f"max_message_size {max_message_size} is not in 21..65535")
    packer = _Packer(pieces, export_time, domain, sequence, max_message_size)
    for piece in pieces:
        if isinstance(piece, bytes):
            packer.whole_set(piece)
        elif piece.length is None:
            packer.variable_run(piece)
        else:
            packer.fixed_run(piece, piece.length)
    return packer.finish()


class _Packer:
    """One buffer large enough for everything; `at` is where the next octet goes, `start` where its message begins."""

    def __init__(
        self, pieces: Sequence[Records | bytes], export_time: int, domain: int, sequence: int, limit: int
    ) -> None:
        self.export_time, self.domain, self.limit = export_time, domain, limit
        self.first = self.sequence = sequence  # of the first message, of the open message
        self.buffer = np.empty(sum(_most_octets(piece, limit) for piece in pieces), np.uint8)
        self.view = self.buffer.data
        self.lengths: list[int] = []
        self.counts: list[int] = []
        self.at = self.start = 0
        self.count = 0  # records in the open message
        self.set_id = 0  # of the open set, 0: none
        self.set_start = 0

    def room(self, set_id: int) -> int:
        """How many octets of records of this set the open message can still take. May be negative."""
        used = self.at - self.start or MESSAGE_HEADER.size
        return self.limit - used - (0 if set_id == self.set_id else SET_HEADER.size)

    def put(self, set_id: int, octets: memoryview, count: int) -> None:
        """Records that fit, into the open message."""
        if self.at == self.start:
            self.at += MESSAGE_HEADER.size
        if self.set_id != set_id:
            self.close_set()
            self.set_id, self.set_start = set_id, self.at
            self.at += SET_HEADER.size
        end = self.at + len(octets)
        self.view[self.at : end] = octets
        self.at = end
        self.count += count

    def close_set(self) -> None:
        if self.set_id:
            SET_HEADER.pack_into(self.view, self.set_start, self.set_id, self.at - self.set_start)
            self.set_id = 0

    def close_message(self) -> None:
        length = self.at - self.start
        if not length:
            return
        self.close_set()
        MESSAGE_HEADER.pack_into(
            self.view, self.start, VERSION, length, self.export_time, self.sequence & 0xFFFFFFFF, self.domain
        )
        self.lengths.append(length)
        self.counts.append(self.count)
        self.sequence += self.count
        self.start, self.count = self.at, 0

    def whole_set(self, octets: bytes) -> None:
        self.close_set()
        if len(octets) > self.limit - MESSAGE_HEADER.size:
            set_id, _ = SET_HEADER.unpack_from(octets)
            raise TooLongError(
                f"a set {set_id} of {len(octets)} octets fits into no message of {self.limit} octets"
                f" ({MESSAGE_HEADER.size} are the header)"
            )
        if len(octets) > self.room(0):
            self.close_message()
        if self.at == self.start:
            self.at += MESSAGE_HEADER.size
        self.view[self.at : self.at + len(octets)] = octets
        self.at += len(octets)

    def fixed_run(self, run: Records, length: int) -> None:
        set_id, count = run.template.id, run.count
        fitting = min(count, max(0, self.room(set_id) // length))
        if fitting:
            self.put(set_id, run.octets.data[: fitting * length], fitting)
        if fitting == count:
            return
        per_message = (self.limit - 20) // length
        if not per_message:
            raise _too_long(run, length, self.limit)
        self.close_message()
        # Full messages at once; the last one, full or not, stays open for what follows.
        full = (count - fitting - 1) // per_message
        if full:
            self.equal_messages(run, length, fitting, per_message, full)
            fitting += full * per_message
        self.put(set_id, run.octets.data[fitting * length :], count - fitting)

    def equal_messages(self, run: Records, length: int, first: int, per_message: int, full: int) -> None:
        """Messages that differ in their sequence numbers and records only: a matrix, one message a row."""
        body = per_message * length
        size = 20 + body
        end = self.at + full * size
        rows = self.buffer[self.at : end].reshape(full, size)
        header = MESSAGE_HEADER.pack(VERSION, size, self.export_time, 0, self.domain)
        rows[:, :20] = np.frombuffer(header + SET_HEADER.pack(run.template.id, 4 + body), np.uint8)
        numbers = (np.arange(full) * per_message + (self.sequence & 0xFFFFFFFF)) & 0xFFFFFFFF
        rows[:, 8:12] = numbers.astype(">u4").view(np.uint8).reshape(full, 4)
        rows[:, 20:] = run.octets[first * length : first * length + full * body].reshape(full, body)
        self.lengths.extend([size] * full)
        self.counts.extend([per_message] * full)
        self.sequence += full * per_message
        self.at = self.start = end

    def variable_run(self, run: Records) -> None:
        if run.ends is None or not run.count:
            return
        set_id, count, octets, ends = run.template.id, run.count, run.octets.data, run.ends
        done = int(np.searchsorted(ends, self.room(set_id), "right"))
        if done:
            self.put(set_id, octets[: int(ends[done - 1])], done)
        if done == count:
            return
        self.close_message()
        # Up to which record a message takes that begins with this one: for all at once, as a search for each message
        # would be Python for each.
        starts = np.concatenate((_ZERO, ends[:-1]))
        following = np.searchsorted(ends, starts + (self.limit - 20), "right").tolist()
        cuts = [done]  # where each message ends, counted in records
        while done < count:
            upto = following[done]
            if upto == done:
                raise _too_long(run, int(ends[done] - starts[done]), self.limit)
            done = upto
            cuts.append(done)
        borders = starts[cuts[:-1]].tolist()  # and in octets of the run
        self.unequal_messages(run, cuts[:-1], borders)
        self.put(set_id, octets[borders[-1] :], count - cuts[-2])

    def unequal_messages(self, run: Records, cuts: list[int], borders: list[int]) -> None:
        """Full messages of one run, each with the records up to the next cut and the octets up to the next border."""
        full = len(cuts) - 1
        if not full:
            return
        octets, view, at = run.octets.data, self.view, self.at
        starts = []
        for begin, end in pairwise(borders):
            starts.append(at)
            at += 20
            view[at : at + end - begin] = octets[begin:end]
            at += end - begin
        counts, bodies = np.diff(cuts), np.diff(borders)
        headers = np.empty(full, _HEADERS)
        headers["version"], headers["length"] = VERSION, bodies + 20
        headers["time"], headers["domain"] = self.export_time, self.domain
        headers["sequence"] = (np.cumsum(counts) - counts + (self.sequence & 0xFFFFFFFF)) & 0xFFFFFFFF
        headers["set_id"], headers["set_length"] = run.template.id, bodies + 4
        places = np.array(starts)[:, np.newaxis] + np.arange(20)
        self.buffer[places] = headers.view(np.uint8).reshape(full, 20)
        self.lengths.extend((bodies + 20).tolist())
        self.counts.extend(counts.tolist())
        self.sequence += cuts[-1] - cuts[0]
        self.at = self.start = at

    def finish(self) -> Messages:
        self.close_message()
        lengths, counts = np.array(self.lengths, dtype=np.int64), np.array(self.counts, dtype=np.int64)
        return Messages(self.buffer[: self.at], lengths, counts, self.sequence - self.first)


def _most_octets(piece: Records | bytes, limit: int) -> int:
    """A bound for what a piece can take: its octets, and 20 for every message it can begin, and for its set."""
    if isinstance(piece, bytes):
        return len(piece) + MESSAGE_HEADER.size
    if piece.length is not None:
        return piece.octets.size + 20 * (piece.count // max(1, (limit - 20) // piece.length) + 2)
    # Two messages in a row of one run hold together more than a message can, so there are at most twice as many.
    return piece.octets.size + 20 * (2 * (piece.octets.size // (limit - 20)) + 3)


def _too_long(run: Records, length: int, limit: int) -> TooLongError:
    return TooLongError(
        f"a record of template {run.template.id} has {length} octets; a message of {limit} octets"
        f" has room for {limit - 20} (16 are the message header, 4 the set header)"
    )
