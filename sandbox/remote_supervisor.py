"""The way to the supervisor in a remote box: by its door, and by one shell command per call without it.

    <home>/.sandpiper, or where the provider says:
                      programs/<hash>    our programs (sandbox/inside), once per version
                      processes/<key>    a kept process; beside them the door's own files
                      incoming           files on their way to their place

A door that does not answer says nothing about the box. It is asked for anew, with a fresh address; whether
the box is stopped or gone, only the box says.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import io
import json
import logging
import secrets
import shlex
import tarfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

import httpx

from bot.errors import SandboxError, SandboxFull, SandboxUnreachable
from sandbox.box import Address, Box, Said
from sandbox.process import ANSWER_WITHIN, INSIDE, NONSENSE, Ask, Reply, understood

log = logging.getLogger(__name__)

DOOR_PORT = 28173  # no known service's, and below those that Linux gives away by itself (32768 on)
PAUSES = (0.2, 1.0)  # seconds before a call that did not come through is tried again
LONGEST_PAUSE = 20.0  # seconds
KNOCKS = 3  # tries at the door, each but the first with a fresh address, before a command does it
DOOR_REST = 30.0  # seconds for which a door that does not answer is left alone
COMMAND_TIMEOUT = 60.0
MAX_ANSWER = 16 << 20  # bytes; the supervisor gives 8 MB of output at most
MARK = "x-sandpiper-door"  # on every answer that is the door's own

# Where and as whom programs run, and whether ours are there. $1: their version; $2: our directory, "": in the
# home; then environment names.
# What short programs and transfers have left behind for a day, because the bot died meanwhile, goes.
LOOK = """
import glob, json, os, pwd, shutil, sys, time
uid = os.getuid()
try:
    user, home = pwd.getpwuid(uid)[0], pwd.getpwuid(uid)[5]
except KeyError:
    user, home = str(uid), "/"
home = os.path.realpath(os.environ.get("HOME") or home)
own = sys.argv[2] or os.path.join(home, ".sandpiper")
for name in ("incoming", "processes", "programs"):
    os.makedirs(os.path.join(own, name), 0o700, exist_ok=True)
for path in glob.glob(own + "/processes/run-*") + glob.glob(own + "/incoming/*"):
    try:
        if os.path.getmtime(path) < time.time() - 86400:
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    except OSError:
        pass  # another bot was faster
print(json.dumps({
    "home": home, "own": own, "uid": uid, "user": user, "python": sys.version_info[:2],
    "path": os.environ.get("PATH") or os.defpath,
    "installed": os.path.isdir(os.path.join(own, "programs", sys.argv[1])),
    "inherited": {name: os.environ[name] for name in sys.argv[3:] if name in os.environ},
}))
"""
# $1: an archive. $2: where its content goes, whole; somebody else may be faster.
UNPACK = """
import os, shutil, sys, tarfile
archive, target = sys.argv[1:]
tarfile.open(archive).extractall(archive + ".d")
os.unlink(archive)
try:
    os.rename(archive + ".d", target)
except OSError:
    shutil.rmtree(archive + ".d")
    assert os.path.isdir(target), "No space left or no right to write " + target
"""
# A directory for what shall not come to a disk, where the box has memory for it. $1: the other one.
VEILED = """
d=/dev/shm/sandpiper-$(id -u); mkdir -p -m 700 "$d" 2>/dev/null && test -O "$d" && test -w "$d" || d="$1"
echo "$d"
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Inside:
    """What a box is like inside. directory: ours. path: its image's own PATH. inherited: of its environment,
    what programs get too."""

    home: str
    directory: str
    uid: int
    user: str
    path: str
    version: str
    inherited: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def own(self) -> PurePosixPath:
        return PurePosixPath(self.directory)

    @property
    def programs(self) -> PurePosixPath:
        return self.own / "programs" / self.version

    @property
    def processes(self) -> PurePosixPath:
        return self.own / "processes"

    def program(self, name: str, *words: str) -> list[str]:
        """The command line of one of our programs."""
        return ["python3", "-I", "-S", str(self.programs / name), *words]

    def incoming(self) -> str:
        """A fresh name for a file on its way."""
        return str(self.own / "incoming" / secrets.token_hex(8))


@dataclass(frozen=True, slots=True)
class Door:
    address: Address
    token: str = field(repr=False)


class CommandFailed(SandboxError):
    """A shell command of ours ended with another code than 0."""


