"""Being alone with a sandbox, or with its making: one bot of many, until it is done or dies."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from bot.models import SandboxKey
from tests.contracts.store.stage import Stage

ANNS = SandboxKey("here", "slack:T1", 1, "local")


async def test_one_of_many_holds_a_sandbox(stage: Stage) -> None:
    bots = [f"bot {number}" for number in range(20)]
    held = await asyncio.gather(*(stage.store.hold_sandbox(ANNS, bot, 60.0) for bot in bots))
    assert held.count(True) == 1


async def test_another_key_is_another_sandbox(stage: Stage) -> None:
    assert await stage.store.hold_sandbox(ANNS, "one", 60.0)
    others = (
        replace(ANNS, installation="there"),
        replace(ANNS, tenant="slack:T2"),
        replace(ANNS, person=2),
        replace(ANNS, provider="docker"),
    )
    for other in others:
        assert await stage.store.hold_sandbox(other, "two", 60.0)


async def test_who_holds_it_may_hold_it_longer(stage: Stage) -> None:
    assert await stage.store.hold_sandbox(ANNS, "one", 60.0)
    stage.clock.advance(50)
    assert await stage.store.hold_sandbox(ANNS, "one", 60.0)
    stage.clock.advance(50)
    assert not await stage.store.hold_sandbox(ANNS, "two", 60.0)


async def test_the_hold_of_a_bot_that_died_ends_by_itself(stage: Stage) -> None:
    assert await stage.store.hold_sandbox(ANNS, "one", 60.0)
    stage.clock.advance(60)
    assert await stage.store.hold_sandbox(ANNS, "two", 60.0)
    assert not await stage.store.hold_sandbox(ANNS, "one", 60.0)


async def test_only_who_holds_it_can_release_it(stage: Stage) -> None:
    assert await stage.store.hold_sandbox(ANNS, "one", 60.0)
    await stage.store.release_sandbox(ANNS, "two")
    assert not await stage.store.hold_sandbox(ANNS, "two", 60.0)
    await stage.store.release_sandbox(ANNS, "one")
    await stage.store.release_sandbox(ANNS, "one")
    assert await stage.store.hold_sandbox(ANNS, "two", 60.0)


async def test_a_hold_outlives_the_connection_and_ends_when_a_bot_takes_over(stage: Stage) -> None:
    assert await stage.store.hold_sandbox(ANNS, "one", 60.0)
    await stage.reopen()
    assert not await stage.store.hold_sandbox(ANNS, "two", 60.0)
    await stage.store.boot("two")
    assert await stage.store.hold_sandbox(ANNS, "two", 60.0)
