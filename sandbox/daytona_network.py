"""Our egress modes in the words of Daytona's network rules.

Its API (network-validation.util.ts of v0.190) takes one of two lists: at most 20 names, with a leading `*.`
or without, or at most 10 IPv4 networks. Neither knows ports.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.errors import SettingsError
from sandbox.egress_modes import REGISTRIES, EgressMode, hosts_of
from sandbox.inside.egress import matches, split_host

MOST_NAMES = 20
MOST_NETWORKS = 10
NAME = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,}")
# Names that stand for several of REGISTRIES, or they would be too many. Each belongs to one owner.
WIDER = ("*.anthropic.com", "*.openai.com", "*.crates.io", "*.golang.org", "*.rubygems.org")
LIST = "SANDPIPER_EGRESS_ALLOW"


@dataclass(frozen=True, slots=True)
class Network:
    """What boxes reach: these names or these IPv4 networks, or everything where there are neither.

    warning: what of the operator's wish Daytona cannot keep; "" = nothing.
    """

    names: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    warning: str = ""

    def wanted(self) -> Mapping[str, Any]:
        """As parameters of a new box."""
        if self.names:
            return {"domain_allow_list": ",".join(self.names)}
        if self.networks:
            return {"network_allow_list": ",".join(self.networks)}
        return {"network_block_all": False}

    def holds(self, block_all: bool | None, names: str | None, networks: str | None) -> bool:
        """Whether a box has these rules and no others."""
        there = (bool(block_all), _parts(names), _parts(networks))
        return there == (False, set(self.names), set(self.networks))


OPEN = Network()


def network_of(mode: EgressMode, allow: Sequence[str]) -> Network:
    """Raises SettingsError that names the variable, where Daytona has no such rule."""
    entries = [split_host(entry) for entry in hosts_of(mode, allow)]
    own = [split_host(entry) for entry in allow]
    ports = sorted({port for _, port in own if port != 443})
    warning = f"Daytona's rules have no ports: hosts of {LIST} are reached on all of theirs." if ports else ""
    hosts = list(dict.fromkeys(host for host, _ in entries))
    if "*" in hosts:
        return Network(warning=warning)
    addresses = [host for host in hosts if _address(host)]
    if addresses and len(addresses) < len(hosts):
        raise SettingsError(
            f"{LIST} names the address {addresses[0]}: Daytona keeps to names or to addresses, not to both.",
            "Name hosts, or use SANDPIPER_EGRESS_MODE=list with addresses alone.",
        )
    if addresses:
        return Network(networks=_few([_network(host) for host in addresses], MOST_NETWORKS), warning=warning)
    for host in hosts:
        if not NAME.fullmatch(host):
            raise SettingsError(
                f"{LIST}: Daytona takes no '{host}'.", "It takes names such as example.com or *.example.com."
            )
    if mode == "registries":
        known = [split_host(entry)[0] for entry in REGISTRIES]
        hosts = [*WIDER, *known, *(host for host, _ in own)]
    return Network(names=_few(_least(hosts), MOST_NAMES), warning=warning)


def _least(hosts: Sequence[str]) -> list[str]:
    """Without those that another one stands for."""
    unique = list(dict.fromkeys(hosts))
    stars = [host for host in unique if host.startswith("*.")]
    return [host for host in unique if not any(star != host and matches(star, host) for star in stars)]


def _few(entries: list[str], most: int) -> tuple[str, ...]:
    if len(entries) > most:
        raise SettingsError(
            f"Daytona's rules take {most} entries; SANDPIPER_EGRESS_MODE and {LIST} make {len(entries)}.",
            f"Use SANDPIPER_EGRESS_MODE=list with {most} hosts at most; *.example.com stands for many.",
        )
    return tuple(entries)


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _network(host: str) -> str:
    if ipaddress.ip_address(host).version == 6:
        raise SettingsError(
            f"{LIST}: Daytona takes no IPv6 address such as {host}.", "Name the host instead."
        )
    return f"{host}/32"


def _parts(text: str | None) -> set[str]:
    return {part.strip() for part in (text or "").split(",") if part.strip()}
