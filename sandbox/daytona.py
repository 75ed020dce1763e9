"""Sandboxes at Daytona. The only file that knows its SDK, which is an extra: it is imported when it is used.

States, routes and errors as in the SDK 0.226 (`daytona.common.errors`, `daytona_api_client_async`).
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import logging
import math
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bot.errors import (
    ProviderUnavailable,
    SandboxError,
    SandboxGone,
    SandboxNotRunning,
    SandboxUnreachable,
    SettingsError,
)
from bot.models import SandboxState, host_of_account
from bot.ports import Sandbox
from sandbox.box import Address, Box, Said, Signed
from sandbox.daytona_account import OURS, Account, intervals
from sandbox.daytona_errors import EXTRA, Refusal, meaning, not_made
from sandbox.daytona_key import organization_of
from sandbox.door_client import door_client
from sandbox.remote import RemoteSandbox, the_oldest
from sandbox.remote_ports import RemotePorts

log = logging.getLogger(__name__)

START_WITHIN = 300.0  # seconds; a box comes back from the archive in minutes
LOOK_EVERY = 1.0  # seconds, while a box changes its state
MARK = "code-toolbox-language"  # a label that the SDK adds
LONGEST_LINK = 86_400  # seconds
# Its toolbox, terminal and recordings: a link to one of them is as good as the box's own shell.
RESERVED = frozenset({2280, 22222, 33333})

RUNNING = "started"
STARTABLE = ("stopped", "paused", "archived", "archiving")
BROKEN = ("error", "build_failed")
GONE = ("destroyed", "destroying")
LEAVING = ("stopping", "pausing")
# On their way to something else: waited for.
COMING = (
    *("creating", "restoring", "starting", "resuming", "pending_build", "building_snapshot"),
    *("pulling_snapshot", "resizing", "snapshotting", "forking"),
)
STATES = {
    RUNNING: SandboxState.RUNNING,
    **dict.fromkeys((*STARTABLE, *LEAVING, *COMING), SandboxState.STOPPED),
    **dict.fromkeys(("archived", "archiving"), SandboxState.ARCHIVED),
    **dict.fromkeys(BROKEN, SandboxState.ERROR),
}


class DaytonaBox:
    reserved = RESERVED

    def __init__(self, client: Any, sandbox: Any, account: Account) -> None:
        self._client = client
        self._account = account
        self.signer = self
        self.id: str = sandbox.id
        self.labels: Mapping[str, str] = {k: v for k, v in sandbox.labels.items() if k != MARK}

    async def _fresh(self) -> Any:
        with told(self.id):
            return await self._client.get(self.id)

    async def state(self) -> SandboxState:
        return state_of(await self._fresh())

    async def start(self) -> None:
        """From whatever state it is in: a change that is under way is waited for, an error recovered from."""
        until = asyncio.get_running_loop().time() + START_WITHIN
        recovered = False
        while (said := state_said(sandbox := await self._fresh())) != RUNNING:
            if said in BROKEN:
                if recovered or not sandbox.recoverable:
                    raise SandboxError(
                        f"Daytona cannot recover the sandbox {self.id}: {sandbox.error_reason or said}.",
                        "Reset it (`sandbox reset`), or ask Daytona's support to mend it.",
                    )
                recovered = await self._changed(sandbox.recover, until)
            elif said not in STARTABLE or not await self._changed(sandbox.start, until):
                await self._wait(said, until)
        await self._settle(sandbox)

    async def stop(self) -> None:
        until = asyncio.get_running_loop().time() + START_WITHIN
        while (said := state_said(sandbox := await self._fresh())) in (RUNNING, *LEAVING, *COMING):
            if said != RUNNING or not await self._changed(sandbox.stop, until):
                await self._wait(said, until)

    async def delete(self) -> None:
        until = asyncio.get_running_loop().time() + START_WITHIN
        while True:
            sandbox = await self._fresh()
            said = state_said(sandbox)
            try:
                if await self._changed(sandbox.delete, until):
                    return
            except SandboxGone:  # since we looked; the SDK asks twice where an answer was lost
                return
            await self._wait(said, until)

    async def _changed(self, change: Any, until: float) -> bool:
        """Whether it was carried through; not when another change is under way, or it ended elsewhere: the
        state is then to be looked at again."""
        from daytona import DaytonaError

        left = max(1.0, until - asyncio.get_running_loop().time())
        try:
            await change(timeout=left)
        except DaytonaError as error:
            underway = error.status_code == 409 or "state change in progress" in str(error).lower()
            elsewhere = error.status_code is None and "entered error state" in str(error)
            if not underway and not elsewhere:
                with told(self.id):
                    raise
            return elsewhere
        return True

    async def _wait(self, said: str, until: float) -> None:
        if asyncio.get_running_loop().time() > until:
            raise SandboxUnreachable(f"The sandbox {self.id} is still {said} after {START_WITHIN:g} s.")
        await asyncio.sleep(LOOK_EVERY)

    async def _settle(self, sandbox: Any) -> None:
        """The operator's rules of today, on a box that may be older than they are."""
        about = self._account
        rules = (sandbox.network_block_all, sandbox.domain_allow_list, sandbox.network_allow_list)
        archive, delete = intervals(about)
        if not about.network.holds(*rules):
            await self._confine(sandbox)
        with told(self.id):
            if archive is not None and sandbox.auto_archive_interval != archive:
                await sandbox.set_auto_archive_interval(archive)
            if sandbox.auto_delete_interval != delete:
                await sandbox.set_auto_delete_interval(delete)

    async def _confine(self, sandbox: Any) -> None:
        try:
            with told(self.id):
                await sandbox.update_network_settings(**self._account.network.wanted())
        except (SandboxUnreachable, SandboxGone):
            raise
        except SandboxError as error:
            raise SandboxError(
                f"Daytona does not take the sandbox's network rules. {error.what}",
                "If the rules of the account itself are enough: SANDPIPER_EGRESS_MODE=open.",
            ) from error

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
                    async for chunk in streamed(chunks):
                        file.write(chunk[:left])
                        left -= len(chunk)
                        if left <= 0:
                            break

    async def door(self, port: int) -> Address | None:
        sandbox = await self._running()
        try:
            with told(self.id):
                link = _there(await sandbox.get_preview_link(port))
        except ProviderUnavailable as error:
            log.info("sandbox %s: no preview of its ports, commands do without: %s", self.id, error)
            return None
        return Address(
            link.url, {"X-Daytona-Preview-Token": link.token, "X-Daytona-Skip-Preview-Warning": "true"}
        )

    async def sign(self, port: int, seconds: float) -> Signed:
        sandbox = await self._running()
        with told(""):  # a 404 says nothing about the box, which was there a moment ago
            made = await sandbox.create_signed_preview_url(port, min(math.ceil(seconds), LONGEST_LINK))
        link = _there(made)
        return Signed(link.url, port, link.token)

    async def revoke(self, signed: Signed) -> None:
        sandbox = await self._fresh()
        with told(""):
            await sandbox.expire_signed_preview_url(signed.port, signed.token)

    async def _running(self) -> Any:
        sandbox = await self._fresh()
        said = state_said(sandbox)
        if said in COMING:
            raise SandboxUnreachable(f"The sandbox {self.id} is {said} just now.")
        if said != RUNNING:
            raise SandboxNotRunning(f"The sandbox {self.id} is {said}.")
        return sandbox

    @contextlib.asynccontextmanager
    async def _while_it_runs(self) -> AsyncIterator[None]:
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
    separates_sessions = False  # one user, one file system
    shares_agents = False

    def __init__(self, account: Account) -> None:
        """Raises ProviderUnavailable without the SDK, and SettingsError where `extra` is none of its."""
        try:
            from daytona import AsyncDaytona, DaytonaConfig
        except ImportError as error:
            raise ProviderUnavailable(
                "The SDK of Daytona is not installed.", "Install it: pip install 'daytona>=0.226,<0.227'."
            ) from error
        self._account = account
        self.host = ""
        self._asked_whose = False
        self.warning = account.network.warning
        parameters_of(account, {})
        config = DaytonaConfig(
            api_key=account.api_key, api_url=account.api_url, target=account.target or None
        )
        self._client: Any = AsyncDaytona(config)
        self._http = door_client()
        self._ports = RemotePorts()

    async def check(self) -> None:
        await self._boxes({}, first=True)

    async def _know_whose(self) -> None:
        """Whoever hears of us that there is no such box has to know in which account."""
        if not self._asked_whose:
            self.host = host_of_account(await organization_of(self._account))
            self._asked_whose = True

    async def create(self, labels: Mapping[str, str]) -> Sandbox:
        made = await self.make(labels)
        sandbox = self._sandbox(await the_oldest(made, lambda: self._boxes(labels)))
        await sandbox.start()
        return sandbox

    async def make(self, labels: Mapping[str, str]) -> DaytonaBox:
        """A new box, without anything of ours in it yet."""
        from daytona import DaytonaError

        await self._know_whose()
        try:
            made = await self._client.create(parameters_of(self._account, labels), timeout=START_WITHIN)
        except DaytonaError as error:
            if found := re.search(r"Sandbox (\S+) entered error state", str(error)):
                await self._not_made(found[1])
            with told("", self._account.made_of):
                raise
        return self._box(made)

    async def _not_made(self, id: str) -> None:
        """What never ran holds nobody's work, and would be found again instead of a new one."""
        with told(id):
            sandbox = await self._client.get(id)
            error = not_made(self._account.made_of, sandbox.error_reason or "")
        try:
            await self._box(sandbox).delete()
        except SandboxError as left:
            log.warning("sandbox %s, which could not be made, is left there: %s", id, left)
        raise error

    async def find(self, labels: Mapping[str, str]) -> Sequence[Sandbox]:
        return [self._sandbox(box) for box in await self._boxes(labels)]

    async def get(self, id: str) -> Sandbox:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", id):  # the SDK refuses an empty one by itself
            raise SandboxGone(f"Daytona has no sandbox '{id}'.")
        await self._know_whose()
        with told(id):
            sandbox = await self._client.get(id)
        state_of(sandbox)
        return self._sandbox(self._box(sandbox))

    async def close(self) -> None:
        await self._ports.close()
        await self._http.aclose()
        await self._client.close()

    async def _boxes(self, labels: Mapping[str, str], *, first: bool = False) -> list[DaytonaBox]:
        from daytona import ListSandboxesQuery

        found = []
        with told(""):
            async for sandbox in self._client.list(ListSandboxesQuery(labels=dict(labels), limit=100)):
                if _said(sandbox) not in GONE:
                    found.append(sandbox)
                if first:
                    break
        await self._know_whose()
        return [
            self._box(sandbox) for sandbox in sorted(found, key=lambda one: (one.created_at or "~", one.id))
        ]

    def _box(self, sandbox: Any) -> DaytonaBox:
        return DaytonaBox(self._client, sandbox, self._account)

    def _sandbox(self, box: Box) -> RemoteSandbox:
        env = {**self._account.extra.get("env_vars", {}), **self._account.extra.get("secrets", {})}
        return RemoteSandbox(box, self._http, inherited=tuple(env), ports=self._ports)


