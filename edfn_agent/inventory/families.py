"""What lies behind an address, seen from a place of a VPC: IPv4 and IPv6, each in its own kind of column.

In: who owns which address, the routes of each place. Out: for columns of places and addresses the slot of the owner in
the VPC, else that of the target of the longest route; 0 is nothing. A place is a VPC with a route table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edfn_agent.formats.batch import AddressColumn
from edfn_agent.inventory.addresses import Owned, Owners4, Owners6, halves
from edfn_agent.inventory.prefixes import VARIES, PrefixTable, Tables

Addresses = NDArray[Any]
"""The addresses of one family: uint32 each, or the two halves of IPv6. Zero is none."""


class Family(Protocol):
    def of(self, column: AddressColumn) -> Addresses: ...

    def is_primary(self, primary: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.bool_]:
        """Whether it is the interface's primary IPv4 address, by which flow logs show it whichever was used."""

    def owner(self, place: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.uint32]:
        """The interface of the VPC that has the address."""

    def find(self, place: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.uint32]:
        """The owner, else where the routes lead."""

    def service(self, addresses: Addresses) -> NDArray[np.uint32]:
        """The AWS service that publishes the address."""


class Four:
    """IPv4. Most of the address space is the same for a place octet by octet: internet, one gateway. So the first octet
    is looked up first; owners and routes only where it does not settle the matter. Octets that are alike for all places
    share a column, which keeps that table small."""

    def __init__(
        self,
        owned: Sequence[Owned],
        routes: Sequence[PrefixTable],
        vpc_of_place: NDArray[np.uint32],
        services: PrefixTable,
    ) -> None:
        self._owners = Owners4(owned)
        self._routes = Tables([each.stretches4 for each in routes], np.uint32)
        self._vpc_of_place = vpc_of_place
        by_octet = np.stack([each.blocks4(8) for each in routes])
        octets: dict[int, set[int]] = {}
        for vpc, network, _ in owned:
            if network.version == 4:
                octets.setdefault(vpc, set()).add(int(network.network_address) >> 24)
        for place, vpc in enumerate(vpc_of_place.tolist()):
            by_octet[place, list(octets.get(vpc, ()))] = VARIES
        # "this network" (RFC 1122, section 3.2.1.3) is behind nothing; an address that is absent is 0
        by_octet[:, 0] = 0
        columns, column_of_octet = np.unique(by_octet, axis=1, return_inverse=True)
        self._column_of_octet = column_of_octet.astype(np.intp)
        self._columns = np.uint32(columns.shape[1])
        self._by_column = np.ascontiguousarray(columns).reshape(-1)
        self.service = services.find4

    def of(self, column: AddressColumn) -> Addresses:
        return column.v4 if column.family.all() else np.where(column.family == 4, column.v4, np.uint32(0))

    def is_primary(self, primary: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = primary == addresses
        return found

    def owner(self, place: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.uint32]:
        return self._owners.find(self._vpc_of_place.take(place), addresses)

    def find(self, place: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.uint32]:
        at = self._column_of_octet.take(addresses >> np.uint32(24))
        at += place * self._columns
        found = self._by_column.take(at)
        rows = np.flatnonzero(found == VARIES)
        if len(rows):
            found[rows] = _owner_or_route(self, self._routes, place[rows], addresses[rows], addresses[rows])
        return found


class Six:
    """IPv6. Prefixes of routes are looked at up to 64 bits: no subnet of a VPC is smaller."""

    def __init__(
        self,
        owned: Sequence[Owned],
        routes: Sequence[PrefixTable],
        vpc_of_place: NDArray[np.uint32],
        services: PrefixTable,
    ) -> None:
        self._owners = Owners6(owned)
        self._routes = Tables([each.stretches6 for each in routes], np.uint64)
        self._vpc_of_place = vpc_of_place
        self._services = services

    def of(self, column: AddressColumn) -> Addresses:
        found = halves(column.v6) if column.v6 is not None else np.zeros((len(column.family), 2), np.uint64)
        if not column.family.all():
            found[column.family == 0] = 0
        return found

    def is_primary(self, primary: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.bool_]:
        return np.zeros(len(primary), np.bool_)

    def owner(self, place: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.uint32]:
        return self._owners.find(self._vpc_of_place.take(place), addresses)

    def find(self, place: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.uint32]:
        found = _owner_or_route(self, self._routes, place, addresses, addresses[:, 0])
        found *= addresses.any(axis=1)
        return found

    def service(self, addresses: Addresses) -> NDArray[np.uint32]:
        return np.array([self._services.find6(upper << 64 | lower) for upper, lower in addresses.tolist()], np.uint32)


def _owner_or_route(
    family: Family, routes: Tables, place: NDArray[np.uint32], addresses: Addresses, prefixes: NDArray[Any]
) -> NDArray[np.uint32]:
    """`prefixes`: the part of the addresses that routes are looked up by."""
    found = family.owner(place, addresses)
    rows = np.flatnonzero(found == 0)
    if len(rows):
        found[rows] = routes.find(place[rows], prefixes[rows])
    return found
