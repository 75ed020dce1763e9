"""A store with people, threads and a clock around it, in the words of those who use it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from bot.models import (
    Admitted,
    Caps,
    Claim,
    Delivery,
    Fate,
    Final,
    Identity,
    Input,
    MessageRef,
    Mode,
    NewInput,
    NewSession,
    Outcome,
    PullRequest,
    Record,
    Repository,
    Saying,
    SayingKind,
    ThreadKey,
    TurnState,
    Waiting,
)
from bot.ports import Clock, Dispatcher, Store
from tests.fakes import FakeClock

ANN = Identity("slack", "slack:T1", "U_ANN", "Ann")
BOB = Identity("slack", "slack:T1", "U_BOB", "Bob")
ZOE = Identity("slack", "slack:T2", "U_ZOE", "Zoe")
OCTO = Identity("github", "github:7", "octo", "Octo Cat")
WEB = Repository(1, "acme/web", "main", False, 7)
API = Repository(2, "acme/api", "main", True, 7)
NO_CAPS = Caps()
PR = PullRequest(5, "https://github.test/acme/web/pull/5", "Fix", "sandpiper/1", "main", "acme/web")


class ClosableStore(Store, Protocol):
    async def close(self) -> None: ...


Opening = Callable[[Path, Clock, Dispatcher], Awaitable[ClosableStore]]


class Woken:
    """A dispatcher that only remembers whom it was told to wake."""

    def __init__(self) -> None:
        self._turns: list[int] = []

    def wake(self, turn: int) -> None:
        self._turns.append(turn)

    async def run(self, handler: Callable[[int], Awaitable[None]]) -> None:
        await asyncio.Event().wait()

    def taken(self) -> list[int]:
        """Who was woken since the last look."""
        turns, self._turns = self._turns, []
        return turns


def slack(name: str = "1") -> ThreadKey:
    return ThreadKey("slack", "T1/C1", name)


def issue(number: int) -> ThreadKey:
    return ThreadKey("github", str(WEB.id), str(number))


def delivery(
    id: str = "Ev1", surface: str = "slack", body: bytes = b"{}", at: float = 0.0, lane: str = "T1/C1/1"
) -> Delivery:
    return Delivery(surface, id, "message", body, at, lane)


def note(key: str, thread: ThreadKey | None = None, text: str = "hello") -> Saying:
    return Saying(key, SayingKind.NOTE, thread or slack(), text=text)


class Stage:
    """Opens the store, and drives it through the everyday parts of a story."""

    store: ClosableStore

    def __init__(self, directory: Path, opening: Opening) -> None:
        self.clock = FakeClock()
        self.woken = Woken()
        self._directory = directory
        self._opening = opening
        self._numbers = itertools.count(1)

    async def open(self) -> None:
        self.store = await self._opening(self._directory, self.clock, self.woken)

    async def reopen(self) -> None:
        await self.store.close()
        await self.open()

    # people write

    def words(
        self,
        text: str = "do it",
        *,
        by: Identity = ANN,
        mode: Mode = Mode.STEER,
        key: str = "",
        sent: str = "",
        ref: bool = True,
    ) -> NewInput:
        number = next(self._numbers)
        sent = sent or f"{number:06}"
        where = MessageRef(by.surface, "C1", sent) if ref else None
        return NewInput(key or f"message-{number}", by, sent, text, where, mode=mode)

    async def session(
        self,
        id: str = "s1",
        *,
        by: Identity = ANN,
        thread: ThreadKey | None = None,
        repository: Repository | None = WEB,
    ) -> NewSession:
        owner = await self.store.person(by)
        return NewSession(id, by.tenant, owner.id, thread or slack(), repository, "claude", title="A title")

    async def start(
        self,
        id: str = "s1",
        text: str = "do it",
        *,
        by: Identity = ANN,
        thread: ThreadKey | None = None,
        repository: Repository | None = WEB,
    ) -> Admitted:
        """Somebody mentions us in a new thread."""
        new = await self.session(id, by=by, thread=thread or slack(id), repository=repository)
        return await self.store.admit(new, self.words(text, by=by), new.thread)

    async def reply(
        self,
        text: str,
        session: str = "s1",
        *,
        mode: Mode = Mode.STEER,
        by: Identity = ANN,
        thread: ThreadKey | None = None,
    ) -> Admitted:
        return await self.store.admit(session, self.words(text, by=by, mode=mode), thread or slack(session))

    # a turn goes on

    async def claim(self, turn: int, caps: Caps = NO_CAPS, owner: str = "here") -> Claim:
        claim = await self.store.claim(turn, owner, 60.0, caps)
        assert isinstance(claim, Claim), claim
        return claim

    async def waiting(self, turn: int, caps: Caps) -> Waiting:
        claim = await self.store.claim(turn, "here", 60.0, caps)
        assert isinstance(claim, Waiting), claim
        return claim

    async def run(self, turn: int) -> Claim:
        """Claimed, its prompt consumed, running."""
        claim = await self.claim(turn)
        await self.consume(claim)
        await self.store.advance(turn, claim.fence, TurnState.RUNNING)
        return claim

    async def consume(self, claim: Claim) -> None:
        pending = tuple(one.id for one in (await self.store.inbox(claim.turn.id)).inputs)
        await self.store.record(claim.turn.id, claim.fence, Record(written=pending))
        await self.store.record(claim.turn.id, claim.fence, Record(consumed=pending))

    async def running(self, id: str = "s1") -> Claim:
        """A new session whose first turn runs."""
        admitted = await self.start(id)
        assert admitted.turn is not None
        return await self.run(admitted.turn)

    async def finish(
        self,
        claim: Claim,
        state: TurnState = TurnState.DONE,
        *,
        outcome: Outcome = Outcome.ANSWERED,
        pull_request: PullRequest | None = None,
    ) -> int | None:
        final = Final(outcome, "That is all.", pull_request=pull_request)
        await self.store.close_intake(claim.turn.id, claim.fence)
        return await self.store.finish(claim.turn.id, claim.fence, state, final)

    # looking

    async def said(self) -> list[Saying]:
        """Say everything that is in the outbox, in the order of the lanes."""
        said: list[Saying] = []
        while items := await self.store.due(self.clock.now(), 100):
            for item in items:
                await self.store.sending(item.id)
                await self.store.sent(item.id, MessageRef("slack", "C1", f"post-{item.id}"))
                said.append(item.saying)
        return said

    async def texts(self, turn: int) -> list[str]:
        return [one.text for one in await self.store.prompt_inputs(turn)]

    async def fates(self, turn: int) -> list[Fate]:
        return [one.fate for one in await self.store.prompt_inputs(turn)]

    async def pending(self, turn: int) -> tuple[Input, ...]:
        return (await self.store.inbox(turn)).inputs
