"""This machine: state directory, clock, limits, and what has to be installed.

In: the configuration, what AWS said of the time, what is read. Out: checks. Never: a file of the agent's made or
changed; a directory is tried with a file that is removed at once.
"""

from __future__ import annotations

import os
import pwd
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edfn_agent.inventory.model import Snapshot
from edfn_agent.ops.doctor.checks import ERROR, INFO, OK, UNTRIED, WARNING, Check

MiB = 1 << 20
LITTLE, ENOUGH = 64 * MiB, 1024 * MiB
"""Octets free: what a state grows to (assignments, what was seen, the inventory), and with a full quarantine."""

SKEW, REFUSED = 30.0, 300.0
"""Seconds: where other clocks on the machine's side begin to differ, and from where AWS refuses signatures."""

OLD = 90 * 86400
"""Seconds after which AWS's address ranges have changed noticeably."""


def state(config: Any) -> Iterator[Check]:
    directory = Path(config.state_directory)
    where = str(directory)
    fix = f"install -d -o edfn-agent -g edfn-agent -m 0750 {directory}"
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    user = _user(os.geteuid())
    if not existing.is_dir():
        yield Check(
            "machine.state", ERROR, f"{existing} is no directory", resource=where, next_step="mend state_directory"
        )
        return
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".edfn-agent-doctor-"):
            pass
    except OSError as error:
        step = f"run the doctor as the agent's user, or give {user} the directory"
        text = f"{user} cannot write in {existing}: {error.strerror}"
        yield Check("machine.state", ERROR, text, resource=where, next_step=step, fix=fix)
        return
    if existing != directory:
        yield Check("machine.state", OK, f"it will be made in {existing}", resource=where)
    else:
        yield _files(directory, user, where)
    free = os.statvfs(existing)
    room = free.f_bavail * free.f_frsize
    text = f"{room // MiB} MiB free"
    if room < LITTLE:
        yield Check("machine.space", ERROR, text, resource=where, next_step="make room: cursors cannot be stored")
    elif room < ENOUGH:
        step = "make room: the quarantine keeps up to 1 GiB of what cannot be read"
        yield Check("machine.space", WARNING, text, resource=where, next_step=step)
    else:
        yield Check("machine.space", OK, text, resource=where)


def _files(directory: Path, user: str, where: str) -> Check:
    """The directory can be written; can what lies in it?"""
    for path in sorted(directory.glob("state.sqlite3*")):
        if not os.access(path, os.R_OK | os.W_OK):
            step = "give the agent's user the files, and run commands as that user"
            return Check("machine.state", ERROR, f"{user} cannot read and write {path}", resource=where, next_step=step)
    owner = directory.stat().st_uid
    if owner != os.geteuid():
        text = f"it belongs to {_user(owner)}, and this is {user}: what {user} can do, the agent may not be able to"
        return Check("machine.state", INFO, text, resource=where, next_step="run the doctor as the agent's user")
    return Check("machine.state", OK, f"{user} can write in it", resource=where)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def clock(skew: float | None) -> Check:
    """`skew`: seconds that this machine is ahead of AWS."""
    if skew is None:
        return Check("machine.clock", UNTRIED, "AWS said no time")
    text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} AWS"
    fix = "timedatectl set-ntp true"
    if abs(skew) >= REFUSED:
        step = "set the clock (chrony or systemd-timesyncd): AWS refuses more than 5 minutes"
        return Check("machine.clock", ERROR, text, next_step=step, fix=fix)
    if abs(skew) >= SKEW:
        step = "set the clock (chrony or systemd-timesyncd): collectors file flows by it"
        return Check("machine.clock", WARNING, text, next_step=step, fix=fix)
    return Check("machine.clock", OK, "agrees with AWS within 2 s" if abs(skew) < 2 else text)


def files(config: Any, snapshot: Snapshot) -> Check:
    """A connection for each reader of a queue, group and daemon, besides what any process has open."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 128 + 16 * len(snapshot.queues) + 2 * len(snapshot.log_groups) + 16 * len(snapshot.streams)
    needed += 256 if config.inputs.firehose is not None else 0  # its connections
    text = f"{soft} may be open at a time, about {needed} are needed"
    if soft != resource.RLIM_INFINITY and soft < needed:
        step = "raise the limit (systemd: LimitNOFILE, a shell: ulimit -n); the packaged service has 65536"
        return Check("machine.files", WARNING, text, next_step=step, fix="LimitNOFILE=65536")
    return Check("machine.files", OK, text)


def software(config: Any, snapshot: Snapshot) -> Iterator[Check]:
    from importlib.util import find_spec

    from edfn_agent.formats import COMPILED

    if COMPILED:
        yield Check("machine.scanner", OK, "it is there", resource="edfn_agent.formats._scan")
    else:
        text = "it was not built: flow logs are read by plain Python, many times slower"
        step = "install from a wheel or package, or with a C compiler at hand"
        yield Check("machine.scanner", WARNING, text, resource="edfn_agent.formats._scan", next_step=step)
    parquet = [each for each in snapshot.flow_logs if each.file_format == "parquet"]
    if parquet and config.inputs.s3 is not None:
        if find_spec("pyarrow") is None:
            text = f"{len(parquet)} flow logs are Parquet, and PyArrow is not installed"
            fix = "pip install 'edfn-agent[parquet]'"
            yield Check("machine.parquet", ERROR, text, resource="pyarrow", next_step="install the extra", fix=fix)
        else:
            yield Check("machine.parquet", OK, f"PyArrow is there for {len(parquet)} flow logs", resource="pyarrow")


def ip_ranges(path: Path) -> Check:
    import time

    from edfn_agent.inventory.ip_ranges import IpRangesError, read_ip_ranges

    fix = f"curl -sSfo {path} https://ip-ranges.amazonaws.com/ip-ranges.json"
    try:
        found = read_ip_ranges(path)
        age = time.time() - path.stat().st_mtime
    except (IpRangesError, OSError) as error:
        text, _, step = str(error).rpartition(": ")
        return Check("machine.ip-ranges", WARNING, text or step, resource=str(path), next_step=step, fix=fix)
    text = f"{len(found)} ranges, {age / 86400:.0f} days old"
    if age > OLD:
        return Check("machine.ip-ranges", INFO, text, resource=str(path), next_step="fetch it again", fix=fix)
    return Check("machine.ip-ranges", OK, text, resource=str(path))
