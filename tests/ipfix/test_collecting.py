"""The strict decoder: octets by hand, every fault by name, and what a stranger cannot make it do."""

import struct
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

import numpy as np
import pytest

from ipfix import (
    IANA,
    CollectingProcess,
    DataRecordError,
    DecodingError,
    Field,
    HeaderError,
    InformationElement,
    NotFixedError,
    OptionsTemplate,
    PaddingError,
    Session,
    SetError,
    Template,
    TemplateRecordError,
    TooManyTemplatesError,
    TrailingOctetsError,
    TruncatedError,
    decode_message,
)

ie = IANA.by_name


def message(*sets: str | bytes, sequence: int = 0, domain: int = 1, length: int | None = None) -> bytes:
    """A message by hand; sets are octets or hexadecimal."""
    body = b"".join(bytes.fromhex(s) if isinstance(s, str) else s for s in sets)
    return struct.pack(">HHIII", 10, 16 + len(body) if length is None else length, 1000, sequence, domain) + body


# sourceIPv4Address(8) and octetDeltaCount(1) in 4 octets; then the same id space with an interfaceName(82)
FIXED = "0002 0010 0100 0002 0008 0004 0001 0004"
VARIABLE = "0002 0010 0101 0002 0001 0004 0052 ffff"
OPTIONS = "0003 0018 0102 0003 0001  008d 0004 0029 0002 002a 0002 0000"  # RFC 7011 A.4.1, padding and all


def test_rfc_7011_a_records_read_back():
    template = "0002 001c 0100 0005  0008 0004  000c 0004  000f 0004  0002 0004  0001 0004"
    data = (
        "0100 0040"
        "c000020c c00002fe c0000201 00001391 00518c81"
        "c000021b c0000217 c0000202 000002ec 0005ef46"
        "c0000238 c0000241 c0000203 00000005 00001986"
    )
    received = CollectingProcess().receive(message(template, data, sequence=3, domain=12345678))
    assert (received.export_time, received.sequence, received.domain, received.length) == (1000, 3, 12345678, 108)
    assert (received.error, received.gap, received.unknown, received.records) == (None, None, [], 3)
    (records,) = received.data
    assert [tuple(record.values()) for record in records] == [
        (IPv4Address("192.0.2.12"), IPv4Address("192.0.2.254"), IPv4Address("192.0.2.1"), 5009, 5344385),
        (IPv4Address("192.0.2.27"), IPv4Address("192.0.2.23"), IPv4Address("192.0.2.2"), 748, 388934),
        (IPv4Address("192.0.2.56"), IPv4Address("192.0.2.65"), IPv4Address("192.0.2.3"), 5, 6534),
    ]
    assert list(next(iter(records)))[:2] == ["sourceIPv4Address", "destinationIPv4Address"]
    assert records.rows()["octetDeltaCount"].tolist() == [5344385, 388934, 6534]


def test_rfc_7011_a_4_options_read_back():
    received = CollectingProcess().receive(message(OPTIONS, "0102 0014 00000001 0159 27d9 00000002 02b2 4fb2"))
    assert received.error is None
    (template,) = received.templates
    assert isinstance(template, OptionsTemplate)
    assert [f.element.name for f in template.scope_fields] == ["lineCardId"]
    (records,) = received.data
    assert records.is_options
    assert [tuple(r.values()) for r in records] == [(1, 345, 10201), (2, 690, 20402)]


def test_values_of_variable_length_short_long_and_empty():
    data = "0101 0121 00000001 03 616263 00000002 ff 0100" + "78" * 256 + "00000003 ff 0002 6162 00000004 00"
    body = bytes.fromhex(data)
    body = body[:2] + struct.pack(">H", len(body)) + body[4:]
    (records,) = CollectingProcess().receive(message(VARIABLE, body)).data
    assert [r["interfaceName"] for r in records] == ["abc", "x" * 256, "ab", ""]
    assert [r["octetDeltaCount"] for r in records] == [1, 2, 3, 4]
    with pytest.raises(NotFixedError, match="template 257"):
        records.rows()