def parameters_of(account: Account, labels: Mapping[str, str]) -> Any:
    """Of a new box, in the SDK's class. Raises SettingsError that names the variable."""
    from daytona import CreateSandboxFromImageParams, CreateSandboxFromSnapshotParams

    kind = CreateSandboxFromImageParams if account.image else CreateSandboxFromSnapshotParams
    for name in account.extra:
        if name in OURS:
            raise SettingsError(f"{EXTRA}: '{name}' cannot be set there: {OURS[name]}.")
        if name == "resources" and not account.image:
            raise SettingsError(
                f"{EXTRA}: 'resources' go with an image.",
                "Set SANDPIPER_DAYTONA_IMAGE too: snapshots have their own.",
            )
        if name not in kind.model_fields:
            near = difflib.get_close_matches(name, set(kind.model_fields) - set(OURS), 1)
            raise SettingsError(
                f"{EXTRA}: Daytona knows no '{name}'.", f"Did you mean '{near[0]}'?" if near else ""
            )
    archive, delete = intervals(account)
    common = {
        "labels": dict(labels),
        "auto_stop_interval": max(1, math.ceil(account.idle_stop / 60)),
        "auto_archive_interval": archive,
        "auto_delete_interval": delete,
        **account.network.wanted(),
        **account.extra,
        **({"image": account.image} if account.image else {"snapshot": account.snapshot or None}),
    }
    try:
        return kind.model_validate(common)
    except ValidationError as error:
        wrong = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in wrong["loc"])
        raise SettingsError(f"{EXTRA}: {where}: {wrong['msg']}.") from None


