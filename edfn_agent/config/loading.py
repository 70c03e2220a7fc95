"""From a file to a `Config`, or to every fault that the file has.

In: the path of a YAML file and the environment. Out: the configuration and what deserves a warning, or ConfigError with
all faults, each with its line. Never: a value that may be secret in a message. What a fault quotes is what stands in
the file, `${NAME}` and not what it stands for, and of a secret setting not even that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from edfn_agent.config.accounts import Role, role_from_text
from edfn_agent.config.document import Data, Document
from edfn_agent.config.document import Path as KeyPath
from edfn_agent.config.faults import ConfigError, Fault, key_path
from edfn_agent.config.fields import choices, expected, field_at, is_secret, section_at, section_of
from edfn_agent.config.section import Section, nearest
from edfn_agent.config.settings import Config

_LONGEST_QUOTE = 80
_KEY = re.compile(r"[\w.-]+")


def load(path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration in the file at `path`; raises ConfigError."""
    return load_with_warnings(path, environ)[0]


def load_with_warnings(
    path: str | os.PathLike[str], environ: Mapping[str, str] = os.environ
) -> tuple[Config, tuple[Fault, ...]]:
    """Like `load`, and what is allowed but seldom meant."""
    file = os.fspath(path)
    document = Document.read(_text(file), file, environ, _is_log_format)
    faults = list(document.faults)
    folder = Path(os.path.abspath(file)).parent
    config = None
    if document.data is None or isinstance(document.data, dict):
        broken = {fault.key for fault in faults}
        try:
            config = Config.model_validate(_fill_blanks(document.data or {}, Config), context={"folder": folder})
        except ValidationError as error:
            details = error.errors(include_url=False)
            # A variable that is not set, or a key given twice, is one fault, not two.
            found = _once(_explain(document, detail) for detail in details if not _echo(detail))
            faults += [fault for fault in found if fault.key not in broken]
    else:
        faults.append(Fault(file, 1, 1, "", "must be a mapping of keys, like `collectors: [udp://192.0.2.10:4739]`"))
    if config is not None and config.aws.roles_file is not None:
        config, more = _with_roles_file(config, config.aws.roles_file, document)
        faults += more
    if faults or config is None:
        raise ConfigError(faults)
    return config, tuple(document.fault(place, message) for place, message in _doubts(config))


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([Fault(file, None, None, "", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Fault(file, None, None, "", "is not UTF-8 text")]) from None


def _is_log_format(path: KeyPath) -> bool:
    return path[-1:] == ("log_format",)


def _fill_blanks(data: dict[str, Data], section: type[Section]) -> dict[str, Data]:
    """A setting with nothing behind its colon has its default; a section, the defaults of all its settings.

    So a section header may stay where all below it is commented out, as in the example, and `s3:` alone reads S3.
    """
    filled: dict[str, Data] = {}
    for key, value in data.items():
        field = section.model_fields.get(key)
        below = section_of(field) if field is not None else None
        if value is None and field is not None:
            if below is not None and field.annotation in (below, below | None):
                filled[key] = {}
            continue
        if isinstance(value, dict) and below is not None:
            filled[key] = _fill_blanks(value, below)
        elif isinstance(value, list) and below is not None:
            filled[key] = [_fill_blanks(item, below) if isinstance(item, dict) else item for item in value]
        else:
            filled[key] = value
    return filled


# ---- faults ---------------------------------------------------------------------------------------------------------


def _once(faults: Iterator[Fault]) -> list[Fault]:
    """One fault for each key: the branches of a union each complain about the same value."""
    return list({fault.key: fault for fault in reversed(list(faults))}.values())


def _echo(detail: ErrorDetails) -> bool:
    """pydantic counts the good items only: a list whose items are all bad is "too short" as well."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _explain(document: Document, detail: ErrorDetails) -> Fault:
    kind = detail["type"]
    written = document.trim(detail["loc"])
    # The setting that is meant, be it in the file or not; pydantic's own steps look like `<list>` or `[key]`.
    meant = tuple(step for step in detail["loc"] if isinstance(step, int) or _KEY.fullmatch(step))
    if kind == "extra_forbidden":
        return document.fault(written, f"unknown key; {_right_key(written)}", at_key=True)
    if detail["loc"][-1] == "[key]":
        return document.fault(written, f"'{written[-1]}' {detail['ctx']['error']}", at_key=True)
    if kind == "missing":
        field = field_at(meant)
        example = f"; like {field.examples[0]}" if field is not None and field.examples else ""
        return document.fault(written, f"missing{example}", at_key=True, key=key_path(meant))
    # A collector or a stream may be written as one string: then its `url` or `arn` is not what the reader looks for.
    path = meant if document.written(written) is None and field_at(meant) is not None else written
    return document.fault(path, _what_is_wrong(document, path, detail))


def _right_key(path: KeyPath) -> str:
    section = section_at(path[:-1])
    key = str(path[-1])
    if section is None:
        return "this is no section"
    plain = key.lower().replace("-", "_")
    if plain not in section.model_fields and not get_close_matches(plain, section.model_fields, 1, 0.75):
        elsewhere = [place for place in _all_keys(Config, "") if place.rpartition(".")[2] == plain]
        if elsewhere:
            return f"it belongs at {' or '.join(elsewhere)}"
    return nearest(key, section.model_fields)


def _all_keys(section: type[Section], above: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield f"{above}{name}"
        below = section_of(field)
        if below is not None:
            yield from _all_keys(below, f"{above}{name}.")


def _what_is_wrong(document: Document, path: KeyPath, detail: ErrorDetails) -> str:
    kind = detail["type"]
    field = field_at(path)
    context: dict[str, Any] = detail.get("ctx", {})
    if kind == "fault":
        return detail["msg"]
    written = document.written(path)
    quoted = f"'{written}'" if written is not None and _may_be_quoted(path, written) else "this"
    if kind == "value_error":
        return f"{quoted} {context['error']}"
    if kind == "too_short":
        return "must not be empty"
    if field is None:
        return detail["msg"]
    if kind in ("greater_than_equal", "less_than_equal"):
        return f"{quoted} is out of range: {expected(field)}"
    if kind.startswith(("int", "float", "decimal")):
        return f"{quoted} is no whole number: {expected(field)}"
    if kind == "literal_error":
        words = choices(field)
        if "<word>" in detail["loc"]:
            either = f"{quoted} is neither `{words[0]}` nor a list"
            return f"{either}; in brackets, [...], it is a list of one"
        close = get_close_matches(str(detail["input"]).lower(), [word.lower() for word in words], 1, 0.6)
        hint = f"; did you mean {next(word for word in words if word.lower() == close[0])}?" if close else ""
        return f"{quoted} is not among: {expected(field)}{hint}"
    if kind.startswith("bool"):
        return f"{quoted} is neither true nor false"
    if kind in ("tuple_type", "list_type"):
        return "must be a list, like [a, b]"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"must be a mapping of keys: {expected(field)}"
    if kind == "string_type":
        return f"must be text: {expected(field)}"
    return f"{quoted} is not right: {expected(field)}"


def _may_be_quoted(path: KeyPath, written: str) -> bool:
    if path[:2] == ("aws", "roles") or "@" in written or len(written) > _LONGEST_QUOTE:
        return False  # a role as one string holds its external id; before an @ there may be a password
    field = field_at(path)
    return field is not None and not is_secret(field)


# ---- aws.roles_file -------------------------------------------------------------------------------------------------


def _with_roles_file(config: Config, file: Path, document: Document) -> tuple[Config, list[Fault]]:
    """`config` with the roles of `aws.roles_file` behind those of `aws.roles`."""
    try:
        text = _text(str(file))
    except ConfigError as error:
        return config, [
            document.fault(("aws", "roles_file"), f"{fault.file} {fault.message}") for fault in error.faults
        ]
    roles, faults = list(config.aws.roles), []
    known = {role.arn for role in roles}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            role = Role.model_validate(role_from_text(line))
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                column = 1 if detail["loc"] == ("arn",) else line.find(",") + 2
                faults.append(Fault(str(file), number, column, "", f"this {detail['ctx']['error']}"))
            continue
        if role.arn in known:
            faults.append(Fault(str(file), number, 1, "", f"the role {role.arn} is in the list already"))
        known.add(role.arn)
        roles.append(role)
    aws = config.aws.model_copy(update={"roles": tuple(roles)})
    return config.model_copy(update={"aws": aws}), faults


# ---- warnings -------------------------------------------------------------------------------------------------------


def _doubts(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """What is allowed, and seldom what a person means."""
    for number, collector in enumerate(config.collectors):
        if not collector.verify:
            yield (
                ("collectors", number, "verify"),
                "any certificate is trusted, so anyone on the way can pose as the collector",
            )
    if not any(collector.required for collector in config.collectors):
        yield ("collectors",), "none is required, so records are acknowledged even when no collector has taken them"
    if config.ipfix.enterprise_number == 32473:
        yield (
            ("ipfix", "enterprise_number"),
            "32473 is for examples in documents (RFC 5612); register your own",
        )
    if config.ipfix.enterprise_number is not None and config.ipfix.profile == "standard":
        yield ("ipfix", "enterprise_number"), "has no effect: profile standard sends no enterprise elements"
    accounts: dict[str, int] = {}
    for number, role in enumerate(config.aws.roles):
        if accounts.setdefault(role.account_id, number) != number:
            yield ("aws", "roles", number), f"account {role.account_id} has a role before this one, which is used"
    inputs = config.inputs
    if not any((inputs.s3, inputs.cloudwatch_logs, inputs.kinesis, inputs.firehose)):
        yield ("inputs",), "no source is read: name at least one of s3, cloudwatch_logs, kinesis, firehose"
    if inputs.firehose is not None and inputs.firehose.access_key_file is None:
        yield ("inputs", "firehose"), "without access_key_file, whoever reaches the address may send"
    if inputs.kinesis is not None and inputs.kinesis.shutdown_grace >= config.shutdown_timeout:
        yield ("inputs", "kinesis", "shutdown_grace"), "is not shorter than shutdown_timeout, so it is cut short"
