"""Nothing that may be a secret is ever in a text: not in repr, dumps, faults, or the traceback of a fault."""

from __future__ import annotations

import pickle
import traceback

import pytest

from edfn_agent.config import ConfigError, load

SECRET = "Tr0ub4dor"
ARN = "arn:aws:iam::999999999999:role/A"


@pytest.mark.parametrize("role", [f"{{arn: {ARN}, external_id: '${{ID}}'}}", f"'{ARN},{SECRET}'"])
def test_a_configuration_does_not_show_its_secrets(loaded, role):
    config = loaded(f"collectors: [udp://h]\naws: {{roles: [{role}]}}", ID=SECRET)
    assert config.aws.roles[0].external_id.get_secret_value() == SECRET
    for text in (str(config), repr(config), config.model_dump_json(), str(config.model_dump()), str(config.aws.roles)):
        assert SECRET not in text
    assert pickle.loads(pickle.dumps(config)) == config  # on its way to a worker it keeps them


@pytest.mark.parametrize(
    "text",
    [
        f"aws: {{roles: [{{arn: {ARN}, external_id: '{SECRET} with spaces'}}]}}",
        f"aws: {{roles: [{{arn: {ARN}, external_id: ['{SECRET}']}}]}}",
        f"aws: {{roles: [{{arn: {ARN}, external_id: {{a: '{SECRET}'}}}}]}}",
        f"aws: {{roles: [{{arn: {ARN}, external_di: '{SECRET}'}}]}}",
        f"aws: {{roles: [{{arn: '{ARN},{SECRET}'}}]}}",
        f"aws: {{roles: ['{SECRET}']}}",
        f"aws: {{roles: [['{SECRET}']]}}",
        f"aws: {{roles: '{ARN},{SECRET}'}}",
        f"aws: {{roles: ['{ARN},{SECRET} {SECRET}']}}",
        f"aws: {{roles: {{a: '{SECRET}'}}}}",
        f"aws: '{SECRET}'",
        "workers: '${ID}'",
        "log: {level: '${ID}'}",
        "collectors: ['udp://${ID}:x']",
        "discovery: {schedule: '${ID} * * * *', timezone: '${ID}', jitter: '${ID}'}",
        "exporters: {pool: ['${ID}'], vpcs: {vpc-0000000a: '${ID}'}}",
        "inputs: {s3: {queues: ['${ID}'], max_receives: '${ID}', layouts: '${ID}'}, kinesis: {streams: ['${ID}']}}",
        "inputs: {firehose: {listen: '${ID}'}, cloudwatch_logs: {start_from: '${ID}', log_groups: ['${ID} x']}}",
        f"aws: {{endpoints: {{s3: 'http://user:{SECRET}@h'}}}}",
        f"collectors: ['udp://user:{SECRET}@h']",
        f"external_id: '{SECRET}",  # no YAML: the quote never ends
        f"external_id: *{SECRET}",
        f"external_id: !{SECRET} x",
    ],
)
def test_a_fault_does_not_show_what_may_be_a_secret(write, text):
    with pytest.raises(ConfigError) as caught:
        load(write(text), {"ID": SECRET})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert SECRET not in repr(caught.value.faults)


def test_nor_does_a_fault_in_the_file_of_roles(write, tmp_path):
    (tmp_path / "roles").write_text(f"{SECRET}\n{ARN},{SECRET} {SECRET}\n")
    with pytest.raises(ConfigError) as caught:
        load(write("collectors: [udp://h]\naws: {roles_file: roles}"), {})
    assert len(caught.value.faults) == 2
    assert SECRET not in "".join(traceback.format_exception(caught.value))
