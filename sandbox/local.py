"""Sandboxes on the bot's own machine: a directory per person, and bubblewrap around every program.

    <directory>/<id>/box.json        labels; when it was made; whose its programs and files are
                     running         exists while the sandbox is started
                     home workspaces repositories    what programs see, each at its place in the box
                     sessions/<session>    what it has for itself of the home, in the place of that
                     spool/<key>     a kept process: its keeper, its output. Never visible in the box
                     run             the egress proxy and the box's own /etc
    <directory>/agents               the agents' programs, for all sandboxes

Keepers and egress proxies are processes of their own, so work goes on while the bot restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from bot.errors import (
    ProcessGone,
    ProviderUnavailable,
    SandboxError,
    SandboxGone,
    SandboxNotRunning,
    SandboxUnreachable,
    SettingsError,
)
from bot.models import DeniedHost, ExecResult, Launch, SandboxState
from bot.ports import Guard, Link
from sandbox.bubblewrap import Options, Place
from sandbox.cgroups import SETTINGS, Limits
from sandbox.egress_modes import EgressMode, hosts_by_proxy, loopback_of
from sandbox.execute import execute
from sandbox.isolation import Bubblewrap, Isolation, Unisolated
from sandbox.local_files import (
    FETCH,
    SCRAP,
    STORE,
    hand_over,
    lay_out,
    read_about,
    remove_tree,
    scrap,
    since_named,
    told,
    transfer_failed,
    write_about,
)
from sandbox.local_ports import LocalPorts
from sandbox.machine import HOST, host_of
from sandbox.process import (
    HANDOVER_FD,
    KeeperSocket,
    KeptProcess,
    any_runs,
    description,
    end_kept,
    start_keeper,
)
from sandbox.users import SETTING as UIDS
from sandbox.users import Users, end_all
from sandbox.whole import in_words, sync_names

log = logging.getLogger(__name__)

# Younger ones may be what a bot beside this one is making or deleting right now.
SCRAP_AFTER = 3600.0  # seconds
TRANSFER_TIMEOUT = 600.0
TOO_MANY = "Too many programs run in the sandbox (SANDPIPER_SANDBOX_PIDS): `sandbox restart` ends them."


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
    uids: str = "",
    data_dir: Path | None = None,
) -> LocalProvider:
    """The provider that the operator's settings describe.

    allow: what boxes reach besides what the egress mode lets through; in the mode `list` all that they
    reach. ports_host: the address of this machine on which people reach ports that agents share, "": they
    don't. limits: of each sandbox. bot: the port of this machine's loopback where boxes find the bot, when
    code comes on demand; 0: they don't. uids, data_dir: as `wanted` and `data_dir` of Users.

    Raises SettingsError that names the variable.
    """
    services = loopback_of(loopback)
    hosts = hosts_by_proxy(mode, allow)
    shared = LocalPorts(ports_host)
    if unsafe:
        for name in limits.controllers if limits else ():
            raise SettingsError(
                f"{SETTINGS[name]} limits sandboxes, and with SANDPIPER_SANDBOX_UNSAFE there are none.",
                "Leave one of the two out.",
            )
        if uids:
            raise SettingsError(
                f"With SANDPIPER_SANDBOX_UNSAFE everything runs as the bot's own user, whatever {UIDS} says.",
                "Leave one of the two out.",
            )
        return LocalProvider(directory, Unisolated(), ports=shared)
    seen = tuple(Path(tool).expanduser() for tool in tools)
    options = Options(tools=seen, loopback=services, bot=bot)
    isolation = Bubblewrap(options, hosts, limits)
    return LocalProvider(directory, isolation, ports=shared, uids=uids, data_dir=data_dir)


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
        uids: str = "",
        data_dir: Path | None = None,
    ) -> None:
        self._scrap_after = scrap_after
        self._directory = directory.absolute()
        self._isolation = isolation
        self._max_spool = max_spool
        self._ports = ports or LocalPorts()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._users = Users(self._directory, uids, reads=isolation.reads, data_dir=data_dir)
        self.host = host_of(self._directory)
        self.warning = isolation.warning
        self.separates_sessions = isolation.separates_sessions
        self._known: dict[str, LocalSandbox] = {}

    async def check(self) -> None:
        for left_over in self._directory.glob(f"{SCRAP}*"):  # of a life that ended half way
            if since_named(left_over) >= self._scrap_after:
                await asyncio.to_thread(remove_tree, left_over)
        try:
            await self._users.ready()
            try:
                await self._try_out(self._users.installer)
            except ProviderUnavailable as error:
                if not self._users.installer:
                    raise
                await self._users.do_without(error)
                await self._try_out(0)
        except OSError as error:
            raise ProviderUnavailable(
                f"No sandbox can be made in {self._directory}: {error.strerror or error}.",
                "Check that directory's disk: space, rights, health.",
            ) from error

    async def _try_out(self, uid: int) -> None:
        place = Place(scrap(self._directory), uid, installer=uid)
        lay_out(place)
        try:
            await self._isolation.check(place)
        finally:
            await self._isolation.stop(place)
            await asyncio.to_thread(remove_tree, place.root)

    async def create(self, labels: Mapping[str, str]) -> LocalSandbox:
        id = f"local-{secrets.token_hex(8)}"
        fresh = Place(scrap(self._directory))
        about = {"labels": dict(labels), "created_at": time.time()}
        try:
            await self._users.ready()
            fresh.root.mkdir(mode=0o700)
            uid = await asyncio.to_thread(self._users.settle, fresh.root, about)
            fresh = Place(fresh.root, uid, self._users.installer)
            write_about(fresh.root, {**about, "uid": uid, "owner": uid})
            lay_out(fresh)
            fresh.root.rename(self._directory / id)
            sync_names(self._directory)
        except OSError:
            shutil.rmtree(fresh.root, ignore_errors=True)
            with in_words(f"A sandbox could not be made in {self._directory}"):
                raise
        sandbox = self._sandbox(id)
        await sandbox.start()
        return sandbox

    async def find(self, labels: Mapping[str, str]) -> Sequence[LocalSandbox]:
        found = []
        for about in sorted(self._directory.glob("local-*/box.json")):
            with told(about.parent):
                found.append(self._sandbox(about.parent.name))
        return [sandbox for sandbox in found if labels.items() <= sandbox.labels.items()]

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
            parts = (self._users, self._isolation, self._max_spool, self._ports)
            self._known[id] = LocalSandbox(id, self._directory / id, *parts)
        return self._known[id]


class LocalSandbox:
    def __init__(
        self,
        id: str,
        root: Path,
        users: Users,
        isolation: Isolation,
        max_spool: int,
        ports: LocalPorts,
    ) -> None:
        self.id = id
        about = read_about(root)
        self.labels: Mapping[str, str] = about["labels"]
        self._place = Place(root, about.get("uid", 0))
        self.home, self.workspaces, self.repositories, self.agents = isolation.paths(self._place)
        self._users = users
        self._settled, self._settling = False, asyncio.Lock()
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
        with in_words(f"The sandbox {self.id} could not be started"):
            await self._settle()
            lay_out(self._place)
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
        if self._place.uid:
            await end_all(self._place.uid)

    async def delete(self) -> None:
        await self.stop()
        doomed = scrap(self._place.root.parent)
        self._place.root.rename(doomed)
        await asyncio.to_thread(remove_tree, doomed)

    async def touch(self, idle_stop: float) -> None:
        """It does not stop itself; but what programs in it need beside it can have died under them."""
        if await self.state() is SandboxState.RUNNING:
            await self._isolation.keep(self._place)

    async def enter(self) -> None: ...  # all that it needs is outside of it

    # what is done in it

    async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
        return await self._run(launch, stdin, timeout)

    async def upload(self, source: Path, path: str) -> None:
        with source.open("rb") as file:
            result = await self._run(self._shell(path, STORE, path), file, TRANSFER_TIMEOUT)
        if result.code != 0:
            raise transfer_failed(path, result)

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        launch = self._shell(path, FETCH, path, str(limit + 1))
        try:
            with target.open("wb") as file:
                result = await self._run(launch, b"", TRANSFER_TIMEOUT, stdout=file)
            if result.code != 0:
                raise transfer_failed(path, result)
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
        visible: Collection[str] = (),
        entrance: str = "",
        guard: Guard | None = None,
        strangers: bool = False,
    ) -> Link:
        await self._running()
        if guard is None:
            return await self._ports.expose(self._place.workspaces, self._below(path))
        if not entrance:
            raise SandboxError("Servers in this sandbox end with their turn, and none runs in this thread.")
        return await self._ports.preview(self._place.workspaces, self._below(entrance), port, guard)

    async def conceal(self, path: str) -> None:
        await self._ports.conceal(self._place.workspaces / self._below(path))

    async def denied_hosts(self, since: float) -> tuple[DeniedHost, ...]:
        await self.state()
        return self._isolation.denied(self._place, since)

    async def memory_kills(self, key: str) -> int:
        return self._isolation.memory_kills(self._place)

    # how

    @property
    def _started(self) -> Path:
        return self._place.root / "running"

    def _kept(self, key: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}", key):
            raise SandboxError(f"'{key}' is no name for a process.")
        return self._place.spool / key

    def _below(self, path: str) -> str:
        below = path.removeprefix(f"{self.workspaces}/")
        if below == path or ".." in Path(below).parts:
            raise SandboxError(f"{path} is in no session's workspace.")
        return below

    async def _running(self) -> None:
        if await self.state() is not SandboxState.RUNNING:
            raise SandboxNotRunning(f"The sandbox {self.id} is stopped.")

    async def _ready(self, launch: Launch) -> None:
        await self._running()
        with in_words(f"The sandbox {self.id} could not be made ready"):
            await self._settle()
            await self._isolation.ready(self._place, launch)

    async def _settle(self) -> None:
        """Once in this life of the bot: see that its files belong to whom its programs run as here. Where
        they do not, what runs in it goes on as it was, and they are handed over when that has ended."""
        async with self._settling:
            if self._settled:
                return
            await self._users.ready()
            root, installer = self._place.root, self._users.installer
            about = read_about(root)
            uid = about.get("uid", 0)
            if not self._users.fits(uid) or about.get("owner", 0) != uid:
                if self._brief or await any_runs(self._place.spool):
                    self._place = Place(root, about.get("owner", 0), installer)
                    return
                await self._isolation.stop(self._place)
                uid = await asyncio.to_thread(self._users.settle, root, about)
                await asyncio.to_thread(hand_over, Place(root, uid, installer))
                write_about(root, {**about, "uid": uid, "owner": uid})
            self._place = Place(root, uid, installer)
            lay_out(self._place)
            self._settled = True

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
        if result.code != 0 and result.err.startswith((b"bwrap: ", b"box: ", b"setpriv: ")):
            said = result.err.decode(errors="replace").strip()
            full = "temporarily unavailable" in said
            raise SandboxError(f"The box could not be made: {said}.", TOO_MANY if full else "")
        return result
