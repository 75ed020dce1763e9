"""What stands between a program and the bot's machine: bubblewrap, or (by name only) nothing."""

from __future__ import annotations

import logging
import os
import pwd
import resource
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from bot.errors import ProviderUnavailable, SandboxError
from bot.models import DeniedHost, Launch
from sandbox import bubblewrap, seccomp
from sandbox.bubblewrap import ETC_FILES, Command, Options, Place
from sandbox.cgroups import Groups, Limits
from sandbox.execute import execute
from sandbox.local_egress import Egress
from sandbox.local_private import make_private
from sandbox.process import INSIDE, helper
from sandbox.whole import write_whole

log = logging.getLogger(__name__)

CHECK_TIMEOUT = 20.0
PROCESSES = 4096  # of a sandbox that has a user of its own, and threads, where no setting says how many
OTHERWISE = (
    "Or choose another provider; or, for code and people you trust, set SANDPIPER_SANDBOX_UNSAFE=true."
)


class Isolation(Protocol):
    warning: str  # what every status repeats; "" = none
    separates_sessions: bool  # as Provider's
    reads: Sequence[Path] | None  # what users of their own would have to read here; None: there are none

    def paths(self, place: Place) -> tuple[str, str, str, str]:
        """Home, workspaces, repositories and the agents' programs, as programs see them."""
        ...

    async def ready(self, place: Place, launch: Launch) -> None:
        """Before each program: have what it sees and needs beside the box. Raises SandboxError, OSError."""
        ...

    async def keep(self, place: Place) -> None:
        """While programs run: have up again what they need beside the box. Raises SandboxError."""
        ...

    def command(self, place: Place, launch: Launch, *, env_fd: int, life_fd: int | None) -> Command:
        """The command line of this machine for a launch. Raises SandboxError."""
        ...

    def reaching(self, place: Place, path: str) -> tuple[str, ...]:
        """What must be visible for a path to be reached. Raises SandboxError when nothing leads there."""
        ...

    async def check(self, place: Place) -> None:
        """Can it work here? Raises ProviderUnavailable with the cause and the mend."""
        ...

    async def stop(self, place: Place) -> None:
        """After the last program: nothing of the sandbox's keeps running beside it."""
        ...

    def denied(self, place: Place, since: float) -> tuple[DeniedHost, ...]:
        """The hosts refused since then (Unix time)."""
        ...

    def memory_kills(self, place: Place) -> int:
        """How often a program was ended for the limit of memory; 0 without one."""
        ...


class Bubblewrap:
    """Every program in a box of its own, with the sandbox's egress proxy as the only way out."""

    separates_sessions = True

    def __init__(self, options: Options, allow: Iterable[str], limits: Limits | None = None) -> None:
        self._options = options
        self.reads: Sequence[Path] | None = (INSIDE, *options.tools)
        limits = limits or Limits()
        self._processes = _at_most(limits.pids or PROCESSES)
        self._groups = _groups(limits)
        # The kernel counts the processes of a sandbox that has a user of its own, wherever they are.
        self._groups_of_a_user = _groups(replace(limits, pids=0))
        self._filter = seccomp.program(options.machine)
        self.warning = "" if self._filter else UNFILTERED.format(machine=options.machine)
        self._allow = tuple(allow)
        self._egress: dict[Place, Egress] = {}
        self._prepared: set[Place] = set()

    def paths(self, place: Place) -> tuple[str, str, str, str]:
        return bubblewrap.HOME, bubblewrap.WORKSPACES, bubblewrap.REPOSITORIES, bubblewrap.AGENTS

    async def ready(self, place: Place, launch: Launch) -> None:
        if place not in self._prepared:  # the first time in this life of the bot
            self._write(place)
            if groups := self._groups_for(place):
                groups.make(_group(place))
            self._prepared.add(place)
        for path in launch.visible:
            directory = bubblewrap.on_host(place, path)
            directory.mkdir(mode=0o700, exist_ok=True)
            if place.uid and directory.lstat().st_uid != place.uid:
                os.chown(directory, place.uid, place.uid, follow_symlinks=False)
        make_private(place, launch)
        await self._way_out(place, launch.loopback)

    def _write(self, place: Place) -> None:
        """Programs that run see the files that they were started with, so those are never emptied."""
        place.etc.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in ETC_FILES.items():
            write_whole(place.etc / name, text, mode=0o644 if place.uid else 0o600)
        if place.uid:
            place.etc.chmod(0o711)
        if self._filter:
            write_whole(place.filter, self._filter)

    async def keep(self, place: Place) -> None:
        await self._way_out(place)

    async def _way_out(self, place: Place, loopback: Sequence[int] = ()) -> None:
        ports = (*self._options.led_in, *loopback)
        await self._proxy(place).ensure(f"127.0.0.1:{port}" for port in ports)

    def command(self, place: Place, launch: Launch, *, env_fd: int, life_fd: int | None) -> Command:
        groups = self._groups_for(place)
        return bubblewrap.build(
            place,
            launch,
            self._options,
            env_fd=env_fd,
            life_fd=life_fd,
            groups=groups.of(_group(place)) if groups else (),
            processes=self._processes,
        )

    def reaching(self, place: Place, path: str) -> tuple[str, ...]:
        return bubblewrap.reaching(path)

    async def stop(self, place: Place) -> None:
        await self._proxy(place).stop()
        self._egress.pop(place, None)
        self._prepared.discard(place)
        if groups := self._groups_for(place):
            await groups.remove(_group(place))

    def denied(self, place: Place, since: float) -> tuple[DeniedHost, ...]:
        return self._proxy(place).denied(since)

    def memory_kills(self, place: Place) -> int:
        groups = self._groups_for(place)
        return groups.memory_kills(_group(place)) if groups else 0

    async def check(self, place: Place) -> None:
        if shutil.which("bwrap") is None:
            raise ProviderUnavailable(
                "bubblewrap is not installed, so there are no local sandboxes.",
                f"Install it (apt install bubblewrap, or dnf install bubblewrap). {OTHERWISE}",
            )
        if self._options.python() is None:
            raise ProviderUnavailable(
                "There is no python3 that a local sandbox could use (one below /usr).",
                "Install it (apt install python3), or name a toolchain in SANDPIPER_SANDBOX_TOOLS.",
            )
        for tool in self._options.tools:
            if not tool.is_dir():
                raise ProviderUnavailable(f"SANDPIPER_SANDBOX_TOOLS names {tool}, which is no directory.")
        if groups := self._groups_for(place):
            groups.check()
        try:
            await self.ready(place, PROBE)
            result = await execute(
                lambda env_fd, life_fd: self.command(place, PROBE, env_fd=env_fd, life_fd=life_fd),
                stdin=b"",
                timeout=CHECK_TIMEOUT,
            )
        except SandboxError as error:
            raise ProviderUnavailable(
                f"Local sandboxes do not work here: {error.what}", error.mend
            ) from error
        if result.code != 0:
            said = result.err.decode(errors="replace").strip() or f"exit code {result.code}"
            raise ProviderUnavailable(
                f"Local sandboxes do not work here: {said}.", f"{mend(said)} {OTHERWISE}"
            )

    def _proxy(self, place: Place) -> Egress:
        if place not in self._egress:
            self._egress[place] = Egress(place.egress, self._allow, shared=bool(place.uid), uid=place.uid)
        return self._egress[place]

    def _groups_for(self, place: Place) -> Groups | None:
        return self._groups_of_a_user if place.uid else self._groups


