"""Settings of what goes out: collectors, messages, exporter addresses.

In and out: see `settings`. The reasons behind the defaults on the wire are those of the collectors that drop, forget or
misread otherwise; each is named where it matters.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any, Literal

from pydantic import ValidationInfo, ValidatorFunctionWrapHandler, field_validator, model_validator
from pydantic_core import PydanticCustomError

from edfn_agent.config.section import HOUR, Section, also, duration, reject, repeated, setting
from edfn_agent.config.times import Duration
from edfn_agent.config.values import ExporterAddress, FilePath, PoolNetwork, VpcId, join_host_port, split_host_port

# ---- collectors -----------------------------------------------------------------------------------------------------


class Collector(Section):
    """One collector. May be written as its URL alone."""

    url: str = setting(
        ...,
        "Port 4739, for TLS 4740, unless given. TLS is TLS over TCP (RFC 7011, 10.4); IPFIX over DTLS is not spoken.",
        form="udp://, tcp:// or tls://, host or [IPv6 address], :port",
        example="tls://collector.example.net:4740",
    )
    required: bool = setting(
        True,
        "A delivery is acknowledged when each required collector has it; others hold nobody back, and may miss some.",
    )
    ca_file: FilePath | None = setting(
        None, "PEM file of the authorities that vouch for the collector. Without it, the system's.", example="ca.pem"
    )
    certificate: FilePath | None = setting(
        None, "PEM file that proves the agent to the collector (mutual TLS).", example="agent.pem"
    )
    key: FilePath | None = setting(None, "PEM file with the private key of `certificate`.", example="agent.key")
    verify: bool = setting(True, "False trusts any certificate, so anyone on the way can pose as the collector.")
    server_name: str | None = setting(
        None, "Name that the certificate must carry, where it is not the host of the URL.", example="collector"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: object) -> object:
        return {"url": value} if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _normal_form(cls, value: str) -> str:
        transport, separator, rest = value.partition("://")
        if not separator or transport not in ("udp", "tcp", "tls"):
            raise ValueError("does not begin with udp://, tcp:// or tls://")
        host, port = split_host_port(rest.removesuffix("/"), 4740 if transport == "tls" else 4739)
        return f"{transport}://{join_host_port(host, port)}"

    @field_validator("key")
    @classmethod
    def _key_and_certificate(cls, value: object, info: ValidationInfo) -> object:
        if value is not None and "certificate" in info.data and info.data["certificate"] is None:
            raise PydanticCustomError("fault", "needs `certificate` beside it")
        return value

    @model_validator(mode="after")
    def _tls_only(self) -> Collector:
        if self.transport != "tls":
            words = f"has a meaning only with tls://, and this collector is reached by {self.transport}://"
            given = self.model_fields_set & {"ca_file", "certificate", "key", "verify", "server_name"}
            reject(((name,), words) for name in sorted(given))
        if self.certificate is not None and self.key is None:
            reject([(("certificate",), "needs `key` beside it")])
        return self

    @property
    def transport(self) -> Literal["udp", "tcp", "tls"]:
        return self.url.partition("://")[0]  # type: ignore[return-value]

    @property
    def host(self) -> str:
        """Without brackets, as sockets want it."""
        return split_host_port(self.url.partition("://")[2], None)[0]

    @property
    def port(self) -> int:
        return split_host_port(self.url.partition("://")[2], None)[1]


# ---- on the wire ----------------------------------------------------------------------------------------------------

# nfdump keeps 16 bits of an enterprise number, and these have a meaning of their own.
_CLASHING_PENS = {0: "its own standard elements", 6871: "YAF's elements", 29305: "reverse elements (RFC 5103)"}


class Ipfix(Section):
    """What goes out on the wire."""

    max_message_size: int = setting(
        1400,
        "The largest IPFIX message. Above the MTU of the path a datagram is cut up, and one lost piece loses it all.",
        unit="octets",
        ge=512,
        le=8900,
    )
    records_per_second: int = setting(
        0,
        "How fast records leave, to each collector; reading waits. Most drop what comes too fast, without a word.",
        unit="records per second, 0 for no limit",
        ge=0,
    )
    template_refresh: Duration = duration(
        60,
        10,
        HOUR,
        "How often templates and names are sent again over UDP: until then a restarted collector is blind.",
    )
    profile: Literal["standard", "aws"] = setting(
        "standard",
        "standard sends IANA's elements only; aws adds every other field of the flow log as an enterprise element.",
    )
    enterprise_number: int | None = setting(
        None,
        "The private enterprise number (PEN) that the aws elements belong to; register one with IANA, it is free.",
        form="needed by profile aws",
        example=32473,
        ge=1,
        le=4294967295,
        validate_default=True,
    )
    exporter_field: bool = setting(
        True,
        "The exporter's address in every record (element 130), for collectors behind NAT or a proxy; 4 octets each.",
    )
    packet_addresses: bool = setting(
        False,
        "pkt-srcaddr and pkt-dstaddr take the place of srcaddr and dstaddr: the true ends through NAT or pods.",
    )
    egress_zero_on_reject: bool = setting(
        False,
        "Rejected flows leave by interface 0, which some collectors show as dropped where they ignore element 89.",
    )
    type_records: bool = setting(
        False,
        "Describe the elements of profile aws on the wire (RFC 5610). libfixbuf reads it; pmacct complains of gaps.",
    )

    @field_validator("enterprise_number")
    @classmethod
    def _usable(cls, number: int | None, info: ValidationInfo) -> int | None:
        if number is None:
            if info.data.get("profile") == "aws":
                raise PydanticCustomError("fault", "needed by profile aws: the private enterprise number to send under")
            return None
        clash = _CLASHING_PENS.get(number & 0xFFFF)
        if clash is not None:
            raise ValueError(
                f"cannot be used: its low 16 bits are {number & 0xFFFF}, and nfdump, which keeps only those, "
                f"takes the elements for {clash}"
            )
        return number


# ---- exporters ------------------------------------------------------------------------------------------------------


class Exporters(Section):
    """The address under which each VPC appears at the collector."""

    address_mode: Literal["auto", "source", "field"] = setting(
        "auto",
        "source: each VPC's datagrams come from its own address (needs CAP_NET_RAW); field: all come from this host, "
        "and the address is in the records; auto: source where it really works.",
    )
    pool: tuple[PoolNetwork, ...] = setting(
        ("100.64.0.0/16",),
        "For VPCs whose own router address (first CIDR + 1) another VPC has already. Nothing else may live there.",
        form="list of IPv4 networks",
        validate_default=True,
    )
    vpcs: dict[VpcId, ExporterAddress] = setting(
        {},
        "Addresses fixed by hand, before any other choice.",
        form="VPC id: IPv4 address",
        example={"vpc-0a1b2c3d4e5f60718": "10.1.0.1"},
    )
    unattributed: ExporterAddress | None = setting(
        None,
        "The exporter of records whose VPC nobody can tell. Without it, the next free one of the pool.",
        form="IPv4 address",
        example="100.64.255.254",
    )

    @field_validator("pool")
    @classmethod
    def _apart(cls, pool: tuple[PoolNetwork, ...]) -> tuple[PoolNetwork, ...]:
        reject(
            ((n,), f"{network} overlaps {other}, which is in the list before it")
            for n, network in enumerate(pool)
            for other in pool[:n]
            if network.overlaps(other)
        )
        return pool

    @field_validator("vpcs", mode="wrap")
    @classmethod
    def _one_vpc_each(cls, written: Any, read: ValidatorFunctionWrapHandler) -> dict[str, IPv4Address]:
        vpcs = written if isinstance(written, dict) else {}
        first = {str(address): vpc for vpc, address in reversed(vpcs.items())}
        again = repeated(((vpc,), str(address)) for vpc, address in vpcs.items())
        with also([(place, f"{address} is the exporter of {first[address]} already") for place, address in again]):
            found: dict[str, IPv4Address] = read(written)
        return found

    @field_validator("unattributed")
    @classmethod
    def _not_a_vpcs(cls, address: IPv4Address | None, info: ValidationInfo) -> IPv4Address | None:
        for vpc, taken in info.data.get("vpcs", {}).items():
            if address == taken:
                raise ValueError(f"is the exporter of {vpc} already")
        return address
