"""A person's persistent sandbox: found, created, started, kept alive, stopped when idle, deleted for age."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

from bot.errors import (
    LeaseLost,
    SandboxElsewhere,
    SandboxError,
    SandboxFull,
    SandboxGone,
    SandboxNotRunning,
    SandboxUnreachable,
    SandpiperError,
    StoreUnavailable,
)
from bot.models import Person, Repository, SandboxKey, SandboxRow, SandboxState, Session
from bot.patience import patiently
from bot.ports import Clock, Provider, Sandbox, Store
from bot.sandbox_holds import Holds
from bot.timeline import span
from bot.whereabouts import RESET, Whereabouts

log = logging.getLogger(__name__)

NO_ROOM = (
    "As many sandboxes run here as may at once, and all of them are at work.",
    "Try it again when a turn has ended. An operator can raise SANDPIPER_CAP_SANDBOXES.",
)
OURSELVES = "sandpiper"  # who does what nobody asked for
LOST = "Work that was not pushed is lost with the old one."


@dataclass(frozen=True, slots=True)
class Ready:
    """A running sandbox. `lost` says what a person must know when an earlier one is gone. since: when it was
    started."""

    sandbox: Sandbox
    lost: str = ""
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds without a turn until a sandbox is stopped, and until it is deleted (0: never). retention: until
    it is deleted after its owner has left (0: never). worktree: after a session's last turn until its
    worktree is put away (0: never). busy_stop: until its provider may stop it although a turn runs, since it
    has not heard of the bot."""

    idle_stop: float
    ttl: float = 0.0
    retention: float = 0.0
    worktree: float = 0.0
    busy_stop: float = 0.0


