"""The supervisor's client: a program in a sandbox, kept by its keeper, addressed by byte offsets.

The protocol is described in sandbox/inside/supervisor.py. How a request reaches the keeper is the
provider's business: an `Ask` is one way there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bot.errors import InputGap, ProcessGone, SandboxError, SandboxFull, SandboxUnreachable, StaleFence
from bot.models import Chunk, ProcessStatus

INSIDE = Path(__file__).parent / "inside"
SUPERVISOR = INSIDE / "supervisor.py"
HANDOVER_FD = 100  # where a kept program finds the text that was handed over to it
PIECE = 4 << 20  # bytes of stdin per request
ANSWER_WITHIN = 30.0  # seconds, besides what a long poll may wait
END_WITHIN = 10.0  # seconds for a killed program to be gone
STDIN_PATIENCE = 60.0  # seconds for which a program may leave a full stdin unread


# What is raised by words that are not what they should be; the last one by those that are nested too deep.
NONSENSE = (KeyError, TypeError, ValueError, RecursionError)


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    def why(self) -> str:
        """What a refusal says of itself, whoever gave it."""
        try:
            return str(self.json()["error"])
        except NONSENSE:
            return self.body[:200].decode(errors="replace")


class Ask(Protocol):
    """One way to a keeper."""

    async def __call__(self, method: str, target: str, body: bytes = b"", *, wait: float = 0.0) -> Reply:
        """One request, whose answer may take `wait` seconds. Raises SandboxUnreachable."""
        ...


@contextlib.contextmanager
def understood(key: str) -> Iterator[None]:
    """In a remote box the supervisor is within reach of the agent, which may answer for it."""
    try:
        yield
    except NONSENSE as error:
        raise SandboxError(f"{key}: the supervisor's answer makes no sense: {error!r}.") from error


class KeptProcess:
    """A program under the supervisor. Every refusal of the keeper becomes the error that names it."""

    def __init__(self, key: str, fence: int, ask: Ask) -> None:
        self.key = key
        self._fence = fence
        self._ask = ask

    async def read(self, fd: int, offset: int, *, ack: int, wait: float, limit: int = 1 << 18) -> Chunk:
        target = f"/out?fd={fd}&from={offset}&ack={ack}&wait={wait:.3f}&max={limit}"
        reply = self._checked(await self._ask("GET", target, wait=wait))
        with understood(self.key):
            chunk = Chunk(reply.body, int(reply.headers["X-Next"]), reply.headers["X-Eof"] == "1")
            if chunk.next != offset + len(chunk.data):
                raise ValueError("the offset after it is wrong")
        return chunk

    async def write(self, offset: int, data: bytes, *, eof: bool = False) -> int:
        reached = offset
        starts = range(0, len(data), PIECE) or (0,)
        for start in starts:
            piece = data[start : start + PIECE]
            last = start == starts[-1]
            reached = await self._write_piece(offset + start, piece, eof=eof and last)
        return reached

    async def _write_piece(self, offset: int, data: bytes, *, eof: bool) -> int:
        target = f"/in?off={offset}&fence={self._fence}&eof={int(eof)}"
        loop = asyncio.get_running_loop()
        until = loop.time() + STDIN_PATIENCE
        while (reply := await self._ask("POST", target, data)).status == 503:
            if loop.time() > until:
                raise SandboxUnreachable(f"{self.key} has not read its input for {STDIN_PATIENCE:g} s.")
            await asyncio.sleep(0.2)
        if reply.status == 410 and not data:
            return offset  # it has ended, so its stdin is closed already
        if reply.status != 409:
            self._checked(reply)
        with understood(self.key):
            reached = int(reply.json()["in_off"])
        if reply.status == 409:
            raise InputGap(reached)
        return reached

    async def signal(self, name: str) -> None:
        reply = await self._ask("POST", f"/signal?sig={name}&fence={self._fence}")
        if reply.status not in (404, 410):
            self._checked(reply)

    async def lease(self, seconds: float) -> None:
        reply = await self._ask("POST", f"/lease?ttl={seconds:.3f}&fence={self._fence}")
        if reply.status != 410:
            self._checked(reply)

    async def status(self) -> ProcessStatus:
        reply = self._checked(await self._ask("GET", "/status"))
        with understood(self.key):
            said = reply.json()
            return ProcessStatus(said["running"], said["exit_code"], said["in_off"], said["last_activity"])

    async def forget(self) -> None:
        reply = await self._ask("POST", "/forget")
        if reply.status == 409:
            raise SandboxError(f"{self.key} is still running.", "Signal it first.")
        if reply.status != 404:
            self._checked(reply)

    def _checked(self, reply: Reply) -> Reply:
        if reply.status == 200:
            return reply
        why = reply.why()
        if reply.status in (404, 410):
            raise ProcessGone(f"{self.key}: {why}.")
        if reply.status == 412:
            raise StaleFence(f"{self.key}: {why}.")
        if reply.status in (502, 503, 504):
            raise SandboxUnreachable(f"{self.key}: {why}.")
        raise SandboxError(f"{self.key}: the supervisor answered {reply.status}: {why}.")


def description(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    fence: int,
    orphan_after: float,
    max_spool: int,
    handover: str | None = None,
    shield: bool = False,
    directories: Sequence[str] = (),
) -> bytes:
    """What `supervisor.py keep` reads from its stdin."""
    launch = {
        "argv": list(argv),
        "env": dict(env),
        "cwd": cwd,
        "fence": fence,
        "lease": orphan_after,
        "max_spool": max_spool,
        "handover": handover,
        "shield": shield,
        "directories": list(directories),
    }
    return json.dumps(launch).encode()


# Keepers on this machine


def helper(program: Path, *words: str) -> list[str]:
    """The command line of one of our programs beside the box, run by our own interpreter."""
    return [sys.executable, "-I", "-S", str(program), *words]


async def run_helper(argv: Sequence[str], stdin: bytes) -> tuple[int, bytes, str]:
    """Run a program of ours with nothing of our environment; exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        env={"PATH": os.defpath},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    out, err = await process.communicate(stdin)
    return process.returncode or 0, out, err.decode(errors="replace").strip()


