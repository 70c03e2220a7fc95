"""From flows to collectors: records once, messages per collector, handed over before `send` returns.

In: Flows. Out: the same records at every destination, each at its own pace. `send` blocks while a required collector
cannot take more; that is the agent's back-pressure. One that is not required gets them behind a queue, and misses what
does not fit. Never: reading, acknowledging.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from edfn_agent.enrich import Flows
from edfn_agent.export import tables
from edfn_agent.export.destination import Destination, Stopped
from edfn_agent.export.lanes import Lane, octets_of, records_of
from edfn_agent.export.parts import Parts
from edfn_agent.export.rows import RecordMaker, Runs, Settings
from edfn_agent.export.tables import Tables
from edfn_agent.inventory.exporters import Exporter

WORKER_SHIFT = 24
"""An observation domain is the VPC's number (24 bits) with the worker's above it, so two processes never share one."""


class FlowExporter:
    """Makes records of flows once and sends them to every destination. Used by one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        destinations: Sequence[Destination],
        worker: int = 0,
        abandoned: threading.Event | None = None,
        *,
        type_records: bool = False,
    ) -> None:
        """`type_records`: say on the wire what the elements of profile aws are (RFC 5610)."""
        self.destinations = destinations
        self.abandoned = abandoned or threading.Event()  # who waits in `send` gives up: another exporter is in force
        self.flows = 0  # flow records handed over to every required destination
        self._maker = RecordMaker(settings)
        self._parts = Parts() if settings.profile == "aws" else None  # without strings a batch is never too large
        number = settings.enterprise_number if type_records and settings.profile == "aws" else None
        self._tables = Tables(None if number is None else tables.types(number))
        self._above = worker << WORKER_SHIFT
        required = [destination for destination in destinations if destination.required]
        self._first = required[0] if required else None  # served by the thread that calls `send`
        self._beside = [self._lane(destination) for destination in required[1:]]
        self._optional = [self._lane(destination) for destination in destinations if not destination.required]

    def _lane(self, destination: Destination) -> Lane:
        return Lane(destination, self._tables, self.domain)

    def domain(self, exporter: Exporter) -> int:
        return exporter.domain | self._above

    def send(self, flows: Flows) -> None:
        """Returns when every required destination has taken every record of these flows."""
        for code, interface in flows.new_interfaces:
            self._tables.add(flows.exporters[code], interface)
        for part in self._parts.of(flows) if self._parts is not None else (flows,):
            self._send_part(self._maker.runs(part))

    def _send_part(self, runs: Runs) -> None:
        if not runs:
            return
        try:
            if self._first is None:
                self._wait_for_room(octets_of(runs))
            elif self._beside:
                self._send_side_by_side(self._first, runs)
            else:
                self._first.send(runs, self._tables, self.domain)
        except BaseException:
            self.flows += min((each.handed for each in self.destinations if each.required), default=0)
            raise
        for lane in self._optional:  # last, so that what is tried again comes to them once
            lane.offer(runs)
        self.flows += records_of(runs)

    def _send_side_by_side(self, first: Destination, runs: Runs) -> None:
        """To all that are required at once, each at its pace. What went wrong with one ends it for all."""
        everyone = [first, *(lane.destination for lane in self._beside)]

        def end_all(done: Future[None]) -> None:
            if done.exception() is not None:
                for destination in everyone:
                    destination.cut.set()

        for destination in everyone:
            destination.cut.clear()
        handed = [lane.hand(runs) for lane in self._beside]
        for each in handed:
            each.add_done_callback(end_all)
        problems: list[Exception] = []
        try:
            first.send(runs, self._tables, self.domain)
        except BaseException as error:
            for destination in everyone:
                destination.cut.set()
            if not isinstance(error, Exception):
                raise
            problems.append(error)
        problems += [problem for each in handed if isinstance(problem := each.exception(), Exception)]
        if problems:  # who was told to stop says nothing of what went wrong
            raise next((problem for problem in problems if not isinstance(problem, Stopped)), problems[0])

    def _wait_for_room(self, octets: int) -> None:
        """Where none is required, reading is held back while none of those that are up has room."""
        while not any(lane.has_room(octets) for lane in self._optional):
            up = [lane.destination for lane in self._optional if not lane.destination.down]
            if not up:
                return
            if up[0].wait(0.05):
                raise Stopped(f"{up[0].transport.name}: has not taken everything")

    def refresh(self) -> None:
        """Templates and tables of idle exporters again, where they are due."""
        if self._first is not None:
            self._first.refresh(self._tables, self.domain)
        for lane in (*self._beside, *self._optional):
            lane.refresh()

    def drain(self, timeout: float) -> bool:
        """Until all that required destinations took has left for good."""
        return all(destination.drain(timeout) for destination in self.destinations if destination.required)

    def close(self) -> None:
        if self._first is not None:
            self._first.close()
        for lane in (*self._beside, *self._optional):
            lane.close()
