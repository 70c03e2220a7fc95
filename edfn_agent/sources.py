"""The inputs of a running agent, kept in step with the plan: which queues, log groups and streams are read now.

In: the configuration and each new inventory. Out: started and stopped readers, deliveries to `submit`, what troubles
them. Every source is read with the credentials of its account; one that fails stops no other. With several workers,
queues and streams are shared by all (SQS and KCL spread them), a log group is read by one, and the endpoint of Firehose
is the first worker's. Never: parsing, exporting.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from edfn_agent.delivery import Delivery, Origin, Outcome
from edfn_agent.inputs import chosen, keys
from edfn_agent.inventory.current import Current, Known
from edfn_agent.ops.metrics import Metrics
from edfn_agent.ops.redact import Redaction
from edfn_agent.ops.stream_metrics import ShardRow, StreamRow
from edfn_agent.state import Quarantined, State, StateError
from edfn_agent.takeover import Aside, Takeover

if TYPE_CHECKING:
    from edfn_agent.config import Config
    from edfn_agent.inputs.cloudwatch import CloudWatchInput
    from edfn_agent.inputs.firehose import FirehoseEndpoint
    from edfn_agent.inputs.kinesis.input import KinesisInput
    from edfn_agent.inputs.kinesis.supervisor import StreamHealth
    from edfn_agent.inputs.log_groups import LogGroup
    from edfn_agent.inputs.queues import Queue
    from edfn_agent.inputs.s3 import S3Input

log = structlog.get_logger("edfn.sources")

LAST_LINES = 3
"""Of a daemon's log, shown in health."""

FOR_GOOD = 120.0
"""Seconds after which a stream that is gone or refused counts as failed, and another source takes over. The stream is
looked at once a minute, so that is not done for one bad answer."""

ASIDES_IN_HAND = 32
"""Objects read again that wait to be exported: they share batches, and none is in memory."""

Clients = Callable[[str, str, str], Any]
Submit = Callable[[Delivery], None]


