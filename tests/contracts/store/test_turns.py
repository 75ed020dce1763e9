"""Driving a turn: claims and fences, steps and their journal, the closing of the intake."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from bot.errors import LeaseLost, SandpiperError
from bot.events import Consumed, Phase, Text, ToolCall, ToolKind, ToolStatus, Unknown, Usage
from bot.models import (
    Claim,
    Fate,
    Final,
    Mark,
    Memory,
    MessageRef,
    Mode,
    Outcome,
    Record,
    Saying,
    SayingKind,
    TurnState,
)
from bot.ports import Store
from tests.contracts.store.stage import API, NO_CAPS, PR, WEB, Stage, issue, slack

# Claims


async def test_a_claim_starts_preparing_and_raises_the_fence(stage: Stage) -> None:
    admitted = await stage.start("s1")
    assert admitted.turn is not None
    stage.clock.advance(3)
    claim = await stage.claim(admitted.turn)
    assert claim.fence == claim.turn.fence == 1
    assert claim.turn.state is TurnState.PREPARING
    assert claim.turn.started_at == stage.clock.now() and claim.turn.queued_at == stage.clock.now() - 3
    assert claim.session == await stage.store.session("s1")


async def test_somebody_elses_lease_holds_until_it_expires(stage: Stage) -> None:
    claim = await stage.running("s1")
    assert await stage.store.claim(claim.turn.id, "elsewhere", 60.0, NO_CAPS) is None
    stage.clock.advance(61)
    taken = await stage.claim(claim.turn.id, owner="elsewhere")
    assert taken.fence > claim.fence
    assert taken.turn.state is TurnState.RUNNING and taken.turn.started_at == claim.turn.started_at


async def test_a_renewed_lease_holds_longer(stage: Stage) -> None:
    claim = await stage.running("s1")
    stage.clock.advance(50)
    await stage.store.renew(claim.turn.id, claim.fence, 60.0)
    stage.clock.advance(50)
    assert await stage.store.claim(claim.turn.id, "elsewhere", 60.0, NO_CAPS) is None


async def test_the_same_owner_may_claim_again(stage: Stage) -> None:
    claim = await stage.running("s1")
    again = await stage.claim(claim.turn.id)
    assert again.fence == claim.fence + 1


async def test_an_ended_turn_cannot_be_claimed(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.finish(claim)
    assert await stage.store.claim(claim.turn.id, "here", 60.0, NO_CAPS) is None


async def test_boot_ends_all_leases_and_lists_open_turns_oldest_first(stage: Stage) -> None:
    first, ended = await stage.running("s1"), await stage.running("s2")
    queued = (await stage.start("s3")).turn
    await stage.finish(ended)
    await stage.reopen()
    assert await stage.store.boot("elsewhere") == [first.turn.id, queued]
    taken = await stage.claim(first.turn.id, owner="elsewhere")
    assert taken.turn.state is TurnState.RUNNING


async def test_an_unknown_turn_is_an_error(stage: Stage) -> None:
    with pytest.raises(SandpiperError, match="no turn 99"):
        await stage.store.turn(99)


# Fences

Write = Callable[[Store, int, int], Awaitable[object]]
OWNER_WRITES: dict[str, Write] = {
    "renew": lambda store, turn, fence: store.renew(turn, fence, 60.0),
    "advance": lambda store, turn, fence: store.advance(turn, fence, TurnState.RUNNING),
    "new_attempt": lambda store, turn, fence: store.new_attempt(turn, fence),
    "record": lambda store, turn, fence: store.record(turn, fence, Record(events=(Text("late"),))),
    "begin_finishing": lambda store, turn, fence: store.begin_finishing(turn, fence),
    "close_intake": lambda store, turn, fence: store.close_intake(turn, fence),
    "bring_code": lambda store, turn, fence: store.bring_code(turn, fence),
    "set_ready": lambda store, turn, fence: store.set_ready(turn, fence, "abc"),
    "begin_push": lambda store, turn, fence: store.begin_push(turn, fence),
    "set_published": lambda store, turn, fence: store.set_published(turn, fence, "abc", PR),
    "finish": lambda store, turn, fence: store.finish(
        turn, fence, TurnState.DONE, Final(Outcome.ANSWERED, "late")
    ),
}


@pytest.mark.parametrize("write", OWNER_WRITES.values(), ids=OWNER_WRITES.keys())
async def test_a_stale_owner_can_write_nothing(stage: Stage, write: Write) -> None:
    stale = await stage.running("s1")
    await stage.said()
    taken = await stage.claim(stale.turn.id)
    before = await everything(stage, taken)
    with pytest.raises(LeaseLost):
        await write(stage.store, stale.turn.id, stale.fence)
    assert await everything(stage, taken) == before


@pytest.mark.parametrize("write", OWNER_WRITES.values(), ids=OWNER_WRITES.keys())
async def test_nothing_can_be_written_to_an_ended_turn(stage: Stage, write: Write) -> None:
    claim = await stage.running("s1")
    await stage.finish(claim)
    await stage.said()
    before = await everything(stage, claim)
    with pytest.raises(LeaseLost):
        await write(stage.store, claim.turn.id, claim.fence)
    assert await everything(stage, claim) == before


async def everything(stage: Stage, claim: Claim) -> tuple[object, ...]:
    return (
        await stage.store.turn(claim.turn.id),
        await stage.store.session(claim.session.id),
        await stage.store.prompt_inputs(claim.turn.id),
        await stage.store.events(claim.turn.id),
        await stage.store.due(stage.clock.now(), 100),
    )


# Steps


async def test_a_step_is_recorded_as_a_whole(stage: Stage) -> None:
    admitted = await stage.start("s1")
    assert admitted.turn is not None
    claim = await stage.claim(admitted.turn)
    [first] = await stage.pending(claim.turn.id)
    call = ToolCall("c1", ToolKind.EXECUTE, "Ran pytest", ToolStatus.COMPLETED, result="3 passed")
    turn = await stage.store.record(
        claim.turn.id,
        claim.fence,
        Record(
            events=(Phase("agent", "Starting"), call, Consumed((first.id,))),
            out_offset=120,
            err_offset=7,
            codec_state={"seen": ["c1"], "n": 1},
            stdin=b"hello",
            written=(first.id,),
            memory=Memory("token"),
            asked_to_commit=True,
        ),
    )
    assert turn == await stage.store.turn(claim.turn.id)
    assert (turn.out_offset, turn.err_offset, turn.in_offset) == (120, 7, 5)
    assert turn.codec_state == {"seen": ["c1"], "n": 1} and turn.asked_to_commit
    assert (await stage.store.session("s1")).memory.token == "token"
    stored = await stage.store.events(turn.id)
    assert [one.event for one in stored] == [Phase("agent", "Starting"), call, Consumed((first.id,))]
    assert {one.at for one in stored} == {stage.clock.now()}
    assert await stage.fates(turn.id) == [Fate.WRITTEN]


async def test_a_step_changes_only_what_it_names(stage: Stage) -> None:
    claim = await stage.running("s1")
    step = Record(out_offset=10, err_offset=1, codec_state={"a": 1}, memory=Memory("t"), asked_to_commit=True)
    before = await stage.store.record(claim.turn.id, claim.fence, step)
    after = await stage.store.record(claim.turn.id, claim.fence, Record(events=(Text("more"),)))
    assert after == before
    assert (await stage.store.session("s1")).memory.token == "t"


async def test_events_keep_their_order_over_steps_and_restarts(stage: Stage) -> None:
    claim = await stage.running("s1")
    for number in range(3):
        step = Record(events=(Text(f"{number}a"), Text(f"{number}b")))
        await stage.store.record(claim.turn.id, claim.fence, step)
    await stage.reopen()
    texts = [one.event.text for one in await stage.store.events(claim.turn.id) if isinstance(one.event, Text)]
    assert texts == ["0a", "0b", "1a", "1b", "2a", "2b"]


async def test_odd_text_from_an_agent_is_kept(stage: Stage) -> None:
    claim = await stage.running("s1")
    odd = (Unknown("frame", "nul \x00 and 🐦"), Text("half \ud83d an emoji"))
    await stage.store.record(claim.turn.id, claim.fence, Record(events=odd))
    stored = [one.event for one in await stage.store.events(claim.turn.id)]
    assert stored == [odd[0], Text("half ? an emoji")]


async def test_the_same_usage_may_be_said_again(stage: Stage) -> None:
    claim = await stage.running("s1")
    for tokens in (10, 25):
        await stage.store.record(claim.turn.id, claim.fence, Record(events=(Usage("total", tokens),)))
    assert len(await stage.store.events(claim.turn.id)) == 2


async def test_a_fate_never_goes_back(stage: Stage) -> None:
    claim = await stage.running("s1")
    [first] = await stage.store.prompt_inputs(claim.turn.id)
    for late in (Record(written=(first.id,)), Record(deferred=(first.id,)), Record(consumed=(first.id,))):
        await stage.store.record(claim.turn.id, claim.fence, late)
        assert await stage.fates(claim.turn.id) == [Fate.CONSUMED]


async def test_another_turns_inputs_are_left_alone(stage: Stage) -> None:
    claim, other = await stage.running("s1"), await stage.start("s2")
    assert other.turn is not None
    [foreign] = await stage.pending(other.turn)
    await stage.store.record(claim.turn.id, claim.fence, Record(consumed=(foreign.id,)))
    assert await stage.fates(other.turn) == [Fate.PENDING]


async def test_receipts_follow_the_fates(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("first")
    await stage.reply("second")
    first, second = await stage.pending(claim.turn.id)
    await stage.said()
    await stage.store.record(claim.turn.id, claim.fence, Record(written=(first.id,)))
    assert await stage.said() == [], "sent is not consumed"
    await stage.store.record(claim.turn.id, claim.fence, Record(consumed=(first.id,), deferred=(second.id,)))
    said = await stage.said()
    assert [(one.ref, one.mark) for one in said] == [(first.ref, Mark.CONSUMED), (second.ref, Mark.QUEUED)]


# The journal


async def test_the_journal_gives_the_bytes_again_from_any_offset(stage: Stage) -> None:
    claim = await stage.running("s1")
    for data in (b"abc", b"defg", b"", b"h"):
        await stage.store.record(claim.turn.id, claim.fence, Record(stdin=data))
    whole = b"abcdefgh"
    for offset in range(len(whole) + 1):
        assert await stage.store.journal(claim.turn.id, claim.turn.attempt, offset) == whole[offset:]


async def test_a_new_attempt_starts_over(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("written")
    await stage.reply("not written")
    written = (await stage.pending(claim.turn.id))[0]
    step = Record(out_offset=9, err_offset=9, stdin=b"abc", codec_state={"a": 1}, written=(written.id,))
    await stage.store.record(claim.turn.id, claim.fence, step)

    turn = await stage.store.new_attempt(claim.turn.id, claim.fence)

    assert turn.attempt == claim.turn.attempt + 1
    assert (turn.out_offset, turn.err_offset, turn.in_offset, turn.codec_state) == (0, 0, 0, {})
    assert await stage.fates(turn.id) == [Fate.CONSUMED, Fate.PENDING, Fate.PENDING]
    assert await stage.store.journal(turn.id, turn.attempt, 0) == b""
    await stage.store.record(turn.id, claim.fence, Record(stdin=b"xy"))
    assert await stage.store.journal(turn.id, turn.attempt, 1) == b"y"


# Towards the end


async def test_running_may_be_entered_again_but_not_from_elsewhere(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.advance(claim.turn.id, claim.fence, TurnState.RUNNING)
    await stage.store.close_intake(claim.turn.id, claim.fence)
    with pytest.raises(ValueError, match="cannot go"):
        await stage.store.advance(claim.turn.id, claim.fence, TurnState.RUNNING)
    with pytest.raises(ValueError, match="cannot go"):
        await stage.store.advance(claim.turn.id, claim.fence, TurnState.DONE)


async def test_the_intake_does_not_close_over_pending_words(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("one more thing")
    inbox = await stage.store.begin_finishing(claim.turn.id, claim.fence)
    assert [one.text for one in inbox.inputs] == ["one more thing"]
    assert (await stage.store.turn(claim.turn.id)).state is TurnState.RUNNING
    await stage.consume(claim)
    inbox = await stage.store.begin_finishing(claim.turn.id, claim.fence)
    assert (inbox.stop_by, inbox.inputs) == ("", ())
    assert (await stage.store.turn(claim.turn.id)).state is TurnState.FINISHING


async def test_the_intake_does_not_close_over_a_stop(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.request_stop("m2", "s1", "Bob")
    assert (await stage.store.begin_finishing(claim.turn.id, claim.fence)).stop_by == "Bob"
    assert (await stage.store.turn(claim.turn.id)).state is TurnState.RUNNING


async def test_closing_twice_is_closing_once(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.begin_finishing(claim.turn.id, claim.fence)
    assert (await stage.store.begin_finishing(claim.turn.id, claim.fence)).inputs == ()
    await stage.store.close_intake(claim.turn.id, claim.fence)
    assert (await stage.store.turn(claim.turn.id)).state is TurnState.FINISHING


async def test_ready_then_published(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.store.set_ready(claim.turn.id, claim.fence, "abc")
    assert (await stage.store.session("s1")).ready == "abc"
    await stage.store.set_published(claim.turn.id, claim.fence, "abc", PR)
    session = await stage.store.session("s1")
    assert (session.ready, session.published) == ("", "abc")
    assert (session.pull_request, session.pull_request_url) == (PR.number, PR.url)
    assert await stage.store.session_of(str(issue(PR.number))) == session
    assert await stage.store.threads("s1") == [slack("s1"), issue(PR.number)]


async def test_each_repository_of_a_session_has_a_branch_and_a_pull_request_of_its_own(
    stage: Stage,
) -> None:
    new = replace(await stage.session("s1", thread=slack("s1")), further=(API,))
    admitted = await stage.store.admit(new, stage.words(), new.thread)
    assert admitted.turn is not None
    claim = await stage.run(admitted.turn)
    turn, fence = claim.turn.id, claim.fence
    await stage.store.set_workspace("s1", "mine", "main", "abc", WEB.id)
    await stage.store.set_workspace("s1", "another", "main", "def", API.id)
    renamed = await stage.store.set_workspace("s1", "another", "dev", "ghi", API.id)
    web, api = renamed.each()
    assert (web.branch, web.base, web.base_sha) == ("mine", "main", "abc")
    assert (api.branch, api.base, api.base_sha) == ("mine", "dev", "def")
    assert (api.repository, api.tree) == (API, "api")
    await stage.store.set_ready(turn, fence, "old", WEB.id)
    await stage.store.set_ready(turn, fence, "new", API.id)
    await stage.store.set_published(turn, fence, "new", replace(PR, number=9, url="there"), API.id)
    session = await stage.store.session("s1")
    assert session.any_ready and session.pull_request == 0
    web, api = session.each()
    assert (web.ready, web.published, api.ready, api.published) == ("old", "", "", "new")
    assert (api.pull_request, api.pull_request_url) == (9, "there")
    for alias in ("github:2:9", "branch:1:mine", "branch:2:mine"):
        assert await stage.store.session_of(alias) == session


async def test_running_counts_turns_past_queued(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.start("s2")
    assert await stage.store.running() == 1
    await stage.store.close_intake(claim.turn.id, claim.fence)
    assert await stage.store.running() == 1
    await stage.finish(claim)
    assert await stage.store.running() == 0


async def test_the_picture_is_where_its_saying_was_posted(stage: Stage) -> None:
    admitted = await stage.start("s1")
    assert admitted.turn is not None
    assert (await stage.store.turn(admitted.turn)).timeline is None
    said = await stage.said()
    assert said[-1].kind is SayingKind.TIMELINE
    assert (await stage.store.turn(admitted.turn)).timeline is not None
    moved = MessageRef("slack", "C1", "elsewhere", url="https://slack.test/p1")
    await stage.store.set_timeline(admitted.turn, moved)
    assert (await stage.store.turn(admitted.turn)).timeline == moved


async def test_deferred_words_are_not_given_again_but_open_the_next_turn(stage: Stage) -> None:
    claim = await stage.running("s1")
    await stage.reply("not now")
    await stage.reply("queued", mode=Mode.QUEUE)
    [steer] = await stage.pending(claim.turn.id)
    await stage.store.record(claim.turn.id, claim.fence, Record(deferred=(steer.id,)))
    assert (await stage.store.begin_finishing(claim.turn.id, claim.fence)).inputs == ()
    follow_up = await stage.finish(claim)
    assert follow_up is not None and await stage.texts(follow_up) == ["not now", "queued"]


# Words that may not be obeyed any more


async def test_refused_words_are_dropped_and_told_once(stage: Stage) -> None:
    admitted = await stage.start("s1", "one")
    assert admitted.turn is not None
    claim = await stage.claim(admitted.turn)
    (words,) = await stage.pending(claim.turn.id)
    told = Saying("why", SayingKind.NOTE, slack("s1"), text="You may not.")
    assert await stage.store.refuse_input(claim.turn.id, claim.fence, words, told)
    assert not await stage.store.refuse_input(claim.turn.id, claim.fence, words, told)
    assert await stage.pending(claim.turn.id) == ()
    said = [one for one in await stage.said() if one.kind is SayingKind.NOTE or one.mark is Mark.DROPPED]
    assert len(said) == 2


async def test_words_that_were_edited_or_given_since_are_not_refused(stage: Stage) -> None:
    new = await stage.session("s1")
    admitted = await stage.store.admit(new, stage.words("a", key="m1"), new.thread)
    assert admitted.turn is not None
    claim = await stage.claim(admitted.turn)
    (words,) = await stage.pending(claim.turn.id)
    told = Saying("why", SayingKind.NOTE, slack("s1"), text="You may not.")
    await stage.store.revise("edit", "m1", "b")
    assert not await stage.store.refuse_input(claim.turn.id, claim.fence, words, told)
    await stage.consume(claim)
    (words,) = await stage.store.prompt_inputs(claim.turn.id)
    assert not await stage.store.refuse_input(claim.turn.id, claim.fence, words, told)
    assert all(one.kind is not SayingKind.NOTE for one in await stage.said())
    with pytest.raises(LeaseLost):
        await stage.store.refuse_input(claim.turn.id, claim.fence - 1, words, told)
