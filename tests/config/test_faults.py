"""YAML in, fault lines out: what a person reads in a terminal or clicks on in an editor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edfn_agent.config import ConfigError, load


def test_all_faults_at_once_in_the_order_of_the_file(faults):
    assert faults(
        """\
        collectors: [udp://192.0.2.10:4739]
        ipfix:
          max_message_size: 9000
          template_refresh: 5s
          profile: AWSS
        workers: many
        inputs:
          s3:
            concurency: 4
        """
    ) == [
        "c.yaml:3:21: ipfix.max_message_size: '9000' is out of range: 512 to 8900 octets",
        "c.yaml:4:21: ipfix.template_refresh: '5s' is out of range: 10s to 1h",
        "c.yaml:5:12: ipfix.profile: 'AWSS' is not among: standard | aws; did you mean aws?",
        "c.yaml:6:10: workers: 'many' is no whole number: 1 to 64 processes",
        "c.yaml:9:5: inputs.s3.concurency: unknown key; did you mean 'concurrency'?",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("colectors: [udp://h]", "1:1: colectors: unknown key; did you mean 'collectors'?"),
        ("inputs: {cloudwatch: }", "1:10: inputs.cloudwatch: unknown key; did you mean 'cloudwatch_logs'?"),
        ("ipfix: {Max-Message-Size: 1}", "1:9: ipfix.Max-Message-Size: unknown key; did you mean 'max_message_size'?"),
        ("template_refresh: 60s", "1:1: template_refresh: unknown key; it belongs at ipfix.template_refresh"),
        ("log: {colour: blue}", "1:7: log.colour: unknown key; known here: format, level"),
        (
            "aws: {endpoints: {eventbridge: http://h}}",
            "1:19: aws.endpoints.eventbridge: 'eventbridge' is no service that the agent calls; did you mean 'events'?",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_right_one(faults, text, fault):
    assert f"c.yaml:{fault}" in faults(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "c.yaml: collectors: missing; like [udp://192.0.2.10:4739]"),
        ("collectors:", "c.yaml:1:1: collectors: missing; like [udp://192.0.2.10:4739]"),
        ("collectors: []", "c.yaml:1:1: collectors: must not be empty"),
        ("collectors: udp://h", "c.yaml:1:13: collectors: must be a list, like [a, b]"),
        ("- a", "c.yaml:1:1: must be a mapping of keys, like `collectors: [udp://192.0.2.10:4739]`"),
        ("just words", "c.yaml:1:1: must be a mapping of keys, like `collectors: [udp://192.0.2.10:4739]`"),
    ],
)
def test_collectors_is_all_that_is_needed(faults, text, fault):
    assert faults(text) == [fault]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("collectors: [udp://h\nworkers: 2\n", "2:8: not YAML: while parsing a flow sequence; expected ',' or ']'"),
        ("collectors:\n\t- udp://h\n", "2:1: not YAML: while scanning for the next token; found character '\\t'"),
        ("a: 1\n b: 2\n", "2:3: not YAML: mapping values are not allowed here"),
        ("a: *nobody\n", "1:4: not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", "2:1: not YAML: expected a single document in the stream"),
        ("a: x\x07\n", "1:5: not YAML: the character #x0007 is not allowed"),
    ],
)
def test_what_is_no_yaml_is_one_fault(faults, text, fault):
    (line,) = faults(text)
    assert line.startswith(f"c.yaml:{fault}")


def test_what_yaml_lets_pass(faults):
    assert faults(
        """\
        collectors: [udp://h]
        workers: 1
        workers: 2
        log: &log
          <<: {level: info}
          format: !!python/name:os.system text
          level: !new info
        ? [a]
        : b
        discovery: &self
          schedule: *self
        """
    ) == [
        "c.yaml:3:1: workers: given twice; the first one is in line 2",
        "c.yaml:5:3: log.<<: merge keys are not supported: write the keys out",
        "c.yaml:7:10: log.level: a tag (!...) means nothing here",
        "c.yaml:8:3: a key must be plain text",
        "c.yaml:10:12: discovery.schedule: this alias contains itself",
    ]


def test_values_are_the_text_that_is_written_not_what_yaml_makes_of_it(loaded):
    config = loaded(
        """\
        collectors: [tls://no, {url: tls://on, verify: no}]
        aws: {roles: [{arn: arn:aws:iam::012345678901:role/A, external_id: 0123}]}
        inputs: {cloudwatch_logs: {start_from: 2026-01-31 12:00:00}}
        """
    )
    assert [collector.host for collector in config.collectors] == ["no", "on"]
    assert config.collectors[1].verify is False
    assert config.aws.roles[0].external_id.get_secret_value() == "0123"
    assert config.inputs.cloudwatch_logs.start_from.isoformat() == "2026-01-31T12:00:00+00:00"


def test_environment_variables(loaded, faults):
    text = """\
        collectors: ["udp://${HOST}:${PORT}"]
        workers: ${N}
        log: {level: "${LEVEL}"}
        aws: {roles_file: "$${odd}"}
        """
    assert faults(text, HOST="h", LEVEL="loud", N="2") == [
        "c.yaml:1:14: collectors[0]: the environment variable PORT is not set",
        "c.yaml:3:14: log.level: '${LEVEL}' is not among: debug | info | warning | error",
    ]
    Path("${odd}").write_text("arn:aws:iam::999999999999:role/A\n")
    config = loaded(text, HOST="h", PORT="99", LEVEL="debug", N="2")
    assert (config.collectors[0].url, config.workers, config.log.level) == ("udp://h:99", 2, "debug")
    assert config.aws.roles_file == Path("${odd}").absolute()
    assert faults("collectors: ['udp://${no-name}', 'udp://${open']") == [
        "c.yaml:1:14: collectors[0]: ${no-name} names no environment variable; write $${ for the two characters ${",
        "c.yaml:1:34: collectors[1]: ${open names no environment variable; write $${ for the two characters ${",
    ]


def test_the_format_of_a_flow_log_is_taken_as_aws_writes_it(loaded, faults):
    text = "collectors: [udp://h]\ninputs: {s3: {layouts: [{bucket: b, log_format: '%s'}]}}"
    for written in ("${version} ${vpc-id} ${start}", "version vpc-id start"):
        (layout,) = loaded(text % written).inputs.s3.layouts
        assert layout.log_format == ("version", "vpc-id", "start")
    assert faults(text % "${start} ${start}") == [
        "c.yaml:2:49: inputs.s3.layouts[0].log_format: '${start} ${start}' names a field twice: start"
    ]


def test_an_empty_section_has_its_defaults_and_an_absent_input_is_not_read(loaded):
    config = loaded("collectors: [udp://h]\nipfix:\ninputs:\n  s3:\nworkers:\n")
    assert config.ipfix.max_message_size == 1400
    assert config.inputs.s3.concurrency == 2
    assert config.inputs.cloudwatch_logs is config.inputs.kinesis is config.inputs.firehose is None
    assert config.workers == 1


@pytest.mark.parametrize(
    ("collector", "fault"),
    [
        ("192.0.2.10:4739", "'192.0.2.10:4739' does not begin with udp://, tcp:// or tls://"),
        (
            "udp://2001:db8::1",
            "'udp://2001:db8::1' has a bare IPv6 address; write it in brackets, like [2001:db8::1]:4739",
        ),
        ("udp://h:0", "'udp://h:0' has a port outside 1 to 65535"),
        ("udp://300.1.1.1", "'udp://300.1.1.1' has a malformed IPv4 address"),
        ("udp://[h]", "'udp://[h]' has something other than an IPv6 address in brackets"),
        ("udp://a_b-.c..d", "'udp://a_b-.c..d' has a malformed host name"),
        (
            "udp://h:1/x",
            "'udp://h:1/x' has no host and port; write host:port, like 192.0.2.10:4739 or [2001:db8::1]:4739",
        ),
    ],
)
def test_a_collector_is_a_transport_a_host_and_a_port(faults, collector, fault):
    assert faults(f"collectors:\n  - '{collector}'\n") == [f"c.yaml:2:5: collectors[0]: {fault}"]


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("udp://192.0.2.10", ("udp", "192.0.2.10", 4739)),
        ("tcp://Collector.example:9995", ("tcp", "Collector.example", 9995)),
        ("tls://[2001:db8::1]", ("tls", "2001:db8::1", 4740)),
        ("udp://[fe80::1%eth0]:2055/", ("udp", "fe80::1%eth0", 2055)),
    ],
)
def test_ports_have_the_defaults_of_rfc_7011(loaded, url, parts):
    (collector,) = loaded(f"collectors: ['{url}']").collectors
    assert (collector.transport, collector.host, collector.port) == parts
    assert collector.required


def test_tls_settings(faults):
    assert faults(
        """\
        collectors:
          - {url: tcp://a, ca_file: ca.pem, verify: false}
          - {url: tls://b, certificate: c.pem}
          - {url: tls://c, key: c.key}
        """
    ) == [
        "c.yaml:2:29: collectors[0].ca_file: has a meaning only with tls://, and this collector is reached by tcp://",
        "c.yaml:2:45: collectors[0].verify: has a meaning only with tls://, and this collector is reached by tcp://",
        "c.yaml:3:33: collectors[1].certificate: needs `key` beside it",
        "c.yaml:4:25: collectors[2].key: needs `certificate` beside it",
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("collectors: [udp://h, 'udp://h:4739']", "1:23: collectors[1]: udp://h:4739 is in the list already; it would"),
        ("ipfix: {profile: aws}", "1:1: ipfix.enterprise_number: needed by profile aws: the private enterprise number"),
        (
            "ipfix: {enterprise_number: 131072}",
            "1:28: ipfix.enterprise_number: '131072' cannot be used: its low 16 bits are 0",
        ),
        (
            "ipfix: {enterprise_number: 6871}",
            "1:28: ipfix.enterprise_number: '6871' cannot be used: its low 16 bits are 6871",
        ),
        (
            "ipfix: {enterprise_number: 94841}",
            "1:28: ipfix.enterprise_number: '94841' cannot be used: its low 16 bits are 29305",
        ),
        (
            "exporters: {pool: [10.0.1.0/16]}",
            "1:20: exporters.pool[0]: '10.0.1.0/16' has host bits; did you mean 10.0.0.0/16?",
        ),
        (
            "exporters: {pool: [224.0.0.0/3]}",
            "1:20: exporters.pool[0]: '224.0.0.0/3' reaches outside unicast addresses",
        ),
        (
            "exporters: {pool: [10.0.0.0/8, 10.1.0.0/16]}",
            "1:32: exporters.pool[1]: 10.1.0.0/16 overlaps 10.0.0.0/8, which",
        ),
        (
            "exporters: {vpcs: {vpc-0000000a: 10.1.0.1, vpc-0000000b: 10.1.0.1}}",
            "1:58: exporters.vpcs.vpc-0000000b: 10.1.0.1 is the exporter of vpc-0000000a already",
        ),
        (
            "exporters: {vpcs: {vpc-0000000a: 10.1.0.1}, unattributed: 10.1.0.1}",
            "1:59: exporters.unattributed: '10.1.0.1' is the exporter of vpc-0000000a already",
        ),
        (
            "exporters: {vpcs: {vpc-0000000a: 255.255.255.255}}",
            "1:34: exporters.vpcs.vpc-0000000a: '255.255.255.255' is no unicast address, so no router can have it",
        ),
        ("exporters: {vpcs: {vpc-1: 10.1.0.1}}", "1:20: exporters.vpcs.vpc-1: 'vpc-1' is no VPC id, like vpc-0a1b2c3d"),
        ("aws: {regions: us-east-1}", "1:16: aws.regions: 'us-east-1' is neither `all` nor a list; in brackets, [...]"),
        ("aws: {regions: [us-east-1a]}", "1:17: aws.regions[0]: 'us-east-1a' is no AWS region, like us-east-1"),
        ("aws: {regions: [us-east-1, us-east-1]}", "1:28: aws.regions[1]: given twice"),
        ("aws: {session_duration: 13h}", "1:25: aws.session_duration: '13h' is out of range: 15m to 12h"),
        ("discovery: {schedule: '* * * *'}", "1:23: discovery.schedule: '* * * *' has 4 fields; cron has five: minute"),
        (
            "discovery: {schedule: '0 24 * * *'}",
            "1:23: discovery.schedule: '0 24 * * *' is no cron line: the hour is none (0 to 23)",
        ),
        (
            "discovery: {timezone: Europe/Berln}",
            "1:23: discovery.timezone: 'Europe/Berln' is no time zone of this machine; did",
        ),
        ("inputs: {s3: {concurrency: 65}}", "1:28: inputs.s3.concurrency: '65' is out of range: 1 to 64 objects"),
        ("inputs: {s3: {queues: [q]}}", "1:24: inputs.s3.queues[0]: 'q' is neither the URL of a queue (https://sqs."),
        ("inputs: {s3: {queues: []}}", "1:15: inputs.s3.queues: must not be empty"),
        (
            "inputs: {cloudwatch_logs: {interval: 2d}}",
            "1:38: inputs.cloudwatch_logs.interval: '2d' is out of range: 1s to 1d",
        ),
        (
            "inputs: {cloudwatch_logs: {start_from: soon}}",
            "1:40: inputs.cloudwatch_logs.start_from: 'soon' is neither `now`,",
        ),
        (
            "inputs: {kinesis: {metrics_level: summary}}",
            "1:35: inputs.kinesis.metrics_level: 'summary' is not among: NONE | SUMMARY | DETAILED; did",
        ),
        (
            "inputs: {kinesis: {streams: [arn:aws:kinesis:us-east-1:999999999999:stream/a, {arn: x, max_record: 1}]}}",
            "1:88: inputs.kinesis.streams[1].max_record: unknown key; did you mean 'max_records'?",
        ),
        (
            "inputs: {firehose: {listen: '0.0.0.0:8443'}}",
            "1:29: inputs.firehose.listen: 0.0.0.0:8443 is not loopback, so certificate and access_key_file must be",
        ),
        (
            "inputs: {firehose: {listen: '127.0.0.1:9465'}}",
            "c.yaml: http.listen: 127.0.0.1:9465 is taken by inputs.firehose.listen",
        ),
        ("http: {listen: ':9465'}", "1:16: http.listen: ':9465' has no host and port; write host:port"),
        (
            "http: {listen: '127.0.0.1'}",
            "1:16: http.listen: '127.0.0.1' has no port; write host:port, like 127.0.0.1:9465",
        ),
        ("{workers: 8, worker_id: 249}", "1:25: worker_id: '249' and 8 workers make 257; together at most 256"),
        ("log: loud", "1:6: log: must be a mapping of keys: {level, format}"),
    ],
)  # fmt: skip
def test_ranges_and_what_goes_together(faults, line, fault):
    text = line if "collectors" in line else f"{line}\ncollectors: [udp://h]\n"
    if line.startswith("{"):
        text = f"{line[:-1]}, collectors: [udp://h]}}"
    (found,) = (each for each in faults(text) if "streams[1].arn" not in each)
    assert found.removeprefix("c.yaml:").strip().startswith(fault.removeprefix("c.yaml:").strip())


def test_a_fault_of_one_address_does_not_hide_that_another_is_given_twice(faults):
    text = "collectors: [udp://c]\nexporters:\n  vpcs:\n    vpc-0000000a: 224.0.0.1\n"
    text += "    vpc-0000000b: 10.1.0.1\n    vpc-0000000c: 10.1.0.1\n"
    assert faults(text) == [
        "c.yaml:4:19: exporters.vpcs.vpc-0000000a: '224.0.0.1' is no unicast address, so no router can have it",
        "c.yaml:6:19: exporters.vpcs.vpc-0000000c: 10.1.0.1 is the exporter of vpc-0000000b already",
    ]


def test_roles_come_from_the_list_and_from_the_file(loaded, faults):
    text = """\
        collectors: [udp://h]
        aws:
          roles: ["arn:aws:iam::111111111111:role/A,x,y", {arn: arn:aws-cn:iam::222222222222:role/p/B}]
          roles_file: roles.txt
        """
    assert faults(text) == [
        f"c.yaml:4:15: aws.roles_file: {os.getcwd()}/roles.txt cannot be read: No such file or directory"
    ]
    Path("roles.txt").write_text(
        "# ours\n\narn:aws:iam::333333333333:role/C , id-3\narn:aws:iam::444444444444:role/D\n"
    )
    roles = loaded(text).aws.roles
    assert [(role.account_id, role.external_id and role.external_id.get_secret_value()) for role in roles] == [
        ("111111111111", "x,y"),
        ("222222222222", None),
        ("333333333333", "id-3"),
        ("444444444444", None),
    ]
    Path("roles.txt").write_text(
        "arn:aws:iam::111111111111:role/A\nrole/C,id\narn:aws:iam::555555555555:role/E,no good\n"
    )
    assert [fault.replace(os.getcwd(), ".") for fault in faults(text)] == [
        "./roles.txt:1:1: the role arn:aws:iam::111111111111:role/A is in the list already",
        "./roles.txt:2:1: this is no ARN of a role: arn:aws:iam::999999999999:role/NAME",
        "./roles.txt:3:34: this is no external id: 2 to 1224 letters, digits, or any of _+=,.@:/-",
    ]


def test_paths_start_at_the_folder_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc" / "a.yaml"
    file.write_text("collectors: [{url: tls://h, ca_file: ca.pem}]\naws: {credentials_file: ~/.aws/credentials}\n")
    config = load(file)
    assert config.collectors[0].ca_file == tmp_path / "etc" / "ca.pem"
    assert config.aws.credentials_file == Path("/home/someone/.aws/credentials")
    assert config.state_directory == Path("/var/lib/edfn-agent")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"latin\.yaml: is not UTF-8 text"):
        load(tmp_path / "latin.yaml")


def test_warnings(warnings):
    assert warnings(
        """\
        collectors: [{url: tls://h, required: false, verify: false}]
        ipfix: {enterprise_number: 32473}
        aws: {roles: [arn:aws:iam::111111111111:role/A, arn:aws:iam::111111111111:role/B]}
        inputs: {firehose: , kinesis: {shutdown_grace: 30s}}
        """
    ) == [
        "c.yaml:1:54: collectors[0].verify: any certificate is trusted, so anyone on the way can pose as the collector",
        "c.yaml:1:1: collectors: none is required, so records are acknowledged even when no collector has taken them",
        "c.yaml:2:28: ipfix.enterprise_number: 32473 is for examples in documents (RFC 5612); register your own",
        "c.yaml:2:28: ipfix.enterprise_number: has no effect: profile standard sends no enterprise elements",
        "c.yaml:3:49: aws.roles[1]: account 111111111111 has a role before this one, which is used",
        "c.yaml:4:10: inputs.firehose: without access_key_file, whoever reaches the address may send",
        "c.yaml:4:48: inputs.kinesis.shutdown_grace: is not shorter than shutdown_timeout, so it is cut short",
    ]
    assert warnings("collectors: [udp://h]") == [
        "c.yaml: inputs: no source is read: name at least one of s3, cloudwatch_logs, kinesis, firehose"
    ]
