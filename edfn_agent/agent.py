"""The running agent: built from a Config, started and stopped in the right order, reloaded without losing a delivery.

In: a Config, and which worker of how many this process is. Out: inputs that read, a pipeline that exports, an inventory
that is refreshed, health and metrics for whoever asks. It parses no command line and prints nothing.

Start: state, inventory (the stored one at once; the first time AWS is asked before anything is read), collectors,
inputs. Stop: inputs first, what is in hand goes out, then collectors, then the state.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import structlog

from edfn_agent import __version__
from edfn_agent.config import Config
from edfn_agent.delivery import Delivery
from edfn_agent.enrich import Flows
from edfn_agent.export.destination import Destination
from edfn_agent.export.exporter import FlowExporter
from edfn_agent.export.mapping import wanted_columns
from edfn_agent.export.pace import Pace
from edfn_agent.export.rows import Settings
from edfn_agent.export.transports import Collector, parse_collector, transport_of
from edfn_agent.export.transports.tcp import TlsSettings
from edfn_agent.formats import COMPILED
from edfn_agent.formats.errors import OtherLogGroup
from edfn_agent.formats.reader import Reader
from edfn_agent.inputs.queue_reader import last_calls
from edfn_agent.inventory.accounts import Accounts, AwsSettings, NoRegion
from edfn_agent.inventory.current import Current, Known
from edfn_agent.inventory.schedule import Schedule
from edfn_agent.ops.metrics import Metrics
from edfn_agent.ops.on_the_wire import templates_on_the_wire
from edfn_agent.ops.progress import Progress
from edfn_agent.pipeline import LINGER, Pipeline
from edfn_agent.sources import Sources
from edfn_agent.state import State, StateError

log = structlog.get_logger("edfn.agent")

HOUSEKEEPING = 2.0
"""Seconds between two looks at the state (commands), idle templates and figures."""

TRAFFIC_EVERY = 30.0
"""Seconds between two writes of flows per exporter, for `edfn-agent exporters`."""

FRESH = 60.0
"""Seconds for which a stored inventory is taken as it is at the start, so that a restart does not ask AWS again. A role
of another account, which was added, is news."""

DEAD_FOR = 15.0
"""Seconds before an account that was not reached is tried again for the sake of a source; discovery tries it too."""

STRANGERS = 100_000
"""Unknown ids remembered, so that an interface that is gone is asked for once and not for ever."""


class Unreachable(Exception):
    """The account of a source cannot be reached now."""


class Agent:
    """One worker process of the service."""

    def __init__(self, config: Config, worker: int = 0, workers: int = 1) -> None:
        self.config = config
        self.worker, self.workers = worker, workers
        self.metrics = Metrics()
        self.stopping = threading.Event()
        self.started = False
        self._life = threading.Lock()  # starting runs in a thread of its own, and a stop may come at any moment
        self._gave_up = threading.Event()  # what waits for a collector does so no longer
        self._state = State(config.state_directory)
        self._accounts = self._new_accounts(config)
        self._current = Current(config, self._state, self._on_known)
        self._exporter = self._new_exporter(config)
        self._pipeline = Pipeline(self._new_reader, self._current.known.enricher, self._exporter, observe=self._observe)
        self._sources = Sources(
            config,
            self._submit,
            self._current,
            self._client,
            self._credentials,
            self._state,
            self.metrics,
            worker,
            workers,
        )
        self._current.seen_streams = self._sources.seen_streams
        self._fallbacks: set[str] = set()  # streams for which something else is read, as far as it was said
        self._traffic: dict[str, tuple[int, float]] = {}
        self._traffic_lock = threading.Lock()
        self._modes: dict[str, str] = {}
        self._newest: dict[tuple[str, str], float] = {}  # (input, source) -> end of its newest flow, Unix seconds
        self._totals: dict[tuple[int, str], int] = {}
        self._discovering = threading.Lock()
        self._opening = threading.Lock()
        self._open_again_at = 0.0
        self._discovery_problem = ""
        self._schedule: Schedule | None = None
        self._strangers: set[str] = set()
        self._threads: list[threading.Thread] = []
        self.progress = Progress()

    # -- life

    @property
    def leads(self) -> bool:
        """The first worker discovers and takes requests of commands; the others follow the state."""
        return self.worker == 0

    def start(self) -> None:
        """Everything, in order. Returns when sources are being read (or tried)."""
        if self.leads and self._current.empty and not self.stopping.is_set():
            self.discover()
        with self._life:
            if self.stopping.is_set():
                return
            self._run("flush", self._flush)
            self._run("housekeeping", self._keep_house)
            self._note_success(self._current.known)
            self._sources.start()
            self._sources.follow(self._current.known)
            if self.leads:
                wanted = self.config.discovery
                self._schedule = Schedule(self.discover, wanted.schedule, wanted.timezone, wanted.jitter)
                self._schedule.start()
                if self._current.age > FRESH or self._has_new_roles():
                    self._schedule.run_now()
            self._say_what_is_read()
            self.started = True

    def stop(self) -> None:
        """Stop reading, finish what is in hand within shutdown_timeout, give back the rest."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        deadline = time.monotonic() + self.config.shutdown_timeout
        with self._life:  # what was half begun is begun, so that it can be stopped
            pass
        if self._schedule is not None:
            self._schedule.stop()
        self._sources.stop_reading(self.config.shutdown_timeout)
        # collectors that are down are waited for a little less long than the sources are, so that these hear of it
        timeout = self.config.shutdown_timeout
        giving_up = threading.Timer(max(0.0, timeout - last_calls(timeout) - 1.0), self._gave_up.set)
        giving_up.daemon = True
        giving_up.start()
        self._sources.stop(max(0.5, deadline - time.monotonic()))
        self._gave_up.set()
        giving_up.cancel()
        for thread in self._threads:
            thread.join(timeout=2.0)
        try:
            self._pipeline.flush()
        except Exception as error:
            log.warning("the last records were not sent and go back to their sources", error=str(error))
        self._exporter.close()
        self._store_traffic()
        self._state.close()
        log.info("stopped")

    def reload(self, config: Config) -> list[str]:
        """Take another configuration without losing a delivery. What cannot change in a running agent is returned."""
        before, self.config = self.config, config
        unchangeable = [
            name
            for name in ("state_directory", "workers", "worker_id", "http")
            if getattr(before, name) != getattr(config, name)
        ]
        if config.aws != before.aws:
            self._accounts = self._new_accounts(config)
        if (config.collectors, config.ipfix, config.exporters.address_mode) != (
            before.collectors,
            before.ipfix,
            before.exporters.address_mode,
        ):
            exporter = self._new_exporter(config)
            self._pipeline.replace(exporter=exporter)
            self._figures()  # what the old one has sent to its end
            self._exporter = exporter
            self._totals.clear()
        if self.stopping.is_set():
            self._exporter.close()  # the stop may have closed the old one
            return unchangeable
        self._sources.reconfigure(config)
        self._current.reconfigure(config)
        if self._schedule is not None and config.discovery != before.discovery:
            self._schedule.reschedule(config.discovery.schedule, config.discovery.timezone, config.discovery.jitter)
        if self._schedule is not None:
            self._schedule.run_now()
        return unchangeable

    # -- what is seen from outside

    def health(self) -> tuple[bool, list[str]]:
        """Whether it is reading and exporting, and what stands against that."""
        reasons = [] if self.started and not self.stopping.is_set() else ["starting or stopping"]
        reasons += [
            f"collector {d.transport.name}: {d.down}" for d in self._exporter.destinations if d.down and d.required
        ]
        if self._discovery_problem and self._current.empty:
            reasons.append(f"discovery: {self._discovery_problem}")
        troubled = self._sources.problems()
        readable = self._sources.count()
        if readable and len(troubled) == readable:
            reasons.append("no source can be read: " + "; ".join(troubled[:3]))
        elif not readable and self.started:
            reasons.append("there is no source to read")
        return not reasons, reasons

    def degraded(self) -> list[str]:
        """What is wrong, though the rest goes on."""
        down = [f"collector {d.transport.name}: {d.down}" for d in self._exporter.destinations if d.down]
        dead = [
            f"account {account.account_id or account.name}: {account.error}"
            for account in self._current.known.snapshot.accounts
            if account.status == "failed"
        ]
        state = [f"state: {self._state.problem}"] if self._state.problem else []
        return down + dead + state + self._sources.problems()

    def templates(self) -> list[dict[str, Any]]:
        """What is on the wire now, per collector and domain."""
        return templates_on_the_wire(self._exporter.destinations)

    # -- discovery

    def discover(self) -> None:
        """Ask AWS now. One at a time: who comes while it runs is served by it."""
        if not self._discovering.acquire(blocking=False):
            return
        try:
            snapshot = self._current.discover(self._accounts)
            self._discovery_problem = ""
            failed = [account for account in snapshot.accounts if account.status == "failed"]
            for account in failed:
                log.warning("account cannot be asked", account=account.account_id, via=account.via, error=account.error)
            log.info(
                "discovered",
                accounts=len(snapshot.accounts) - len(failed),
                vpcs=len(snapshot.vpcs),
                interfaces=len(snapshot.interfaces),
                flow_logs=len(snapshot.flow_logs),
                seconds=round(snapshot.seconds, 1),
                api_calls=snapshot.api_calls,
            )
            for finding in self._current.known.plan.findings:
                if finding.severity == "error":
                    log.warning(
                        "finding", subject=finding.subject, problem=finding.problem, next_step=finding.next_step
                    )
        except NoRegion as error:
            self._discovery_problem = str(error)
            log.error("discovery is not possible", error=str(error))
        except Exception as error:
            self._discovery_problem = f"{type(error).__name__}: {error}"
            log.exception("discovery failed")
        finally:
            self._discovering.release()

    def _has_new_roles(self) -> bool:
        """Whether roles are configured of accounts that the stored inventory has never heard of."""
        known = {account.account_id for account in self._current.known.snapshot.accounts}
        return any(role.arn.split(":")[4] not in known for role in self.config.aws.roles)

    def _on_known(self, known: Known) -> None:
        self._note_success(known)
        self._tell_of_fallbacks(known)
        self._pipeline.replace(enricher=known.enricher)
        self._sources.follow(known)

    def _note_success(self, known: Known) -> None:
        """Also of a discovery before this start, or of another worker."""
        snapshot = known.snapshot
        if snapshot.at and all(account.status != "failed" for account in snapshot.accounts):
            self.metrics.discovery_last_success.set(snapshot.at)

    def _tell_of_fallbacks(self, known: Known) -> None:
        now = {finding.subject: finding for finding in known.plan.fallbacks}
        for subject in now.keys() - self._fallbacks:
            finding = now[subject]
            log.warning("finding", subject=subject, problem=finding.problem, next_step=finding.next_step)
        for subject in self._fallbacks - now.keys():
            log.info("stream needs no substitute any more", source=subject)
        self._fallbacks = set(now)

    # -- the way of a delivery

    def _submit(self, delivery: Delivery) -> None:
        fault = self._pipeline.submit(delivery)
        if fault is not None and not isinstance(fault, OtherLogGroup):
            log.warning("delivery could not be read", delivery=delivery.name, reason=str(fault))

    def _observe(self, flows: Flows) -> None:
        """Count a batch that has gone out."""
        batch, metrics = flows.batch, self.metrics
        counts = batch.counts
        for status, number in (
            ("nodata", counts.nodata),
            ("skipdata", counts.skipdata),
            ("without_addresses", counts.without_addresses),
            ("other_log_group", counts.other_log_group),
        ):
            if number:
                metrics.records_skipped.labels(status).inc(number)
        if counts.other_log_group:
            log.info("log group holds no flow logs", log_group=batch.origin.log_group, source=batch.origin.source)
        if counts.malformed:
            metrics.lines_malformed.labels(batch.origin.input).inc(counts.malformed)
            for line in batch.bad_lines[:1]:
                log.warning("malformed line", source=line.source, line=line.line, reason=line.reason, text=line.text)
        if not batch.rows:
            return
        now = time.time()
        end = batch.integers("end")
        if end is not None:
            newest = int(end.values.max()) / 1000
            source = (batch.origin.input, batch.origin.source)
            self._newest[source] = max(newest, self._newest.get(source, 0.0))
        per_exporter = np.bincount(flows.exporter, minlength=1).tolist()
        with self._traffic_lock:
            for code, number in enumerate(per_exporter):
                if not number:
                    continue
                if code in flows.elsewhere:
                    metrics.records_skipped.labels("other_source").inc(number)
                    continue
                exporter = flows.exporters[code]
                metrics.records_exported.labels(exporter.key, str(exporter.address)).inc(number)
                flows_before, _ = self._traffic.get(exporter.key, (0, 0.0))
                self._traffic[exporter.key] = (flows_before + number, now)

    # -- threads

    def _run(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]

    def _flush(self) -> None:
        """Send what waits for company; on until the sources have stopped, as they wait for just that."""
        while not self._gave_up.wait(LINGER / 4):
            self.progress.moved("sending")
            try:
                self._pipeline.flush(0.0 if self.stopping.is_set() else LINGER)
            except Exception as error:
                log.warning("records were not sent and go back to their sources", error=str(error))

    def _keep_house(self) -> None:
        stored_at = time.monotonic()
        while not self.stopping.wait(HOUSEKEEPING):
            self.progress.moved("housekeeping")
            self._look_at_state()
            try:
                self._pipeline.refresh()
                self._current.follow()
                self._current.reconsider()
                self._figures()
                if self.leads:
                    self._sources.retry_quarantined()
                    self._ask_about_strangers()
                if time.monotonic() - stored_at >= TRAFFIC_EVERY:
                    stored_at = time.monotonic()
                    self._store_traffic()
                    if self.leads:
                        self._sources.read_again()
            except StateError as error:
                self.metrics.state_errors.inc()
                log.error("the state does not work", error=str(error))
            except Exception:
                log.exception("housekeeping failed")

    def _look_at_state(self) -> None:
        """While it does not work, whether it does again."""
        try:
            self._state.try_again()
        except StateError as error:
            self.metrics.state_errors.inc()
            log.error("the state does not work", error=str(error))

    def _ask_about_strangers(self) -> None:
        """Flows name what the inventory does not know: ask AWS, once for each name, at most every five minutes."""
        new = self._current.known.directory.unknown - self._strangers
        if new and self._schedule is not None and self._schedule.request():
            if len(self._strangers) > STRANGERS:
                self._strangers.clear()
            self._strangers |= new
            log.info("flows name what the inventory does not know; AWS will be asked", unknown=sorted(new)[:5])

    def _figures(self) -> None:
        metrics = self.metrics
        metrics.bytes_in_flight.set(self._pipeline.octets_in_flight)
        self._sources.note_streams()
        now = time.time()
        for source, newest in list(self._newest.items()):
            metrics.input_lag.labels(*source).set(now - newest)  # grows while nothing comes
        for destination in self._exporter.destinations:
            transport = destination.transport
            mode = getattr(transport, "mode_reason", "")
            if transport.messages and mode != self._modes.get(transport.name, ""):
                self._modes[transport.name] = mode
                log.info("exporter address mode", collector=transport.name, mode=mode)
            self._add(metrics.messages_sent, transport.name, transport.messages)
            self._add(metrics.send_errors, transport.name, sum(transport.errors.values()))
            self._add(metrics.records_dropped, transport.name, destination.dropped)
        try:
            metrics.quarantined.set(self._state.quarantine.count())
        except StateError:
            metrics.state_errors.inc()

    def _add(self, counter: Any, collector: str, total: int) -> None:
        """Bring a counter up to a total that the transport keeps; a new transport starts again from nothing."""
        key = (id(counter), collector)
        before = self._totals.get(key, 0)
        counter.labels(collector).inc(total - before if total >= before else total)
        self._totals[key] = total

    def _say_what_is_read(self) -> None:
        known = self._current.known
        read = {way.home for way in known.plan.chosen.values()}
        without = [vpc.vpc_id for vpc in known.snapshot.vpcs if vpc.vpc_id not in read]
        log.info("reading", **self._sources.counts(), vpcs=len(known.snapshot.vpcs), vpcs_without_source=len(without))

    def _store_traffic(self) -> None:
        with self._traffic_lock:
            traffic, self._traffic = self._traffic, {}
        if not traffic:
            return
        try:
            self._state.traffic.add(traffic)
        except StateError as error:
            self.metrics.state_errors.inc()
            log.warning("flows per exporter could not be stored", error=str(error))

    # -- parts

    def _new_reader(self) -> Reader:
        settings = self.config.ipfix
        return Reader(wanted_columns(settings.profile, settings.packet_addresses), self._current.layouts_of)

    def _new_accounts(self, config: Config) -> Accounts:
        return Accounts(AwsSettings.of(config.aws), self.metrics.aws_call)

    def _client(self, account_id: str, region: str, service: str) -> Any:
        return self._reach(account_id).client(account_id, region, service)

    def _credentials(self, account_id: str) -> Any:
        return self._reach(account_id).credentials(account_id)

    def _reach(self, account_id: str) -> Accounts:
        """The accounts, with this one among the living. Raises what makes a source fail and be tried again."""
        accounts = self._accounts
        if accounts.alive(account_id):
            return accounts
        with self._opening:
            if not accounts.alive(account_id) and time.monotonic() >= self._open_again_at:
                self._open_again_at = time.monotonic() + DEAD_FOR
                accounts.open()
        if not accounts.alive(account_id):
            dead = next((row for row in accounts.rows if row.account_id == account_id), None)
            raise Unreachable(
                f"account {account_id}: {dead.error if dead else 'no role or profile of it is configured'}"
            )
        return accounts

    def _new_exporter(self, config: Config) -> FlowExporter:
        ipfix = config.ipfix
        settings = Settings(
            profile=ipfix.profile,
            enterprise_number=ipfix.enterprise_number,
            exporter_field=ipfix.exporter_field,
            packet_addresses=ipfix.packet_addresses,
            egress_zero_on_reject=ipfix.egress_zero_on_reject,
        )
        abandoned = threading.Event()
        destinations = [self._destination(config, collector, abandoned) for collector in config.collectors]
        worker = config.worker_id + self.worker
        return FlowExporter(settings, destinations, worker, abandoned, type_records=ipfix.type_records)

    def _destination(self, config: Config, collector: Any, abandoned: threading.Event) -> Destination:
        where: Collector = parse_collector(collector.url)
        tls = TlsSettings(
            ca_file=collector.ca_file,
            certificate=collector.certificate,
            key=collector.key,
            verify=collector.verify,
            server_name=collector.server_name,
        )

        def report(line: str) -> None:
            log.warning(line)

        def wait(seconds: float) -> bool:
            return self._wait_for_collector(seconds, abandoned)

        ipfix = config.ipfix
        return Destination(
            transport_of(where, address_mode=config.exporters.address_mode, tls=tls, report=report),
            max_message_size=ipfix.max_message_size,
            template_refresh=ipfix.template_refresh,
            pace=Pace(ipfix.records_per_second / max(1, self.workers), sleep=self._wait_for_collector),
            required=collector.required,
            patient=True,
            wait=wait,
            report=report,
        )

    def _wait_for_collector(self, seconds: float, abandoned: threading.Event | None = None) -> bool:
        """Waiting for a collector's pace or return is not being stuck. True: wait no longer."""
        end = time.monotonic() + seconds
        while not (over := self._gave_up.is_set() or (abandoned is not None and abandoned.is_set())):
            left = end - time.monotonic()
            if left <= 0:
                break
            self.progress.moved("sending")
            self._gave_up.wait(min(left, 0.5))
        return over

    def say_hello(self) -> None:
        """What will be read, to where, in which mode; `start` says at its end how many sources that are."""
        config = self.config
        log.info(
            "edfn-agent starts",
            version=__version__,
            worker=self.worker,
            workers=self.workers,
            state=str(config.state_directory),
        )
        log.info(
            "scanner", kind="compiled" if COMPILED else "plain Python: about thirty times slower; see docs/install.md"
        )
        for collector in config.collectors:
            log.info("exporting to", collector=collector.url, required=collector.required)
        log.info(
            "messages",
            most_octets=config.ipfix.max_message_size,
            records_per_second=config.ipfix.records_per_second or "no limit",
            profile=config.ipfix.profile,
            exporter_address=config.exporters.address_mode,
        )
        enabled = [name for name in ("s3", "cloudwatch_logs", "kinesis", "firehose") if getattr(config.inputs, name)]
        log.info("inputs", enabled=", ".join(enabled) or "none: nothing will be read")
        if not self._current.empty:
            known = self._current.known.snapshot
            log.info("inventory", vpcs=len(known.vpcs), accounts=len(known.accounts), age_s=round(self._current.age))
