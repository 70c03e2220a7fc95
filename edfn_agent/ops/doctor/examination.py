"""All checks for one configuration, side by side.

In: the configuration. Out: checks, in no order. Never: an exception because something is wrong: that is a check. The
inventory is discovered as `run-now` does it and kept by nobody; everything else is tried on what it found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from edfn_agent.inventory.accounts import AwsSettings
from edfn_agent.inventory.discovery import Discovery, Progress
from edfn_agent.inventory.exporters import Exporters, configured_addresses
from edfn_agent.inventory.fanout import PER_GROUP, fan_out
from edfn_agent.inventory.sinks import Wishes
from edfn_agent.inventory.sources import EnabledInputs, SourcePlan
from edfn_agent.ops.doctor import collectors, flow_logs, groups, identities, machine, s3, streams
from edfn_agent.ops.doctor.checks import OK, WARNING, Check, in_order
from edfn_agent.ops.doctor.mending import Mending
from edfn_agent.ops.doctor.trials import Trials
from edfn_agent.ops.doctor.witness import WitnessedAccounts

Job = tuple[str, Callable[[], Iterable[Check]]]  # whose turn it takes: an account, or "" for this machine


@dataclass
class Examination:
    config: Any
    file: str
    peek: bool = False  # receive a message from each queue although it counts as a try
    warnings: tuple[str, ...] = ()  # of the configuration
    found: list[Check] = field(default_factory=list)

    def run(self, progress: Progress | None = None) -> list[Check]:
        """Raises NoRegion: then not even the first question can be asked."""
        self.accounts = WitnessedAccounts(AwsSettings.of(self.config.aws))
        self.mending = Mending(self.config, self.file)
        self.trials = Trials(self.accounts, self.mending)
        self.snapshot = Discovery(self.accounts, Wishes.of(self.config.inputs)).run(None, progress)
        self.plan = SourcePlan(self.snapshot, EnabledInputs.of(self.config.inputs))
        exporters = Exporters(configured_addresses(self.config.exporters), self.config.exporters.pool)
        exporters.refresh(self.snapshot)
        self.exporters = exporters.table
        self._known()
        # Who the agent is comes first: the simulation of IAM is about that identity.
        self._side_by_side("identities", self._identities(), progress)
        self._side_by_side("checks", [*self._of_aws(), *self._of_here()], progress)
        self.found.append(machine.clock(self.accounts.skew))
        self.found += identities.permissions(self.accounts, self.snapshot)
        return in_order(_once(self.found))

    def _side_by_side(self, what: str, jobs: list[Job], progress: Progress | None) -> None:
        told = partial(progress, what) if progress is not None else None
        for found in fan_out(
            ((group, partial(_safely, job)) for group, job in jobs), per_group=PER_GROUP, progress=told
        ):
            self.found += found

    # ---- what needs no further question

    def _known(self) -> None:
        found = self.found
        found.append(Check("configuration.file", OK, "no fault in it", resource=self.file))
        found += [
            Check(
                "configuration.file", WARNING, each, resource=self.file, next_step="mend it, or leave it if it is meant"
            )
            for each in self.warnings
        ]
        if self.plan.inputs:
            names = [
                each for each in ("s3", "cloudwatch_logs", "kinesis", "firehose") if getattr(self.config.inputs, each)
            ]
            found.append(Check("configuration.inputs", OK, f"{', '.join(names)}", resource="inputs"))
        snapshot = self.snapshot
        found += [
            identities.dead(self.mending, each, self.accounts.findings)
            for each in snapshot.accounts
            if each.status == "failed"
        ]
        found += identities.noted(self.accounts.findings)
        of_discovery = (identities.of_discovery(self.mending, snapshot, each) for each in snapshot.findings)
        found += [each for each in of_discovery if each is not None]
        found += identities.regions(self.accounts, snapshot)
        found += flow_logs.checks(self.plan, self.exporters.findings)
        found += [streams.delivery(each) for each in snapshot.delivery_streams]

    # ---- what is tried

    def _identities(self) -> list[Job]:
        return [
            (row.account_id, partial(identities.account, self.accounts, self.trials, row))
            for row in self.snapshot.accounts
            if row.status == "ok" and row.account_id and self.accounts.alive(row.account_id)
        ]

    def _of_aws(self) -> list[Job]:
        inputs, snapshot, trials = self.plan.inputs, self.snapshot, self.trials
        jobs: list[Job] = []
        if self.config.inputs.s3 is not None:
            jobs += [
                (each.via_account or "", partial(s3.queue, self.plan, trials, each, self.peek))
                for each in snapshot.queues
                if inputs.reads_queue(each)
            ]
            jobs += [(each.account_id or "", partial(s3.bucket, self.plan, trials, each)) for each in snapshot.buckets]
        by_api = {way.end for way in self.plan.chosen.values() if way.input == "cloudwatch_logs"}
        listed = inputs.cloudwatch_logs not in (None, "discovered")
        jobs += [
            (each.account_id, partial(groups.group, trials, each))
            for each in snapshot.log_groups
            if each.arn in by_api or (listed and inputs.reads_group(each.arn))
        ]
        return [*jobs, *self._of_streams()]

    def _of_streams(self) -> list[Job]:
        kinesis = self.config.inputs.kinesis
        if kinesis is None:
            return []
        read = {way.end for way in self.plan.chosen.values() if way.input == "kinesis"}
        if kinesis.streams != "discovered":
            read = {each.arn for each in kinesis.streams}
        jobs: list[Job] = []
        for each in self.snapshot.streams:
            settings = streams.settings_of(self.config, each.arn)
            if each.arn in read and settings is not None:
                metrics = kinesis.metrics_level != "NONE"
                jobs.append((each.account_id, partial(streams.stream, self.trials, each, settings, metrics)))
        return jobs

    def _of_here(self) -> list[Job]:
        config, snapshot = self.config, self.snapshot
        addresses = [each.address for each in self.exporters]
        size, mode = config.ipfix.max_message_size, config.exporters.address_mode
        jobs: list[Job] = [
            ("", partial(collectors.collector, each, size, mode, addresses)) for each in config.collectors
        ]
        jobs.append(("", partial(machine.state, config)))
        jobs.append(("", lambda: [machine.files(config, snapshot)]))
        jobs.append(("", partial(machine.software, config, snapshot)))
        if config.aws.ip_ranges_file is not None:
            jobs.append(("", lambda: [machine.ip_ranges(config.aws.ip_ranges_file)]))
        if config.inputs.kinesis is not None:
            jobs.append(("", lambda: [streams.java()]))
        if config.inputs.firehose is not None:
            jobs.append(("", partial(streams.endpoint, config.inputs.firehose)))
        return jobs


def _safely(job: Callable[[], Iterable[Check]]) -> list[Check]:
    """A check that fails in a way nobody thought of costs itself, and is told."""
    found: list[Check] = []
    try:
        found.extend(job())  # what was found before a failure stays
    except Exception as error:
        what = getattr(job, "func", job)
        name = f"{getattr(what, '__module__', '')}.{getattr(what, '__name__', '')}".removeprefix("edfn_agent.ops.")
        text = f"a check could not be made ({type(error).__name__}: {error})"
        found.append(Check("region.call", WARNING, text, resource=name, next_step="please report this"))
    return found


def _once(checks: Iterable[Check]) -> list[Check]:
    """What was tried on several resources by the same words is one check each; a fault goes before what is well."""
    found: dict[tuple[str, str | None, str | None, str, str], Check] = {}
    for each in checks:
        found.setdefault((each.id, each.account_id, each.region, each.resource, each.text), each)
    return list(found.values())
