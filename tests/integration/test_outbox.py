"""The outbox's loop: what is said, when it cannot be said now, and when the store is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bot.models import MessageRef, Saying, SayingKind, ThreadKey
from bot.outbox import Outbox
from bot.timeline import Timeline
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.fakes import FakeClock
from tests.moody import MoodyStore, moody
from tests.world import MemorySurface

STARTED = FakeClock().now()
SLACK = ThreadKey("slack", "T1/C1", "t1")


async def no_picture(turn: int) -> tuple[MessageRef | None, Timeline]:
    return None, Timeline(turn)


class Desk:
    """An outbox at work over a real store that can be away."""

    def __init__(self, store: SqliteStore, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock
        self.slack = MemorySurface()
        self.moods: MoodyStore
        self.moods, seen = moody(store)
        self.surfaces = {"slack": self.slack}
        self.outbox = Outbox(seen, self.surfaces, clock, no_picture)

    async def say(self, key: str, thread: ThreadKey = SLACK) -> None:
        await self.store.say(Saying(key, SayingKind.NOTE, thread, text=key))

    async def until(self, true: Callable[[], Awaitable[bool] | bool], pace: float = 1.0) -> None:
        """Wait for something, while the clock goes on."""
        async with asyncio.timeout(20):
            while True:
                answer = true()
                if await answer if isinstance(answer, Awaitable) else answer:
                    return
                self.clock.advance(pace)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = FakeClock()
    store = await SqliteStore.open(tmp_path, clock, QueueDispatcher())
    it = Desk(store, clock)
    running = asyncio.create_task(it.outbox.run())
    try:
        yield it
        assert not running.done(), "the outbox has given up"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()


async def test_a_store_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.moods.away = {"*"}
        await it.say("hello")
        await it.until(lambda: it.moods.refused.count("due") > 2)
        it.moods.away = set()
        await it.until(lambda: it.slack.notes() == ["hello"])


async def test_a_saying_that_cannot_be_put_off_while_the_store_is_away_is_said_later(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.slack.busy = 1
        it.moods.away = {"postpone"}
        await it.say("hello")
        await it.until(lambda: "postpone" in it.moods.refused)
        it.moods.away = set()
        await it.until(lambda: it.slack.notes() == ["hello"])


async def test_what_is_to_be_said_on_a_surface_that_is_not_set_up_waits_until_it_is(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        del it.surfaces["slack"]
        await it.say("hello")
        await it.until(lambda: it.clock.now() > STARTED + 3600, pace=20.0)
        it.surfaces["slack"] = it.slack
        await it.until(lambda: it.slack.notes() == ["hello"], pace=20.0)
