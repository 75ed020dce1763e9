"""Our egress modes in the words of E2B's network rules.

They know names and IPv4 addresses, and ports only in this: a name is looked for in TLS on port 443 and in
HTTP on port 80, and nowhere else. What is allowed goes before what is denied.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from bot.errors import SettingsError
from sandbox.egress_modes import EgressMode, hosts_of
from sandbox.inside.egress import is_public, split_host

EVERYTHING = "0.0.0.0/0"
PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
BY_NAME = (80, 443)
NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{2,}")
LIST = "SANDPIPER_EGRESS_ALLOW"


def network_of(mode: EgressMode, allow: Sequence[str]) -> dict[str, list[str]]:
    """Raises SettingsError that names the variable, where E2B has no such rule."""
    hosts = [split_host(entry) for entry in hosts_of(mode, allow)]
    if ("*", 443) in hosts:
        return {"deny_out": list(PRIVATE)}
    for host, port in hosts:
        _check(host, port)
    return {"allow_out": sorted({host for host, _ in hosts}), "deny_out": [EVERYTHING]}


def _check(host: str, port: int) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not NAME.fullmatch(host):
            raise SettingsError(
                f"{LIST}: E2B takes no '{host}'.", "It takes names such as example.com or *.example.com."
            ) from None
        if port not in BY_NAME:
            raise SettingsError(
                f"{LIST}: E2B lets no host through by its name on port {port}, as in {host}:{port}.",
                "On other ports than 80 and 443, write the host's IPv4 address.",
            ) from None
        return
    if address.version == 6:
        raise SettingsError(f"{LIST}: E2B takes no IPv6 address such as {host}.", "Name the host instead.")
    if not is_public(host):
        raise SettingsError(f"{LIST}: {host} is no public address.", "No sandbox may reach it; take it out.")
