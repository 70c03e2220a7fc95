"""The kinds of value that settings have, beyond what pydantic brings (times are in `times`): addresses, ARNs, paths.

In: the text that stands in the file (or a value of the final type). Out: a value of the final type, or a ValueError
that continues the sentence "'<what is written>' ...". Never: the rejected text in the error, as it may be a secret.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    Tag,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import core_schema

# ---- the network ----------------------------------------------------------------------------------------------------

_HOST_NAME = re.compile(r"(?=.{1,253}$)(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")
_NOT_UNICAST = tuple(map(IPv4Network, ("0.0.0.0/8", "224.0.0.0/4", "240.0.0.0/4")))


def split_host_port(text: str, default_port: int | None, lowest_port: int = 1) -> tuple[str, int]:
    """`host:port`, `1.2.3.4:port`, `[2001:db8::1]:port`; the port may be left out if there is a default."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::(\d{1,5}))?", text, re.ASCII)
    if match is None:
        if text.count(":") > 1 and "[" not in text:
            raise ValueError("has a bare IPv6 address; write it in brackets, like [2001:db8::1]:4739")
        raise ValueError("has no host and port; write host:port, like 192.0.2.10:4739 or [2001:db8::1]:4739")
    host = match[1] or match[2]
    if match[1]:
        try:
            numeric = ip_address(host)
        except ValueError:
            numeric = None
        if numeric is None or numeric.version != 6:
            raise ValueError("has something other than an IPv6 address in brackets")
    elif re.fullmatch(r"[\d.]+", host, re.ASCII):
        try:
            ip_address(host)
        except ValueError:
            raise ValueError("has a malformed IPv4 address") from None
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError("has a malformed host name")
    if match[3] is None:
        if default_port is None:
            raise ValueError("has no port; write host:port, like 127.0.0.1:9465")
        return host, default_port
    port = int(match[3])
    if not lowest_port <= port <= 65535:
        raise ValueError(f"has a port outside {lowest_port} to 65535")
    return host, port


