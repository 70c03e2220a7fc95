"""Deliveries in, batches out: the one path from octets to columns.

A Reader looks at the first octets of a delivery, unwraps what is around the lines (gzip, envelopes, Parquet), finds the
layout and has a scanner append rows to the columns of (origin, layout). A batch is given out when its columns are full,
or when `flush` is called, so that many small deliveries share a batch and a large one makes many, on the same path.

It never waits, never settles a delivery (each batch holds those it has rows of), and never keeps more than a bounded
number of rows, whatever the input.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from edfn_agent.delivery import Delivery, Origin
from edfn_agent.formats import envelopes
from edfn_agent.formats.batch import BadLine, Counts, FlowBatch
from edfn_agent.formats.columns import END, FULL, HEADER, MAX_LINE, Columns, words
from edfn_agent.formats.containers import (
    GZIP_MAGIC,
    IDLE_LIMIT,
    PARQUET_MAGIC,
    PIECE,
    Again,
    Chunks,
    Gunzip,
    Source,
    other_kind,
    pieces,
)
from edfn_agent.formats.engine import Scanner
from edfn_agent.formats.errors import NotAFlowLog, OtherLogGroup
from edfn_agent.formats.layout import DEFAULT, TRANSIT_GATEWAY_DEFAULT, Layout, LayoutError
from edfn_agent.formats.text import Buffer, explain, is_timestamp, printable, read_address, split

MAX_NESTING = 3
"""Gzip inside gzip: Firehose makes two levels of a subscription's records; one more is for whoever archives them."""

MAX_PENDING = 128
"""Origins and layouts with rows that wait for more; the one that was used longest ago goes when there are more."""

PENDING_BATCHES = 4
"""How many full batches of rows may wait, over all origins and layouts: then the largest is given out."""

LOOKED_AT = 8
"""Lines by which a log group is told from one that holds flow logs of an unknown layout."""

SHOWN_BAD_LINES = 5
"""Malformed lines of one delivery that are kept for people; the rest is only counted."""

_FRONT, _SLACK = 16, 80  # a scanner reads so far beyond both ends of a text; without the room it makes a copy
_BATCH_BAD_LINES = 100  # of one batch: thousands of small deliveries may each have some
_CACHE = 4096  # entries of a cache whose keys come from the input

LayoutsOf = Callable[[Origin], Sequence[Layout]]
Give = Callable[[FlowBatch], None]


class _Pending:
    """The rows of one origin and layout that wait to become a batch."""

    __slots__ = ("bad_lines", "counts", "deliveries", "layout", "octets_per_row", "origin", "scan", "scanner", "used")

    def __init__(self, origin: Origin, layout: Layout, wanted: Collection[str] | None, rows: int) -> None:
        self.origin = origin
        self.layout = layout
        self.scanner = Scanner(Columns(words(layout, wanted), rows), layout.timestamped)
        self.scan = self.scanner.scan
        self.octets_per_row = self.scanner.columns.octets_per_row
        self.deliveries: list[Delivery] = []
        self.counts = Counts()
        self.bad_lines: list[BadLine] = []
        self.used = 0


class _Route:
    """Which layouts the lines of an origin may have when no header line says so: the first one, unless the number of
    words in a line is that of another. With `guess` nobody knows, and the Transit Gateway's default is one of them."""

    __slots__ = ("first", "guess", "layouts", "others")

    def __init__(self, first: _Pending, layouts: tuple[Layout, ...], guess: bool) -> None:
        self.first = first
        self.layouts = layouts
        self.guess = guess
        flags = bytearray(256)
        for layout in layouts:
            if len(layout.names) < 256:
                flags[len(layout.names)] = 1
        self.others = bytes(flags) if len(layouts) > 1 else None

    def layout_of(self, found: list[bytes]) -> Layout | None:
        """The layout that a line with these words fits."""
        for layout in self.layouts:
            own = found[1:] if layout.timestamped else found
            if len(own) != len(layout.names):
                continue
            if not self.guess or layout is self.layouts[0] or own[1] == b"TransitGateway":
                return layout
        return None


_NOWHERE: tuple[Origin | None, tuple[Layout, ...], _Route | None] = (None, (), None)


