"""What /templates shows, from a real exporting process."""

from __future__ import annotations

import json
from types import SimpleNamespace

from edfn_agent.ops.on_the_wire import templates_on_the_wire
from ipfix import IANA, ExportingProcess, Field, InformationElement, OptionsTemplate, Template


def test_every_field_of_every_template_by_collector_and_domain():
    process = ExportingProcess()
    flows = Template(
        300,
        [
            IANA.by_name("sourceIPv4Address"),
            Field(IANA.by_name("tcpControlBits"), 1),
            InformationElement("awsVpcId", 10005, "string", pen=32473),
        ],
    )
    options = OptionsTemplate(256, [IANA.by_name("observationDomainId")], [IANA.by_name("exporterIPv4Address")])
    process.announce(7, [flows, options], [], 0.0, 0)
    destination = SimpleNamespace(transport=SimpleNamespace(name="udp://192.0.2.10:4739"), process=process)
    assert json.loads(json.dumps(templates_on_the_wire([destination]))) == [
        {
            "collector": "udp://192.0.2.10:4739",
            "domains": [
                {
                    "domain": 7,
                    "templates": [
                        {
                            "id": 300,
                            "kind": "data",
                            "fields": [
                                {"name": "sourceIPv4Address", "id": 8, "pen": 0, "length": 4},
                                {"name": "tcpControlBits", "id": 6, "pen": 0, "length": 1},
                                {"name": "awsVpcId", "id": 10005, "pen": 32473, "length": 65535},
                            ],
                        },
                        {
                            "id": 256,
                            "kind": "options",
                            "scope_fields": 1,
                            "fields": [
                                {"name": "observationDomainId", "id": 149, "pen": 0, "length": 4},
                                {"name": "exporterIPv4Address", "id": 130, "pen": 0, "length": 4},
                            ],
                        },
                    ],
                }
            ],
        }
    ]
