"""Sandboxes at Daytona. The only file that knows its SDK, which is an extra: it is imported when it is used.

States, routes and errors as in the SDK 0.226 (`daytona.common.errors`, `daytona_api_client_async`).
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bot.errors import (
    ProviderUnavailable,
    SandboxError,
    SandboxFull,
    SandboxGone,
    SandboxNotRunning,
    SandboxUnreachable,
)
from bot.models import SandboxState
from bot.ports import Sandbox
from sandbox.box import Address, Box, Said
from sandbox.remote import RemoteSandbox

START_WITHIN = 300.0  # seconds; a box comes back from the archive in minutes
KEY = "SANDPIPER_DAYTONA_API_KEY"

STATES = {
    "started": SandboxState.RUNNING,
    "starting": SandboxState.STOPPED,
    "creating": SandboxState.STOPPED,
    "restoring": SandboxState.STOPPED,
    "resuming": SandboxState.STOPPED,
    "resizing": SandboxState.STOPPED,
    "pending_build": SandboxState.STOPPED,
    "building_snapshot": SandboxState.STOPPED,
    "pulling_snapshot": SandboxState.STOPPED,
    "stopped": SandboxState.STOPPED,
    "stopping": SandboxState.STOPPED,
    "pausing": SandboxState.STOPPED,
    "paused": SandboxState.STOPPED,
    "archived": SandboxState.ARCHIVED,
    "archiving": SandboxState.ARCHIVED,
    "error": SandboxState.ERROR,
    "build_failed": SandboxState.ERROR,
}
GONE = ("destroyed", "destroying")


@dataclass(frozen=True, slots=True)
class Account:
    """api_key: sent to `api_url` alone, never into a box. target: a region of Daytona's. snapshot, image:
    what boxes are made of, the image if both are there, and without them the account's own default.
    auto_stop: minutes without use until a new box stops itself. extra: more parameters of the SDK's
    `create`, as they are there."""

    api_key: str = field(repr=False)
    api_url: str
    target: str = ""
    snapshot: str = ""
    image: str = ""
    auto_stop: int = 30
    extra: Mapping[str, Any] = field(default_factory=dict)


class DaytonaBox:
    def __init__(self, client: Any, sandbox: Any, mark: str) -> None:
        self._client = client
        self._sandbox = sandbox
        self.id: str = sandbox.id
        self.labels: Mapping[str, str] = {k: v for k, v in sandbox.labels.items() if k != mark}

    async def _fresh(self) -> Any:
        with told(self.id):
            return await self._client.get(self.id)

    async def state(self) -> SandboxState:
        return state_of(await self._fresh())

    async def start(self) -> None:
        sandbox = await self._fresh()
        state = state_of(sandbox)
        with told(self.id):
            if state is SandboxState.ERROR:
                if not sandbox.recoverable:
                    raise SandboxError(
                        f"Daytona cannot recover the sandbox {self.id}: {sandbox.error_reason}.",
                        "Reset it (`sandbox reset`), or ask Daytona's support to mend it.",
                    )
                await sandbox.recover(timeout=START_WITHIN)
            elif state is not SandboxState.RUNNING:
                await sandbox.start(timeout=START_WITHIN)

    async def stop(self) -> None:
        sandbox = await self._fresh()
        if state_of(sandbox) is SandboxState.RUNNING:
            with told(self.id):
                await sandbox.stop()

    async def delete(self) -> None:
        sandbox = await self._fresh()
        state_of(sandbox)
        with told(self.id):
            await sandbox.delete()

    async def touch(self, idle_stop: float) -> None:
        sandbox = await self._fresh()
        minutes = max(1, math.ceil(idle_stop / 60))
        with told(self.id):
            await sandbox.refresh_activity()
            if sandbox.auto_stop_interval != minutes:
                await sandbox.set_autostop_interval(minutes)

    async def run(self, command: str, *, timeout: float) -> Said:
        sandbox = await self._running()
        async with self._while_it_runs():
            reply = await sandbox.process.exec(command, timeout=math.ceil(timeout))
        return Said(int(reply.exit_code or 0), reply.result)

    async def upload(self, content: bytes | Path, path: str) -> None:
        sandbox = await self._running()
        async with self._while_it_runs():
            await sandbox.fs.upload_file(content if isinstance(content, bytes) else str(content), path)

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        sandbox = await self._running()
        left = limit + 1
        async with self._while_it_runs():
            with target.open("wb") as file:
                stream = await sandbox.fs.download_file_stream(path)
                async with contextlib.aclosing(stream) as chunks:
                    async for chunk in chunks:
                        file.write(chunk[:left])
                        left -= len(chunk)
                        if left <= 0:
                            break

    async def door(self, port: int) -> Address | None:
        sandbox = await self._running()
        with told(self.id):
            link = await sandbox.get_preview_link(port)
        return Address(
            link.url, {"X-Daytona-Preview-Token": link.token, "X-Daytona-Skip-Preview-Warning": "true"}
        )

    async def _running(self) -> Any:
        sandbox = await self._fresh()
        if state_of(sandbox) is not SandboxState.RUNNING:
            raise SandboxNotRunning(f"The sandbox {self.id} is stopped.")
        return sandbox

    @contextlib.asynccontextmanager
    async def _while_it_runs(self) -> Any:
        """An error of what is asked in the box is told after its provider was asked whether it runs: a
        toolbox says 404 of a file too, and 400 of a box that was stopped."""
        from daytona import DaytonaError

        try:
            yield
        except DaytonaError as error:
            await self._running()
            if error.status_code == 400 and "Is the Sandbox started" in str(error):
                raise SandboxUnreachable(f"The sandbox {self.id} is starting or stopping.") from error
            if error.status_code in (400, 404):
                raise SandboxError(f"Daytona's sandbox {self.id}: {error}.") from error
            with told(self.id):
                raise


class DaytonaProvider:
    name = "daytona"
    host = ""
    warning = ""
    separates_sessions = False  # one user, one file system

    def __init__(self, account: Account) -> None:
        try:
            from daytona import AsyncDaytona, DaytonaConfig
        except ImportError as error:
            raise ProviderUnavailable(
                "The SDK of Daytona is not installed.", "Install it: pip install 'daytona>=0.226,<0.227'."
            ) from error
        self._account = account
        config = DaytonaConfig(
            api_key=account.api_key, api_url=account.api_url, target=account.target or None
        )
        self._client: Any = AsyncDaytona(config)
        self._http = httpx.AsyncClient(trust_env=False)

    async def check(self) -> None:
        await self._boxes({}, first=True)

    async def create(self, labels: Mapping[str, str]) -> Sandbox:
        sandbox = self._sandbox(await self.make(labels))
        await sandbox.start()
        return sandbox

    async def make(self, labels: Mapping[str, str]) -> DaytonaBox:
        """A new box, without anything of ours in it yet."""
        from daytona import CreateSandboxFromImageParams, CreateSandboxFromSnapshotParams

        about = self._account
        common = {"labels": dict(labels), "auto_stop_interval": about.auto_stop, **about.extra}
        params = (
            CreateSandboxFromImageParams(image=about.image, **common)
            if about.image
            else CreateSandboxFromSnapshotParams(snapshot=about.snapshot or None, **common)
        )
        with told("", self._what()):
            made = await self._client.create(params, timeout=START_WITHIN)
        return self._box(made)

    async def find(self, labels: Mapping[str, str]) -> Sequence[Sandbox]:
        return [self._sandbox(box) for box in await self._boxes(labels)]

    async def get(self, id: str) -> Sandbox:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", id):  # the SDK refuses an empty one by itself
            raise SandboxGone(f"Daytona has no sandbox '{id}'.")
        with told(id):
            sandbox = await self._client.get(id)
        state_of(sandbox)
        return self._sandbox(self._box(sandbox))

    async def close(self) -> None:
        await self._http.aclose()
        await self._client.close()

    async def _boxes(self, labels: Mapping[str, str], *, first: bool = False) -> list[DaytonaBox]:
        from daytona import ListSandboxesQuery

        found = []
        with told(""):
            async for sandbox in self._client.list(ListSandboxesQuery(labels=dict(labels), limit=100)):
                if str(getattr(sandbox.state, "value", sandbox.state)) not in GONE:
                    found.append(sandbox)
                if first:
                    break
        return [
            self._box(sandbox) for sandbox in sorted(found, key=lambda one: (one.created_at or "", one.id))
        ]

    def _box(self, sandbox: Any) -> DaytonaBox:
        return DaytonaBox(self._client, sandbox, "code-toolbox-language")

    def _sandbox(self, box: Box) -> RemoteSandbox:
        return RemoteSandbox(box, self._http)

    def _what(self) -> str:
        about = self._account
        return f"image {about.image}" if about.image else f"snapshot {about.snapshot or '(the default)'}"


def state_of(sandbox: Any) -> SandboxState:
    said = str(getattr(sandbox.state, "value", sandbox.state))
    if said in GONE:
        raise SandboxGone(f"Daytona has deleted the sandbox {sandbox.id}.")
    if said not in STATES:
        raise SandboxUnreachable(f"Daytona says '{said}' of the sandbox {sandbox.id}.")
    return STATES[said]


@contextlib.contextmanager
def told(id: str, what: str = "") -> Iterator[None]:
    """The SDK's errors in our words. id: the sandbox that was asked for, without which 404 is not gone."""
    from daytona import DaytonaConnectionError, DaytonaError, DaytonaTimeoutError

    try:
        yield
    except DaytonaError as error:
        status = error.status_code
        if status in (404, 410) and id:
            raise SandboxGone(f"Daytona has no sandbox {id}.") from error
        if status == 401:
            raise ProviderUnavailable("Daytona does not accept the API key.", f"Set {KEY}.") from error
        if status == 403:
            raise ProviderUnavailable(
                f"Daytona refuses: {error}.", f"Look at the account's quota and at the rights of {KEY}."
            ) from error
        if status == 507:
            raise SandboxFull("The sandbox's disk is full.") from error
        if status == 429 or (status or 0) >= 500:
            raise SandboxUnreachable(f"Daytona answers {status} just now: {error}.") from error
        if status is None or isinstance(error, DaytonaConnectionError | DaytonaTimeoutError):
            raise SandboxUnreachable(f"Daytona does not answer: {error}.") from error
        raise SandboxError(f"Daytona refuses{' the ' + what if what else ''}: {error}.") from error
