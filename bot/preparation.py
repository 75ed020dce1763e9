"""Before an agent can work: its owner's sandbox running, and the session's workspace in it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from functools import partial

from bot.access import Access
from bot.driver import Deadlines, Driver
from bot.errors import ProviderAway, SandboxGone, SandboxNotRunning
from bot.events import Notice
from bot.hooks import Hooks
from bot.models import (
    Further,
    Place,
    Repository,
    Saying,
    SayingKind,
    Session,
    TurnKind,
    TurnState,
)
from bot.patience import patiently
from bot.ports import Clock, Sandbox, Store
from bot.programs import Programs
from bot.refusals import tell_denied
from bot.sandboxes import LOST, Ready, Sandboxes
from bot.steerers import Steerers
from bot.timeline import span
from bot.trust import NO_TRUST, Trust
from bot.workspace import Workspaces

log = logging.getLogger(__name__)

BACK = "What was done there is kept in the sandbox, and comes back when it can be used again."
MOVED = f"The sandbox that this thread worked in has been replaced by a new one. {LOST}"
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0  # seconds between tries at a provider that is away


@dataclass(frozen=True, slots=True)
class Box:
    """Where a turn happens: the sandbox, the session's place in it, and how the agent is called there.
    started: when the sandbox was. opened: the place was just now, or since its hooks were run, and not only
    found again."""

    sandbox: Sandbox
    place: Place
    command: tuple[str, ...] = ()
    started: float = 0.0
    opened: bool = False


class Preparation:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        workspaces: Workspaces,
        programs: Programs,
        hooks: Hooks,
        access: Access,
        steerers: Steerers,
        clock: Clock,
        trust: Trust = NO_TRUST,
        *,
        deadlines: Deadlines,
    ) -> None:
        self._deadlines = deadlines
        self._trust = trust
        self._hooks = hooks
        self._programs = programs
        self._store = store
        self._sandboxes = sandboxes
        self._workspaces = workspaces
        self._access = access
        self._steerers = steerers
        self._clock = clock

    async def permit(self, driver: Driver) -> None:
        """Ask who may, before anything is woken for a turn that begins."""
        session = driver.session
        if driver.turn.state is TurnState.PREPARING:
            # Work may have been asked for by others, or go on by itself: is the owner still one who may?
            await patiently(self._clock, partial(self._owner_may, session, session.repository))
            await self._leave_out(driver)
            if driver.turn.kind is TurnKind.AGENT:
                await self._steerers.permitted(driver)
                driver.session = await self._store.session(session.id)  # without what others chose in vain

    async def apart(self, driver: Driver) -> None:
        """Wait until the code may come in. That has a deadline of its own."""
        if driver.turn.state is TurnState.PREPARING:
            await self._steerers.apart(driver)

    async def prepare(self, driver: Driver) -> Box:
        """The sandbox running and the workspace on its branch; after a restart just found again."""
        session = driver.session
        fresh = driver.turn.state is TurnState.PREPARING
        if fresh:
            await driver.phase("sandbox", f"Getting {session.owner.identity.name}'s sandbox ready")
        box = await self.again(driver, fresh=fresh and driver.turn.kind is TurnKind.AGENT)
        notes = tuple(f"{_left(one)} You cannot see it." for one in driver.session.left_out)
        return replace(box, place=replace(box.place, notes=(*notes, *box.place.notes)))

    async def _owner_may(self, session: Session, repository: Repository | None) -> None:
        await self._access.may_work(session.owner.identity, session.thread, repository)

    async def _leave_out(self, driver: Driver) -> None:
        """Which further repositories the session can work on now: the others are no reason to stop."""
        session, turn = driver.session, driver.turn
        for one in (*session.further, *session.left_out):
            why = await patiently(
                self._clock,
                partial(self._access.why_not, session.owner.identity, session.thread, one.repository),
            )
            if bool(why) is bool(one.left_out):
                continue
            driver.session = await self._store.leave_out(session.id, one.repository.id, why)
            told = f"{one.repository.full_name} belongs to this thread again."
            if why:
                rest = ", ".join(repository.full_name for repository in driver.session.repositories)
                told = f"{_left(replace(one, left_out=why))} The thread goes on with {rest}. {BACK}"
            key = f"left out:{turn.id}:{one.repository.id}"
            await self._store.say(Saying(key, SayingKind.NOTE, turn.thread, text=told, turn=turn.id))

    async def again(self, driver: Driver, *, fresh: bool = False) -> Box:
        """The owner's sandbox, and the workspace in it: opened when `fresh`, or when it was not opened
        in this sandbox. One that ends meanwhile is started, or replaced, once."""
        try:
            return await self._box(driver, fresh)
        except (SandboxNotRunning, SandboxGone) as error:
            log.info("turn %s: its sandbox ended while it was prepared: %s", driver.turn.id, error)
            return await self._box(driver, fresh)

    async def _box(self, driver: Driver, fresh: bool) -> Box:
        ready = await self._ready(driver)
        sandbox = ready.sandbox
        # Another turn of the owner's may have found out first, or this one before its bot died.
        moved = driver.session.opened_in not in ("", sandbox.id)
        if ready.lost or moved:
            told = (Notice(ready.lost),) if ready.lost else driver.untold([await self._moved(driver)])
            await driver.tell(*told)
            driver.session = await self._store.session(driver.session.id)
        if not _attached(driver):
            await patiently(self._clock, lambda: self._trust.bring(sandbox))
        if not fresh and not ready.lost and not moved:
            place = await self._workspaces.place(driver.session, sandbox)
            due = driver.session.hooked_in != sandbox.id  # the bot died after it had opened it
            return Box(sandbox, place, await self._command(driver, sandbox), ready.since, opened=due)
        await driver.phase("code", "Bringing in the code")
        for one in driver.session.left_out:
            hiding = partial(self._workspaces.hide, driver.session.within(one), sandbox, driver.turn.id)
            if where := await patiently(self._clock, hiding):
                name = one.repository.full_name
                await driver.notice(
                    f"The worktree of {name} could not be put away: as it was, it is in {where}."
                )
        # An agent that is to be installed is so meanwhile.
        command = asyncio.ensure_future(self._command(driver, sandbox))
        try:
            await self._store.bring_code(driver.turn.id, driver.fence)
            place = await patiently(
                self._clock, lambda: self._workspaces.open(driver.session, sandbox, driver.turn.id)
            )
            driver.session = await self._store.opened_in(driver.session.id, sandbox.id)
            for note in place.notes:
                await driver.notice(note)
            return Box(sandbox, place, await command, ready.since, opened=True)
        finally:
            command.cancel()
            await asyncio.gather(command, return_exceptions=True)

    async def _ready(self, driver: Driver) -> Ready:
        """The owner's sandbox; a provider that is away is waited for, and the thread hears of it."""
        since, pause = self._clock.now(), FIRST_PAUSE
        while True:
            try:
                return await self._sandboxes.ready(driver.session.owner)
            except ProviderAway as error:
                waited = self._clock.now() - since
                wait = max(pause, error.retry_after)
                if waited + wait > self._deadlines.away:
                    tried = f"I tried for {span(waited)}. Write here to try it again."
                    raise ProviderAway(error.what, tried, retry_after=error.retry_after) from error
                await driver.tell(*driver.untold([f"{error.what} I keep trying."]))
            await self._clock.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def hooked(self, driver: Driver, box: Box) -> Box:
        """After what the repository wants run has been. That has a time of its own, so no deadline here. A
        box that ends meanwhile is started, or replaced, once."""
        try:
            return await self._hooked(driver, box)
        except (SandboxNotRunning, SandboxGone) as error:
            log.info("turn %s: its sandbox ended in hooks: %s", driver.turn.id, error)
            box = await driver.within("prepare", self._deadlines.prepare, self.prepare(driver))
            return await self._hooked(driver, box)

    async def _hooked(self, driver: Driver, box: Box) -> Box:
        if _attached(driver):
            return box
        if box.place.hooks:
            async with self._sandboxes.in_use(driver.session, box.sandbox):
                place = await self._hooks.run(driver, box.sandbox, box.place, box.started, opened=box.opened)
                await tell_denied(driver, box.sandbox)
            box = replace(box, place=place)
        if box.opened:
            driver.session = await self._store.hooked_in(driver.session.id, box.sandbox.id)
        return box

    async def _moved(self, driver: Driver) -> str:
        """What became of the sandbox in which the thread worked last."""
        session, provider = driver.session, self._sandboxes.provider.name
        old = await self._store.sandbox_kept(session.owner.id, session.opened_in)
        if old is None or old.key.provider == provider:
            return MOVED
        return (
            f"This thread worked in a sandbox of {old.key.provider}; they are {provider}'s here now. Work "
            f"that was not pushed is still in `{old.provider_id}`, unless that was deleted since. "
            f"SANDPIPER_SANDBOX_PROVIDER={old.key.provider} has it used again."
        )

    async def _command(self, driver: Driver, sandbox: Sandbox) -> tuple[str, ...]:
        """Where an agent runs already, or none is to run, nothing is called."""
        turn = driver.turn
        if turn.kind is not TurnKind.AGENT or turn.state is TurnState.FINISHING or _attached(driver):
            return ()

        async def installing(named: str) -> None:
            await driver.phase("install", f"Installing {named}, once in this sandbox")

        agent = driver.session.agent
        return await patiently(self._clock, lambda: self._programs.ready(sandbox, agent, installing))


def _left(one: Further) -> str:
    return f"{one.repository.full_name} is left out of this thread: {one.left_out}"


def _attached(driver: Driver) -> bool:
    """Is the agent of this attempt at work already?"""
    return driver.turn.state is not TurnState.PREPARING and bool(driver.turn.codec_state)
