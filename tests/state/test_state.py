"""What the state promises: numbers are for ever, writes are whole, trouble has a name and passes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from ipaddress import IPv4Address as IP
from pathlib import Path

import pytest

from edfn_agent.state import AssignmentConflict, State, StateError
from edfn_agent.state.assignments import DOMAIN_NUMBERS, first_number
from edfn_agent.state.progress import Seen
from edfn_agent.state.quarantine import Quarantine


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


def test_the_directory_and_the_file_are_for_the_owner_only(tmp_path: Path) -> None:
    with State(tmp_path / "state") as state:
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
        assert state.path.stat().st_mode & 0o777 == 0o600


class TestAssignments:
    def test_an_address_is_kept_over_a_restart(self, tmp_path: Path) -> None:
        with State(tmp_path) as state:
            given = state.assignments.set("vpc-1", IP("10.0.0.1"), "router")
        with State(tmp_path) as state:
            assert state.assignments.list() == [given]
            assert state.assignments.get("vpc-1") == given
            assert state.assignments.get("vpc-2") is None

    def test_a_number_is_never_given_to_a_second_vpc(self, state: State) -> None:
        number = state.assignments.set("vpc-1", IP("10.0.0.1"), "router").domain
        assert state.assignments.release("vpc-1")
        assert not state.assignments.release("vpc-1")
        twin = "vpc-193bd"  # its id gives the same number
        assert first_number(twin) == number
        assert state.assignments.set(twin, IP("10.0.0.1"), "stored").domain == number % DOMAIN_NUMBERS + 1
        assert state.assignments.set("vpc-1", IP("10.0.0.2"), "stored").domain == number

    def test_a_number_is_the_same_in_every_installation(self, state: State) -> None:
        assert state.assignments.set("vpc-0a1b2c3d4e5f60718", None, "").domain == 4759958

    def test_one_address_has_one_holder(self, state: State) -> None:
        state.assignments.set("vpc-1", IP("10.0.0.1"), "router")
        with pytest.raises(AssignmentConflict, match=r"10\.0\.0\.1 is the exporter address of vpc-1; vpc-2 needs"):
            state.assignments.set("vpc-2", IP("10.0.0.1"), "stored")
        assert state.assignments.get("vpc-2") is None

    def test_two_vpcs_can_swap_addresses_in_one_change(self, state: State) -> None:
        state.assignments.set("vpc-1", IP("10.0.0.1"), "router")
        state.assignments.set("vpc-2", IP("10.0.0.2"), "router")
        state.assignments.change(lambda _: {"vpc-1": (IP("10.0.0.2"), "stored"), "vpc-2": (IP("10.0.0.1"), "stored")})
        assert {each.key: str(each.address) for each in state.assignments.list()} == {
            "vpc-1": "10.0.0.2",
            "vpc-2": "10.0.0.1",
        }

    def test_the_generation_tells_a_running_agent_of_a_change_made_by_a_command(self, tmp_path: Path) -> None:
        with State(tmp_path) as agent, State(tmp_path) as command:
            before = agent.assignments.generation
            command.assignments.set("vpc-1", IP("10.0.0.1"), "stored")
            assert agent.assignments.generation != before

    def test_a_change_that_changes_nothing_keeps_the_generation(self, state: State) -> None:
        state.assignments.set("vpc-1", IP("10.0.0.1"), "stored")
        before = state.assignments.generation
        state.assignments.set("vpc-1", IP("10.0.0.1"), "stored")
        assert state.assignments.generation == before

    def test_a_decision_that_fails_leaves_everything_as_it_was(self, state: State) -> None:
        def decide(_: object) -> dict[str, tuple[IP | None, str]]:
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            state.assignments.change(decide)
        assert state.assignments.set("vpc-1", IP("10.0.0.1"), "router").address == IP("10.0.0.1")


class TestInterfaces:
    def test_numbers_are_stable_and_names_follow(self, tmp_path: Path) -> None:
        with State(tmp_path) as state:
            assert state.interfaces.allocate({"eni-1": "web", "eni-2": "db"}) == {"eni-1": 1, "eni-2": 2}
        with State(tmp_path) as state:
            assert state.interfaces.allocate({"eni-3": "new", "eni-2": "database"}) == {"eni-3": 3, "eni-2": 2}
            assert state.interfaces.all() == {"eni-1": (1, "web"), "eni-2": (2, "database"), "eni-3": (3, "new")}

    def test_two_processes_never_give_one_number_twice(self, tmp_path: Path) -> None:
        program = (
            "import sys; from edfn_agent.state import State\n"
            "state = State(sys.argv[1])\n"
            "for n in range(40): state.interfaces.allocate({f'{sys.argv[2]}-{n}-{i}': 'x' for i in range(5)})\n"
        )
        children = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "abc"]
        assert [child.wait(60) for child in children] == [0, 0, 0]
        numbers = sorted(number for number, _ in State(tmp_path).interfaces.all().values())
        assert numbers == list(range(1, 601))


def test_the_last_snapshot_comes_back_with_its_time(tmp_path: Path) -> None:
    with State(tmp_path) as state:
        assert state.snapshot.load() is None
        assert state.snapshot.time() is None
        state.snapshot.save({"vpcs": [1]}, 10.0)
        state.snapshot.save({"vpcs": [1, 2]}, 20.0)
    with State(tmp_path) as state:
        stored = state.snapshot.load()
        assert stored is not None
        assert (stored.at, stored.data) == (20.0, {"vpcs": [1, 2]})
        assert state.snapshot.time() == 20.0


def test_cursors(state: State) -> None:
    assert state.cursors.get("cloudwatch_logs", "g") is None
    state.cursors.set("cloudwatch_logs", "g", {"time": 5, "ids": ["a"]})
    state.cursors.set_many("cloudwatch_logs", {"g": {"time": 6}, "h": 7})
    assert state.cursors.get("cloudwatch_logs", "g") == {"time": 6}
    assert state.cursors.list("cloudwatch_logs") == {"g": {"time": 6}, "h": 7}
    state.cursors.delete("cloudwatch_logs", "g")
    assert state.cursors.list("cloudwatch_logs") == {"h": 7}
    assert state.cursors.list("s3") == {}


class TestSeen:
    def test_a_second_announcement_within_the_window_is_known_even_after_a_restart(self, tmp_path: Path) -> None:
        with State(tmp_path) as state:
            assert state.seen.add("s3", "bucket/key", now=100, window=60)
        with State(tmp_path) as state:
            assert state.seen.contains("s3", "bucket/key", now=160, window=60)
            assert not state.seen.contains("s3", "bucket/key", now=161, window=60)
            assert not state.seen.contains("firehose", "bucket/key", now=100, window=60)
            assert not state.seen.add("s3", "bucket/key", now=160, window=60)
            assert state.seen.add("s3", "bucket/key", now=300, window=60)

    def test_many_at_once(self, state: State) -> None:
        state.seen.add("s3", "b", now=1, window=60)
        assert state.seen.add_many("s3", ["a", "b", "a", "c"], now=2, window=60) == {"a", "c"}
        assert state.seen.count("s3") == 3

    def test_what_is_remembered_is_bounded_by_time_and_by_count(self, state: State) -> None:
        seen = Seen(state._database, limit=200)
        for n in range(1000):
            seen.add("s3", str(n), now=n, window=10_000)
        assert 200 <= seen.count("s3") <= 202
        assert seen.contains("s3", "999", now=1000, window=10_000)
        assert not seen.contains("s3", "500", now=1000, window=10_000)
        for n in range(5):
            seen.add("s3", f"late-{n}", now=50_000, window=10_000)
        assert seen.count("s3") == 5


class TestQuarantine:
    def test_an_entry_keeps_its_payload_reason_and_place(self, state: State) -> None:
        first = state.quarantine.add(
            "kinesis", "stream", "shard-0:17", "no flow log", 5.0, b"\x00rubbish", {"shard": 0}
        )
        second = state.quarantine.add("s3", "queue", "s3://b/k", "not gzip", 6.0)
        assert [(each.id, each.name, each.payload) for each in state.quarantine.list()] == [
            (first, "shard-0:17", None),
            (second, "s3://b/k", None),
        ]
        entry = state.quarantine.get(first)
        assert entry is not None
        assert (entry.payload, entry.size, entry.complete, entry.detail) == (b"\x00rubbish", 8, True, {"shard": 0})
        assert state.quarantine.count() == 2
        assert state.quarantine.remove(first)
        assert not state.quarantine.remove(first)
        assert state.quarantine.get(first) is None

    def test_a_payload_that_is_too_long_is_cut_and_says_so(self, state: State) -> None:
        quarantine = Quarantine(state._database, payload_limit=4)
        entry = quarantine.get(quarantine.add("kinesis", "s", "n", "r", 0.0, b"123456"))
        assert entry is not None
        assert (entry.payload, entry.size, entry.complete) == (b"1234", 6, False)

    def test_a_full_quarantine_refuses_instead_of_forgetting(self, state: State) -> None:
        quarantine = Quarantine(state._database, limit=10)
        quarantine.add("kinesis", "s", "n", "r", 0.0, b"12345678")
        with pytest.raises(StateError, match="quarantine list"):
            quarantine.add("kinesis", "s", "n", "r", 0.0, b"123")
        assert quarantine.count() == 1


def test_traffic_adds_up(state: State) -> None:
    state.traffic.add({"vpc-1": (10, 100.0), "vpc-2": (1, 50.0)})
    state.traffic.add({"vpc-1": (5, 90.0)})
    assert state.traffic.all() == {"vpc-1": (15, 100.0), "vpc-2": (1, 50.0)}


def test_many_threads(state: State) -> None:
    def work(name: int) -> None:
        for n in range(50):
            state.cursors.set("x", f"{name}-{n}", n)
            state.seen.add("x", f"{name}-{n}", n, 1000)
            state.traffic.add({"vpc": (1, float(n))})

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(state.cursors.list("x")) == 400
    assert state.traffic.all() == {"vpc": (400, 49.0)}


class TestTrouble:
    def test_a_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StateError, match="state_directory"):
            State(tmp_path / "file" / "state")

    def test_a_disk_that_is_full_for_a_while(self, state: State) -> None:
        state.cursors.set("s3", "before", 1)
        db = state._database._opened()
        db.execute("PRAGMA max_page_count = 1")  # SQLite's own way to be out of space
        with pytest.raises(StateError, match="Make room"):
            state.cursors.set("s3", "big", "x" * 100_000)
        assert state.cursors.list("s3") == {"before": 1}
        state.cursors.set("s3", "after", "x" * 100_000)
        assert set(state.cursors.list("s3")) == {"before", "after"}

    def test_a_state_that_is_read_only_for_a_while(self, state: State) -> None:
        state.assignments.set("vpc-1", IP("10.0.0.1"), "router")
        state._database._opened().execute("PRAGMA query_only = ON")
        with pytest.raises(StateError, match="agent's user"):
            state.assignments.set("vpc-2", IP("10.0.0.2"), "router")
        state.assignments.set("vpc-2", IP("10.0.0.2"), "router")
        assert len(state.assignments.list()) == 2

    def test_a_directory_that_is_taken_away_under_a_running_agent(self, tmp_path: Path) -> None:
        state = State(tmp_path / "state")
        state.cursors.set("s3", "k", 1)
        for file in (tmp_path / "state").iterdir():
            file.unlink()
        (tmp_path / "state").rmdir()
        assert state.cursors.get("s3", "k") is None
        state.cursors.set("s3", "k", 2)
        with State(tmp_path / "state") as other:
            assert other.cursors.get("s3", "k") == 2

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        (tmp_path / "state.sqlite3").write_bytes(b"nothing like a database" * 100)
        with pytest.raises(StateError, match="move it away"):
            State(tmp_path)

    def test_a_state_of_a_newer_version_is_left_alone(self, tmp_path: Path) -> None:
        State(tmp_path).close()
        with sqlite3.connect(tmp_path / "state.sqlite3") as db:
            db.execute("PRAGMA user_version = 99")
        with pytest.raises(StateError, match="format 99"):
            State(tmp_path)

    def test_another_process_that_never_lets_go(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edfn_agent.state.database.BUSY_TIMEOUT", 0.05)
        with State(tmp_path) as state:
            other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StateError, match="Another process"):
                state.cursors.set("s3", "k", 1)
            other.execute("ROLLBACK")
            state.cursors.set("s3", "k", 1)
