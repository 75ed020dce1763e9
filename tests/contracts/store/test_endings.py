"""The end of a turn is one transaction: its state, its last words, and the turn that follows."""

from __future__ import annotations

import asyncio

import pytest

from bot.errors import LeaseLost
from bot.models import (
    Claim,
    Disposition,
    Fate,
    Final,
    Mode,
    NewInput,
    Outcome,
    Record,
    SayingKind,
    StopOutcome,
    TurnKind,
    TurnState,
)
from tests.contracts.store.stage import ANN, BOB, NO_CAPS, OCTO, PR, Stage, issue, slack


async def test_the_final_is_said_in_the_turns_thread_to_who_asked(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("faster", by=BOB)
    await stage.consume(claim)
    await stage.said()
    assert await stage.finish(claim) is None
    [final] = await stage.said()
    assert (final.key, final.kind, final.thread) == (
        f"final:{claim.turn.id}",
        SayingKind.FINAL,
        slack("s1"),
    )
    assert final.final == Final(Outcome.ANSWERED, "That is all.")
    assert final.mention == ANN.user and final.turn == claim.turn.id
    assert (await stage.store.turn(claim.turn.id)).state is TurnState.DONE
    assert await stage.store.open_turn("s1") is None


async def test_nobody_is_called_by_an_account_of_another_surface(stage: Stage) -> None:
    admitted = await stage.start("s1", by=OCTO, thread=slack("s1"))
    assert admitted.turn is not None
    await stage.finish(await stage.run(admitted.turn))
    assert [one.mention for one in await stage.said() if one.kind is SayingKind.FINAL] == [""]


async def test_other_threads_get_one_line_with_a_link(stage: Stage) -> None:
    claim = await stage.running("s1")
    for alias in (issue(3), slack("other")):
        await stage.store.add_alias("s1", str(alias))
    await stage.store.set_workspace("s1", "sandpiper/3", "main", "abc")
    await stage.store.set_published(claim.turn.id, claim.fence, "abc", PR)
    await stage.said()
    await stage.finish(claim, outcome=Outcome.PUBLISHED, pull_request=PR)

    notes = {one.thread: one for one in await stage.said() if one.kind is SayingKind.NOTE}
    assert set(notes) == {issue(3), slack("other")}, "the new pull request speaks for itself"
    assert notes[issue(3)].key == f"note:{claim.turn.id}:{issue(3)}"
    assert notes[issue(3)].text.endswith(PR.url) and "\n" not in notes[issue(3)].text


async def test_a_pull_request_of_an_earlier_turn_is_told_of_the_next(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.set_published(claim.turn.id, claim.fence, "abc", PR)
    await stage.finish(claim, outcome=Outcome.PUBLISHED, pull_request=PR)
    again = (await stage.reply("one more")).turn
    assert again is not None
    second = await stage.run(again)
    await stage.said()
    await stage.finish(second)
    notes = [one for one in await stage.said() if one.kind is SayingKind.NOTE]
    assert [one.thread for one in notes] == [issue(PR.number)]


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_every_outcome_is_told_elsewhere_in_plain_words(stage: Stage, outcome: Outcome) -> None:
    claim = await stage.running("s1")
    await stage.store.add_alias("s1", str(issue(3)))
    await stage.finish(claim, outcome=outcome)
    [note] = [one for one in await stage.said() if one.kind is SayingKind.NOTE]
    assert note.text.startswith("Work that was asked for in another thread") and note.text.endswith(".")


async def test_a_turn_ends_only_as_ended(stage: Stage) -> None:
    claim = await stage.running("s1")
    with pytest.raises(ValueError, match="cannot end as running"):
        await stage.store.finish(claim.turn.id, claim.fence, TurnState.RUNNING, Final(Outcome.ANSWERED, ""))


async def test_a_turn_ends_once(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.finish(claim)
    with pytest.raises(LeaseLost):
        await stage.finish(claim)
    finals = [one for one in await stage.said() if one.kind is SayingKind.FINAL]
    assert len(finals) == 1


async def test_waiters_of_the_turn_are_told_of_its_end(stage: Stage) -> None:
    claim = await stage.running("s1")
    watch = stage.store.watch(f"turn:{claim.turn.id}")
    await stage.finish(claim)
    await asyncio.wait_for(watch.wait(3600), 5)


# What follows


async def test_words_that_no_agent_took_start_the_next_turn_in_order(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("pending")
    await stage.reply("written")
    await stage.reply("deferred")
    await stage.reply("queued", mode=Mode.QUEUE)
    _, written, deferred = await stage.pending(claim.turn.id)
    step = Record(written=(written.id,), deferred=(deferred.id,))
    await stage.store.record(claim.turn.id, claim.fence, step)
    await stage.store.close_intake(claim.turn.id, claim.fence)
    assert (await stage.reply("late")).disposition is Disposition.QUEUED
    stage.woken.taken()

    follow_up = await stage.finish(claim)

    assert follow_up is not None
    assert await stage.texts(follow_up) == ["pending", "written", "deferred", "queued", "late"]
    assert set(await stage.fates(follow_up)) == {Fate.PENDING}
    turn = await stage.store.turn(follow_up)
    assert (turn.state, turn.kind, turn.thread) == (TurnState.QUEUED, TurnKind.AGENT, slack("s1"))
    assert stage.woken.taken() == [follow_up]
    assert await stage.texts(claim.turn.id) == ["do it"]


async def test_the_final_comes_before_the_next_turns_picture(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("and then?")
    await stage.said()
    follow_up = await stage.finish(claim)
    assert [one.key for one in await stage.said()] == [f"final:{claim.turn.id}", f"timeline:{follow_up}"]


async def test_the_follow_up_is_in_the_thread_and_the_name_of_who_wrote(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.add_alias("s1", str(issue(3)))
    await stage.reply("also on the issue", by=OCTO, thread=issue(3), mode=Mode.QUEUE)
    follow_up = await stage.finish(claim)
    assert follow_up is not None and (await stage.store.turn(follow_up)).thread == issue(3)
    await stage.finish(await stage.run(follow_up))
    finals = [one for one in await stage.said() if one.kind is SayingKind.FINAL]
    assert [(one.thread, one.mention) for one in finals] == [(slack("s1"), ANN.user), (issue(3), OCTO.user)]


async def test_a_steer_at_the_last_moment_never_falls_between_two_turns(stage: Stage) -> None:
    claim = await stage.running("s1")
    final = Final(Outcome.ANSWERED, "done")
    ending = asyncio.create_task(stage.store.finish(claim.turn.id, claim.fence, TurnState.DONE, final))
    replies = await asyncio.gather(*(stage.reply(f"reply {number}") for number in range(10)))
    await ending
    open_turn = await stage.store.open_turn("s1")
    assert open_turn is not None
    assert sorted(await stage.texts(open_turn.id)) == [f"reply {number}" for number in range(10)]
    assert {one.turn for one in replies} <= {claim.turn.id, open_turn.id}


async def test_words_that_are_handed_back_do_not_open_turn_after_turn(
    stage: Stage,
) -> None:
    claim = await stage.running("s1")
    await stage.reply("deferred")
    follow_up = await stage.finish(claim)
    assert follow_up is not None
    second = await stage.claim(follow_up)
    await stage.store.advance(follow_up, second.fence, TurnState.RUNNING)
    [back] = await stage.pending(follow_up)
    await stage.store.record(follow_up, second.fence, Record(deferred=(back.id,)))
    await stage.said()

    assert await stage.finish(second) is None

    assert "did not take in 1 message" in (await stage.said())[-1].text
    next_turn = (await stage.reply("and now")).turn
    assert next_turn is not None and await stage.texts(next_turn) == ["deferred", "and now"]


async def test_words_that_were_handed_back_go_on_with_newer_ones(stage: Stage) -> None:
    admitted = await stage.start("s1", "one")
    assert admitted.turn is not None
    claim = await stage.claim(admitted.turn)
    await stage.store.advance(admitted.turn, claim.fence, TurnState.RUNNING)
    [first] = await stage.pending(admitted.turn)
    await stage.store.record(admitted.turn, claim.fence, Record(deferred=(first.id,)))
    await stage.reply("two", mode=Mode.QUEUE)
    follow_up = await stage.finish(claim)
    assert follow_up is not None and await stage.texts(follow_up) == ["one", "two"]


# After Stop


async def stopped(stage: Stage, claim: Claim) -> int | None:
    assert await stage.store.request_stop("stop", "s1", "Ann") is StopOutcome.STOPPING
    return await stage.finish(claim, TurnState.STOPPED, outcome=Outcome.STOPPED)


async def test_after_stop_words_are_held_and_the_thread_is_told(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("one")
    await stage.reply("two", mode=Mode.QUEUE)
    await stage.said()
    assert await stopped(stage, claim) is None
    final, held = await stage.said()
    assert final.kind is SayingKind.FINAL
    assert (held.kind, held.thread) == (SayingKind.NOTE, slack("s1"))
    assert held.text == "2 messages are held and go in with the next one."
    assert await stage.store.open_turn("s1") is None


async def test_held_words_go_in_with_the_next_message(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("one")
    await stopped(stage, claim)
    next_turn = (await stage.reply("two")).turn
    assert next_turn is not None
    assert await stage.texts(next_turn) == ["one", "two"]
    assert await stage.fates(next_turn) == [Fate.PENDING, Fate.PENDING]


async def test_a_stop_without_leftovers_holds_nothing(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.said()
    assert await stopped(stage, claim) is None
    assert [one.kind for one in await stage.said()] == [SayingKind.FINAL]


async def test_a_turn_stopped_before_it_ran_holds_its_first_words(stage: Stage) -> None:
    admitted = await stage.start("s1")
    assert admitted.turn is not None
    claim = await stage.claim(admitted.turn)
    await stopped(stage, claim)
    assert (await stage.said())[-1].text == "1 message is held and goes in with the next one."


async def test_the_final_of_a_publish_turn_calls_who_asked_for_it(stage: Stage) -> None:
    await stage.finish(await stage.running("s1"))
    publish = await stage.store.start_publish("p1", "s1", slack("s1"), BOB)
    assert publish.turn is not None
    await stage.said()
    await stage.finish(await stage.claim(publish.turn))
    assert [one.mention for one in await stage.said() if one.kind is SayingKind.FINAL] == [BOB.user]


async def test_held_words_do_not_start_by_themselves_after_publishing(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("one")
    await stopped(stage, claim)
    publish = await stage.store.start_publish("p1", "s1", slack("s1"), BOB)
    assert publish.turn is not None
    assert await stage.finish(await stage.claim(publish.turn)) is None
    next_turn = (await stage.reply("two")).turn
    assert next_turn is not None and await stage.texts(next_turn) == ["one", "two"]


async def test_an_interrupt_starts_the_next_turn_with_all_that_was_left(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("steer")
    interrupting = await stage.reply("no: this", mode=Mode.INTERRUPT, by=BOB)
    assert interrupting.disposition is Disposition.QUEUED
    follow_up = await stage.finish(claim, TurnState.STOPPED, outcome=Outcome.STOPPED)
    assert follow_up is not None
    assert await stage.texts(follow_up) == ["steer", "no: this"]
    await stage.finish(await stage.run(follow_up))
    finals = [one.mention for one in await stage.said() if one.kind is SayingKind.FINAL]
    assert finals == [ANN.user, BOB.user]


async def test_an_interrupt_that_went_in_does_not_start_a_second_turn(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("no: this", mode=Mode.INTERRUPT)
    follow_up = await stage.finish(claim, TurnState.STOPPED, outcome=Outcome.STOPPED)
    assert follow_up is not None
    second = await stage.claim(follow_up)
    assert await stopped(stage, second) is None


# After a failure


async def test_a_failed_turn_does_not_start_itself_again(stage: Stage) -> None:
    admitted = await stage.start("s1")
    assert admitted.turn is not None
    claim = await stage.claim(admitted.turn)
    await stage.said()
    assert await stage.finish(claim, TurnState.FAILED, outcome=Outcome.FAILED) is None
    assert [one.kind for one in await stage.said()] == [SayingKind.FINAL, SayingKind.NOTE]
    again = (await stage.reply("try again")).turn
    assert again is not None and await stage.texts(again) == ["do it", "try again"]


async def test_words_that_came_during_a_failed_turn_get_one_turn_of_their_own(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("steer")
    await stage.reply("queued", mode=Mode.QUEUE)
    follow_up = await stage.finish(claim, TurnState.FAILED, outcome=Outcome.FAILED)
    assert follow_up is not None and await stage.texts(follow_up) == ["steer", "queued"]
    second = await stage.claim(follow_up)
    assert await stage.finish(second, TurnState.FAILED, outcome=Outcome.FAILED) is None


async def test_a_turn_may_end_before_its_prompt_was_written(stage: Stage) -> None:
    admitted = await stage.start("s1")
    assert admitted.turn is not None
    claim = await stage.store.claim(admitted.turn, "here", 60.0, NO_CAPS)
    assert isinstance(claim, Claim)
    new: NewInput = stage.words("joined")
    await stage.store.admit("s1", new, slack("s1"))
    follow_up = await stage.finish(claim, TurnState.DONE)
    assert follow_up is not None and await stage.texts(follow_up) == ["do it", "joined"]
