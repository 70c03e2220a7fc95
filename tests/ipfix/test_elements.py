"""The registry: what IANA says, what a caller adds, what nobody knows."""

import pytest

from ipfix import IANA, ElementError, ElementRegistry, InformationElement, UnknownElementError


def test_iana_knows_its_elements():
    assert IANA.by_name("octetDeltaCount") == InformationElement(
        "octetDeltaCount", 1, "unsigned64", 0, "deltaCounter", "octets"
    )
    assert IANA.by_id(27).name == "sourceIPv6Address"
    assert (IANA.by_id(433).name, IANA.by_id(533).data_type) == ("ignoredLayer2FrameTotalCount", "unsigned64")
    assert len(IANA) == len({e.id for e in IANA}) == len({e.name for e in IANA}) == 502


def test_an_id_nobody_knows_is_octets_with_a_telling_name_and_is_not_kept():
    registry = ElementRegistry()
    assert registry.by_id(7, 32473) == InformationElement("element_32473_7", 7, "octetArray", 32473)
    assert len(registry) == 0


def test_a_name_nobody_knows_is_an_error():
    with pytest.raises(UnknownElementError, match="'octetDeltaCounter'"):
        IANA.by_name("octetDeltaCounter")
    assert IANA.get("octetDeltaCounter") is None
    assert "octetDeltaCounter" not in IANA


def test_enterprise_elements_extend_a_copy():
    ours = InformationElement("flowLogAction", 600, "string", 32473)
    registry = IANA.extended(ours)
    assert registry.by_name("flowLogAction") is registry.by_id(600, 32473) is ours
    assert registry.by_id(8).name == "sourceIPv4Address"
    assert "flowLogAction" not in IANA


def test_the_other_direction_of_a_biflow_is_derived():
    reverse = InformationElement("reverseOctetDeltaCount", 1, "unsigned64", 29305, "deltaCounter", "octets")
    assert IANA.by_id(1, 29305) == IANA.by_name("reverseOctetDeltaCount") == reverse
    assert IANA.by_id(32000, 29305).name == "element_29305_32000"


@pytest.mark.parametrize(
    "other", [InformationElement("octetDeltaCount", 9, "unsigned8", 9), InformationElement("mine", 1, "unsigned64")]
)
def test_one_name_or_number_cannot_mean_two_things(other):
    with pytest.raises(ElementError, match="is already octetDeltaCount"):
        IANA.extended(other)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("", 1, "string"), "no name"),
        (("x", 32768, "string"), "id 32768"),
        (("x", -1, "string"), "id -1"),
        (("x", 1, "string", 1 << 32), "enterprise number 4294967296"),
        (("x", 1, "text"), "data type 'text'"),
    ],
)
def test_what_the_wire_cannot_say_is_no_element(wrong, why):
    with pytest.raises(ElementError, match=why):
        InformationElement(*wrong)


def test_natural_lengths_and_spec():
    assert [IANA.by_name(n).default_length for n in ("octetDeltaCount", "sourceMacAddress", "interfaceName")] == [
        8,
        6,
        65535,
    ]
    assert IANA.by_name("octetDeltaCount").spec == "octetDeltaCount(1)<unsigned64>"
    assert InformationElement("x", 600, "string", 32473).spec == "x(32473/600)<string>"
