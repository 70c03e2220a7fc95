"""The state directory: read by commands, read-only, full. The agent survives, and nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.disk import Disk, NoDisk
from tests.service.service import Service, until

Install = Callable[..., Service]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    try:
        made = Disk(tmp_path)
    except NoDisk as error:
        pytest.skip(str(error))
    yield made
    made.close()


def test_commands_beside_it_take_nothing_away(cloud: Cloud, collector: Collector, install: Install) -> None:
    """Each command opens the state and closes it; what the agent writes afterwards survives kill -9."""
    service = install(collector).start()
    cloud.write(400, per_delivery=100)
    until(lambda: not cloud.in_hand(service.state), service.tail)
    for words in (("quarantine", "list"), ("exporters",)):
        done = service.run(*words)
        assert done.returncode == 0, done.stderr
    cloud.write(400, per_delivery=100)
    until(lambda: collector.unique == cloud.written and cloud.queued() == 0, service.tail)
    until(lambda: not cloud.in_hand(service.state), "what was sent is not in the state")
    service.kill()
    assert not cloud.in_hand(service.state)


@pytest.mark.parametrize("trouble", ["full", "read_only", "broken"])
def test_for_a_while(trouble: str, cloud: Cloud, collector: Collector, install: Install, disk: Disk) -> None:
    """Health says it; flows go on; what only the state could keep goes back to its source; and then all is well."""
    service = install(collector)
    shutil.rmtree(disk.path, ignore_errors=True)
    shutil.copytree(service.state, disk.path)
    service.configure(state_directory=str(disk.path))
    service.start()
    cloud.write(400, per_delivery=100)
    until(lambda: collector.unique == cloud.written, service.tail)
    with getattr(disk, trouble)():
        cloud.write(4000, per_delivery=100)
        until(lambda: collector.unique == cloud.written and cloud.queued() == 0, service.tail)
        until(lambda: service.metric("edfn_state_errors_total") > 0, service.tail)
        cloud.put_body(cloud.shop, "AWSLogs/picture.log.gz", b"\x89PNG\r\n\x1a\n" + bytes(5000))
        until(lambda: service.metric("edfn_deliveries_total", "s3", "returned") >= 1, service.tail)
        until(lambda: f"the state in {disk.path}" in str(service.ready()["reasons"]), service.ready)
        assert service.ready()["ready"]
        assert service.get("/healthz")[0] == 200
        assert cloud.queued() == 1, "what cannot be recorded must not go"
    until(lambda: not service.ready()["reasons"], service.ready)
    cloud.show_again(cloud.shop)
    until(lambda: service.metric("edfn_quarantined") == 1, service.tail)
    cloud.write(400, per_delivery=100)
    until(lambda: collector.unique == cloud.written and cloud.queued() == 0, service.tail)
    until(lambda: not cloud.in_hand(service.state), "what was sent is not noted after the trouble")
    assert "Traceback" not in service.log
    assert service.stop() == 0
    service.start()
    cloud.write(100, per_delivery=100)
    until(lambda: collector.unique == cloud.written, service.tail)
    assert collector.repeated() == {}
