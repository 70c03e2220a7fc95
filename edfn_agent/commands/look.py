"""`edfn-agent collect` and `edfn-agent decode`: look at IPFIX as it arrives, or as it lies in a file."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edfn_agent.collector import Received, Tally
    from edfn_agent.export.transports.file import DrainedFile
    from ipfix import DataSet, Message, Template


@click.command()
@click.option(
    "--listen",
    default="udp://127.0.0.1:4739",
    show_default=True,
    metavar="URL",
    help="udp://host:port or tcp://host:port.",
)
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N flow records.")
@click.option("--seconds", type=click.FloatRange(min=0), metavar="S", help="Stop after S seconds.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a record, options records too.")
@click.option("--templates", is_flag=True, help="Show templates too.")
@click.option("--quiet", is_flag=True, help="Only the table at the end.")
@click.option(
    "--write", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Keep the messages (RFC 5655)."
)
@click.option(
    "--enterprise-number",
    type=click.IntRange(1, 2**32 - 1),
    metavar="N",
    help="Name the elements of profile aws under this number, where no type records do.",
)
def collect(
    listen: str,
    count: int | None,
    seconds: float | None,
    as_json: bool,
    templates: bool,
    quiet: bool,
    write: Path | None,
    enterprise_number: int | None,
) -> None:
    """Receive IPFIX and show it. Ctrl-C, --count or --seconds end it; a table per exporter comes last.

    \b
      edfn-agent collect
      edfn-agent collect --listen tcp://[::1]:4739 --json --count 100
    """
    from edfn_agent.collector import Listener, Tally, deadline
    from edfn_agent.export.mapping import registry
    from edfn_agent.export.transports import parse_collector
    from edfn_agent.export.transports.base import TransportError
    from edfn_agent.export.transports.file import DrainedFile
    from ipfix import CollectingProcess

    try:
        where = parse_collector(listen)
        if where.scheme == "tls":
            raise ValueError("collect listens on udp:// or tcp://")
    except ValueError as error:
        raise click.UsageError(f"--listen: {str(error).removeprefix('collector ')}") from None
    try:
        file = DrainedFile(write) if write else None
    except TransportError as error:
        raise click.ClickException(f"--write: {error}") from None
    try:
        process = CollectingProcess(registry(enterprise_number))
        listener = Listener(where.scheme, where.host, where.port, process)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {listen}: {error.strerror}") from None
    show = _Show(as_json, templates, quiet)
    tally = Tally()
    time_is_up = deadline(seconds)
    click.echo(f"listening on {where.scheme}://{where.host}:{listener.port}", err=True)
    full = ""
    try:
        for received in listener.receive(lambda: time_is_up() or (count is not None and tally.flows >= count)):
            tally.add(received)
            show(received)
            if file is not None:
                _keep(received, file)
    except KeyboardInterrupt:
        pass
    except TransportError as error:
        full = f"--write: {error}"
    finally:
        listener.close()
        if file is not None:
            file.close()
    if not as_json:
        print_tally(tally)
    if full:
        raise click.ClickException(full)


def _keep(received: Received, file: DrainedFile) -> None:
    """What is a message, whatever is wrong within it. Anything else would hide all that follows in the file."""
    message = received.message
    if message is not None and len(received.octets) >= message.length:
        file.write(received.octets[: message.length])
        file.drain()


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a record, options records too.")
@click.option("--templates", is_flag=True, help="Show templates too.")
@click.option(
    "--enterprise-number",
    type=click.IntRange(1, 2**32 - 1),
    metavar="N",
    help="Name the elements of profile aws under this number, where no type records do.",
)
def decode(file: Path, as_json: bool, templates: bool, enterprise_number: int | None) -> None:
    """Show what is in an IPFIX file (RFC 5655) or a packet capture (pcap, pcapng).

    \b
      edfn-agent decode flows.ipfix
      edfn-agent decode flows.pcap --json --enterprise-number 4242

    Exit status 1 when something in it could not be decoded; the rest is shown all the same.
    """
    from edfn_agent.collector import Tally
    from edfn_agent.collector import decode as decode_octets
    from edfn_agent.export.mapping import registry
    from ipfix import CollectingProcess, DecodingError

    show = _Show(as_json, templates, False)
    tally = Tally()
    process = CollectingProcess(registry(enterprise_number))
    failed = False
    try:
        for octets, sender, session in _messages(file):
            received = decode_octets(process, octets, sender, session)
            message = received.message
            failed = failed or message is None or message.error is not None or bool(message.unknown)
            tally.add(received)
            show(received)
    except BrokenPipeError:
        raise  # of standard output: whoever read it has seen enough
    except (DecodingError, OSError) as error:
        click.echo(f"{file}: {error}", err=True)
        failed = True
    if not as_json:
        print_tally(tally)
    sys.exit(1 if failed else 0)


_CAPTURES = (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x0a\x0d\x0d\x0a")


def _messages(file: Path) -> Iterator[tuple[bytes, str, Any]]:
    """(octets, sender, session) of each message."""
    from ipfix import FileReader

    with file.open("rb") as opened:
        start = opened.read(4)
        opened.seek(0)
        if start not in _CAPTURES:
            for octets in FileReader(opened):
                yield octets, file.name, None
            return
    try:
        from scapy.error import Scapy_Exception, log_runtime
        from scapy.layers.inet import IP, UDP
        from scapy.layers.inet6 import IPv6
        from scapy.utils import PcapReader
    except ImportError:
        raise click.ClickException("reading captures needs scapy: pip install 'edfn-agent[pcap]'") from None
    faults: list[str] = []  # scapy warns of a capture that is cut short or of an unknown kind, and goes on

    def note(warning: logging.LogRecord) -> bool:
        faults.append(warning.getMessage())
        return False

    log_runtime.addFilter(note)
    try:
        packets = PcapReader(str(file))
    except Scapy_Exception as error:
        raise OSError(str(error)) from None
    with packets:
        for packet in packets:
            if UDP not in packet or not (IP in packet or IPv6 in packet):
                continue
            payload = bytes(packet[UDP].payload)
            if payload[:2] == b"\x00\x0a":
                sender = packet[IP].src if IP in packet else packet[IPv6].src
                yield payload, sender, (sender, packet[UDP].sport, packet[UDP].dport)
    if faults:
        raise OSError("; ".join(dict.fromkeys(faults)))


class _Show:
    """Prints what was received: a line a record, or a JSON object a record."""

    def __init__(self, as_json: bool, templates: bool, quiet: bool) -> None:
        self._record: Callable[[Received, Message, DataSet, dict[str, Any]], None] = (
            self._json_record if as_json else self._text_record
        )
        self._as_json = as_json
        self._templates = templates
        self._quiet = quiet

    def __call__(self, received: Received) -> None:
        message = received.message
        if message is None:
            click.echo(f"{received.sender}: not an IPFIX message: {received.error}", err=True)
            return
        where = f"{received.sender} domain {message.domain}"
        if message.gap:
            what = f"{message.gap} data records are missing" if message.gap > 0 else "late, repeated, or a restart"
            click.echo(f"{where}: sequence number {message.sequence}: {what}", err=True)
        if self._templates:
            for template in message.templates:
                self._template(received, message, template)
        for unknown in message.unknown:
            click.echo(f"{where}: set {unknown.set_id}: no template for it yet, {len(unknown.octets)} octets", err=True)
        if message.error is not None:
            click.echo(f"{where}: {message.error}", err=True)
        if not self._quiet:
            for data in message.data:
                for record in data:
                    self._record(received, message, data, record)

    def _template(self, received: Received, message: Message, template: Template) -> None:
        from ipfix import OptionsTemplate

        scope = template.scope_count if isinstance(template, OptionsTemplate) else 0
        if self._as_json:
            fields = [
                {"name": f.element.name, "id": f.element.id, "pen": f.element.pen, "length": f.length}
                for f in template.fields
            ]
            head = {"exporter": received.sender, "domain": message.domain, "template": template.id, "scope": scope}
            click.echo(json.dumps({**head, "fields": fields}))
            return
        kind = f"options template {template.id}, scope {scope}" if scope else f"template {template.id}"
        parts = ", ".join(
            f"{_safe(f.element.name)}({f.element.pen}/{f.element.id})[{'variable' if f.is_variable else f.length}]"
            if f.element.pen
            else f"{_safe(f.element.name)}({f.element.id})[{'variable' if f.is_variable else f.length}]"
            for f in template.fields
        )
        click.echo(f"{received.sender} domain {message.domain} {kind}: {parts}")

    def _json_record(self, received: Received, message: Message, data: DataSet, record: dict[str, Any]) -> None:
        head = {
            "exporter": received.sender,
            "domain": message.domain,
            "exportTime": message.export_time,
            "template": data.template.id,
            "options": data.is_options,
        }
        # NaN and the infinities are no JSON (RFC 8259 section 6)
        values = {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in record.items()}
        click.echo(json.dumps({**head, **values}, default=_plain))

    def _text_record(self, received: Received, message: Message, data: DataSet, record: dict[str, Any]) -> None:
        kind = "options" if data.is_options else "flow"
        units = {name: f.element.units for name, f in zip(data.template.names, data.template.fields, strict=True)}
        parts = [f"{_safe(name)}={_text(value)}{_unit(units[name])}" for name, value in record.items()]
        click.echo(f"{received.sender} domain {message.domain} {kind} {data.template.id}: {' '.join(parts)}")


def _unit(unit: str) -> str:
    # the values of times say what they are
    return f" {unit}" if unit and unit not in ("none", "seconds", "milliseconds", "microseconds", "nanoseconds") else ""


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    isoformat = getattr(value, "isoformat", None)
    return isoformat(timespec="milliseconds").replace("+00:00", "Z") if isoformat else str(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return _safe(json.dumps(value, ensure_ascii=False))
    return str(value) if isinstance(value, (int, float)) else _plain(value)


def _safe(text: str) -> str:
    """Text that somebody sent, without what a terminal takes for commands."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def print_tally(tally: Tally) -> None:
    """A table, one line per exporter and observation domain."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("sender", "exporter", "name", "domain"):
        table.add_column(name, no_wrap=True)
    for name in ("flows", "octets", "packets", "denied", "options", "missing", "errors"):
        table.add_column(name, justify="right")
    for each in tally.exporters.values():
        numbers = (each.flows, each.octets, each.packets, each.denied, each.options, each.missing, each.errors)
        texts = (each.sender, _safe(each.exporter), _safe(each.name), str(each.domain))
        table.add_row(*texts, *(f"{number:,}" for number in numbers))
    if tally.exporters:
        console = Console(markup=False, emoji=False)  # names come from whoever sent them
        console.width = max(console.width, 140)  # numbers are no use when they are cut
        console.print(table)
    if tally.not_ipfix:
        click.echo(f"{tally.not_ipfix:,} {'datagram was' if tally.not_ipfix == 1 else 'datagrams were'} no IPFIX")
    unknown = sum(each.unknown_sets for each in tally.exporters.values())
    if unknown:
        sets = "data set came before its template" if unknown == 1 else "data sets came before their template"
        click.echo(f"{unknown:,} {sets}, and could not be decoded")
    count = len(tally.exporters)
    click.echo(f"{tally.flows:,} flow records of {count:,} {'exporter' if count == 1 else 'exporters'}")
