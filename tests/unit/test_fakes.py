"""The fake clock keeps its promise: nothing happens until time passes."""

from __future__ import annotations

import asyncio

from tests.fakes import FakeClock


async def test_sleepers_wake_in_order_when_time_has_passed() -> None:
    clock = FakeClock(100.0)
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(f"{name}@{clock.now():g}")

    sleepers = [asyncio.create_task(sleeper(name, after)) for name, after in (("b", 5), ("a", 2), ("z", 0))]
    await asyncio.sleep(0.01)
    assert woken == ["z@100"]
    clock.advance(5)
    await asyncio.gather(*sleepers)
    assert woken == ["z@100", "a@105", "b@105"]


async def test_a_cancelled_sleeper_is_no_trouble() -> None:
    clock = FakeClock()
    sleeper = asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    sleeper.cancel()
    await asyncio.gather(sleeper, return_exceptions=True)
    clock.advance(10)
