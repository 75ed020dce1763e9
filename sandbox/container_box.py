"""The containers of a sandbox, each as a box: what a provider of remote boxes has to offer of one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shlex
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bot.errors import (
    SandboxError,
    SandboxFull,
    SandboxGone,
    SandboxNotRunning,
    SandboxUnreachable,
)
from bot.models import SandboxState
from sandbox.box import Address, Said
from sandbox.container import (
    DOOR,
    HAS_ROOMS,
    OUT,
    OWN,
    ROOM_OF,
    ROOT,
    Room,
    lay_out,
    made_as,
    room_container,
    state_of,
    volume_archive,
    volume_container,
)
from sandbox.container_exec import UPLOAD, listen, pieces, that_says_its_end
from sandbox.container_scripts import END, FORGET, IDLE, PREPARE
from sandbox.engine import LOOK_WITHIN, EngineClient
from sandbox.local_egress import Egress
from sandbox.remote_supervisor import DOOR_PORT

log = logging.getLogger(__name__)

TRANSFER_WITHIN = 600.0  # seconds
STOP_GRACE = 5  # seconds
IDLE_AFTER = 60  # minutes
SEEN_ENDED_WITHIN = 5.0  # seconds in which an engine notices that a container has ended


class ContainerBox:
    """id: the sandbox's. name: the container's."""

    signer = None

    def __init__(self, engine: EngineClient, id: str, name: str, reserved: Collection[int]) -> None:
        self._engine = engine
        self.id = id
        self.name = name
        self.reserved = reserved
        self.labels: Mapping[str, str] = {}

    async def about(self) -> Mapping[str, Any]:
        """What the engine says of the sandbox's volume. Raises SandboxGone."""
        return await self._engine.volume(self.id)

    async def state(self) -> SandboxState:
        await self.about()
        return state_of(await self.show())

    async def run(self, command: str, *, timeout: float) -> Said:
        said = bytearray()
        code = await self.execute(("sh", "-c", command), said, timeout=timeout)
        return Said(code, said.decode(errors="replace"))

    async def upload(self, content: bytes | Path, path: str) -> None:
        """By the box's own user. The engine's archives are root's hand, and miss what is a tmpfs."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        argv = ("sh", "-c", UPLOAD, "upload", path, str(size))
        said = bytearray()
        code = await self.execute(argv, said, stdin=pieces(content), timeout=TRANSFER_WITHIN)
        if code == 0:
            return
        why = (said.decode(errors="replace").strip() or f"exit code {code}").splitlines()[-1]
        if "No space left" in why or "quota" in why.lower():
            raise SandboxFull(f"There is no space left for {path}.", "Delete files in the sandbox's home.")
        raise SandboxError(f"{path} could not be written: {why}.")

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        argv = ("sh", "-c", 'head -c "$1" -- "$2" 2>/dev/null', "download", str(limit + 1), path)
        with target.open("wb") as file:
            code = await self.execute(argv, file.write, timeout=TRANSFER_WITHIN)
        if code != 0:
            raise SandboxError(f"{path} in the sandbox cannot be read.")

    async def door(self, port: int) -> Address | None:
        return Address(f"http://{self.name}") if port == DOOR_PORT else None

    # of the engine

    def container(self) -> Any:
        return self._engine.client.containers.container(self.name)

    async def show(self) -> dict[str, Any] | None:
        with self._engine.told(404):
            return dict(await self.container().show())
        return None

    async def make(
        self, about: Mapping[str, Any] | None, wanted: dict[str, Any], *, running: bool = True
    ) -> None:
        """Have one that is made as it is wanted. about: the one that is there. running: as for `remove`."""
        if about is not None:
            if made_as(about, wanted):
                return
            await self.remove(running=running)
        with self._engine.told(409):  # made by another bot just now
            await self._engine.client.containers.create(wanted, name=self.name)

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """Another bot may be just making the container, whose name an engine has before it has the container,
        or putting it away."""
        done = False
        with self._engine.told(404):
            yield
            done = True
        if not done:
            raise SandboxUnreachable(f"A container of {self.id} is just made, or put away, by another bot.")

    async def end(self) -> None:
        with self._engine.told(404):
            await self.container().stop(t=STOP_GRACE)

    async def end_if_idle(self, minutes: int) -> bool:
        """End it, unless something runs in it, or did so many minutes ago; whether it has ended. Nothing that
        starts meanwhile is ended."""
        own = Path(OWN)
        look = ("sh", "-c", IDLE, "idle", str(own.parent), str(minutes), own.name)
        with contextlib.suppress(SandboxError):  # as it ends, so does what is heard of it
            await self.execute(
                ("python3", "-I", "-S", "-c", END, OWN, *look), bytearray(), timeout=LOOK_WITHIN
            )
            return False
        until = asyncio.get_running_loop().time() + SEEN_ENDED_WITHIN
        while state_of(await self.show()) is SandboxState.RUNNING:
            if asyncio.get_running_loop().time() > until:
                return False
            await asyncio.sleep(0.05)
        return True

    async def remove(self, *, running: bool = True) -> None:
        """running: also if it runs; else whoever has started it meanwhile keeps it."""
        with self._engine.told(404, *(() if running else (409,))):
            await self.container().delete(force=running)

    async def execute(
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
                with self.there():
                    made = await self.container().exec(command, stdin=stdin is not None)
                    async with made.start() as stream:
                        code = await listen(stream, said, stdin, word)
        except (SandboxError, TimeoutError) as error:
            await self.must_run()
            if isinstance(error, SandboxError):
                raise
            raise SandboxUnreachable(f"A command in {self.id} took longer than {timeout:g} s.") from error
        if code is None:
            await self.must_run()
            raise SandboxUnreachable(f"The connection to a command in {self.id} was lost.")
        return code

    async def must_run(self) -> None:
        if await self.state() is not SandboxState.RUNNING:
            raise SandboxNotRunning(f"The sandbox {self.id} is stopped.")


class VolumeBox(ContainerBox):
    """The container with the sandbox's whole volume. While it runs, the sandbox does."""

    def __init__(
        self, engine: EngineClient, id: str, labels: Mapping[str, str], place: Path, egress: Egress
    ) -> None:
        super().__init__(engine, id, id, ())
        self.labels = {name: value for name, value in labels.items() if name != engine.mark}
        self.place = place
        self.egress = egress

    async def about(self) -> Mapping[str, Any]:
        try:
            return await self._engine.volume(self.id)
        except SandboxGone:
            await self.clear()
            raise

    async def state(self) -> SandboxState:
        await self.about()
        return self._state(await self.show())

    async def start(self, services: Sequence[str]) -> None:
        """services: of this machine, which its programs reach."""
        await self.about()
        about = await self.show()
        await self.way_out(services)
        if self._state(about) is SandboxState.RUNNING:
            return
        for room in await self.rooms():  # of a life that ended otherwise than by `stop`
            await room.remove()
        with self._engine.told():
            if about and about["State"].get("Paused"):
                await self.container().unpause()
            else:
                await self._make(about)
                # Before each start, for whoever made the container may have failed before this.
                with self.there():
                    await self.container().put_archive(ROOT, volume_archive(self._engine.about))
                    await self.container().start()
        look = f"{FORGET}; test -S {OUT}/proxy.sock"
        if (await self.run(look, timeout=LOOK_WITHIN)).code != 0:
            await self.end()  # or the next start would find it running, and say nothing
            raise SandboxError(
                f"The Docker engine does not see {self.place}, where the sandbox's way out is.",
                "Bot and engine have to share a machine, and SANDPIPER_DATA_DIR one path on it.",
            )

    async def stop(self) -> None:
        await self.about()
        await asyncio.gather(self.end(), *map(self._close, await self.rooms()))
        await self.egress.stop()

    async def delete(self) -> None:
        await self.about()
        await asyncio.gather(*map(self._close, await self.rooms()))
        await self.remove()
        await self.clear()
        with self._engine.told(404):
            await (await self._engine.client.volumes.get(self.id)).delete()

    async def clear(self) -> None:
        """End what is beside the sandbox's containers, for good."""
        if not self.place.exists():
            return
        await self.egress.stop()
        await asyncio.to_thread(shutil.rmtree, self.place, ignore_errors=True)
        if self.place.exists():
            log.warning("sandbox %s: %s could not be deleted; delete it as root", self.id, self.place)

    async def _close(self, room: ContainerBox) -> None:
        with contextlib.suppress(SandboxError):  # what the box's user made there, only that user may remove
            await room.run(f"rm -rf {DOOR}/*", timeout=LOOK_WITHIN)
        await room.end()
        await room.remove()

    async def way_out(self, services: Sequence[str]) -> None:
        lay_out(self.place, self._engine.about)
        await self.egress.ensure(services)

    async def rooms(self) -> Sequence[ContainerBox]:
        wanted = {"label": [f"{ROOM_OF}={self.id}"]}
        with self._engine.told():
            found = await self._engine.client.containers.list(all=True, filters=wanted)
        names = [one["Names"][0].removeprefix("/") for one in found]
        return [self.room(name.removeprefix(f"{self.id}-")) for name in names]

    def room(self, name: str) -> ContainerBox:
        """A room's container as it is, if it is there."""
        return ContainerBox(self._engine, self.id, f"{self.id}-{name}", ())

    async def tidy(self) -> None:
        """Rooms in which nothing runs any more cost memory, where a sandbox runs for days."""
        rooms = {room.name.removeprefix(f"{self.id}-"): room for room in await self.rooms()}
        if rooms:
            look = ("sh", "-c", IDLE, "idle", f"{ROOT}/rooms", str(IDLE_AFTER), *rooms)
            said = await self.run(shlex.join(look), timeout=LOOK_WITHIN)
            for idle in rooms.keys() & set(said.output.split()):
                if await rooms[idle].end_if_idle(IDLE_AFTER):
                    await rooms[idle].remove(running=False)

    def _state(self, about: Mapping[str, Any] | None) -> SandboxState:
        """One of an earlier release, in which programs ran, has to be made anew."""
        has_rooms = about is not None and HAS_ROOMS in about["Config"]["Labels"]
        return state_of(about) if has_rooms else SandboxState.STOPPED

    async def _make(self, about: Mapping[str, Any] | None) -> None:
        try:
            image = await self._engine.image()
        except SandboxError as error:
            if about is None:
                raise
            log.warning("sandbox %s starts as it was made: %s", self.id, error)
            return
        labels = {**self.labels, self._engine.mark: "sandbox", HAS_ROOMS: "1"}
        await self.make(about, volume_container(self._engine.about, image, self.id, labels, self.place))


