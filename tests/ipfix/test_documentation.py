"""The examples of docs/library.md run, one after the other, as a reader would try them."""

import re
from pathlib import Path

from ipfix import IANA, Template

GUIDE = Path(__file__).parents[2] / "docs" / "library.md"


def test_every_example_of_the_guide_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exporting, collecting, files = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(exporting, names)
    exporter, records = names["exporter"], names["records"]
    fixed = Template(257, [IANA.by_name("octetDeltaCount")])
    more = [
        *exporter.announce(1, [fixed], [], 0, 0),
        *exporter.data(1, [fixed.records({"octetDeltaCount": [1, 2]})], 0),
    ]
    names["datagrams"] = [(octets, ("192.0.2.9", 4739)) for octets in [*names["messages"], *more]]
    names["datagrams"].append((more[-1], ("192.0.2.9", 4739)))
    exec(collecting, names)
    wanted = ["192.0.2.1 60", "192.0.2.2 1500", "192.0.2.3 40", "3", "-2 records missing in domain 1", "3"]
    assert capsys.readouterr().out.splitlines() == wanted
    names["batches"] = [exporter.refresh(1, 0, 0), exporter.data(1, [records], 0)]
    exec(files, names)
    assert [r["interfaceName"] for r in names["message"].data[0]] == ["eth0", "eth1", "eth0"]
