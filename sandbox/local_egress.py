"""The egress proxy of a sandbox here, seen from the bot: started, given its rules, asked what it refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from bot.errors import SandboxError, SandboxFull
from bot.models import DeniedHost
from sandbox.inside.egress import ALLOW_SETTING
from sandbox.process import INSIDE, helper, run_helper

PROGRAM = INSIDE / "egress.py"


class Egress:
    """One sandbox's proxy. It outlives the bot, and is found again by its directory.

    shared: programs in the box have user ids of their own, so the socket is for all who see its directory.
    uid: the user, and group, that it runs as once it listens; 0: ours.
    """

    def __init__(self, directory: Path, allow: Iterable[str], *, shared: bool = False, uid: int = 0) -> None:
        self._directory = directory
        self._shared = shared
        self._uid = uid
        self._allow = tuple(allow)
        self._loopback: set[str] = set()
        self._told = False  # whether the running proxy has our rules
        self._lock = asyncio.Lock()

    @property
    def mount(self) -> Path:
        """The directory to show in the box; it holds the socket and nothing else."""
        return self._directory / "box"

    async def ensure(self, loopback: Iterable[str]) -> None:
        """Have it run, with our rules and these services of this machine. Raises SandboxError.

        A service once named stays reachable until the sandbox stops, for a process that uses it may
        have been started by an earlier life of the bot.
        """
        async with self._lock:
            if not self._told:
                self._loopback |= self._remembered()
            wanted = self._loopback | set(loopback)
            if self._told and wanted == self._loopback and self._is_up():
                return
            self._loopback = wanted
            config = {"allow": self._allow, "loopback": sorted(wanted), "shared": self._shared}
            config["uid"] = self._uid
            argv = helper(PROGRAM, "start", "--dir", str(self._directory))
            code, _, err = await run_helper(argv, json.dumps(config).encode())
            if code != 0:
                kind = SandboxFull if "No space left" in err else SandboxError
                raise kind(f"The egress proxy could not be started: {err.splitlines()[-1] if err else code}.")
            self._told = True

    async def stop(self) -> None:
        async with self._lock:
            self._told, self._loopback = False, set()
            code, _, err = await run_helper(helper(PROGRAM, "stop", "--dir", str(self._directory)), b"")
            if code != 0:
                raise SandboxError(
                    f"The egress proxy could not be stopped: {err.splitlines()[-1] if err else code}."
                )
            (self._directory / "egress.json").unlink(missing_ok=True)

    def denied(self, since: float) -> tuple[DeniedHost, ...]:
        """What was refused since then (Unix time), in order; a host and port may come twice."""
        try:
            path = self._directory / "denied.jsonl"
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ()
        hosts = []
        for line in lines:
            # Cut off by a full disk or a power failure, or read while it is written.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                if entry["at"] >= since:
                    # An entry of an earlier release does not name the setting.
                    setting = entry.get("setting", ALLOW_SETTING)
                    hosts.append(DeniedHost(f"{entry['host']}:{entry['port']}", setting))
        return tuple(hosts)

    def _remembered(self) -> set[str]:
        try:
            config = json.loads((self._directory / "egress.json").read_text(encoding="utf-8"))
            return set(config["loopback"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # a power cut can leave it empty
            return set()

    def _is_up(self) -> bool:
        with socket.socket(socket.AF_UNIX) as link, contextlib.suppress(OSError):
            link.setblocking(False)
            place = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)
            try:
                link.connect(f"/proc/self/fd/{place}/proxy.sock")
                return True
            finally:
                os.close(place)
        return False
