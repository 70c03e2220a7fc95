"""Type records (RFC 5610): elements described on the wire, and what a collecting process makes of descriptions."""

import struct
from ipaddress import IPv4Address

import pytest

from ipfix import (
    IANA,
    CollectingProcess,
    ExportingProcess,
    InformationElement,
    Template,
    UnknownElementError,
    type_records,
    type_template,
)

LOST = InformationElement("packetsLost", 600, "unsigned64", 32473, "deltaCounter", "packets")
VPC = InformationElement("vpcName", 601, "string", 32473)
FLOW = Template(300, [IANA.by_name("sourceIPv4Address"), LOST, VPC])
TYPES = type_template(400)
RECORDS = FLOW.records({"sourceIPv4Address": ["192.0.2.1"], "packetsLost": [7], "vpcName": ["shop"]})
NAMED = {"sourceIPv4Address": IPv4Address("192.0.2.1"), "packetsLost": 7, "vpcName": "shop"}
UNNAMED = {
    "sourceIPv4Address": IPv4Address("192.0.2.1"),
    "element_32473_600": bytes(7) + b"\x07",
    "element_32473_601": b"shop",
}


def described(*elements: InformationElement) -> list[memoryview]:
    return [
        *ExportingProcess().announce(2, [TYPES], [type_records(TYPES, dict.fromkeys(elements, "what it is"))], 0, 0)
    ]


def template() -> list[memoryview]:
    return [*ExportingProcess().announce(1, [FLOW], [], 0, 0)]


def data() -> list[memoryview]:
    process = ExportingProcess()
    process.announce(1, [FLOW], [], 0, 0)
    return [*process.data(1, [RECORDS], 0)]


def last(messages: list[memoryview], process: CollectingProcess | None = None) -> dict[str, object]:
    process = process or CollectingProcess()
    for octets in messages:
        message = process.receive(octets)
        assert (message.error, message.unknown) == (None, [])
        assert [s.redefined for s in message.sets if hasattr(s, "redefined") and s.redefined] == []
    (record,) = message.data[0]
    return record


def test_a_type_record_octet_for_octet():
    (message,) = described(LOST)
    assert (
        bytes(message[16:])
        == bytes.fromhex(
            "0003 002e 0190 0009 0002  015a 0004 012f 0002  0153 0001 0158 0001 0159 0002 0156 0008 0157 0008"
            " 0155 ffff 0154 ffff"
            "0190 0035  00007ed9 0258  04 03 0003 0000000000000000 0000000000000000"
        )
        + b"\x0bpacketsLost"
        + b"\x0awhat it is"
    )


def test_before_the_template_or_after_it_or_in_another_domain():
    assert last([*template(), *data()]) == UNNAMED
    assert last([*described(LOST, VPC), *template(), *data()]) == NAMED
    assert last([*template(), *described(LOST, VPC), *data()]) == NAMED
    assert last([*template(), *data(), *described(LOST, VPC), *template(), *data()]) == NAMED


def test_meaning_and_units_are_told():
    process = CollectingProcess()
    for octets in [*described(LOST), *template()]:
        message = process.receive(octets)
    assert message.templates[0].fields[1].element == LOST


def test_another_session_knows_nothing_of_it():
    process = CollectingProcess()
    for octets in described(LOST, VPC):
        process.receive(octets, "one")
    for octets in [*template(), *data()]:
        message = process.receive(octets, "two")
    assert list(message.data[0]) == [UNNAMED]


def test_what_the_registry_knows_is_not_told_anew():
    own = InformationElement("ownName", 601, "string", 32473)
    process = CollectingProcess(IANA.extended(own))
    record = last([*described(LOST, VPC), *template(), *data()], process)
    assert list(record) == ["sourceIPv4Address", "packetsLost", "ownName"]
    liar = InformationElement("octetDeltaCount", 600, "unsigned64", 32473)  # a name of IANA's for something else
    assert list(last([*described(liar), *template(), *data()])) == list(UNNAMED)


def test_the_first_description_holds():
    other = InformationElement("otherName", 601, "octetArray", 32473)
    assert last([*described(LOST, VPC), *described(other), *template(), *data()]) == NAMED


@pytest.mark.parametrize(
    ("pen", "id", "kind", "name"),
    [(0, 601, 13, b"mine"), (32473, 0x8259, 13, b"mine"), (32473, 601, 24, b"mine"), (32473, 601, 13, b"")]
    + [(32473, 601, 13, name) for name in (b"\x1b[2J", b"a b", b"\xff", b"9lives")],
)
def test_what_is_no_description_is_passed_over(pen: int, id: int, kind: int, name: bytes):
    record = struct.pack(">IHBBHQQ", pen, id, kind, 0, 0, 0, 0) + bytes([len(name)]) + name + b"\0"
    (announced,) = ExportingProcess().announce(2, [TYPES], [], 0, 0)
    octets = struct.pack(">HH", 400, 4 + len(record)) + record
    message = struct.pack(">HHIII", 10, 16 + len(octets), 0, 0, 2) + octets
    assert last([announced, memoryview(message), *template(), *data()]) == UNNAMED


def test_descriptions_are_kept_up_to_a_cap():
    crowd = [InformationElement(f"thing{id}", id, "unsigned8", 32473) for id in range(1000, 1000 + 4096)]
    assert list(last([*described(*crowd), *described(LOST, VPC), *template(), *data()])) == list(UNNAMED)


def test_a_name_from_the_wire_is_no_name_of_the_registry():
    last([*described(LOST, VPC), *template(), *data()])
    with pytest.raises(UnknownElementError):
        IANA.by_name("packetsLost")
