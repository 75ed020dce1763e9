"""Deliveries: on disk before they are acknowledged, worked on until they have an outcome."""

from __future__ import annotations

import asyncio

from bot.models import Delivery
from tests.contracts.store.stage import Stage, delivery, slack


async def test_a_delivery_is_stored_whole(stage: Stage) -> None:
    whole = Delivery("slack", "Ev1", "event_callback", b"\x00\xff raw", 12.5, lane="T1/C1/1")
    assert await stage.store.accept(whole)
    assert await stage.store.received(10) == [whole]


async def test_the_same_delivery_is_accepted_once(stage: Stage) -> None:
    assert await stage.store.accept(delivery("Ev1"))
    assert not await stage.store.accept(delivery("Ev1"))
    assert await stage.store.accept(delivery("Ev1", surface="github"))
    assert len(await stage.store.received(10)) == 2


async def test_one_of_many_at_once_wins(stage: Stage) -> None:
    accepted = await asyncio.gather(*(stage.store.accept(delivery("Ev1")) for _ in range(20)))
    assert sorted(accepted) == [False] * 19 + [True]


async def test_deliveries_come_oldest_first_and_bounded(stage: Stage) -> None:
    for number in range(5):
        await stage.store.accept(delivery(f"Ev{number}"))
    assert [one.id for one in await stage.store.received(3)] == ["Ev0", "Ev1", "Ev2"]


async def test_a_settled_delivery_is_not_worked_on_again(stage: Stage) -> None:
    await stage.store.accept(delivery("Ev1"))
    await stage.store.settle("slack", "Ev1", "started")
    assert await stage.store.received(10) == []
    assert not await stage.store.accept(delivery("Ev1"))


async def test_accepting_rings(stage: Stage) -> None:
    watch = stage.store.watch("deliveries")
    await stage.store.accept(delivery("Ev1"))
    await asyncio.wait_for(watch.wait(3600), 5)


async def test_unsettled_deliveries_survive_a_restart(stage: Stage) -> None:
    await stage.store.accept(delivery("Ev1"))
    await stage.store.accept(delivery("Ev2"))
    await stage.store.settle("slack", "Ev1", "started")
    await stage.reopen()
    assert [one.id for one in await stage.store.received(10)] == ["Ev2"]


async def test_a_parked_reply_goes_on_when_its_thread_gets_a_session(stage: Stage) -> None:
    await stage.store.accept(delivery("Ev1"))
    await stage.store.park("slack", "Ev1", slack("s1"))
    await stage.store.accept(delivery("Ev2"))
    await stage.store.park("slack", "Ev2", slack("other"))
    assert await stage.store.received(10) == []

    watch = stage.store.watch("deliveries")
    await stage.start("s1")
    await asyncio.wait_for(watch.wait(3600), 5)
    assert [one.id for one in await stage.store.received(10)] == ["Ev1"]


async def test_an_added_alias_unparks_too(stage: Stage) -> None:
    await stage.start("s1")
    await stage.store.accept(delivery("Ev1"))
    await stage.store.park("slack", "Ev1", slack("other"))
    await stage.store.add_alias("s1", str(slack("other")))
    assert [one.id for one in await stage.store.received(10)] == ["Ev1"]


async def test_a_reply_whose_thread_got_its_session_meanwhile_is_not_parked(stage: Stage) -> None:
    await stage.store.accept(delivery("Ev1"))
    await stage.start("s1")
    watch = stage.store.watch("deliveries")
    await stage.store.park("slack", "Ev1", slack("s1"))
    await asyncio.wait_for(watch.wait(3600), 5)
    assert [one.id for one in await stage.store.received(10)] == ["Ev1"]


async def test_sweeping_forgets_replies_that_nobody_claimed(stage: Stage) -> None:
    now = stage.clock.now()
    for id, at in (("old", now - 601), ("new", now - 599)):
        await stage.store.accept(delivery(id, at=at))
        await stage.store.park("slack", id, slack("s1"))
    await stage.store.accept(delivery("unread", at=now - 10_000, lane="T1/C1/2"))

    await stage.store.sweep(now)

    await stage.start("s1")
    assert [one.id for one in await stage.store.received(10)] == ["new", "unread"]


async def test_a_reply_is_kept_as_long_as_its_root_waits(stage: Stage) -> None:
    now = stage.clock.now()
    await stage.store.accept(delivery("reply", at=now - 5000))
    await stage.store.park("slack", "reply", slack("s1"))
    await stage.store.accept(delivery("root", at=now - 4999))
    await stage.store.sweep(now)
    await stage.start("s1")
    assert [one.id for one in await stage.store.received(10)] == ["reply", "root"]


async def test_sweeping_forgets_settled_deliveries_after_their_retention(stage: Stage) -> None:
    await stage.store.accept(delivery("Ev1"))
    await stage.store.settle("slack", "Ev1", "started")
    stage.clock.advance(86400)
    await stage.store.sweep(stage.clock.now())
    assert not await stage.store.accept(delivery("Ev1"))
    stage.clock.advance(30 * 86400)
    await stage.store.sweep(stage.clock.now())
    assert await stage.store.accept(delivery("Ev1"))
