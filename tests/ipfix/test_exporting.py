"""What a session may send, must send, and must send again."""

import pytest

from ipfix import (
    IANA,
    CollectingProcess,
    DataSet,
    EncodingError,
    ExportingProcess,
    Field,
    OptionsTemplate,
    Template,
    TemplateRedefinedError,
    TemplateSet,
    TooLongError,
    UnannouncedTemplateError,
)

ie = IANA.by_name
V4 = Template(256, [ie("sourceIPv4Address"), ie("octetDeltaCount")])
V6 = Template(257, [ie("sourceIPv6Address"), ie("octetDeltaCount")])
INTERFACES = OptionsTemplate(
    258, [ie("observationDomainId")], [ie("ingressInterface"), Field(ie("interfaceDescription"), 16)]
)


def flows(count: int, template: Template = V4):
    return template.records(
        {template.names[0]: ["192.0.2.1" if template is V4 else "::1"] * count, "octetDeltaCount": 1}
    )


def names(*interfaces: str):
    return INTERFACES.records(
        {
            "observationDomainId": 1,
            "ingressInterface": list(range(1, len(interfaces) + 1)),
            "interfaceDescription": list(interfaces),
        }
    )


def sequences(messages) -> list[int]:
    return [int.from_bytes(m[8:12], "big") for m in messages]


def received(collector, messages):
    """The sets of all messages: template ids, or records."""
    found = []
    for octets in messages:
        message = collector.receive(octets)
        assert (message.error, message.unknown, message.gap or 0) == (None, [], 0)
        for s in message.sets:
            assert isinstance(s, (TemplateSet, DataSet))
            found.append([t.id for t in s.templates] if isinstance(s, TemplateSet) else list(s))
    return found


def test_nothing_is_sent_for_a_template_this_session_has_not_sent():
    exporter = ExportingProcess()
    with pytest.raises(UnannouncedTemplateError, match="template 256 was not announced in domain 1"):
        exporter.data(1, [flows(1)], 0)
    exporter.announce(1, [V4], [], now=0, export_time=0)
    assert exporter.data(1, [flows(1)], 0).records == 1
    with pytest.raises(UnannouncedTemplateError, match="domain 2"):
        exporter.data(2, [flows(1)], 0)
    with pytest.raises(UnannouncedTemplateError, match="template 257"):
        exporter.data(1, [flows(1), flows(1, V6)], 0)
    with pytest.raises(UnannouncedTemplateError, match="template 258"):
        exporter.announce(1, [V6], [names("eth0")], now=0, export_time=0)


def test_an_announcement_is_one_template_a_set_and_then_the_options():
    messages = ExportingProcess().announce(1, [V4, V6, INTERFACES], [names("eth0", "eth1")], now=0, export_time=9)
    assert received(CollectingProcess(), messages) == [
        [256],
        [257],
        [258],
        [
            {"observationDomainId": 1, "ingressInterface": 1, "interfaceDescription": "eth0"},
            {"observationDomainId": 1, "ingressInterface": 2, "interfaceDescription": "eth1"},
        ],
    ]
    assert len(messages) == 1


def test_options_records_are_counted_and_templates_are_not():
    exporter = ExportingProcess(max_message_size=512)
    announced = exporter.announce(1, [V4, V6, INTERFACES], [names(*"abcdefghijklmnopqrstuvwxyz")], now=0, export_time=0)
    assert sequences(announced) == [0, int(announced.counts[0])]
    assert announced.records == 26
    assert sequences(exporter.data(1, [flows(3)], 0)) == [26]
    assert sequences(exporter.data(1, [flows(100)], 0)) == [29, 29 + 41, 29 + 82]  # (512 - 20) // 12
    assert exporter.sequence(1) == 129
    exporter.announce(2, [V4], [], now=0, export_time=0)
    assert sequences(exporter.data(2, [flows(1)], 0)) == [0]  # each domain counts for itself


def test_templates_are_due_at_first_and_after_every_interval():
    exporter = ExportingProcess(template_refresh=60)
    assert exporter.due(1, [V4, V6], now=100) == [V4, V6]
    exporter.announce(1, [V4], [], now=100, export_time=0)
    assert exporter.due(1, [V4, V6], now=101) == [V6]
    exporter.announce(1, [V6], [], now=130, export_time=0)
    assert exporter.due(1, [V4, V6], now=159.9) == []
    assert exporter.due(1, [V4, V6], now=160) == [V4]
    exporter.refresh(1, now=160, export_time=0)
    assert exporter.due(1, [V4, V6], now=219) == []
    assert exporter.due(2, [V4], now=0) == [V4]


def test_a_transport_that_loses_nothing_sends_templates_once():
    exporter = ExportingProcess(template_refresh=None)
    exporter.announce(1, [V4], [], now=0, export_time=0)
    assert exporter.due(1, [V4], now=1e9) == []


