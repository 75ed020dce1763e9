"""A driver's hold on one turn: its newest state, its picture, its deadlines and its stop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bot.errors import DeadlinePassed, DiskFull, SandpiperError
from bot.events import (
    AgentStarted,
    ApprovalAsked,
    BrokenOff,
    Completed,
    Consumed,
    Event,
    FileOffered,
    LeftOver,
    Named,
    Notice,
    Phase,
    PortOffered,
    Question,
    Settled,
    Shared,
    Steered,
    Usage,
    Withdrawn,
)
from bot.models import Claim, Record
from bot.ports import Clock, Store
from bot.redraw import Redraw
from bot.timeline import Timeline, weight_of

T = TypeVar("T")

POLL = 5.0
MOST_KEPT = 16_000_000  # characters of a turn's events in the store; ten thousand tool calls take half of it
ALWAYS_KEPT = (
    AgentStarted,
    ApprovalAsked,
    BrokenOff,
    Completed,
    Consumed,
    FileOffered,
    LeftOver,
    Named,
    Phase,
    PortOffered,
    Question,
    Settled,
    Shared,
    Steered,
    Withdrawn,
)
TOO_MUCH = "From here on, the agent's steps are shown but not kept: they are too many."
NO_END = 7 * 86400.0  # seconds, for what needs an end but has no deadline
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a turn's phases may take; 0: no deadline. `interrupt` is how long an agent may
    take to obey Stop before its process is killed, `approval` how long people have to answer it."""

    prepare: float = 600.0
    silence: float = 1800.0
    turn: float = 0.0
    publish: float = 300.0
    interrupt: float = 10.0
    unreachable: float = 900.0
    approval: float = 3600.0

    @property
    def away(self) -> float:
        """How long a provider that is away is waited for at a turn's start: so long that the last word is
        its own, and not that a deadline passed."""
        return min(self.unreachable, 0.9 * self.prepare) if self.prepare else self.unreachable

    @property
    def git(self) -> float:
        """How long one git command may take: none is ended before the phase that it belongs to."""
        if not (self.prepare and self.publish):
            return NO_END
        return max(self.prepare, self.publish)


class TurnStopped(SandpiperError):
    """Somebody asked for a stop. Not an error, but it ends every phase like one."""

    def __init__(self, by: str) -> None:
        super().__init__(f"Stopped by {by}.")
        self.by = by


class Driver:
    """What the one who drives a turn holds. All its writes carry the claim's fence."""

    def __init__(self, claim: Claim, store: Store, clock: Clock, redraw: Redraw, timeline: Timeline) -> None:
        self.turn = claim.turn
        self.session = claim.session
        self.fence = claim.fence
        self.timeline = timeline
        self.store = store
        self.clock = clock
        self._redraw = redraw
        self._kept = timeline.weight
        self.refusals: set[str] = set()  # told already, of hosts that the egress rules refused

    async def record(self, record: Record) -> None:
        """Write a step and draw what it changed."""
        kept = replace(record, events=self._worth_keeping(record.events))
        self.turn = await self.store.record(self.turn.id, self.fence, kept)
        if record.events:
            self.timeline = self.timeline.apply(record.events)
            self._redraw.show(self.timeline)

    def _worth_keeping(self, events: Sequence[Event]) -> tuple[Event, ...]:
        """Of an agent that says too much, only what the turn depends on: else it could fill our disk."""
        kept: list[Event] = []
        for event in events:
            before, most = self._kept, MOST_KEPT * (2 if isinstance(event, Usage) else 1)
            if before < most or isinstance(event, ALWAYS_KEPT):
                kept.append(event)
                self._kept += weight_of(event)
                if before < MOST_KEPT <= self._kept:
                    kept.append(Notice(TOO_MUCH))
        return tuple(kept)

    async def end_drawing(self) -> None:
        await self._redraw.end()

    async def tell(self, *events: Event) -> None:
        await self.record(Record(events=events))

    async def phase(self, name: str, text: str) -> None:
        await self.tell(Phase(name, text))

    async def notice(self, text: str) -> None:
        if text:
            await self.tell(Notice(text))

    def untold(self, texts: Iterable[str]) -> tuple[Notice, ...]:
        """Those that this turn's picture does not have yet, as of an attempt before."""
        told = {row.title for row in self.timeline.rows}
        return tuple(Notice(text) for text in texts if text not in told)

    async def within(
        self, phase: str, seconds: float, work: Coroutine[Any, Any, T], *, stoppable: bool = True
    ) -> T:
        """Do the work, unless a stop or the phase's deadline comes first.

        Raises TurnStopped, DeadlinePassed, and what the work raises: a full disk as DiskFull.
        """
        task = asyncio.ensure_future(work)
        waiting: set[asyncio.Future[Any]] = {task}
        stop = asyncio.ensure_future(self._stop_asked() if stoppable else asyncio.Event().wait())
        waiting.add(stop)
        if seconds > 0:
            waiting.add(asyncio.ensure_future(self.clock.sleep(seconds)))
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if task in done:
                return task.result()
            if stop in done:
                raise TurnStopped(str(stop.result()))
            raise DeadlinePassed(phase, seconds)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull from error
            raise
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _stop_asked(self) -> str:
        watch = self.store.watch(f"turn:{self.turn.id}")
        while True:
            inbox = await self.store.inbox(self.turn.id)
            if inbox.stop_by:
                return inbox.stop_by
            await watch.wait(POLL)