def test_templates_are_of_one_session_and_one_domain():
    collector = CollectingProcess()
    data = "0100 000c 01020304 00000001"
    collector.receive(message(FIXED), "a")
    assert collector.receive(message(data), "a").records == 1
    for octets, session in ((message(data, domain=2), "a"), (message(data), "b")):
        received = collector.receive(octets, session)
        (unknown,) = received.unknown
        assert (unknown.set_id, unknown.octets.hex(), received.error) == (256, "0102030400000001", None)
    assert [t.id for t in collector.sessions["a"].templates(1)] == [256]
    collector.forget("a")
    assert collector.receive(message(data), "a").unknown


def test_an_unknown_set_does_not_hide_the_ones_beside_it():
    received = CollectingProcess().receive(message(FIXED, "0999 0008 ffffffff", "0100 000c 01020304 00000001"))
    assert (len(received.unknown), received.records, received.error) == (1, 1, None)


def test_a_new_definition_replaces_the_old_one():
    collector = CollectingProcess()
    assert collector.receive(message(FIXED)).sets[0].redefined == []
    assert collector.receive(message(FIXED)).sets[0].redefined == []
    assert collector.receive(message("0003 000e 0100 0001 0001 0001 0004")).sets[0].redefined == [256]
    (template,) = collector.sessions[None].templates(1)
    assert isinstance(template, OptionsTemplate)
    assert collector.receive(message("0100 0008 00000007")).data[0].is_options


@pytest.mark.parametrize(
    ("withdrawal", "left"),
    [
        ("0002 0008 0100 0000", [257, 258]),
        ("0002 000c 0100 0000 0101 0000", [258]),
        ("0002 0008 0002 0000", [258]),
        ("0003 0008 0003 0000", [256, 257]),
        ("0003 0008 0102 0000", [256, 257]),
        ("0002 0008 0999 0000", [256, 257, 258]),
        ("0002 0010 0002 0000 0002 0000 0002 0000", [258]),
    ],
)
def test_withdrawals_take_templates_back(withdrawal, left):
    collector = CollectingProcess()
    collector.receive(message(FIXED, VARIABLE, OPTIONS))
    received = collector.receive(message(withdrawal, "0100 000c 01020304 00000001"))
    assert received.error is None
    assert [t.id for t in collector.sessions[None].templates(1)] == left
    assert len(received.unknown) == (256 not in left)
    session = collector.sessions[None]
    assert session.template_count == len(left)
    assert session.field_count == sum(len(t.fields) for t in session.templates(1))


@pytest.mark.parametrize(
    ("octets", "error", "why"),
    [
        (b"", TruncatedError, "0 octets are too few"),
        (message()[:15], TruncatedError, "15 octets"),
        (b"\x00\x09" + bytes(18), HeaderError, "NetFlow version 9"),
        (b"\xff\xd8" + bytes(18), HeaderError, "version 65496 is not 10"),
        (message(length=15), HeaderError, "message length of 15"),
        (message(length=0), HeaderError, "message length of 0"),
    ],
)
def test_what_is_no_message_raises_and_leaves_no_session(octets, error, why):
    collector = CollectingProcess()
    with pytest.raises(error, match=why):
        collector.receive(octets, "stranger")
    assert collector.sessions == {}
    collector.receive(message(FIXED), "friend")
    with pytest.raises(error):
        collector.receive(octets, "friend")
    assert collector.receive(message("0100 000c 01020304 00000001"), "friend").records == 1


GOOD = "0100 000c 01020304 00000001"


