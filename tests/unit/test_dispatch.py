"""The dispatcher of one process: turns side by side, the same turn never twice at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from storage.dispatch import QueueDispatcher


@asynccontextmanager
async def dispatching(
    dispatcher: QueueDispatcher, handler: Callable[[int], Awaitable[None]]
) -> AsyncIterator[None]:
    running = asyncio.create_task(dispatcher.run(handler))
    try:
        async with asyncio.timeout(10):
            yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Drivers:
    """A handler that holds each turn until it is let go, and counts."""

    def __init__(self) -> None:
        self.at_once: Counter[int] = Counter()
        self.driven: Counter[int] = Counter()
        self._changed = asyncio.Condition()
        self._free: set[int] = set()

    async def drive(self, turn: int) -> None:
        self.at_once[turn] += 1
        assert self.at_once[turn] == 1
        try:
            await self._tell()
            async with self._changed:
                await self._changed.wait_for(lambda: turn in self._free)
        finally:
            self.at_once[turn] -= 1
        self._free.discard(turn)
        self.driven[turn] += 1
        await self._tell()

    async def let_go(self, turn: int) -> None:
        self._free.add(turn)
        await self._tell()

    async def until(self, true: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(true)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def test_turns_are_driven_side_by_side() -> None:
    drivers, dispatcher = Drivers(), QueueDispatcher()
    dispatcher.wake(1)
    async with dispatching(dispatcher, drivers.drive):
        dispatcher.wake(2)
        await drivers.until(lambda: drivers.at_once == {1: 1, 2: 1})


async def test_a_wake_before_the_turn_is_taken_up_counts_once() -> None:
    drivers, dispatcher = Drivers(), QueueDispatcher()
    for _ in range(3):
        dispatcher.wake(1)
    dispatcher.wake(2)
    async with dispatching(dispatcher, drivers.drive):
        await drivers.let_go(1)
        await drivers.until(lambda: drivers.driven[1] == 1 and drivers.at_once[2] == 1)
        await drivers.let_go(2)
        await drivers.until(lambda: drivers.driven[2] == 1)
        assert drivers.driven == {1: 1, 2: 1} and drivers.at_once[1] == 0


async def test_a_wake_during_a_run_makes_it_run_again_after() -> None:
    drivers, dispatcher = Drivers(), QueueDispatcher()
    async with dispatching(dispatcher, drivers.drive):
        dispatcher.wake(1)
        await drivers.until(lambda: drivers.at_once[1] == 1)
        dispatcher.wake(1)
        dispatcher.wake(1)
        await drivers.let_go(1)
        await drivers.until(lambda: drivers.driven[1] == 1 and drivers.at_once[1] == 1)
        await drivers.let_go(1)
        await drivers.until(lambda: drivers.driven[1] == 2 and drivers.at_once[1] == 0)
        dispatcher.wake(1)
        await drivers.until(lambda: drivers.at_once[1] == 1)


async def test_a_driver_that_crashes_is_called_again_and_hurts_nobody() -> None:
    calls: Counter[int] = Counter()
    done = asyncio.Event()

    async def crashes_twice(turn: int) -> None:
        calls[turn] += 1
        if turn == 1 and calls[turn] < 3:
            raise RuntimeError("a bug")
        if calls[1] == 3 and calls[2] == 1:
            done.set()

    dispatcher = QueueDispatcher(retry_after=0.001)
    async with dispatching(dispatcher, crashes_twice):
        dispatcher.wake(1)
        dispatcher.wake(2)
        await done.wait()


async def test_cancelling_ends_all_drivers() -> None:
    drivers, dispatcher = Drivers(), QueueDispatcher()
    async with dispatching(dispatcher, drivers.drive):
        dispatcher.wake(1)
        await drivers.until(lambda: drivers.at_once[1] == 1)
    assert drivers.at_once[1] == 0 and drivers.driven[1] == 0
