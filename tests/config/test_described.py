"""What is made from the settings: the example, the reference page, the schema, and the commands that print them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from edfn_agent.commands.config import config as config_command
from edfn_agent.commands.config import validate
from edfn_agent.config import Config, example_text, json_schema, load, load_with_warnings, reference_markdown
from edfn_agent.config.describe import _doc
from edfn_agent.config.fields import section_of

ROOT = Path(__file__).parents[2]


def _settings(section, above=""):
    for name, field in section.model_fields.items():
        yield f"{above}{name}", field
        below = section_of(field)
        if below is not None:
            yield from _settings(below, f"{above}{name}.")


def test_the_example_in_the_repository_is_the_one_of_the_models():
    assert (ROOT / "conf/edfn-agent.yaml").read_text() == example_text(), (
        "edfn-agent config example >conf/edfn-agent.yaml"
    )


def test_the_reference_in_the_repository_is_the_one_of_the_models():
    assert (ROOT / "docs/configuration.md").read_text() == reference_markdown()


def test_the_example_is_valid_without_a_warning_and_all_default_but_for_two_inputs():
    config, warnings = load_with_warnings(ROOT / "conf/edfn-agent.yaml", {})
    assert warnings == ()
    bare = Config.model_validate({"collectors": ["udp://192.0.2.10:4739"], "inputs": {"s3": {}, "cloudwatch_logs": {}}})
    assert config == bare


def test_the_example_holds_every_setting_and_every_line_of_it_is_valid(tmp_path):
    """Take every `#` away that does not begin a sentence."""
    text = example_text()
    while (more := re.sub(r"^((?: |- )*)#(?! \S|\n)", r"\1", text, flags=re.M)) != text:
        text = more
    written = yaml.load(text, yaml.BaseLoader)
    for path, _ in _settings(Config):
        here = written
        for name in path.split("."):
            while isinstance(here, list):
                here = here[-1]
            assert name in here, path
            here = here[name]
    text = text.replace("/etc/edfn-agent/roles", str(tmp_path / "roles"))
    (tmp_path / "roles").write_text("")
    (tmp_path / "all.yaml").write_text(text)
    config = load(tmp_path / "all.yaml", {"EDFN_EXTERNAL_ID": "xyz"})
    assert config.inputs.kinesis is not None
    assert config.inputs.firehose is not None


def test_every_setting_has_a_reason_and_the_example_and_the_reference_show_it():
    example = " ".join(re.sub(r"^[ #]+", "", line) for line in example_text().splitlines())
    reference = reference_markdown().replace("\\|", "|")
    for path, field in _settings(Config):
        reason = field.description or _doc(section_of(field))
        assert reason.endswith("."), path
        assert reason in example, path
        assert reason in reference, path


def test_the_schema_knows_defaults_ranges_and_choices():
    schema = json_schema()
    definitions = schema["$defs"]
    refresh = definitions["Ipfix"]["properties"]["template_refresh"]
    assert refresh["default"] == "1m"
    assert definitions["S3Input"]["properties"]["concurrency"]["maximum"] == 64
    assert definitions["Ipfix"]["properties"]["profile"]["enum"] == ["standard", "aws"]
    assert schema["required"] == ["collectors"]
    assert not any(definition.get("additionalProperties", False) for definition in definitions.values())
    assert {"type": "null"} in schema["properties"]["inputs"]["anyOf"]


def _run(command, *arguments):
    result = CliRunner().invoke(command, arguments)
    return result.exit_code, result.output


def test_validate(write):
    assert _run(validate, "-c", write("collectors: [udp://h]\ninputs: {s3: }")) == (0, "c.yaml: all well\n")
    status, output = _run(validate, "-c", write("collectors: [udp://h]"))
    assert (status, output.splitlines()) == (
        0,
        [
            "c.yaml: inputs: no source is read: name at least one of s3, cloudwatch_logs, kinesis, firehose (warning)",
            "c.yaml: valid, with 1 warning",
        ],
    )
    status, output = _run(validate, "-c", write("workers: 0"))
    assert (status, output.splitlines()) == (
        2,
        [
            "c.yaml: collectors: missing; like [udp://192.0.2.10:4739]",
            "c.yaml:1:10: workers: '0' is out of range: 1 to 64 processes",
        ],
    )


def test_config_example_and_schema():
    assert _run(config_command, "example") == (0, example_text())
    status, output = _run(config_command, "schema")
    assert (status, json.loads(output)) == (0, json_schema())


@pytest.mark.parametrize("module", ["pydantic", "yaml", "apscheduler"])
def test_the_help_of_the_commands_waits_for_no_library(module):
    code = f"import edfn_agent.commands.config, sys; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
