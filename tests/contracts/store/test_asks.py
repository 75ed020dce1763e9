"""What agents ask people: settled once, by whoever comes first, and never left open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot.errors import LeaseLost
from bot.models import (
    AskKind,
    AskOutcome,
    AskState,
    Claim,
    Mark,
    MessageRef,
    NewAsk,
    Record,
    SayingKind,
    TurnState,
)
from tests.contracts.store.stage import ANN, BOB, Stage

APPROVAL = NewAsk("tool-1", AskKind.APPROVAL, "Run rm", "rm -rf build", (), deadline=10_000_000_000.0)
QUESTION = NewAsk("q-1", AskKind.QUESTION, "Which?", "", ("Red", "Blue"), deadline=10_000_000_000.0)


async def ask(stage: Stage, claim: Claim, *asks: NewAsk) -> None:
    await stage.store.record(claim.turn.id, claim.fence, Record(asked=asks))


async def test_what_is_asked_is_said_in_the_turns_thread_and_calls_who_opened_it(stage: Stage) -> None:
    claim = await stage.running("s1")
    await ask(stage, claim, APPROVAL, QUESTION)
    await ask(stage, claim, APPROVAL)  # the same again
    first, second = await stage.store.open_asks("s1")
    assert (first.title, first.detail, first.asked) == ("Run rm", "rm -rf build", ANN)
    assert second.options == ("Red", "Blue")
    said = [one for one in await stage.said() if one.kind is SayingKind.ASK]
    assert [one.ask for one in said] == [first, second]
    assert {(one.thread, one.mention) for one in said} == {(claim.turn.thread, ANN.user)}


async def test_what_is_asked_anew_under_a_name_that_was_answered_is_another_thing(stage: Stage) -> None:
    """An item of an agent can ask more than once: the yes to the first is none to the second."""
    claim = await stage.running("s1")
    await ask(stage, claim, APPROVAL)
    (first,) = await stage.store.open_asks("s1")
    await stage.store.answer("k1", "s1", first.id, ANN, allowed=True)
    (answer,) = (await stage.store.inbox(claim.turn.id)).answers
    await stage.store.record(claim.turn.id, claim.fence, Record(told=(answer.id,)))
    await ask(stage, claim, replace(APPROVAL, detail="rm -rf ."))
    (second,) = await stage.store.open_asks("s1")
    assert second.id != first.id and (second.name, second.detail) == (APPROVAL.id, "rm -rf .")
    assert (await stage.store.inbox(claim.turn.id)).answers == ()
    late = await stage.store.answer("k2", "s1", first.id, ANN, allowed=True)
    assert late is AskOutcome.OVER
    await stage.store.record(claim.turn.id, claim.fence, Record(withdrawn=(APPROVAL.id,)))
    assert await stage.store.open_asks("s1") == []
    await ask(stage, claim, APPROVAL)  # and once more
    assert len(await stage.store.open_asks("s1")) == 1


async def test_a_steer_that_came_late_does_not_make_its_author_the_one_to_ask(stage: Stage) -> None:
    claim = await stage.running("s1")
    written_before = stage.words("and this", by=BOB, sent="000000")
    await stage.store.admit("s1", written_before, claim.turn.thread)
    await ask(stage, claim, APPROVAL)
    (open_ask,) = await stage.store.open_asks("s1")
    assert open_ask.asked == ANN


async def test_the_first_answer_counts_and_is_in_the_inbox_until_the_agent_is_told(stage: Stage) -> None:
    claim = await stage.running("s1")
    await ask(stage, claim, APPROVAL)
    (open_ask,) = await stage.store.open_asks("s1")
    ref = MessageRef("slack", "C1", "7")
    settled = await stage.store.answer("k1", "s1", open_ask.id, ANN, allowed=True, ref=ref)
    assert settled is AskOutcome.SETTLED
    assert await stage.store.answer("k1", "s1", open_ask.id, ANN) is AskOutcome.DUPLICATE
    assert await stage.store.answer("k2", "s1", open_ask.id, BOB) is AskOutcome.OVER
    assert await stage.store.open_asks("s1") == []
    (answer,) = (await stage.store.inbox(claim.turn.id)).answers
    assert (answer.state, answer.allowed, answer.by) == (AskState.SETTLED, True, ANN.name)
    await stage.reopen()
    assert (await stage.store.inbox(claim.turn.id)).answers == (answer,)
    await stage.store.record(claim.turn.id, claim.fence, Record(told=(answer.id,)))
    assert (await stage.store.inbox(claim.turn.id)).answers == ()
    said = await stage.said()
    (over,) = (one for one in said if one.kind is SayingKind.ASKED)
    assert over.ask == answer and over.ref is not None
    assert [one.ref for one in said if one.mark is Mark.CONSUMED][-1] == ref


async def test_an_answer_goes_to_its_own_session_only(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.running("s2")
    await ask(stage, claim, APPROVAL)
    (open_ask,) = await stage.store.open_asks("s1")
    assert await stage.store.open_asks("s2") == []
    assert await stage.store.answer("k1", "s2", open_ask.id, ANN, allowed=True) is AskOutcome.UNKNOWN


async def test_no_answer_by_the_deadline_is_a_no(stage: Stage) -> None:
    claim = await stage.running("s1")
    await ask(stage, claim, replace(APPROVAL, deadline=stage.clock.now() + 60))
    (open_ask,) = await stage.store.open_asks("s1")
    await stage.store.expire_asks(claim.turn.id, claim.fence)
    assert (await stage.store.inbox(claim.turn.id)).answers == ()
    stage.clock.advance(60)
    late = await stage.store.answer("k1", "s1", open_ask.id, ANN, allowed=True)
    assert late is AskOutcome.OVER
    await stage.store.expire_asks(claim.turn.id, claim.fence)
    (answer,) = (await stage.store.inbox(claim.turn.id)).answers
    assert (answer.state, answer.allowed) == (AskState.EXPIRED, False)


async def test_what_is_refused_at_once_is_never_said(stage: Stage) -> None:
    claim = await stage.running("s1")
    await ask(stage, claim, replace(APPROVAL, refused="too long"))
    (answer,) = (await stage.store.inbox(claim.turn.id)).answers
    assert (answer.allowed, answer.text) == (False, "too long")
    assert not [one for one in await stage.said() if one.ask is not None]


async def test_what_cannot_be_shown_is_a_no_at_once(stage: Stage) -> None:
    claim = await stage.running("s1")
    await ask(stage, claim, APPROVAL)
    items = await stage.store.due(stage.clock.now(), 100)
    while not (found := [item for item in items if item.saying.kind is SayingKind.ASK]):
        await stage.store.sent(items[0].id, None)
        items = await stage.store.due(stage.clock.now(), 100)
    await stage.store.refused(found[0].id, "invalid_blocks")
    assert await stage.store.open_asks("s1") == []
    (answer,) = (await stage.store.inbox(claim.turn.id)).answers
    assert (answer.state, answer.allowed) == (AskState.EXPIRED, False)
    assert "could not be shown" in answer.text


@pytest.mark.parametrize("how", ["withdrawn", "attempt", "finishing", "closed", "finished"])
async def test_nothing_stays_open_when_the_agent_waits_no_more(stage: Stage, how: str) -> None:
    claim = await stage.running("s1")
    turn, fence = claim.turn.id, claim.fence
    await ask(stage, claim, APPROVAL)
    match how:
        case "withdrawn":
            await stage.store.record(turn, fence, Record(withdrawn=(APPROVAL.id,)))
        case "attempt":
            await stage.store.new_attempt(turn, fence)
        case "finishing":
            await stage.store.begin_finishing(turn, fence)
        case "closed":
            await stage.store.close_intake(turn, fence)
        case _:
            await stage.finish(claim, TurnState.FAILED)
    assert await stage.store.open_asks("s1") == []
    if how != "finished":
        assert (await stage.store.inbox(turn)).answers == ()
    said = [one.ask.state for one in await stage.said() if one.ask is not None]
    assert said == [AskState.OPEN, AskState.WITHDRAWN]


async def test_only_who_drives_the_turn_asks_and_expires(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.claim(claim.turn.id)
    with pytest.raises(LeaseLost):
        await ask(stage, claim, APPROVAL)
    with pytest.raises(LeaseLost):
        await stage.store.expire_asks(claim.turn.id, claim.fence)
