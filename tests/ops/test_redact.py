"""Secrets are not seen, whichever way they come; what is no secret stays."""

from __future__ import annotations

import logging
import time

import pytest
import structlog

from edfn_agent.ops.redact import Redaction

log = structlog.get_logger("edfn")
KEY_ID = "AKIA" + "IOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "IQoJb3JpZ2luX2VjEPT" + "a0B1/" * 30 + "=="


@pytest.mark.parametrize(
    "text",
    [
        f"aws_secret_access_key = {SECRET}",
        f'{{"SecretAccessKey": "{SECRET}", "x": 1}}',
        f"{{'ExternalId': '{SECRET}'}}",
        f"external_id={SECRET} next",
        f"External-Id: {SECRET}",
        f"GET /?X-Amz-Security-Token={SECRET}&X=1",
        f"https://b.s3.amazonaws.com/k?X-Amz-Credential=a&X-Amz-Signature={SECRET}",
        f"Authorization: AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101, Signature={SECRET}",
        f"b'authorization': b'{SECRET}'",
        f"X-Amz-Firehose-Access-Key: {SECRET}",
        f"sessionToken={TOKEN}",
        f"password={SECRET}",
        f"proxy http://user:{SECRET.replace('/', '-')}@proxy:3128/ refused",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n",
    ],
)
def test_labelled_secrets(text):
    shown = Redaction().text(text)
    assert SECRET not in shown
    assert SECRET.replace("/", "-") not in shown
    assert TOKEN not in shown
    assert "***" in shown


@pytest.mark.parametrize("text", [KEY_ID, TOKEN, f"the key {KEY_ID} is dead"])
def test_what_looks_like_a_credential(text):
    assert KEY_ID not in Redaction().text(text)
    assert TOKEN not in Redaction().text(text)


@pytest.mark.parametrize("name", ["external_id", "access_key", "ExternalId", "secret", "token", "Authorization"])
def test_by_the_name_of_the_fact(name):
    assert Redaction()({name: "42", "deep": {"list": [{name: "42"}]}}) == {
        name: "***",
        "deep": {"list": [{name: "***"}]},
    }


def test_secrets_that_look_like_nothing_are_told():
    redaction = Redaction()
    redaction.hide("acme-staging", None, "", "42")
    assert redaction.text("role of acme-staging, 42 objects") == "role of ***, 42 objects"


@pytest.mark.parametrize(
    "text",
    [
        "an error occurred (ExpiredToken) when calling ReceiveMessage: the security token included is expired",
        "arn:aws:iam::111111111111:role/EdfnAgent may not sts:AssumeRole; the external id may be wrong",
        "credentials_file=/etc/edfn-agent/credentials access_key_file=/etc/edfn-agent/key",
        "s3://b/AWSLogs/111111111111/vpcflowlogs/us-east-1/2026/01/01/x.log.gz",
        "udp://10.0.0.1:4739: connection refused",
        "sha1 da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ],
)
def test_what_is_no_secret_stays(text):
    assert Redaction().text(text) == text


def test_facts_that_are_no_secret_stay():
    facts = {"credentials_file": "/etc/x", "tokens_count": "3", "port": 4739, "ok": True, "none": None}
    assert Redaction()(facts) == facts


def test_whatever_way_it_is_logged(written):
    out = written(secrets=["acme-staging"])
    log.info("role acme-staging", external_id="42", error=ValueError(f"aws_secret_access_key={SECRET}"))
    logging.getLogger("botocore").warning("sent %s", {"Authorization": SECRET})
    try:
        raise RuntimeError(f"token={SECRET}")
    except RuntimeError:
        log.exception("failed acme-staging")
    text = "\n".join(out.lines())
    assert text.count("\n") == 2
    assert SECRET not in text
    assert "acme" not in text
    assert "42" not in text


@pytest.mark.parametrize("text", ["token" * 200_000, ".token-" * 100_000, "a.b_" * 200_000, "authorization" * 50_000])
def test_a_long_hostile_text_takes_little_time(text):
    before = time.process_time()
    Redaction().text(text + "=" + '"' * 1000)
    assert time.process_time() - before < 1.0
