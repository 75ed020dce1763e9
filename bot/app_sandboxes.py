"""The provider of sandboxes that the settings choose, and nothing of the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from bot.agents import conversations
from bot.doctor import Hosts
from bot.errors import ProviderAway, SettingsError
from bot.ports import Provider
from bot.settings import Settings
from sandbox.cgroups import Limits
from sandbox.daytona import DaytonaProvider
from sandbox.daytona_account import Account
from sandbox.daytona_network import network_of
from sandbox.daytona_snapshots import Size, build
from sandbox.docker import docker_provider
from sandbox.e2b import Account as E2BAccount
from sandbox.e2b import E2BProvider
from sandbox.e2b_network import network_of as e2b_network_of
from sandbox.egress_modes import EgressMode
from sandbox.egress_modes import hosts_of as hosts_of_mode
from sandbox.inside.egress import Rules
from sandbox.local import local_provider

log = logging.getLogger(__name__)


def provider_of(settings: Settings, bot: int = 0) -> Provider:
    """bot: the port of this machine's loopback where sandboxes on it find the bot.

    Raises ProviderUnavailable where its SDK is not installed, SettingsError for what it cannot do.
    """
    match settings.sandbox.provider:
        case "local":
            return _local(settings, bot)
        case "daytona":
            return _daytona(settings)
        case "e2b":
            return _e2b(settings)
        case "docker":
            return _docker(settings, bot)


async def works_here(provider: Provider) -> None:
    """One that is away now is no reason not to start: turns wait for it. Raises ProviderUnavailable."""
    try:
        await provider.check()
    except ProviderAway as away:
        log.warning("%s It is asked again when a sandbox is needed.", away)
    if provider.warning:
        log.warning("%s", provider.warning)


def hosts_of(settings: Settings) -> Hosts:
    """What a sandbox of these settings shall and shall not reach."""
    egress, sandbox = settings.egress, settings.sandbox
    refused = "" if sandbox.provider == "local" and sandbox.unsafe else _refused(egress.mode, egress.allow)
    if egress.mode != "list":
        return Hosts("https://registry.npmjs.org/", refused)
    named = [host for host in egress.allow if "*" not in host and host.endswith(":443")]
    return Hosts(f"https://{named[0].removesuffix(':443')}/" if named else "", refused)


def _refused(mode: EgressMode, allow: Sequence[str]) -> str:
    """A URL that no rule lets through. A host that is there, if there is one: where its name could not be
    resolved, that a box fails to reach it would prove nothing."""
    rules = Rules({"allow": hosts_of_mode(mode, allow)})
    for host in ("example.com", "www.iana.org", "www.kernel.org"):
        if not rules.names(host, 443):
            return f"https://{host}/"
    return "http://169.254.169.254/"  # whatever the rules say


def _beyond(settings: Settings) -> tuple[str, ...]:
    """What boxes in a cloud reach besides what the egress mode lets through: the operator's list, and the
    bot's own address where it lends code by one."""
    allow, code = settings.egress.allow, settings.code
    parts = urlsplit(code.url)
    if not (code.on_demand_from and parts.hostname):
        return allow
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if Rules({"allow": hosts_of_mode(settings.egress.mode, allow)}).names(parts.hostname, port):
        return allow
    return (*allow, f"{parts.hostname}:{port}")


def _local(settings: Settings, bot: int) -> Provider:
    return local_provider(
        settings.data_dir / "sandboxes",
        unsafe=settings.sandbox.unsafe,
        tools=settings.sandbox.tools,
        mode=settings.egress.mode,
        allow=settings.egress.allow,
        loopback=settings.egress.loopback,
        ports_host=settings.sandbox.ports_host,
        limits=Limits(settings.sandbox.memory, settings.sandbox.pids, settings.sandbox.cpus),
        bot=bot,
        uids=settings.sandbox.uids,
        data_dir=settings.data_dir,
    )


def _elsewhere(settings: Settings, where: str, instead: str) -> None:
    """Raises SettingsError for what only sandboxes on this machine have."""
    sandbox = settings.sandbox
    here = {
        "EGRESS_LOOPBACK": settings.egress.loopback,
        "SANDBOX_TOOLS": sandbox.tools,
        "SANDBOX_UNSAFE": sandbox.unsafe,
        "SANDBOX_UIDS": sandbox.uids,
        "SANDBOX_MEMORY": sandbox.memory,
        "SANDBOX_PIDS": sandbox.pids,
        "SANDBOX_CPUS": sandbox.cpus,
    }
    for name, value in here.items():
        if value:
            raise SettingsError(
                f"SANDPIPER_{name} is for sandboxes on this machine: those at {where} have no such thing.",
                f"Leave it out. What they have, {instead}.",
            )


def _daytona(settings: Settings) -> Provider:
    about, sandbox = settings.daytona, settings.sandbox
    _elsewhere(settings, "Daytona", "their snapshot says, or SANDPIPER_DAYTONA_EXTRA")
    if sandbox.ports_host:
        raise SettingsError(
            "SANDPIPER_SANDBOX_PORTS_HOST leads to ports through this machine; Daytona signs links to them.",
            "Leave it out.",
        )
    return DaytonaProvider(
        Account(
            about.api_key.get_secret_value(),
            about.api_url,
            target=about.target,
            snapshot=about.snapshot,
            image=about.image,
            idle_stop=sandbox.idle_stop,
            auto_archive=about.auto_archive,
            auto_delete=about.auto_delete,
            extra=about.extra,
            network=network_of(settings.egress.mode, _beyond(settings)),
        )
    )


def _e2b(settings: Settings) -> Provider:
    about = settings.e2b
    _elsewhere(settings, "E2B", "their template says, or SANDPIPER_E2B_EXTRA")
    return E2BProvider(
        E2BAccount(
            about.api_key.get_secret_value(),
            domain=about.domain,
            api_url=about.api_url,
            sandbox_url=about.sandbox_url,
            template=about.template,
            life=settings.sandbox.idle_stop,
            network=e2b_network_of(settings.egress.mode, _beyond(settings)),
            extra=about.extra,
        ),
        ports_host=settings.sandbox.ports_host,
    )


def _docker(settings: Settings, bot: int) -> Provider:
    about, sandbox = settings.docker, settings.sandbox
    local = {"TOOLS": sandbox.tools, "UNSAFE": sandbox.unsafe, "UIDS": sandbox.uids}
    for name, value in local.items():
        if value:
            raise SettingsError(
                f"SANDPIPER_SANDBOX_{name} is for local sandboxes: containers have no such thing.",
                "Leave it out. What containers have, SANDPIPER_DOCKER_IMAGE says.",
            )
    return docker_provider(
        settings.data_dir / "sandboxes" / "docker",
        host=about.host,
        image=about.image,
        runtime=about.runtime,
        user=about.user,
        mode=settings.egress.mode,
        allow=settings.egress.allow,
        loopback=settings.egress.loopback,
        ports_host=sandbox.ports_host,
        limits=Limits(settings.sandbox.memory, settings.sandbox.pids, settings.sandbox.cpus),
        bot=bot,
        private=conversations.ALL,
    )


async def build_snapshot(
    settings: Settings, text: str, name: str, size: Size, say: Callable[[str], None]
) -> None:
    """Have the account at Daytona build a Dockerfile. Raises SandpiperError."""
    about = settings.daytona
    key = about.api_key.get_secret_value()
    if not key:
        raise SettingsError("There is no key of Daytona.", "Set SANDPIPER_DAYTONA_API_KEY.")
    await build(Account(key, about.api_url, target=about.target), text, name, size, say)
