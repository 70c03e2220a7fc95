"""Keeps secrets out of the log.

In: one entry of the log, a mapping. Out: the same with external ids, keys, tokens and signed parts of URLs as `***`.
Never: a guess at what an unlabelled word is; what is secret without looking so (an external id, the access key of
Firehose) is told to `Redaction.hide` by whoever read the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
SHORTEST_SECRET = 6
"""Shorter ones are hidden by the name of their fact only: `42` stands in every other line."""

LONGEST_TEXT = 20_000
"""Characters that are looked through; the rest goes unseen. Far more than `log_lines` shows, so no half of a secret
that was cut here is ever shown."""

DEEPEST = 6  # of lists and mappings in a fact; deeper ones are taken as text

_NAMES = (
    r"secret|passw(?:or)?d|authori[sz]ation|token|external_?-?id|access_?-?key|private_?-?key|credentials?$|cookie"
    r"|signature"
)
_NAME = re.compile(_NAMES, re.I)
_HARMLESS = re.compile(r"(?:_file|_path|_directory|_count|_s)$", re.I)

_LABELLED = re.compile(  # external_id=..., "SecretAccessKey": "...", X-Amz-Security-Token=..., --token ...
    r"""(?P<name>(?<![A-Za-z0-9])[\w.-]{0,40}?(?:secret|passw(?:or)?d|token|external_?-?id|access_?-?key|private_?-?key|signature|x-amz-credential)
        (?!_file|_path)[\w-]{0,40})
        (?P<mark>["']?\s*(?:=>|[:=])\s*)
        (?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s"',;&<>(){}\[\]]+)""",
    re.I | re.X,
)
_HEADER = re.compile(r"""(authorization["']?\s*[:=]\s*)(?:"[^"]*"|'[^']*'|[^\r\n]*)""", re.I)
_PLAIN = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"  # access key ids
    r"|\b(?:IQoJ|FwoG|FQoG)[A-Za-z0-9+/=_-]{40,}"  # session tokens of AWS
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"  # user:password@ of a proxy's URL
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.S,
)


class Redaction:
    """Called with each entry before it is written."""

    def __init__(self) -> None:
        self._known: re.Pattern[str] | None = None
        self._secrets: set[str] = set()

    def hide(self, *secrets: str | None) -> None:
        """These words are not to be seen from now on, wherever they stand."""
        self._secrets.update(secret for secret in secrets if secret and len(secret) >= SHORTEST_SECRET)
        if self._secrets:
            longest_first = sorted(self._secrets, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, longest_first)))

    def __call__(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._fact(name, value, DEEPEST) for name, value in entry.items()}

    def text(self, text: str) -> str:
        if len(text) > LONGEST_TEXT:
            text = f"{text[:LONGEST_TEXT]}... ({len(text)} characters)"
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        text = _HEADER.sub(rf"\1{HIDDEN}", text)
        text = _LABELLED.sub(_hide_value, text)
        return _PLAIN.sub(HIDDEN, text)

    def _fact(self, name: object, value: Any, deep: int) -> Any:
        if value is None or isinstance(value, bool | int | float):
            return value  # a port or a count; and no number is a secret here
        if isinstance(name, str) and _NAME.search(name) and not _HARMLESS.search(name):
            return HIDDEN
        if deep and isinstance(value, Mapping):
            return {self._key(key): self._fact(key, each, deep - 1) for key, each in value.items()}
        if deep and isinstance(value, list | tuple | set | frozenset):
            return [self._fact(None, each, deep - 1) for each in value]
        return self.text(value if isinstance(value, str) else str(value))

    def _key(self, key: object) -> str:
        return self.text(str(key))


def _hide_value(match: re.Match[str]) -> str:
    return f"{match['name']}{match['mark']}{HIDDEN}"