class RemoteSupervisor:
    """Keepers in one box. Every call may raise SandboxUnreachable, SandboxNotRunning, SandboxGone."""

    def __init__(
        self,
        box: Box,
        client: httpx.AsyncClient,
        *,
        port: int,
        host: str,
        socket: str = "",
        directory: str = "",
        inherited: tuple[str, ...] = (),
    ) -> None:
        self._box = box
        self._directory = directory
        self._inherited = inherited
        self._client = client
        self._listen = ("--host", host, "--port", str(port), "--socket", socket)
        self._port = port
        self._looking, self._opening = asyncio.Lock(), asyncio.Lock()
        self._inside: Inside | None = None
        self._door: Door | None = None
        self._rests_until = 0.0

    def way(self, key: str) -> Ask:
        return functools.partial(self.ask, key)

    async def inside(self) -> Inside:
        """What the box is like; our programs are in it. Looked at once."""
        async with self._looking:
            if self._inside is None:
                self._inside = await self._look()
            return self._inside

    def look_again(self) -> None:
        """Whatever was known of the box may not hold any more."""
        self._inside = self._door = None
        self._rests_until = 0.0

    async def ask(self, key: str, method: str, target: str, body: bytes = b"", *, wait: float = 0.0) -> Reply:
        """One request to the keeper of a key. Every verb bears being said twice."""
        for knock in range(KNOCKS):
            if knock > 1:
                await asyncio.sleep(PAUSES[0])
            door = await self._open()
            if door is None:
                break
            reply = await self._knock(door, method, f"/p/{key}{target}", body, wait)
            if reply is not None:
                return reply
            self.shut(door)
        else:
            log.warning("box %s: the supervisor's door does not answer; commands do its work", self._box.id)
            self._rests_until = asyncio.get_running_loop().time() + DOOR_REST
        return await persistently(lambda: self._by_command(key, method, target, body, wait))

    async def shell(self, *argv: str, source: str = "", timeout: float = COMMAND_TIMEOUT) -> str:
        """A short command's output, tried again where it did not come through; its stdin is the file
        `source`, which is gone before the command begins. Raises CommandFailed, SandboxFull."""
        return await persistently(lambda: self._shell(argv, source, timeout))

    async def shell_once(self, *argv: str) -> str:
        """The same, for a command that does not bear being done twice."""
        return await self._shell(argv, "", COMMAND_TIMEOUT)

    async def _shell(self, argv: tuple[str, ...], source: str, timeout: float) -> str:
        command = shlex.join(argv)
        if source:
            file = shlex.quote(source)
            command = f"exec 3<{file} && rm -f -- {file} && {command} <&3 3<&-"
        else:
            command += " </dev/null"
        return _output(await self._box.run(command, timeout=timeout))

    # what is in the box

    async def _look(self) -> Inside:
        try:
            about = (programs_version(), self._directory, *self._inherited)
            output = await self.shell("python3", "-I", "-c", LOOK, *about)
            said = _last_json(
                output, "home", "own", "uid", "user", "path", "python", "installed", "inherited"
            )
        except CommandFailed as error:
            raise SandboxError(
                f"The box {self._box.id} cannot run our programs: {error.what}",
                "Its image needs Python 3.9 or newer as python3, and a home that can be written to.",
            ) from error
        if said["python"] < [3, 9]:
            found = ".".join(map(str, said["python"]))
            raise SandboxError(f"The box {self._box.id} has Python {found}.", "Its image needs 3.9 or newer.")
        inside = Inside(
            home=said["home"],
            directory=said["own"],
            uid=said["uid"],
            user=said["user"],
            path=said["path"],
            version=programs_version(),
            inherited=said["inherited"],
        )
        if not said["installed"]:
            await persistently(lambda: self._install(inside))
        return inside

    async def _install(self, inside: Inside) -> None:
        archive = inside.incoming()
        await self._box.upload(programs_archive(), archive)
        unpack = ("python3", "-I", "-c", UNPACK, archive, str(inside.programs))
        await self._shell(unpack, "", COMMAND_TIMEOUT)

    # the door

    async def door(self) -> Door | None:
        """For who goes through it to a port; None: it is not to be had now."""
        return await self._open()

    def shut(self, door: Door) -> None:
        """It did not answer: ask for another one."""
        if self._door is door:
            self._door = None

    async def _open(self) -> Door | None:
        """The door, with an address and a token that held a moment ago; None: it is not to be had now."""
        async with self._opening:
            if self._door is not None:
                return self._door
            loop = asyncio.get_running_loop()
            if loop.time() < self._rests_until:
                return None
            address = await persistently(lambda: self._box.door(self._port))
            if address is None:
                self._rests_until = loop.time() + DOOR_REST
                return None
            inside = await self.inside()
            open_it = inside.program("supervisor.py", "door", "--root", str(inside.processes), *self._listen)
            try:
                said = _last_json(await self.shell(*open_it), "token")
            except CommandFailed as error:
                log.warning("box %s: the supervisor's door cannot be opened: %s", self._box.id, error)
                self._inside = None  # somebody may have deleted our programs
                self._rests_until = loop.time() + DOOR_REST
                return None
            self._door = Door(address, said["token"])
            return self._door

    async def _knock(self, door: Door, method: str, target: str, body: bytes, wait: float) -> Reply | None:
        """The door's answer; None: there is none, or somebody on the way spoke for it."""
        answer = bytearray()
        request = self._client.build_request(
            method,
            door.address.url.rstrip("/") + target,
            content=body,
            headers={**door.address.headers, "X-Sandpiper-Token": door.token},
            timeout=httpx.Timeout(wait + ANSWER_WITHIN, connect=10.0),
        )
        try:
            async with asyncio.timeout(wait + 2 * ANSWER_WITHIN):
                response = await self._client.send(request, stream=True)
                try:
                    async for piece in response.aiter_bytes():
                        answer += piece
                        if len(answer) > MAX_ANSWER:  # an agent may stand at the door
                            raise httpx.ReadError(f"more than {MAX_ANSWER} bytes")
                finally:
                    await response.aclose()
        except (httpx.HTTPError, TimeoutError) as error:
            log.info("box %s: the door: %s", self._box.id, str(error) or type(error).__name__)
            return None
        if MARK not in response.headers or response.status_code == 401:
            log.info("box %s: the door's place answers %d", self._box.id, response.status_code)
            return None
        return Reply(response.status_code, response.headers, bytes(answer))

    # without the door

    async def _by_command(self, key: str, method: str, target: str, body: bytes, wait: float) -> Reply:
        inside = await self.inside()
        directory = str(inside.processes / key)
        if target == "/keep":
            return await self._keep(inside, directory, body)
        source = ""
        if body:
            source = inside.incoming()
            await self._box.upload(body, source)
        argv = tuple(inside.program("supervisor.py", "ctl", directory, method, target))
        try:
            output = await self._shell(argv, source, wait + ANSWER_WITHIN)
            said = _last_json(output, "status", "headers", "body")
        except CommandFailed as error:
            self._inside = None
            raise SandboxUnreachable(f"The supervisor of {key} does not answer: {error.what}") from error
        with understood(key):
            return Reply(int(said["status"]), dict(said["headers"]), base64.b64decode(said["body"]))

    async def _keep(self, inside: Inside, directory: str, launch: bytes) -> Reply:
        veil = ("sh", "-c", VEILED, "veil", str(inside.own / "incoming"))
        place = (await self._shell(veil, "", COMMAND_TIMEOUT)).strip()
        source = f"{place}/{secrets.token_hex(8)}"
        await self._box.upload(launch, source)
        argv = tuple(inside.program("supervisor.py", "keep", "--dir", directory))
        try:
            return Reply(200, {}, (await self._shell(argv, source, COMMAND_TIMEOUT)).encode())
        except SandboxFull as error:
            return Reply(507, {}, json.dumps({"error": error.what}).encode())
        except CommandFailed as error:
            self._inside = None
            return Reply(500, {}, json.dumps({"error": error.what}).encode())


