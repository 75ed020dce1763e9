"""Sandboxes in containers of a Docker engine on this machine. The only file that knows its SDK (aiodocker),
which is an extra: it is imported when it is used.

A sandbox is a volume, with the home and the labels; its container can be made again at any time, and is when
it is started with other settings than it was made with (docs/decisions/0017).

    <directory>/engine       the engine's own name for itself, so that another one is not taken for it
                <id>/out     the egress proxy; out/box, with its socket, is in the container
                     door    in the container too: the supervisor's socket
                     etc     files of the container's /etc
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import httpx

from bot.errors import (
    ProviderAway,
    ProviderUnavailable,
    SandboxError,
    SandboxFull,
    SandboxGone,
    SandboxNotRunning,
    SandboxUnreachable,
)
from bot.models import DeniedHost, Launch, SandboxState
from sandbox.box import Address, Said
from sandbox.cgroups import Limits
from sandbox.container import (
    DOOR,
    MADE_OF,
    OUT,
    ROOT,
    Engine,
    checked,
    container,
    fit,
    home_archive,
    lay_out,
    state_of,
)
from sandbox.container_errors import in_our_words
from sandbox.container_exec import UPLOAD, listen, pieces, that_says_its_end
from sandbox.egress_modes import EgressMode, hosts_of, loopback_of
from sandbox.local_egress import Egress
from sandbox.machine import host_of
from sandbox.registry_login import Login, login_of
from sandbox.remote import RemoteSandbox
from sandbox.remote_ports import RemotePorts
from sandbox.remote_supervisor import DOOR_PORT, persistently
from sandbox.unix_door import UnixDoors, connector

log = logging.getLogger(__name__)

PULL_WITHIN = 1800.0  # seconds
TRANSFER_WITHIN = 600.0
LOOK_WITHIN = 60.0
STOP_GRACE = 5  # seconds
ID = re.compile(r"sandpiper-[0-9a-f]{16}")

# Version 2 of control groups, and version 1.
KILLS = "cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null; true"


class DockerBox:
    signer = None

    def __init__(self, provider: DockerProvider, id: str, labels: Mapping[str, str]) -> None:
        self._provider = provider
        self.id = id
        self.labels: Mapping[str, str] = {k: v for k, v in labels.items() if k != provider.mark}
        self.place = provider.directory / id
        self.egress = provider.egress_of(id)
        self.reserved = provider.led
        self.bot = provider.engine.bot

    async def state(self) -> SandboxState:
        await self._provider.labels_of(self.id)
        return state_of(await self._show())

    async def start(self) -> None:
        await self._provider.labels_of(self.id)
        about = await self._show()
        await self._way_out()
        if state_of(about) is SandboxState.RUNNING:
            return
        with self._told():
            if about and about["State"].get("Paused"):
                await self._container().unpause()
            else:
                await self._make(about)
                # Before each start, for whoever made the container may have failed before this.
                await self._container().put_archive(ROOT, home_archive(self._provider.engine))
                await self._container().start()
        if (await self.run(f"test -S {OUT}/proxy.sock", timeout=LOOK_WITHIN)).code != 0:
            raise SandboxError(
                f"The Docker engine does not see {self.place}, where the sandbox's way out is.",
                "Bot and engine have to share a machine, and SANDPIPER_DATA_DIR one path on it.",
            )

    async def stop(self) -> None:
        await self._provider.labels_of(self.id)
        with self._told(404):
            await self._container().stop(t=STOP_GRACE)
        await self.egress.stop()

    async def delete(self) -> None:
        await self._provider.labels_of(self.id)
        with contextlib.suppress(SandboxError):  # what the box's user made there, only that user may remove
            await self.run(f"rm -rf {DOOR}/*", timeout=LOOK_WITHIN)
        with self._told(404):
            await self._container().delete(force=True)
        await self._provider.clear(self.id)
        with self._told(404):
            await (await self._provider.client.volumes.get(self.id)).delete()

    async def touch(self, idle_stop: float) -> None:
        """It does not stop itself; but the proxy beside it can have died under it."""
        if await self.state() is SandboxState.RUNNING:
            await self._way_out()

    async def run(self, command: str, *, timeout: float) -> Said:
        said = bytearray()
        code = await self._exec(("sh", "-c", command), said, timeout=timeout)
        return Said(code, said.decode(errors="replace"))

    async def upload(self, content: bytes | Path, path: str) -> None:
        """By the box's own user. The engine's archives are root's hand, and miss what is a tmpfs."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        argv = ("sh", "-c", UPLOAD, "upload", path, str(size))
        said = bytearray()
        code = await self._exec(argv, said, stdin=pieces(content), timeout=TRANSFER_WITHIN)
        if code == 0:
            return
        why = (said.decode(errors="replace").strip() or f"exit code {code}").splitlines()[-1]
        if "No space left" in why or "quota" in why.lower():
            raise SandboxFull(f"There is no space left for {path}.", "Delete files in the sandbox's home.")
        raise SandboxError(f"{path} could not be written: {why}.")

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        argv = ("sh", "-c", 'head -c "$1" -- "$2" 2>/dev/null', "download", str(limit + 1), path)
        with target.open("wb") as file:
            code = await self._exec(argv, file.write, timeout=TRANSFER_WITHIN)
        if code != 0:
            raise SandboxError(f"{path} in the sandbox cannot be read.")

    async def door(self, port: int) -> Address | None:
        return Address(f"http://{self.id}") if port == DOOR_PORT else None

    # how

    def _container(self) -> Any:
        return self._provider.client.containers.container(self.id)

    def _told(self, *passes: int) -> contextlib.AbstractContextManager[None]:
        return told(self._provider.engine.host, *passes)

    async def _show(self) -> dict[str, Any] | None:
        with self._told(404):
            return dict(await self._container().show())
        return None

    async def _way_out(self) -> None:
        lay_out(self.place, self._provider.engine)
        await self.egress.ensure(self.services())

    def services(self, more: Sequence[int] = ()) -> tuple[str, ...]:
        """What of this machine it reaches: what the operator named, and these ports."""
        self._provider.led.update(more)
        return tuple(f"127.0.0.1:{port}" for port in dict.fromkeys((*self._provider.loopback, *more)))

    async def _make(self, about: dict[str, Any] | None) -> None:
        """Have a container that is made as the settings say."""
        try:
            image = await self._provider.image()
        except SandboxError as error:
            if about is None:
                raise
            log.warning("sandbox %s starts as it was made: %s", self.id, error)
            return
        labels = {**self.labels, self._provider.mark: "sandbox"}
        wanted = container(self._provider.engine, image, self.id, labels, self.place)
        if about is not None:
            if about["Config"]["Labels"].get(MADE_OF) == wanted["Labels"][MADE_OF]:
                return
            with self._told(404):
                await self._container().delete(force=True)
        with self._told(409):  # made by another bot just now
            await self._provider.client.containers.create(wanted, name=self.id)

    async def _exec(
        self,
        argv: Sequence[str],
        said: bytearray | Callable[[bytes], object],
        *,
        stdin: AsyncIterator[bytes] | None = None,
        timeout: float,
    ) -> int:
        """Run a program as the box's user; its exit code. said: takes its stdout, or if it is a bytearray
        also its stderr."""
        word = secrets.token_hex(8)
        command = that_says_its_end(argv, word)
        try:
            async with asyncio.timeout(timeout):
                with self._told():
                    made = await self._container().exec(command, stdin=stdin is not None)
                    async with made.start() as stream:
                        code = await listen(stream, said, stdin, word)
        except (SandboxError, TimeoutError) as error:
            await self._must_run()
            if isinstance(error, SandboxError):
                raise
            raise SandboxUnreachable(f"A command in {self.id} took longer than {timeout:g} s.") from error
        if code is None:
            await self._must_run()
            raise SandboxUnreachable(f"The connection to a command in {self.id} was lost.")
        return code

    async def _must_run(self) -> None:
        if await self.state() is not SandboxState.RUNNING:
            raise SandboxNotRunning(f"The sandbox {self.id} is stopped.")


