"""The packages built, installed, run as the service and removed again: in a machine of their own, where one can be."""

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
from tests.packaging.conftest import PACKAGING, PLACES
from tests.packaging.machine import Here, Machine

pytestmark = pytest.mark.slow

SERVICE = "edfn-agent.service"
CONFIGURATION = "etc/edfn-agent/edfn-agent.yaml"
UNPACKED = {**os.environ, "COMPRESSION": "none"}  # to be quick
ENVIRONMENT = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",  # nobody is there: the service has to stand that
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_MAX_ATTEMPTS": "1",
}


def run(*command: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def dpkg(place: Here, *arguments: object) -> str:
    """dpkg, when whoever else installs something has finished. Nothing is synced, as it is thrown away soon."""
    for _ in range(60):
        done = place.call("dpkg", "--force-unsafe-io", *arguments)
        if "lock" not in done.stdout:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout
    return done.stdout


def _eventually(true: object, what: str) -> None:
    until = time.monotonic() + 60
    while not true():  # type: ignore[operator]
        assert time.monotonic() < until, what
        time.sleep(0.1)


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
    for completion in ("bash-completion/completions", "fish/vendor_completions.d"):
        (script,) = (tree / "usr/share" / completion).iterdir()
        assert "_EDFN_AGENT_COMPLETE=" in script.read_text()
    for path in tree.rglob("*"):
        if not path.is_symlink():
            assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID), path


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="dpkg-deb is not installed")
def test_the_debian_package_installs_serves_and_goes_without_a_trace(tree, dist, place, tmp_path):
    built = run(PACKAGING / "build-deb", "--tree", tree, dist, env=UNPACKED)
    deb = Path(built.splitlines()[-1])
    assert deb.name.startswith(f"edfn-agent_{__version__}-1_")
    fields = run("dpkg-deb", "--field", deb)
    assert re.search(r"^Depends: python3\.\d+, libc6 \(>= 2\.\d+\)", fields, re.M), fields
    package = place.packages / deb.name
    try:
        dpkg(place, "--install", package)
        _is_installed(place)
        assert "pyarrow not installed" not in place.run("edfn-agent", "version", "--all")
        _configure(place)
        if isinstance(place, Machine):
            _under_systemd(place)
        else:
            _as_systemd_would(tmp_path)
        before = (place.root / CONFIGURATION).read_text()
        dpkg(place, "--install", package)  # as an upgrade does
        assert (place.root / CONFIGURATION).read_text() == before, "what was configured stays"
        assert place.run("stat", "-c", "%U:%G %a", f"/{CONFIGURATION}") == "root:edfn-agent 640\n"
        if isinstance(place, Machine):
            _eventually(lambda: _shown(place)["ActiveState"] == "active", "an upgrade starts again what was running")
        dpkg(place, "--remove", "edfn-agent")
        if isinstance(place, Machine):
            assert place.call("systemctl", "is-active", SERVICE).stdout == "inactive\n"
        assert (place.root / CONFIGURATION).exists()
        assert (place.root / "var/lib/edfn-agent").exists()
        assert not (place.root / "usr/lib/edfn-agent").exists()
    finally:
        (place.root / "etc/edfn-agent/environment").unlink(missing_ok=True)
        dpkg(place, "--purge", "edfn-agent")
    assert [name for name in PLACES if (place.root / name).exists()] == []
    assert place.call("getent", "passwd", "edfn-agent").returncode != 0
    assert place.call("getent", "group", "edfn-agent").returncode != 0


@pytest.mark.skipif(not shutil.which("rpmbuild"), reason="rpmbuild is not installed (Debian: apt-get install rpm)")
def test_the_rpm_package_asks_for_what_it_needs_installs_serves_and_goes(tree, dist, machine, tmp_path):
    light = tmp_path / "tree"
    run("cp", "-al", tree, light)
    (packages,) = light.glob("usr/lib/edfn-agent/lib/python3*/site-packages")
    for name in ("pyarrow", "pyarrow.libs", "scapy"):  # half of all octets
        shutil.rmtree(packages / name, ignore_errors=True)
    rpm = Path(run(PACKAGING / "build-rpm", "--tree", light, dist, env=UNPACKED).splitlines()[-1])
    assert run("rpm", "-qp", "--qf", "%{NAME} %{VERSION} %{LICENSE}", rpm) == f"edfn-agent {__version__} Apache-2.0"
    needs = run("rpm", "-qp", "--requires", rpm)
    assert re.search(r"^/usr/bin/python3\.\d+$", needs, re.M)
    assert re.search(r"^libc\.so\.6\(GLIBC_2\.\d+\)", needs, re.M)
    assert "openblas" not in needs + run("rpm", "-qp", "--provides", rpm)
    assert run("rpm", "-qp", "--configfiles", rpm) == f"/{CONFIGURATION}\n"
    files = run("rpm", "-qp", "--list", rpm).splitlines()
    assert {"/usr/bin/edfn-agent", "/usr/lib/systemd/system/edfn-agent.service"} <= set(files)
    if not isinstance(machine, Machine):
        pytest.skip(f"built and looked at; not installed, as there is no machine of its own for it: {machine}")
    package = machine.packages / rpm.name
    install = ["rpm", "--nodeps", "--nosignature"]  # the other packages there are not RPM's
    machine.run(*install, "--install", package)
    _is_installed(machine)
    _configure(machine)
    machine.run("systemctl", "enable", "--now", SERVICE)
    before = _shown(machine)["MainPID"]
    machine.run(*install, "--upgrade", "--replacepkgs", package)
    _eventually(
        lambda: _shown(machine)["ActiveState"] == "active" and _shown(machine)["MainPID"] != before,
        "an upgrade starts again what was running",
    )
    machine.run("rpm", "--erase", "edfn-agent")
    assert machine.call("systemctl", "is-active", SERVICE).stdout == "inactive\n"
    assert not (machine.root / "usr/lib/edfn-agent").exists()
    assert "AWS_MAX_ATTEMPTS" in (machine.root / "etc/edfn-agent/environment").read_text()
    assert (machine.root / f"{CONFIGURATION}.rpmsave").exists(), "what was configured is kept"


