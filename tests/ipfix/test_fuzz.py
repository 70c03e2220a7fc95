"""Strangers: whatever octets come, only named errors go out, and what is kept and returned stays in proportion."""

import struct
from io import BytesIO

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ipfix import (
    IANA,
    CollectingProcess,
    DataSet,
    ExportingProcess,
    Field,
    FileReader,
    IpfixError,
    OptionsTemplate,
    Template,
)

ie = IANA.by_name


def real_messages() -> list[bytes]:
    """A session with everything in it: fixed, variable and options records, reduced lengths, every kind of value."""
    flow = Template(256, [ie("sourceIPv4Address"), Field(ie("octetDeltaCount"), 3), ie("flowStartMilliseconds")])
    named = Template(257, [ie("interfaceName"), ie("sourceMacAddress"), ie("VRFname"), ie("flowEndNanoseconds")])
    sampling = OptionsTemplate(
        258, [ie("observationDomainId")], [ie("samplingProbability"), ie("dataRecordsReliability")]
    )
    exporter = ExportingProcess(max_message_size=512)
    options = sampling.records({"observationDomainId": 1, "samplingProbability": 1, "dataRecordsReliability": True}, 3)
    flows = flow.records({name: np.arange(30) for name in flow.names})
    names = named.records(
        {
            "interfaceName": [b"x" * n for n in (0, 5, 254, 255, 300)],
            "sourceMacAddress": "00:01:02:03:04:05",
            "VRFname": "vrf",
            "flowEndNanoseconds": 1 << 63,
        }
    )
    messages = [*exporter.announce(1, [flow, named, sampling], [options], now=0, export_time=0)]
    messages += exporter.data(1, [flows, names, flows], export_time=0)
    return [bytes(message) for message in messages]


REAL = real_messages()


def survives(collector: CollectingProcess, octets: bytes) -> None:
    """Decodes and looks at everything. Any exception but an IpfixError fails the test."""
    try:
        received = collector.receive(octets)
    except IpfixError:
        return
    assert received.error is None or isinstance(received.error, IpfixError)
    assert received.records <= len(octets)
    assert sum(len(s.octets) for s in received.sets if not hasattr(s, "templates")) <= len(octets)
    for s in received.sets:
        if isinstance(s, DataSet):
            records = list(s)
            assert len(records) == len(s) > 0
            assert all(record.keys() == set(s.template.names) for record in records)
            if s.template.record_length is not None:
                assert {len(column) for column in s.columns().values()} == {len(records)}
    for template in received.templates:
        assert 4 * len(template.fields) <= len(octets)
        assert template.min_record_length > 0


def test_the_real_messages_are_right():
    collector = CollectingProcess()
    assert len(REAL) > 4
    assert sum(collector.receive(message).records for message in REAL) == 30 + 3 + 5 + 30
    for message in REAL:
        survives(collector, message)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_noise(datagrams):
    collector = CollectingProcess()
    for octets in datagrams:
        survives(collector, octets)
        survives(collector, struct.pack(">HHIII", 10, 16 + len(octets), 0, 0, 1) + octets)


small = st.sampled_from([0, 1, 2, 3, 4, 8, 255, 256, 257, 258, 0x8001, 0xFFFF])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(small, st.lists(small, max_size=24), st.integers(0, 3)), max_size=8))
def test_sets_of_numbers_that_matter(sets):
    """Headers and lengths that are right, around words a decoder might trip over."""
    collector = CollectingProcess()
    body = b""
    for set_id, words, odd in sets:
        octets = b"".join(struct.pack(">H", word) for word in words) + bytes(odd)
        body += struct.pack(">HH", set_id, 4 + len(octets)) + octets
    message = struct.pack(">HHIII", 10, 16 + len(body), 0, 0, 1) + body
    for _ in range(2):  # the second time with the templates of the first
        survives(collector, message)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_real_messages_damaged(data):
    collector = CollectingProcess()
    for original in REAL:
        message = bytearray(original)
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(message) - 1))
            kind = data.draw(st.sampled_from(["flip", "word", "cut", "grow", "delete"]))
            if kind == "flip":
                message[at] ^= 1 << data.draw(st.integers(0, 7))
            elif kind == "word":
                message[at : at + 2] = struct.pack(">H", data.draw(small))
            elif kind == "cut":
                del message[max(1, at) :]
            elif kind == "grow":
                message[at:at] = data.draw(st.binary(max_size=9))
            else:
                del message[at : at + data.draw(st.integers(1, 9))]
            message = message or bytearray(1)
            if data.draw(st.booleans()) and len(message) >= 4:  # with a length that fits again
                message[2:4] = struct.pack(">H", len(message))
        survives(collector, bytes(message))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(st.sampled_from(REAL), st.binary(max_size=40)), max_size=6), st.integers(1, 50))
def test_files_of_messages_and_noise(parts, chunk):
    class Slowly(BytesIO):
        """A file that gives less than was asked for, as a pipe does."""

        def read(self, size=-1, /):
            return super().read(min(size, chunk))

    content = b"".join(parts)
    whole = 0
    while whole < len(parts) and parts[whole] in REAL:
        whole += 1
    found = []
    try:
        found.extend(FileReader(Slowly(content)))
    except IpfixError:
        assert whole < len(parts)
    else:
        assert b"".join(found) == content
    assert found[:whole] == parts[:whole]