class DockerSandbox(RemoteSandbox):
    def __init__(self, box: DockerBox, client: httpx.AsyncClient, ports: RemotePorts) -> None:
        super().__init__(box, client, host="127.0.0.1", socket=f"{DOOR}/sock", ports=ports)
        self._docker = box

    async def denied_hosts(self, since: float) -> tuple[DeniedHost, ...]:
        return self._docker.egress.denied(since)

    async def memory_kills(self) -> int:
        said = await persistently(lambda: self._docker.run(KILLS, timeout=LOOK_WITHIN))
        found = re.search(r"^oom_kill (\d+)$", said.output, re.MULTILINE)
        return int(found[1]) if found else 0

    async def _way_out(self, launch: Launch) -> Sequence[str]:
        if not self._docker.place.exists():  # deleted, perhaps by another bot
            await self._docker.state()
        services = self._docker.services(launch.loopback)
        await self._docker.egress.ensure(services)
        words = ["--socket", f"{OUT}/proxy.sock", "--port", "0", "--bot", str(self._docker.bot)]
        for service in services:
            words += ["--shared-loopback", service.rpartition(":")[2]]
        return words


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
) -> DockerProvider:
    """The provider that the operator's settings describe. Raises SettingsError that names the variable,
    ProviderUnavailable where the SDK is not installed."""
    engine = checked(Engine(host, image, runtime, user, limits or Limits(), bot))
    services = (*loopback_of(loopback), *([bot] if bot else []))
    return DockerProvider(directory, engine, hosts_of(mode, allow), loopback=services, ports_host=ports_host)


