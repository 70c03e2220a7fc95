"""Columns to octets, worked by hand; and everything that does not fit by name."""

import tracemalloc
from ipaddress import IPv4Address

import numpy as np
import pytest

from ipfix import IANA, ColumnError, Field, InformationElement, Records, Template, ValueRangeError, VariableColumn

ie = IANA.by_name


def one(field, column, count=None) -> bytes:
    """The octets of records with this field only."""
    template = Template(256, [field])
    return bytes(template.records({template.names[0]: column}, count).octets)


def signed(bits: int) -> InformationElement:
    return InformationElement("number", 1, f"signed{bits}", 32473)


def unsigned(bits: int) -> InformationElement:
    return InformationElement("number", 1, f"unsigned{bits}", 32473)


def test_rfc_7011_a_3_data_records():
    template = Template(
        256,
        [
            ie("sourceIPv4Address"),
            ie("destinationIPv4Address"),
            ie("ipNextHopIPv4Address"),
            Field(ie("packetDeltaCount"), 4),
            Field(ie("octetDeltaCount"), 4),
        ],
    )
    records = template.records(
        {
            "sourceIPv4Address": ["192.0.2.12", "192.0.2.27", "192.0.2.56"],
            "destinationIPv4Address": np.array([0xC00002FE, 0xC0000217, 0xC0000241], np.uint32),
            "ipNextHopIPv4Address": [IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Address("192.0.2.3")],
            "packetDeltaCount": np.array([5009, 748, 5], np.int64),
            "octetDeltaCount": [5344385, 388934, 6534],
        }
    )
    assert bytes(records.octets) == bytes.fromhex(
        "c000020c c00002fe c0000201 00001391 00518c81"
        "c000021b c0000217 c0000202 000002ec 0005ef46"
        "c0000238 c0000241 c0000203 00000005 00001986"
    )
    assert (records.count, records.length) == (3, 20)


def test_rfc_7011_a_5_values_of_variable_length_carry_their_length():
    assert one(ie("interfaceName"), [b"12345"]) == b"\x0512345"
    assert one(ie("interfaceName"), [b"x" * 254]) == b"\xfe" + b"x" * 254
    assert one(ie("interfaceName"), [b"x" * 255]) == b"\xff\x00\xff" + b"x" * 255
    assert one(ie("interfaceName"), [b"x" * 1000, b""]) == b"\xff\x03\xe8" + b"x" * 1000 + b"\x00"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (unsigned(8), 255, "ff"),
        (unsigned(16), 258, "0102"),
        (Field(unsigned(32), 3), 66051, "010203"),
        (Field(unsigned(64), 5), 4328719365, "0102030405"),
        (Field(unsigned(64), 7), 2**56 - 1, "ffffffffffffff"),
        (unsigned(64), 2**64 - 1, "ffffffffffffffff"),
        (Field(unsigned(256), 9), 2**64, "010000000000000000"),
        (unsigned(256), 1, "00" * 31 + "01"),
        (signed(8), -1, "ff"),
        (Field(signed(32), 3), -2, "fffffe"),
        (Field(signed(64), 6), -(2**47), "800000000000"),
        (signed(64), -(2**63), "8000000000000000"),
        (ie("samplingProbability"), 0.5, "3fe0000000000000"),
        (Field(ie("samplingProbability"), 4), 0.5, "3f000000"),
        (ie("dataRecordsReliability"), True, "01"),
        (ie("dataRecordsReliability"), False, "02"),
        (ie("dataRecordsReliability"), 2, "02"),
        (ie("sourceMacAddress"), "00:11:22:aa:bb:cc", "001122aabbcc"),
        (ie("sourceMacAddress"), np.arange(6, dtype=np.uint8), "000102030405"),
        (ie("sourceIPv4Address"), 0x0A000001, "0a000001"),
        (ie("sourceIPv6Address"), "2001:db8::1", "20010db8000000000000000000000001"),
        (ie("flowStartSeconds"), np.datetime64("1970-01-01T00:01:00"), "0000003c"),
        (ie("flowStartMilliseconds"), np.datetime64("1970-01-01T00:00:01.5"), "00000000000005dc"),
        (ie("flowStartMilliseconds"), 1500, "00000000000005dc"),
        # 2^31 of 2^32 is half a second; 1970 is 2208988800 (83aa7e80) seconds after 1900
        (ie("flowStartMicroseconds"), np.datetime64("1970-01-01T00:00:00.5"), "83aa7e8080000000"),
        (ie("flowStartNanoseconds"), np.datetime64("1970-01-01T00:00:00.000000001"), "83aa7e8000000004"),
        (ie("flowStartMicroseconds"), np.datetime64("1970-01-01T00:00:00.000001"), "83aa7e8000001000"),
        (Field(ie("interfaceName"), 6), "eth0", "657468300000"),
        (Field(ie("interfaceName"), 2), "é", "c3a9"),
        (ie("interfaceName"), "é", "02c3a9"),
        (Field(ie("applicationId"), 3), b"\x01\x02\x00", "010200"),
        (ie("applicationId"), b"\x01\x00", "020100"),
    ],
)
def test_each_type_as_the_wire_has_it(field, value, expected):
    octets = bytes.fromhex(expected)
    assert one(field, [value] if not isinstance(value, np.ndarray) else value[np.newaxis]) == octets
    assert one(field, value, count=2) == 2 * octets  # a scalar is for all records