def join_host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where the agent itself is reached. Port 0 lets the system choose, for tests."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)

    @property
    def is_loopback(self) -> bool:
        """`localhost` counts: it is loopback on every machine that is set up right."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower().rstrip(".") == "localhost"


def _listen(value: object) -> object:
    if not isinstance(value, str):
        return value
    return ListenAddress(*split_host_port(value, None, lowest_port=0))


def _listen_or_off(value: object) -> object:
    return None if value == "off" else _listen(value)


_LISTEN_SCHEMA = WithJsonSchema({"type": "string"})
_AS_TEXT = PlainSerializer(str, return_type=str)
Listen = Annotated[ListenAddress, BeforeValidator(_listen), _LISTEN_SCHEMA, _AS_TEXT]
ListenOrOff = Annotated[
    ListenAddress | None,
    BeforeValidator(_listen_or_off),
    _LISTEN_SCHEMA,
    PlainSerializer(lambda value: "off" if value is None else str(value), return_type=str),
]


def _unicast_address(value: object) -> IPv4Address:
    try:
        address = IPv4Address(str(value))
    except ValueError:
        raise ValueError("is no IPv4 address, like 10.1.0.1") from None
    if any(address in network for network in _NOT_UNICAST):
        raise ValueError("is no unicast address, so no router can have it")
    return address


def _unicast_network(value: object) -> IPv4Network:
    try:
        network = IPv4Network(str(value), strict=False)
    except ValueError:
        raise ValueError("is no IPv4 network, like 100.64.0.0/16") from None
    if str(value) not in (str(network), str(network.network_address)) and not isinstance(value, IPv4Network):
        raise ValueError(f"has host bits; did you mean {network}?")
    if any(network.overlaps(other) for other in _NOT_UNICAST):
        raise ValueError("reaches outside unicast addresses")
    return network


ExporterAddress = Annotated[
    IPv4Address, BeforeValidator(_unicast_address), WithJsonSchema({"type": "string", "format": "ipv4"})
]
PoolNetwork = Annotated[IPv4Network, BeforeValidator(_unicast_network), WithJsonSchema({"type": "string"})]

# ---- names in AWS ---------------------------------------------------------------------------------------------------

_PARTITION = r"arn:aws[a-z-]*"


def _shape(pattern: str, problem: str) -> BeforeValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: object) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError(problem)
        return value

    return BeforeValidator(check)


REGION = r"[a-z]{2,6}(-[a-z]+)+-\d{1,2}"
Region = Annotated[str, _shape(REGION, "is no AWS region, like us-east-1")]
VpcId = Annotated[str, _shape(r"vpc-[0-9a-f]{8}([0-9a-f]{9})?", "is no VPC id, like vpc-0a1b2c3d4e5f60718")]
RoleArn = Annotated[
    str,
    _shape(_PARTITION + r":iam::\d{12}:role/[\w+=,.@/-]+", "is no ARN of a role: arn:aws:iam::999999999999:role/NAME"),
]
Queue = Annotated[
    str,
    _shape(
        rf"https?://[^\s/@]+/(\d{{12}}/)?[\w.-]+|{_PARTITION}:sqs:{REGION}:\d{{12}}:[\w.-]{{1,80}}",
        "is neither the URL of a queue (https://sqs.us-east-1.amazonaws.com/999999999999/NAME) nor its ARN",
    ),
]
_LOG_GROUP_NAME = r"[\w./#-]{1,512}"
LogGroup = Annotated[
    str,
    _shape(
        rf"{_LOG_GROUP_NAME}|{_PARTITION}:logs:{REGION}:\d{{12}}:log-group:{_LOG_GROUP_NAME}(:\*)?",
        "is neither the name of a log group nor its ARN",
    ),
]
StreamArn = Annotated[
    str,
    _shape(
        rf"{_PARTITION}:kinesis:{REGION}:\d{{12}}:stream/[\w.-]{{1,128}}",
        "is no ARN of a stream: arn:aws:kinesis:us-east-1:999999999999:stream/NAME",
    ),
]
BucketName = Annotated[str, _shape(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", "is no name of a bucket")]
AccessPointArn = Annotated[
    str,
    _shape(
        _PARTITION + r":(s3|s3-object-lambda|s3-outposts):[\w-]*:\d{12}:(accesspoint|outpost)/[\w./-]+",
        "is no ARN of an access point: arn:aws:s3:us-east-1:999999999999:accesspoint/NAME",
    ),
]
ApplicationName = Annotated[
    str, _shape(r"[\w.-]{3,200}", "is no name for a DynamoDB table: 3 to 200 letters, digits, '_', '.', '-'")
]
EndpointUrl = Annotated[
    str, _shape(r"https?://[^\s/@?#]+(/[^\s?#]*)?", "is no endpoint: write http:// or https://, host and port, no more")
]

# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html; a SecretStr, so that nothing can print it.
_EXTERNAL_ID = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)


def _external_id(value: object) -> object:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str) or not _EXTERNAL_ID.fullmatch(text):
        raise ValueError("is no external id: 2 to 1224 letters, digits, or any of _+=,.@:/-")
    return SecretStr(text)


ExternalId = Annotated[SecretStr, BeforeValidator(_external_id)]


def _log_format(value: object) -> object:
    if not isinstance(value, str):
        return value
    # As the console and LogFormat write it (${srcaddr} ${dstaddr}), or as a header line does (srcaddr dstaddr).
    return tuple(re.sub(r"\$\{([^}]*)\}", r"\1", value).split())


def _distinct_names(names: tuple[str, ...]) -> tuple[str, ...]:
    bad = [name for name in names if not re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", name)]
    if not names or bad:
        raise ValueError("is no flow-log format: write the names of its fields, like ${version} ${srcaddr} ${dstaddr}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"names a field twice: {', '.join(twice)}")
    return names


LogFormat = Annotated[
    tuple[str, ...],
    BeforeValidator(_log_format),
    AfterValidator(_distinct_names),
    WithJsonSchema({"type": "string"}),
]

# ---- this machine ---------------------------------------------------------------------------------------------------


def _file_path(value: object, info: ValidationInfo) -> Path:
    """`~` is the user's home; what is relative starts at the folder of the configuration file."""
    if not isinstance(value, (str, Path)) or not str(value):
        raise ValueError("is no path")
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise ValueError("begins with `~`, and this user has no home") from None
    folder = (info.context or {}).get("folder")
    return path if folder is None else Path(folder) / path


FilePath = Annotated[Path, BeforeValidator(_file_path), WithJsonSchema({"type": "string"})]


def _words(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {error}") from None


Words = Annotated[
    tuple[str, ...],
    BeforeValidator(_words),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]

# ---- choices --------------------------------------------------------------------------------------------------------


def _word_or_list(value: object) -> str:
    return "<list>" if isinstance(value, (list, tuple)) else "<word>"


class OrText:
    """Marks a mapping that may be written as one string, for the JSON Schema."""

    def __init__(self, description: str) -> None:
        self.description = description

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "description": self.description}, handler(schema)]}


# `discovered` or a list: told apart by shape first, so that a fault speaks of the one that was meant.
WORD = Tag("<word>")
LIST = Tag("<list>")
BY_SHAPE = Discriminator(_word_or_list)
