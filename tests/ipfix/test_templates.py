"""Templates against the worked examples of RFC 7011 appendix A, and what cannot be a template."""

import numpy as np
import pytest

from ipfix import IANA, Field, InformationElement, OptionsTemplate, Template, TemplateError

ie = IANA.by_name


def octets(text: str) -> bytes:
    return bytes.fromhex(text)


def test_rfc_7011_a_2_1_template_set_of_iana_elements():
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
    assert template.set_octets() == octets("0002 001c 0100 0005  0008 0004  000c 0004  000f 0004  0002 0004  0001 0004")
    assert template.record_length == template.min_record_length == template.dtype.itemsize == 20


def test_rfc_7011_a_2_2_template_set_with_an_enterprise_element():
    enterprise = InformationElement("ours", 15, "ipv4Address", 32473)
    template = Template(
        257,
        [
            ie("sourceIPv4Address"),
            ie("destinationIPv4Address"),
            enterprise,
            Field(ie("packetDeltaCount"), 4),
            Field(ie("octetDeltaCount"), 4),
        ],
    )
    assert template.set_octets() == octets(
        "0002 0020 0101 0005  0008 0004  000c 0004  800f 0004 00007ed9  0002 0004  0001 0004"
    )


def test_rfc_7011_a_4_1_options_template_set_without_its_padding():
    template = OptionsTemplate(
        258,
        [ie("lineCardId")],
        [Field(ie("exportedMessageTotalCount"), 2), Field(ie("exportedFlowRecordTotalCount"), 2)],
    )
    assert template.set_octets() == octets("0003 0016 0102 0003 0001  008d 0004  0029 0002  002a 0002")
    assert [f.element.name for f in template.scope_fields] == ["lineCardId"]
    assert len(template.option_fields) == 2


def test_variable_length_is_65535_and_has_no_dtype():
    template = Template(300, [ie("interfaceName"), ie("octetDeltaCount")])
    assert template.wire() == octets("012c 0002 0052 ffff 0001 0008")
    assert (template.record_length, template.min_record_length) == (None, 9)
    with pytest.raises(TemplateError, match="template 300"):
        _ = template.dtype


def test_the_dtype_is_packed_and_in_network_order():
    template = Template(
        256,
        [
            ie("sourceIPv4Address"),
            ie("sourceIPv6Address"),
            ie("sourceMacAddress"),
            Field(ie("tcpControlBits"), 1),
            Field(ie("octetDeltaCount"), 5),
            ie("mibObjectValueInteger"),
            ie("dataRecordsReliability"),
            ie("samplingProbability"),
            Field(ie("samplingProbability"), 4),
            ie("flowStartSeconds"),
            ie("flowStartMilliseconds"),
            ie("flowStartNanoseconds"),
            Field(ie("interfaceName"), 16),
            Field(ie("applicationId"), 4),
        ],
    )
    kinds = [template.dtype.fields[name][0] for name in template.names]
    expected = [">u4", ("u1", (16,)), ("u1", (6,)), "u1", ("u1", (5,)), ">i4", "u1", ">f8", ">f4", ">u4", ">u8", ">u8"]
    assert kinds == [np.dtype(kind) for kind in [*expected, "S16", ("u1", (4,))]]
    assert template.dtype.itemsize == template.record_length == 4 + 16 + 6 + 1 + 5 + 4 + 1 + 8 + 4 + 4 + 8 + 8 + 16 + 4


def test_an_element_twice_gets_two_names():
    other = InformationElement("octetDeltaCount_2", 1, "unsigned8", 32473)
    template = Template(256, [ie("octetDeltaCount"), other, ie("octetDeltaCount"), ie("octetDeltaCount")])
    assert template.names == ("octetDeltaCount", "octetDeltaCount_2", "octetDeltaCount_3", "octetDeltaCount_4")


@pytest.mark.parametrize("id", [255, 2, 0, -1, 65536])
def test_template_ids_are_256_to_65535(id):
    with pytest.raises(TemplateError, match=f"template id {id}"):
        Template(id, [ie("octetDeltaCount")])


def test_a_template_has_fields_and_an_options_template_a_scope():
    with pytest.raises(TemplateError, match="no fields"):
        Template(256, [])
    with pytest.raises(TemplateError, match="no scope"):
        OptionsTemplate(256, [], [ie("octetDeltaCount")])


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("octetDeltaCount", 9),
        ("octetDeltaCount", 0),
        ("octetDeltaCount", 65535),
        ("tcpControlBits", 4),
        ("sourceIPv4Address", 3),
        ("sourceIPv6Address", 4),
        ("sourceMacAddress", 8),
        ("flowStartMilliseconds", 4),
        ("samplingProbability", 2),
        ("dataRecordsReliability", 2),
        ("interfaceName", 0),
        ("interfaceName", 65536),
    ],
)
def test_only_numbers_may_be_shorter_than_their_type(name, length):
    with pytest.raises(TemplateError, match=name):
        Field(ie(name), length)


def test_templates_are_equal_when_the_wire_says_the_same():
    fields = [ie("sourceIPv4Address"), ie("octetDeltaCount")]
    assert Template(256, fields) == Template(256, fields)
    assert Template(256, fields) != Template(257, fields)
    assert Template(256, fields) != Template(256, fields[::-1])
    assert OptionsTemplate(256, fields[:1], fields[1:]) != Template(256, fields)
    assert OptionsTemplate(256, fields[:1], fields[1:]) != OptionsTemplate(256, fields)
