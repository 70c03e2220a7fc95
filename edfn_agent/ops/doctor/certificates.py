"""How long a certificate lasts.

In: a PEM file, or a certificate in DER. Out: the end of its validity, a check. Never: trust; whether others accept it,
the connection itself shows.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edfn_agent.ops.doctor.checks import ERROR, OK, WARNING, Check

SOON = timedelta(days=21)


def lasting(id: str, file: Path) -> Check:
    """The first certificate of a PEM file."""
    try:
        text = file.read_text("ascii", "replace")
        first = text[text.index("-----BEGIN CERTIFICATE-----") :].partition("-----END CERTIFICATE-----")
        return verdict(id, str(file), not_after(ssl.PEM_cert_to_DER_cert(first[0] + first[1])))
    except (OSError, ValueError) as error:
        return Check(id, ERROR, f"it cannot be read: {error}", resource=str(file), next_step="give a PEM file")


def verdict(id: str, resource: str, end: datetime) -> Check:
    left = end - datetime.now(UTC)
    text = f"valid until {end:%Y-%m-%d}"
    if left < timedelta(0):
        return Check(id, ERROR, f"it ended on {end:%Y-%m-%d}", resource=resource, next_step="renew it")
    if left < SOON:
        return Check(id, WARNING, f"{text}, {left.days} days from now", resource=resource, next_step="renew it")
    return Check(id, OK, text, resource=resource)


def not_after(der: bytes) -> datetime:
    """RFC 5280, 4.1: Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version, serial, signature, issuer,
    validity SEQUENCE { notBefore, notAfter }, ... } }. Raises ValueError."""
    try:
        _, body, _ = _element(der, 0)  # Certificate
        _, body, _ = _element(der, body)  # tbsCertificate
        tag, _, after = _element(der, body)
        if tag == 0xA0:  # version
            _, _, after = _element(der, after)
        for _ in range(2):  # signature, issuer
            _, _, after = _element(der, after)
        _, body, _ = _element(der, after)  # validity
        _, _, after = _element(der, body)  # notBefore
        tag, body, after = _element(der, after)
        text = der[body:after].decode("ascii")
    except IndexError:
        raise ValueError("no certificate") from None
    # UTCTime has two digits of the year, 50 to 99 are of the last century (RFC 5280, 4.1.2.5.1).
    century = "" if tag == 0x18 else "19" if text[:2] >= "50" else "20"
    return datetime.strptime(century + text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """(tag, where its content begins, where it ends)"""
    tag, length, begin = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[begin : begin + size], "big")
        begin += size
    return tag, begin, begin + length
