"""Packing: every record once, in order, no message over the limit, headers right, and no message left half empty."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipfix import IANA, EncodingError, Field, Records, Template, TooLongError, pack

ie = IANA.by_name

SHORT = Template(256, [Field(ie("octetDeltaCount"), 3)])
FLOW = Template(257, [ie("sourceIPv6Address"), ie("octetDeltaCount"), ie("flowStartMilliseconds")])
LONG = Template(258, [Field(ie("interfaceName"), 400)])
NAMES = Template(259, [ie("octetDeltaCount"), ie("interfaceName"), ie("VRFname")])
ANY = Template(260, [ie("interfaceName")])


def run(template: Template, count: int, seed: int = 0) -> Records:
    """Records that can be told apart."""
    rng = np.random.default_rng([template.id, count, seed])
    if template.record_length is not None:
        rows = rng.integers(0, 256, count * template.record_length, np.uint8)
        return Records(template, rows.view(template.dtype))
    names = [rng.bytes(int(n)) for n in rng.integers(0, 300, count)]
    columns = {"octetDeltaCount": rng.integers(0, 1 << 62, count), "interfaceName": names, "VRFname": names[::-1]}
    return template.records({name: columns[name] for name in template.names}, count)


def split(records: Records) -> list[bytes]:
    octets = bytes(records.octets)
    if records.ends is None:
        length = records.length or 1
        return [octets[n : n + length] for n in range(0, len(octets), length)]
    ends = records.ends.tolist()
    return [octets[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def sets(message: bytes) -> list[tuple[int, bytes]]:
    """An own, plain reading of a message: set id and octets."""
    found, at = [], 16
    while at < len(message):
        set_id, length = struct.unpack_from(">HH", message, at)
        assert length > 4
        assert at + length <= len(message)
        found.append((set_id, message[at + 4 : at + length]))
        at += length
    assert at == len(message)
    return found


def test_one_message_by_hand():
    rows = np.array([(1, 2), (3, 4)], Template(256, [ie("octetDeltaCount"), ie("packetDeltaCount")]).dtype)
    records = Records(Template(256, [ie("octetDeltaCount"), Field(ie("packetDeltaCount"))]), rows)
    messages = pack([records], export_time=0x65920080, domain=7, sequence=5)
    assert [bytes(m) for m in messages] == [
        bytes.fromhex(
            "000a 0034 65920080 00000005 00000007"  # version, length 52, export time, 5 records before, domain
            "0100 0024"  # set 256, length 36
            "0000000000000001 0000000000000002 0000000000000003 0000000000000004"
        )
    ]
    assert (len(messages), messages.records, messages.counts.tolist()) == (1, 2, [2])


def test_a_set_changes_with_the_template_and_not_with_the_run():
    messages = pack([run(SHORT, 2), run(SHORT, 1), run(FLOW, 1), run(SHORT, 1)], export_time=0, domain=0)
    (message,) = messages
    assert [(set_id, len(octets)) for set_id, octets in sets(bytes(message))] == [(256, 9), (257, 32), (256, 3)]


def test_no_set_is_opened_that_no_record_fits_into():
    first, second = run(SHORT, 160), run(FLOW, 1)  # 16 + 4 + 480 = 500; a set of FLOW would need 4 + 32
    messages = [bytes(m) for m in pack([first, second], export_time=0, domain=0, max_message_size=512)]
    assert [len(m) for m in messages] == [500, 16 + 4 + 32]
    messages = [bytes(m) for m in pack([first, second], export_time=0, domain=0, max_message_size=536)]
    assert [len(m) for m in messages] == [536]


def test_a_set_that_goes_on_needs_no_second_header():
    names = ANY.records({"interfaceName": [b"x" * 163, b"y" * 163, b"z" * 163]})  # 3 times 164 is 492
    for one, two in ((run(SHORT, 163), run(SHORT, 1)), (names[:2], names[2:])):
        messages = pack([one, two], export_time=0, domain=0, max_message_size=512)
        assert messages.lengths.tolist() == [512]


def test_template_sets_fill_messages_to_the_octet():
    template_set = SHORT.set_octets()  # 12 octets
    for limit in range(28, 100):
        fitting = (limit - 16) // 12
        messages = pack([template_set] * 7, export_time=0, domain=0, max_message_size=limit)
        assert len(messages) == -(-7 // fitting)
        assert int(messages.lengths.max()) == 16 + 12 * min(7, fitting) <= limit


@pytest.mark.parametrize("template", [SHORT, FLOW, NAMES, ANY])
def test_no_records_no_message(template):
    messages = pack([run(template, 0), run(template, 0)], export_time=0, domain=0)
    assert (len(messages), messages.records, bytes(messages), list(messages)) == (0, 0, b"", [])
    assert len(pack([], export_time=0, domain=0)) == 0


def test_the_sequence_number_wraps_at_2_to_the_32():
    for template in (LONG, NAMES, FLOW):
        records = run(template, 200)
        messages = pack([records], export_time=0, domain=0, sequence=(1 << 32) - 100, max_message_size=1400)
        numbers = [struct.unpack_from(">I", m, 8)[0] for m in messages]
        before = np.cumsum(messages.counts) - messages.counts
        assert len(messages) > 3
        assert numbers == [((1 << 32) - 100 + n) % (1 << 32) for n in before.tolist()]


def test_a_record_that_can_never_fit_is_an_error_that_names_sizes():
    with pytest.raises(TooLongError, match="template 258 has 400 octets; a message of 419 octets has room for 399"):
        pack([run(LONG, 3)], export_time=0, domain=0, max_message_size=419)
    records = ANY.records({"interfaceName": [b"a", b"x" * 600, b"b"]})
    with pytest.raises(TooLongError, match="template 260 has 603 octets; a message of 512 octets has room for 492"):
        pack([records], export_time=0, domain=0, max_message_size=512)
    assert len(pack([run(LONG, 3)], export_time=0, domain=0, max_message_size=420)) == 3


def test_a_set_that_can_never_fit_is_an_error():
    with pytest.raises(TooLongError, match="set 2 of 500 octets"):
        pack([struct.pack(">HH", 2, 500) + bytes(496)], export_time=0, domain=0, max_message_size=512)


@pytest.mark.parametrize(
    "wrong",
    [
        {"export_time": -1},
        {"export_time": 1 << 32},
        {"domain": -1},
        {"domain": 1 << 32},
        {"max_message_size": 20},
        {"max_message_size": 65536},
    ],
)
def test_headers_that_cannot_be(wrong):
    with pytest.raises(EncodingError):
        pack([], **{"export_time": 0, "domain": 0, **wrong})


def test_slices_of_messages_share_the_buffer():
    messages = pack([run(FLOW, 500)], export_time=0, domain=0)
    part = messages[3:6]
    assert [bytes(m) for m in part] == [bytes(m) for m in messages][3:6]
    assert part.counts.tolist() == messages.counts.tolist()[3:6]
    assert np.shares_memory(part.buffer, messages.buffer)
    assert len(messages[5:3]) == 0
    assert len(messages[999:]) == 0


runs = st.lists(
    st.tuples(
        st.sampled_from([SHORT, FLOW, LONG, NAMES, ANY]),
        st.one_of(st.integers(0, 8), st.integers(0, 700)),
        st.integers(0, 9),
    ),
    max_size=12,
)
limits = st.one_of(st.sampled_from([1400, 8900, 65535]), st.integers(640, 8900))


@settings(deadline=None, max_examples=150)
@given(runs=runs, limit=limits, sequence=st.integers(0, (1 << 32) - 1), template_sets=st.booleans())
def test_every_record_once_in_order_and_no_message_over_the_limit(runs, limit, sequence, template_sets):
    wanted: list[tuple[int, bytes]] = []
    pieces: list[Records | bytes] = []
    for template, count, seed in runs:
        if template_sets:
            pieces.append(template.set_octets())
            wanted.append((2, template.wire()))
        records = run(template, count, seed)
        pieces.append(records)
        wanted += [(template.id, record) for record in split(records)]

    messages = pack(pieces, export_time=99, domain=3, sequence=sequence, max_message_size=limit)

    left = iter(wanted)
    previous_size, previous_set = limit, 0
    total = 0
    for octets, count, length in zip(messages, messages.counts.tolist(), messages.lengths.tolist(), strict=True):
        message = bytes(octets)
        assert struct.unpack_from(">HHIII", message) == (10, length, 99, (sequence + total) % (1 << 32), 3)
        assert len(message) == length <= limit
        seen = 0
        for number, (set_id, octets) in enumerate(sets(message)):
            first = True
            while octets:
                expected_id, expected = next(left)
                assert expected_id == set_id
                assert octets.startswith(expected)
                if number == 0 and first:  # greedy: what begins this message did not fit into the one before
                    header = 0 if set_id == previous_set and set_id != 2 else 4
                    assert previous_size + header + len(expected) > limit
                octets = octets[len(expected) :]
                seen += set_id != 2
                first = False
            previous_set = set_id
        assert seen == count
        total += count
        previous_size = length
    assert next(left, None) is None
    assert messages.records == total == sum(set_id != 2 for set_id, _ in wanted)
    assert bytes(messages) == b"".join(bytes(m) for m in messages)
