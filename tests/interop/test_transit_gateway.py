"""Transit Gateway flow logs to nfcapd, nfacctd and tshark, in both profiles: every record, field by field.

A transit gateway is the exporter, its attachments are the interfaces, and there is no accepting or denying.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import generated
import oracle
import pytest
from capture import messages, options_messages
from checks import check_nfacctd, check_nfcapd, check_tshark
from collectors import Nfacctd, Nfcapd, Record, Tshark
from command import KEYS, Names, export
from elements import AWS, ZERO, elements, enterprise, primitives, sent_octets, shown_octets

LAYOUT = set(generated.TRANSIT_GATEWAY.split())


@pytest.mark.parametrize("profile", ["standard", "aws"])
def test_every_record_of_two_transit_gateways(profile: str, tmp_path: Path) -> None:
    folder = generated.write_transit_gateways(tmp_path / "logs")
    expected = [
        flow | enterprise(flow, LAYOUT)
        for file in sorted(folder.iterdir())
        for flow in oracle.flows(oracle.lines(file))
    ]
    told: list[Record] = [one for one in elements() if one["field"] in LAYOUT] if profile == "aws" else []
    nfcapd, nfacctd = Nfcapd(tmp_path / "nfcapd"), Nfacctd(tmp_path / "nfacctd", primitives=primitives(told))
    nfcapd.start()
    nfacctd.start()
    capture = tmp_path / "flows.pcap"
    arguments = AWS if profile == "aws" else []
    try:
        summary = export(folder, "--output", capture, *arguments, to=[nfcapd, nfacctd])
        assert summary["records_exported"] == len(expected) == 600
        shown = Tshark(capture)
        names = Names(shown)
        assert len(names.exporters) == 2
        check_tshark(shown, expected, names)
        if profile == "aws":
            got = Counter(tuple(shown_octets(one)) for one in shown.elements)
            assert got == Counter(tuple(sent_octets(one)) for one in expected)
        options = options_messages(messages(capture))
        check_nfcapd(nfcapd, expected, names, {("127.0.0.1", domain): n for (_, domain), n in options.items()})
        absent = {one["name"]: ZERO[one["type"]] for one in told}
        check_nfacctd(nfacctd, [absent | flow for flow in expected], names, [*KEYS, *absent])
    finally:
        nfcapd.stop()
        nfacctd.stop()
