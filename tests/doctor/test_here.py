"""This side: collectors on loopback, the state directory, clock, files, certificates; the catalogue and its page."""

from __future__ import annotations

import ast
import datetime
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edfn_agent.config import Collector, FirehoseInput
from edfn_agent.export.transports.collector import Endpoint
from edfn_agent.inventory.model import Snapshot
from edfn_agent.ops.doctor import collectors, machine, streams
from edfn_agent.ops.doctor.certificates import lasting
from edfn_agent.ops.doctor.checks import CHECKS, Check, alike, in_order
from edfn_agent.ops.doctor.trials import principal_of

ROOT = Path(__file__).parents[2]


def looked(url: str, mode: str = "field", size: int = 1400, **more: Any) -> dict[str, Check]:
    collector = Collector.model_validate({"url": url, **more})
    return {each.id: each for each in collectors.collector(collector, size, mode, [IPv4Address("127.0.0.2")])}


class TestCollectors:
    def test_udp(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
            listening.bind(("127.0.0.1", 0))
            listening.settimeout(5)
            found = looked(f"udp://127.0.0.1:{listening.getsockname()[1]}")
            # An IPFIX message without a set: version 10, 16 octets.
            assert listening.recv(100)[:4] == b"\x00\x0a\x00\x10"
        assert {each.status for each in found.values()} == {"ok"}

    def test_udp_where_nobody_listens(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        assert looked(f"udp://127.0.0.1:{port}")["collector.port"].status == "error"
        assert looked(f"udp://127.0.0.1:{port}", required=False)["collector.port"].status == "warning"

    def test_tcp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            assert looked(f"tcp://127.0.0.1:{port}")["collector.port"].status == "ok"
        refused = looked(f"tcp://127.0.0.1:{port}")["collector.port"]
        assert (refused.status, "refused" in refused.text) == ("error", True)

    def test_a_name_that_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        found = looked("udp://collector.example.net:4739")
        assert list(found) == ["collector.name"]
        assert found["collector.name"].status == "error"

    def test_messages_longer_than_the_path_takes(self) -> None:
        endpoint = Endpoint(socket.AF_INET, "192.0.2.1", 4739)
        long = collectors._fits("udp://192.0.2.1:4739", endpoint, 8900, 1500, False)
        assert (long.status, long.fix) == ("warning", "ipfix: {max_message_size: 1472}")
        assert collectors._fits("udp://192.0.2.1:4739", endpoint, 1472, 1500, False).status == "ok"

    def test_exporters_as_source(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
            listening.bind(("127.0.0.1", 0))
            url = f"udp://127.0.0.1:{listening.getsockname()[1]}"
            assert looked(url, "source")["collector.source"].status == "ok"  # 127.0.0.2 is this machine's
            monkeypatch.setattr(collectors, "_from", lambda *_: OSError(99, "Cannot assign requested address"))
            assert looked(url, "source")["collector.source"].status == "error"
            without = looked(url, "auto")["collector.source"]
        assert (without.status, "CAP_NET_RAW" in without.fix) == ("info", True)


@pytest.fixture
def certificate(tmp_path: Path) -> Iterator[Any]:
    def make(days: int) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "collector")])
        now = datetime.datetime.now(datetime.UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=400))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("collector")]), False)
            .sign(key, hashes.SHA256())
        )
        pem, secret = tmp_path / f"{days}.pem", tmp_path / f"{days}.key"
        pem.write_bytes(built.public_bytes(serialization.Encoding.PEM))
        secret.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return pem, secret

    return make


class TestCertificates:
    @pytest.mark.parametrize(("days", "status"), [(-1, "error"), (5, "warning"), (300, "ok"), (20000, "ok")])
    def test_how_long_one_lasts(self, certificate: Any, days: int, status: str) -> None:
        pem, _ = certificate(days)
        end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        check = lasting("firehose.certificate", pem)
        assert check.status == status
        assert f"{end:%Y-%m-%d}" in check.text

    def test_what_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "x.pem").write_text("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
        assert lasting("firehose.certificate", tmp_path / "x.pem").status == "error"

    def test_a_collector_over_tls(self, certificate: Any) -> None:
        pem, key = certificate(10)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, key)
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def serve() -> None:
                while True:
                    try:
                        with context.wrap_socket(listening.accept()[0], server_side=True) as peer:
                            peer.recv(1)
                    except ssl.SSLError:
                        continue
                    except OSError:
                        return

            threading.Thread(target=serve, daemon=True).start()
            url = f"tls://127.0.0.1:{listening.getsockname()[1]}"
            found = looked(url, ca_file=str(pem), server_name="collector")
            assert found["collector.port"].status == "ok"
            assert found["collector.certificate"].status == "warning"  # ten days are left
            stranger = looked(url, server_name="collector")["collector.certificate"]
        assert (stranger.status, "not accepted" in stranger.text) == ("error", True)


