"""Exporters without AWS: for `export`, where files are all there is.

In: a map from VPC, interface, transit gateway or account to exporter address. Out: a Directory for the Enricher.
Domains and interface indexes follow from the ids alone, so that two runs over a VPC agree with nothing stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from pathlib import Path

from edfn_agent.delivery import Origin
from edfn_agent.enrich import NO_INTERFACE, Interface
from edfn_agent.inventory.exporters import Exporter
from edfn_agent.numbers import free_number

UNATTRIBUTED = "unattributed"
DEFAULT_POOL = IPv4Network("100.64.0.0/16")
"""Shared address space (RFC 6598): where exporters get an address that nobody named one for."""

MOST_EXPORTERS = 60_000
"""VPCs of one run that are told apart; more are `unattributed`. The pool has room for as many, and a log that names
another VPC in every line cannot make the memory grow with its length."""

MOST_INTERFACES = 1 << 18
"""Interfaces of one run that have a number; those beyond have 0, unknown, for the same reason."""

MOST_INDEX = 0x7FFFFFFF
"""Interface indexes are 1 to 2**31-1, as ifIndex is (RFC 2863)."""

_KEY = re.compile(r"(vpc|eni|tgw)-[0-9a-f]+|[0-9]{12}")


class MapError(ValueError):
    """An exporter map that cannot be used; the text names the file and every fault in it."""


def read_map(path: Path) -> dict[str, IPv4Address]:
    """A JSON or YAML mapping of vpc-id, interface-id, tgw-id or account-id to address."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Numbers stay text: an account id may begin with zeros."""

    Loader.yaml_implicit_resolvers = {}
    try:
        text = path.read_text()
        data = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader)
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise MapError(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise MapError(f"{path}: expected a mapping of vpc-id, interface-id or account-id to an IPv4 address")
    result: dict[str, IPv4Address] = {}
    faults = []
    for key, value in data.items():
        try:
            if not _KEY.fullmatch(str(key)):
                raise ValueError("is no vpc-id, interface-id, tgw-id or account-id of 12 digits")
            result[str(key)] = exporter_address(str(value))
        except ValueError as error:
            faults.append(f"{path}: {key}: {error}")
    if faults:
        raise MapError("\n".join(faults))
    return result


def exporter_address(text: str) -> IPv4Address:
    """An address that may be an exporter's. Raises ValueError."""
    try:
        address = IPv4Address(text)
    except AddressValueError:
        raise ValueError(f"{text!r} is not an IPv4 address") from None
    if address.is_multicast or address.is_unspecified or int(address) >= 0xF0000000:
        raise ValueError(f"{address} is not a unicast address")
    return address


class MappedDirectory:
    """Exporters from a map; the rest get `default`, or an address of the pool that follows from their id."""

    def __init__(
        self,
        addresses: Mapping[str, IPv4Address] | None = None,
        default: IPv4Address | None = None,
        pool: IPv4Network = DEFAULT_POOL,
    ) -> None:
        self._addresses = dict(addresses or {})
        self.by_account = any(key.isdigit() for key in self._addresses)
        self._finer = self.by_account or any(key.startswith("eni-") for key in self._addresses)
        self._default = default
        self._pool = pool
        self._exporters: dict[str, Exporter] = {}
        self._domains: set[int] = set()
        first = int(pool.network_address)
        self._pooled = {int(address) - first for address in self._addresses.values()}  # offsets that are taken
        self._indexes: dict[int, str] = {}
        self._interfaces: dict[str, Interface] = {}
        self.unattributed = self._exporter(UNATTRIBUTED)

    def exporter_of_vpc(self, vpc_id: str) -> Exporter | None:
        """None where an address for the interface or the account may be found, and no better one is known."""
        return self._exporter(vpc_id) if vpc_id in self._addresses or not self._finer else None

    def exporter_of_unknown_vpc(self, vpc_id: str) -> Exporter | None:
        return self._exporter(vpc_id)

    def exporter_of_transit_gateway(self, tgw_id: str) -> Exporter | None:
        return self._exporter(tgw_id)

    def exporter_of_interface(self, interface_id: str) -> Exporter | None:
        """Interfaces with one address are one exporter."""
        address = self._addresses.get(interface_id)
        return None if address is None else self._exporter(str(address), address)

    def exporter_of_subnet(self, subnet_id: str) -> Exporter | None:
        return None

    def exporter_of_account(self, account_id: str, vpc_id: str) -> Exporter | None:
        """An account's address; its VPCs share it, and each is still a domain of its own."""
        address = self._addresses.get(account_id)
        return None if address is None else self._exporter(vpc_id or account_id, address)

    def home_of_origin(self, origin: Origin) -> str | None:
        return None

    def owns(self, origin: Origin, exporter: Exporter) -> bool:
        return True

    def interface(self, interface_id: str) -> Interface:
        known = self._interfaces.get(interface_id)
        if known is None and len(self._interfaces) >= MOST_INTERFACES:
            return NO_INTERFACE
        if known is None:
            index = free_number(interface_id, MOST_INDEX, self._indexes)
            self._indexes[index] = interface_id
            known = self._interfaces[interface_id] = Interface(index, interface_id)
        return known

    def _exporter(self, key: str, address: IPv4Address | None = None) -> Exporter:
        known = self._exporters.get(key)
        if known is None and len(self._exporters) >= MOST_EXPORTERS:
            return self.unattributed
        if known is None:
            domain = free_number(key, 0xFFFFFF, self._domains)
            self._domains.add(domain)
            address = address or self._addresses.get(key) or self._default
            origin = "configured"
            if address is None:
                address, origin = self._from_pool(key), "pool"
            known = self._exporters[key] = Exporter(
                key=key, address=address, address_origin=origin, domain=domain, name=key
            )
        return known

    def _from_pool(self, key: str) -> IPv4Address:
        offset = free_number(key, max(1, self._pool.num_addresses - 2), self._pooled)
        self._pooled.add(offset)
        return self._pool.network_address + offset