class Sandboxes:
    """One sandbox per person in a tenant. The provider is asked every time: no cache can lie.

    What ends a sandbox is alone with it, as is a turn that takes it, and looks for open turns in it.
    Whoever needs room among the running ones of a tenant takes that before it takes a sandbox.
    """

    def __init__(
        self,
        store: Store,
        provider: Provider,
        clock: Clock,
        installation: str,
        ages: Ages,
        *,
        most: int = 0,
    ) -> None:
        """most: how many of a tenant may run at once; 0: no limit."""
        self._store = store
        self._provider = provider
        self._clock = clock
        self.installation = installation
        self.ages = ages
        self._most = most
        self._holds = Holds(store, clock)
        self.whereabouts = Whereabouts(store, provider, installation)
        self._rooms: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._coming: Counter[SandboxKey] = Counter()  # of turns, about to run
        self._in_use: Counter[str] = Counter()  # of turns that run, by their sandbox's id

    @property
    def provider(self) -> Provider:
        return self._provider

    def key(self, owner: Person) -> SandboxKey:
        return SandboxKey(self.installation, owner.tenant, owner.id, self._provider.name)

    def alone(self, key: SandboxKey) -> AbstractAsyncContextManager[None]:
        """For whoever takes, makes or ends the sandbox of this key: inside, nobody else does, in any bot on
        this store."""
        return self._holds.alone(key)

    async def rows(self) -> Sequence[SandboxRow]:
        """All that the store knows of and this provider, here, can reach."""
        return await self.whereabouts.here()

    async def get(self, row: SandboxRow) -> Sandbox:
        """It, as its provider has it. Raises SandboxGone only where that can be believed."""
        return await self.whereabouts.get(row)

    async def within_reach(self, owner: Person) -> Sequence[Repository]:
        """Whose code an agent can read in the owner's sandbox, whatever its session: where the provider keeps
        sessions apart, nothing; elsewhere all that was checked out there."""
        return () if self._provider.separates_sessions else await self._store.checked_out(self.key(owner))

    async def ready(self, owner: Person) -> Ready:
        """The owner's sandbox, running. Unreachable is retried; only gone is replaced."""
        key = self.key(owner)
        async with self._takes(key):  # two threads of one person must not make two
            row = await self._store.sandbox(key)
            lost = ""
            if row is not None and not row.provider_id:
                lost = f"Your earlier sandbox was deleted ({row.lost}), so I made a new one. {LOST}"
            elif row is not None:
                self.whereabouts.demand(row)
                try:
                    sandbox = await self._started(row)
                    await self.whereabouts.note(row)
                    await self._store.touch_sandbox(row.id)
                    return Ready(sandbox, since=await self._since(key))
                except SandboxGone:
                    await self.whereabouts.believe_gone(row)
                    lost = f"Your sandbox no longer exists at its provider, so I made a new one. {LOST}"
                    await self._store.audit("sandpiper", "sandbox.gone", row.provider_id, key.tenant)
            # One that was made for them, and not written down since a bot died over it, is theirs. After a
            # deletion, what is listed may only be its shadow.
            gone = row.provider_id if row is not None else None
            found = [one for one in await self._provider.find(key.labels()) if one.id != gone]
            labels = key.labels(row.created_at if row is not None and gone == "" else 0.0)
            sandbox = found[0] if found and gone != "" else await self._provider.create(labels)
            if await sandbox.state() is not SandboxState.RUNNING:
                await sandbox.start()
            await self._store.save_sandbox(key, sandbox.id, self._provider.host)  # it runs
            await self._store.audit("sandpiper", "sandbox.ready", sandbox.id, key.tenant)
            await _enter(sandbox)
            return Ready(sandbox, lost, await self._since(key))

    async def existing(self, owner: Person) -> Sandbox | None:
        """The owner's sandbox as it is, without starting or making one. None, too, where it is out of
        reach."""
        row = await self._store.sandbox(self.key(owner))
        if row is None or not row.provider_id:
            return None
        try:
            return await self.get(row)
        except (SandboxGone, SandboxElsewhere):
            return None

    @asynccontextmanager
    async def in_use(self, session: Session, sandbox: Sandbox) -> AsyncIterator[None]:
        """Inside, a turn of the session runs in its owner's sandbox. After the last one its provider may stop
        it as soon as we would; not so where it is pinned, nor when the bot ends or another takes over, since
        the turn goes on then."""
        over = False
        self._in_use[sandbox.id] += 1
        alive = asyncio.create_task(self.keep_alive(session.owner, sandbox))
        try:
            yield
            over = True
        except (LeaseLost, StoreUnavailable):
            raise
        except SandpiperError:
            over = True
            raise
        finally:
            alive.cancel()
            self._in_use[sandbox.id] -= 1
            if over and not self._in_use[sandbox.id]:
                try:
                    if not await self._needed_after(session):
                        await sandbox.touch(self.ages.idle_stop)
                except (SandboxError, StoreUnavailable) as error:
                    log.info("could not touch sandbox %s: %s", sandbox.id, error)

    async def _needed_after(self, session: Session) -> bool:
        """Other turns may run in other bots. Of two that end together each may see the other: then we are
        left to stop the sandbox."""
        row = await self._store.sandbox(self.key(session.owner))
        others = [one for one in await self._store.open_sessions(session.owner.id) if one.id != session.id]
        return bool(others) or (row is not None and row.pinned)

    async def prolong(self, sandbox: Sandbox) -> None:
        """Its provider leaves it running as long as it may, without hearing of us. Raises SandboxError."""
        await sandbox.touch(max(self.ages.idle_stop, self.ages.busy_stop))

    async def keep_alive(self, owner: Person, sandbox: Sandbox) -> None:
        """While a turn runs: the sandbox is in use, for us and for its provider. Runs until cancelled."""
        while True:
            pause = 60.0
            try:
                await self.prolong(sandbox)
                if (row := await self._store.sandbox(self.key(owner))) is not None:
                    await self._store.touch_sandbox(row.id)
            except (SandboxError, StoreUnavailable) as error:
                log.warning("could not touch sandbox %s: %s", sandbox.id, error)
                pause = max(pause, error.retry_after if isinstance(error, SandboxUnreachable) else 0.0)
            except Exception:  # whatever it is, an end of this would be silent, and the sandbox's too
                log.exception("could not touch sandbox %s", sandbox.id)
            await self._clock.sleep(pause)

    # ends

    async def restart(self, row: SandboxRow) -> Sequence[Session]:
        """Stop it with all that runs in it, and start it. Returns the sessions whose open turns stand against
        that; then nothing was done. Raises SandboxError."""

        async def again(row: SandboxRow) -> None:
            sandbox = await self.get(row)
            if await sandbox.state() is SandboxState.RUNNING:
                await sandbox.stop()
            await self._store.saw_sandbox(row.id, SandboxState.STOPPED)
            await sandbox.start()
            await self._store.touch_sandbox(row.id)

        async with self._visitors_room(row):
            return await self._between_turns(row, again)

    async def stop(self, row: SandboxRow) -> Sequence[Session]:
        """Stop it; its files stay. Returns the sessions whose open turns stand against that; then nothing was
        done. Raises SandboxError."""

        async def stop(row: SandboxRow) -> None:
            sandbox = await self.get(row)
            if await sandbox.state() is SandboxState.RUNNING:
                await sandbox.stop()
            await self._store.saw_sandbox(row.id, SandboxState.STOPPED)

        return await self._between_turns(row, stop)

    async def start(self, row: SandboxRow) -> Sandbox:
        """It, running; that is a use of it. Raises SandboxError, also when too many run already."""
        async with self._visitors_room(row), self.alone(row.key):
            sandbox = await self.get(row)
            if await sandbox.state() is not SandboxState.RUNNING:
                await sandbox.start()
            await self._store.touch_sandbox(row.id)
            return sandbox

    async def delete(self, row: SandboxRow, why: str, by: str) -> Sequence[Session]:
        """Delete it with all that is in it. Returns the sessions whose open turns stand against that; then
        nothing was done. why: a clause for those who lose something. Raises SandboxError."""

        async def delete(row: SandboxRow) -> None:
            await self._delete(row, why, by)

        return await self._between_turns(row, delete)

    async def visit(self, row: SandboxRow, act: Callable[[Sandbox], Awaitable[None]]) -> None:
        """Do something in it while none of its owner's turns is open, if it runs: that is no use of it.
        Raises SandboxError."""

        async def look(row: SandboxRow) -> None:
            sandbox = await self.get(row)
            if await sandbox.state() is SandboxState.RUNNING:
                await sandbox.enter()
                await act(sandbox)

        await self._between_turns(row, look)

    async def _between_turns(
        self, row: SandboxRow, act: Callable[[SandboxRow], Awaitable[None]]
    ) -> Sequence[Session]:
        async with self.alone(row.key):  # a turn that opens now waits for us before it takes the sandbox
            if busy := await self._store.open_sessions(row.key.person):
                return busy
            now = await self._store.sandbox(row.key)
            if now is None or now.provider_id != row.provider_id:
                raise SandboxGone(f"The sandbox {row.provider_id} is not there any more.")
            await act(now)
            return ()

    async def _delete(self, row: SandboxRow, why: str, by: str) -> None:
        try:
            await (await self.get(row)).delete()
        except SandboxGone:  # so it is done
            log.info("sandbox %s is gone already", row.provider_id)
        except SandboxElsewhere:
            if by == OURSELVES:
                raise
            log.warning("sandbox %s is forgotten, and left where it is", row.provider_id)
        await self._store.forget_sandbox(row.id, row.provider_id, why)
        await self._store.audit(by, "sandbox.deleted", row.provider_id, why)

    # room

    @asynccontextmanager
    async def _takes(self, key: SandboxKey) -> AsyncIterator[None]:
        """The sandbox for one turn alone, with its place among those that run. One that runs has its place:
        it does not wait for what others have stopped."""
        async with self.alone(key):
            if not self._most or (await self._runs(key) and await self._others_run(key) < self._most):
                self._coming[key] += 1  # also while it is found asleep, and started
                try:
                    yield
                finally:
                    self._coming[key] -= 1
                return
        async with self._turns_room(key), self.alone(key):
            yield

    async def _runs(self, key: SandboxKey) -> bool:
        return key in [row.key for row in await self.rows() if row.state is SandboxState.RUNNING]

    @asynccontextmanager
    async def _turns_room(self, key: SandboxKey) -> AsyncIterator[None]:
        """Claims are capped, so that what stands in a turn's way is nobody's at work, and is stopped."""
        async with self._rooms[key.tenant]:
            if not await self._make_room(key):
                log.warning("more sandboxes of %s run than may: idle ones cannot be stopped", key.tenant)
            self._coming[key] += 1
        try:
            yield
        finally:
            self._coming[key] -= 1

    @asynccontextmanager
    async def _visitors_room(self, row: SandboxRow) -> AsyncIterator[None]:
        """For who starts one without a turn: a turn that comes meanwhile waits, and may then stop it."""
        if not self._most:
            yield
            return
        async with self._rooms[row.key.tenant]:
            if not (await self._runs(row.key) or await self._make_room(row.key)):
                raise SandboxError(*NO_ROOM)
            yield

    async def _make_room(self, key: SandboxKey) -> bool:
        """Stop what runs for nobody until there is room for this one. False: there is none."""
        if await self._others_run(key) < self._most:
            return True
        for row in await self._store.spare_sandboxes(key.tenant):
            if row.key == key or not self.whereabouts.reaches(row):
                continue
            async with self.alone(row.key):
                if row.id in [spare.id for spare in await self._store.spare_sandboxes(key.tenant)]:
                    log.info("sandbox %s is stopped to make room", row.provider_id)
                    await self._stop(row)
            if await self._others_run(key) < self._most:
                return True
        return False

    async def _others_run(self, key: SandboxKey) -> int:
        running = {row.key for row in await self.rows() if row.state is SandboxState.RUNNING}
        coming = {other for other, turns in self._coming.items() if turns}
        return len({other for other in running | coming if other.tenant == key.tenant and other != key})

    # time

    async def stop_idle(self) -> None:
        """Stop the sandboxes that nobody has used for the idle time. Their files stay."""
        for row in await self._idle():
            with _its_own_trouble("could not stop idle sandbox", row):
                async with self.alone(row.key):
                    # Stopping the others took its time: this one may have been taken meanwhile.
                    if row.id in [idle.id for idle in await self._idle()]:
                        await self._stop(row)

    async def delete_expired(self) -> None:
        """Delete the sandboxes that nobody has used for their time to live."""
        for row in await self._expired():
            with _its_own_trouble("could not delete expired sandbox", row):
                async with self.alone(row.key):
                    if row.id in [expired.id for expired in await self._expired()]:
                        await self._delete(row, f"nobody had used it for {span(self.ages.ttl)}", OURSELVES)

    async def _idle(self) -> Sequence[SandboxRow]:
        rows = await self._store.idle_sandboxes(self._clock.now() - self.ages.idle_stop)
        return [row for row in rows if self.whereabouts.reaches(row)]

    async def _expired(self) -> Sequence[SandboxRow]:
        if not self.ages.ttl:
            return ()
        rows = await self._store.expired_sandboxes(self._clock.now() - self.ages.ttl)
        return [row for row in rows if self.whereabouts.reaches(row)]

    async def _stop(self, row: SandboxRow) -> None:
        try:
            sandbox = await self.get(row)
            if (state := await sandbox.state()) is SandboxState.RUNNING:
                await sandbox.stop()
                state = SandboxState.STOPPED
            await self._store.saw_sandbox(row.id, state)
        except SandboxGone:
            log.info("idle sandbox %s no longer exists", row.provider_id)
        except SandboxError as error:
            log.warning("could not stop idle sandbox %s: %s", row.provider_id, error)

    async def _since(self, key: SandboxKey) -> float:
        row = await self._store.sandbox(key)
        return row.state_at if row else 0.0

    async def _started(self, row: SandboxRow) -> Sandbox:
        async def start() -> Sandbox:
            sandbox = await self._provider.get(row.provider_id)
            if await sandbox.state() is not SandboxState.RUNNING:
                # It may have stopped by itself: what is said of it must know of a start by its time.
                await self._store.saw_sandbox(row.id, SandboxState.STOPPED)
                await sandbox.start()
                await self._store.saw_sandbox(row.id, SandboxState.RUNNING)  # also where nobody can enter it
            await _enter(sandbox)
            return sandbox

        return await patiently(self._clock, start)


async def _enter(sandbox: Sandbox) -> None:
    """Where that fails for good, an agent may have broken it, and none can mend it any more."""
    try:
        await sandbox.enter()
    except (SandboxUnreachable, SandboxNotRunning, SandboxGone):
        raise
    except SandboxFull as error:
        raise SandboxFull(error.what, f"No agent can be started to make room. {RESET}") from error
    except SandboxError as error:
        raise SandboxError(error.what, f"{error.mend} If it could be used before, {RESET}") from error


@contextmanager
def _its_own_trouble(what: str, row: SandboxRow) -> Iterator[None]:
    """Whatever one sandbox fails with, the next one is looked after."""
    try:
        yield
    except StoreUnavailable:
        raise
    except SandboxError as error:
        log.warning("%s %s: %s", what, row.provider_id, error)
    except Exception:
        log.exception("%s %s", what, row.provider_id)
