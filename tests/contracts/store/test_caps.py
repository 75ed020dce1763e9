"""Caps: how many turns may be past `queued` at once, who waits, and who is woken next."""

from __future__ import annotations

import asyncio

from bot.models import Caps, Claim, Identity, Outcome, TurnState, Waiting
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


async def test_sandboxes_are_counted_by_the_people_of_a_tenant(stage: Stage) -> None:
    anns, anns_second = [(await stage.start(id, by=ANN)).turn or 0 for id in ("s1", "s2")]
    bobs, zoes = [(await stage.start(id, by=by)).turn or 0 for id, by in (("s3", BOB), ("s4", ZOE))]
    caps = Caps(sandboxes=1)
    await stage.claim(anns, caps)
    await stage.claim(anns_second, caps)
    assert await stage.waiting(bobs, caps) == Waiting(1, "sandboxes"), "Ann's sandbox runs"
    await stage.claim(zoes, caps)


async def test_who_waits_for_a_sandbox_is_not_passed_by_who_has_one(stage: Stage) -> None:
    caps = Caps(sandboxes=1)
    anns = await stage.claim((await stage.start("s1", by=ANN)).turn or 0, caps)
    bobs = (await stage.start("s2", by=BOB)).turn or 0
    assert await stage.waiting(bobs, caps) == Waiting(1, "sandboxes")
    anns_second = (await stage.start("s3", by=ANN)).turn or 0
    assert await stage.waiting(anns_second, caps) == Waiting(2, "sandboxes")
    stage.woken.taken()

    await stage.consume(anns)
    await stage.finish(anns)
    assert stage.woken.taken() == [bobs, anns_second]
    assert await stage.waiting(anns_second, caps) == Waiting(2, "sandboxes"), "though she asked first"
    bobs_claim = await stage.claim(bobs, caps)
    assert await stage.waiting(anns_second, caps) == Waiting(1, "sandboxes")
    stage.woken.taken()
    await stage.consume(bobs_claim)
    await stage.finish(bobs_claim)
    assert stage.woken.taken() == [anns_second]
    await stage.claim(anns_second, caps)


async def test_who_gives_up_waiting_for_a_sandbox_holds_nobody_up(stage: Stage) -> None:
    caps = Caps(sandboxes=1)
    await stage.claim((await stage.start("s1", by=ANN)).turn or 0, caps)
    bobs = (await stage.start("s2", by=BOB)).turn or 0
    await stage.waiting(bobs, caps)
    anns_second = (await stage.start("s3", by=ANN)).turn or 0
    await stage.waiting(anns_second, caps)
    await stage.store.request_stop("m", "s2", "Bob")
    stage.woken.taken()
    claim = await stage.claim(bobs, caps)
    await stage.finish(claim, TurnState.STOPPED, outcome=Outcome.STOPPED)
    assert anns_second in stage.woken.taken()
    await stage.claim(anns_second, caps)


async def test_waiting_for_a_sandbox_outlives_a_restart(stage: Stage) -> None:
    caps = Caps(sandboxes=1)
    anns = await stage.claim((await stage.start("s1", by=ANN)).turn or 0, caps)
    bobs = (await stage.start("s2", by=BOB)).turn or 0
    await stage.waiting(bobs, caps)
    await stage.reopen()
    stage.woken.taken()
    follow_up = await stage.finish(anns)  # she had written more
    assert follow_up and stage.woken.taken() == [follow_up, bobs]
    assert await stage.waiting(follow_up, caps) == Waiting(2, "sandboxes")
    await stage.claim(bobs, caps)


async def test_claims_at_once_never_exceed_the_sandboxes(stage: Stage) -> None:
    owners = [Identity("slack", "slack:T1", f"U_{number}", f"P{number}") for number in range(8)]
    turns = [(await stage.start(f"s{n}", by=by)).turn or 0 for n, by in enumerate(owners)]
    caps = Caps(sandboxes=3)
    answers = await asyncio.gather(*(stage.store.claim(turn, "here", 60.0, caps) for turn in turns))
    assert sum(isinstance(answer, Claim) for answer in answers) == 3


async def test_a_stopped_turn_that_only_has_to_end_gives_nobody_a_sandbox(stage: Stage) -> None:
    caps = Caps(sandboxes=1)
    await stage.claim((await stage.start("s1", by=ANN)).turn or 0, caps)
    bobs, bobs_second = [(await stage.start(id, by=BOB)).turn or 0 for id in ("s2", "s3")]
    await stage.waiting(bobs, caps)
    await stage.store.request_stop("m", "s2", "Bob")
    await stage.claim(bobs, caps)
    assert await stage.waiting(bobs_second, caps) == Waiting(1, "sandboxes")


async def test_a_stopped_turn_that_waits_takes_no_place_from_the_next(stage: Stage) -> None:
    caps = Caps(total=1, person=1)
    anns = await stage.claim((await stage.start("s1", by=ANN)).turn or 0, caps)
    bobs, bobs_second = [(await stage.start(id, by=BOB)).turn or 0 for id in ("s2", "s3")]
    await stage.waiting(bobs, caps)
    await stage.waiting(bobs_second, caps)
    await stage.store.request_stop("m", "s2", "Bob")
    stage.woken.taken()
    await stage.finish(anns, TurnState.FAILED, outcome=Outcome.FAILED)
    assert stage.woken.taken() == [bobs_second], "the other has been woken to end"
    await stage.claim(bobs_second, caps)
