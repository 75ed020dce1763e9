"""A provider that works but for one fault of a person's choice, to see whether it is found."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from bot.errors import ProcessGone, SandboxError, SandboxFull, SandboxGone, SandboxUnreachable
from bot.models import Chunk, ExecResult, Launch, ProcessStatus, SandboxState
from bot.ports import Process, Provider, Sandbox
from sandbox.isolation import Unisolated
from sandbox.local import LocalProvider

UNKNOWN = SandboxUnreachable("There was no answer.")


def broken(directory: Path, fault: str) -> Provider:
    spool = (1 if fault == "keeps all that nobody reads" else 1 / 16) * (1 << 30)
    inner = LocalProvider(directory, Unisolated(), max_spool=int(spool))
    return cast("Provider", BrokenProvider(inner, fault))


class BrokenProvider:
    name = "broken"

    def __init__(self, inner: LocalProvider, fault: str) -> None:
        self._inner = inner
        self._fault = fault
        self.separates_sessions = fault == "shows other sessions"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def create(self, labels: Mapping[str, str]) -> Sandbox:
        if self._fault == "has no room":
            raise SandboxFull("The plan's disk is used up.", "Buy more.")
        if self._fault == "hangs":
            await asyncio.Event().wait()
        made = await self._inner.create(labels)
        if self._fault == "loses its answer":
            raise RuntimeError("no JSON")
        return self._seen(made)

    async def get(self, id: str) -> Sandbox:
        try:
            return self._seen(await self._inner.get(id))
        except SandboxGone:
            if self._fault == "never says gone":
                raise UNKNOWN from None
            raise

    async def find(self, labels: Mapping[str, str]) -> Sequence[Sandbox]:
        found = await self._inner.find({} if self._fault == "ignores labels" else labels)
        return [] if self._fault == "finds nothing" else [self._seen(one) for one in found]

    def _seen(self, sandbox: Sandbox) -> Sandbox:
        return cast("Sandbox", BrokenSandbox(sandbox, self._fault))


class BrokenSandbox:
    def __init__(self, inner: Sandbox, fault: str) -> None:
        self._inner = inner
        self._fault = fault
        self.id = inner.id
        self.labels = inner.labels
        self.home = f"{inner.home}/." if fault == "guesses its home" else inner.home

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def state(self) -> SandboxState:
        if self._fault == "always runs":
            return SandboxState.RUNNING
        return await self._inner.state()

    async def stop(self) -> None:
        await self._inner.stop()
        if self._fault == "loses files":
            shutil.rmtree(self._inner.home)
            Path(self._inner.home).mkdir()

    async def delete(self) -> None:
        if self._fault != "deletes nothing":
            await self._inner.delete()

    async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
        result = await self._inner.run(launch, stdin=stdin, timeout=timeout)
        if self._fault == "mixes outputs":
            return ExecResult(result.code, result.out + result.err, b"")
        if self._fault == "loses exit codes":
            return replace(result, code=0)
        return result

    async def upload(self, source: Path, path: str) -> None:
        try:
            await self._inner.upload(source, path)
        except SandboxError:
            if self._fault != "writes anywhere":
                raise

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        await self._inner.download(path, target, limit=limit)
        if self._fault == "spoils files":
            target.write_bytes(target.read_bytes().replace(b"\n", b"\r\n"))

    async def spawn(self, key: str, launch: Launch, *, fence: int, orphan_after: float) -> Process:
        process = await self._inner.spawn(key, launch, fence=fence, orphan_after=orphan_after)
        return cast("Process", BrokenProcess(process, self._fault, late=False))

    async def attach(self, key: str, *, fence: int) -> Process:
        process = await self._inner.attach(key, fence=fence)
        return cast("Process", BrokenProcess(process, self._fault, late=True))


class BrokenProcess:
    def __init__(self, inner: Process, fault: str, *, late: bool) -> None:
        self._inner = inner
        self._fault = fault
        self._late = late

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def read(self, fd: int, offset: int, *, ack: int, wait: float, limit: int = 1 << 18) -> Chunk:
        if self._late and self._fault == "streams only what is new":
            raise ProcessGone("Its output went by.")
        chunk = await self._inner.read(fd, offset, ack=ack, wait=wait, limit=limit)
        if self._fault == "spoils long outputs" and offset > 1 << 26:
            return replace(chunk, data=bytes(len(chunk.data)))
        return chunk

    async def status(self) -> ProcessStatus:
        status = await self._inner.status()
        if self._fault == "ends who is not read" and status.running:
            await self._inner.signal("KILL")
            return replace(status, running=False, exit_code=-9)
        return status

    async def write(self, offset: int, data: bytes, *, eof: bool = False) -> int:
        if self._fault == "says words twice":
            offset = (await self._inner.status()).in_offset
        return await self._inner.write(offset, data, eof=eof)

    async def signal(self, name: str) -> None:
        if self._fault != "hears no signals":
            await self._inner.signal(name)
            return
        raise SandboxError("Signals are not there yet.")