@pytest.mark.parametrize(
    ("bad", "error", "why"),
    [
        ("0100 0000 01020304", SetError, "set length of 0 is shorter.*offset 44, set 256, domain 1"),
        ("0100 0003", SetError, "set length of 3"),
        ("0100 000d 01020304 00000001", SetError, "set of 13 octets goes beyond its message"),
        ("0100 ffff 01020304", SetError, "set of 65535 octets goes beyond"),
        ("0100 00", SetError, "3 octets left"),
        ("0000 0008 00000000", SetError, "set id 0 is reserved"),
        ("0001 0008 00000000", SetError, "set id 1 is reserved"),
        ("0004 0008 00000000", SetError, "set id 4 is reserved"),
        ("00ff 0008 00000000", SetError, "set id 255 is reserved"),
        ("0100 0004", DataRecordError, "no record"),
        ("0100 0008 00000000", DataRecordError, "no record"),
        ("0100 000b 01020304 000000", PaddingError, "7 octets behind the last record"),
        ("0100 000f 01020304 00000001 000001", PaddingError, "3 octets behind.*offset 56, set 256"),
        ("0101 0004", DataRecordError, "no record"),
        ("0101 0009 00000001 04", DataRecordError, "longer than what is left.*offset 48, set 257"),
        ("0101 000c 00000001 04 616263", DataRecordError, "longer"),
        ("0101 000a 00000001 ff 00", DataRecordError, "longer"),
        ("0101 000b 00000001 ff ffff", DataRecordError, "longer"),
        ("0101 000d 00000001 00 00000001", PaddingError, "4 octets behind"),
        ("0002 0004", TemplateRecordError, "no template"),
        ("0003 0004", TemplateRecordError, "no template"),
        ("0002 0006 0000", TemplateRecordError, "no template"),
        ("0002 0006 0100", PaddingError, "template"),
        ("0002 0008 00ff 0001", TemplateRecordError, "template id 255 is less than 256"),
        ("0002 0008 0003 0000", TemplateRecordError, "template id 3 is less than 256"),
        ("0002 0008 0000 0000", TemplateRecordError, "template id 0"),
        ("0002 0008 0200 0001", TemplateRecordError, "ends within.*1 fields.*template 512"),
        ("0002 000c 0200 0002 0001 0004", TemplateRecordError, "ends within.*2 fields"),
        ("0002 0010 0200 ffff 0001 0004 0001 0004", TemplateRecordError, "65535 fields"),
        ("0002 000c 0200 0001 8001 0004", TemplateRecordError, "enterprise number"),
        ("0002 0010 0200 0002 8001 0004 00000001", TemplateRecordError, "ends within a template of 2"),
        ("0002 000c 0200 0001 0001 0000", TemplateRecordError, "element 0/1 has a length of 0"),
        ("0003 000a 0200 0001 0000", TemplateRecordError, "1 fields cannot have 0 scope"),
        ("0003 000e 0200 0001 0002 0001 0004", TemplateRecordError, "1 fields cannot have 2 scope"),
        ("0003 0008 0200 0001", TemplateRecordError, "ends within an options template"),
        ("0002 000f 0200 0001 0001 0004 000001", PaddingError, "not zeros"),
    ],
)
def test_a_bad_set_is_named_and_what_came_before_is_kept(bad, error, why):
    collector = CollectingProcess()
    collector.receive(message(VARIABLE, sequence=0))
    received = collector.receive(message(FIXED, GOOD, bad))
    assert isinstance(received.error, error)
    assert type(received.error) is error
    with pytest.raises(error, match=why):
        raise received.error
    assert received.error.domain == 1
    assert list(received.data[0]) == [{"sourceIPv4Address": IPv4Address("1.2.3.4"), "octetDeltaCount": 1}]
    assert collector.receive(message(GOOD)).gap is None  # nobody knows how many records the bad message had
    assert collector.receive(message(GOOD, sequence=1)).gap == 0


def test_records_before_a_fault_in_their_own_set_are_kept():
    collector = CollectingProcess()
    received = collector.receive(message(VARIABLE, "0101 000f 00000001 01 61 00000002 09"))
    assert isinstance(received.error, DataRecordError)
    assert [r["interfaceName"] for r in received.data[0]] == ["a"]


def test_a_datagram_cut_short_or_with_something_behind():
    collector = CollectingProcess()
    whole = message(FIXED, GOOD, GOOD)
    for cut in range(16, len(whole)):
        received = collector.receive(whole[:cut])
        assert isinstance(received.error, TruncatedError)
        assert received.records == (cut >= 44)
    received = collector.receive(whole + b"\0")
    assert isinstance(received.error, TrailingOctetsError)
    assert received.records == 2


