"""RFC 5655 files: what was written is read, one message at a time, and a bad tail is named after the good ones."""

from io import BytesIO

import pytest

from ipfix import IANA, EncodingError, ExportingProcess, FileReader, FileWriter, HeaderError, Template, TruncatedError

FLOW = Template(256, [IANA.by_name("octetDeltaCount")])


def session():
    exporter = ExportingProcess(max_message_size=512)
    return (
        exporter.announce(1, [FLOW], [], now=0, export_time=0),
        exporter.data(1, [FLOW.records({"octetDeltaCount": range(500)})], export_time=0),
    )


def written() -> tuple[bytes, list[bytes]]:
    file = BytesIO()
    writer = FileWriter(file)
    announced, data = session()
    writer.write(announced)
    writer.write(data)
    messages = [bytes(m) for m in (*announced, *data)]
    assert (writer.messages, writer.octets) == (len(messages), len(file.getvalue()))
    return file.getvalue(), messages


def test_a_file_is_the_messages_and_nothing_else():
    content, messages = written()
    assert content == b"".join(messages)
    assert len(messages) > 5
    assert list(FileReader(BytesIO(content))) == messages
    assert list(FileReader(BytesIO())) == []


def test_one_message_in_octets_is_checked():
    _, messages = written()
    file = BytesIO()
    writer = FileWriter(file)
    writer.write(messages[0])
    for wrong in (b"", messages[0][:-1], messages[0] + b"\0", b"\x00\x09" + messages[0][2:]):
        with pytest.raises(EncodingError, match="not one IPFIX message"):
            writer.write(wrong)
    assert (writer.messages, file.getvalue()) == (1, messages[0])


def test_a_file_that_takes_little_at_a_time_gets_everything():
    class Slow:
        content = b""

        def write(self, octets, /):
            self.content += bytes(octets[:7])
            return min(7, len(octets))

    content, _ = written()
    file = Slow()
    for messages in session():
        FileWriter(file).write(messages)
    assert file.content == content


def test_a_file_that_takes_nothing_is_not_waited_for_for_ever():
    class Full:
        def write(self, octets, /):
            return None

    with pytest.raises(BlockingIOError):
        FileWriter(Full()).write(session()[1])


def test_a_cut_tail_is_an_error_after_the_good_messages():
    content, messages = written()
    last = len(content) - len(messages[-1])
    for end in (last + 1, last + 2, last + 3, last + 4, last + 15, last + 16, len(content) - 1):
        found = []
        with pytest.raises(TruncatedError, match=rf"{end - last} octets into a message \(offset {last}\)"):
            found.extend(FileReader(BytesIO(content[:end])))
        assert found == messages[:-1]


def test_junk_is_an_error_where_it_stands():
    content, messages = written()
    for junk, why in (
        (b"\xff\xd8\xff\xe0", "version 65496"),
        (b"\0\n\0\x0f", "length of 15"),
        (b"\x1f\x8b", "version"),
    ):
        found = []
        with pytest.raises(HeaderError, match=rf"{why}.*offset {len(content)}\)"):
            found.extend(FileReader(BytesIO(content + junk)))
        assert found == messages