async def start_keeper(directory: Path, launch: bytes) -> None:
    """Start a keeper in `directory`, or find it there. Raises SandboxFull, SandboxError.

    Once begun it is carried through, so that whoever cancels us finds the process to end it.
    """
    starting = asyncio.ensure_future(run_helper(helper(SUPERVISOR, "keep", "--dir", str(directory)), launch))
    try:
        code, _, err = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await starting
        raise
    if code != 0:
        error = SandboxFull if "No space left" in err else SandboxError
        raise error(f"The supervisor could not start a process: {err.splitlines()[-1] if err else code}.")


async def end_kept(directory: Path) -> None:
    """End a kept program, whatever its fence, and dismiss its keeper; output and exit code stay.

    Raises SandboxUnreachable when it does not end.
    """
    ask = KeeperSocket(directory)
    until = asyncio.get_running_loop().time() + END_WITHIN
    while (reply := await ask("GET", "/status")).status == 200:
        said = reply.json()
        if not said["running"]:
            if said["kept"]:
                await ask("POST", f"/lease?ttl=0&fence={said['fence']}")
            return
        if asyncio.get_running_loop().time() > until:
            raise SandboxUnreachable(f"The process {directory.name} does not end.")
        await ask("POST", f"/signal?sig=KILL&fence={said['fence']}")
        await asyncio.sleep(0.02)


async def any_runs(spool: Path) -> bool:
    """Whether a program that is kept in one of the directories here still runs."""
    for directory in spool.iterdir():
        if directory.is_dir():
            reply = await KeeperSocket(directory)("GET", "/status")
            if reply.status == 200 and reply.json()["running"]:
                return True
    return False


class KeeperSocket:
    """The way to a keeper on this machine; when it is gone, to what it left."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def __call__(self, method: str, target: str, body: bytes = b"", *, wait: float = 0.0) -> Reply:
        try:
            async with asyncio.timeout(wait + ANSWER_WITHIN):
                for last in (False, True):
                    try:
                        return await self._over_socket(method, target, body)
                    except (FileNotFoundError, ConnectionRefusedError):
                        break
                    except (ConnectionResetError, BrokenPipeError, EOFError):
                        if last:  # else it left just now: no verb does anything twice, so ask again
                            raise
                return await self._from_remains(method, target)
        except (OSError, EOFError) as error:  # TimeoutError is an OSError
            why = str(error) or type(error).__name__
            raise SandboxUnreachable(
                f"The supervisor in {self._directory.name} does not answer: {why}."
            ) from error

    async def _over_socket(self, method: str, target: str, body: bytes) -> Reply:
        # A unix address holds 107 bytes; a descriptor of the directory makes every path short.
        place = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{place}/sock")
        finally:
            os.close(place)
        try:
            writer.write(f"{method} {target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode())
            writer.write(body)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            payload = await reader.readexactly(int(headers["Content-Length"]))
        finally:
            writer.close()
        return Reply(int(first.split(" ")[1]), headers, payload)

    async def _from_remains(self, method: str, target: str) -> Reply:
        if not (self._directory / "stdout").exists():
            return Reply(404, {}, b'{"error": "no such process"}')
        argv = helper(SUPERVISOR, "ctl", str(self._directory), method, target)
        code, out, err = await run_helper(argv, b"")
        if code != 0:
            raise ConnectionError(err.splitlines()[-1] if err else f"exit code {code}")
        said = json.loads(out)
        return Reply(said["status"], said["headers"], base64.b64decode(said["body"]))
