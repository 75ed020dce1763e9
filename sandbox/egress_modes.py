"""Which hosts boxes may reach, in each mode: the same for every provider that can keep to it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from bot.errors import SettingsError
from sandbox.inside.egress import ALLOW_SETTING, LOOPBACK_SETTING, is_public, literal, plain, split_host

EgressMode = Literal["open", "registries", "list"]

LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
HOST = re.compile(rf"\*|(\*\.)?{LABEL}(\.{LABEL})*\.?")

# Where agents' models live, and where builds and tests fetch what they need.
REGISTRIES = (
    "api.anthropic.com:443",
    "console.anthropic.com:443",
    "platform.claude.com:443",
    "api.openai.com:443",
    "auth.openai.com:443",
    "chatgpt.com:443",
    "openrouter.ai:443",
    "generativelanguage.googleapis.com:443",
    "models.dev:443",
    "registry.npmjs.org:443",
    "registry.yarnpkg.com:443",
    "pypi.org:443",
    "files.pythonhosted.org:443",
    "crates.io:443",
    "index.crates.io:443",
    "static.crates.io:443",
    "proxy.golang.org:443",
    "sum.golang.org:443",
    "rubygems.org:443",
    "index.rubygems.org:443",
    "repo.maven.apache.org:443",
    "repo1.maven.org:443",
    "plugins.gradle.org:443",
    "repo.packagist.org:443",
)
# What each mode of SANDPIPER_EGRESS_MODE lets through besides the operator's own list.
MODES: Mapping[EgressMode, tuple[str, ...]] = {"open": ("*:443",), "registries": REGISTRIES, "list": ()}


def hosts_of(mode: EgressMode, allow: Sequence[str]) -> tuple[str, ...]:
    """What the operator's settings let through, as host:port. Raises SettingsError, naming the variable."""
    for entry in allow:
        try:
            split_host(entry)
        except ValueError as error:
            raise SettingsError(f"{ALLOW_SETTING}: {error}.", "Write it as example.com:443.") from error
        written = entry.strip().lower().rpartition(":")[0]
        if not HOST.fullmatch(written) and not _address(written.strip("[]")):
            raise SettingsError(
                f"{ALLOW_SETTING}: '{entry.strip()}' names no host that there can be.",
                "Write it as example.com:443, or *.example.com:443 for all that are below it.",
            )
    if mode == "list" and not allow:
        raise SettingsError(
            "SANDPIPER_EGRESS_ALLOW is empty, and SANDPIPER_EGRESS_MODE=list lets nothing else through.",
            "Name at least the host of your agents' model, as in api.anthropic.com:443.",
        )
    return (*MODES[mode], *allow)


def hosts_by_proxy(mode: EgressMode, allow: Sequence[str]) -> tuple[str, ...]:
    """The same where our own proxy keeps to it, which leads to no private address whatever an entry says.
    Raises SettingsError."""
    hosts = hosts_of(mode, allow)
    for host, port in map(split_host, allow):
        address = "127.0.0.1" if f".{host}".endswith(".localhost") else literal(host)
        if address and not is_public(address):
            here = plain(address).is_loopback
            raise SettingsError(
                f"{ALLOW_SETTING}: {host} is no public address, and no entry leads to another.",
                f"Name a service of this machine as {LOOPBACK_SETTING}=127.0.0.1:{port}."
                if here
                else "No sandbox may reach it; take it out.",
            )
    return hosts


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def loopback_of(services: Sequence[str]) -> tuple[int, ...]:
    """The ports of the services on this machine that the operator names. Raises SettingsError."""
    ports = []
    for service in services:
        host, _, port = service.rpartition(":")
        if host not in ("127.0.0.1", "localhost") or not port.isdecimal() or not 0 < int(port) < 65536:
            raise SettingsError(
                f"SANDPIPER_EGRESS_LOOPBACK: '{service}' is no service on this machine's loopback.",
                "Write it as 127.0.0.1:<port>.",
            )
        ports.append(int(port))
    return tuple(ports)