class TestMachine:
    def state(self, directory: Path) -> dict[str, Check]:
        return {each.id: each for each in machine.state(SimpleNamespace(state_directory=directory))}

    def test_a_directory_that_will_be_made(self, tmp_path: Path) -> None:
        assert "will be made" in self.state(tmp_path / "a" / "b")["machine.state"].text
        assert not (tmp_path / "a").exists()

    def test_one_that_is_there_is_left_as_it_is(self, tmp_path: Path) -> None:
        assert self.state(tmp_path)["machine.state"].status == "ok"
        assert list(tmp_path.iterdir()) == []

    def test_one_that_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(machine.tempfile, "NamedTemporaryFile", refused)
        check = self.state(tmp_path)["machine.state"]
        assert (check.status, str(tmp_path) in check.fix) == ("error", True)

    @pytest.mark.parametrize(("free", "status"), [(10, "error"), (500, "warning"), (5000, "ok")])
    def test_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1 << 20))
        assert self.state(tmp_path)["machine.space"].status == status

    @pytest.mark.parametrize(
        ("skew", "status"), [(0.4, "ok"), (-20.0, "ok"), (45.0, "warning"), (-400.0, "error"), (None, "untried")]
    )
    def test_clock(self, skew: float | None, status: str) -> None:
        assert machine.clock(skew).status == status

    def test_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config: Any = SimpleNamespace(inputs=SimpleNamespace(firehose=None))
        monkeypatch.setattr(machine.resource, "getrlimit", lambda _: (64, 4096))
        assert machine.files(config, Snapshot(at=0.0)).status == "warning"

    def test_address_ranges(self, tmp_path: Path) -> None:
        file = tmp_path / "ip-ranges.json"
        assert machine.ip_ranges(file).status == "warning"
        file.write_text('{"prefixes": [{"ip_prefix": "192.0.2.0/24", "service": "S3", "region": "us-east-1"}]}')
        assert machine.ip_ranges(file).text == "1 ranges, 0 days old"
        os.utime(file, (time.time() - 200 * 86400,) * 2)
        assert machine.ip_ranges(file).status == "info"


class TestKinesisAndFirehose:
    def test_no_java(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from edfn_agent.inputs.kinesis import java

        def missing() -> None:
            raise java.Missing("Kinesis needs Java, and there is none in JAVA_HOME or PATH. Install Java 17.")

        monkeypatch.setattr(java, "find", missing)
        check = streams.java()
        assert (check.status, check.next_step) == ("error", "Install Java 17.")

    def endpoint(self, port: int, **files: Path) -> dict[str, str]:
        settings = {"listen": f"127.0.0.1:{port}", **{name: str(path) for name, path in files.items()}}
        return {each.id: each.status for each in streams.endpoint(FirehoseInput.model_validate(settings))}

    def test_the_endpoint(self, certificate: Any, tmp_path: Path) -> None:
        pem, key = certificate(100)
        _, other = certificate(101)
        (tmp_path / "key").write_text("secret\n")
        (tmp_path / "empty").write_text("")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert self.endpoint(port) == {"firehose.endpoint": "info"}
        well = self.endpoint(port, certificate=pem, key=key, access_key_file=tmp_path / "key")
        assert set(well.values()) == {"ok"}
        ill = self.endpoint(port, certificate=pem, key=other, access_key_file=tmp_path / "empty")
        assert (ill["firehose.certificate"], ill["firehose.access-key"]) == ("error", "error")


def test_who_is_behind_an_identity() -> None:
    assert principal_of("arn:aws:sts::1:assumed-role/Name/session") == "arn:aws:iam::1:role/Name"
    assert principal_of("arn:aws:iam::1:user/path/me") == "arn:aws:iam::1:user/path/me"
    assert principal_of("arn:aws:iam::1:root") is None
    assert principal_of("") is None


class TestCatalogue:
    def test_a_check_that_is_not_in_it_is_refused(self) -> None:
        with pytest.raises(ValueError, match="is no check"):
            Check("machine.weather", "ok", "fine")

    def test_every_check_is_on_its_page(self) -> None:
        page = (ROOT / "docs" / "doctor.md").read_text()
        assert [id for id in CHECKS if f"| `{id}` |" not in page] == []
        named = set(re.findall(r"^\| `([a-z-]+\.[a-z-]+)` \|", page, re.M))
        assert named <= set(CHECKS)

    def test_every_finding_of_the_inventory_says_which_check_it_is(self) -> None:
        """As its last argument; those of calls are made of the action."""
        codes = [
            (f"{path.name}, line {node.lineno}", node.args[-1])
            for path in (ROOT / "edfn_agent" / "inventory").glob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Finding"
        ]
        assert len(codes) > 20
        known = {*CHECKS, "inventory.old"}
        odd = [place for place, code in codes if isinstance(code, ast.Constant) and code.value not in known]
        variable = [place for place, code in codes if not isinstance(code, ast.Constant)]
        assert odd == []
        assert [place.partition(",")[0] for place in variable] == ["asking.py"]

    def test_order_and_what_is_alike(self) -> None:
        many = [Check("permission.ec2:DescribeVpcs", "error", "no", account, fix="x") for account in ("2", "1")]
        well = Check("machine.clock", "ok", "fine")
        assert in_order([*many, well, well]) == [well, *reversed(many)]
        [first, _] = alike([well, *many])
        assert (first.places, first.count) == (("2", "1"), 2)