class Reader:
    """See the module. One thread at a time; each `feed` is used up before the next one begins.

    During and after a feed: `tally`, what that delivery held; `by_origin`, the same for each log group, when it was
    made of envelopes; `control_messages` and `undelivered` (in Firehose's error output), which are no log events.
    """

    def __init__(
        self,
        wanted: Collection[str] | None = None,
        layouts_of: LayoutsOf | None = None,
        batch_rows: int = 32768,
        fallback: Layout = DEFAULT,
    ) -> None:
        """`wanted`: the columns somebody needs (None: all); others are not converted, nor checked, nor kept.

        `layouts_of`: what discovery or the configuration knows of an origin; asked for every delivery and envelope.
        `fallback`: for lines of which nobody knows anything.
        """
        self.tally = Counts()
        self.by_origin: dict[Origin, Counts] = {}
        self._met = _NOTHING_MET
        self._wanted = None if wanted is None else frozenset(wanted)
        self._layouts_of = layouts_of
        self._batch_rows = batch_rows
        self._unknown = (fallback,) if len(fallback.names) == 36 else (fallback, TRANSIT_GATEWAY_DEFAULT)
        self._pending: dict[tuple[Origin, Layout], _Pending] = {}
        self._routes: dict[tuple[Origin, tuple[Layout, ...]], _Route] = {}
        self._routed: tuple[Origin | None, tuple[Layout, ...], _Route | None] = _NOWHERE  # the last one taken
        self._headers: dict[bytes, Layout | None] = {}
        self._origins: dict[tuple[Origin, str, str], Origin] = {}
        self._rows = self._octets = 0
        self._clock = 0
        # What is being read: the beginning of a line, if there is one, and the octets that were read last.
        self._window = bytearray(_FRONT + MAX_LINE + PIECE + _SLACK)
        self._view = memoryview(self._window)
        # Of the delivery that is being read:
        self._give: Give
        self._delivery: Delivery
        self._origin: Origin  # of the section: the delivery's, or that of an envelope in it
        self._current: _Pending
        self._route: _Route
        self._others: bytes | None = None
        self._opening = False  # the next line is the first of its section
        self._line = 0
        self._headed = False
        self._shown = 0
        self._first_bad = ""
        self._hint = ""
        self._barren = 0
        self._readable = 0

    @property
    def control_messages(self) -> int:
        return self._met.control_messages

    @property
    def undelivered(self) -> int:
        return self._met.undelivered

    @property
    def pending_rows(self) -> int:
        """Rows that wait to become a batch."""
        return self._rows

    @property
    def pending_octets(self) -> int:
        """Octets of memory that these rows take, about."""
        return self._octets

    def feed(self, delivery: Delivery, give: Give) -> None:
        """Read a delivery; batches that become full are given out at once.

        Raises FormatError after everything before the fault was taken in, and whatever reading the chunks or `give`
        raises.
        """
        self._give = give
        self._delivery = delivery
        self._origin = delivery.origin
        self.tally = Counts()
        if self.by_origin or self._met is not _NOTHING_MET:
            self.by_origin = {}
            self._met = _NOTHING_MET
        self._line = self._shown = self._barren = self._readable = 0
        self._headed = False
        self._first_bad = self._hint = ""
        chunks = delivery.chunks()
        if type(chunks) is list and len(chunks) == 1 and type(chunks[0]) is bytes and _is_plain(chunks[0]):
            self._whole(chunks[0])
        else:
            self._unwrap(Chunks(delivery, chunks), 0)

    def flush(self, give: Give) -> None:
        """Give out all rows that wait, and counts that no batch has carried yet (in a batch without rows)."""
        self._give = give
        for pending in self._pending.values():
            if pending.scanner.rows or pending.bad_lines or pending.counts != _NOTHING:
                self._emit(pending)

    # -- what is around the lines --------------------------------------------------------------------------------------

    def _unwrap(self, source: Source, depth: int) -> None:
        view, start = self._view, _FRONT
        stop = start + source.readinto(view[start : start + PIECE])
        while stop - start < 4:
            size = source.readinto(view[stop : start + PIECE])
            if not size:
                break
            stop += size
        head = bytes(view[start : min(stop, start + 512)])
        if head.startswith(GZIP_MAGIC):
            if depth == MAX_NESTING:
                raise NotAFlowLog(f"gzip inside gzip, more than {MAX_NESTING} deep")
            self._unwrap(Gunzip(Again(bytes(view[start:stop]), source)), depth + 1)
            return
        if head.startswith(PARQUET_MAGIC):
            self._parquet(Again(bytes(view[start:stop]), source))
            return
        if head.startswith(b"\xef\xbb\xbf"):  # a byte order mark, from an editor
            head = head[3:]
            start += 3
        first = head[:1]
        if first.isspace():
            first = bytes(view[start:stop]).lstrip()[:1]
        if first in (b"{", b"["):
            self._envelopes(Again(bytes(view[start:stop]), source))
            self._judge_envelopes()
        else:
            kind = other_kind(head)
            if kind:
                raise NotAFlowLog(kind)
            self._text(source, start, stop)
            self._judge_text(stop > start)

    def _whole(self, text: bytes) -> None:
        """Lines that are in memory, all of them, are read where they lie: there may be thousands of pages a second with
        an event or two in each."""
        self._delivery.octets += len(text)
        self._open(self._origin)
        self._lines(text, 0, len(text), True)
        if not self.tally.flows:
            self._judge_text(True)

    def _text(self, source: Source, start: int, stop: int) -> None:
        """Lines, the first of which are in the window. What is not a whole line yet goes to the window's front."""
        window, view = self._window, self._view
        self._open(self._origin)
        skipping = False  # in the rest of a line that is too long
        while True:
            size = stop - start
            if skipping:
                newline = window.find(b"\n", start, stop)
                skipping = newline < 0
                start = stop if skipping else newline + 1
            if start < stop:
                start = self._lines(window, start, stop, False)
            self._note_progress(size)
            if stop - start > MAX_LINE:
                self._line += 1
                self._opening = False
                text = printable(bytes(window[start : start + 100]))
                self._add_bad(self._current, 1, [(self._line, f"longer than {MAX_LINE} octets", text)])
                skipping = True
                start = stop
            left = stop - start
            if left:
                window[_FRONT : _FRONT + left] = window[start:stop]
            start, stop = _FRONT, _FRONT + left
            # a fault leaves the line that it cut off unread: it might look whole
            size = source.readinto(view[stop : stop + PIECE])
            if not size:
                break
            stop += size
        if start < stop:
            self._lines(window, start, stop, True)

    def _envelopes(self, source: Source) -> None:
        tally = self.tally
        self._met = envelopes.Met()
        for section in envelopes.sections(pieces(source), self._met):
            origin = self._delivery.origin
            if section.owner or section.group:
                origin = self._origin_of(section.owner, section.group)
            self.tally = Counts()
            said = self._shown, self._first_bad, self._hint
            self._open(origin)
            self._lines(section.text, 0, len(section.text), True)
            for _ in range(section.without_message):
                self._line += 1
                self._add_bad(self._current, 1, [(self._line, "an event without a message", "")])
            if self.tally.malformed and self._is_of_another_group(section, origin):
                self._set_aside(origin)
                self._shown, self._first_bad, self._hint = said
            tally.add(self.tally)
            if origin in self.by_origin:
                self.by_origin[origin].add(self.tally)
            else:
                self.by_origin[origin] = self.tally
            self.tally = tally
            self._note_progress(len(section.text))

    def _is_of_another_group(self, section: envelopes.Section, origin: Origin) -> bool:
        """Whether an envelope is of a log group that holds no flow logs: nobody knows the group as one that does,
        nothing in it could be read, and nothing looks as if it could be with another layout."""
        if not section.group or not self._route.guess or self.tally.readable:
            return False
        if origin in self.by_origin and self.by_origin[origin].readable:
            return False
        return not any(_looks_like_a_flow_log(line, split(line)) for line in _first_lines(section.text))

    def _set_aside(self, origin: Origin) -> None:
        """What was counted as malformed in this section is no flow log's."""
        left = self.tally.malformed
        self.tally.malformed, self.tally.other_log_group = 0, left
        for pending in self._pending.values():
            if pending.origin == origin and left:
                moved = min(left, pending.counts.malformed)
                pending.counts.malformed -= moved
                pending.counts.other_log_group += moved
                pending.bad_lines = [each for each in pending.bad_lines if each.source != self._delivery.name]
                left -= moved

    def _parquet(self, source: Source) -> None:
        from edfn_agent.formats import parquet  # pyarrow takes longer to import than all else

        delivery = self._delivery
        lines = False
        for part in parquet.parts(pieces(source), self._wanted, self._batch_rows, SHOWN_BAD_LINES):
            if isinstance(part, bytes):
                if not part:
                    self._open(self._origin)
                    lines = True
                else:
                    self._lines(part, 0, len(part), True)
                    self._note_progress(len(part))
                continue
            self._headed = True
            self.tally.add(part.counts)
            if part.counts == _NOTHING:
                continue
            bad = [BadLine(delivery.name, number, reason, text) for number, reason, text in part.bad]
            held: list[Delivery] = []
            if part.rows:
                delivery.hold()
                held.append(delivery)
            self._give(
                FlowBatch(delivery.origin, part.layout, part.rows, part.columns, part.family, part.counts, bad, held)
            )
        if lines:
            self._judge_text(False)

    def _origin_of(self, owner: str, group: str) -> Origin:
        key = (self._delivery.origin, owner, group)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) > _CACHE:
                self._origins.clear()
            base = self._delivery.origin
            # the log group says more than where the object lies: several flow logs may write there
            origin = replace(
                base,
                account_id=owner or base.account_id,
                log_group=group or base.log_group,
                flow_log_id=None if group else base.flow_log_id,
            )
            self._origins[key] = origin
        return origin

    def _note_progress(self, octets: int) -> None:
        """Give up after a long stretch in which no line could be read: a bomb, or something else altogether."""
        tally = self.tally
        readable = tally.flows + tally.nodata + tally.skipdata + tally.without_addresses
        if readable != self._readable:
            self._readable = readable
            self._barren = 0
            return
        self._barren += octets
        if self._barren > IDLE_LIMIT:
            raise NotAFlowLog(f"no line of a stretch of {IDLE_LIMIT >> 20} MiB could be read{self._why()}")

    # -- from lines to rows --------------------------------------------------------------------------------------------

    def _open(self, origin: Origin) -> None:
        """A section begins: lines of one origin, with a header line or without."""
        self._origin = origin
        self._opening = True
        layout = self._delivery.layout
        if layout is not None:
            self._direct((layout,), False)
            return
        known = self._layouts_of(origin) if self._layouts_of is not None else ()
        known = known or self._delivery.layouts
        if known:
            self._direct(tuple(known), False)
        else:
            self._direct(self._unknown, True)

    def _direct(self, layouts: tuple[Layout, ...], guess: bool) -> None:
        origin, known, route = self._routed
        if route is not None and origin is self._origin and known is layouts:
            # the usual case: one more small delivery of a source; hashing its origin would cost as much as its lines
            self._route, self._current, self._others = route, route.first, route.others
            self._clock += 1
            route.first.used = self._clock
            return
        route = self._routes.get((self._origin, layouts))
        if route is None:
            if len(self._routes) > _CACHE:
                self._routes.clear()
                self._routed = _NOWHERE
            route = _Route(self._pending_of(layouts[0]), layouts, guess)
            self._routes[self._origin, layouts] = route
        self._routed = (self._origin, layouts, route)
        self._route = route
        self._current = route.first
        self._others = route.others
        self._clock += 1
        route.first.used = self._clock

    def _pending_of(self, layout: Layout) -> _Pending:
        key = (self._origin, layout)
        pending = self._pending.get(key)
        if pending is None:
            if len(self._pending) >= MAX_PENDING:
                oldest = min(self._pending.values(), key=lambda each: each.used)
                self._emit(oldest)
                del self._pending[oldest.origin, oldest.layout]
                self._routes.clear()
                self._routed = _NOWHERE
            pending = self._pending[key] = _Pending(self._origin, layout, self._wanted, self._batch_rows)
        self._clock += 1
        pending.used = self._clock
        return pending

    def _lines(self, buffer: Buffer, start: int, stop: int, final: bool) -> int:
        """Read the whole lines in a buffer; returns where the first incomplete one begins."""
        if self._opening:
            start = self._begin(buffer, start, stop, final)
            if self._opening:
                return start
        as_data = False
        while True:
            pending = self._current
            scanner = pending.scanner
            rows = scanner.rows
            scanner.line = self._line
            code = pending.scan(buffer, start, stop, final, as_data, self._others)
            self._line = scanner.line
            start = scanner.position
            rows = scanner.rows - rows
            if rows:
                pending.counts.flows += rows
                self.tally.flows += rows
                self._rows += rows
                self._octets += rows * pending.octets_per_row
                if not pending.deliveries or pending.deliveries[-1] is not self._delivery:
                    self._delivery.hold()
                    pending.deliveries.append(self._delivery)
            if scanner.apart:
                self._count(pending, buffer)
            if self._rows > PENDING_BATCHES * self._batch_rows:
                self._emit(max(self._pending.values(), key=lambda each: each.scanner.rows))
            if code == END:
                if scanner.rows == self._batch_rows:
                    self._emit(pending)
                return start
            if code == FULL:
                self._emit(pending)
                as_data = False
                continue
            newline = buffer.find(b"\n", start, stop)
            end = newline if newline >= 0 else stop
            line = bytes(buffer[start:end])
            if code == HEADER:
                layout = self._header(line)
                as_data = layout is None
                if layout is not None:
                    self._begin_layout(layout)
                    start = min(end + 1, stop)
            else:
                layout = self._route.layout_of(split(line))
                as_data = layout is None
                if layout is not None:
                    self._current = self._pending_of(layout)

    def _begin(self, buffer: Buffer, start: int, stop: int, final: bool) -> int:
        """Look at the first line of a section: a header line, a time in front, or data. Returns where to go on."""
        if start < stop and buffer[start] <= 32:
            # empty lines, of which there may be very many
            ink = stop - len(bytes(buffer[start:stop]).lstrip(b" \r\n"))
            end = buffer.rfind(b"\n", start, ink) + 1
            if end:
                self._line += buffer.count(b"\n", start, end)
                start = end
        if start < stop:
            newline = buffer.find(b"\n", start, stop)
            if newline < 0 and not final:
                return start
            end = newline if newline >= 0 else stop
            first = buffer[start]
            if 97 <= first <= 122:
                layout = self._header(bytes(buffer[start : min(end, start + MAX_LINE + 1)]))
                if layout is not None:
                    self._begin_layout(layout)
                    start = min(end + 1, stop)
            elif end - start > 20 and buffer[start + 10] == 84:  # T
                if is_timestamp(bytes(buffer[start : min(end, start + 64)]).split(b" ")[0]):
                    layouts = tuple(each if each.timestamped else _stamped(each) for each in self._route.layouts)
                    self._direct(layouts, self._route.guess)
                elif self._route.layouts[0].timestamped:
                    self._unstamp()
            elif self._route.layouts[0].timestamped:
                self._unstamp()
            self._opening = False
        return start

    def _unstamp(self) -> None:
        """Export tasks put a time in front of each line, everything else does not: what is there decides."""
        self._direct(tuple(replace(each, timestamped=False) for each in self._route.layouts), self._route.guess)

    def _begin_layout(self, layout: Layout) -> None:
        """A header line was read: it says what the following lines are, and nothing else does."""
        self._headed = True
        self._line += 1
        self._others = None
        self._current = self._pending_of(layout)

    def _header(self, line: bytes) -> Layout | None:
        """The layout that a line names, when it is a header line rather than data."""
        if len(line) > MAX_LINE:
            return None
        if line in self._headers:
            return self._headers[line]
        layout: Layout | None = None
        try:
            text = line.decode("ascii").rstrip("\r")
            # commas and ${} are for people to write; no file has them in its header
            layout = None if "," in text or "$" in text else Layout.parse(text)
        except (UnicodeDecodeError, LayoutError):
            pass
        if layout is not None:
            known = len(layout.names) - len(layout.unknown)
            if known < 2 and layout.unknown and layout.names != self._current.layout.names:
                return None  # one word of data may happen to be a name; not kept, since it depends on what is current
        if len(self._headers) > _CACHE:
            self._headers.clear()
        self._headers[line] = layout
        return layout

    def _count(self, pending: _Pending, buffer: Buffer) -> None:
        scanner = pending.scanner
        for counts in (pending.counts, self.tally):
            counts.nodata += scanner.nodata
            counts.skipdata += scanner.skipdata
            counts.without_addresses += scanner.without_addresses
        if scanner.malformed:
            shown = []
            if self._shown < SHOWN_BAD_LINES:
                for number, begin, end in scanner.bad[: SHOWN_BAD_LINES - self._shown]:
                    line = bytes(buffer[begin : min(end, begin + MAX_LINE + 1)])
                    shown.append((number, explain(scanner.columns.words, line, scanner.timestamped), printable(line)))
                    if not self._hint:
                        self._hint = self._hint_from(line, pending.layout)
            self._add_bad(pending, scanner.malformed, shown)

    def _add_bad(self, pending: _Pending, number: int, shown: Sequence[tuple[int, str, str]]) -> None:
        pending.counts.malformed += number
        self.tally.malformed += number
        for line, reason, text in shown:
            if not self._first_bad:
                self._first_bad = f"line {line}: {reason}"
            if self._shown < SHOWN_BAD_LINES and len(pending.bad_lines) < _BATCH_BAD_LINES:
                pending.bad_lines.append(BadLine(self._delivery.name, line, reason, text))
            self._shown += 1

    def _emit(self, pending: _Pending) -> None:
        """What waits becomes a batch, which takes the holds on its deliveries with it."""
        scanner = pending.scanner
        rows = scanner.rows
        scanner.sync()
        columns, family = scanner.columns.take(rows, scanner.dictionaries)
        batch = FlowBatch(
            pending.origin, pending.layout, rows, columns, family, pending.counts, pending.bad_lines, pending.deliveries
        )
        self._rows -= rows
        self._octets -= rows * pending.octets_per_row
        pending.counts = Counts()
        pending.bad_lines = []
        pending.deliveries = []
        scanner.renew()
        self._give(batch)  # the last step: it may raise

    # -- was it a flow log at all --------------------------------------------------------------------------------------

    def _judge_text(self, anything: bool) -> None:
        tally = self.tally
        if self._headed or tally.flows or tally.nodata or tally.skipdata or tally.without_addresses:
            return
        if tally.malformed:
            raise NotAFlowLog(f"no line could be read{self._why()}")
        raise NotAFlowLog("nothing but empty lines" if anything else "empty")

    def _judge_envelopes(self) -> None:
        tally, met = self.tally, self._met
        if self._headed or tally.flows or tally.nodata or tally.skipdata or tally.without_addresses:
            return
        groups = sorted({origin.log_group for origin in self.by_origin if origin.log_group})
        names = ", ".join(groups[:3]) + (" and others" if len(groups) > 3 else "")
        if tally.malformed:
            if met.envelopes and groups:
                raise NotAFlowLog(f"log group {names}: none of {tally.malformed} events could be read{self._why()}")
            raise NotAFlowLog(f"no line could be read{self._why()}")
        if tally.other_log_group:
            raise OtherLogGroup(f"log group {names}: none of its {tally.other_log_group} events is a flow log's")
        if met.undelivered:
            raise NotAFlowLog(f"error output of Firehose: {met.undelivered} records whose rawData cannot be read")
        if met.strange:
            keys = ", ".join(printable(key.encode("utf-8", "replace")) for key in met.strange_keys)
            raise NotAFlowLog(f"JSON, but no log events (keys: {keys})" if keys else "JSON, but no log events")
        if not met.envelopes and not met.control_messages:
            raise NotAFlowLog("JSON, but no log events")

    def _why(self) -> str:
        why = f" ({self._first_bad})" if self._first_bad else ""
        return why + (f"; {self._hint}" if self._hint else "")

    def _hint_from(self, line: bytes, layout: Layout) -> str:
        """What to do about a line that is a flow log's, but not of this layout."""
        found = split(line[:MAX_LINE])
        if layout.timestamped:
            found = found[1:]
        if len(found) == len(layout.names):
            return ""
        if not _looks_like_a_flow_log(line, found):
            return ""
        which = "the default format" if layout.names == DEFAULT.names else "the layout"
        return f"lines have {len(found)} words, {which} has {len(layout.names)}: name the layout"


def _looks_like_a_flow_log(line: bytes, found: list[bytes]) -> bool:
    """Of whatever layout: two addresses, or a status and an interface."""
    addresses = sum(1 for word in found if read_address(word) is not None)
    statuses = sum(1 for word in found if word in (b"OK", b"NODATA", b"SKIPDATA", b"ACCEPT", b"REJECT"))
    return addresses >= 2 or (statuses > 0 and b"eni-" in line)


def _first_lines(text: bytes) -> list[bytes]:
    return [line[:MAX_LINE] for line in text.split(b"\n", LOOKED_AT)[:LOOKED_AT]]


def _is_plain(text: bytes) -> bool:
    """Whether what is there can be nothing but lines: a number or the name of a field comes first, and it is no tar."""
    return text[:1] in _BEGINNINGS and text[257:262] != b"ustar"


_BEGINNINGS = frozenset(b"%c" % octet for octet in b"0123456789abcdefghijklmnopqrstuvwxyz")


_NOTHING = Counts()  # compared with, never changed
_NOTHING_MET = envelopes.Met()


def _stamped(layout: Layout) -> Layout:
    return replace(layout, timestamped=True)
