"""A sandbox in a box at some provider: all that a provider does not have to write itself.

A provider brings a `Box` (sandbox/box.py): a life, one shell command at a time, files, and the address of a
port. Programs run under the supervisor in the box and are spoken to through its door
(sandbox/remote_supervisor.py), so output, input and ends are the same everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import httpx

from bot.errors import (
    ProcessGone,
    SandboxError,
    SandboxFull,
    SandboxGone,
    SandboxUnreachable,
)
from bot.models import DeniedHost, ExecResult, Launch, SandboxState
from bot.ports import Guard, Link
from sandbox.box import Box
from sandbox.execute import CLIP
from sandbox.process import END_WITHIN, KeptProcess, Reply, description, understood
from sandbox.remote_ports import IN_PUBLIC, RemotePorts
from sandbox.remote_supervisor import (
    DOOR_PORT,
    CommandFailed,
    Inside,
    RemoteSupervisor,
    persistently,
)

MAX_SPOOL = 64 << 20
PIECE = 1 << 20  # bytes of a short program's output per request
POLL = 20.0  # seconds that a request for output may wait
RUN_ORPHAN = 60.0  # seconds without a call after which a short program ends itself

T = TypeVar("T")
B = TypeVar("B", bound=Box)

log = logging.getLogger(__name__)

# $1 the file that has come in, $2 its place. A daemon of the provider's may have written it as root.
STORE = """
test -O "$1" || { cp -- "$1" "$1.own" && rm -f -- "$1" && mv -- "$1.own" "$1"; } || exit
mkdir -p -- "$(dirname -- "$2")" && { ! test -d "$2" || rm -rf -- "$2"; } && mv -f -- "$1" "$2"
"""
# $1 path, $2 a name of ours for it, $3 bytes at most, $4 link or copy. A link is not followed. Providers
# differ in the names that they can ask for (some not beyond Latin-1). Says the size and the content's hash:
# nobody can who may not read it in the box, while a provider's own program may read more than that.
FETCH = """
test -f "$1" && ! test -L "$1" || { echo "not a regular file"; exit 66; }
size=$(wc -c <"$1") && rm -f -- "$2" || exit
test "$size" -gt "$3" && echo "$size" && exit
test "$4" = link && ln -- "$1" "$2" 2>/dev/null || cp -- "$1" "$2" || exit
sum=$(sha256sum <"$2") || exit
echo "$size ${sum%% *}"
"""


class RemoteSandbox:
    """A sandbox over a box. `home` and the other directories are empty until `enter` has returned.

    port, host: where the supervisor's door listens in the box. socket: where it listens besides; a path
    in the box, "": nowhere. directory: the supervisor's, "": in the home. inherited: names of the box's own
    environment that programs get too. ports: how people reach other ones.
    """

    def __init__(
        self,
        box: Box,
        client: httpx.AsyncClient,
        *,
        port: int = DOOR_PORT,
        host: str = "0.0.0.0",  # noqa: S104
        inherited: tuple[str, ...] = (),
        socket: str = "",
        directory: str = "",
        ports: RemotePorts | None = None,
    ) -> None:
        self.id: str = box.id
        self.labels: Mapping[str, str] = box.labels
        self._box = box
        self._port = port
        self._ports = ports or RemotePorts()
        self._supervisor = RemoteSupervisor(
            box, client, port=port, host=host, socket=socket, directory=directory, inherited=inherited
        )
        self.home: str = ""
        self.workspaces: str = ""
        self.repositories: str = ""
        self.agents: str = ""

    # its life

    async def state(self) -> SandboxState:
        return await persistently(self._box.state)

    async def start(self) -> None:
        await persistently(self._box.start)
        self._supervisor.look_again()

    async def stop(self) -> None:
        await persistently(self._box.stop)
        self._supervisor.look_again()

    async def delete(self) -> None:
        await for_good(self._box.delete)

    async def touch(self, idle_stop: float) -> None:
        await persistently(lambda: self._box.touch(idle_stop))

    async def enter(self) -> None:
        await self._inside()

    # what is done in it

    async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
        key = f"run-{secrets.token_hex(8)}"
        try:
            process = await self.spawn(key, launch, fence=1, orphan_after=RUN_ORPHAN)
            async with asyncio.timeout(timeout):
                out, err = await self._conversation(process, stdin)
            reply = await self._asked(key, "GET", "/status")
            with understood(key):
                said = reply.json()
                code, error_said = said["exit_code"], said["error"]
        except TimeoutError as error:
            raise SandboxUnreachable(f"A program in the sandbox took longer than {timeout:g} s.") from error
        finally:
            with contextlib.suppress(SandboxError):  # then it ends itself
                await carried_through(self._discard(key))
        if error_said:
            raise SandboxError(f"A program in the sandbox cannot be started: {error_said}.")
        if code is None:
            raise SandboxUnreachable("A program in the sandbox was lost with its keeper.")
        return ExecResult(code, out, err)

    async def upload(self, source: Path, path: str) -> None:
        inside = await self._inside()
        self._in_home(path)

        async def store() -> None:
            part = inside.incoming()
            await self._box.upload(source, part)
            await self._supervisor.shell_once("sh", "-c", STORE, "store", part, path)

        with _about(path):
            await persistently(store)

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        part = (await self._inside()).incoming()
        try:
            for how in ("link", "copy"):  # what is written to at this moment holds still as a copy
                with _about(path):
                    fetch = ("sh", "-c", FETCH, "fetch", path, part, str(limit), how)
                    size, *sums = (await self._supervisor.shell(*fetch)).split()
                if int(size) <= limit:
                    await persistently(lambda: self._box.download(part, target, limit=limit))
                    size = str(target.stat().st_size)
                    await self._supervisor.shell("rm", "-f", "--", part)
                if int(size) > limit:
                    raise SandboxError(f"{path} in the sandbox is larger than {limit} bytes.")
                if sums == [await asyncio.to_thread(_sum, target)]:
                    return
            raise SandboxError(f"{path} in the sandbox was changed while it was read.", "Try again.")
        except BaseException:  # what is left in the box goes after a day
            target.unlink(missing_ok=True)
            raise

    async def spawn(self, key: str, launch: Launch, *, fence: int, orphan_after: float) -> KeptProcess:
        _check_key(key)
        inside = await self._inside()
        for path in launch.visible:
            self._in_home(path)
        body = description(
            # The same first program as in a local box, so that all start, fail and end alike.
            [*inside.program("forward.py", *await self._way_out(launch), "--adopt", "--"), *launch.argv],
            env=_environment(inside, launch),
            cwd=launch.cwd,
            fence=fence,
            orphan_after=orphan_after,
            max_spool=MAX_SPOOL,
            shield=True,
            directories=launch.visible,
        )
        reply = await carried_through(self._asked(key, "POST", "/keep", body))
        if reply.status != 200:
            self._supervisor.look_again()  # somebody may have deleted our programs
            error = SandboxFull if reply.status == 507 else SandboxError
            raise error(f"The supervisor could not start a process: {reply.why()}.")
        return KeptProcess(key, fence, self._supervisor.way(key))

    async def attach(self, key: str, *, fence: int) -> KeptProcess:
        _check_key(key)
        process = KeptProcess(key, fence, self._supervisor.way(key))
        await process.status()
        return process

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
        if port == self._port or port in self._box.reserved:
            raise SandboxError(f"Port {port} of this sandbox is not the agent's to show.")
        if strangers and self._box.signer is not None:
            raise SandboxError(*IN_PUBLIC)
        key = path if guard is None else entrance
        return await self._ports.expose(self._box, self._supervisor, port, key, guard)

    async def conceal(self, path: str) -> None:
        await self._ports.conceal(self._box.id, path)

    async def denied_hosts(self, since: float) -> tuple[DeniedHost, ...]:
        """Egress rules are the provider's, and none tells whom they refused."""
        return ()

    async def memory_kills(self, key: str) -> int:
        return 0

    # how

    async def _way_out(self, launch: Launch) -> Sequence[str]:
        """What forward.py has to know of a program's way out of the box, where that leads through us."""
        if launch.loopback:
            raise SandboxError(
                "Services on the bot's own machine cannot be reached from a remote sandbox.",
                "Use the local provider or Docker, or an address that the sandbox can reach.",
            )
        return ()

    async def _inside(self) -> Inside:
        inside = await self._supervisor.inside()
        self.home = inside.home
        self.workspaces, self.repositories = f"{inside.home}/workspace", f"{inside.home}/repositories"
        self.agents = f"{inside.home}/.sandpiper/agents"
        return inside

    async def _asked(self, key: str, method: str, target: str, body: bytes = b"") -> Reply:
        return await self._supervisor.ask(key, method, target, body)

    def _in_home(self, path: str) -> None:
        if PurePosixPath(self.home) not in PurePosixPath(path).parents or ".." in PurePosixPath(path).parts:
            raise SandboxError(f"{path} is not kept in a sandbox.", f"Name a path under {self.home}.")

    async def _conversation(self, process: KeptProcess, stdin: bytes) -> tuple[bytes, bytes]:
        feeding = asyncio.ensure_future(_feed(process, stdin))
        collecting = [asyncio.ensure_future(self._collect(process, fd)) for fd in (1, 2)]
        try:
            await asyncio.gather(feeding, *collecting)
        finally:
            for task in (feeding, *collecting):
                task.cancel()
            await asyncio.gather(feeding, *collecting, return_exceptions=True)
        out, err = (task.result() for task in collecting)
        return out, err

    async def _collect(self, process: KeptProcess, fd: int) -> bytes:
        """One output to its end; what is beyond CLIP is not fetched."""
        kept = bytearray()
        offset, limit = 0, PIECE
        while True:
            chunk = await process.read(fd, offset, ack=offset, wait=POLL, limit=limit)
            kept += chunk.data[: CLIP - len(kept)]
            offset = chunk.next
            if chunk.eof:
                return bytes(kept)
            if len(kept) == CLIP:
                reply = await self._asked(process.key, "GET", "/status")
                with understood(process.key):
                    offset, limit = int(reply.json()["out"][fd - 1]), 1

    async def _discard(self, key: str) -> None:
        """End a short program and drop what is left of it."""
        until = asyncio.get_running_loop().time() + END_WITHIN
        while (await self._asked(key, "POST", "/forget")).status == 409:
            if asyncio.get_running_loop().time() > until:
                return
            await self._asked(key, "POST", "/signal?sig=KILL&fence=1")
            await asyncio.sleep(0.02)


