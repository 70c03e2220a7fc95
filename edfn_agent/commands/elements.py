"""`edfn-agent elements`: the enterprise elements of profile aws, in the forms that collectors are taught in."""

from __future__ import annotations

import json

import click

from edfn_agent.export.mapping import ENTERPRISE, EnterpriseElement

_COLUMNS = ("id", "name", "type", "length", "field", "description")


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "nfacctd", "goflow2", "telegraf", "logstash", "xml"]),
    default="table",
    show_default=True,
    help="table, json and csv for people and scripts; xml for programs on libfixbuf; the others for what they name.",
)
@click.option(
    "--enterprise-number",
    type=click.IntRange(1, 2**32 - 1),
    default=32473,
    metavar="N",
    help="Your private enterprise number (default 32473, the one for documentation).",
)
def elements(form: str, enterprise_number: int) -> None:
    """List the enterprise elements of profile aws: id, name, type and flow-log field.

    Ids never change, so what a collector is taught once stays right.
    """
    click.echo(_FORMS[form](enterprise_number), nl=False)


def _cells(row: EnterpriseElement) -> tuple[str, ...]:
    length = "variable" if row.length == 65535 else str(row.length)
    return (str(row.id), row.name, row.data_type, length, row.field, row.description)


def _table(number: int) -> str:
    rows = [_COLUMNS, *map(_cells, ENTERPRISE)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _csv(number: int) -> str:
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("pen", *_COLUMNS))
    writer.writerows((number, *_cells(row)) for row in ENTERPRISE)
    return out.getvalue()


def _json(number: int) -> str:
    rows = [
        {
            "pen": number,
            "id": row.id,
            "name": row.name,
            "type": row.data_type,
            "length": row.length,
            "field": row.field,
            "description": row.description,
        }
        for row in ENTERPRISE
    ]
    return json.dumps(rows, indent=2) + "\n"


def _nfacctd(number: int) -> str:
    """One primitive a line; `aggregate: ..., awsVpcId, ...` then shows it, up to 49 of them (docs/collectors.md)."""
    semantics = {"unsigned8": "u_int", "unsigned64": "u_int", "ipv4Address": "ip", "ipv6Address": "ip", "string": "str"}
    return "".join(
        f"name={row.name} field_type={number}:{row.id} "
        f"len={'vlen' if row.length == 65535 else row.length} semantics={semantics[row.data_type]}\n"
        for row in ENTERPRISE
    )


def _goflow2(number: int) -> str:
    """A whole file for `-mapping`: these elements, and those of IANA that goflow2 does not show by itself."""
    iana = {"flowDirection": 61, "exporterIPv4Address": 130, "firewallEvent": 233, "ingressVRFID": 234}
    own = [
        *["type", "sequence_num", "observation_domain_id", "sampler_address", "time_flow_start_ns", "time_flow_end_ns"],
        *["src_addr", "dst_addr", "src_port", "dst_port", "proto", "tcp_flags", "bytes", "packets", "in_if", "out_if"],
        "forwarding_status",
    ]
    names = [*iana, *(row.name for row in ENTERPRISE)]
    text = {row.name for row in ENTERPRISE if row.data_type == "string"}
    address = {row.name for row in ENTERPRISE if row.data_type.startswith("ipv")} | {"exporterIPv4Address"}
    lines = ["formatter:", "  fields:", *(f"    - {name}" for name in [*own, *names]), "  protobuf:"]
    for index, name in enumerate(names, 1000):
        kind = "string" if name in text | address else "varint"
        lines.append(f"    - {{name: {name}, index: {index}, type: {kind}}}")
    lines += [
        "  render:",
        *(f"    {name}: {'string' if name in text else 'ip'}" for name in names if name in text | address),
    ]
    lines += ["ipfix:", "  mapping:", *(f"    - {{field: {id}, destination: {name}}}" for name, id in iana.items())]
    lines += [
        f"    - {{field: {row.id}, penprovided: true, pen: {number}, destination: {row.name}}}" for row in ENTERPRISE
    ]
    return "\n".join(lines) + "\n"


def _telegraf(number: int) -> str:
    """A file for `private_enterprise_number_files`."""
    types = {"string": "string", "ipv4Address": "ip", "ipv6Address": "ip"}
    return "".join(f"{number}.{row.id},{row.name},{types.get(row.data_type, 'uint')}\n" for row in ENTERPRISE)


def _logstash(number: int) -> str:
    """A file for `ipfix_definitions` of the codec netflow."""
    types = {"unsigned8": "uint8", "unsigned64": "uint64", "ipv4Address": "ip4_addr", "ipv6Address": "ip6_addr"}
    rows = (f"  {row.id}:\n  - :{types.get(row.data_type, 'string')}\n  - :{row.name}\n" for row in ENTERPRISE)
    return f"---\n{number}:\n{''.join(rows)}"


def _xml(number: int) -> str:
    """As `ipfixDump --element-file` and other programs on libfixbuf read it (the format of IANA's registry)."""
    from xml.sax.saxutils import escape

    records = "".join(
        f"    <record>\n      <name>{row.name}</name>\n      <dataType>{row.data_type}</dataType>\n"
        f"      <cert:enterpriseId>{number}</cert:enterpriseId>\n      <elementId>{row.id}</elementId>\n"
        f"      <description><paragraph>{escape(row.description)}</paragraph></description>\n    </record>\n"
        for row in ENTERPRISE
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<registry xmlns="http://www.iana.org/assignments"'
        ' xmlns:cert="http://www.cert.org/ipfix" id="ipfix">\n  <registry id="ipfix-information-elements">\n'
        f"{records}  </registry>\n</registry>\n"
    )


_FORMS = {
    "table": _table,
    "json": _json,
    "csv": _csv,
    "nfacctd": _nfacctd,
    "goflow2": _goflow2,
    "telegraf": _telegraf,
    "logstash": _logstash,
    "xml": _xml,
}