def _groups(limits: Limits) -> Groups | None:
    return Groups.here(limits) if limits.controllers else None


def _at_most(processes: int) -> int:
    """No more than the bot itself may have: not every root can raise a limit."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return processes if hard == resource.RLIM_INFINITY else min(processes, hard)


def _group(place: Place) -> str:
    """The name of a sandbox's control group; sandboxes that are being made have a dot before theirs."""
    return f"sandpiper-{place.root.name.lstrip('.')}"


UNFILTERED = "local sandboxes have no system call filter on {machine}, only on x86_64 and aarch64"
PROBE = Launch(("true",), cwd=bubblewrap.HOME)

# Kernel switches that keep unprivileged users from making namespaces: file, the value that does, mend.
SWITCHES = (
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor restricts user namespaces: give bwrap a profile, or sysctl -w"
        " kernel.apparmor_restrict_unprivileged_userns=0.",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "User namespaces are switched off: sysctl -w kernel.unprivileged_userns_clone=1.",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "User namespaces are switched off: sysctl -w user.max_user_namespaces=15000.",
    ),
)


def mend(said: str, switches: Sequence[tuple[str, str, str]] = SWITCHES) -> str:
    """What an operator can do about bwrap's refusal."""
    if "nknown option" in said:
        return "This bubblewrap is too old: version 0.8 or newer is needed."
    for path, off, advice in switches:
        if Path(path).exists() and Path(path).read_text(encoding="utf-8").strip() == off:
            return advice
    if "namespace" in said or "uid map" in said or "proc" in said:
        return (
            "This machine does not let the bot make namespaces. In a container, start it with"
            " --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
            " --security-opt systempaths=unconfined."
        )
    return "Run `bwrap --ro-bind / / true` as the bot's user to see the cause."


class Unisolated:
    """No box at all: programs run as the bot's own user. Only where somebody asked for it by name."""

    separates_sessions = False
    reads: Sequence[Path] | None = None
    warning = "unsafe: agents run without isolation, as the bot's own user on its machine"

    def paths(self, place: Place) -> tuple[str, str, str, str]:
        return str(place.home), str(place.workspaces), str(place.repositories), str(place.agents)

    async def ready(self, place: Place, launch: Launch) -> None:
        for path in launch.visible:
            Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)

    async def keep(self, place: Place) -> None:
        pass

    def command(self, place: Place, launch: Launch, *, env_fd: int, life_fd: int | None) -> Command:
        path = os.environ.get("PATH", os.defpath)
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            user = str(os.geteuid())
        env = {
            "PATH": path if launch.ours or launch.installs else f"{place.home / '.local' / 'bin'}:{path}",
            "HOME": str(place.home),
            "USER": user,
            "LOGNAME": user,
            "LANG": "C.UTF-8",
            "SANDPIPER_PROGRAMS": str(INSIDE),
            **launch.env,
            **launch.secrets,
        }
        # The same first program as in a box, so that both start, fail and end alike.
        forward = helper(INSIDE / "forward.py", "--")
        return Command((*forward, *launch.argv), env, launch.cwd)

    def reaching(self, place: Place, path: str) -> tuple[str, ...]:
        if place.root not in Path(path).parents or ".." in Path(path).parts:
            raise SandboxError(f"{path} is outside the sandbox.")
        return ()

    async def check(self, place: Place) -> None:
        log.warning("Local sandboxes are unsafe: %s", self.warning)

    async def stop(self, place: Place) -> None:
        pass

    def denied(self, place: Place, since: float) -> tuple[DeniedHost, ...]:
        return ()

    def memory_kills(self, place: Place) -> int:
        return 0
