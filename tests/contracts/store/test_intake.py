"""What messages do: start, join, steer, wait, interrupt, stop, revise; each of them once."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from bot.errors import InputsChanged, SandpiperError
from bot.events import Text
from bot.models import (
    Choice,
    Disposition,
    Fate,
    Mark,
    Memory,
    Mode,
    Outcome,
    Record,
    Saying,
    SayingKind,
    StopOutcome,
    TurnKind,
    TurnState,
)
from tests.contracts.store.stage import ANN, API, BOB, OCTO, WEB, Stage, issue, slack


def receipts(said: list[Saying]) -> list[tuple[str, Mark | None]]:
    return [(one.ref.id if one.ref else "", one.mark) for one in said if one.kind is SayingKind.RECEIPT]


# Starting


async def test_a_first_message_makes_a_session_and_a_turn(stage: Stage) -> None:
    new = await stage.session("s1")
    words = stage.words("fix the login", sent="000100")
    admitted = await stage.store.admit(new, words, new.thread)

    assert admitted.disposition is Disposition.STARTED and admitted.session == "s1"
    assert admitted.turn is not None
    session = await stage.store.session("s1")
    assert (session.owner.identity, session.repository, session.title) == (ANN, WEB, "A title")
    assert await stage.store.session_of(str(new.thread)) == session
    turn = await stage.store.turn(admitted.turn)
    assert (turn.state, turn.thread, turn.kind) == (TurnState.QUEUED, new.thread, TurnKind.AGENT)
    assert await stage.store.open_turn("s1") == turn
    [only] = await stage.store.prompt_inputs(turn.id)
    assert (only.text, only.author, only.ref, only.fate) == ("fix the login", ANN, words.ref, Fate.PENDING)
    assert stage.woken.taken() == [turn.id]


async def test_a_started_turn_is_seen_and_gets_its_picture(stage: Stage) -> None:
    admitted = await stage.start("s1")
    said = await stage.said()
    assert [one.kind for one in said] == [SayingKind.RECEIPT, SayingKind.TIMELINE]
    assert said[0].mark is Mark.SEEN and said[0].key.startswith("receipt:")
    assert (said[1].key, said[1].thread) == (f"timeline:{admitted.turn}", slack("s1"))


async def test_the_same_message_twice_is_one_effect(stage: Stage) -> None:
    new, words = await stage.session("s1"), stage.words()
    first = await stage.store.admit(new, words, new.thread)
    again = await stage.store.admit(new, words, new.thread)
    assert again.disposition is Disposition.DUPLICATE
    assert (again.session, again.turn) == (first.session, first.turn)
    assert first.turn is not None and len(await stage.texts(first.turn)) == 1


async def test_a_thread_that_has_a_session_keeps_it(stage: Stage) -> None:
    await stage.start("s1")
    late = await stage.session("s2", by=BOB, thread=slack("s1"))
    admitted = await stage.store.admit(late, stage.words("me too", by=BOB), late.thread)
    assert (admitted.session, admitted.disposition) == ("s1", Disposition.JOINED)
    with pytest.raises(SandpiperError, match="no session s2"):
        await stage.store.session("s2")


async def test_a_message_for_an_unknown_session_has_no_effect(stage: Stage) -> None:
    with pytest.raises(SandpiperError, match="no session nowhere"):
        await stage.store.admit("nowhere", stage.words(key="m1"), slack())
    new = await stage.session("s1")
    admitted = await stage.store.admit(new, stage.words(key="m1"), slack())
    assert admitted.disposition is Disposition.STARTED


async def test_messages_from_two_aliases_at_once_make_one_turn(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.add_alias("s1", str(issue(3)))
    await stage.finish(claim)
    aliases = [slack("s1"), issue(3)] * 8
    newcomers = [await stage.session(f"x{n}", thread=thread) for n, thread in enumerate(aliases)]
    admitted = await asyncio.gather(*(stage.store.admit(new, stage.words(), new.thread) for new in newcomers))
    dispositions = [one.disposition for one in admitted]
    assert sorted(dispositions) == [Disposition.JOINED] * 15 + [Disposition.STARTED]
    assert {(one.session, one.turn) for one in admitted} == {("s1", claim.turn.id + 1)}


async def test_a_session_in_its_thread_is_looked_up_by_all_its_aliases(stage: Stage) -> None:
    await stage.start("s1")
    await stage.store.add_alias("s1", str(issue(3)))
    session = await stage.store.set_workspace("s1", "sandpiper/3-fix-s1", "main", "abc")
    for alias in (str(slack("s1")), str(issue(3)), "branch:1:sandpiper/3-fix-s1"):
        assert await stage.store.session_of(alias) == session
    assert await stage.store.session_of(str(issue(4))) is None
    assert await stage.store.threads("s1") == [slack("s1"), issue(3)]


async def test_an_alias_stays_with_its_first_session(stage: Stage) -> None:
    await stage.start("s1")
    await stage.start("s2")
    await stage.store.add_alias("s2", str(slack("s1")))
    assert await stage.store.threads("s2") == [slack("s2")]


async def test_the_branch_is_named_once_and_its_base_may_be_renamed(stage: Stage) -> None:
    await stage.start("s1")
    await stage.store.set_workspace("s1", "first", "main", "abc")
    session = await stage.store.set_workspace("s1", "second", "dev", "def")
    assert (session.branch, session.base, session.base_sha) == ("first", "dev", "abc")


async def test_a_session_knows_the_sandbox_that_its_worktrees_were_last_opened_in(stage: Stage) -> None:
    await stage.start("s1")
    await stage.start("s2")
    assert (await stage.store.session("s1")).opened_in == ""
    await stage.store.opened_in("s1", "box-1")
    session = await stage.store.opened_in("s1", "box-2")
    assert session.opened_in == "box-2"
    assert await stage.store.session("s1") == session
    assert (await stage.store.session("s2")).opened_in == ""


# While a turn is open


@pytest.mark.parametrize("mode", list(Mode))
async def test_messages_before_the_agent_runs_join_its_prompt_in_the_order_written(
    stage: Stage, mode: Mode
) -> None:
    admitted = await stage.start("s1", "one")
    assert admitted.turn is not None
    late = stage.words("three", sent="000300", mode=mode)
    early = stage.words("two", sent="000200", mode=mode)
    assert (await stage.store.admit("s1", late, slack("s1"))).disposition is Disposition.JOINED
    await stage.claim(admitted.turn)
    assert (await stage.store.admit("s1", early, slack("s1"))).disposition is Disposition.JOINED
    assert await stage.texts(admitted.turn) == ["one", "two", "three"]
    assert (await stage.store.turn(admitted.turn)).stop_by == ""


async def test_a_reply_steers_the_running_turn(stage: Stage) -> None:
    claim = await stage.running("s1")
    watch = stage.store.watch(f"turn:{claim.turn.id}")
    await stage.said()
    steered = await stage.reply("use tabs", by=BOB)
    assert (steered.disposition, steered.turn) == (Disposition.STEERED, claim.turn.id)
    await asyncio.wait_for(watch.wait(3600), 5)
    assert [one.text for one in await stage.pending(claim.turn.id)] == ["use tabs"]
    assert [mark for _, mark in receipts(await stage.said())] == [Mark.SEEN]


async def test_queue_waits_for_the_next_turn(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.said()
    queued = await stage.reply("later", mode=Mode.QUEUE)
    assert (queued.disposition, queued.turn) == (Disposition.QUEUED, claim.turn.id)
    assert await stage.pending(claim.turn.id) == ()
    assert [mark for _, mark in receipts(await stage.said())] == [Mark.QUEUED]
    assert (await stage.store.begin_finishing(claim.turn.id, claim.fence)).inputs == ()


async def test_interrupt_stops_the_running_turn_and_waits(stage: Stage) -> None:
    claim = await stage.running("s1")
    interrupting = await stage.reply("no, the other one", mode=Mode.INTERRUPT, by=BOB)
    assert interrupting.disposition is Disposition.QUEUED
    inbox = await stage.store.inbox(claim.turn.id)
    assert (inbox.stop_by, inbox.inputs) == ("Bob", ())


async def test_a_finishing_turn_takes_nothing_in(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.close_intake(claim.turn.id, claim.fence)
    for mode in Mode:
        assert (await stage.reply(f"late {mode}", mode=mode)).disposition is Disposition.QUEUED
    assert await stage.pending(claim.turn.id) == ()
    assert (await stage.store.turn(claim.turn.id)).stop_by == "", "too late to interrupt"


async def test_what_is_written_after_stop_waits_for_the_next_turn(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.request_stop("stop", "s1", "Ann")
    assert (await stage.reply("do this instead")).disposition is Disposition.QUEUED
    follow_up = await stage.finish(claim, TurnState.STOPPED, outcome=Outcome.STOPPED)
    assert follow_up is not None and await stage.texts(follow_up) == ["do this instead"]


async def test_a_message_without_a_place_gets_no_receipt(stage: Stage) -> None:
    new = await stage.session("s1")
    await stage.store.admit(new, stage.words(ref=False), new.thread)
    assert [one.kind for one in await stage.said()] == [SayingKind.TIMELINE]


# Which repository?


async def test_words_are_kept_until_the_repository_is_known(stage: Stage) -> None:
    asked = await stage.start("s1", "one", repository=None)
    assert (asked.disposition, asked.turn) == (Disposition.ASKED, None)
    assert (await stage.reply("two")).disposition is Disposition.ASKED
    assert await stage.store.open_turn("s1") is None and stage.woken.taken() == []

    started = await stage.store.choose_repository("answer", "s1", API, slack("s1"))

    assert started.disposition is Disposition.STARTED and started.turn is not None
    assert await stage.texts(started.turn) == ["one", "two"]
    assert (await stage.store.session("s1")).repository == API
    assert stage.woken.taken() == [started.turn]


async def test_the_repository_is_chosen_once(stage: Stage) -> None:
    await stage.start("s1", repository=None)
    started = await stage.store.choose_repository("answer", "s1", API, slack("s1"))
    again = await stage.store.choose_repository("answer", "s1", WEB, slack("s1"))
    other = await stage.store.choose_repository("another answer", "s1", WEB, slack("s1"))
    assert again.disposition is other.disposition is Disposition.DUPLICATE
    assert again.turn == started.turn
    assert (await stage.store.session("s1")).repository == API


async def test_a_repository_without_words_starts_nothing(stage: Stage) -> None:
    new = await stage.session("s1", repository=None)
    await stage.store.admit(new, stage.words(key="m1"), new.thread)
    await stage.store.revise("m2", "m1", None)
    chosen = await stage.store.choose_repository("answer", "s1", API, new.thread)
    assert chosen.turn is None and await stage.store.open_turn("s1") is None


# Revising


async def test_an_edit_replaces_words_that_still_wait(stage: Stage) -> None:
    new = await stage.session("s1")
    admitted = await stage.store.admit(new, stage.words("teh login", key="m1"), new.thread)
    before = await stage.store.revise("m1-edit", "m1", "the login")
    assert before is not None and (before.text, before.fate) == ("teh login", Fate.PENDING)
    assert admitted.turn is not None and await stage.texts(admitted.turn) == ["the login"]


async def test_who_edits_somebody_elses_words_says_them_from_then_on(stage: Stage) -> None:
    new = await stage.session("s1")
    admitted = await stage.store.admit(new, stage.words("keep it", key="m1"), new.thread)
    before = await stage.store.revise("m1-edit", "m1", "delete it", BOB)
    assert before is not None and before.author == ANN
    assert admitted.turn is not None
    (now,) = await stage.store.prompt_inputs(admitted.turn)
    assert (now.author, now.text) == (BOB, "delete it")


async def test_an_edit_chooses_anew_while_a_message_waits_for_the_next_turn(stage: Stage) -> None:
    claim = await stage.running("s1")
    words = replace(stage.words("later", key="m2", sent="000900"), choice=Choice(model="big"))
    await stage.store.admit("s1", words, slack("s1"))
    await stage.store.revise("edit-1", "m2", "later", choice=Choice(model="small"))
    await stage.store.revise("edit-2", "m2", "later!")
    await stage.finish(claim)
    session = await stage.store.session("s1")
    assert session.model == "small"


async def test_an_edit_chooses_anew_until_a_turn_is_begun(stage: Stage) -> None:
    new = await stage.session("s1")
    admitted = await stage.store.admit(new, stage.words("a", key="m1"), new.thread)
    await stage.store.revise("edit-1", "m1", "b", choice=Choice(model="big"))
    assert (await stage.store.session("s1")).model == "big"
    assert admitted.turn is not None
    await stage.claim(admitted.turn)
    await stage.store.revise("edit-2", "m1", "c", choice=Choice(model="small"))
    assert (await stage.store.session("s1")).model == "big"
    assert await stage.texts(admitted.turn) == ["c"]


async def test_a_deletion_can_leave_its_care(stage: Stage) -> None:
    claim = await stage.running("s1")
    careful = Choice(agent="codex", model="big", permissions="ask")
    words = replace(stage.words("later", key="m2", sent="000900"), choice=careful)
    await stage.store.admit("s1", words, slack("s1"))
    await stage.store.revise("deleted", "m2", None, choice=careful)
    await stage.finish(claim)
    session = await stage.store.session("s1")
    assert (session.permissions, session.model) == ("ask", "") and session.agent != "codex"


async def test_the_same_edit_is_one_effect(stage: Stage) -> None:
    new = await stage.session("s1")
    admitted = await stage.store.admit(new, stage.words("a", key="m1"), new.thread)
    await stage.store.revise("edit-1", "m1", "b")
    await stage.store.revise("edit-2", "m1", "c")
    await stage.store.revise("edit-1", "m1", "b")
    assert admitted.turn is not None and await stage.texts(admitted.turn) == ["c"]


async def test_a_withdrawn_message_is_dropped(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.admit("s1", stage.words("oops", key="m2", sent="000900"), slack("s1"))
    await stage.said()
    await stage.store.revise("m2-delete", "m2", None)
    assert await stage.pending(claim.turn.id) == ()
    assert receipts(await stage.said()) == [("000900", Mark.DROPPED)]
    assert await stage.finish(claim) is None


async def test_what_the_agent_has_read_is_not_changed(stage: Stage) -> None:
    new = await stage.session("s1")
    admitted = await stage.store.admit(new, stage.words("a", key="m1"), new.thread)
    assert admitted.turn is not None
    await stage.run(admitted.turn)
    before = await stage.store.revise("edit", "m1", "b")
    assert before is not None and before.fate is Fate.CONSUMED
    assert await stage.texts(admitted.turn) == ["a"]


async def test_words_are_given_to_an_agent_only_as_they_were_read(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.admit("s1", stage.words("red", key="m2"), slack("s1"))
    await stage.store.admit("s1", stage.words("and round", key="m3"), slack("s1"))
    read = await stage.pending(claim.turn.id)
    await stage.store.revise("m2-edit", "m2", "blue")
    step = Record(events=(Text("never said"),), stdin=b"red", given=read, written=tuple(i.id for i in read))
    with pytest.raises(InputsChanged):
        await stage.store.record(claim.turn.id, claim.fence, step)
    read = await stage.pending(claim.turn.id)
    assert [one.text for one in read] == ["blue", "and round"]
    assert (await stage.store.turn(claim.turn.id)).in_offset == claim.turn.in_offset
    await stage.store.revise("m3-delete", "m3", None)
    with pytest.raises(InputsChanged):
        await stage.store.record(claim.turn.id, claim.fence, replace(step, given=read))
    (left,) = await stage.pending(claim.turn.id)
    step = Record(stdin=b"blue", given=(left,), written=(left.id,))
    await stage.store.record(claim.turn.id, claim.fence, step)
    assert await stage.pending(claim.turn.id) == ()
    assert not await stage.store.events(claim.turn.id)


async def test_others_words_are_given_only_while_no_newer_turn_of_the_owners_may_bring_code(
    stage: Stage,
) -> None:
    claim = await stage.running("s1")
    await stage.reply("and this", by=BOB)
    read = await stage.pending(claim.turn.id)
    newest = await stage.store.newest_turn(claim.session.owner.id)
    assert newest == claim.turn.id
    await stage.start("bobs", by=BOB)  # in a sandbox of his own
    step = Record(stdin=b"this", given=read, written=tuple(one.id for one in read), newest=newest)
    other = await stage.start("s2", repository=API)
    with pytest.raises(InputsChanged):
        await stage.store.record(claim.turn.id, claim.fence, step)
    assert await stage.pending(claim.turn.id) == read
    newest = await stage.store.newest_turn(claim.session.owner.id)
    assert newest == other.turn
    await stage.store.record(claim.turn.id, claim.fence, replace(step, newest=newest))
    assert await stage.pending(claim.turn.id) == ()


async def test_what_agents_were_given_beside_a_session_is_known_until_their_turns_end(stage: Stage) -> None:
    async def beside() -> list[str]:
        return [one.text for one in await stage.store.given_beside("s2")]

    await stage.start("s2", "two")
    await stage.start("bobs", "of bob", by=BOB)
    claim = await stage.running("s1")
    assert await beside() == ["do it"]
    await stage.reply("and this", by=BOB)
    assert await beside() == ["do it"]  # nobody was given it yet
    (waiting,) = await stage.pending(claim.turn.id)
    await stage.store.record(claim.turn.id, claim.fence, Record(given=(waiting,), written=(waiting.id,)))
    assert await beside() == ["do it", "and this"]
    await stage.store.new_attempt(claim.turn.id, claim.fence)
    assert await beside() == ["do it", "and this"]  # the agent may remember it
    await stage.finish(claim, TurnState.FAILED)
    assert await beside() == []


async def test_held_words_can_be_withdrawn(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.admit("s1", stage.words("rm -rf", key="m2"), slack("s1"))
    await stage.finish(claim, TurnState.STOPPED, outcome=Outcome.STOPPED)
    before = await stage.store.revise("m2-delete", "m2", None)
    assert before is not None and before.fate is Fate.HELD
    next_turn = (await stage.reply("go on")).turn
    assert next_turn is not None and await stage.texts(next_turn) == ["go on"]


async def test_an_edit_of_a_message_we_never_took_is_nothing(stage: Stage) -> None:
    assert await stage.store.revise("edit", "unknown", "b") is None


# Stopping


async def test_stop_reaches_the_running_turn(stage: Stage) -> None:
    claim = await stage.running("s1")
    watch = stage.store.watch(f"turn:{claim.turn.id}")
    assert await stage.store.request_stop("m2", "s1", "Bob") is StopOutcome.STOPPING
    await asyncio.wait_for(watch.wait(3600), 5)
    assert (await stage.store.inbox(claim.turn.id)).stop_by == "Bob"
    assert await stage.store.request_stop("m2", "s1", "Bob") is StopOutcome.DUPLICATE
    assert await stage.store.request_stop("m3", "s1", "Ann") is StopOutcome.STOPPING
    assert (await stage.store.inbox(claim.turn.id)).stop_by == "Bob", "the first who asked"


async def test_stop_without_a_turn_is_nothing_and_not_recorded(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.finish(claim)
    assert await stage.store.request_stop("m2", "s1", "Bob") is StopOutcome.NOTHING
    assert await stage.store.request_stop("m2", "s1", "Bob") is StopOutcome.NOTHING


async def test_stop_is_too_late_once_the_push_is_under_way(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.close_intake(claim.turn.id, claim.fence)
    assert await stage.store.begin_push(claim.turn.id, claim.fence)
    assert await stage.store.request_stop("m2", "s1", "Bob") is StopOutcome.PUBLISHED
    assert (await stage.store.inbox(claim.turn.id)).stop_by == ""
    assert await stage.store.begin_push(claim.turn.id, claim.fence), "after a restart it goes on"


async def test_a_stop_before_the_push_keeps_it_from_happening(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.close_intake(claim.turn.id, claim.fence)
    assert await stage.store.request_stop("m2", "s1", "Bob") is StopOutcome.STOPPING
    assert not await stage.store.begin_push(claim.turn.id, claim.fence)


async def test_stop_wakes_a_turn_that_waits(stage: Stage) -> None:
    admitted = await stage.start("s1")
    stage.woken.taken()
    await stage.store.request_stop("m2", "s1", "Bob")
    assert stage.woken.taken() == [admitted.turn]


# Publishing later


async def test_a_publish_turn_is_started_once_and_takes_no_words(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.finish(claim)
    started = await stage.store.start_publish("p1", "s1", slack("s1"), BOB)
    assert started.disposition is Disposition.STARTED and started.turn is not None
    assert (await stage.store.turn(started.turn)).kind is TurnKind.PUBLISH
    assert (
        await stage.store.start_publish("p1", "s1", slack("s1"), BOB)
    ).disposition is Disposition.DUPLICATE

    publishing = await stage.claim(started.turn)
    assert (await stage.reply("and then this")).disposition is Disposition.QUEUED
    assert (await stage.reply("now", mode=Mode.INTERRUPT)).disposition is Disposition.QUEUED
    assert (await stage.store.inbox(started.turn)).stop_by == "" and await stage.pending(started.turn) == ()
    follow_up = await stage.finish(publishing)
    assert follow_up is not None and await stage.texts(follow_up) == ["and then this", "now"]


async def test_publish_beside_an_open_turn_has_no_effect(stage: Stage) -> None:
    claim = await stage.running("s1")
    refused = await stage.store.start_publish("p1", "s1", slack("s1"), BOB)
    assert (refused.disposition, refused.turn) == (Disposition.QUEUED, claim.turn.id)
    assert await stage.finish(claim) is None
    assert (await stage.store.start_publish("p1", "s1", slack("s1"), BOB)).disposition is Disposition.STARTED


async def test_words_with_broken_characters_come_in_without_them(stage: Stage) -> None:
    new = await stage.session("s1")
    admitted = await stage.store.admit(new, stage.words("cut \ud83d off", by=OCTO), new.thread)
    assert admitted.turn is not None
    assert await stage.texts(admitted.turn) == ["cut ? off"]
    claim = await stage.run(admitted.turn)
    await stage.store.record(claim.turn.id, claim.fence, Record(memory=Memory("r\ud83d")))
    assert (await stage.store.session("s1")).memory.token == "r?"