class Sources:
    """All inputs of one worker."""

    def __init__(
        self,
        config: Config,
        submit: Submit,
        current: Current,
        client: Clients,
        credentials: Callable[[str], Any],
        state: State,
        metrics: Metrics,
        worker: int,
        workers: int,
    ) -> None:
        self._config = config
        self._submit = submit
        self._current = current
        self._client = client
        self._credentials = credentials
        self._state = state
        self._metrics = metrics
        self._worker, self._workers = worker, workers
        self._lock = threading.Lock()
        self._running = False
        self._s3: S3Input | None = None
        self._cloudwatch: CloudWatchInput | None = None
        self._kinesis: KinesisInput | None = None
        self._firehose: FirehoseEndpoint | None = None
        self._firehose_problem = ""
        self._noted: set[str] = set()  # streams that edfn_source_failing tells of
        self._takeover = Takeover(state, worker, workers)
        self._reading_again = threading.Lock()
        metrics.streams.ask = self._stream_rows

    # -- life

    def start(self) -> None:
        """Make the inputs that are on. `follow` tells them what to read."""
        with self._lock:
            self._running = True
            self._make()

    def follow(self, known: Known) -> None:
        """Read what the plan says, from now on. What is dropped finishes what it has in hand."""
        with self._lock:
            if not self._running:
                return
            self._make()  # an endpoint that could not be opened
            if self._s3 is not None:
                self._s3.set_sources(chosen.queues(self._config, known))
            if self._cloudwatch is not None:
                groups = chosen.log_groups(self._config, known)
                self._cloudwatch.quotas.set_sharers(self._sharers(groups))
                self._cloudwatch.set_sources([group for group in groups if self._reader_of(group) == self._worker])
            if self._config.inputs.kinesis is not None and self._running:
                self._follow_streams(known)

    def reconfigure(self, config: Config) -> None:
        """Other settings. An input that is switched off finishes what it has in hand; `follow` comes next."""
        with self._lock:
            before, self._config = self._config, config
            if not self._running:
                return
            if before.inputs.firehose != config.inputs.firehose:
                if self._firehose is not None:
                    self._firehose.stop()
                self._firehose, self._firehose_problem = None, ""
            if config.inputs.s3 is None and self._s3 is not None:
                self._s3.stop(config.shutdown_timeout)
                self._s3 = None
            if config.inputs.cloudwatch_logs is None and self._cloudwatch is not None:
                self._cloudwatch.stop(config.shutdown_timeout)
                self._cloudwatch = None
            if before.inputs.kinesis != config.inputs.kinesis and self._kinesis is not None:
                self._kinesis.stop()
                self._kinesis = None
            if self._s3 is not None:
                self._s3.set_settings(self._s3_settings())
            if self._cloudwatch is not None:
                self._cloudwatch.set_settings(self._cloudwatch_settings())
            self._make()

    def stop_reading(self, timeout: float) -> None:
        """At once, without waiting: nothing new is taken. A reload that waits for what is in hand has `timeout` yet."""
        self._running = False
        for each in (self._s3, self._cloudwatch):
            if each is not None:
                each.stop_reading(max(0.0, timeout - 1.0))

    def stop(self, timeout: float) -> None:
        """Wait for what is in hand, side by side, then give back the rest."""
        began = time.monotonic()
        with self._lock:  # a reload or a discovery may be changing inputs; whatever it waits for ends in time, too
            stops = self._stops(max(0.5, timeout - (time.monotonic() - began)))
        threads = [threading.Thread(target=stop, daemon=True) for stop in stops]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout + 5.0)

    def _stops(self, timeout: float) -> list[Callable[[], None]]:
        stops: list[Callable[[], None]] = []
        if self._s3 is not None:
            s3 = self._s3
            stops.append(lambda: s3.stop(timeout))
        if self._cloudwatch is not None:
            cloudwatch = self._cloudwatch
            stops.append(lambda: cloudwatch.stop(timeout))
        if self._kinesis is not None:
            stops.append(self._kinesis.stop)
        if self._firehose is not None:
            firehose = self._firehose
            stops.append(lambda: firehose.stop(timeout))
        return stops

    # -- what is seen from outside

    def count(self) -> int:
        """How many sources there are to read."""
        return len(self._health()) + (self._firehose is not None)

    def counts(self) -> dict[str, int]:
        """The same, by kind."""
        return {
            "queues": len(self._s3.health()) if self._s3 is not None else 0,
            "log_groups": len(self._cloudwatch.health()) if self._cloudwatch is not None else 0,
            "streams": len(self._kinesis.health()) if self._kinesis is not None else 0,
            "firehose_endpoints": int(self._firehose is not None),
        }

    def problems(self) -> list[str]:
        """One line for each source that cannot be read."""
        return [f"{input} {source}: {error}" for input, source, ok, error in self._health() if ok is False]

    def _health(self) -> list[tuple[str, str, bool | None, str]]:
        found: list[tuple[str, str, bool | None, str]] = []
        for each in (self._s3, self._cloudwatch):
            if each is not None:
                found += [(health.input, health.source, health.ok, health.error) for health in each.health()]
        if self._firehose_problem:
            found.append(("firehose", "endpoint", False, self._firehose_problem))
        if self._kinesis is not None:
            found += [("kinesis", one.arn, one.well, _said(one)) for one in self._kinesis.health()]
        return found

    def seen_streams(self) -> dict[str, str]:
        """What the reading of Kinesis streams tells the plan of sources (`KinesisInput.seen`)."""
        return self._kinesis.seen(FOR_GOOD) if self._kinesis is not None else {}

    def note_streams(self) -> None:
        """Bring `edfn_source_failing` up to date for streams, which are watched and not tried."""
        now = {one.arn: one.well for one in self._kinesis.health()} if self._kinesis is not None else {}
        for arn, well in now.items():
            self._metrics.source_failing.labels("kinesis", arn).set(not well)
        for arn in self._noted - now.keys():
            self._metrics.source_failing.remove("kinesis", arn)
        self._noted = set(now)
        for health, figures in self._kinesis.watched() if self._kinesis is not None else ():
            if figures is not None and (exported_to := figures.exported_to) is not None:
                self._takeover.note(health.arn, exported_to)

    def _stream_rows(self) -> list[StreamRow]:
        rows = []
        for health, figures in self._kinesis.watched() if self._kinesis is not None else ():
            leases = figures.leases() if figures is not None else []
            shards = [
                ShardRow(
                    each.name, each.records, each.checkpoints, None if each.behind_ms is None else each.behind_ms / 1000
                )
                for each in leases
            ]
            sums = (
                (figures.records, figures.octets, figures.checkpoints, figures.restarts, figures.couriers_lost)
                if figures is not None
                else (0, 0, 0, 0, 0)
            )
            rows.append(StreamRow(health.arn, health.state.value, *sums, shards))
        return rows

    # -- quarantine

    def retry_quarantined(self) -> None:
        """Hand over again what `edfn-agent quarantine retry` asked for."""
        for id in self._state.quarantine.take_requests():
            item = self._state.quarantine.get(id)
            if item is None:
                continue
            try:
                delivery = self._again(item)
            except Exception as error:
                log.error("quarantined delivery cannot be had again", id=id, name=item.name, error=str(error))
                self._state.quarantine.failed_again(id, f"{type(error).__name__}: {error}")
                continue
            self._submit(delivery)

    def _again(self, item: Quarantined) -> Delivery:
        detail = item.detail or {}

        def settle(outcome: Outcome, reason: str) -> None:
            try:
                if outcome in (Outcome.ACKNOWLEDGED, Outcome.DUPLICATE):
                    self._state.quarantine.remove(item.id)
                    log.info("quarantined delivery was exported", id=item.id, name=item.name)
                else:
                    self._state.quarantine.failed_again(item.id, reason)
                    log.warning("quarantined delivery still cannot be read", id=item.id, name=item.name, reason=reason)
            except StateError as error:
                log.error("quarantine cannot be written", id=item.id, error=str(error))

        origin = Origin(
            item.input, item.source, detail.get("account_id"), detail.get("region"), detail.get("log_group")
        )
        payload = item.payload
        if payload is not None:
            if not item.complete:
                raise ValueError(f"only {len(payload)} of its {item.size} octets were kept")
            return Delivery(origin, item.name, lambda: [payload], settle)
        region = detail.get("region") or item.source.split(":")[3]
        version = detail.get("version_id")
        chunks = self._object(detail["account_id"], region, detail["bucket"], detail["key"], version)
        delivery = Delivery(origin, item.name, chunks, settle)
        facts = self._current.of_object(detail["bucket"], detail["key"], keys.facts(detail["key"]).flow_log_id)
        delivery.origin, delivery.layouts = replace(origin, flow_log_id=facts.flow_log_id), facts.layouts
        return delivery

    def _object(
        self, account_id: str, region: str, bucket: str, key: str, version: str | None = None
    ) -> Callable[[], Any]:
        """The chunks of an object that no message announces."""
        wanted = self._config.inputs.s3
        request: dict[str, str] = {"VersionId": version} if version else {}
        if wanted is not None and wanted.requester_pays:
            request["RequestPayer"] = "requester"
        through = wanted.access_points.get(bucket, bucket) if wanted is not None else bucket
        answer = self._client(account_id, region, "s3").get_object(Bucket=through, Key=key, **request)
        return lambda: answer["Body"].iter_chunks(1 << 18)

    # -- objects of a stream that failed

    def read_again(self) -> None:
        """Objects that were let go because of a stream that has failed since: in a thread, until all are out."""
        plan = self._current.known.plan
        self._takeover.forget(plan)
        todo = list(self._takeover.again(plan)) if self._s3 is not None else []
        if todo and self._reading_again.acquire(blocking=False):
            log.warning("reading again what was left to a stream that failed", objects=len(todo))
            threading.Thread(target=self._read_asides, args=(todo,), name="read-again", daemon=True).start()

    def _read_asides(self, todo: Sequence[Aside]) -> None:
        """Those that do not come out stay, for the next time."""
        room = threading.Semaphore(ASIDES_IN_HAND)
        try:
            queues = {queue.name: queue for queue in chosen.queues(self._config, self._current.known)}
            for each in todo:
                if not self._running:
                    return
                queue = queues.get(each.queue)
                if queue is None:
                    log.warning("object cannot be read again: its queue is not read any more", object=each.name)
                    continue
                room.acquire()
                self._read_aside(each, queue, room.release)
            for _ in range(ASIDES_IN_HAND):
                room.acquire()
        except Exception:
            log.exception("objects could not be read again")
        finally:
            self._reading_again.release()

    def _read_aside(self, aside: Aside, queue: Queue, settled: Callable[[], None]) -> None:
        bucket, _, key = aside.name.removeprefix("s3://").partition("/")
        about = keys.facts(key)
        try:
            chunks = self._object(queue.account_id, queue.region, bucket, key)
        except Exception as error:
            log.warning("object cannot be read again now", object=aside.name, error=str(error))
            settled()
            return

        def settle(outcome: Outcome, reason: str) -> None:
            detail = {"account_id": queue.account_id, "region": queue.region, "bucket": bucket, "key": key}
            try:
                if outcome is Outcome.QUARANTINED:
                    self._state.quarantine.add("s3", queue.name, aside.name, reason, time.time(), None, detail)
                if outcome is not Outcome.RETURNED:
                    self._takeover.done(aside)
            except StateError as error:
                log.error("object was read again, and may be once more", object=aside.name, error=str(error))
            finally:
                settled()

        origin = Origin("s3", queue.name, about.account_id, about.region or queue.region, flow_log_id=aside.flow_log_id)
        self._submit_object(Delivery(origin, aside.name, chunks, settle))

    # -- the inputs

    def _make(self) -> None:
        if not self._running:  # a stop came meanwhile
            return
        inputs = self._config.inputs
        if inputs.s3 is not None and self._s3 is None:
            from edfn_agent.inputs.s3 import S3Input

            self._s3 = S3Input(self._client, self._submit_object, self._state, self._metrics, self._s3_settings())
        if inputs.cloudwatch_logs is not None and self._cloudwatch is None:
            from edfn_agent.inputs.cloudwatch import CloudWatchInput

            self._cloudwatch = CloudWatchInput(
                self._client,
                self._submit,
                self._state,
                self._metrics,
                self._cloudwatch_settings(),
                done_elsewhere=lambda arn: self._takeover.group_from(self._current.known.plan, arn),
            )
        if inputs.firehose is not None and self._firehose is None and self._worker == 0:
            from edfn_agent.inputs.firehose import EndpointError, EndpointSettings, FirehoseEndpoint

            listen = inputs.firehose.listen
            settings = EndpointSettings(
                listen.host,
                listen.port,
                inputs.firehose.certificate,
                inputs.firehose.key,
                inputs.firehose.access_key_file,
            )
            try:
                endpoint = FirehoseEndpoint(
                    settings,
                    self._counted("firehose"),
                    count=lambda outcome: self._metrics.firehose_requests.labels(outcome).inc(),
                )
                host, port = endpoint.start()
            except EndpointError as error:
                log.error("the endpoint of Firehose cannot be opened", error=str(error))
                self._firehose_problem = str(error)
                return
            self._firehose, self._firehose_problem = endpoint, ""
            log.info("listening for Firehose", host=host, port=port)

    def _counted(self, input: str) -> Submit:
        """For inputs that do not count their deliveries themselves."""
        flying = self._metrics.deliveries_in_flight.labels(input)

        def submit(delivery: Delivery) -> None:
            flying.inc()
            settle = delivery.settle

            def settled(outcome: Outcome, reason: str) -> None:
                flying.dec()
                self._metrics.deliveries.labels(input, outcome.value).inc()
                settle(outcome, reason)

            delivery.settle = settled
            self._submit(delivery)

        return submit

    def _submit_object(self, delivery: Delivery) -> None:
        """An S3 object: what wrote under its prefix says whose it is and its layout, should it have no header line."""
        bucket, _, key = delivery.name.removeprefix("s3://").partition("/")
        facts = self._current.of_object(bucket, key, delivery.origin.flow_log_id)
        if facts.flow_log_id != delivery.origin.flow_log_id:
            delivery.origin = replace(delivery.origin, flow_log_id=facts.flow_log_id)
        delivery.layouts = facts.layouts
        self._takeover.remember(self._current.known.plan, facts.flow_log_id, delivery.name, delivery.origin.source)
        self._submit(delivery)

    def _s3_settings(self) -> Any:
        from edfn_agent.inputs.keys import KeyFilter
        from edfn_agent.inputs.s3 import Settings

        wanted = self._config.inputs.s3
        assert wanted is not None
        return Settings(
            concurrency=wanted.concurrency,
            max_receives=wanted.max_receives,
            delete_foreign=wanted.foreign_events == "delete",
            filter=KeyFilter(wanted.key_prefixes, wanted.key_suffixes),
            duplicate_window=wanted.duplicate_window,
            requester_pays=wanted.requester_pays,
            read_through=wanted.access_points,
        )

    def _cloudwatch_settings(self) -> Any:
        from edfn_agent.inputs.cloudwatch import Settings

        wanted = self._config.inputs.cloudwatch_logs
        assert wanted is not None
        return Settings(wanted.interval, wanted.overlap, wanted.start_from)

    def _reader_of(self, group: LogGroup) -> int:
        """The worker that reads it."""
        return zlib.crc32(group.arn.encode()) % self._workers

    def _sharers(self, groups: Sequence[LogGroup]) -> dict[tuple[str, str], int]:
        """How many workers share an account's quota, by account and region."""
        workers: dict[tuple[str, str], set[int]] = {}
        for group in groups:
            workers.setdefault((group.account_id, group.region), set()).add(self._reader_of(group))
        return {place: len(some) for place, some in workers.items()}

    def _follow_streams(self, known: Known) -> None:
        from edfn_agent.inputs.kinesis.input import KinesisInput
        from edfn_agent.inputs.kinesis.stream import StreamSettings

        wanted = self._config.inputs.kinesis
        assert wanted is not None
        streams: list[StreamSettings] = []
        if wanted.streams == "discovered":
            arns = {way.end for way in known.plan.chosen.values() if way.input == "kinesis"}
            # One that failed while it was read goes on being looked at: without it nobody would see it come back.
            arns |= {way.end for way in known.plan.ways if way.input == "kinesis" and known.plan.seen.get(way.end)}
            streams = [StreamSettings(arn) for arn in sorted(arns)]
        else:
            streams = [
                StreamSettings(
                    each.arn,
                    each.enhanced_fan_out,
                    each.initial_position,
                    each.application_name,
                    each.max_records,
                    each.idle_time,
                )
                for each in wanted.streams
            ]
        if self._kinesis is not None:
            self._kinesis.reload(streams)
            return
        if not streams:
            return
        self._kinesis = KinesisInput(
            streams,
            submit=self._counted("kinesis"),
            quarantine=self._quarantine_record,
            access=self._access,
            state_directory=self._config.state_directory,
            metrics_level=wanted.metrics_level,
            java_options=wanted.java_options,
            shutdown_grace=wanted.shutdown_grace,
            endpoints=self._config.aws.endpoints,
            instance=f"w{self._worker}" if self._workers > 1 else "",
        )
        self._kinesis.start()

    def _quarantine_record(self, delivery: Delivery, reason: str, payload: bytes) -> None:
        origin = delivery.origin
        detail = {"account_id": origin.account_id, "region": origin.region, "log_group": origin.log_group}
        self._state.quarantine.add("kinesis", origin.source, delivery.name, reason, time.time(), payload, detail)

    def _access(self, settings: Any) -> Any:
        from edfn_agent.inputs.kinesis.stream import AccountAccess

        return AccountAccess(settings, self._client, self._credentials)


def _said(stream: StreamHealth) -> str:
    """The state of a stream with its reason, and the last that its daemon said."""
    said = f"{stream.state.value}: {stream.detail}" if stream.detail else stream.state.value
    lines = [] if stream.well else stream.last_lines[-LAST_LINES:]
    return said + (f" (its daemon: {' | '.join(map(Redaction().text, lines))})" if lines else "")
