"""Caps: how many turns may be past `queued` at once, who waits, and who is woken next."""

from __future__ import annotations

import asyncio

from bot.models import Caps, Claim, Outcome, TurnState, Waiting
from tests.contracts.store.stage import ANN, BOB, ZOE, Stage

ONE = Caps(total=1)


async def queued(stage: Stage, *sessions: str) -> list[int]:
    turns = [(await stage.start(id)).turn for id in sessions]
    stage.woken.taken()
    return [turn for turn in turns if turn is not None]


async def test_a_turn_over_the_cap_waits_in_its_place(stage: Stage) -> None:
    first, second, third, fourth = await queued(stage, "s1", "s2", "s3", "s4")
    await stage.claim(first, ONE)
    assert await stage.waiting(second, ONE) == Waiting(place=1, cap="total")
    assert await stage.waiting(fourth, ONE) == Waiting(place=3, cap="total")
    assert await stage.waiting(third, ONE) == Waiting(place=2, cap="total")
    assert (await stage.store.turn(second)).state is TurnState.QUEUED


async def test_each_cap_counts_its_own(stage: Stage) -> None:
    anns = (await stage.start("s1", by=ANN)).turn
    anns_second = (await stage.start("s2", by=ANN)).turn
    bobs = (await stage.start("s3", by=BOB)).turn
    zoes = (await stage.start("s4", by=ZOE)).turn
    assert anns and anns_second and bobs and zoes
    caps = Caps(total=3, tenant=2, person=1)
    await stage.claim(anns, caps)
    assert await stage.waiting(anns_second, caps) == Waiting(1, "person")
    await stage.claim(bobs, caps)
    assert await stage.waiting(anns_second, Caps(total=3, tenant=2)) == Waiting(1, "tenant")
    await stage.claim(zoes, caps)
    assert await stage.waiting(anns_second, Caps(total=3)) == Waiting(1, "total")


async def test_places_are_counted_among_those_the_cap_is_about(stage: Stage) -> None:
    first = (await stage.start("s1", by=ANN)).turn
    await stage.start("s2", by=BOB)
    await stage.start("s3", by=ANN)
    last = (await stage.start("s4", by=ANN)).turn
    assert first and last
    await stage.claim(first)
    assert await stage.waiting(last, Caps(person=1)) == Waiting(2, "person")


async def test_a_turn_that_has_started_is_never_refused(stage: Stage) -> None:
    first, second = await queued(stage, "s1", "s2")
    await stage.claim(first)
    await stage.claim(second)
    stage.clock.advance(1000)
    assert (await stage.claim(first, ONE, owner="elsewhere")).turn.state is TurnState.PREPARING


async def test_a_stopped_turn_need_not_wait_for_a_place_to_end(stage: Stage) -> None:
    first, second = await queued(stage, "s1", "s2")
    await stage.claim(first, ONE)
    await stage.waiting(second, ONE)
    await stage.store.request_stop("m", "s2", "Ann")
    assert stage.woken.taken() == [second]
    claim = await stage.claim(second, ONE)
    assert claim.turn.stop_by == "Ann"


async def test_whoever_ends_wakes_the_oldest_that_waits(stage: Stage) -> None:
    first, second, third = await queued(stage, "s1", "s2", "s3")
    claim = await stage.claim(first, ONE)
    await stage.waiting(third, ONE)
    await stage.waiting(second, ONE)
    await stage.finish(claim, TurnState.FAILED, outcome=Outcome.FAILED)
    assert stage.woken.taken() == [second, third], "the third shows that it is nearer"
    await stage.claim(second, ONE)
    assert await stage.waiting(third, ONE) == Waiting(1, "total")


async def test_who_cannot_start_yet_is_passed_over(stage: Stage) -> None:
    caps = Caps(total=2, person=1)
    anns = (await stage.start("s1", by=ANN)).turn
    anns_second = (await stage.start("s2", by=ANN)).turn
    bobs = (await stage.start("s3", by=BOB)).turn
    zoes = (await stage.start("s4", by=ZOE)).turn
    assert anns and anns_second and bobs and zoes
    anns_claim, bobs_claim = await stage.claim(anns, caps), await stage.claim(bobs, caps)
    await stage.waiting(anns_second, caps)
    await stage.waiting(zoes, caps)
    stage.woken.taken()

    await stage.finish(bobs_claim, TurnState.FAILED, outcome=Outcome.FAILED)
    assert stage.woken.taken() == [zoes], "Ann's second still waits for her first"
    await stage.claim(zoes, caps)
    await stage.finish(anns_claim, TurnState.FAILED, outcome=Outcome.FAILED)
    assert stage.woken.taken() == [anns_second]


async def test_who_waits_is_still_woken_after_a_restart(stage: Stage) -> None:
    first, second = await queued(stage, "s1", "s2")
    claim = await stage.claim(first, ONE)
    await stage.waiting(second, ONE)
    await stage.reopen()
    await stage.finish(claim, TurnState.FAILED, outcome=Outcome.FAILED)
    assert second in stage.woken.taken()


async def test_claims_at_once_never_exceed_the_caps(stage: Stage) -> None:
    turns = await queued(stage, *(f"s{number}" for number in range(12)))
    caps = Caps(total=4)
    answers = await asyncio.gather(*(stage.store.claim(turn, "here", 60.0, caps) for turn in turns))
    assert sum(isinstance(answer, Claim) for answer in answers) == 4
    assert await stage.store.running() == 4


async def test_turns_that_nobody_drives_are_found_again(stage: Stage) -> None:
    one = Caps(total=1)
    driven, lost, waits = [(await stage.start(f"s{n}")).turn or 0 for n in (1, 2, 3)]
    await stage.claim(driven, one)
    await stage.waiting(waits, one)
    stage.woken.taken()

    await stage.store.wake_forgotten()
    assert stage.woken.taken() == [lost], "its wake was lost; the others are driven, or have no place"

    stage.clock.advance(61)
    await stage.store.wake_forgotten()
    assert stage.woken.taken() == [driven, lost], "the lease of its driver has run out"


async def test_who_may_start_but_was_not_told_is_found_again(stage: Stage) -> None:
    one = Caps(total=1)
    first, second = [(await stage.start(f"s{n}")).turn or 0 for n in (1, 2)]
    claim = await stage.claim(first, one)
    await stage.waiting(second, one)
    await stage.consume(claim)
    await stage.finish(claim)
    stage.woken.taken()
    await stage.store.wake_forgotten()
    assert stage.woken.taken() == [second]
