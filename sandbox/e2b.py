"""Sandboxes at E2B. The only file that knows its SDK, which is an extra: it is imported when it is used.

States, routes and errors as in the SDK 2.63 (`e2b.exceptions`, `e2b.sandbox_async`). A box lives until a
time that is moved on while it is used; then it pauses itself with its memory, and the next call wakes it.
Stopped by us, it keeps its files alone, and only `start` brings it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import math
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot.errors import (
    ProviderAway,
    ProviderUnavailable,
    SandboxError,
    SandboxFull,
    SandboxGone,
    SandboxNotRunning,
    SandboxUnreachable,
    SettingsError,
)
from bot.models import SandboxState
from bot.ports import Sandbox
from sandbox.box import Address, Box, Said
from sandbox.door_client import door_client
from sandbox.remote import RemoteSandbox, the_oldest
from sandbox.remote_ports import RemotePorts

log = logging.getLogger(__name__)

DOMAIN = "e2b.app"
TEMPLATE = "base"
LIFE_WITHIN = 180.0  # seconds for making, waking and pausing: its memory is written or read
TRANSFER_WITHIN = 900.0  # seconds for a file; the SDK sets no end to one that it streams
SHORTEST_LIFE = 300  # seconds; a box in use is touched every minute, and may miss some
SAFE_LIFE = 3600  # what each of E2B's plans allows
FREEZES = (
    0,
    6,
    6,
)  # the first envd that freezes the file system for a pause; before, one may tear its journal
PAGE = 100
RESERVED = frozenset({49983})  # its own program in each box
KEY, TEMPLATE_SETTING, EXTRA = "SANDPIPER_E2B_API_KEY", "SANDPIPER_E2B_TEMPLATE", "SANDPIPER_E2B_EXTRA"

STATES = {"running": SandboxState.RUNNING, "paused": SandboxState.STOPPED}
# What its network rules say of the way out; the rest of them cannot be changed later.
EGRESS = ("allow_out", "deny_out", "rules", "egress_proxy", "dns_servers")


@dataclass(frozen=True, slots=True)
class Account:
    """api_key: sent to the API alone, never into a box. domain, api_url, sandbox_url: of an E2B that is not
    e2b.app; sandbox_url: one address that leads to all boxes, "": each has its own. template: what boxes
    are made of. life: seconds without use until a new box pauses itself. network: its rules
    (sandbox/e2b_network.py). extra: more parameters of the SDK's `create`, as they are there; its
    `network` and `lifecycle` are laid over ours."""

    api_key: str = field(repr=False)
    domain: str = DOMAIN
    api_url: str = ""
    sandbox_url: str = ""
    template: str = TEMPLATE
    life: float = 1800.0
    network: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def rules(self) -> dict[str, Any]:
        """Who may reach a box from outside, and where it may go."""
        return {"allow_public_traffic": False, **self.network, **self.extra.get("network", {})}

    def lifecycle(self) -> dict[str, Any]:
        return {"on_timeout": "pause", "auto_resume": True, **self.extra.get("lifecycle", {})}


class E2BBox:
    """`_link`: the SDK's own object for the box, once there was need of it. It has the box's addresses and
    tokens, and knows nothing of its state. It is kept, since to ask for it anew (`connect`) would wake a
    box that somebody has just stopped."""

    reserved = RESERVED
    signer = None

    def __init__(
        self, client: Any, account: Account, id: str, labels: Mapping[str, str], link: Any = None
    ) -> None:
        self._client = client
        self._account = account
        self._link: Any = link
        self.id = id
        self.labels: Mapping[str, str] = labels

    async def _about(self) -> Any:
        with told(self.id):
            return await self._client.get_info(self.id)

    async def state(self) -> SandboxState:
        return state_of(await self._about())

    async def start(self) -> None:
        from e2b import GuestUnresponsiveException

        about = await self._about()
        how = {"timeout": lifetime(self._account.life), "request_timeout": LIFE_WITHIN}
        async with self._asking():
            try:
                self._link = await self._client.connect(self.id, **how)
            except GuestUnresponsiveException:  # what it had in memory was broken; its files are there
                self._link = await self._client.connect(self.id, on_resume="reboot", **how)
        wanted = {name: rule for name, rule in self._account.rules().items() if name in EGRESS}
        known = dict(about.network or {})
        if any(known.get(name) != wanted.get(name) for name in EGRESS):
            with told("", f"network rules for {self.id}"):  # a 404 here says nothing about the box
                await self._client.update_network(self.id, wanted)

    async def stop(self) -> None:
        about = await self._about()
        if state_of(about) is not SandboxState.RUNNING:
            return
        if _version(about.envd_version) < FREEZES:
            raise SandboxError(
                f"The sandbox {self.id} cannot be stopped without harm to its files: E2B's program in it is "
                f"{about.envd_version}, and only from 0.6.6 on it writes them down first.",
                "Build the template again, for new sandboxes. This one falls asleep when it is not used.",
            )
        async with self._asking():
            # With its memory, what runs in it would go on after the next start.
            await self._client.pause(self.id, mode="filesystem", request_timeout=LIFE_WITHIN)
        if await self.state() is SandboxState.RUNNING:  # the SDK hears a conflict as "it was paused"
            raise SandboxUnreachable(f"E2B did not stop the sandbox {self.id}.")

    async def delete(self) -> None:
        with told(self.id):
            there = await self._client.kill(self.id)
        if not there:
            raise SandboxGone(f"E2B has no sandbox {self.id}.")

    async def touch(self, idle_stop: float) -> None:
        life = lifetime(idle_stop)
        try:
            try:
                await self._live_for(life)
            except (SandboxGone, SandboxUnreachable):
                raise
            except SandboxError:  # more than the plan has; then it sleeps earlier, and the next call wakes it
                if life <= SAFE_LIFE:
                    raise
                await self._live_for(SAFE_LIFE)
        except SandboxGone as error:  # it says so of one that is paused, too
            await self._must_run()
            raise SandboxUnreachable(f"E2B does not prolong the sandbox {self.id} just now.") from error

    async def _live_for(self, seconds: int) -> None:
        with told(self.id, f"lifetime of {seconds} s"):
            await self._client.set_timeout(self.id, seconds)

    async def run(self, command: str, *, timeout: float) -> Said:
        from e2b import CommandExitException

        async with self._talking() as link:
            try:
                ended: Any = await link.commands.run(command, timeout=timeout)
            except CommandExitException as error:
                ended = error
        if ended.exit_code == 0:
            return Said(0, ended.stdout)
        return Said(int(ended.exit_code), f"{ended.stdout}{ended.stderr or ended.error or ''}")

    async def upload(self, content: bytes | Path, path: str) -> None:
        async with self._talking() as link, asyncio.timeout(TRANSFER_WITHIN):
            if isinstance(content, bytes):
                await link.files.write(path, content)
            else:
                with content.open("rb") as file:
                    await link.files.write(path, file)

    async def download(self, path: str, target: Path, *, limit: int) -> None:
        left = limit + 1
        async with self._talking() as link, asyncio.timeout(TRANSFER_WITHIN):
            with target.open("wb") as file:
                async with await link.files.read(path, format="stream") as chunks:
                    async for chunk in chunks:
                        file.write(chunk[:left])
                        left -= len(chunk)
                        if left <= 0:
                            break

    async def door(self, port: int) -> Address | None:
        await self._must_run()
        link = await self._linked()
        token = link.traffic_access_token
        headers = {"E2b-Traffic-Access-Token": token} if token else {}
        if self._account.sandbox_url:
            named = {"E2b-Sandbox-Id": self.id, "E2b-Sandbox-Port": str(port)}
            return Address(self._account.sandbox_url, headers | named)
        return Address(f"https://{link.get_host(port)}", headers)

    async def _must_run(self) -> None:
        """It runs now. One that fell asleep under us is woken: its programs wait for us, and are not lost."""
        if await self.state() is SandboxState.RUNNING:
            return
        try:
            woken = self._link is not None and await self._link.is_running(request_timeout=LIFE_WITHIN)
        except Exception as error:
            raise SandboxUnreachable(f"The sandbox {self.id} does not wake: {text_of(error)}.") from error
        if not woken:
            raise SandboxNotRunning(f"The sandbox {self.id} is stopped.")

    async def _linked(self) -> Any:
        if self._link is None:
            await self._must_run()
            async with self._asking():
                link = await self._client.connect(self.id, request_timeout=LIFE_WITHIN)
            self._link = self._link or link
        return self._link

    @contextlib.asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """A change of its state. A 404 of one may mean that it is changing already."""
        try:
            with told(self.id):
                yield
        except SandboxGone as error:
            await self.state()
            raise SandboxUnreachable(f"E2B is changing the sandbox {self.id} just now.") from error

    @contextlib.asynccontextmanager
    async def _talking(self) -> AsyncIterator[Any]:
        """The way into the box. What goes wrong on it is told after the API has said whether the box runs."""
        link = await self._linked()
        try:
            yield link
        except Exception as error:
            from e2b import AuthenticationException, InvalidArgumentException, NotEnoughSpaceException
            from e2b import FileNotFoundException as NoFile

            if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
                raise  # our own disk
            if isinstance(error, NotEnoughSpaceException):
                raise SandboxFull("The sandbox's disk is full.") from error
            if isinstance(error, AuthenticationException):  # of the box, not of the account
                self._link = None
            await self._must_run()
            if isinstance(error, NoFile | InvalidArgumentException):
                raise SandboxError(f"E2B's sandbox {self.id}: {text_of(error)}.") from error
            raise SandboxUnreachable(
                f"The sandbox {self.id} does not answer at E2B: {text_of(error)}."
            ) from error


class E2BProvider:
    name = "e2b"
    host = ""  # no call tells the team of an API key
    separates_sessions = False  # one user, one file system
    shares_agents = False

    def __init__(self, account: Account, *, ports_host: str = "") -> None:
        """ports_host: the address of this machine on which people reach ports of boxes, "": they don't.

        Raises ProviderUnavailable without the SDK, and SettingsError where `extra` is none of its."""
        try:
            from e2b import E2B
        except ImportError as error:
            raise ProviderUnavailable(
                "The SDK of E2B is not installed.", "Install it: pip install 'e2b>=2.63,<3'."
            ) from error
        check_extra(account.extra)
        self._account = account
        self._client: Any = E2B(
            api_key=account.api_key,
            domain=account.domain,
            api_url=account.api_url or f"https://api.{account.domain}",
            sandbox_url=account.sandbox_url or None,
            debug=False,
        ).AsyncSandbox
        self._http = door_client()
        self._ports = RemotePorts(ports_host)
        own = set(account.extra.get("network", {})) & {"allow_out", "deny_out"}
        self.warning = f"{EXTRA} says where sandboxes may go, and SANDPIPER_EGRESS_* does not." if own else ""

    async def check(self) -> None:
        with told(""):
            await self._client.list(limit=1).next_items()

    async def create(self, labels: Mapping[str, str]) -> Sandbox:
        made = await self.make(labels)
        sandbox = self._sandbox(await the_oldest(made, lambda: self._boxes(labels)))
        await sandbox.start()
        return sandbox

    async def make(self, labels: Mapping[str, str]) -> E2BBox:
        """A new box, without anything of ours in it yet."""
        about = self._account
        ours = {
            "template": about.template,
            "timeout": lifetime(about.life),
            "request_timeout": LIFE_WITHIN,
            "idempotency_key": secrets.token_hex(16),  # the SDK asks again where it heard no answer
        }
        more = {name: value for name, value in about.extra.items() if name not in ("network", "lifecycle")}
        how = {**ours, **more, "metadata": dict(labels), "network": about.rules()}
        with told("", f"template {how['template']}"):
            link = await self._client.create(**how, lifecycle=about.lifecycle())
        return E2BBox(self._client, about, link.sandbox_id, dict(labels), link)

    async def find(self, labels: Mapping[str, str]) -> Sequence[Sandbox]:
        return [self._sandbox(box) for box in await self._boxes(labels)]

    async def get(self, id: str) -> Sandbox:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", id):  # it becomes part of a URL
            raise SandboxGone(f"E2B has no sandbox '{id}'.")
        with told(id):
            about = await self._client.get_info(id)
        return self._sandbox(self._box(about))

    async def close(self) -> None:
        await self._ports.close()
        await self._http.aclose()

    async def _boxes(self, labels: Mapping[str, str]) -> list[E2BBox]:
        """Oldest first."""
        from e2b import SandboxQuery

        found: list[Any] = []
        pages = self._client.list(SandboxQuery(metadata=dict(labels)), limit=PAGE)
        with told(""):
            while pages.has_next:
                found += await pages.next_items()
        return [self._box(one) for one in sorted(found, key=lambda one: (one.started_at, one.sandbox_id))]

    def _box(self, about: Any) -> E2BBox:
        return E2BBox(self._client, self._account, about.sandbox_id, dict(about.metadata))

    def _sandbox(self, box: Box) -> RemoteSandbox:
        inherited = tuple(self._account.extra.get("envs", {}))
        return RemoteSandbox(box, self._http, inherited=inherited, ports=self._ports)


def check_extra(extra: Mapping[str, Any]) -> None:
    """Of what is said there, only the SDK can say all that is wrong, and that when a box is made."""
    from e2b import AsyncSandbox

    takes = set(inspect.signature(AsyncSandbox.create).parameters) - {"opts", "metadata", "idempotency_key"}
    for name, value in extra.items():
        if name not in takes:
            raise SettingsError(
                f"{EXTRA}: '{name}' cannot be said there.", f"It takes {', '.join(sorted(takes))}."
            )
        if name in ("network", "lifecycle", "envs") and not isinstance(value, dict):
            raise SettingsError(f"{EXTRA}: '{name}' is no JSON object.")
    action = extra.get("lifecycle", {}).get("on_timeout", "pause")
    if (action.get("action") if isinstance(action, dict) else action) != "pause":
        raise SettingsError(f"{EXTRA}: with this lifecycle, sandboxes lose all files.", "Leave it out.")


def lifetime(idle_stop: float) -> int:
    return max(SHORTEST_LIFE, math.ceil(idle_stop))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def state_of(about: Any) -> SandboxState:
    said = str(getattr(about.state, "value", about.state))
    if said not in STATES:
        raise SandboxUnreachable(f"E2B says '{said}' of the sandbox {about.sandbox_id}.")
    return STATES[said]


def text_of(error: BaseException) -> str:
    """What went wrong, without the SDK's advice to programmers."""
    said = str(error) or type(error).__name__
    return re.split(r": (?:This|The|You) [a-z]| — ", said)[0].strip().rstrip(".")[:300]


