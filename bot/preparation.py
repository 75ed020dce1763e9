"""Before an agent can work: its owner's sandbox running, and the session's workspace in it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from bot.access import Access, is_owner
from bot.driver import Driver
from bot.errors import Denied, NothingLeft, ProviderAway
from bot.events import Notice
from bot.hooks import Hooks
from bot.models import (
    Fate,
    Further,
    Identity,
    Input,
    Place,
    Repository,
    Saying,
    SayingKind,
    Session,
    ThreadKey,
    TurnKind,
    TurnState,
)
from bot.patience import patiently
from bot.ports import Clock, Sandbox, Store
from bot.programs import Programs
from bot.refusals import tell_denied
from bot.sandboxes import LOST, Ready, Sandboxes
from bot.timeline import span
from bot.trust import NO_TRUST, Trust
from bot.workspace import Workspaces

BACK = "What was done there is kept in the sandbox, and comes back when it can be used again."
MOVED = f"The sandbox that this thread worked in has been replaced by a new one. {LOST}"
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0  # seconds between tries at a provider that is away


@dataclass(frozen=True, slots=True)
class Box:
    """Where a turn happens: the sandbox, the session's place in it, and how the agent is called there.
    started: when the sandbox was. opened: the place was just now, and not only found again."""

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
        clock: Clock,
        trust: Trust = NO_TRUST,
        *,
        away: float,
    ) -> None:
        """away: seconds for which a provider that does not answer is waited for."""
        self._away = away
        self._trust = trust
        self._hooks = hooks
        self._programs = programs
        self._store = store
        self._sandboxes = sandboxes
        self._workspaces = workspaces
        self._access = access
        self._clock = clock

    async def prepare(self, driver: Driver) -> Box:
        """The sandbox running and the workspace on its branch; after a restart just found again."""
        session = driver.session
        fresh = driver.turn.state is TurnState.PREPARING
        if fresh:
            # Work may have been asked for by others, or go on by itself: is the owner still one who may?
            await patiently(self._clock, partial(self._owner_may, session, session.repository))
            await self._leave_out(driver)
            if driver.turn.kind is TurnKind.AGENT:
                await self.permitted(driver)
            await driver.phase("sandbox", f"Getting {session.owner.identity.name}'s sandbox ready")
        box = await self.again(driver, fresh=fresh and driver.turn.kind is TurnKind.AGENT)
        notes = tuple(f"{_left(one)} You cannot see it." for one in driver.session.left_out)
        return replace(box, place=replace(box.place, notes=(*notes, *box.place.notes)))

    async def _owner_may(self, session: Session, repository: Repository | None) -> None:
        await self._access.may_work(session.owner.identity, session.thread, repository)

    async def permitted(self, driver: Driver) -> Sequence[Input]:
        """The turn's words, without those that were taken back, and those of others than the owner who may
        not steer here now: they were asked when they wrote, and what the sandbox holds, or who they are, may
        have changed since. What of it no agent has been given is dropped, and they are told.

        Raises NothingLeft, and a ForgeError when it cannot be asked.
        """
        owner, refusals = driver.session.owner, dict[tuple[Identity, ThreadKey], Denied | None]()
        while True:
            inputs = [
                one for one in await self._store.prompt_inputs(driver.turn.id) if one.fate is not Fate.DROPPED
            ]
            for one in inputs:
                who = (one.author, one.thread)
                if who not in refusals and not is_owner(one.author, owner):
                    refusals[who] = await patiently(self._clock, partial(self._refusal, driver.session, *who))
            allowed, changed = list[Input](), False
            for one in inputs:
                denied = refusals.get((one.author, one.thread))
                if denied is None:
                    allowed.append(one)
                elif one.fate is Fate.PENDING:
                    changed |= not await self._refuse(driver, one, denied)
            if changed:  # by an edit meanwhile, and it may be another's words now
                continue
            if any(refusals.values()) and not allowed:
                raise NothingLeft(
                    "Nothing is left to do: whoever wrote may not steer here any more.",
                    f"{owner.identity.name} can write here to go on.",
                )
            return allowed

    async def _refusal(self, session: Session, author: Identity, thread: ThreadKey) -> Denied | None:
        try:
            for repository in session.repositories or (None,):
                await self._access.may_steer(author, thread, repository, session.owner)
        except Denied as denied:
            return denied
        return None

    async def _refuse(self, driver: Driver, refused: Input, denied: Denied) -> bool:
        """False: it was edited or taken back since it was read."""
        author, thread = refused.author, refused.thread
        text = f"What {author.name} wrote does not go to the agent any more. {denied}"
        key = f"refused:{driver.turn.id}:{thread}:{author.surface}:{author.tenant}:{author.user}"
        saying = Saying(key, SayingKind.NOTE, thread, text=text, ref=refused.ref, turn=driver.turn.id)
        done = await self._store.refuse_input(driver.turn.id, driver.fence, refused, saying)
        if done:
            await self._store.audit(f"{author.tenant}/{author.user}", "denied", str(thread), denied.what)
        return done

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
        in this sandbox."""
        ready = await self._ready(driver)
        sandbox = ready.sandbox
        # Another turn of the owner's may have found out first, or this one before its bot died.
        moved = driver.session.opened_in not in ("", sandbox.id)
        if ready.lost or moved:
            told = (Notice(ready.lost),) if ready.lost else driver.untold([MOVED])
            await driver.tell(*told)
            driver.session = await self._store.session(driver.session.id)
        if not _attached(driver):
            await patiently(self._clock, lambda: self._trust.bring(sandbox))
        if not fresh and not ready.lost and not moved:
            place = await self._workspaces.place(driver.session, sandbox)
            return Box(sandbox, place, await self._command(driver, sandbox), ready.since)
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
                if waited + wait > self._away:
                    tried = f"I tried for {span(waited)}. Write here to try it again."
                    raise ProviderAway(error.what, tried, retry_after=error.retry_after) from error
                await driver.tell(*driver.untold([f"{error.what} I keep trying."]))
            await self._clock.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def hooked(self, driver: Driver, box: Box) -> Box:
        """After what the repository wants run has been. That has a time of its own, so no deadline here."""
        if not box.place.hooks or _attached(driver):
            return box
        async with self._sandboxes.in_use(driver.session, box.sandbox):
            place = await self._hooks.run(driver, box.sandbox, box.place, box.started, opened=box.opened)
            await tell_denied(driver, box.sandbox)
        return replace(box, place=place)

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
