"""The store on SQLite: bot.ports.Store, each verb one transaction of the database."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from bot.models import (
    Admitted,
    Ask,
    AskOutcome,
    Caps,
    Choice,
    Claim,
    Closing,
    Delivery,
    Final,
    Identity,
    Inbox,
    Input,
    MessageRef,
    NewInput,
    NewSession,
    Offered,
    OutboxItem,
    Past,
    Person,
    PullRequest,
    Record,
    Repository,
    Reset,
    SandboxKey,
    SandboxRow,
    SandboxState,
    Saying,
    Session,
    Stale,
    Standing,
    StopOutcome,
    StoredEvent,
    ThreadKey,
    Turn,
    TurnState,
    Waiting,
)
from bot.ports import Clock, Dispatcher, Watch
from storage import (
    asks,
    audit,
    deliveries,
    departures,
    endings,
    events,
    holds,
    inputs,
    intake,
    leases,
    offers,
    outbox,
    people,
    repositories,
    sandboxes,
    sessions,
    turns,
)
from storage.bells import Bells
from storage.database import Database, Tx

logger = logging.getLogger(__name__)


class SqliteStore:
    """All truth of one process, in one directory. Contracts of the verbs: bot.ports.Store."""

    def __init__(self, database: Database, bells: Bells) -> None:
        self._bells = bells
        self._read = database.read
        self._write = database.write
        self.close = database.close

    @classmethod
    async def open(cls, data_dir: Path, clock: Clock, dispatcher: Dispatcher) -> SqliteStore:
        """Raises SettingsError: another process has the directory, it cannot be used, or its
        database is from a newer release."""
        bells = Bells(clock)

        def on_commit(wakes: Iterable[int], rings: Iterable[str]) -> None:
            for turn in wakes:
                dispatcher.wake(turn)
            for topic in rings:
                bells.ring(topic)

        return cls(await Database.open(data_dir, clock, on_commit), bells)

    def watch(self, topic: str) -> Watch:
        return self._bells.watch(topic)

    async def boot(self, owner: str) -> Sequence[int]:
        def take_over(tx: Tx) -> Sequence[int]:
            holds.end_all(tx)
            return leases.boot(tx)

        open_turns = await self._write(take_over)
        logger.info("%s takes over %d open turns", owner, len(open_turns))
        return open_turns

    # deliveries

    async def accept(self, delivery: Delivery) -> bool:
        return await self._write(lambda tx: deliveries.accept(tx, delivery))

    async def received(self, limit: int) -> Sequence[Delivery]:
        return await self._read(lambda tx: deliveries.received(tx, limit))

    async def settle(self, surface: str, id: str, outcome: str) -> None:
        await self._write(lambda tx: deliveries.settle(tx, surface, id, outcome))

    async def park(self, surface: str, id: str, thread: ThreadKey) -> None:
        await self._write(lambda tx: deliveries.park(tx, surface, id, thread))

    async def sweep(self, now: float) -> None:
        await self._write(lambda tx: deliveries.sweep(tx, now))

    # people and places

    async def person(self, identity: Identity) -> Person:
        return await self._write(lambda tx: people.person(tx, identity))

    async def known_person(self, id: int) -> Person | None:
        return await self._read(lambda tx: people.by_id(tx, id))

    async def note_standing(self, standing: Standing) -> Sequence[str]:
        return await self._write(lambda tx: departures.note(tx, standing))

    async def repository_default(self, scope: str) -> str:
        return await self._read(lambda tx: repositories.default(tx, scope))

    async def set_repository_default(
        self, message_key: str, scope: str, repository: str, by: Identity, saying: Saying
    ) -> bool:
        return await self._write(
            lambda tx: intake.set_repository_default(tx, message_key, scope, repository, by, saying)
        )

    # sessions

    async def session(self, id: str) -> Session:
        return await self._read(lambda tx: sessions.get(tx, id))

    async def session_of(self, alias: str) -> Session | None:
        def find(tx: Tx) -> Session | None:
            id = sessions.of_alias(tx, alias)
            return None if id is None else sessions.get(tx, id)

        return await self._read(find)

    async def admit(self, start: NewSession | str, input: NewInput, thread: ThreadKey) -> Admitted:
        return await self._write(lambda tx: intake.admit(tx, start, input, thread))

    async def choose_repository(
        self,
        message_key: str,
        session: str,
        repository: Repository,
        thread: ThreadKey,
        further: Sequence[Repository] = (),
    ) -> Admitted:
        return await self._write(
            lambda tx: intake.choose_repository(tx, message_key, session, repository, thread, further)
        )

    async def revise(
        self,
        message_key: str,
        revises: str,
        text: str | None,
        by: Identity | None = None,
        choice: Choice | None = None,
    ) -> Input | None:
        return await self._write(lambda tx: intake.revise(tx, message_key, revises, text, by, choice))

    async def request_stop(self, message_key: str, session: str, by: str) -> StopOutcome:
        return await self._write(lambda tx: intake.request_stop(tx, message_key, session, by))

    async def open_asks(self, session: str) -> Sequence[Ask]:
        return await self._read(lambda tx: asks.of_session(tx, session))

    async def answer(
        self,
        message_key: str,
        session: str,
        ask: int,
        by: Identity,
        *,
        allowed: bool = False,
        text: str = "",
        ref: MessageRef | None = None,
    ) -> AskOutcome:
        return await self._write(
            lambda tx: asks.answer(tx, message_key, session, ask, by, allowed, text, ref)
        )

    async def start_publish(
        self, message_key: str, session: str, thread: ThreadKey, by: Identity
    ) -> Admitted:
        return await self._write(lambda tx: intake.start_publish(tx, message_key, session, thread, by))

    async def say(self, saying: Saying) -> bool:
        return await self._write(lambda tx: outbox.put(tx, saying))

    async def open_sessions(self, person: int, place: str = "") -> Sequence[Session]:
        return await self._read(
            lambda tx: [sessions.get(tx, id) for id in sessions.of_owner(tx, person, place)]
        )

    async def worked_sessions(self, person: int) -> Sequence[Session]:
        return await self._read(lambda tx: [sessions.get(tx, id) for id in sessions.worked(tx, person)])

    async def leave_out(self, session: str, repository: int, why: str) -> Session:
        return await self._write(lambda tx: sessions.leave_out(tx, session, repository, why))

    async def close_pull_request(self, closing: Closing) -> bool:
        return await self._write(lambda tx: sessions.close_pull_request(tx, closing))

    async def stale_sessions(self, person: int, stale: Stale, limit: int) -> Sequence[Session]:
        return await self._read(
            lambda tx: [sessions.get(tx, id) for id in sessions.stale(tx, person, stale, limit)]
        )

    async def put_away(self, session: str, *, whole: bool) -> None:
        await self._write(lambda tx: sessions.put_away(tx, session, whole=whole))

    async def add_alias(self, session: str, alias: str) -> None:
        def add(tx: Tx) -> None:
            sessions.lock(tx, session)
            sessions.add_alias(tx, session, alias)

        await self._write(add)

    async def threads(self, session: str) -> Sequence[ThreadKey]:
        return await self._read(lambda tx: sessions.threads(tx, session))

    async def authors(self, session: str) -> Sequence[Identity]:
        return await self._read(lambda tx: inputs.authors(tx, session))

    async def set_workspace(
        self, session: str, branch: str, base: str, base_sha: str, repository: int = 0
    ) -> Session:
        return await self._write(
            lambda tx: sessions.set_workspace(tx, session, branch, base, base_sha, repository)
        )

    async def opened_in(self, session: str, sandbox: str) -> Session:
        return await self._write(lambda tx: sessions.opened_in(tx, session, sandbox))

    async def hooked_in(self, session: str, sandbox: str) -> Session:
        return await self._write(lambda tx: sessions.hooked_in(tx, session, sandbox))

    async def offered(self, agent: str, version: str, person: int, repository: int) -> Offered | None:
        return await self._read(lambda tx: offers.last(tx, agent, version, person, repository))

    # turns

    async def turn(self, id: int) -> Turn:
        return await self._read(lambda tx: turns.get(tx, id))

    async def turn_before(self, id: int) -> Turn | None:
        return await self._read(lambda tx: turns.before(tx, id))

    async def past(self, turn: int, limit: int) -> Sequence[Past]:
        return await self._read(lambda tx: turns.past(tx, turn, limit))

    async def open_turn(self, session: str) -> Turn | None:
        def find(tx: Tx) -> Turn | None:
            row = turns.open_of(tx, session)
            return None if row is None else turns.from_row(row)

        return await self._read(find)

    async def claim(self, turn: int, owner: str, lease: float, caps: Caps) -> Claim | Waiting | None:
        return await self._write(lambda tx: leases.claim(tx, turn, owner, lease, caps))

    async def wake_forgotten(self) -> None:
        await self._write(leases.wake_forgotten)

    async def renew(self, turn: int, fence: int, lease: float) -> None:
        await self._write(lambda tx: turns.renew(tx, turn, fence, lease))

    async def advance(self, turn: int, fence: int, state: TurnState) -> None:
        await self._write(lambda tx: turns.advance(tx, turn, fence, state))

    async def bring_code(self, turn: int, fence: int) -> None:
        await self._write(lambda tx: turns.bring_code(tx, turn, fence))

    async def new_attempt(self, turn: int, fence: int) -> Turn:
        return await self._write(lambda tx: turns.new_attempt(tx, turn, fence))

    async def inbox(self, turn: int) -> Inbox:
        return await self._read(lambda tx: turns.inbox(tx, turn))

    async def prompt_inputs(self, turn: int) -> Sequence[Input]:
        return await self._read(lambda tx: inputs.of_turn(tx, turn))

    async def choices_waiting(self, session: str) -> Sequence[Choice]:
        return await self._read(lambda tx: inputs.choices_waiting(tx, session))

    async def newest_turn(self, person: int) -> int:
        return await self._read(lambda tx: turns.newest_of(tx, person))

    async def given_beside(self, session: str) -> Sequence[Input]:
        return await self._write(lambda tx: turns.given_beside(tx, session))

    async def refuse_input(self, turn: int, fence: int, refused: Input, saying: Saying) -> bool:
        return await self._write(lambda tx: turns.refuse_input(tx, turn, fence, refused, saying))

    async def record(self, turn: int, fence: int, record: Record) -> Turn:
        return await self._write(lambda tx: turns.record(tx, turn, fence, record))

    async def expire_asks(self, turn: int, fence: int) -> None:
        await self._write(lambda tx: turns.expire_asks(tx, turn, fence))

    async def journal(self, turn: int, attempt: int, offset: int) -> bytes:
        return await self._read(lambda tx: events.journalled(tx, turn, attempt, offset))

    async def events(self, turn: int) -> Sequence[StoredEvent]:
        return await self._read(lambda tx: events.of_turn(tx, turn))

    async def begin_finishing(self, turn: int, fence: int) -> Inbox:
        return await self._write(lambda tx: turns.begin_finishing(tx, turn, fence))

    async def close_intake(self, turn: int, fence: int) -> None:
        await self._write(lambda tx: turns.close_intake(tx, turn, fence))

    async def set_ready(self, turn: int, fence: int, commit: str, repository: int = 0) -> None:
        await self._write(lambda tx: turns.set_ready(tx, turn, fence, commit, repository))

    async def begin_push(self, turn: int, fence: int) -> bool:
        return await self._write(lambda tx: turns.begin_push(tx, turn, fence))

    async def set_published(
        self, turn: int, fence: int, commit: str, pull_request: PullRequest, repository: int = 0
    ) -> None:
        await self._write(lambda tx: turns.set_published(tx, turn, fence, commit, pull_request, repository))

    async def finish(self, turn: int, fence: int, state: TurnState, final: Final) -> int | None:
        return await self._write(lambda tx: endings.finish(tx, turn, fence, state, final))

    async def set_timeline(self, turn: int, ref: MessageRef) -> None:
        await self._write(lambda tx: outbox.set_timeline(tx, turn, ref))

    async def running(self) -> int:
        return await self._read(turns.busy)

    # outbox

    async def due(self, now: float, limit: int) -> Sequence[OutboxItem]:
        return await self._read(lambda tx: outbox.due(tx, now, limit))

    async def sending(self, item: int) -> None:
        await self._write(lambda tx: outbox.sending(tx, item))

    async def sent(self, item: int, ref: MessageRef | None) -> None:
        await self._write(lambda tx: outbox.sent(tx, item, ref))

    async def postpone(self, item: int, until: float, error: str) -> None:
        await self._write(lambda tx: outbox.postpone(tx, item, until, error))

    async def refused(self, item: int, error: str) -> None:
        def work(tx: Tx) -> None:
            if saying := outbox.refused(tx, item, error):
                asks.unshown(tx, saying)

        await self._write(work)

    async def shared_files(self) -> Sequence[str]:
        return await self._read(outbox.shared_files)

    # sandboxes

    async def sandbox(self, key: SandboxKey) -> SandboxRow | None:
        return await self._read(lambda tx: sandboxes.get(tx, key))

    async def save_sandbox(self, key: SandboxKey, provider_id: str, host: str) -> SandboxRow:
        return await self._write(lambda tx: sandboxes.save(tx, key, provider_id, host))

    async def note_sandbox_host(self, id: int, provider_id: str, host: str) -> None:
        await self._write(lambda tx: sandboxes.note_host(tx, id, provider_id, host))

    async def hold_sandbox(self, key: SandboxKey, holder: str, seconds: float) -> bool:
        return await self._write(lambda tx: holds.hold(tx, key, holder, seconds))

    async def release_sandbox(self, key: SandboxKey, holder: str) -> None:
        await self._write(lambda tx: holds.release(tx, key, holder))

    async def sandbox_kept(self, person: int, id: str) -> SandboxRow | None:
        return await self._read(lambda tx: sandboxes.kept(tx, person, id))

    async def sandboxes(self, installation: str, provider: str = "") -> Sequence[SandboxRow]:
        return await self._read(lambda tx: sandboxes.all_of(tx, installation, provider))

    async def checked_out(self, key: SandboxKey) -> Sequence[Repository]:
        return await self._read(lambda tx: sandboxes.checked_out(tx, key))

    async def touch_sandbox(self, id: int) -> None:
        await self._write(lambda tx: sandboxes.touch(tx, id))

    async def saw_sandbox(self, id: int, state: SandboxState) -> None:
        await self._write(lambda tx: sandboxes.seen(tx, id, state))

    async def pin_sandbox(self, id: int, pinned: bool) -> None:
        await self._write(lambda tx: sandboxes.pin(tx, id, pinned))

    async def forget_sandbox(self, id: int, provider_id: str, why: str) -> None:
        await self._write(lambda tx: sandboxes.forget(tx, id, provider_id, why))

    async def idle_sandboxes(self, before: float) -> Sequence[SandboxRow]:
        return await self._read(lambda tx: sandboxes.idle(tx, before))

    async def spare_sandboxes(self, tenant: str) -> Sequence[SandboxRow]:
        return await self._read(lambda tx: sandboxes.spare(tx, tenant))

    async def expired_sandboxes(self, before: float) -> Sequence[SandboxRow]:
        return await self._read(lambda tx: sandboxes.expired(tx, before))

    async def departed_sandboxes(self, before: float) -> Sequence[SandboxRow]:
        return await self._read(lambda tx: departures.due(tx, before))

    async def new_reset(
        self,
        message_key: str,
        sandbox: SandboxRow,
        thread: ThreadKey,
        told: Sequence[str],
        deadline: float,
    ) -> Reset:
        return await self._write(
            lambda tx: sandboxes.new_reset(tx, message_key, sandbox, thread, told, deadline)
        )

    async def reset(self, number: int) -> Reset | None:
        return await self._read(lambda tx: sandboxes.reset(tx, number))

    # trail

    async def audit(self, actor: str, action: str, target: str, detail: str) -> None:
        await self._write(lambda tx: audit.add(tx, actor, action, target, detail))
