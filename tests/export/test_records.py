"""What a line of flow log becomes on the wire: literal lines in, records out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from itertools import product
from pathlib import Path
from typing import Any

from edfn_agent.export.mapping import ENTERPRISE, STANDARD_COLUMNS
from edfn_agent.formats.fields import FIELDS

from .conftest import Export

V2 = (
    "2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 20641 22 6 20 4249 "
    "1418530010 1418530070 ACCEPT OK\n"
)


def only(records: list[dict[str, Any]]) -> dict[str, Any]:
    (record,) = records
    return record


def test_a_default_line_becomes_the_standard_elements(export: Export) -> None:
    record = only(export(V2).flows)
    index = record["ingressInterface"]
    assert index > 0
    assert record == {
        "domain": record["ingressVRFID"],
        "sourceIPv4Address": IPv4Address("172.31.16.139"),
        "destinationIPv4Address": IPv4Address("172.31.16.21"),
        "sourceTransportPort": 20641,
        "destinationTransportPort": 22,
        "protocolIdentifier": 6,
        "octetDeltaCount": 4249,
        "packetDeltaCount": 20,
        "flowStartMilliseconds": datetime(2014, 12, 14, 4, 6, 50, tzinfo=UTC),
        "flowEndMilliseconds": datetime(2014, 12, 14, 4, 7, 50, tzinfo=UTC),
        "ingressInterface": index,
        "egressInterface": 0,
        "forwardingStatus": 64,
        "firewallEvent": 1,
        "ingressVRFID": record["domain"],
        "exporterIPv4Address": record["exporterIPv4Address"],
    }


def test_ipv6_has_a_template_of_its_own(export: Export) -> None:
    line = (
        "2 123456789010 eni-1235b8ca123456789 2001:db8:1234:a100:8d6e:3477:df66:f105 "
        "2001:db8:1234:a102:3304:8879:34cf:4071 34892 22 6 54 8855 1477913708 1477913820 ACCEPT OK\n"
    )
    first, second = export(V2 + line).flows
    assert "sourceIPv6Address" not in first
    assert "sourceIPv4Address" not in second
    assert second["sourceIPv6Address"] == IPv6Address("2001:db8:1234:a100:8d6e:3477:df66:f105")
    assert second["destinationIPv6Address"] == IPv6Address("2001:db8:1234:a102:3304:8879:34cf:4071")
    assert second["octetDeltaCount"] == 8855


def test_reject_is_dropped_and_denied(export: Export) -> None:
    record = only(export(V2.replace("ACCEPT", "REJECT")).flows)
    assert (record["forwardingStatus"], record["firewallEvent"]) == (128, 3)


def test_reject_with_a_reason_is_dropped_by_policy(export: Export) -> None:
    result = export(
        "srcaddr dstaddr action reject-reason log-status\n"
        "10.0.0.1 10.0.0.2 REJECT BPA OK\n10.0.0.1 10.0.0.2 REJECT - OK\n10.0.0.1 10.0.0.2 ACCEPT - OK\n"
    )
    assert [record["forwardingStatus"] for record in result.flows] == [129, 128, 64]


def test_direction_says_which_side_the_interface_is_on(export: Export) -> None:
    result = export(
        "interface-id srcaddr dstaddr flow-direction\n"
        "eni-0a 10.0.0.1 10.0.0.2 ingress\neni-0a 10.0.0.2 10.0.0.1 egress\neni-0a 10.0.0.3 10.0.0.1 -\n"
    )
    by_source = {str(record["sourceIPv4Address"]): record for record in result.flows}
    arrived, left, unknown = (by_source[f"10.0.0.{i}"] for i in (1, 2, 3))
    index = arrived["ingressInterface"]
    assert (arrived["egressInterface"], arrived["flowDirection"]) == (0, 0)
    assert (left["ingressInterface"], left["egressInterface"], left["flowDirection"]) == (0, index, 1)
    assert (unknown["ingressInterface"], unknown["egressInterface"]) == (index, 0)
    assert "flowDirection" not in unknown


def test_what_a_layout_lacks_is_not_in_the_record(export: Export) -> None:
    record = only(export("srcaddr dstaddr protocol start\n10.0.0.1 10.0.0.2 17 1418530010\n").flows)
    assert record.keys() == {
        *("domain", "sourceIPv4Address", "destinationIPv4Address", "protocolIdentifier", "flowStartMilliseconds"),
        *("ingressVRFID", "exporterIPv4Address"),
    }


def test_a_record_without_bytes_uses_a_template_without_them(export: Export) -> None:
    """AWS leaves `bytes` out of what VPC Block Public Access rejects."""
    with_bytes, without = sorted(export(V2 + V2.replace(" 4249 ", " - ")).flows, key=len, reverse=True)
    assert with_bytes["octetDeltaCount"] == 4249
    assert "octetDeltaCount" not in without
    assert without["packetDeltaCount"] == 20


def test_a_record_has_what_its_line_has_however_many_kinds_of_line_there_are(export: Export) -> None:
    """All that may be `-` in every combination: 512 templates, more than an octet can tell apart."""
    values = {
        "dstaddr": ("10.0.0.2", "destinationIPv4Address"),
        "srcport": ("1", "sourceTransportPort"),
        "dstport": ("2", "destinationTransportPort"),
        "protocol": ("6", "protocolIdentifier"),
        "packets": ("7", "packetDeltaCount"),
        "bytes": ("99", "octetDeltaCount"),
        "start": ("1735920000", "flowStartMilliseconds"),
        "end": ("1735920060", "flowEndMilliseconds"),
        "action": ("ACCEPT", "firewallEvent"),
    }
    elements = [element for _, element in values.values()]
    there = list(product((True, False), repeat=len(values)))
    lines = [
        " ".join(["10.0.0.1", *(text if has else "-" for has, (text, _) in zip(which, values.values(), strict=True))])
        for which in there
    ]
    flows = export("\n".join([" ".join(["srcaddr", *values]), *lines])).flows
    assert sorted(tuple(element in record for element in elements) for record in flows) == sorted(there)
    assert all(record.get("octetDeltaCount", 99) == 99 for record in flows)


def test_one_address_is_enough(export: Export) -> None:
    record = only(export("srcaddr dstaddr\n10.0.0.1 -\n").flows)
    assert record["sourceIPv4Address"] == IPv4Address("10.0.0.1")
    assert "destinationIPv4Address" not in record


def test_counters_arrive_whole(export: Export) -> None:
    most = 2**63 - 1
    record = only(export(f"srcaddr dstaddr packets bytes\n10.0.0.1 10.0.0.2 {most} {most}\n").flows)
    assert (record["packetDeltaCount"], record["octetDeltaCount"]) == (most, most)


def test_milliseconds_are_recognised(export: Export) -> None:
    record = only(export("srcaddr dstaddr start end\n10.0.0.1 10.0.0.2 1418530010123 1418530010\n").flows)
    assert record["flowStartMilliseconds"] == datetime(2014, 12, 14, 4, 6, 50, 123000, tzinfo=UTC)
    assert record["flowEndMilliseconds"] == datetime(2014, 12, 14, 4, 6, 50, tzinfo=UTC)


def test_tcp_flags_are_one_octet(export: Export) -> None:
    result = export("srcaddr dstaddr tcp-flags\n10.0.0.1 10.0.0.2 19\n10.0.0.1 10.0.0.2 -\n")
    assert [record["tcpControlBits"] for record in result.flows] == [19, 0]
    template = next(t for message in result.messages for t in message.templates if t.id >= 300)
    assert {f.element.name: f.length for f in template.fields}["tcpControlBits"] == 1


def test_packet_addresses_take_the_place_of_addresses(export: Export) -> None:
    text = "srcaddr dstaddr pkt-srcaddr pkt-dstaddr\n10.0.0.1 10.0.0.2 192.0.2.1 -\n"
    assert only(export(text).flows)["sourceIPv4Address"] == IPv4Address("10.0.0.1")
    record = only(export(text, "--packet-addresses").flows)
    assert record["sourceIPv4Address"] == IPv4Address("192.0.2.1")
    assert record["destinationIPv4Address"] == IPv4Address("10.0.0.2")


def test_egress_zero_on_reject(export: Export) -> None:
    text = (
        "interface-id srcaddr dstaddr flow-direction action\n"
        "eni-0a 10.0.0.1 10.0.0.2 egress REJECT\neni-0a 10.0.0.1 10.0.0.2 egress ACCEPT\n"
    )
    rejected, accepted = export(text, "--egress-zero-on-reject").flows
    assert rejected["egressInterface"] == 0
    assert accepted["egressInterface"] > 0


def test_no_exporter_field(export: Export) -> None:
    assert "exporterIPv4Address" not in only(export(V2, "--no-exporter-field").flows)


class TestExporters:
    LINES = (
        "account-id vpc-id interface-id srcaddr dstaddr\n"
        "111111111111 vpc-0a eni-0a 10.0.0.1 10.0.0.2\n"
        "111111111111 vpc-0b eni-0b 10.0.0.3 10.0.0.2\n"
        "222222222222 vpc-0c eni-0c 10.0.0.4 10.0.0.2\n"
        "222222222222 vpc-0d eni-0d 10.0.0.5 10.0.0.2\n"
    )

    def exporters(self, export: Export, tmp_path: Path, mapping: dict[str, str], *arguments: str) -> dict[str, Any]:
        path = tmp_path / "map.yaml"
        path.write_text(json.dumps(mapping))
        result = export(self.LINES, "--exporter-map", str(path), *arguments)
        assert len({record["domain"] for record in result.flows}) == 4  # every VPC is its own
        return {str(record["sourceIPv4Address"]): str(record["exporterIPv4Address"]) for record in result.flows}

    def test_each_vpc_has_its_address_and_domain(self, export: Export, tmp_path: Path) -> None:
        found = self.exporters(export, tmp_path, {"vpc-0a": "10.1.0.1", "vpc-0b": "10.2.0.1"}, "--exporter", "10.9.0.1")
        assert found == {
            "10.0.0.1": "10.1.0.1",
            "10.0.0.3": "10.2.0.1",
            "10.0.0.4": "10.9.0.1",
            "10.0.0.5": "10.9.0.1",
        }

    def test_interfaces_and_accounts_can_be_named_too(self, export: Export, tmp_path: Path) -> None:
        mapping = {"vpc-0a": "10.1.0.1", "eni-0b": "10.2.0.1", "222222222222": "10.3.0.1"}
        assert self.exporters(export, tmp_path, mapping) == {
            "10.0.0.1": "10.1.0.1",
            "10.0.0.3": "10.2.0.1",
            "10.0.0.4": "10.3.0.1",
            "10.0.0.5": "10.3.0.1",
        }

    def test_without_a_map_the_numbers_follow_from_the_id(self, export: Export) -> None:
        one, two = (
            {str(r["sourceIPv4Address"]): (r["domain"], r["exporterIPv4Address"]) for r in export(text).flows}
            for text in (self.LINES, "\n".join([self.LINES.splitlines()[0], *self.LINES.splitlines()[:0:-1]]))
        )
        assert one == two
        assert len(set(one.values())) == 4

    def test_a_faulty_map_is_refused_with_every_fault(self, export: Export, tmp_path: Path) -> None:
        path = tmp_path / "map.yaml"
        path.write_text("vpc-0a: 10.0.0.256\nvcp-0b: 10.0.0.1\nvpc-0c: 224.0.0.1\n")
        result = export(self.LINES, "--exporter-map", str(path))
        assert result.status == 2
        for what in ("10.0.0.256", "vcp-0b", "224.0.0.1"):
            assert what in result.stderr


def test_options_come_before_flows_and_say_who_and_what(export: Export) -> None:
    result = export("vpc-id interface-id srcaddr dstaddr\nvpc-0a eni-0a 10.0.0.1 10.0.0.2\n", "--exporter", "10.1.0.1")
    domain = result.flows[0]["domain"]
    assert result.options == [
        {"domain": domain, "observationDomainId": domain, "exporterIPv4Address": IPv4Address("10.1.0.1")},
        {"domain": domain, "observationDomainId": domain, "ingressVRFID": domain, "VRFname": "vpc-0a"},
        {
            "domain": domain,
            "observationDomainId": domain,
            "selectorAlgorithm": 1,
            "samplingPacketInterval": 1,
            "samplingPacketSpace": 0,
        },
        {
            "domain": domain,
            "observationDomainId": domain,
            "ingressInterface": result.flows[0]["ingressInterface"],
            "interfaceDescription": "eni-0a",
        },
    ]
    kinds = [data.is_options for message in result.messages for data in message.data]
    assert kinds == sorted(kinds, reverse=True)


def test_transit_gateway_records_go_between_attachments(export: Export) -> None:
    result = export(
        "tgw-id tgw-attachment-id tgw-pair-attachment-id srcaddr dstaddr flow-direction packets-lost-blackhole\n"
        "tgw-0a tgw-attach-01 tgw-attach-02 10.0.0.1 10.1.0.1 ingress 7\n",
        number=4242,
    )
    record = only(result.flows)
    names = {r["ingressInterface"]: r["interfaceDescription"] for r in result.options if "interfaceDescription" in r}
    assert names[record["ingressInterface"]] == "tgw-attach-01"
    assert names[record["egressInterface"]] == "tgw-attach-02"
    assert record["awsPacketsLostBlackhole"] == 7


class TestProfileAws:
    def test_every_field_of_the_catalogue_is_carried(self, export: Export) -> None:
        carried = {row.field for row in ENTERPRISE} | set(STANDARD_COLUMNS)
        assert {field.name for field in FIELDS} <= carried

    def test_ids_and_names_are_unique_and_where_collectors_want_them(self) -> None:
        ids = [row.id for row in ENTERPRISE]
        assert len(set(ids)) == len({row.name for row in ENTERPRISE}) == len(ids)
        assert all(600 < id < 16384 for id in ids)

    def test_a_line_with_everything(self, export: Export) -> None:
        names = [f.name for f in FIELDS if not f.name.startswith(("tgw-", "packets-lost", "resource-type"))]
        special = {
            "srcaddr": "10.0.0.1",
            "dstaddr": "10.0.0.2",
            "pkt-srcaddr": "192.0.2.1",
            "pkt-dstaddr": "192.0.2.2",
            "action": "ACCEPT",
            "log-status": "OK",
            "flow-direction": "egress",
            "instance-tag": "a%20b%22c%C3%A9",
            "version": "11",
        }
        values = [special.get(f, "5" if not f.endswith("id") else f"{f}-x") for f in names]
        result = export(f"{' '.join(names)}\n{' '.join(values)}\n", number=4242)
        record = only(result.flows)
        template = next(t for message in result.messages for t in message.templates if t.id >= 300)
        assert len(template.fields) <= 60
        lengths = [f.length for f in template.fields]
        assert lengths == [*[n for n in lengths if n != 65535], *[n for n in lengths if n == 65535]]
        for row in ENTERPRISE:
            if row.field in names and row.family != 6:
                assert row.name in record
        assert record["awsInstanceTag"] == "a b%22cé"
        assert record["awsPktSourceIPv4Address"] == IPv4Address("192.0.2.1")
        assert record["awsVpcId"] == "vpc-id-x"
        assert record["awsLogStatus"] == 1

    def test_absent_values(self, export: Export) -> None:
        text = (
            "srcaddr dstaddr vpc-id traffic-path encryption-status pkt-srcaddr\n"
            "10.0.0.1 10.0.0.2 - - - -\n10.0.0.1 10.0.0.2 vpc-0a 8 3 192.0.2.1\n"
        )
        absent, present = sorted(export(text, number=4242).flows, key=lambda record: record["awsVpcId"])
        assert (absent["awsVpcId"], absent["awsTrafficPath"], absent["awsEncryptionStatus"]) == ("", 0, 255)
        assert absent["awsPktSourceIPv4Address"] == IPv4Address("0.0.0.0")
        assert (present["awsVpcId"], present["awsTrafficPath"], present["awsEncryptionStatus"]) == ("vpc-0a", 8, 3)

    def test_unknown_fields_are_carried_by_name(self, export: Export) -> None:
        text = "srcaddr dstaddr new-field newer-field\n" + "".join(
            f"10.0.0.1 10.0.0.2 {values}\n" for values in ("a -", "- -", "a b")
        )
        assert [record["awsOtherFields"] for record in export(text, number=4242).flows] == [
            "new-field=a",
            "",
            "new-field=a newer-field=b",
        ]

    def test_needs_a_number_that_collectors_can_read(self, export: Export) -> None:
        assert "needs an enterprise number" in export(V2, "--profile", "aws").stderr
        assert "nfdump" in export(V2, number=131072).stderr
        assert export(V2, "--enterprise-number", "4242").status == 2


def test_one_template_id_never_means_two_things(export: Export) -> None:
    layouts = ["srcaddr dstaddr", "dstaddr srcaddr bytes", "srcaddr dstaddr protocol", "bytes srcaddr dstaddr"]
    lines = ["10.0.0.1 10.0.0.2", "10.0.0.1 10.0.0.2 5", "10.0.0.1 10.0.0.2 6", "7 10.0.0.1 10.0.0.2"]
    result = export([f"{layout}\n{line}\n" for layout, line in zip(layouts, lines, strict=True)])
    seen: dict[int, Any] = {}
    for message in result.messages:
        for template in message.templates:
            assert seen.setdefault(template.id, template) == template
    assert len([id for id in seen if id >= 300]) == 3  # the second and the last have the same fields
    assert len(result.flows) == 4