def _said(sandbox: Any) -> str:
    return str(getattr(sandbox.state, "value", sandbox.state))


def state_said(sandbox: Any) -> str:
    """A state that we know. Raises SandboxGone, SandboxUnreachable."""
    said = _said(sandbox)
    if said in GONE:
        raise SandboxGone(f"Daytona has deleted the sandbox {sandbox.id}.")
    if said not in STATES:
        raise SandboxUnreachable(f"Daytona says '{said}' of the sandbox {sandbox.id}.")
    return said


def state_of(sandbox: Any) -> SandboxState:
    return STATES[state_said(sandbox)]


@contextlib.contextmanager
def told(id: str, made_of: str = "") -> Iterator[None]:
    """The SDK's errors in our words, told of the box of that id, or of what a new one is made of."""
    from daytona import DaytonaConnectionError, DaytonaError, DaytonaTimeoutError

    try:
        yield
    except DaytonaError as error:
        headers = {str(name): str(value) for name, value in error.headers.items()}
        silent = isinstance(error, DaytonaConnectionError | DaytonaTimeoutError)
        status = 0 if silent and error.status_code is None else error.status_code
        raise meaning(Refusal(status, str(error), headers, id, made_of)) from error


def _there(link: Any) -> Any:
    """The SDK passes on an answer of nothing with a 200, as something between Daytona and us may give it."""
    if link is None:
        raise SandboxUnreachable("Daytona answered without a link to the sandbox's port.")
    return link


async def streamed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A stream whose errors are the SDK's: it lets its HTTP client's through."""
    from aiohttp import ClientError, ClientResponseError
    from daytona import DaytonaConnectionError, DaytonaError

    try:
        async for chunk in chunks:
            yield chunk
    except ClientResponseError as error:
        raise DaytonaError(error.message, status_code=error.status) from error
    except (ClientError, TimeoutError) as error:
        raise DaytonaConnectionError(str(error) or type(error).__name__) from error