class RoomBox(ContainerBox):
    """A container that shows a part of the sandbox. It is made when it is wanted."""

    def __init__(
        self, engine: EngineClient, volume: VolumeBox, room: Room, reserved: Collection[int]
    ) -> None:
        super().__init__(engine, volume.id, f"{volume.id}-{room.name}", reserved)
        self.room = room
        self._volume = volume
        self._starting = asyncio.Lock()
        self._as_wanted = False

    async def about(self) -> Mapping[str, Any]:
        return await self._volume.about()

    async def start(self) -> None:
        async with self._starting:
            about = await self.show()
            if about and about["State"].get("Paused"):
                with self._engine.told():
                    await self.container().unpause()
                return
            if about and state_of(about) is SandboxState.RUNNING and not await self._makes_way(about):
                return
            await self._prepare()
            await self.make(about, await self._body(), running=False)
            with self.there():
                await self.container().start()
            try:
                await self._volume.must_run()
            except SandboxError:  # it was stopped meanwhile, and who did it may not have seen us
                await self.remove()
                raise

    async def execute(
        self,
        argv: Sequence[str],
        said: bytearray | Callable[[bytes], object],
        *,
        stdin: AsyncIterator[bytes] | None = None,
        timeout: float,
    ) -> int:
        await self.start()
        return await super().execute(argv, said, stdin=stdin, timeout=timeout)

    async def must_run(self) -> None:
        """It is made again where the sandbox runs."""
        await self._volume.must_run()

    async def stop(self) -> None:
        await self.end()

    async def delete(self) -> None:
        await self.remove()

    async def touch(self, idle_stop: float) -> None:
        """It does not stop itself."""

    async def _makes_way(self, about: Mapping[str, Any]) -> bool:
        """Whether one that runs was made otherwise than it would be now, and has ended for that: it does when
        nothing runs in it."""
        self._as_wanted = self._as_wanted or made_as(about, await self._body())
        return not self._as_wanted and await self._volume.room(self.room.name).end_if_idle(0)

    async def _prepare(self) -> None:
        door = self._volume.place / "doors" / self.room.name
        door.mkdir(parents=True, exist_ok=True)
        door.chmod(0o777)
        below = [path.removeprefix(f"{ROOT}/") for path in self.room.shows]
        for path, place in self.room.private(self._engine.about.private).items():
            below += [place, f"home/{path}"]
        said = bytearray()
        words = ("sh", "-c", PREPARE, "prepare", f"rooms/{self.room.name}", *below)
        if await self._volume.execute(words, said, timeout=LOOK_WITHIN) != 0:
            raise SandboxError(f"The sandbox {self.id} cannot show what a program needs: {said.decode()}.")

    async def _body(self) -> dict[str, Any]:
        """Of the same image as the one that runs, whatever became of that."""
        data, running = (await self.about())["Mountpoint"], await self._volume.show()
        if running is None:
            raise SandboxNotRunning(f"The sandbox {self.id} is stopped.")
        image, labels = running["Config"]["Image"], {ROOM_OF: self.id, self._engine.mark: "room"}
        return room_container(self._engine.about, image, data, labels, self._volume.place, self.room)
