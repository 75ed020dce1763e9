"""Which hosts boxes may reach, in each mode: the same for every provider that can keep to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from bot.errors import SettingsError
from sandbox.inside.egress import split_host

EgressMode = Literal["open", "registries", "list"]

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
    try:
        for entry in allow:
            split_host(entry)
    except ValueError as error:
        raise SettingsError(f"SANDPIPER_EGRESS_ALLOW: {error}.", "Write it as example.com:443.") from error
    if mode == "list" and not allow:
        raise SettingsError(
            "SANDPIPER_EGRESS_ALLOW is empty, and SANDPIPER_EGRESS_MODE=list lets nothing else through.",
            "Name at least the host of your agents' model, as in api.anthropic.com:443.",
        )
    return (*MODES[mode], *allow)


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