@pytest.mark.parametrize(
    ("field", "column"),
    [
        (unsigned(8), [0, 256]),
        (unsigned(64), [-1]),
        (unsigned(64), [2**64]),
        (Field(unsigned(64), 4), np.array([1 << 32])),
        (Field(unsigned(64), 3), np.array([1 << 24], np.uint32)),
        (unsigned(256), [2**256]),
        (signed(8), [128]),
        (signed(16), [-32769]),
        (signed(64), np.array([2**63], np.uint64)),
        (Field(signed(64), 3), [-(2**23) - 1]),
        (ie("sourceIPv4Address"), [1 << 32]),
        (ie("dataRecordsReliability"), [0]),
        (Field(ie("samplingProbability"), 4), [1e300]),
        (ie("flowStartSeconds"), np.array(["1969-12-31T23:59:59"], "M8[s]")),
        (ie("flowStartMilliseconds"), np.array(["NaT"], "M8[ms]")),
        (ie("flowStartNanoseconds"), np.array(["2036-02-07T06:28:16"], "M8[s]")),
        (Field(ie("interfaceName"), 3), ["eth0"]),
        (Field(ie("applicationId"), 3), [b"12"]),
        (ie("interfaceName"), [b"x" * 65536]),
        (ie("interfaceName"), ["\ud800"]),
    ],
)
def test_what_does_not_fit_is_an_error_and_never_cut(field, column):
    with pytest.raises(ValueRangeError, match="template 256"):
        one(field, column)


@pytest.mark.parametrize(
    ("field", "column"),
    [
        (unsigned(8), [1.0]),
        (unsigned(8), ["1"]),
        (unsigned(8), [True]),
        (unsigned(8), np.array([0], "M8[s]")),
        (unsigned(8), VariableColumn(np.array([0]), [b"1"])),
        (unsigned(8), [[1, 2]]),
        (ie("samplingProbability"), ["x"]),
        (ie("sourceIPv4Address"), ["192.0.2.256"]),
        (ie("sourceIPv6Address"), [1]),
        (ie("sourceIPv6Address"), np.zeros((2, 4), np.uint8)),
        (ie("sourceMacAddress"), ["00:11:22:33:44"]),
        (ie("interfaceName"), [1]),
        (ie("interfaceName"), [[b"x"]]),
        (ie("interfaceName"), 7),
        (ie("interfaceName"), VariableColumn(np.array([0]), [7])),
        (Field(ie("interfaceName"), 4), [None]),
        (Field(ie("applicationId"), 4), np.zeros((2, 5), np.uint8)),
    ],
)
def test_a_column_of_the_wrong_kind_is_an_error(field, column):
    with pytest.raises((ColumnError, ValueRangeError)):
        one(field, column)


def test_lists_of_integers_on_both_sides_of_2_to_the_63_stay_exact():
    assert one(unsigned(64), [1, 2**64 - 1]) == bytes(7) + b"\x01" + b"\xff" * 8
    assert one(Field(unsigned(64), 8), [2**63 + 1, 0]) == b"\x80" + bytes(6) + b"\x01" + bytes(8)
    with pytest.raises(ColumnError, match="float"):
        one(unsigned(64), [1, 2**64 - 1, 1.5])


def test_columns_are_those_of_the_template_and_of_one_length():
    template = Template(256, [ie("octetDeltaCount"), ie("packetDeltaCount")])
    with pytest.raises(ColumnError, match=r"lacking: \['packetDeltaCount'\].*not in it: \['packets'\]"):
        template.records({"octetDeltaCount": [1], "packets": [1]})
    with pytest.raises(ColumnError, match="packetDeltaCount has 1 records, others have 2"):
        template.records({"octetDeltaCount": [1, 2], "packetDeltaCount": [1]})
    with pytest.raises(ColumnError, match="has 2 records, others have 3"):
        template.records({"octetDeltaCount": [1, 2], "packetDeltaCount": 1}, count=3)
    with pytest.raises(ColumnError, match="say how many"):
        template.records({"octetDeltaCount": 1, "packetDeltaCount": 1})