def test_a_refresh_says_everything_again_with_the_newest_options():
    exporter, collector = ExportingProcess(), CollectingProcess()
    received(collector, exporter.announce(1, [V4, INTERFACES], [names("old")], now=0, export_time=0))
    exporter.set_options(1, names("new"))
    again = received(collector, exporter.refresh(1, now=60, export_time=0))
    assert again[:2] == [[256], [258]]
    assert [r["interfaceDescription"] for r in again[2]] == ["new"]
    received(collector, exporter.announce(1, [], [names("newer")], now=61, export_time=0))
    assert received(collector, exporter.refresh(1, now=120, export_time=0))[2][0]["interfaceDescription"] == "newer"
    assert exporter.templates(1) == [V4, INTERFACES]


def test_several_runs_of_options_for_one_template_are_one_table():
    exporter, collector = ExportingProcess(), CollectingProcess()
    exporter.announce(1, [INTERFACES], [names("a"), names("b")], now=0, export_time=0)
    (_, records) = received(collector, exporter.refresh(1, now=0, export_time=0))
    assert [r["interfaceDescription"] for r in records] == ["a", "b"]


def test_only_options_records_of_announced_templates_are_options():
    exporter = ExportingProcess()
    with pytest.raises(EncodingError, match="no options template"):
        exporter.announce(1, [V4], [flows(1)], now=0, export_time=0)
    with pytest.raises(EncodingError, match="no options template"):
        exporter.set_options(1, flows(1))
    with pytest.raises(UnannouncedTemplateError):
        exporter.set_options(1, names("a"))


def test_an_id_never_means_two_layouts_in_one_session():
    other = Template(256, [ie("sourceIPv6Address")])
    exporter = ExportingProcess()
    exporter.announce(1, [V4], [], now=0, export_time=0)
    for forbidden in (
        lambda: exporter.announce(1, [other], [], now=0, export_time=0),
        lambda: exporter.due(1, [other], now=0),
        lambda: exporter.data(1, [other.records({"sourceIPv6Address": ["::1"]})], 0),
    ):
        with pytest.raises(TemplateRedefinedError, match="template 256 of domain 1"):
            forbidden()
    twin = Template(256, V4.fields)  # the same template made twice is the same
    assert exporter.data(1, [flows(1), twin.records({"sourceIPv4Address": [1], "octetDeltaCount": 1})], 0).records == 2
    exporter.announce(2, [other], [], now=0, export_time=0)  # another domain is another matter
    exporter.restart()
    exporter.announce(1, [other], [], now=0, export_time=0)  # and so is another session
    with pytest.raises(TemplateRedefinedError):
        exporter.announce(3, [V4, other], [], now=0, export_time=0)


def test_a_restart_begins_at_0_and_announces_everything_again():
    exporter = ExportingProcess()
    exporter.announce(1, [V4, INTERFACES], [names("eth0")], now=0, export_time=0)
    exporter.data(1, [flows(5)], 0)
    exporter.restart()
    assert exporter.due(1, [V4], now=1) == [V4]
    with pytest.raises(UnannouncedTemplateError):
        exporter.data(1, [flows(1)], 0)
    assert exporter.domains == (1,)
    collector = CollectingProcess()
    again = exporter.refresh(1, now=1, export_time=0)
    assert sequences(again) == [0]
    assert [len(s) for s in received(collector, again)] == [1, 1, 1]
    assert sequences(exporter.data(1, [flows(5)], 0)) == [1]


def test_an_error_leaves_everything_as_it_was():
    exporter = ExportingProcess(max_message_size=100)
    exporter.announce(1, [V4], [], now=0, export_time=0)
    exporter.data(1, [flows(2)], 0)
    huge = Template(300, [ie("octetDeltaCount")] * 30)
    with pytest.raises(TooLongError):
        exporter.announce(1, [huge], [], now=0, export_time=0)
    assert exporter.due(1, [huge], now=0) == [huge]
    long = Template(301, [Field(ie("interfaceName"), 200)])
    exporter.announce(1, [long], [], now=0, export_time=0)
    with pytest.raises(TooLongError):
        exporter.data(1, [flows(1), long.records({"interfaceName": ["x"]})], 0)
    assert exporter.sequence(1) == 2


def test_options_of_an_id_that_meant_something_else_in_an_earlier_session_are_forgotten():
    exporter, collector = ExportingProcess(), CollectingProcess()
    exporter.announce(1, [INTERFACES], [names("eth0")], now=0, export_time=0)
    exporter.restart()
    exporter.announce(1, [Template(INTERFACES.id, [ie("octetDeltaCount")])], [], now=0, export_time=0)
    assert received(collector, exporter.refresh(1, now=0, export_time=0)) == [[258]]


@pytest.mark.parametrize("domain", [-1, 1 << 32])
def test_a_domain_has_32_bits(domain):
    with pytest.raises(EncodingError, match="domain"):
        ExportingProcess().due(domain, [], now=0)
