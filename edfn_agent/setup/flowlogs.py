"""What is watched, and how its flow log is written: the part that every way of delivery shares.

In: ids of VPCs, subnets, interfaces and transit gateways, each perhaps with its account and region. Out: FlowLog
resources with the format that this product reads best: every field there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edfn_agent.formats.fields import FIELDS, TRANSIT_GATEWAY_DEFAULT_NAMES
from edfn_agent.formats.layout import Layout, LayoutError
from edfn_agent.setup.model import FlowLog, Place, Resource, SetupError

_TYPES = {  # id prefix: (resource type of CreateFlowLogs, the word in its ARN)
    "tgw-attach": ("TransitGatewayAttachment", "transit-gateway-attachment"),
    "tgw": ("TransitGateway", "transit-gateway"),
    "vpc": ("VPC", "vpc"),
    "subnet": ("Subnet", "subnet"),
    "eni": ("NetworkInterface", "network-interface"),
}

_TAG_FIELDS = {
    "instance": ("instance", ("instance-tag", "instance-tag-2")),
    "network-interface": ("network-interface", ("interface-tag", "interface-tag-2")),
    "auto-scaling-group": ("auto-scaling-group", ("asg-tag", "asg-tag-2")),
}


@dataclass(frozen=True)
class Watched:
    """One thing whose traffic is logged."""

    place: Place
    resource_type: str
    resource_id: str

    @property
    def arn(self) -> str:
        word = next(word for kind, word in _TYPES.values() if kind == self.resource_type)
        return self.place.arn("ec2", f"{word}/{self.resource_id}")

    @property
    def is_transit(self) -> bool:
        return self.resource_type.startswith("TransitGateway")


def watched(text: str, default: Place) -> Watched:
    """`vpc-1`, `eu-west-1/vpc-1` or `111111111111/eu-west-1/vpc-1`."""
    *where, resource_id = text.split("/")
    if len(where) > 2:
        raise SetupError(f"{text!r}: write ID, REGION/ID or ACCOUNT/REGION/ID")
    account = where[0] if len(where) == 2 else default.account
    region = where[-1] if where else default.region
    for prefix, (kind, _) in _TYPES.items():
        if re.fullmatch(rf"{prefix}-[0-9a-f]{{8,17}}", resource_id):
            return Watched(Place(account, region), kind, resource_id)
    raise SetupError(
        f"{resource_id!r} is not the id of a VPC, subnet, network interface, transit gateway or its attachment"
    )


@dataclass(frozen=True)
class FlowLogOptions:
    """How flow logs are written."""

    traffic: str = "ALL"
    interval: int = 60
    log_format: str = "all"  # all, default, or AWS's ${field} spelling
    field_version: int = 11  # fields of newer versions are left out: a partition may not know them yet
    tag_keys: tuple[tuple[str, str], ...] = ()  # (instance | network-interface | auto-scaling-group, key)
    ecs_fields: bool = True

    def tag_specifications(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        found: dict[str, tuple[str, ...]] = {}
        for kind, key in self.tag_keys:
            if kind not in _TAG_FIELDS:
                raise SetupError(f"tags of {kind!r} are not in flow logs; those of {', '.join(_TAG_FIELDS)} are")
            found[kind] = (*found.get(kind, ()), key)
            if len(found[kind]) > 2:
                raise SetupError(f"a flow log has room for two tag keys of {kind}")
        return tuple(found.items())

    def names(self, is_transit: bool) -> tuple[str, ...] | None:
        """The fields in order; None is AWS's default format."""
        if self.log_format == "default":
            return None
        if self.log_format != "all":
            try:
                return Layout.parse(self.log_format).names
            except LayoutError as error:
                raise SetupError(f"log format: {error}") from None
        if is_transit:
            return TRANSIT_GATEWAY_DEFAULT_NAMES
        tags = {kind: len(keys) for kind, keys in self.tag_specifications()}
        wanted = {field for kind, count in tags.items() for field in _TAG_FIELDS[kind][1][:count]}
        every_tag = {field for _, fields in _TAG_FIELDS.values() for field in fields}
        return tuple(
            field.name
            for field in FIELDS
            if field.version != 6  # transit gateways only
            and field.version <= self.field_version
            # AWS refuses a tag field without the key of the tag that is to stand in it.
            and (field.name not in every_tag or field.name in wanted)
            and (self.ecs_fields or not field.name.startswith("ecs-"))
        )

    def log_format_of(self, is_transit: bool) -> str | None:
        names = self.names(is_transit)
        return None if names is None else " ".join(f"${{{name}}}" for name in names)


def flow_logs(
    things: Sequence[Watched],
    how: FlowLogOptions,
    /,
    *,
    stage_of: Callable[[Place], int],
    needs: Callable[[Place], tuple[str, ...]] = lambda place: (),
    **destination: Any,
) -> list[Resource]:
    """One FlowLog for each thing. `destination`: the fields that say where to, as they are or by place."""
    made: list[Resource] = []
    for thing in things:
        given = {key: value(thing.place) if callable(value) else value for key, value in destination.items()}
        made.append(
            FlowLog(
                id="FlowLog" + re.sub(r"[^0-9A-Za-z]", "", thing.resource_id.title()),
                place=thing.place,
                needs=needs(thing.place),
                stage=stage_of(thing.place),
                resource_type=thing.resource_type,
                resource_id=thing.resource_id,
                # A transit gateway's flow log takes no traffic type, and only 60 s (transit gateway guide).
                traffic=None if thing.is_transit else how.traffic,
                interval=60 if thing.is_transit else how.interval,
                log_format=how.log_format_of(thing.is_transit),
                tag_fields=() if thing.is_transit else how.tag_specifications(),
                **given,
            )
        )
    return made


def places(things: Sequence[Watched]) -> list[Place]:
    """Where the things are, each place once, in the order they were named."""
    return list(dict.fromkeys(thing.place for thing in things))


def format_notes(things: Sequence[Watched], options: FlowLogOptions) -> tuple[str, ...]:
    """What whoever creates these flow logs should know about their format."""
    names = [name for thing in things for name in options.names(thing.is_transit) or ()]
    notes = []
    if any(name.startswith("ecs-") for name in names):
        notes.append(
            "The format has the ECS fields: whoever creates the flow logs needs ecs:List* (ListClusters, "
            "ListContainerInstances, ListServices, ListTaskDefinitions, ListTasks) or leaves them out with "
            "--no-ecs-fields."
        )
    if any((options.names(thing.is_transit) is not None and not thing.is_transit) for thing in things):
        newest = max((f.version for f in FIELDS if f.name in set(names) and f.version != 6), default=2)
        if newest > 5:
            notes.append(
                f"The format has fields up to version {newest}. Where AWS answers 'unknown field' (China, GovCloud may "
                "be later), say --field-version 5."
            )
    return tuple(notes)
