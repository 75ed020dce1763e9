"""Remote boxes that are real but for their distance: a directory of this machine is the home, commands are
run with nothing of our environment, and the supervisor's door listens on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path

import httpx

from bot.errors import SandboxError, SandboxGone, SandboxNotRunning, SandboxUnreachable
from bot.models import SandboxState
from bot.ports import Sandbox
from sandbox.box import Address, Said
from sandbox.remote import RemoteSandbox
from sandbox.remote_ports import RemotePorts

PATH = f"/usr/local/bin:/usr/bin:/bin:{Path(sys.base_prefix, 'bin')}"


class DirectoryBox:
    """<root>/box.json, <root>/running while it is started, <root>/home.

    What runs in it is known by its HOME, so that stopping it ends whatever has detached itself, as the end
    of a machine would.
    """

    reserved = ()
    signer = None

    def __init__(self, root: Path, *, door: bool = True) -> None:
        self.id = root.name
        self.root = root
        self.home = root / "home"
        self.has_door = door
        self.path = PATH
        self._running = root / "running"
        about = json.loads((root / "box.json").read_text())
        self.labels: Mapping[str, str] = about["labels"]
        self.port = int(about["port"])
        self.env: Mapping[str, str] = about.get("env", {})

    async def state(self) -> SandboxState:
        if not (self.root / "box.json").exists():
            raise SandboxGone(f"There is no box {self.id}.")
        return SandboxState.RUNNING if self._running.exists() else SandboxState.STOPPED

    async def start(self) -> None:
        await self.state()
        self.home.mkdir(exist_ok=True)
        self._running.touch()

    async def stop(self) -> None:
        await self.state()
        self._running.unlink(missing_ok=True)
        await self._end_processes()

    async def delete(self) -> None:
        await self.state()
        (self.root / "box.json").unlink()
        await self._end_processes()
        await asyncio.to_thread(remove_tree, self.root)

    async def touch(self, idle_stop: float) -> None:
        await self.state()

    async def run(self, command: str, *, timeout: float) -> Said:
        await self._must_run()
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            command,
            env={**self.env, "PATH": self.path, "HOME": str(self.home)},
            cwd=self.home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(timeout):
                output, _ = await process.communicate()
        except TimeoutError as error:
            raise SandboxUnreachable(f"The command took longer than {timeout:g} s.") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        await self._must_run()
        return Said(process.returncode or 0, output.decode(errors="replace"))

    async def upload(self, content: bytes | Path, path: str) -> None:
        await self._must_run()
        data = content if isinstance(content, bytes) else content.read_bytes()
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        await self._must_run()
        target.write_bytes(Path(path).read_bytes()[: limit + 1])

    async def door(self, port: int) -> Address | None:
        await self._must_run()
        return Address(f"http://127.0.0.1:{port}") if self.has_door else None

    async def _must_run(self) -> None:
        if await self.state() is not SandboxState.RUNNING:
            raise SandboxNotRunning(f"The box {self.id} is stopped.")

    async def _end_processes(self) -> None:
        until = time.monotonic() + 10
        while found := self.processes():
            assert time.monotonic() < until, f"{found} do not end"
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.01)

    def processes(self) -> list[int]:
        mark = f"HOME={self.home}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found


class DirectoryProvider:
    """Makes such boxes under one directory, as a provider of remote boxes would."""

    name = "remote"
    host = ""
    warning = ""
    separates_sessions = False  # one user, one file system
    shares_agents = False

    def __init__(self, directory: Path, *, door: bool = True, ports_host: str = "") -> None:
        self._directory = directory
        self._ports = RemotePorts(ports_host)
        self._door = door
        self._client = httpx.AsyncClient(trust_env=False)
        directory.mkdir(parents=True, exist_ok=True)

    async def check(self) -> None:
        pass

    async def create(self, labels: Mapping[str, str]) -> Sandbox:
        root = self._directory / f"box-{secrets.token_hex(8)}"
        root.mkdir()
        (root / "box.json").write_text(json.dumps({"labels": dict(labels), "port": free_port()}))
        sandbox = self._sandbox(root)
        await sandbox.start()
        return sandbox

    async def find(self, labels: Mapping[str, str]) -> Sequence[Sandbox]:
        found = []
        for about in sorted(self._directory.glob("box-*/box.json")):
            theirs = json.loads(about.read_text())["labels"]
            if all(theirs.get(name) == value for name, value in labels.items()):
                found.append(self._sandbox(about.parent))
        return found

    async def get(self, id: str) -> Sandbox:
        root = self._directory / id
        if not re.fullmatch(r"box-[0-9a-f]{16}", id) or not (root / "box.json").exists():
            raise SandboxGone(f"There is no box {id}.")
        return self._sandbox(root)

    async def close(self) -> None:
        await self._ports.close()
        await self._client.aclose()

    def _sandbox(self, root: Path) -> RemoteSandbox:
        box = DirectoryBox(root, door=self._door)
        return RemoteSandbox(box, self._client, port=box.port, host="127.0.0.1", ports=self._ports)


async def entered(making: Awaitable[Sandbox]) -> Sandbox:
    """What was made, as it is before anything is done in it."""
    sandbox = await making
    await sandbox.enter()
    return sandbox


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def remove_tree(root: Path) -> None:
    for directory, names, _ in os.walk(root):
        for below in (Path(directory, name) for name in names):
            if not below.is_symlink():  # where it leads is not the box's
                below.chmod(stat.S_IRWXU)
    try:
        shutil.rmtree(root)
    except OSError as error:
        raise SandboxError(f"The box could not be deleted: {error}.") from error
