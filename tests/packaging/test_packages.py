"""The Debian package built, installed, run as its service and removed again; the RPM package built and looked at."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from edfn_agent import __version__

PACKAGING = Path(__file__).parents[2] / "packaging"
PLACES = [Path(p) for p in ("/etc/edfn-agent", "/var/lib/edfn-agent", "/usr/lib/edfn-agent", "/usr/bin/edfn-agent")]

pytestmark = pytest.mark.slow


def run(*command: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def dpkg(*arguments: object) -> str:
    """dpkg, when whoever else installs something has finished."""
    for _ in range(60):
        try:
            return run("dpkg", *arguments)
        except AssertionError as error:
            if "lock" not in str(error):
                raise
            time.sleep(1)
    raise AssertionError("dpkg is locked by somebody else")


def test_the_tree_names_only_final_places_and_has_what_it_needs(tree):
    home = tree / "usr/lib/edfn-agent"
    assert (home / "bin/edfn-agent").read_text().startswith("#!/usr/lib/edfn-agent/bin/python -I\n")
    assert os.readlink(tree / "usr/bin/edfn-agent") == "../lib/edfn-agent/bin/edfn-agent"
    python = os.readlink(home / "bin" / os.readlink(home / "bin/python"))
    assert re.fullmatch(r"/usr/bin/python3\.\d+", python), "an exact version"
    (packages,) = home.glob("lib/python3*/site-packages")
    names = {path.name for path in packages.iterdir()}
    assert {"edfn_agent", "ipfix", "pyarrow", "scapy"} <= names
    assert not {"moto", "pip", "setuptools", "pytest", "amazon_kclpy"} & names
    assert list(packages.glob("edfn_agent/formats/_scan.*.so"))
    assert (packages / "edfn_agent/__pycache__").is_dir()
    for path in tree.rglob("*"):
        if not path.is_symlink():
            assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID), path


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="installing a package takes root")
def test_the_debian_package_installs_serves_and_goes_without_a_trace(tree, tmp_path, one_at_a_time):
    for place in PLACES:
        if place.exists():
            pytest.skip(f"{place} is there: an edfn-agent is installed here, and is not to be touched")
    # not packed, to be quick
    environment = {**os.environ, "COMPRESSION": "none"}
    deb = run(PACKAGING / "build-deb", "--tree", tree, tmp_path, env=environment).splitlines()[-1]
    assert Path(deb).name.startswith(f"edfn-agent_{__version__}-1_")
    fields = run("dpkg-deb", "--field", deb)
    assert re.search(r"^Depends: python3\.\d+, libc6 \(>= 2\.\d+\)", fields, re.M), fields
    try:
        dpkg("--install", deb)
        assert run("edfn-agent", "--version") == f"edfn-agent, version {__version__}\n"
        assert "all well" in run("edfn-agent", "validate", "-c", "/etc/edfn-agent/edfn-agent.yaml")
        versions = run("edfn-agent", "version", "--all")
        assert "scanner compiled" in versions
        assert "pyarrow not installed" not in versions
        assert run("stat", "-c", "%U:%G %a", *PLACES[:2]).split("\n")[:2] == [
            "root:edfn-agent 750",
            "edfn-agent:edfn-agent 750",
        ]
        assert run("stat", "-c", "%U:%G %a", "/etc/edfn-agent/edfn-agent.yaml") == "root:edfn-agent 640\n"
        _serve(tmp_path)
        before = Path("/etc/edfn-agent/edfn-agent.yaml").read_text()
        dpkg("--install", deb)  # as an upgrade does
        assert Path("/etc/edfn-agent/edfn-agent.yaml").read_text() == before, "what was configured stays"
        assert run("stat", "-c", "%U:%G %a", "/etc/edfn-agent/edfn-agent.yaml") == "root:edfn-agent 640\n"
        dpkg("--remove", "edfn-agent")
        assert Path("/etc/edfn-agent/edfn-agent.yaml").exists()
        assert Path("/var/lib/edfn-agent").exists()
        assert not Path("/usr/lib/edfn-agent").exists()
    finally:
        dpkg("--purge", "edfn-agent")
    assert [place for place in PLACES if place.exists()] == []
    assert subprocess.run(["getent", "passwd", "edfn-agent"], capture_output=True).returncode != 0
    assert subprocess.run(["getent", "group", "edfn-agent"], capture_output=True).returncode != 0


def _serve(tmp_path: Path) -> None:
    """Start what the unit starts, as its user and with its socket; look at it; stop it as systemd does."""
    unit = Path("/usr/lib/systemd/system/edfn-agent.service").read_text()
    commands = dict(re.findall(r"^(ExecStartPre|ExecStart)=(.+)$", unit, re.M))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = {
        "collectors": ["udp://127.0.0.1:9"],
        "aws": {"region": "us-east-1", "regions": ["us-east-1"]},
        "inputs": {"s3": None},
        "http": {"listen": f"127.0.0.1:{port}"},
        "shutdown_timeout": "5s",
    }
    Path("/etc/edfn-agent/edfn-agent.yaml").write_text(yaml.safe_dump(configuration))
    environment = {
        "PATH": "/usr/bin:/bin",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",  # nobody is there: the service has to stand that
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_MAX_ATTEMPTS": "1",
        "WATCHDOG_USEC": "6000000",
    }
    as_user = ["setpriv", "--reuid=edfn-agent", "--regid=edfn-agent", "--init-groups", "--no-new-privs"]
    as_user += ["--inh-caps=-all", "--bounding-set=-all"]
    run(*as_user, *shlex.split(commands["ExecStartPre"]), env=environment, cwd="/")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        name = f"edfn-agent-test-{os.getpid()}"
        systemd.bind("\0" + name)
        systemd.settimeout(1)
        log = tmp_path / "log"
        with log.open("w") as stderr:
            service = subprocess.Popen(
                [*as_user, *shlex.split(commands["ExecStart"])],
                env={**environment, "NOTIFY_SOCKET": f"@{name}"},
                stderr=stderr,
                cwd="/",
            )
        try:
            _hear(systemd, "READY=1", service, log)
            _hear(systemd, "WATCHDOG=1", service, log)
            base = f"http://127.0.0.1:{port}"
            with urllib.request.urlopen(f"{base}/healthz", timeout=5) as answer:
                assert answer.read() == b"alive\n"
            with urllib.request.urlopen(f"{base}/metrics", timeout=5) as answer:
                assert b"edfn_bytes_in_flight" in answer.read()
            with pytest.raises(urllib.error.HTTPError) as caught:  # AWS is not reachable
                urllib.request.urlopen(f"{base}/readyz", timeout=5)
            assert caught.value.code == 503
            assert json.loads(caught.value.read())["reasons"]
            service.send_signal(signal.SIGTERM)
            _hear(systemd, "STOPPING=1", service, log)
            assert service.wait(timeout=30) == 0, log.read_text()
        finally:
            if service.poll() is None:
                service.kill()
                service.wait()
    assert "Traceback" not in log.read_text()


def _hear(systemd: socket.socket, word: str, service: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if word in systemd.recv(4096).decode().splitlines():
                return
        except TimeoutError:
            assert service.poll() is None, log.read_text()
    raise AssertionError(f"systemd never heard {word}:\n{log.read_text()}")


@pytest.mark.skipif(not shutil.which("rpmbuild"), reason="rpmbuild is not installed (Debian: apt-get install rpm)")
def test_the_rpm_package_is_built_and_asks_for_what_it_needs(tree, tmp_path):
    light = tmp_path / "tree"
    run("cp", "-al", tree, light)
    (packages,) = light.glob("usr/lib/edfn-agent/lib/python3*/site-packages")
    shutil.rmtree(packages / "pyarrow")  # half of all octets
    rpm = run(PACKAGING / "build-rpm", "--tree", light, tmp_path).splitlines()[-1]
    assert run("rpm", "-qp", "--qf", "%{NAME} %{VERSION} %{LICENSE}", rpm) == f"edfn-agent {__version__} Apache-2.0"
    needs = run("rpm", "-qp", "--requires", rpm)
    assert re.search(r"^/usr/bin/python3\.\d+$", needs, re.M)
    assert re.search(r"^libc\.so\.6\(GLIBC_2\.\d+\)", needs, re.M)
    assert "openblas" not in needs + run("rpm", "-qp", "--provides", rpm)
    assert run("rpm", "-qp", "--configfiles", rpm) == "/etc/edfn-agent/edfn-agent.yaml\n"
    files = run("rpm", "-qp", "--list", rpm).splitlines()
    assert {"/usr/bin/edfn-agent", "/usr/lib/systemd/system/edfn-agent.service"} <= set(files)
    scripts = tmp_path / "scripts"
    for body in re.split(r"^\w+ scriptlet.*$", run("rpm", "-qp", "--scripts", rpm), flags=re.M)[1:]:
        scripts.write_text(body)
        run("sh", "-n", scripts)