class DockerProvider:
    """directory: of this machine, and the same path for the engine. allow: host:port patterns that boxes
    reach. loopback: ports of services on this machine that all boxes reach. mark: the label of all that is
    ours at the engine. ports_host: where people reach boxes' ports."""

    name = "docker"
    warning = ""
    separates_sessions = False  # one user, one file system
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
        try:
            from aiodocker import Docker
        except ImportError as error:
            raise ProviderUnavailable(
                "The SDK of Docker is not installed.", "Install it: pip install 'aiodocker>=0.27,<0.28'."
            ) from error
        self.directory = directory.absolute()
        self.engine = engine
        self.loopback = tuple(loopback)
        self.led = set(loopback)  # ports of this machine that boxes were ever led to
        self.mark = mark
        self._allow = tuple(allow)
        self._sdk = Docker
        self._docker: Any = None
        self._http = httpx.AsyncClient(transport=UnixDoors(self._socket_of), trust_env=False)
        self._ports = RemotePorts(ports_host, connector(self._socket_of))
        self._egress: dict[str, Egress] = {}
        self._pulling = asyncio.Lock()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.host = host_of(self.directory)

    @property
    def client(self) -> Any:
        if self._docker is None:  # it wants a running loop
            self._docker = self._sdk(url=self.engine.host)
        return self._docker

    async def check(self) -> None:
        try:
            with told(self.engine.host):
                version, about = await self.client.version(), await self.client.system.info()
        except (ProviderAway, SandboxUnreachable) as error:
            raise ProviderUnavailable(error.what, error.mend) from error
        fit(self.engine, version, about)
        if not await self._is_known(about["ID"]):
            raise ProviderUnavailable(
                f"{self.engine.host} is another Docker engine than the one that has the sandboxes.",
                f"Set SANDPIPER_DOCKER_HOST to that one. To begin anew, delete {self.directory / 'engine'}.",
            )

    async def create(self, labels: Mapping[str, str]) -> DockerSandbox:
        id = f"sandpiper-{secrets.token_hex(8)}"
        marked = {**labels, self.mark: "sandbox"}
        with told(self.engine.host):
            await self.client.volumes.create({"Name": id, "Labels": marked})
        sandbox = self._sandbox(id, marked)
        await sandbox.start()
        return sandbox

    async def find(self, labels: Mapping[str, str]) -> Sequence[DockerSandbox]:
        wanted = [self.mark, *(f"{name}={value}" for name, value in labels.items())]
        with told(self.engine.host):
            volumes = (await self.client.volumes.list(filters={"label": wanted}))["Volumes"] or []
        found = sorted(volumes, key=lambda one: (one["CreatedAt"], one["Name"]))
        return [self._sandbox(one["Name"], one["Labels"]) for one in found if ID.fullmatch(one["Name"])]

    async def get(self, id: str) -> DockerSandbox:
        if not ID.fullmatch(id):
            raise SandboxGone(f"There is no sandbox '{id}' in Docker.")
        sandbox = self._sandbox(id, await self.labels_of(id))
        await sandbox.state()
        return sandbox

    async def close(self) -> None:
        """Containers and proxies go on by themselves."""
        await self._ports.close()
        await self._http.aclose()
        if self._docker is not None:
            await self._docker.close()

    # for its boxes

    async def labels_of(self, id: str) -> Mapping[str, str]:
        """Raises SandboxGone."""
        about: dict[str, Any] | None = None
        with told(self.engine.host, 404):
            about = await (await self.client.volumes.get(id)).show()
        if about is None:
            with told(self.engine.host):
                engine = (await self.client.system.info())["ID"]
            if not await self._is_known(engine):
                raise SandboxUnreachable(f"{self.engine.host} is another Docker engine than the one of {id}.")
            await self.clear(id)
            raise SandboxGone(f"There is no sandbox {id} in Docker.")
        return about["Labels"] or {}

    async def clear(self, id: str) -> None:
        """End what is beside a sandbox's container, for good."""
        place = self.directory / id
        if not place.exists():
            return
        await self.egress_of(id).stop()
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        if place.exists():
            log.warning("sandbox %s: %s could not be deleted; delete it as root", id, place)

    async def image(self) -> str:
        """The id of the image, which is pulled where it is not there."""
        async with self._pulling:
            name = self.engine.image
            for pulled in (False, True):
                with told(self.engine.host, 404):
                    return str((await self.client.images.inspect(name))["Id"])
                if pulled:
                    break
                log.info("Docker pulls the image %s", name)
                with told(self.engine.host, image=name):
                    async with asyncio.timeout(LOOK_WITHIN):
                        login = await asyncio.to_thread(login_of, name)
                # With a login, the SDK wants to be told the registry.
                full = name if "/" in name or not login.auth else f"docker.io/library/{name}"
                with told(self.engine.host, image=name, login=login):
                    async with asyncio.timeout(PULL_WITHIN):
                        await self.client.images.pull(full, auth=login.auth)
        raise SandboxError(f"Docker has pulled {name}, but does not have it.")

    def egress_of(self, id: str) -> Egress:
        if id not in self._egress:
            self._egress[id] = Egress(self.directory / id / "out", self._allow, shared=True)
        return self._egress[id]

    def _sandbox(self, id: str, labels: Mapping[str, str]) -> DockerSandbox:
        return DockerSandbox(DockerBox(self, id, labels), self._http, self._ports)

    def _socket_of(self, host: str) -> Path | None:
        return self.directory / host / "door" / "sock" if ID.fullmatch(host) else None

    async def _is_known(self, engine: str) -> bool:
        """Whether it is the engine that we have always had; the first one is."""
        path = self.directory / "engine"
        if not path.exists():
            path.write_text(engine, encoding="utf-8")
        return path.read_text(encoding="utf-8") == engine


@contextlib.contextmanager
def told(host: str, *passes: int, image: str = "", login: Login | None = None) -> Iterator[None]:
    """The SDK's errors in our words. passes: answers of the engine that are as good as done. image, login:
    what is being pulled, and with what."""
    from aiodocker import DockerError

    try:
        yield
    except DockerError as error:
        if error.status not in passes:
            raise in_our_words(error, host, image, login) from error
    except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
        what = str(error) or type(error).__name__
        if image:
            raise SandboxUnreachable(f"Docker did not get to pull {image}: {what}.") from error
        raise SandboxUnreachable(f"The Docker engine at {host} does not answer: {what}.") from error
