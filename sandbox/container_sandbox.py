"""A sandbox in containers: what is done in it is done in the room that shows what it needs.

<directory>/<id>/out             the egress proxy; out/box, with its socket, is in the containers
                 doors/<room>    in that room too: its supervisor's socket
                 etc             files of the containers' /etc
                 where/<name>    which room has a process, or an entrance
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import httpx

from bot.errors import ProcessGone, SandboxNotRunning, SandboxUnreachable
from bot.models import DeniedHost, ExecResult, Launch, SandboxState
from bot.ports import Guard, Link
from sandbox.container import (
    AGENTS,
    DOOR,
    HOME,
    OUT,
    OWN,
    REPOSITORIES,
    WORKSPACES,
    Room,
    reaching,
    room_of,
    showing,
)
from sandbox.container_box import RoomBox, VolumeBox
from sandbox.engine import LOOK_WITHIN, EngineClient
from sandbox.process import KeptProcess
from sandbox.remote import RemoteSandbox, for_good
from sandbox.remote_ports import RemotePorts
from sandbox.remote_supervisor import persistently
from sandbox.whole import in_words, write_whole

WHERE_FOR = 30 * 86400  # seconds

# Version 2 of control groups, and version 1.
KILLS = "cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null; true"


class Services:
    """Ports of this machine that boxes are led to. bot: where they find the bot, 0: they don't."""

    def __init__(self, ports: Sequence[int], bot: int) -> None:
        self._ports = tuple(ports)
        self.bot = bot
        self.led = set(ports)  # to which boxes were ever led

    def addresses(self, more: Sequence[int] = ()) -> tuple[str, ...]:
        """What the operator named, and these."""
        self.led.update(more)
        return tuple(f"127.0.0.1:{port}" for port in dict.fromkeys((*self._ports, *more)))


class RoomSandbox(RemoteSandbox):
    """A room, for the programs in it."""

    def __init__(
        self,
        box: RoomBox,
        volume: VolumeBox,
        client: httpx.AsyncClient,
        ports: RemotePorts,
        services: Services,
    ) -> None:
        super().__init__(box, client, host="127.0.0.1", socket=f"{DOOR}/sock", directory=OWN, ports=ports)
        self.box = box
        self._volume = volume
        self._services = services

    def _in_home(self, path: str) -> None:
        """The room was chosen by it."""

    async def _way_out(self, launch: Launch) -> Sequence[str]:
        if not self._volume.place.exists():
            await self._volume.about()
        services = self._services.addresses(launch.loopback)
        await self._volume.egress.ensure(services)
        words = ["--socket", f"{OUT}/proxy.sock", "--port", "0", "--bot", str(self._services.bot)]
        for service in services:
            words += ["--shared-loopback", service.rpartition(":")[2]]
        return words


class DockerSandbox:
    """Its rooms are made when something is to be done in them."""

    home, workspaces, repositories, agents = HOME, WORKSPACES, REPOSITORIES, AGENTS

    def __init__(
        self,
        engine: EngineClient,
        volume: VolumeBox,
        client: httpx.AsyncClient,
        ports: RemotePorts,
        services: Services,
    ) -> None:
        self.id = volume.id
        self.labels: Mapping[str, str] = volume.labels
        self._engine = engine
        self._volume = volume
        self._client = client
        self._ports = ports
        self._services = services
        self._where = volume.place / "where"
        self._rooms: dict[Room, RoomSandbox] = {}

    # its life

    async def state(self) -> SandboxState:
        return await persistently(self._volume.state)

    async def start(self) -> None:
        await persistently(lambda: self._volume.start(self._services.addresses()))
        self._rooms.clear()
        await asyncio.to_thread(_forget, self._where, time.time() - WHERE_FOR)

    async def stop(self) -> None:
        await persistently(self._volume.stop)
        self._rooms.clear()

    async def delete(self) -> None:
        await for_good(self._volume.delete)

    async def touch(self, idle_stop: float) -> None:
        """It does not stop itself; but the proxy beside it can have died under it."""
        if await self.state() is not SandboxState.RUNNING:
            return
        await self._volume.way_out(self._services.addresses())
        await self._volume.tidy()

    async def enter(self) -> None:
        """Each room is, with what is done in it."""

    # what is done in it

    async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
        room = self._at(room_of(launch))
        return await room.run(launch, stdin=stdin, timeout=timeout)

    async def upload(self, source: Path, path: str) -> None:
        await self._at(self._reaching(path)).upload(source, path)

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        await self._at(self._reaching(path)).download(path, target, limit=limit)

    async def spawn(self, key: str, launch: Launch, *, fence: int, orphan_after: float) -> KeptProcess:
        room = self._at(room_of(launch))
        if not self._volume.place.exists():  # deleted, perhaps by another bot
            await self._volume.about()
        self._note(key, room.box.room)
        if launch.entrance:
            self._note(launch.entrance, room.box.room)
        return await room.spawn(key, launch, fence=fence, orphan_after=orphan_after)

    async def attach(self, key: str, *, fence: int) -> KeptProcess:
        room = self._noted(key)
        if room is None:
            if await self.state() is not SandboxState.RUNNING:
                raise SandboxNotRunning(f"The sandbox {self.id} is stopped.")
            raise ProcessGone(f"There is no process {key} in the sandbox {self.id}.")
        return await self._at(room).attach(key, fence=fence)

    async def expose(
        self,
        port: int,
        path: str,
        *,
        visible: Collection[str] = (),
        entrance: str = "",
        guard: Guard | None = None,
        strangers: bool = False,
    ) -> Link:
        wanted = self._noted(entrance) if entrance else None
        room = self._at(wanted or showing(*visible))
        return await room.expose(port, path, entrance=entrance, guard=guard, strangers=strangers)

    async def conceal(self, path: str) -> None:
        await self._ports.conceal(self.id, path)

    async def denied_hosts(self, since: float) -> tuple[DeniedHost, ...]:
        return self._volume.egress.denied(since)

    async def memory_kills(self, key: str) -> int:
        """Each room has the limit for itself."""
        room = self._noted(key)
        if room is None:
            return 0
        box = self._volume.room(room.name)  # it is not made for this
        try:
            said = await persistently(lambda: box.run(KILLS, timeout=LOOK_WITHIN))
        except SandboxNotRunning:
            return 0
        found = re.search(r"^oom_kill (\d+)$", said.output, re.MULTILINE)
        return int(found[1]) if found else 0

    # how

    def _at(self, room: Room) -> RoomSandbox:
        if room not in self._rooms:
            box = RoomBox(self._engine, self._volume, room, self._services.led)
            self._rooms[room] = RoomSandbox(box, self._volume, self._client, self._ports, self._services)
        return self._rooms[room]

    def _reaching(self, path: str) -> Room:
        """One that is there already, if it shows no more of the person's than a session's."""
        least = reaching(path)
        shown = set(least.shows)
        return next((room for room in self._rooms if shown and shown <= set(room.shows)), least)

    def _note(self, name: str, room: Room) -> None:
        with in_words(f"{self._where} cannot be written"):
            self._where.mkdir(exist_ok=True)
            write_whole(self._where / _file(name), json.dumps([room.shows, room.installs]))

    def _noted(self, name: str) -> Room | None:
        try:
            shows, installs = json.loads((self._where / _file(name)).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        except OSError as error:  # which says nothing of what runs there
            raise SandboxUnreachable(f"{self._where} cannot be read: {error.strerror}.") from error
        return Room(tuple(shows), installs)


def _file(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _forget(directory: Path, before: float) -> None:
    for path in directory.glob("*") if directory.exists() else ():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < before:
                path.unlink()
