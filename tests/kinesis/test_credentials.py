"""The endpoint that gives a daemon its keys, as Java asks it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from edfn_agent.inputs.kinesis.credentials import CredentialServer
from edfn_agent.inputs.kinesis.stream import Keys

ROLE = Keys("ASIAX", "secret", "token", datetime(2026, 1, 15, 11, 0, tzinfo=UTC))


@pytest.fixture
def server() -> Iterator[CredentialServer]:
    server = CredentialServer()
    server.start()
    yield server
    server.stop()


def ask(url: str, token: str) -> dict[str, str]:
    request = urllib.request.Request(url, headers={"Authorization": token})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return dict(json.load(answer))


def status(url: str, token: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(url, token)
    refused.value.close()
    return refused.value.code


def where(environment: dict[str, str]) -> tuple[str, str]:
    return environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"], environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"]


def test_the_keys_of_a_role(server: CredentialServer) -> None:
    url, token = where(server.offer("flow-logs", lambda: ROLE))
    assert url.startswith("http://127.0.0.1:")
    assert ask(url, token) == {
        "AccessKeyId": "ASIAX",
        "SecretAccessKey": "secret",
        "Token": "token",
        "Expiration": "2026-01-15T11:00:00Z",
    }


def test_keys_without_an_end_are_asked_for_again_within_the_hour(server: CredentialServer) -> None:
    answer = ask(*where(server.offer("flow-logs", lambda: Keys("AKIAX", "secret", None, None))))
    assert "Token" not in answer
    left = datetime.fromisoformat(answer["Expiration"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


def test_nobody_else_gets_them(server: CredentialServer) -> None:
    url, token = where(server.offer("flow-logs", lambda: ROLE))
    other_url, other_token = where(server.offer("other", lambda: ROLE))
    assert [status(url, ""), status(url, token + "x"), status(url, other_token)] == [403] * 3
    assert status(url.rpartition("/")[0] + "/guess", token) == 403
    server.withdraw("flow-logs")
    assert status(url, token) == 403
    assert ask(other_url, other_token)["AccessKeyId"] == "ASIAX"


def test_a_new_offer_ends_the_one_before(server: CredentialServer) -> None:
    url, token = where(server.offer("flow-logs", lambda: ROLE))
    server.offer("flow-logs", lambda: ROLE)
    assert status(url, token) == 403


def test_dead_credentials_are_said_once_and_hold_no_secret(
    server: CredentialServer, caplog: pytest.LogCaptureFixture
) -> None:
    def dead() -> Keys:
        raise RuntimeError("AssumeRole: AccessDenied")

    url, token = where(server.offer("flow-logs", dead))
    assert [status(url, token), status(url, token)] == [500, 500]
    assert [record.getMessage() for record in caplog.records] == [
        "kinesis flow-logs: no credentials: AssumeRole: AccessDenied"
    ]
