"""Every setting of the agent: its name, kind, default, range, unit and reason. No setting is defined anywhere else.

In: plain data (see `document`). Out: `Config`, frozen, of the sections in `outputs`, `accounts` and `sources`. Also
made from these models: the faults that `validate` prints, the JSON Schema, the commented example and the reference.
Never: a look at the network, at AWS, or at a file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ValidationInfo, field_validator

from edfn_agent.config.accounts import Aws, Discovery
from edfn_agent.config.outputs import Collector, Exporters, Ipfix
from edfn_agent.config.section import HOUR, Section, duration, reject, repeated, section, setting
from edfn_agent.config.sources import Inputs
from edfn_agent.config.times import Duration
from edfn_agent.config.values import FilePath, ListenOrOff, OrText


class Http(Section):
    """What is seen from outside: /metrics, /healthz, /readyz, /templates."""

    listen: ListenOrOff = setting(
        "127.0.0.1:9465",
        "No password is asked for: beyond loopback only where everyone may look.",
        form="host:port, or off",
        validate_default=True,
    )


class Log(Section):
    """The agent's own log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "debug says a line for each delivery.")
    format: Literal["text", "json"] = setting("text", "text for people, json (one object a line) for log collectors.")


class Config(Section):
    """Configuration of edfn-agent."""

    collectors: tuple[Annotated[Collector, OrText("udp://host:port, tcp:// or tls://")], ...] = setting(
        ..., "Where records go: each collector gets every record.", example="[udp://192.0.2.10:4739]", min_length=1
    )
    ipfix: Ipfix = section()
    exporters: Exporters = section()
    aws: Aws = section()
    discovery: Discovery = section()
    inputs: Inputs = section()
    workers: int = setting(
        1,
        "Exporting processes on this machine, for more than one processor's worth of flows.",
        unit="processes",
        ge=1,
        le=64,
    )
    worker_id: int = setting(
        0,
        "The number of this machine's first worker. Agents that share a stream or a queue need numbers of their own, "
        "or collectors mix up their sequence numbers.",
        ge=0,
        le=255,
    )
    state_directory: FilePath = setting(
        "/var/lib/edfn-agent",
        "Cursors, exporter addresses and quarantine. Losing it costs repeats and new addresses, never records.",
        form="path of a directory",
        validate_default=True,
    )
    http: Http = section()
    shutdown_timeout: Duration = duration(
        30,
        1,
        HOUR,
        "How long a stop may take to finish or hand back what is in hand; then it comes again after the start.",
    )
    log: Log = section()

    @field_validator("collectors")
    @classmethod
    def _collectors_once(cls, collectors: tuple[Collector, ...]) -> tuple[Collector, ...]:
        again = repeated(((n,), collector.url) for n, collector in enumerate(collectors))
        reject((place, f"{url} is in the list already; it would get every record twice") for place, url in again)
        return collectors

    @field_validator("worker_id")
    @classmethod
    def _in_eight_bits(cls, worker_id: int, info: ValidationInfo) -> int:
        workers = info.data.get("workers", 1)
        if worker_id + workers > 256:
            raise ValueError(
                f"and {workers} workers make {worker_id + workers}; together at most 256, as a worker's number has "
                "8 bits of the observation domain"
            )
        return worker_id

    @field_validator("http")
    @classmethod
    def _two_servers(cls, http: Http, info: ValidationInfo) -> Http:
        inputs = info.data.get("inputs")
        firehose = inputs.firehose if isinstance(inputs, Inputs) else None
        if firehose is not None and http.listen == firehose.listen and firehose.listen.port:
            reject([(("listen",), f"{http.listen} is taken by inputs.firehose.listen")])
        return http
