"""Sandboxes on the bot's own machine: a directory per person, and bubblewrap around every program.

    <directory>/<id>/box.json        labels; when it was made
                     running         exists while the sandbox is started
                     home workspaces repositories    what programs see, each at its place in the box
                     spool/<key>     a kept process: its keeper, its output. Never visible in the box
                     run             the egress proxy and the box's own /etc
    <directory>/agents               the agents' programs, for all sandboxes

Keepers and egress proxies are processes of their own, so work goes on while the bot restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from bot.errors import (
    ProcessGone,
    ProviderUnavailable,
    SandboxError,
    SandboxFull,
    SandboxGone,
    SandboxNotRunning,
    SandboxUnreachable,
    SettingsError,
)
from bot.models import DeniedHost, ExecResult, Launch, SandboxState
from bot.ports import Guard, Link
from sandbox.bubblewrap import Options, Place
from sandbox.cgroups import SETTINGS, Limits
from sandbox.egress_modes import EgressMode, hosts_of, loopback_of
from sandbox.execute import execute
from sandbox.isolation import Bubblewrap, Isolation, Unisolated
from sandbox.local_ports import LocalPorts
from sandbox.machine import HOST, host_of
from sandbox.process import (
    HANDOVER_FD,
    KeeperSocket,
    KeptProcess,
    description,
    end_kept,
    start_keeper,
)

log = logging.getLogger(__name__)

SCRAP = ".scrap-"
# Younger ones may be what a bot beside this one is making or deleting right now.
SCRAP_AFTER = 3600.0  # seconds
TRANSFER_TIMEOUT = 600.0

# $1 path; stdin: the content. Moved into place whole.
STORE = """
mkdir -p -- "$(dirname -- "$1")" && rm -rf -- "$1.part" && cat >"$1.part" &&
{ ! test -d "$1" || rm -rf -- "$1"; } && mv -f -- "$1.part" "$1"
"""
# $1 path, $2 bytes. A link is not followed.
FETCH = 'test -f "$1" && ! test -L "$1" || { echo "not a regular file" >&2; exit 66; }; head -c "$2" -- "$1"'


def local_provider(
    directory: Path,
    *,
    unsafe: bool = False,
    tools: Sequence[str] = (),
    mode: EgressMode = "registries",
    allow: Sequence[str] = (),
    loopback: Sequence[str] = (),
    ports_host: str = "",
    limits: Limits | None = None,
    bot: int = 0,
) -> LocalProvider:
    """The provider that the operator's settings describe.

    allow: what boxes reach besides what the egress mode lets through; in the mode `list` all that they
    reach. ports_host: the address of this machine on which people reach ports that agents share, "": they
    don't. limits: of each sandbox. bot: the port of this machine's loopback where boxes find the bot, when
    code comes on demand; 0: they don't.

    Raises SettingsError that names the variable.
    """
    services = loopback_of(loopback)
    hosts = hosts_of(mode, allow)
    shared = LocalPorts(ports_host)
    if unsafe:
        for name in limits.controllers if limits else ():
            raise SettingsError(
                f"{SETTINGS[name]} limits sandboxes, and with SANDPIPER_SANDBOX_UNSAFE there are none.",
                "Leave one of the two out.",
            )
        return LocalProvider(directory, Unisolated(), ports=shared)
    seen = tuple(Path(tool).expanduser() for tool in tools)
    options = Options(tools=seen, loopback=services, bot=bot)
    return LocalProvider(directory, Bubblewrap(options, hosts, limits), ports=shared)


class LocalProvider:
    """Makes sandboxes under one directory of this machine."""

    name = "local"
    shares_agents = True

    def __init__(
        self,
        directory: Path,
        isolation: Isolation,
        *,
        max_spool: int = 64 << 20,
        ports: LocalPorts | None = None,
        scrap_after: float = SCRAP_AFTER,
    ) -> None:
        self._scrap_after = scrap_after
        self._directory = directory.absolute()
        self._isolation = isolation
        self._max_spool = max_spool
        self._ports = ports or LocalPorts()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.host = host_of(self._directory)
        self.warning = isolation.warning
        self.separates_sessions = isolation.separates_sessions
        self._known: dict[str, LocalSandbox] = {}

    async def check(self) -> None:
        for left_over in self._directory.glob(f"{SCRAP}*"):  # of a life that ended half way
            if _since_named(left_over) >= self._scrap_after:
                await asyncio.to_thread(_remove_tree, left_over)
        place = Place(_scrap(self._directory))
        try:
            _lay_out(place)
            try:
                await self._isolation.check(place)
            finally:
                await self._isolation.stop(place)
                await asyncio.to_thread(_remove_tree, place.root)
        except OSError as error:
            raise ProviderUnavailable(
                f"No sandbox can be made in {self._directory}: {error.strerror or error}.",
                "Check that directory's disk: space, rights, health.",
            ) from error

    async def create(self, labels: Mapping[str, str]) -> LocalSandbox:
        id = f"local-{secrets.token_hex(8)}"
        fresh = Place(_scrap(self._directory))
        try:
            _lay_out(fresh)
            about = {"labels": dict(labels), "created_at": time.time()}
            (fresh.root / "box.json").write_text(json.dumps(about), encoding="utf-8")
            fresh.root.rename(self._directory / id)
        except OSError as error:
            shutil.rmtree(fresh.root, ignore_errors=True)
            kind = SandboxFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else SandboxError
            raise kind(f"A sandbox could not be made in {self._directory}: {error.strerror}.") from error
        sandbox = self._sandbox(id)
        await sandbox.start()
        return sandbox

    async def find(self, labels: Mapping[str, str]) -> Sequence[LocalSandbox]:
        found = []
        for about in sorted(self._directory.glob("local-*/box.json")):
            with contextlib.suppress(SandboxGone):  # deleted just now
                sandbox = self._sandbox(about.parent.name)
                if all(sandbox.labels.get(name) == value for name, value in labels.items()):
                    found.append(sandbox)
        return found

    async def get(self, id: str) -> LocalSandbox:
        if not (self._directory / HOST).exists():  # a disk that is not mounted says nothing of its sandboxes
            raise SandboxUnreachable(f"{self._directory} is not the directory of sandboxes that it was.")
        if not re.fullmatch(r"local-[0-9a-f]{16}", id) or not (self._directory / id / "box.json").exists():
            raise SandboxGone(f"There is no sandbox {id} in {self._directory}.")
        return self._sandbox(id)

    async def close(self) -> None:
        """Keepers and proxies go on by themselves."""
        await self._ports.close()

    def _sandbox(self, id: str) -> LocalSandbox:
        if id not in self._known:
            place = Place(self._directory / id)
            try:
                about = json.loads((place.root / "box.json").read_text(encoding="utf-8"))
            except FileNotFoundError as error:
                raise SandboxGone(f"The sandbox {id} was deleted.") from error
            self._known[id] = LocalSandbox(
                id, about["labels"], place, self._isolation, self._max_spool, self._ports
            )
        return self._known[id]


class LocalSandbox:
    def __init__(
        self,
        id: str,
        labels: Mapping[str, str],
        place: Place,
        isolation: Isolation,
        max_spool: int,
        ports: LocalPorts,
    ) -> None:
        self.id = id
        self.labels = labels
        self.home, self.workspaces, self.repositories, self.agents = isolation.paths(place)
        self._place = place
        self._isolation = isolation
        self._max_spool = max_spool
        self._ports = ports
        self._brief: set[asyncio.subprocess.Process] = set()

    # its life

    async def state(self) -> SandboxState:
        if not (self._place.root / "box.json").exists():
            raise SandboxGone(f"The sandbox {self.id} was deleted.")
        return SandboxState.RUNNING if self._started.exists() else SandboxState.STOPPED

    async def start(self) -> None:
        await self.state()
        _lay_out(self._place)
        self._started.touch()

    async def stop(self) -> None:
        await self.state()
        self._started.unlink(missing_ok=True)
        for process in self._brief:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        kept = [directory for directory in self._place.spool.iterdir() if directory.is_dir()]
        await asyncio.gather(*(end_kept(directory) for directory in kept))
        await self._isolation.stop(self._place)

    async def delete(self) -> None:
        await self.stop()
        doomed = _scrap(self._place.root.parent)
        self._place.root.rename(doomed)
        await asyncio.to_thread(_remove_tree, doomed)

    async def touch(self, idle_stop: float) -> None:
        """A local sandbox costs nothing while idle and does not stop itself; but what programs in it need
        beside it can have died under them."""
        if await self.state() is SandboxState.RUNNING:
            await self._isolation.keep(self._place)

    # what is done in it

    async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
        return await self._run(launch, stdin, timeout)

    async def upload(self, source: Path, path: str) -> None:
        with source.open("rb") as file:
            result = await self._run(self._shell(path, STORE, path), file, TRANSFER_TIMEOUT)
        if result.code != 0:
            raise _transfer_failed(path, result)

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        launch = self._shell(path, FETCH, path, str(limit + 1))
        try:
            with target.open("wb") as file:
                result = await self._run(launch, b"", TRANSFER_TIMEOUT, stdout=file)
            if result.code != 0:
                raise _transfer_failed(path, result)
            if target.stat().st_size > limit:
                raise SandboxError(f"{path} in the sandbox is larger than {limit} bytes.")
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    async def spawn(self, key: str, launch: Launch, *, fence: int, orphan_after: float) -> KeptProcess:
        await self._ready(launch)
        directory = self._kept(key)
        command = self._isolation.command(self._place, launch, env_fd=HANDOVER_FD, life_fd=None)
        await start_keeper(
            directory,
            description(
                command.argv,
                env=command.env,
                cwd=command.cwd,
                fence=fence,
                orphan_after=orphan_after,
                max_spool=self._max_spool,
                handover=command.handover,
                shield=command.shield,
            ),
        )
        return KeptProcess(key, fence, KeeperSocket(directory))

    async def attach(self, key: str, *, fence: int) -> KeptProcess:
        await self._running()
        directory = self._kept(key)
        if not (directory / "stdout").exists():
            raise ProcessGone(f"There is no process {key} in the sandbox {self.id}.")
        try:
            await self._isolation.keep(self._place)
        except SandboxError as error:  # the process is there all the same; the next touch tries again
            log.warning("sandbox %s: %s", self.id, error)
        return KeptProcess(key, fence, KeeperSocket(directory))

    async def expose(
        self,
        port: int,
        path: str,
        *,
        entrance: str = "",
        guard: Guard | None = None,
        strangers: bool = False,
    ) -> Link:
        await self._running()
        if guard is None:
            return await self._ports.expose(self._place.home, self._in_home(path))
        if not entrance:
            raise SandboxError("Servers in this sandbox end with their turn, and none runs in this thread.")
        return await self._ports.preview(self._place.home, self._in_home(entrance), port, guard)

    async def conceal(self, path: str) -> None:
        await self._ports.conceal(self._place.home / self._in_home(path))

    async def denied_hosts(self, since: int) -> tuple[int, tuple[DeniedHost, ...]]:
        await self.state()
        return self._isolation.denied(self._place, since)

    async def memory_kills(self) -> int:
        return self._isolation.memory_kills(self._place)

    # how

    @property
    def _started(self) -> Path:
        return self._place.root / "running"

    def _kept(self, key: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", key):
            raise SandboxError(f"'{key}' is no name for a process.")
        return self._place.spool / key

    def _in_home(self, path: str) -> str:
        below = path.removeprefix(f"{self.home}/")
        if below == path or ".." in Path(below).parts:
            raise SandboxError(f"{path} is not in the home.")
        return below

    async def _running(self) -> None:
        if await self.state() is not SandboxState.RUNNING:
            raise SandboxNotRunning(f"The sandbox {self.id} is stopped.")

    async def _ready(self, launch: Launch) -> None:
        await self._running()
        await self._isolation.ready(self._place, launch)

    def _shell(self, path: str, script: str, *args: str) -> Launch:
        argv = ("/bin/sh", "-c", script, "sandpiper", *args)
        return Launch(argv, cwd="/", visible=self._isolation.reaching(self._place, path), ours=True)

    async def _run(
        self, launch: Launch, stdin: bytes | BinaryIO, timeout: float, stdout: BinaryIO | None = None
    ) -> ExecResult:
        await self._ready(launch)
        running: list[asyncio.subprocess.Process] = []

        def started(process: asyncio.subprocess.Process) -> None:
            running.append(process)
            self._brief.add(process)

        try:
            result = await execute(
                lambda env_fd, life_fd: self._isolation.command(
                    self._place, launch, env_fd=env_fd, life_fd=life_fd
                ),
                stdin=stdin,
                timeout=timeout,
                stdout=stdout,
                started=started,
            )
        finally:
            self._brief.difference_update(running)
        if not self._started.exists():
            raise SandboxNotRunning(f"The sandbox {self.id} was stopped meanwhile.")
        if result.code == 1 and result.err.startswith((b"bwrap: ", b"box: ")):
            raise SandboxError(f"The box could not be made: {result.err.decode(errors='replace').strip()}.")
        return result


# Files of this machine


def _scrap(directory: Path) -> Path:
    """A name for what is being made or deleted; whatever has such a name for long goes at a check."""
    return directory / f"{SCRAP}{secrets.token_hex(6)}"


def _since_named(path: Path) -> float:
    """Seconds since it got its name, or since it was made; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_ctime
    except FileNotFoundError:
        return 0.0


def _lay_out(place: Place) -> None:
    kept = (place.home, place.workspaces, place.repositories, place.spool, place.run)
    for directory in (*kept, place.agents):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _transfer_failed(path: str, result: ExecResult) -> SandboxError:
    said = result.err.decode(errors="replace").strip()
    if "No space left" in said or "quota" in said.lower():
        return SandboxFull(f"There is no space left for {path}.", "Delete files in the sandbox's home.")
    return SandboxError(f"{path} in the sandbox: {said or f'exit code {result.code}'}.")


def _remove_tree(root: Path) -> None:
    """Delete a tree, also where its owner took the rights to its own directories away."""
    root.chmod(stat.S_IRWXU)
    for directory, names, _ in os.walk(root):
        for child in (Path(directory, name) for name in names):
            if not child.is_symlink():
                child.chmod(stat.S_IRWXU)
    shutil.rmtree(root)