@contextlib.contextmanager
def told(id: str, what: str = "") -> Iterator[None]:
    """What the API says, in our words. id: the sandbox that was asked for, without which 404 is not gone.
    what: what was asked for otherwise."""
    try:
        yield
    except Exception as error:
        raise in_our_words(error, id, what) from error


def in_our_words(error: Exception, id: str, what: str) -> SandboxError:
    """The SDK raises four families of errors, and some bare ones."""
    from e2b import AuthenticationException, InvalidArgumentException, RateLimitException
    from e2b import NotFoundException as NotThere

    said = text_of(error)
    status = getattr(error, "status_code", None) or (404 if isinstance(error, NotThere) else None)
    if isinstance(error, AuthenticationException):
        return ProviderUnavailable("E2B does not accept the API key.", f"Set {KEY}.")
    if isinstance(error, NotThere) and id:
        return SandboxGone(f"E2B has no sandbox {id}.")
    if isinstance(error, RateLimitException) and re.search(r"maximum number|concurrent", said):
        return ProviderUnavailable(
            f"E2B runs no more sandboxes for this account: {said}.",
            "Stop some (`sandpiper sandboxes list`), or ask E2B for a larger plan.",
        )
    if status == 403:
        return ProviderUnavailable(f"E2B refuses: {said}.", f"Look at the account of {KEY} and its plan.")
    if what.startswith("template") and (status == 404 or (status == 400 and "template" in said.lower())):
        return ProviderUnavailable(
            f"E2B has no {what}: {said}.", f"Build it, or set {TEMPLATE_SETTING} to one that there is."
        )
    if isinstance(error, InvalidArgumentException | TypeError):
        return ProviderUnavailable(f"E2B's SDK refuses: {said}.", f"Look at {EXTRA}.")
    if what.startswith("template") and status == 400 and "timeout" in said.lower():
        return ProviderUnavailable(
            f"E2B lets no sandbox live that long: {said}.", "Lower SANDPIPER_SANDBOX_IDLE_STOP."
        )
    if status is not None and 400 <= status < 500 and status not in (408, 409, 429):
        return SandboxError(f"E2B refuses{' the ' + what if what else ''}: {said}.")
    return ProviderAway(f"E2B does not answer as it should just now: {said}.")
