"""A plan as aws commands in order: a script that a person can read, take apart and run.

In: a Plan. Out: text for bash. Every value is quoted for the shell; the access key is never in it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

from edfn_agent.setup.calls import Call, Merge, Pause, Step, Tag, Wait, make
from edfn_agent.setup.model import ACCESS_KEY, PLACEHOLDER, Place, Plan

_SERVICES = {"s3": "s3api"}


def script(plan: Plan, profiles: Mapping[str, str] | None = None) -> str:
    """The whole plan. `profiles`: the profile of the AWS configuration to use for an account."""
    profiles = profiles or {}
    accounts = {resource.place.account for resource in plan.resources}
    lines = ["#!/usr/bin/env bash", f"# Flow logs for edfn-agent: {plan.path} ({plan.name})"]
    if len(accounts) > 1 and not accounts <= profiles.keys():
        lines.append(
            "# Made with --profile ACCOUNT=NAME for each account, one run does it all; else run it part by part."
        )
    lines.append("set -euo pipefail")
    if ACCESS_KEY in repr(plan_steps(plan)):
        lines.append('FIREHOSE_ACCESS_KEY=$(cat "${ACCESS_KEY_FILE:?name the file that holds the access key}")')
    for (_, place), resources in plan.stacks().items():
        who = profiles.get(place.account)
        hint = f"profile {who}" if who else "with credentials of this account"
        lines += ["", f"# --- account {place.account}, {place.region} ({hint})"]
        if not who and len(accounts) > 1:
            lines.append(_right_account(place))
        pause: Pause | None = None
        for resource in resources:
            for step in make(resource, Tag(plan.tag)):
                if isinstance(step, Pause):  # one for all roles of a stack, when something first needs them
                    pause = step
                    continue
                if pause and not (isinstance(step, Call) and step.service == "iam"):
                    lines.append(f"sleep {pause.seconds}  # {pause.why}")
                    pause = None
                lines += render(step, place, who)
        if pause:  # what comes next may name these roles
            lines.append(f"sleep {pause.seconds}  # {pause.why}")
    return "\n".join(lines) + "\n"


def plan_steps(plan: Plan) -> list[Step]:
    return [step for resource in plan.resources for step in make(resource, Tag(plan.tag))]


def _right_account(place: Place) -> str:
    """Several accounts in one script: each part asks whose credentials these are before it does anything."""
    return (
        f'[ "$(aws sts get-caller-identity --query Account --output text)" = {place.account} ] '
        f"|| {{ echo 'these are not credentials of account {place.account}' >&2; exit 1; }}"
    )


def render(step: Step, place: Place, profile: str | None = None) -> list[str]:
    """One step as lines of bash."""
    if isinstance(step, Merge):
        return _merge(step, place, profile)
    if isinstance(step, Wait):
        looked = f"{_command(step.call, place, profile)} --query {'.'.join(step.path)} --output text"
        return [f'until [ "$({looked})" = {step.value} ]; do sleep 5; done']
    if isinstance(step, Pause):
        return [f"sleep {step.seconds}  # {step.why}"]
    if ACCESS_KEY in repr(step.parameters):
        return _through_file(step, place, profile)
    command = _command(step, place, profile)
    if step.saves:
        name, path = step.saves
        return [f"{_variable(name)}=$({command} --query {path} --output text)"]
    return [command]


def _command(call: Call, place: Place, profile: str | None) -> str:
    from botocore import xform_name

    words = ["aws", _SERVICES.get(call.service, call.service), xform_name(call.operation, "-")]
    for name, value in call.parameters.items():
        option = f"--{xform_name(name, '-')}"
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            words += [option, *(_quote(item) for item in value)]
        else:
            written = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            # An empty value needs its equals sign, and so does one that begins with a dash.
            words += [f"{option}="] if written == "" else [option, _quote(str(written))]
    words += ["--region", place.region]
    if profile:
        words += ["--profile", _quote(profile)]
    return _wrap(words)


def _wrap(words: list[str]) -> str:
    """Long commands over several lines, one option each."""
    if sum(len(word) + 1 for word in words) <= 118:
        return " ".join(words)
    lines = [" ".join(words[:3])]
    for word in words[3:]:
        if word.startswith("--"):
            lines.append("    " + word)
        else:
            lines[-1] += " " + word
    return " \\\n".join(lines)


def _quote(text: str) -> str:
    """For the shell, with the placeholders as variables that are expanded."""
    quoted = shlex.quote(text)
    return (
        PLACEHOLDER.sub(lambda match: f"'\"${_variable(match[0][2:-1])}\"'", quoted)
        .removeprefix("''")
        .removesuffix("''")
    )


def _variable(name: str) -> str:
    """Key.Arn -> KEY_ARN"""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|\.", "_", name).upper()


def _through_file(call: Call, place: Place, profile: str | None) -> list[str]:
    """What is secret must not be an argument: those are shown to everyone on the machine."""
    document = json.dumps(call.parameters, indent=2).replace(ACCESS_KEY, "${FIREHOSE_ACCESS_KEY}")
    document = re.sub(PLACEHOLDER, lambda match: "${" + _variable(match[0][2:-1]) + "}", document)
    bare = Call(call.service, call.operation, {})
    return [
        "input=$(umask 077; mktemp); trap 'rm -f \"$input\"' EXIT",
        'cat > "$input" <<END',
        document,
        "END",
        f'{_command(bare, place, profile)} --cli-input-json "file://$input"',
    ]


def _merge(step: Merge, place: Place, profile: str | None) -> list[str]:
    entries = json.dumps(list(step.entries), separators=(",", ":"))
    option = "--" + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", step.document).lower()
    write = _command(step.write, place, profile)
    if step.ours:
        content: dict[str, Any] = {step.entries_in: list(step.entries)}
        if step.as_text:
            content = {"Version": "2012-10-17", **content}
        return [f"{write} \\\n    {option} {_quote(json.dumps(content, separators=(',', ':')))}"]
    read = _command(step.read, place, profile)
    empty = '{"Version":"2012-10-17","Statement":[]}' if step.as_text else "{}"
    look = f"{read} --query {step.document} --output text" if step.as_text else f"{read} --output json"
    # Only 'there is none' is taken for empty: anything else (no permission) must not overwrite what others wrote.
    fault = f"""case $current in *NoSuchBucketPolicy*) current='{empty}' ;; *) echo "$current" >&2; exit 1 ;; esac"""
    others = f"[.{step.entries_in}[]? | select(.{step.named_by} as $name | $new | all(.{step.named_by} != $name))]"
    change = f"jq -c --argjson new {shlex.quote(entries)} '.{step.entries_in} = ({others} + $new)'"
    return [
        "# What is there stays; entries of ours are put in by name.",
        f"current=$({look} 2>&1) || {fault}",
        f'current=$({change} <<< "${{current:-{{\\}}}}")',
        f'{write} {option} "$current"',
    ]
