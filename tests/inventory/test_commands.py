"""`run-now` and `exporters` as people and scripts use them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from faultproxy import FaultProxy
from organisation import DEAD, EXTERNAL_ID, LOGGING, NETWORK, REGIONS, WORKLOAD, Cloud, Organisation, role

from edfn_agent.cli import main
from edfn_agent.inventory.model import Snapshot, Vpc
from edfn_agent.state import State

SERVICES = ("ec2", "sts", "iam", "logs", "s3", "sqs", "sns", "events", "kinesis", "firehose")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def written(directory: Path, **changed: Any) -> Path:
    config: dict[str, Any] = {
        "collectors": ["udp://127.0.0.1:4739"],
        "inputs": {"s3": {}, "cloudwatch_logs": {}, "kinesis": {}},
        "state_directory": str(directory / "state"),
        **changed,
    }
    file = directory / "edfn-agent.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    return file


class TestRunNow:
    @pytest.fixture
    def aws(self, organisation: Organisation, proxy: FaultProxy) -> dict[str, Any]:
        def no_dead(call: Any) -> Any:
            from faultproxy import error

            dead = call.operation == "AssumeRole" and call.parameters["RoleArn"] == role(DEAD)
            return error(call, "AccessDenied", "not authorized", 403) if dead else None

        proxy.rules.append(no_dead)
        return {
            "region": "us-east-1",
            "regions": list(REGIONS),
            "credentials_file": str(organisation.credentials_file),
            "roles": [{"arn": role(WORKLOAD), "external_id": EXTERNAL_ID}, {"arn": role(LOGGING)}, {"arn": role(DEAD)}],
            "endpoints": dict.fromkeys(SERVICES, proxy.url),
        }

    def test_the_json_object(self, aws: dict[str, Any], organisation: Organisation, tmp_path: Path) -> None:
        config = written(tmp_path, aws=aws)
        result = run("run-now", "-c", config, "--json")
        assert result.exit_code == 1  # one account is dead
        found = json.loads(result.stdout)
        assert list(found) == [
            "accounts",
            "vpcs",
            "streams",
            "log_groups",
            "buckets",
            "findings",
            "api_calls",
            "seconds",
        ]
        assert [(each["via"], each["status"]) for each in found["accounts"]] == [
            ("profile:network", "ok"),
            (f"role:{role(WORKLOAD)}", "ok"),
            (f"role:{role(LOGGING)}", "ok"),
            (f"role:{role(DEAD)}", "failed"),
        ]
        vpcs = {each["name"]: each for each in found["vpcs"]}
        shared = vpcs["shared-a"]
        assert shared == {
            "vpc_id": organisation.vpcs["shared-a"],
            "name": "shared-a",
            "account_id": NETWORK,
            "region": "us-east-1",
            "cidrs": ["10.0.0.0/16", "100.65.0.0/20"],
            "exporter": "10.0.0.1",
            "exporter_origin": "router",
            "observation_domain": shared["observation_domain"],
            "source": "s3:central-logs",
            "flow_logs": [organisation.flow_logs["shared-a"]],
        }
        assert {name: vpcs[name]["source"] for name in ("edge", "stream-1", "both", "firehose", "parts", "quiet")} == {
            "edge": f"cloudwatch_logs:{organisation.group_arns['edge']}",
            "stream-1": f"kinesis:{organisation.stream_arn}",
            "both": "s3:central-logs",
            "firehose": "s3:central-logs",
            "parts": "s3:central-logs",
            "quiet": None,
        }
        assert {vpcs[name]["exporter_origin"] for name in ("shared-b", "shared-c")} == {"pool"}
        assert len({each["exporter"] for each in found["vpcs"]}) == 12
        assert len({each["observation_domain"] for each in found["vpcs"]}) == 12
        assert found["streams"] == [
            {
                "arn": organisation.stream_arn,
                "region": "us-east-1",
                "account_id": LOGGING,
                "enabled": True,
                "enhanced_fan_out": False,
            }
        ]
        central, quiet = found["buckets"]
        assert (central["bucket"], central["enabled"], central["problem"]) == ("central-logs", True, None)
        assert central["queue_url"].endswith(f"/{LOGGING}/flow-logs")
        assert (quiet["queue_url"], quiet["enabled"]) == (None, False)
        assert quiet["problem"] == "it has no notification of new objects to a queue"
        severities = [each["severity"] for each in found["findings"]]
        assert severities == sorted(severities, key=["error", "warning", "info"].index)
        assert any(each["account_id"] == DEAD and each["severity"] == "error" for each in found["findings"])
        assert EXTERNAL_ID not in result.output

        # What was found is there for the exporter, and for a start without network.
        table = json.loads(run("exporters", "-c", config, "--json").stdout)["exporters"]
        kept = {each["vpc_id"]: each["exporter"] for each in table}
        assert kept.pop("unattributed") == "100.64.0.1"
        assert kept == {each["vpc_id"]: each["exporter"] for each in found["vpcs"]}

    def test_for_people(self, aws: dict[str, Any], tmp_path: Path) -> None:
        result = run("run-now", "-c", written(tmp_path, aws=aws))
        assert result.exit_code == 1
        headings = ["Accounts (4)", "VPCs and their exporters (12)", "Kinesis streams (1)", "CloudWatch log groups (4)"]
        headings += ["S3 buckets (2)", "Findings ("]
        places = [result.stdout.index(each) for each in headings]
        assert places == sorted(places)
        assert result.stdout.index("error ") < result.stdout.index("warning ")
        assert "VPC unlogged has no flow log" in result.stdout
        assert "12 VPCs in 4 accounts" in result.stdout

    def test_status_0_when_all_is_well(self, aws: dict[str, Any], cloud: Cloud, tmp_path: Path) -> None:
        aws["roles"], aws["regions"] = [], ["us-east-1"]
        result = run(
            "run-now",
            "-c",
            written(tmp_path, aws=aws, inputs={"s3": {"queues": [f"arn:aws:sqs:us-east-1:{LOGGING}:flow-logs"]}}),
        )
        assert result.exit_code == 0, result.output

    def test_no_region_is_a_matter_of_configuration(self, aws: dict[str, Any], tmp_path: Path) -> None:
        del aws["region"]
        result = run("run-now", "-c", written(tmp_path, aws=aws))
        assert result.exit_code == 2
        assert "write aws.region in the configuration" in result.stderr

    def test_a_state_that_cannot_be_written_stops_nothing(self, aws: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        aws["roles"], aws["regions"] = [], ["us-east-1"]
        result = run(
            "run-now", "-c", written(tmp_path, aws=aws, state_directory=str(tmp_path / "file" / "state")), "--json"
        )
        assert result.exit_code == 1
        found = json.loads(result.stdout)
        assert len(found["vpcs"]) == 2
        assert "the state cannot be opened" in found["findings"][0]["problem"]

    def test_a_faulty_configuration(self, tmp_path: Path) -> None:
        result = run("run-now", "-c", written(tmp_path, aws={"regoin": "us-east-1"}), "--json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "region" in result.stderr


ONE, TWO, GONE = "vpc-0000000000000001a", "vpc-0000000000000002b", "vpc-0000000000000009f"


class TestExporters:
    @pytest.fixture
    def config(self, tmp_path: Path) -> Path:
        config = written(tmp_path, exporters={"vpcs": {TWO: "10.2.0.99"}})
        snapshot = Snapshot(
            at=1.0,
            vpcs=(
                Vpc(ONE, NETWORK, "us-east-1", "one", ("10.1.0.0/16",), ("2001:db8::/56",)),
                Vpc(TWO, NETWORK, "us-east-1", "two", ("10.2.0.0/16",)),
            ),
        )
        with State(tmp_path / "state") as state:
            state.snapshot.save(snapshot.to_json(), 1.0)
            state.traffic.add({ONE: (1234, 1767225600.0)})
        return config

    def table(self, config: Path) -> dict[str, dict[str, Any]]:
        found = json.loads(run("exporters", "-c", config, "--json").stdout)["exporters"]
        return {each["vpc_id"]: each for each in found}

    def test_the_list(self, config: Path) -> None:
        row = self.table(config)[ONE]
        assert row.pop("observation_domain") > 0
        assert row == {
            "vpc_id": ONE,
            "name": "one",
            "account_id": NETWORK,
            "region": "us-east-1",
            "cidrs": ["10.1.0.0/16", "2001:db8::/56"],
            "exporter": "10.1.0.1",
            "exporter_origin": "router",
            "source": None,
            "flow_logs": [],
            "flows": 1234,
            "last_flow": "2026-01-01T00:00:00+00:00",
        }
        shown = run("exporters", "-c", config).stdout
        assert "10.2.0.99" in shown
        assert "1234" in shown

    def test_assign_and_release(self, config: Path) -> None:
        result = run("exporters", "assign", ONE, "192.168.1.1", "-c", config)
        assert (result.exit_code, result.stdout) == (0, f"{ONE} is exported as 192.168.1.1.\n")
        assert (self.table(config)[ONE]["exporter"], self.table(config)[ONE]["exporter_origin"]) == (
            "192.168.1.1",
            "stored",
        )
        result = run("exporters", "-c", config, "release", ONE)
        assert (result.exit_code, result.stdout) == (0, f"{ONE} is released. It is now exported as 10.1.0.1.\n")

    @pytest.mark.parametrize(
        ("vpc", "address", "fault"),
        [
            (ONE, "224.0.0.1", "'224.0.0.1' is no unicast address"),
            (ONE, "300.1.1.1", "is no IPv4 address"),
            ("web", "10.1.1.1", "'web' is no VPC id"),
            (ONE, "10.2.0.99", f"10.2.0.99 is {TWO}'s by configuration"),
            (ONE, "100.64.0.1", "100.64.0.1 is the exporter address of unattributed"),
            (TWO, "10.7.7.7", f"{TWO} has 10.2.0.99 from the configuration"),
        ],
    )
    def test_addresses_that_are_refused(self, config: Path, vpc: str, address: str, fault: str) -> None:
        before = self.table(config)
        result = run("exporters", "assign", vpc, address, "-c", config)
        assert result.exit_code == 2
        assert fault in result.stderr
        assert self.table(config) == before

    def test_a_vpc_that_is_not_there_yet(self, config: Path) -> None:
        result = run("exporters", "assign", GONE, "10.9.0.7", "-c", config)
        assert result.exit_code == 0
        assert "not in the inventory (yet)" in result.stderr

    def test_release_of_what_cannot_be_released(self, config: Path) -> None:
        assert "from the configuration" in run("exporters", "release", TWO, "-c", config).stderr
        assert "has no stored address" in run("exporters", "release", GONE, "-c", config).stderr

    def test_csv_there_and_back(self, config: Path, tmp_path: Path) -> None:
        text = run("exporters", "-c", config, "--format", "csv").stdout
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [(each["vpc_id"], each["exporter"]) for each in rows] == [
            (ONE, "10.1.0.1"),
            (TWO, "10.2.0.99"),
            ("unattributed", "100.64.0.1"),
        ]
        file = tmp_path / "table.csv"
        file.write_text(text)
        assert run("exporters", "import", file, "-c", config).stdout == "0 of 3 addresses changed.\n"
        assert self.table(config)[ONE]["exporter_origin"] == "router"
        # Two VPCs may swap, a spreadsheet adds blank lines and a mark at the start.
        file.write_bytes(
            b"\xef\xbb\xbf" + text.replace("10.1.0.1", "10.5.5.5").replace("\n", "\r\n").encode() + b"\r\n"
        )
        result = run("exporters", "import", file, "-c", config)
        assert result.stdout == "1 of 3 addresses changed.\n", result.output
        assert self.table(config)[ONE]["exporter"] == "10.5.5.5"

    def test_a_csv_with_faults_changes_nothing(self, config: Path, tmp_path: Path) -> None:
        before = self.table(config)
        file = tmp_path / "table.csv"
        file.write_text(f"VPC_ID,exporter\n{ONE},10.5.5.5\n{GONE},10.5.5.5\nweb,10.6.6.6\n{ONE},1.2.3.4\n")
        result = run("exporters", "import", file, "-c", config)
        assert result.exit_code == 2
        assert [line.partition(": ")[2] for line in result.stderr.splitlines()] == [
            f"10.5.5.5 is given to {ONE}, too",
            "'web' is no VPC id, like vpc-0a1b2c3d4e5f60718",
            f"{ONE} is there twice",
        ]
        assert "line 3" in result.stderr
        assert self.table(config) == before

    def test_before_the_first_discovery(self, tmp_path: Path) -> None:
        result = run("exporters", "-c", written(tmp_path), "--json")
        assert result.exit_code == 0
        assert [each["vpc_id"] for each in json.loads(result.stdout)["exporters"]] == ["unattributed"]
        assert "run `edfn-agent run-now` first" in result.stderr

    def test_without_a_configuration(self) -> None:
        result = run("exporters")
        assert result.exit_code == 2
        assert "-c FILE" in result.stderr