async def persistently(call: Callable[[], Awaitable[T]]) -> T:
    """Unreachable is not gone: make a call that bears it again, a few times, and no sooner than its provider
    says. One that asks for more time than LONGEST_PAUSE is left to whoever called us."""
    for pause in PAUSES:
        try:
            return await call()
        except SandboxUnreachable as error:
            if error.retry_after > LONGEST_PAUSE:
                raise
            log.info("%s Trying again.", error)
            wait = max(pause, error.retry_after)
        await asyncio.sleep(wait)
    return await call()


# Our programs


@functools.cache
def programs_archive() -> bytes:
    """All of sandbox/inside, the same bytes for the same content."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(INSIDE.glob("*.py")):
            content = path.read_bytes()
            about = tarfile.TarInfo(path.name)
            about.size, about.mode = len(content), 0o444
            tar.addfile(about, io.BytesIO(content))
    return archive.getvalue()


@functools.cache
def programs_version() -> str:
    return hashlib.sha256(programs_archive()).hexdigest()[:16]


# What commands say


def _output(said: Said) -> str:
    if said.code == 0:
        return said.output
    why = (said.output.strip() or f"exit code {said.code}").splitlines()[-1]
    if "No space left" in why or "quota" in why.lower():
        raise SandboxFull(f"There is no space left in the box: {why}.", "Delete files in the sandbox's home.")
    raise CommandFailed(f"{why}.")


def _last_json(output: str, *names: str) -> dict[str, Any]:
    """The JSON of the last line, with these names in it: warnings may stand before it."""
    try:
        said = dict(json.loads(output.strip().rpartition("\n")[2]))
        return {name: said[name] for name in names}
    except NONSENSE as error:
        raise SandboxUnreachable(f"A command in the box was answered with {output[-200:]!r}.") from error
