"""The inventory as attribution asks it: whose an interface is, and what it is called.

In: a snapshot, the exporters, interface indexes. Out: a Directory, asked once per distinct value, and the names of all
interfaces, gateways among them. Ids that the snapshot does not know are noted. Never: calls to AWS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edfn_agent.delivery import Origin
from edfn_agent.enrich import Interface
from edfn_agent.inventory import model
from edfn_agent.inventory.exporters import UNATTRIBUTED, Exporter, Exporters
from edfn_agent.inventory.sources import SourcePlan
from edfn_agent.inventory.transit import beyond_transit_gateways

Indexes = Callable[[Mapping[str, str]], Mapping[str, int]]
"""Interface keys with names -> their indexes, stable for ever (state.interfaces.allocate)."""


class InventoryDirectory:
    """Who is who, from a snapshot. Ids that it does not know are noted in `unknown`, which asks for a new snapshot."""

    by_account = False

    def __init__(
        self, snapshot: model.Snapshot, exporters: Exporters, indexes: Indexes, plan: SourcePlan | None = None
    ) -> None:
        self._plan = plan
        self._snapshot = snapshot
        self._exporters = exporters
        self._indexes = indexes
        self.unattributed = exporters.table.unattributed
        self.unknown: set[str] = set()
        self._labels = interface_labels(snapshot)
        names = {key: _named(label, key.partition(" ")[0]) for key, label in self._labels.items()}
        self._interfaces = {key: Interface(index, names[key]) for key, index in indexes(names).items()}

    def exporter_of_vpc(self, vpc_id: str) -> Exporter | None:
        return self._exporters.table.get(vpc_id) if vpc_id in self._snapshot.vpc_by_id else None

    def exporter_of_unknown_vpc(self, vpc_id: str) -> Exporter | None:
        self.unknown.add(vpc_id)
        return self._exporters.exporter(vpc_id)

    def exporter_of_transit_gateway(self, tgw_id: str) -> Exporter | None:
        return self._exporters.exporter(tgw_id)

    def exporter_of_interface(self, interface_id: str) -> Exporter | None:
        interface = self._snapshot.interface_by_id.get(interface_id)
        if interface is None:
            self.unknown.add(interface_id)
            return None
        return self.exporter_of_vpc(interface.vpc_id)

    def exporter_of_subnet(self, subnet_id: str) -> Exporter | None:
        return self.exporter_of_vpc(self._snapshot.vpc_of_subnet.get(subnet_id, ""))

    def exporter_of_account(self, account_id: str, vpc_id: str) -> Exporter | None:
        return None

    def home_of_origin(self, origin: Origin) -> str | None:
        return self._plan.home_of(origin) if self._plan is not None else None

    def owns(self, origin: Origin, exporter: Exporter) -> bool:
        """Whether flows of this exporter are taken from there, or another source has them."""
        return self._plan is None or exporter.key == UNATTRIBUTED or self._plan.owns(origin, exporter.key)

    def label(self, interface_id: str) -> str:
        """What people call it, without its id."""
        return self._labels.get(interface_id, "")

    def interface(self, interface_id: str) -> Interface:
        known = self._interfaces.get(interface_id)
        if known is None:
            self.unknown.add(interface_id)
            index = self._indexes({interface_id: interface_id})[interface_id]
            known = self._interfaces[interface_id] = Interface(index, interface_id)
        return known


def interface_labels(snapshot: model.Snapshot) -> dict[str, str]:
    """What people call every interface there is, by key: ENIs by id, gateways by id and, where shared, VPC."""
    served = _names_of_things(snapshot)
    labels = {each.interface_id: _label(each, served) for each in snapshot.interfaces}
    beyond = beyond_transit_gateways(snapshot)
    peerings = {each.peering_id: each for each in snapshot.peerings}
    for table in snapshot.route_tables:
        for route in table.routes:
            key = gateway_key(route.target, table.vpc_id)
            if not key or key in labels:
                continue
            far = _far_of_peering(snapshot, peerings.get(route.target), table.vpc_id)
            if (route.target, table.vpc_id) in beyond:
                resources = beyond[route.target, table.vpc_id].resources
                # of several none is the name of the way there
                far = resource_name(snapshot, *resources) if len(resources) == 1 else ""
            labels[key] = f"to {far}" if far else served.get(route.target, "")
    for attachment in snapshot.transit_gateway_attachments:
        labels.setdefault(attachment.attachment_id, attachment.name or attachment.resource_id)
    return labels


def _names_of_things(snapshot: model.Snapshot) -> dict[str, str]:
    """Instances, gateways, endpoints and peerings by id: the Name tag, else what tells them apart."""
    named = {each.instance_id: each.name or each.instance_id for each in snapshot.instances}
    named |= {each.nat_gateway_id: each.name or each.nat_gateway_id for each in snapshot.nat_gateways}
    named |= {each.internet_gateway_id: each.name for each in snapshot.internet_gateways}
    named |= {each.endpoint_id: each.name or each.service.rpartition(".")[2] for each in snapshot.endpoints}
    named |= {each.peering_id: each.name for each in snapshot.peerings}
    return named


def _label(interface: model.Interface, served: Mapping[str, str]) -> str:
    """The name of what it serves, else its own, else what kind of thing it is."""
    kind = "" if interface.type == "interface" else interface.type
    return served.get(interface.serves, "") or interface.name or interface.serves or kind


def _named(label: str, key: str) -> str:
    return f"{label} {key}" if label and label != key else key


def gateway_key(target: str, vpc_id: str) -> str:
    """The key of a route's target as an interface of a VPC; "" for what is none (local, an ENI has its own)."""
    if not target or target == "local":
        return ""
    return f"{target} {vpc_id}" if target.startswith(("tgw-", "pcx-", "vgw-", "arn:")) else target


def _far_of_peering(snapshot: model.Snapshot, peering: model.Peering | None, vpc_id: str) -> str:
    """The name of the VPC behind a peering connection."""
    if peering is None:
        return ""
    far = peering.peer_vpc_id if peering.vpc_id == vpc_id else peering.vpc_id
    name = resource_name(snapshot, far)
    return "" if name == far and peering.name else name


def resource_name(snapshot: model.Snapshot, id: str) -> str:
    """The name of a VPC, where there is one; else the id of whatever it is."""
    vpc = snapshot.vpc_by_id.get(id)
    return vpc.name if vpc is not None and vpc.name else id