def _is_installed(place: Here) -> None:
    assert place.run("edfn-agent", "--version") == f"edfn-agent, version {__version__}\n"
    assert "all well" in place.run("edfn-agent", "validate", "-c", f"/{CONFIGURATION}")
    assert "scanner compiled" in place.run("edfn-agent", "version", "--all")
    owners = place.run("stat", "-c", "%U:%G %a", "/etc/edfn-agent", "/var/lib/edfn-agent", f"/{CONFIGURATION}")
    assert owners.splitlines() == ["root:edfn-agent 750", "edfn-agent:edfn-agent 750", "root:edfn-agent 640"]


def _configure(place: Here) -> int:
    """As a user would, for an AWS that is not reachable; the port of the agent's health."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    configuration = {
        "collectors": ["udp://127.0.0.1:9"],
        "aws": {"region": "us-east-1", "regions": ["us-east-1"]},
        "inputs": {"s3": None},
        "http": {"listen": f"127.0.0.1:{port}"},
        "shutdown_timeout": "5s",
    }
    (place.root / CONFIGURATION).write_text(yaml.safe_dump(configuration))
    secret = place.root / "etc/edfn-agent/environment"
    secret.touch(0o600)
    secret.write_text("".join(f"{name}={value}\n" for name, value in ENVIRONMENT.items()))
    return port


def _shown(machine: Machine) -> dict[str, str]:
    """What systemd knows of the service."""
    return dict(line.split("=", 1) for line in machine.run("systemctl", "show", SERVICE).splitlines())


def _journal(machine: Machine) -> list[dict[str, str]]:
    lines = machine.run("journalctl", f"--unit={SERVICE}", "--output=json").splitlines()
    return [json.loads(line) for line in lines]


def _under_systemd(machine: Machine) -> None:
    """Started, looked at, reloaded, killed when it hangs, stopped: by systemd itself. Leaves it running."""

    def said(text: str) -> bool:
        return any(text in entry["MESSAGE"] for entry in _journal(machine))

    machine.run("systemctl", "enable", "--now", SERVICE)  # comes back when the agent says that it is ready
    shown = _shown(machine)
    assert (shown["ActiveState"], shown["SubState"], shown["NRestarts"]) == ("active", "running", "0")
    assert shown["StatusText"]
    status = dict(
        line.split(":", 1)
        for line in machine.run("cat", f"/proc/{shown['MainPID']}/status").splitlines()
        if ":" in line
    )
    assert status["Uid"].split()[0] == machine.run("id", "-u", "edfn-agent").strip()
    assert (status["CapEff"].strip(), status["NoNewPrivs"].strip()) == ("0" * 16, "1")
    ready = [entry for entry in _journal(machine) if entry["MESSAGE"].strip().endswith("ready")]
    assert [entry["PRIORITY"] for entry in ready] == ["6"], "the level is the journal's priority"

    machine.run("systemctl", "reload", SERVICE)
    _eventually(lambda: said("configuration reloaded"), "a reload")
    path = machine.root / CONFIGURATION
    good = path.read_text()
    path.write_text(f"{good}colectors: []\n")
    assert machine.call("systemctl", "reload", SERVICE).returncode == 1, "a fault fails the command"
    assert said("did you mean 'collectors'?")
    assert _shown(machine)["MainPID"] == shown["MainPID"], "and the service goes on"
    path.write_text(good)

    impatient = machine.root / "run/systemd/system/edfn-agent.service.d/impatient.conf"
    machine.run("mkdir", "-p", f"/{impatient.parent.relative_to(machine.root)}")
    machine.run("sh", "-c", f"printf '[Service]\\nWatchdogSec=3s\\n' >/{impatient.relative_to(machine.root)}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", SERVICE)
    hangs = _shown(machine)["MainPID"]
    machine.run("kill", "-STOP", hangs)
    _eventually(lambda: said("Watchdog timeout"), "one that hangs is noticed")
    machine.run("rm", f"/{impatient.relative_to(machine.root)}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", SERVICE)

    machine.run("systemctl", "stop", SERVICE)
    shown = _shown(machine)
    assert (shown["ActiveState"], shown["Result"], shown["ExecMainStatus"]) == ("inactive", "success", "0")
    assert shown["StatusText"] == "stopped"
    assert not said("Traceback")
    machine.run("systemctl", "start", SERVICE)


def _as_systemd_would(tmp_path: Path) -> None:
    """Start what the unit starts, as its user and with its socket; look at it; stop it as systemd does."""
    unit = Path("/usr/lib/systemd/system/edfn-agent.service").read_text()
    commands = dict(re.findall(r"^(ExecStartPre|ExecStart)=(.+)$", unit, re.M))
    listen = yaml.safe_load(Path("/", CONFIGURATION).read_text())["http"]["listen"]
    environment = {**ENVIRONMENT, "PATH": "/usr/bin:/bin", "WATCHDOG_USEC": "6000000"}
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
            base = f"http://{listen}"
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
