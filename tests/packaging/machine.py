"""This machine once more, for packages to be installed in: its files under an overlay that is thrown away, a network of
its own, and a systemd of its own that runs. Takes root and systemd-nspawn; `Unable` says why it cannot be.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

BOOT = 60.0
"""Seconds; it takes two."""
PACKAGES = "/mnt"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Unable(Exception):
    """The machine cannot be made here, and why."""


class Here:
    """This very machine, for where no other can be had."""

    def __init__(self, packages: Path) -> None:
        self.root = Path("/")
        self.packages = packages
        self._inside: list[str] = []

    def call(self, *command: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._inside, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def run(self, *command: object, timeout: float = 120) -> str:
        done = self.call(*command, timeout=timeout)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout


class Machine(Here):
    """A booted one. `root` is its file system, seen from outside; `packages` are where it sees them."""

    def __init__(self, root: Path, leader: int) -> None:
        super().__init__(Path(PACKAGES))
        self.root = root
        self._inside = ["nsenter", f"--target={leader}", "--all", "--wd=/", "env", "-i", f"PATH={PATH}", "LANG=C.UTF-8"]


@contextlib.contextmanager
def booted(scratch: Path, packages: Path) -> Iterator[Machine]:
    """`packages`: a directory of this machine that the other one sees."""
    if os.geteuid() != 0:
        raise Unable("it takes root")
    missing = [name for name in ("systemd-nspawn", "nsenter", "mount") if not shutil.which(name)]
    if missing:
        raise Unable(f"{', '.join(missing)}: not installed (Debian: apt-get install systemd-container)")
    with contextlib.ExitStack() as ending:
        root = _overlay(scratch, ending)
        (root / "etc/fstab").write_text("")  # no disk of this machine is its business
        (root / "etc/systemd/system/network-online.target").symlink_to("/dev/null")  # nobody there would bring it up
        # no other service of this machine is started: a target that all of them come after
        name = f"edfn-agent-test-{os.getpid()}"
        command = ["systemd-nspawn", "--quiet", f"--directory={root}", f"--machine={name}", "--boot"]
        command += ["--register=no", "--keep-unit", "--private-network", f"--bind-ro={packages}:{PACKAGES}"]
        command += ["--console=pipe", "--", "--unit=sysinit.target"]
        groups = _groups(name, ending)

        def enter() -> None:
            for group in groups:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        log = scratch / "boot.log"
        with log.open("w") as output:
            nspawn = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, preexec_fn=enter
            )
        ending.callback(_end, nspawn)
        until = time.monotonic() + BOOT
        while True:
            children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
            leader = children.read_text().split() if nspawn.poll() is None else []
            if leader:
                machine = Machine(root, int(leader[0]))
                state = machine.call("systemctl", "is-system-running").stdout.strip()
                if state in ("running", "degraded"):
                    break
            if nspawn.poll() is not None or time.monotonic() > until:
                raise Unable(f"systemd does not come up in systemd-nspawn: {log.read_text().strip()[-500:]}")
            time.sleep(0.1)
        ending.callback(machine.call, "systemctl", "poweroff")
        yield machine


def _overlay(scratch: Path, ending: contextlib.ExitStack) -> Path:
    """In memory: an overlay does not lie on an overlay, as the scratch directory may."""
    scratch.mkdir()

    def mount(*arguments: object) -> None:
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
        if done.returncode:
            raise Unable(f"mount {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        ending.callback(subprocess.run, ["umount", "--lazy", str(arguments[-1])], capture_output=True)

    memory, root = scratch / "memory", scratch / "root"
    memory.mkdir()
    root.mkdir()
    mount("-t", "tmpfs", "-o", "size=3g", "tmpfs", memory)
    for name in ("upper", "work"):
        (memory / name).mkdir()
    mount("-t", "overlay", "-o", f"lowerdir=/,upperdir={memory}/upper,workdir={memory}/work", "overlay", root)
    return root


def _groups(name: str, ending: contextlib.ExitStack) -> list[Path]:
    """Control groups of its own in the hierarchies that systemd keeps, gone with it."""
    groups = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        places = {"": ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"], "name=systemd": ["/sys/fs/cgroup/systemd"]}
        for place in places.get(controllers, []):
            parent = Path(place + path)
            if (parent / "cgroup.procs").exists():
                group = parent / name
                try:
                    group.mkdir()
                except OSError as error:
                    raise Unable(f"control groups cannot be made: {error}") from None
                ending.callback(_remove_group, group)
                groups.append(group)
                break
    return groups


def _remove_group(group: Path) -> None:
    until = time.monotonic() + 10
    while group.exists() and time.monotonic() < until:
        for directory, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):  # its last process is about to go
                os.rmdir(directory)
        time.sleep(0.05)


def _end(nspawn: subprocess.Popen[bytes]) -> None:
    """It ends by itself after the poweroff."""
    try:
        nspawn.wait(20)
    except subprocess.TimeoutExpired:
        nspawn.kill()
        nspawn.wait()