def test_codes_point_at_values():
    with pytest.raises(ColumnError, match=r"0\.\.1"):
        VariableColumn(np.array([0, 2]), [b"a", b"b"])
    with pytest.raises(ColumnError, match=r"0\.\.1"):
        VariableColumn(np.array([-1]), [b"a", b"b"])
    with pytest.raises(ColumnError, match="integers"):
        VariableColumn(np.array([0.5]), [b"a"])
    assert (
        one(ie("interfaceName"), VariableColumn(np.array([1, 0, 1], np.uint8), [b"a", b"bc"])) == b"\x02bc\x01a\x02bc"
    )


@pytest.mark.parametrize("column", [np.array([b"a", b"bc"]), np.array(["a", "bc"]), ["a", b"bc"], ("a", "bc")])
def test_strings_come_in_many_forms(column):
    assert one(ie("interfaceName"), column) == b"\x01a\x02bc"
    assert one(Field(ie("interfaceName"), 2), column) == b"a\0bc"


def test_fixed_and_variable_fields_in_any_order():
    template = Template(
        256, [ie("interfaceName"), unsigned(8), unsigned(16), ie("VRFname"), Field(ie("applicationId"), 2)]
    )
    columns = {
        "interfaceName": [b"", b"a" * 300],
        "number": [1, 2],
        "number_2": [3, 4],
        "VRFname": ["x", "yz"],
        "applicationId": b"AB",
    }
    records = template.records(columns)
    first = b"\0" + b"\x01" + b"\0\x03" + b"\x01x" + b"AB"
    second = b"\xff\x01\x2c" + b"a" * 300 + b"\x02" + b"\0\x04" + b"\x02yz" + b"AB"
    assert bytes(records.octets) == first + second
    assert records.ends is not None
    assert records.ends.tolist() == [len(first), len(first + second)]


def test_one_giant_value_among_many_small_ones():
    codes = np.arange(20_000) % 7 + 1
    codes[12_345] = 0
    values = [b"g" * 65535, *(bytes([65 + n]) * n for n in range(7))]
    template = Template(256, [unsigned(32), ie("interfaceName"), ie("VRFname")])
    columns = {"number": np.arange(20_000), "interfaceName": VariableColumn(codes, values), "VRFname": "v"}
    tracemalloc.start()
    records = template.records(columns)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000  # every record as wide as the widest would be gigabytes
    expected = bytearray()
    for number, code in enumerate(codes.tolist()):
        value = values[code]
        length = bytes([len(value)]) if len(value) < 255 else b"\xff" + len(value).to_bytes(2, "big")
        expected += number.to_bytes(4, "big") + length + value + b"\x01v"
    assert bytes(records.octets) == expected


@pytest.mark.parametrize(
    "field", [unsigned(8), ie("interfaceName"), Field(ie("interfaceName"), 4), ie("sourceIPv6Address")]
)
def test_no_records(field):
    template = Template(256, [field, ie("octetDeltaCount")])
    records = template.records({template.names[0]: [], "octetDeltaCount": np.array([], np.uint64)})
    assert (records.count, records.octets.size, len(records[:5])) == (0, 0, 0)


def test_rows_filled_by_the_caller_are_not_copied():
    template = Template(256, [ie("octetDeltaCount"), ie("packetDeltaCount")])
    rows = np.zeros(3, template.dtype)
    records = Records(template, rows)
    assert np.shares_memory(records.octets, rows)
    assert np.shares_memory(records[1:].octets, rows)
    with pytest.raises(ColumnError, match="dtype"):
        Records(template, np.zeros(3, Template(256, [ie("octetDeltaCount")]).dtype))
    with pytest.raises(ColumnError, match="dtype"):
        Records(template, np.zeros((3, 2), template.dtype))


@pytest.mark.parametrize(
    ("field", "column"), [(unsigned(16), list(range(10))), (ie("interfaceName"), [b"x" * n for n in range(10)])]
)
def test_slices_are_the_records_in_them(field, column):
    template = Template(256, [field])
    records = template.records({template.names[0]: column})
    for start in range(11):
        for stop in range(11):
            part = records[start:stop]
            alone = template.records({template.names[0]: column[start:stop]}, count=len(column[start:stop]))
            assert bytes(part.octets) == bytes(alone.octets)
            assert (part.count, len(part)) == (alone.count, alone.count)
            assert bytes(part[1:].octets) == bytes(alone[1:].octets)
    with pytest.raises(ColumnError, match="step 1"):
        records[::2]


def test_octets_of_variable_records_must_end_where_the_last_record_does():
    template = Template(256, [ie("interfaceName")])
    octets = np.frombuffer(b"\x01a\x01b", np.uint8)
    assert Records(template, octets, np.array([2, 4])).count == 2
    with pytest.raises(ColumnError, match="does not end"):
        Records(template, octets, np.array([2]))
    with pytest.raises(ColumnError, match="end of each"):
        Records(template, octets)