def test_padding_makes_no_records():
    collector = CollectingProcess()
    received = collector.receive(message(FIXED, VARIABLE, "0100 0013 01020304 00000001" + "00" * 7))
    assert (received.error, received.records) == (None, 1)
    received = collector.receive(message("0101 000d 00000001 00 00000000"))  # 4 zeros, where a record has at least 5
    assert (received.error, received.records) == (None, 1)


def test_gaps_are_counted_by_session_and_domain():
    collector = CollectingProcess()
    two = GOOD.replace("000c", "0014") + GOOD[10:]
    assert collector.receive(message(FIXED, two, sequence=10)).gap is None
    assert collector.receive(message(two, sequence=12)).gap == 0
    assert collector.receive(message(two, sequence=20)).gap == 6
    assert collector.receive(message(two, sequence=14)).gap == -8
    assert collector.receive(message(FIXED, domain=2, sequence=99)).gap is None
    assert collector.receive(message(GOOD, domain=2, sequence=99)).gap == 0
    assert collector.receive(message(FIXED), "other").gap is None
    assert collector.receive(message(two, sequence=2**32 - 1)).gap == -17
    assert collector.receive(message(two, sequence=1)).gap == 0
    assert collector.receive(message("0999 0008 00000000", sequence=3)).gap == 0
    assert collector.receive(message(two, sequence=3)).gap is None


def test_a_length_the_type_cannot_have_is_still_shown():
    # forwardingStatus (unsigned8) in 4 octets, sourceIPv4Address in 5, an unsigned64 in 9
    template = "0002 0014 0100 0003 0059 0004 0008 0005 0001 0009"
    data = "0100 0016 00000040 0102030405 000000000000000001"
    (records,) = CollectingProcess().receive(message(template, data)).data
    assert list(records) == [
        {"forwardingStatus": 64, "sourceIPv4Address": b"\1\2\3\4\5", "octetDeltaCount": bytes(8) + b"\1"}
    ]
    assert records.rows()["forwardingStatus"].tolist() == [64]


