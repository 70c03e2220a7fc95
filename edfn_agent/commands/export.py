"""`edfn-agent export`: flow-log files to collectors or into files, without AWS."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edfn_agent.delivery import Delivery
    from edfn_agent.enrich import Enricher
    from edfn_agent.export.destination import Destination
    from edfn_agent.export.transports import AddressMode
    from edfn_agent.export.transports.collector import Collector
    from edfn_agent.formats.batch import BadLine

SHOWN_BAD_LINES = 5
"""Malformed lines shown per file; all are counted."""

BATCH_ROWS = 65536
"""Twice what the service takes at a time: of whole files the work per batch and exporter shows, and nobody waits."""


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--collector",
    "collectors",
    multiple=True,
    metavar="URL",
    help="udp://host:port, tcp:// or tls://; may be repeated.",
)
@click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="FILE",
    help="Write messages to FILE.ipfix (RFC 5655) or FILE.pcap; may be repeated.",
)
@click.option(
    "--log-format", metavar="FIELDS", help="Columns of files without a header line: '${version} ${vpc-id} ...'."
)
@click.option(
    "--exporter-map",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="JSON or YAML: vpc-id, tgw-id, interface-id or account-id to exporter address.",
)
@click.option("--exporter", metavar="ADDRESS", help="Exporter address of everything the map does not name.")
@click.option(
    "--inventory",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What `edfn-agent run-now --save-inventory FILE` wrote: names, both sides of each flow, exporters.",
)
@click.option(
    "--exporter-address",
    type=click.Choice(["auto", "source", "field"]),
    default="auto",
    show_default=True,
    help="Send from the exporters' addresses, or say them in element 130 only.",
)
@click.option(
    "--profile",
    type=click.Choice(["standard", "aws"]),
    default="standard",
    show_default=True,
    help="Elements of IANA only, or every other flow-log field too, under your enterprise number.",
)
@click.option("--enterprise-number", type=int, metavar="N", help="Your private enterprise number, for profile aws.")
@click.option(
    "--max-message-size",
    type=click.IntRange(512, 8900),
    default=1400,
    show_default=True,
    metavar="OCTETS",
    help="Longest IPFIX message.",
)
@click.option(
    "--records-per-second",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Pace for each collector, options records included; 0 is no limit.",
)
@click.option(
    "--template-refresh",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Send templates again over UDP.",
)
@click.option("--exporter-field/--no-exporter-field", default=True, help="Element 130 in every record (default: yes).")
@click.option("--packet-addresses", is_flag=True, help="pkt-srcaddr and pkt-dstaddr in the place of srcaddr, dstaddr.")
@click.option("--egress-zero-on-reject", is_flag=True, help="egressInterface 0 for rejected flows, as routers do.")
@click.option("--type-records", is_flag=True, help="Describe the elements of profile aws on the wire (RFC 5610).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on the last line of standard output.")
def export(**options: Any) -> None:
    """Send flow-log files to collectors, or write them as IPFIX files.

    FILE is a flow-log file as AWS delivers it anywhere (text, gzip, Parquet, CloudWatch Logs or Firehose envelopes), a
    folder, or - for standard input. What a file is follows from its octets.

    \b
      edfn-agent export *.log.gz --collector udp://127.0.0.1:4739
      edfn-agent export logs/ --output flows.pcap --exporter-map map.yaml

    Exit status: 0 all files read to their end, 1 some could not be, 2 usage.
    """
    if not options["collectors"] and not options["outputs"]:
        raise click.UsageError("nowhere to send to: give --collector udp://HOST:PORT or --output FILE.ipfix")
    from edfn_agent.formats.layout import Layout, LayoutError

    layout = None
    if options["log_format"]:
        try:
            layout = Layout.parse(options["log_format"])
        except LayoutError as error:
            raise click.UsageError(f"--log-format: {error}") from None
    sys.exit(_run(options, layout))


def _run(options: dict[str, Any], layout: Any) -> int:
    from edfn_agent.enrich import Flows
    from edfn_agent.export.exporter import FlowExporter
    from edfn_agent.export.mapping import wanted_columns
    from edfn_agent.export.rows import Settings
    from edfn_agent.export.transports.base import TransportError
    from edfn_agent.export.transports.file import FileTransport
    from edfn_agent.export.transports.pcap import PcapTransport
    from edfn_agent.formats.errors import NotAFlowLog
    from edfn_agent.formats.reader import Reader
    from edfn_agent.garbage import expect_many_objects
    from edfn_agent.inputs import files
    from edfn_agent.pipeline import Pipeline

    settings = Settings(
        profile=options["profile"],
        enterprise_number=_enterprise_number(options),
        exporter_field=options["exporter_field"],
        packet_addresses=options["packet_addresses"],
        egress_zero_on_reject=options["egress_zero_on_reject"],
    )
    enricher = _enricher(options)
    destinations = _destinations(options)
    exporter = FlowExporter(settings, destinations, type_records=options["type_records"])
    wanted = wanted_columns(settings.profile, settings.packet_addresses)
    bad_lines = _BadLines()

    def observe(flows: Flows) -> None:
        bad_lines.show(flows.batch.bad_lines)
        progress.moved()

    pipeline = Pipeline(lambda: Reader(wanted, batch_rows=BATCH_ROWS), enricher, exporter, observe=observe)
    expect_many_objects()
    names = _files(options["files"])
    failed: list[tuple[str, str]] = []
    ended = ""  # why before the last file
    began = time.monotonic()
    with _Progress(names) as progress:
        try:
            for destination in destinations:
                if isinstance(destination.transport, FileTransport | PcapTransport):
                    destination.transport.open()  # a file without records is there too, and none of an earlier run
            for name in names:
                delivery = files.delivery(name, lambda outcome, why: None, layout)
                progress.begin(name, delivery)
                fault = pipeline.submit(delivery)
                if isinstance(fault, TransportError):
                    raise fault
                if fault is not None:
                    reason = (fault.strerror if isinstance(fault, OSError) else None) or str(fault)
                    failed.append((name, reason))
                    _say(f"{name}: {reason}")
                if isinstance(fault, NotAFlowLog):
                    bad_lines.silence(name)
                progress.end()
            pipeline.flush()
            exporter.drain(30.0)
        except TransportError as error:
            ended = str(error)
        except KeyboardInterrupt:
            ended = "interrupted"
        finally:
            exporter.close()
    if ended:
        _say(ended)
    counts = pipeline.counts
    summary = {
        "files": len(names),
        "files_failed": len(failed),
        "records_exported": exporter.flows,
        "records_nodata": counts.nodata,
        "records_skipdata": counts.skipdata,
        "records_without_addresses": counts.without_addresses,
        "lines_malformed": counts.malformed,
        "events_of_other_log_groups": counts.other_log_group,
        "messages": sum(destination.transport.messages for destination in destinations),
        "octets": sum(destination.transport.octets for destination in destinations),
        "seconds": round(time.monotonic() - began, 3),
        "failed": [{"file": name, "reason": reason} for name, reason in failed],
        "ended_early": ended,
        "collectors": [
            {
                "name": destination.transport.name,
                "messages": destination.transport.messages,
                "octets": destination.transport.octets,
                "mode": _mode_in_force(options, destination),
                "errors": dict(destination.transport.errors),
            }
            for destination in destinations
        ],
    }
    if options["as_json"]:
        click.echo(json.dumps(summary))
    else:
        _print_summary(summary)
    return 1 if failed or ended else 0


def _files(named: Sequence[str]) -> list[str]:
    """What there is to read, folders walked. An empty one is said, as nothing else would tell of it."""
    from edfn_agent.inputs import files

    found: list[str] = []
    for name in named:
        below = list(files.walk([name]))
        if not below:
            _say(f"{name}: a folder without files")
        found += below
    return found


def _enterprise_number(options: dict[str, Any]) -> int | None:
    from edfn_agent.export.mapping import DOCUMENTATION_NUMBER, check_enterprise_number

    number: int | None = options["enterprise_number"]
    if options["profile"] != "aws":
        if number is not None:
            raise click.UsageError("--enterprise-number goes with --profile aws")
        if options["type_records"]:
            raise click.UsageError("--type-records goes with --profile aws: IANA's elements need no description")
        return None
    fault = check_enterprise_number(number)
    if fault:
        raise click.UsageError(f"--enterprise-number: {fault}")
    if number == DOCUMENTATION_NUMBER:
        _say(f"warning: enterprise number {number} is for documentation (RFC 5612); use your organisation's own")
    return number


def _enricher(options: dict[str, Any]) -> Enricher:
    from edfn_agent.enrich import Enricher
    from edfn_agent.inventory.mapped import MapError, MappedDirectory, exporter_address, read_map

    try:
        addresses = read_map(options["exporter_map"]) if options["exporter_map"] else {}
        default = exporter_address(options["exporter"]) if options["exporter"] else None
    except MapError as error:
        raise click.UsageError(f"--exporter-map: {error}") from None
    except ValueError as error:
        raise click.UsageError(f"--exporter: {error}") from None
    if not options["inventory"]:
        return Enricher(MappedDirectory(addresses, default))
    from edfn_agent.inventory.file import InventoryError, from_file

    try:
        return from_file(options["inventory"], addresses, default, names=options["profile"] == "aws")
    except InventoryError as error:
        raise click.UsageError(f"--inventory: {error}") from None


def _destinations(options: dict[str, Any]) -> list[Destination]:
    from edfn_agent.export.destination import Destination
    from edfn_agent.export.pace import Pace
    from edfn_agent.export.transports import file_transport, parse_collector, transport_of

    for given in (options["collectors"], options["outputs"]):
        twice = next((one for one in given if given.count(one) > 1), None)
        if twice is not None:
            raise click.UsageError(f"{twice} is given twice")
    # addresses that nobody chose are fit to tell VPCs apart, not to send packets from
    mode: AddressMode = "field" if _nobody_chose(options) else options["exporter_address"]
    pace = options["records_per_second"]
    try:
        collectors = [parse_collector(url) for url in options["collectors"]]
        for collector in collectors:
            _must_be_known(collector)
        transports = [
            *((transport_of(collector, address_mode=mode, report=_say), pace) for collector in collectors),
            *((file_transport(Path(name)), 0) for name in options["outputs"]),
        ]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return [
        Destination(
            transport,
            max_message_size=options["max_message_size"],
            template_refresh=options["template_refresh"],
            pace=Pace(pace),
            report=_say,
        )
        for transport, pace in transports
    ]


def _must_be_known(collector: Collector) -> None:
    """A service waits for a name to appear; a person who has mistyped one should not."""
    import socket

    from edfn_agent.export.transports.collector import resolve

    try:
        resolve(collector)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise click.UsageError(f"--collector {collector}: nobody knows the name {collector.host}") from None
        # a resolver that does not answer now may do so later, and sending says why it waits


def _nobody_chose(options: dict[str, Any]) -> bool:
    chosen = options["exporter_map"] or options["exporter"] or options["inventory"]
    return options["exporter_address"] == "auto" and not chosen


def _mode_in_force(options: dict[str, Any], destination: Destination) -> str:
    """Whose address datagrams leave from, and why; empty for what has no datagrams."""
    reason: str = getattr(destination.transport, "mode_reason", "")
    because = "because no exporter addresses were given (--exporter-map, --exporter, --inventory)"
    return reason.replace("(configured)", because) if _nobody_chose(options) else reason


def _print_summary(summary: dict[str, Any]) -> None:
    seconds = max(summary["seconds"], 0.001)
    flows, messages, octets = (f"{summary[key]:,}" for key in ("records_exported", "messages", "octets"))
    rate = f"{summary['records_exported'] / seconds:,.0f} flows/s"
    where = f" to {len(summary['collectors'])} destinations" if len(summary["collectors"]) > 1 else ""
    click.echo(f"{flows} flows in {messages} messages ({octets} octets){where}, {summary['seconds']:.1f} s, {rate}")
    skipped = [
        (summary["records_nodata"], "NODATA"),
        (summary["records_skipdata"], "SKIPDATA"),
        (summary["records_without_addresses"], "without addresses"),
        (summary["lines_malformed"], "malformed"),
        (summary["events_of_other_log_groups"], "of log groups without flow logs"),
    ]
    if any(count for count, _ in skipped):
        click.echo("not exported: " + ", ".join(f"{count:,} {what}" for count, what in skipped if count))
    for collector in summary["collectors"]:
        if collector["mode"]:
            click.echo(f"{collector['name']}: {collector['mode']}")
        if collector["errors"]:
            errors = ", ".join(f"{count:,} {what.replace('_', ' ')}" for what, count in collector["errors"].items())
            click.echo(f"{collector['name']}: errors: {errors}")
    if summary["files_failed"]:
        click.echo(f"{summary['files_failed']} of {summary['files']} files could not be read to their end")
    if summary["ended_early"]:
        click.echo(f"ended before its time, with files unread or flows unsent: {summary['ended_early']}")


def _say(line: str) -> None:
    click.echo(line, err=True)


class _BadLines:
    """Shows the first few malformed lines of each file, but of what is no flow log at all."""

    def __init__(self) -> None:
        self._shown: dict[str, int] = {}
        self._silent: set[str] = set()

    def silence(self, name: str) -> None:
        """It is no flow log: the reason tells, and its lines are nothing for people."""
        self._silent.add(name)

    def show(self, lines: Any) -> None:
        line: BadLine
        for line in lines:
            if line.source in self._silent:
                continue
            shown = self._shown[line.source] = self._shown.get(line.source, 0) + 1
            if shown <= SHOWN_BAD_LINES:
                _say(f"{line.source}:{line.line}: {line.reason}: {line.text}")


class _Progress:
    """A bar by octets on the terminal, when there is one and the work is long enough to want it."""

    LONG = 20_000_000  # octets: about half a second of work

    def __init__(self, names: list[str]) -> None:
        self._bar: Any = None
        self._sizes: dict[str, int] = {}
        self._name = ""
        self._delivery: Delivery | None = None
        self._done = 0  # octets of files that are read
        if sys.stderr.isatty():
            self._sizes = {name: Path(name).stat().st_size for name in names if Path(name).is_file()}
            if sum(self._sizes.values()) > self.LONG:
                from rich.console import Console
                from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

                columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
                self._bar = Progress(*columns, console=Console(stderr=True), transient=True)

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("export", total=sum(self._sizes.values()))
        return self

    def begin(self, name: str, delivery: Delivery) -> None:
        self._name, self._delivery = name, delivery

    def moved(self) -> None:
        """Something of the file in hand has gone out."""
        if self._bar is not None and self._delivery is not None:
            self._bar.update(self._task, completed=self._done + self._delivery.octets)

    def end(self) -> None:
        self._done += self._sizes.get(self._name, 0)
        self._delivery = None
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
