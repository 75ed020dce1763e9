"""Bells wake whoever waits for a topic, and remember a ring that nobody waited for."""

from __future__ import annotations

import asyncio
import gc
import weakref

from storage.bells import Bells
from tests.fakes import FakeClock


async def settled(task: asyncio.Task[None]) -> bool:
    """Whether the task ends by itself, without anything else happening."""
    for _ in range(10):
        await asyncio.sleep(0)
    return task.done()


async def test_a_ring_wakes_who_waits_for_the_topic() -> None:
    bells = Bells(FakeClock())
    here, elsewhere = bells.watch("outbox"), bells.watch("turn:1")
    waiting = [asyncio.create_task(bell.wait(60)) for bell in (here, elsewhere)]
    await asyncio.sleep(0)
    bells.ring("outbox")
    assert [await settled(task) for task in waiting] == [True, False]
    bells.ring("turn:1")
    assert await settled(waiting[1])


async def test_a_ring_between_two_waits_is_not_lost() -> None:
    bells = Bells(FakeClock())
    bell = bells.watch("outbox")
    bells.ring("outbox")
    bells.ring("outbox")
    await asyncio.wait_for(bell.wait(60), 5)
    again = asyncio.create_task(bell.wait(60))
    assert not await settled(again)
    bells.ring("outbox")
    assert await settled(again)


async def test_a_wait_ends_when_its_time_is_over() -> None:
    clock = FakeClock()
    waiting = asyncio.create_task(Bells(clock).watch("outbox").wait(60))
    assert not await settled(waiting)
    clock.advance(59)
    assert not await settled(waiting)
    clock.advance(1)
    assert await settled(waiting)


async def test_a_bell_that_nobody_holds_is_forgotten() -> None:
    bells = Bells(FakeClock())
    bell = bells.watch("turn:1")
    forgotten = weakref.ref(bell)
    del bell
    gc.collect()
    bells.ring("turn:1")
    assert forgotten() is None


async def test_a_cancelled_wait_leaves_the_bell_in_order() -> None:
    bells = Bells(FakeClock())
    bell = bells.watch("outbox")
    waiting = asyncio.create_task(bell.wait(60))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    bells.ring("outbox")
    await asyncio.wait_for(bell.wait(60), 5)
