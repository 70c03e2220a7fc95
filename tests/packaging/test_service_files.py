"""The unit, the users, the alerts' companions: what can be checked without building a package."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"


class _Unit(configparser.RawConfigParser):
    """systemd's files: case matters, and a key may stand more than once (joined by line ends)."""

    def __init__(self) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#",), dict_type=_Joining)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


class _Joining(dict):  # type: ignore[type-arg]
    def __setitem__(self, key: str, value: object) -> None:
        if isinstance(value, list) and key in self:
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


def unit() -> configparser.RawConfigParser:
    parsed = _Unit()
    parsed.read(PACKAGING / "edfn-agent.service")
    return parsed


def test_the_unit_tells_systemd_what_the_agent_tells_it():
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert service["NotifyAccess"] == "main"
    assert service["WatchdogSec"] == "2min"
    assert service["User"] == "edfn-agent"
    assert service["StateDirectory"] == "edfn-agent"
    assert service["ExecStartPre"] == "/usr/bin/edfn-agent validate -c /etc/edfn-agent/edfn-agent.yaml"
    assert service["ExecReload"].splitlines()[-1] == "/bin/kill -HUP $MAINPID"


def test_the_unit_needs_no_privilege_and_lets_java_compile():
    service = unit()["Service"]
    assert service["CapabilityBoundingSet"] == ""
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert "MemoryDenyWriteExecute" not in service
    drop_in = (PACKAGING / "source-address.conf").read_text()
    assert re.findall(r"^(?!#)(.+)$", drop_in, re.M) == [
        "[Service]",
        "CapabilityBoundingSet=CAP_NET_RAW",
        "AmbientCapabilities=CAP_NET_RAW",
    ]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit_and_finds_little_exposed(tmp_path):
    text = (PACKAGING / "edfn-agent.service").read_text()
    copy = tmp_path / "edfn-agent.service"
    copy.write_text(text.replace("/usr/bin/edfn-agent", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=30)
    assert [line for line in verified.stderr.splitlines() if "edfn-agent" in line] == []
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", copy],
        capture_output=True,
        text=True,
        timeout=30,
    )
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", judged.stdout)
    if exposure is None:
        pytest.skip(f"this systemd cannot judge a unit offline: {judged.stderr.strip()}")
    assert float(exposure[1]) < 2.5


@pytest.mark.skipif(not shutil.which("systemd-sysusers"), reason="systemd-sysusers is not installed")
def test_sysusers_makes_the_user_of_the_unit(tmp_path):
    (tmp_path / "etc").mkdir()
    done = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", "--dry-run", PACKAGING / "edfn-agent.sysusers"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert "Would create user 'edfn-agent'" in done.stdout + done.stderr or "edfn-agent" in done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_the_scripts_are_sound():
    scripts = [PACKAGING / "system-packages", *PACKAGING.glob("build-*"), *(PACKAGING / "debian").iterdir()]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_container_is_built_of_what_is_there_and_runs_without_root():
    text = (PACKAGING / "Containerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    assert re.findall(r"^USER (\d+)$", text, re.M) == ["10001"]
    assert 'ENTRYPOINT ["edfn-agent"]' in text


class TestSystemPackages:
    """On a machine of our own making: a PATH with these programs and no others."""

    @pytest.fixture
    def machine(self, tmp_path):
        programs = tmp_path / "bin"
        programs.mkdir()
        for name in ("sh", "mktemp", "tail", "rm", "mkdir", "dirname"):
            found = shutil.which(name)
            assert found
            (programs / name).symlink_to(found)

        def program(name: str, text: str) -> None:
            (programs / name).write_text(f"#!/bin/sh\n{text}\n")
            (programs / name).chmod(0o755)

        def run(what: str) -> subprocess.CompletedProcess[str]:
            environment = {"PATH": str(programs), "TMPDIR": str(tmp_path)}
            return subprocess.run(
                ["sh", PACKAGING / "system-packages", what],
                env=environment,
                capture_output=True,
                text=True,
                timeout=30,
                cwd=tmp_path,
            )

        run.program = program  # type: ignore[attr-defined]
        program("id", "echo 1000")
        return run

    def test_what_is_there_is_not_asked_for(self, machine):
        for name in ("nfcapd", "nfacctd", "tshark", "java", "rpmbuild", "systemd-nspawn"):
            machine.program(name, "exit 0")
        done = machine("collectors")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_without_root_it_says_what_to_type(self, machine):
        machine.program("nfcapd", "exit 0")
        machine.program("java", "exit 0")
        machine.program("rpmbuild", "exit 0")
        machine.program("systemd-nspawn", "exit 0")
        machine.program("apt-get", "exit 99")
        done = machine("collectors")
        assert done.returncode == 0
        assert done.stderr == "missing: pmacct tshark. As root: apt-get install pmacct tshark\n"

    def test_off_debian_it_says_what_is_missing(self, machine):
        done = machine("python")
        assert done.stderr == "missing, by the names of Debian: python3 gcc libc6-dev python3-venv python3-dev\n"

    def test_root_gets_what_can_be_had_when_one_package_cannot(self, machine, tmp_path):
        machine.program("id", "echo 0")
        for name in ("nfcapd", "nfacctd", "java", "systemd-nspawn"):
            machine.program(name, "exit 0")
        # an apt that knows no tshark, and fails whole as apt does
        machine.program(
            "apt-get",
            'echo "$@" >>calls; case "$*" in *tshark*) echo "E: no tshark"; exit 100;; esac\n'
            'case "$*" in *rpm*) printf "#!/bin/sh\\n" >bin/rpmbuild; /bin/chmod 755 bin/rpmbuild;; esac',
        )
        done = machine("collectors")
        assert done.returncode == 0
        assert done.stdout == "installing tshark rpm\n"
        assert done.stderr.splitlines()[-1] == "could not be installed: tshark"
        assert len((tmp_path / "calls").read_text().splitlines()) == 4
        assert os.listdir(tmp_path / "bin").count("rpmbuild") == 1

    def test_no_such_step(self, machine):
        assert machine("everything").returncode == 2