@pytest.mark.parametrize(
    ("element", "octets", "value"),
    [
        ("unsigned16", "0102", 258),
        ("unsigned64", "010203", 66051),
        ("unsigned256", "01" + "00" * 31, 1 << 248),
        ("signed32", "fffffe", -2),
        ("signed64", "8000000000000000", -(1 << 63)),
        ("float32", "3f000000", 0.5),
        ("float64", "3f000000", 0.5),
        ("float64", "3fe0000000000000", 0.5),
        ("boolean", "01", True),
        ("boolean", "02", False),
        ("boolean", "07", 7),
        ("macAddress", "001122aabbcc", "00:11:22:aa:bb:cc"),
        ("ipv4Address", "c0000201", IPv4Address("192.0.2.1")),
        ("ipv6Address", "20010db8" + "00" * 11 + "01", IPv6Address("2001:db8::1")),
        ("string", "c3a900", "é"),
        ("string", "ff00", b"\xff"),
        ("octetArray", "c3a900", b"\xc3\xa9\x00"),
        ("basicList", "0301", b"\x03\x01"),
        ("dateTimeSeconds", "0000003c", datetime(1970, 1, 1, 0, 1, tzinfo=UTC)),
        ("dateTimeMilliseconds", "00000000000005dc", datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=UTC)),
        ("dateTimeMilliseconds", "ffffffffffffffff", 2**64 - 1),
        ("dateTimeMicroseconds", "83aa7e8080000000", datetime(1970, 1, 1, 0, 0, 0, 500000, tzinfo=UTC)),
        ("dateTimeNanoseconds", "83aa7e8000000004", datetime(1970, 1, 1, tzinfo=UTC)),
        ("dateTimeNanoseconds", "ffffffffffffffff", datetime(2036, 2, 7, 6, 28, 16, tzinfo=UTC)),
    ],
)
def test_each_type_as_python_has_it(element, octets, value):
    registry = IANA.extended(InformationElement("it", 600, element, 32473))
    template = Template(256, [Field(registry.by_id(600, 32473), len(octets) // 2)])
    data = struct.pack(">HH", 256, 4 + len(octets) // 2) + bytes.fromhex(octets)
    received = CollectingProcess(registry).receive(message(template.set_octets(), data))
    ((record,),) = received.data
    assert (record["it"], type(record["it"])) == (value, type(value))


def test_a_string_of_variable_length_keeps_its_zeros():
    ((record,),) = CollectingProcess().receive(message(VARIABLE, "0101 000b 00000001 02 6100")).data
    assert record["interfaceName"] == "a\0"


def test_columns_widen_integers_numpy_has_no_type_for():
    number = InformationElement("signed", 1, "signed64", 32473)
    template = Template(256, [Field(ie("octetDeltaCount"), 3), Field(number, 5), Field(ie("applicationId"), 3)])
    records = template.records(
        {"octetDeltaCount": [1, 0xFFFFFF], "signed": [-1, 2**39 - 1], "applicationId": [b"abc", b"def"]}
    )
    data = struct.pack(">HH", 256, 4 + records.octets.size) + bytes(records.octets)
    received = CollectingProcess(IANA.extended(number)).receive(message(template.set_octets(), data))
    columns = received.data[0].columns()
    assert columns["octetDeltaCount"].tolist() == [1, 0xFFFFFF]
    assert columns["signed"].tolist() == [-1, 2**39 - 1]
    assert columns["applicationId"].tolist() == [list(b"abc"), list(b"def")]


def test_a_session_holds_so_many_templates_and_no_more():
    session = Session(max_templates=3, max_fields=5)

    def template(id: int, fields: int, domain: int = 1):
        octets = Template(id, [ie("octetDeltaCount")] * fields).set_octets()
        return decode_message(message(octets, domain=domain), session).error

    assert [template(256, 1), template(257, 1, 2), template(258, 1)] == [None] * 3
    assert isinstance(template(259, 1), TooManyTemplatesError)
    assert template(258, 3) is None  # one that is known may change
    assert isinstance(template(258, 4), TooManyTemplatesError)
    assert template(258, 3) is None
    assert (session.template_count, session.field_count) == (3, 5)


def test_a_session_holds_so_many_domains_and_forgets_the_oldest():
    session = Session(max_domains=2)
    for domain in (1, 2, 3):
        decode_message(message(FIXED, domain=domain), session)
    assert [len(session.templates(domain)) for domain in (1, 2, 3)] == [0, 1, 1]
    assert (session.template_count, session.field_count) == (2, 4)


def test_a_collector_holds_so_many_sessions_and_forgets_the_one_heard_least_recently():
    collector = CollectingProcess(max_sessions=2)
    for sender in ("a", "b", "a", "c"):
        collector.receive(message(FIXED), sender)
    assert list(collector.sessions) == ["a", "c"]
    collector = CollectingProcess(max_fields=80)
    wide = message(Template(256, [ie("octetDeltaCount")] * 9).set_octets())
    for sender in range(100):
        collector.receive(wide, sender)
    assert list(collector.sessions) == list(range(92, 100))


def test_withdrawing_everything_thousands_of_times_is_quick_and_right():
    session = Session()
    for number in range(256, 256 + 4096):
        decode_message(message(Template(number, [ie("octetDeltaCount")]).set_octets()), session)
    body = bytes.fromhex("00030000") * 16000
    received = decode_message(message(struct.pack(">HH", 3, 4 + len(body)) + body), session)
    assert (received.error, session.template_count) == (None, 4096)


def test_octets_in_any_wrapping_and_results_that_do_not_change_with_the_buffer():
    buffer = bytearray(message(FIXED, GOOD))
    received = CollectingProcess().receive(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert received.data[0].rows()["octetDeltaCount"].tolist() == [1]
    assert not received.data[0].rows().flags.writeable
    assert np.shares_memory(received.data[0].rows(), np.frombuffer(received.data[0].octets, np.uint8))


def test_errors_are_decoding_errors():
    for error in (DataRecordError, HeaderError, SetError, TemplateRecordError, TruncatedError, PaddingError):
        assert issubclass(error, DecodingError)