async def for_good(delete: Callable[[], Awaitable[None]]) -> None:
    """Delete what only goes once."""
    try:
        await delete()
    except SandboxUnreachable:
        with contextlib.suppress(SandboxGone):  # then it had come through
            await persistently(delete)


async def the_oldest(made: B, all_of: Callable[[], Awaitable[Sequence[B]]]) -> B:
    """Another bot may have made a box for the same labels meanwhile: all take the oldest that is there, and
    who made a younger one deletes it again. all_of: those with these labels, the oldest first."""
    for box in await persistently(all_of) if made.labels else ():
        if box.id == made.id:
            return made
        if dict(box.labels) != dict(made.labels):
            continue
        try:
            await persistently(box.state)
        except SandboxGone:
            continue
        log.warning("sandbox %s was made at the same time as %s, which stays: it is deleted", made.id, box.id)
        with contextlib.suppress(SandboxError):  # gone, or reconcile tells an operator of it
            await persistently(made.delete)
        return box
    return made


async def carried_through(call: Coroutine[Any, Any, T]) -> T:
    """Once begun it is done, so that whoever cancels us finds things in a known state."""
    doing = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        with contextlib.suppress(SandboxError):
            await doing
        raise


async def _feed(process: KeptProcess, stdin: bytes) -> None:
    try:
        await process.write(0, stdin, eof=True)
    except ProcessGone:
        pass  # it has ended without reading all of it


def _environment(inside: Inside, launch: Launch) -> dict[str, str]:
    system = [part for part in inside.path.split(":") if not f"{part}/".startswith(f"{inside.home}/")]
    ours = launch.ours or launch.installs
    own = [] if ours else [f"{inside.home}/.local/bin", f"{inside.home}/bin"]
    return {
        "PATH": ":".join([*own, *(system if ours else inside.path.split(":"))]),
        "HOME": inside.home,
        "USER": inside.user,
        "LOGNAME": inside.user,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "SANDPIPER_PROGRAMS": str(inside.programs),
        **({} if launch.ours else inside.inherited),
        **launch.env,
        **launch.secrets,
    }


def _check_key(key: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", key):
        raise SandboxError(f"'{key}' is no name for a process.")


def _sum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextlib.contextmanager
def _about(path: str) -> Iterator[None]:
    """The shell's refusal, told of the file that it is about."""
    try:
        yield
    except SandboxFull as error:
        raise SandboxFull(f"There is no space left for {path}.", error.mend) from error
    except CommandFailed as error:
        raise SandboxError(f"{path} in the sandbox: {error.what}") from error
