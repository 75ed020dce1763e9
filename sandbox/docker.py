"""Sandboxes in containers of a Docker engine on this machine.

A sandbox is a volume, with all that is kept, and the labels; its containers can be made again at any time,
and are when it is started with other settings than they were made with (docs/decisions/0017 and 0023).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from bot.errors import SandboxGone
from sandbox.cgroups import Limits
from sandbox.container import Engine, checked
from sandbox.container_box import VolumeBox
from sandbox.container_sandbox import DockerSandbox, Services
from sandbox.egress_modes import EgressMode, hosts_by_proxy, loopback_of
from sandbox.engine import ID, EngineClient
from sandbox.local_egress import Egress
from sandbox.machine import host_of
from sandbox.remote_ports import RemotePorts
from sandbox.unix_door import UnixDoors, connector


def docker_provider(
    directory: Path,
    *,
    host: str,
    image: str,
    runtime: str = "",
    user: str = "1000:1000",
    mode: EgressMode = "registries",
    allow: Sequence[str] = (),
    loopback: Sequence[str] = (),
    ports_host: str = "",
    limits: Limits | None = None,
    bot: int = 0,
    private: Sequence[str] = (),
) -> DockerProvider:
    """The provider that the operator's settings describe. private: as Engine's. Raises SettingsError that
    names the variable, ProviderUnavailable where the SDK is not installed."""
    engine = checked(Engine(host, image, runtime, user, limits or Limits(), bot, tuple(private)))
    services = (*loopback_of(loopback), *([bot] if bot else []))
    return DockerProvider(
        directory, engine, hosts_by_proxy(mode, allow), loopback=services, ports_host=ports_host
    )


class DockerProvider:
    """directory: of this machine, and the same path for the engine. allow: host:port patterns that boxes
    reach. loopback: ports of services on this machine that all boxes reach. mark: the label of all that is
    ours at the engine. ports_host: where people reach boxes' ports."""

    name = "docker"
    warning = ""
    separates_sessions = True
    shares_agents = False

    def __init__(
        self,
        directory: Path,
        engine: Engine,
        allow: Sequence[str],
        *,
        loopback: Sequence[int] = (),
        mark: str = "sandpiper",
        ports_host: str = "",
    ) -> None:
        self.directory = directory.absolute()
        self.engine = EngineClient(self.directory, engine, mark)
        self._services = Services(loopback, engine.bot)
        self._allow = tuple(allow)
        self._http = httpx.AsyncClient(transport=UnixDoors(self._socket_of), trust_env=False)
        self._ports = RemotePorts(ports_host, connector(self._socket_of))
        self._egress: dict[str, Egress] = {}
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.host = host_of(self.directory)

    async def check(self) -> None:
        await self.engine.check()

    async def create(self, labels: Mapping[str, str]) -> DockerSandbox:
        await self.engine.demand_disk()
        id = f"sandpiper-{secrets.token_hex(8)}"
        marked = {**labels, self.engine.mark: "sandbox"}
        with self.engine.told():
            await self.engine.client.volumes.create({"Name": id, "Labels": marked})
        sandbox = self._sandbox(id, marked)
        await sandbox.start()
        return sandbox

    async def find(self, labels: Mapping[str, str]) -> Sequence[DockerSandbox]:
        wanted = [self.engine.mark, *(f"{name}={value}" for name, value in labels.items())]
        with self.engine.told():
            volumes = (await self.engine.client.volumes.list(filters={"label": wanted}))["Volumes"] or []
        found = sorted(volumes, key=lambda one: (one["CreatedAt"], one["Name"]))
        return [self._sandbox(one["Name"], one["Labels"]) for one in found if ID.fullmatch(one["Name"])]

    async def get(self, id: str) -> DockerSandbox:
        if not ID.fullmatch(id):
            raise SandboxGone(f"There is no sandbox '{id}' in Docker.")
        about = await self.volume_box(id, {}).about()
        sandbox = self._sandbox(id, about["Labels"] or {})
        await sandbox.state()
        return sandbox

    async def close(self) -> None:
        """Containers and proxies go on by themselves."""
        await self._ports.close()
        await self._http.aclose()
        await self.engine.close()

    def volume_box(self, id: str, labels: Mapping[str, str]) -> VolumeBox:
        if id not in self._egress:
            self._egress[id] = Egress(self.directory / id / "out", self._allow, shared=True)
        return VolumeBox(self.engine, id, labels, self.directory / id, self._egress[id])

    def _sandbox(self, id: str, labels: Mapping[str, str]) -> DockerSandbox:
        volume = self.volume_box(id, labels)
        return DockerSandbox(self.engine, volume, self._http, self._ports, self._services)

    def _socket_of(self, host: str) -> Path | None:
        """host: a room's name."""
        id, _, room = host.rpartition("-")
        return self.directory / id / "doors" / room / "sock" if ID.fullmatch(id) else None
