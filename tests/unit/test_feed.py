"""How a process is read whose sandbox is away, or answers in a way that nobody expected."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bot.driver import Deadlines
from bot.errors import SandboxUnreachable
from bot.feed import Broke, Feed, Lost
from bot.models import Chunk
from bot.ports import Process
from tests.fakes import FakeClock
from tests.world import ScriptedProcess


class Never:
    """A watch that never rings (bot.ports.Watch)."""

    async def wait(self, timeout: float) -> None:
        await asyncio.Event().wait()


class Busy(ScriptedProcess):
    """Its provider wants no further call before so many seconds."""

    asked = 0
    seconds = 120.0

    async def read(self, fd: int, offset: int, *, ack: int, wait: float, limit: int = 1 << 18) -> Chunk:
        self.asked += 1
        raise SandboxUnreachable("too many calls", retry_after=self.seconds)


def feed_of(process: Process, clock: FakeClock) -> Feed:
    deadlines = Deadlines(unreachable=900.0)
    return Feed(process, Never(), clock, deadlines, offsets=(0, 0), started_at=clock.now())


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_provider_is_asked_no_sooner_than_it_wants(tmp_path: Path) -> None:
    process, clock = Busy("key", tmp_path), FakeClock()
    async with feed_of(process, clock):
        await settled()
        assert process.asked == 2  # for what it says and for what it complains of
        clock.advance(119.0)
        await settled()
        assert process.asked == 2
        clock.advance(1.0)
        await settled()
        assert process.asked == 4


async def test_one_that_may_not_be_asked_again_in_time_is_lost_at_the_deadline(tmp_path: Path) -> None:
    process, clock = Busy("key", tmp_path), FakeClock()
    process.seconds = 3600.0
    async with feed_of(process, clock) as feed:
        await settled()
        clock.advance(900.0)
        async for item in feed.items():
            if isinstance(item, Lost):
                break
        assert process.asked == 2


class Odd(ScriptedProcess):
    """Of one of its outputs nothing comes but a mistake."""

    odd = 1

    async def read(self, fd: int, offset: int, *, ack: int, wait: float, limit: int = 1 << 18) -> Chunk:
        if fd == self.odd:
            raise TypeError("nobody expected this")
        return await super().read(fd, offset, ack=ack, wait=wait, limit=limit)


@pytest.mark.parametrize("fd", [1, 2])
async def test_a_mistake_in_reading_an_output_reaches_the_driver(tmp_path: Path, fd: int) -> None:
    process, clock = Odd("key", tmp_path), FakeClock()
    process.odd = fd
    async with feed_of(process, clock) as feed, asyncio.timeout(10):
        errors = (item.error async for item in feed.items() if isinstance(item, Broke))
        error = await anext(errors)
    assert str(error) == "nobody expected this" and error.__traceback__ is not None
