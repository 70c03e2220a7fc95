"""The configuration of the agent: every setting with its default, range, unit and reason, and the file they stand in.

In: a YAML file. Out: `Config`, or `ConfigError` with every fault and its line. `document` reads YAML and knows lines;
`times` and `values` are the kinds of value; `outputs`, `accounts` and `sources` hold the settings and `settings` all of
them; `loading` puts file and settings together; `fields` and `describe` put the settings into words. Never: network,
AWS, or a secret in any text.
"""

from edfn_agent.config.accounts import Aws, Discovery, Role
from edfn_agent.config.describe import example_text, json_schema, reference_markdown
from edfn_agent.config.faults import ConfigError, Fault
from edfn_agent.config.loading import load, load_with_warnings
from edfn_agent.config.outputs import Collector, Exporters, Ipfix
from edfn_agent.config.settings import Config, Http, Log
from edfn_agent.config.sources import (
    BucketLayout,
    CloudWatchLogsInput,
    DeliveryStreamLayout,
    FirehoseInput,
    Inputs,
    KinesisInput,
    LogGroupLayout,
    S3Input,
    Stream,
)
from edfn_agent.config.times import format_duration, parse_duration
from edfn_agent.config.values import ListenAddress

__all__ = [
    "load",
    "load_with_warnings",
    "Config",
    "ConfigError",
    "Fault",
    "Collector",
    "Ipfix",
    "Exporters",
    "Aws",
    "Role",
    "Discovery",
    "Inputs",
    "S3Input",
    "BucketLayout",
    "CloudWatchLogsInput",
    "LogGroupLayout",
    "KinesisInput",
    "Stream",
    "FirehoseInput",
    "DeliveryStreamLayout",
    "Http",
    "ListenAddress",
    "Log",
    "example_text",
    "json_schema",
    "reference_markdown",
    "format_duration",
    "parse_duration",
]
