"""People, channel defaults, and the sandboxes that belong to people."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

from bot.models import (
    Closing,
    Memory,
    Record,
    Repository,
    SandboxKey,
    SandboxState,
    SayingKind,
    Stale,
    Standing,
    TurnState,
)
from tests.contracts.store.stage import ANN, API, BOB, PR, WEB, ZOE, Stage, note, slack

DOCS = Repository(3, "acme/docs", "main", True, 7)


async def test_an_identity_is_the_same_person_every_time(stage: Stage) -> None:
    people = await asyncio.gather(*(stage.store.person(ANN) for _ in range(5)))
    assert len({one.id for one in people}) == 1
    assert people[0].tenant == "slack:T1"
    assert (await stage.store.person(BOB)).id != people[0].id


async def test_a_person_is_of_one_tenant(stage: Stage) -> None:
    same_account = replace(ZOE, user=ANN.user)
    assert (await stage.store.person(same_account)).id != (await stage.store.person(ANN)).id


async def test_a_new_name_is_learned(stage: Stage) -> None:
    ann = await stage.store.person(ANN)
    renamed = await stage.store.person(replace(ANN, name="Ann B."))
    assert renamed.id == ann.id
    await stage.start("s1")  # as Ann again
    assert (await stage.store.session("s1")).owner.identity.name == "Ann"


async def test_a_channels_default_repository(stage: Stage) -> None:
    assert await stage.store.repository_default("slack:T1/C1") == ""
    assert await stage.store.set_repository_default("m1", "slack:T1/C1", "acme/web", ANN, note("default:m1"))
    assert await stage.store.repository_default("slack:T1/C1") == "acme/web"
    assert [one.key for one in await stage.said()] == ["default:m1"]


async def test_setting_a_default_twice_by_one_message_is_one_effect(stage: Stage) -> None:
    await stage.store.set_repository_default("m1", "slack:T1/C1", "acme/web", ANN, note("a"))
    await stage.store.set_repository_default("m2", "slack:T1/C1", "acme/api", ANN, note("b"))
    assert not await stage.store.set_repository_default("m1", "slack:T1/C1", "acme/web", ANN, note("c"))
    assert await stage.store.repository_default("slack:T1/C1") == "acme/api"
    assert [one.key for one in await stage.said()] == ["a", "b"]


async def key(stage: Stage, provider: str = "local") -> SandboxKey:
    return SandboxKey("main", ANN.tenant, (await stage.store.person(ANN)).id, provider)


async def test_a_sandbox_is_remembered_by_its_key(stage: Stage) -> None:
    mine = await key(stage)
    assert await stage.store.sandbox(mine) is None
    saved = await stage.store.save_sandbox(mine, "box-1", "host-1")
    assert await stage.store.sandbox(mine) == saved
    assert (saved.provider_id, saved.host, saved.key) == ("box-1", "host-1", mine)
    assert await stage.store.sandbox(await key(stage, "daytona")) is None


async def test_whose_code_is_in_a_sandbox(stage: Stage) -> None:
    mine = await key(stage)
    assert await stage.store.checked_out(mine) == []
    before = await stage.running("before")
    await stage.store.bring_code(before.turn.id, before.fence)
    await stage.finish(before)
    stage.clock.advance(1)
    await stage.store.save_sandbox(mine, "box-1", "")
    assert await stage.store.checked_out(mine) == []  # its turn was in another one
    await stage.start("bobs", by=BOB)
    ended = await stage.start("ended", repository=API)
    assert ended.turn is not None
    claim = await stage.run(ended.turn)
    await stage.store.bring_code(claim.turn.id, claim.fence)
    await stage.finish(claim)
    assert await stage.store.checked_out(mine) == [API]
    await stage.start("open", repository=WEB)
    await stage.start("again", repository=WEB)
    await stage.start("none", repository=None)
    both = replace(await stage.session("both", thread=slack("both")), further=(DOCS,))
    await stage.store.admit(both, stage.words(), both.thread)
    assert await stage.store.checked_out(mine) == [WEB, API, DOCS]
    assert await stage.store.checked_out(await key(stage, "daytona")) == [WEB, DOCS]


async def test_code_of_a_turn_that_ended_before_it_came_is_in_no_sandbox(stage: Stage) -> None:
    mine = await key(stage)
    await stage.store.save_sandbox(mine, "box-1", "")
    waits = await stage.running("s1")
    assert await stage.store.checked_out(mine) == [WEB]  # it may come any moment
    await stage.finish(waits, TurnState.STOPPED)
    assert await stage.store.checked_out(mine) == []
    brings = await stage.run((await stage.reply("again")).turn or 0)
    await stage.store.bring_code(brings.turn.id, brings.fence)
    await stage.finish(brings, TurnState.FAILED)
    await stage.finish(await stage.run((await stage.reply("and again")).turn or 0), TurnState.STOPPED)
    assert await stage.store.checked_out(mine) == [WEB]  # of what came before, it takes nothing away


async def test_a_sandbox_that_is_gone_is_replaced(stage: Stage) -> None:
    mine = await key(stage)
    await stage.store.save_sandbox(mine, "box-1", "")
    await stage.store.save_sandbox(mine, "box-2", "")
    row = await stage.store.sandbox(mine)
    assert row is not None and row.provider_id == "box-2"


async def test_all_threads_whose_work_was_in_a_sandbox_that_is_gone_are_told(stage: Stage) -> None:
    mine = await key(stage)
    await stage.store.save_sandbox(mine, "box-1", "")
    for session in ("s1", "s2"):
        claim = await stage.running(session)
        await stage.store.set_ready(claim.turn.id, claim.fence, "abc")
    await stage.running("s3")
    await stage.said()

    for _ in range(2):
        await stage.store.save_sandbox(mine, "box-2", "")

    told = await stage.said()
    assert [(one.kind, one.thread) for one in told] == [
        (SayingKind.NOTE, slack("s1")),
        (SayingKind.NOTE, slack("s2")),
    ]
    assert "not published is lost" in told[0].text
    assert (await stage.store.session("s1")).ready == ""


async def test_a_sandbox_that_was_deleted_leaves_why(stage: Stage) -> None:
    mine = await key(stage)
    saved = await stage.store.save_sandbox(mine, "box-1", "")
    claim = await stage.running("s1")
    await stage.store.record(
        claim.turn.id, claim.fence, Record(memory=Memory("token", "lines", "1", "box-1"))
    )
    await stage.store.set_ready(claim.turn.id, claim.fence, "abc")
    await stage.said()

    await stage.store.forget_sandbox(saved.id, "box-0", "another one")
    assert await stage.store.sandbox(mine) == saved
    for _ in range(2):
        await stage.store.forget_sandbox(saved.id, "box-1", "it was too old")

    row = await stage.store.sandbox(mine)
    assert row is not None and (row.provider_id, row.lost) == ("", "it was too old")
    assert await stage.store.sandboxes("main", "local") == []
    session = await stage.store.session("s1")
    assert (session.ready, session.memory.token) == ("", "")
    assert ["is lost: it was too old." in one.text for one in await stage.said()] == [True]

    await stage.store.save_sandbox(mine, "box-2", "")
    row = await stage.store.sandbox(mine)
    assert row is not None and (row.provider_id, row.lost) == ("box-2", "")
    assert await stage.said() == [], "nothing is lost twice"


async def test_where_a_sandbox_is_can_be_noted_once_and_nothing_else_changes(stage: Stage) -> None:
    mine = await key(stage)
    saved = await stage.store.save_sandbox(mine, "box-1", "")
    await stage.store.pin_sandbox(saved.id, True)
    before = await stage.store.sandbox(mine)
    assert before is not None
    stage.clock.advance(10)

    await stage.store.note_sandbox_host(saved.id, "box-0", "account:org-0")  # of one that it was before
    assert await stage.store.sandbox(mine) == before
    for account in ("account:org-1", "account:org-2"):
        await stage.store.note_sandbox_host(saved.id, "box-1", account)
        assert await stage.store.sandbox(mine) == replace(before, host="account:org-1")


async def test_since_when_a_sandbox_is_as_it_is(stage: Stage) -> None:
    mine = await key(stage)
    saved = await stage.store.save_sandbox(mine, "box-1", "")
    began = stage.clock.now()

    async def seen() -> tuple[SandboxState | None, float]:
        row = await stage.store.sandbox(mine)
        assert row is not None
        return row.state, row.state_at - began

    for state, at in (
        (SandboxState.RUNNING, 0.0),
        (SandboxState.STOPPED, 20.0),
        (SandboxState.STOPPED, 20.0),
    ):
        stage.clock.advance(10)
        await stage.store.saw_sandbox(saved.id, state)
        assert await seen() == (state, at)
    stage.clock.advance(10)
    await stage.store.touch_sandbox(saved.id)
    assert await seen() == (SandboxState.RUNNING, 40.0)


async def test_pinned_sandboxes_are_neither_idle_nor_expired(stage: Stage) -> None:
    row = await stage.store.save_sandbox(await key(stage), "box-1", "")
    await stage.store.pin_sandbox(row.id, True)
    stage.clock.advance(100)
    now = stage.clock.now()
    assert not [*await stage.store.idle_sandboxes(now), *await stage.store.expired_sandboxes(now)]
    await stage.store.pin_sandbox(row.id, False)
    assert await stage.store.expired_sandboxes(now) == [], "it was used now"
    assert len(await stage.store.expired_sandboxes(now + 1)) == 1


async def test_a_pin_is_of_one_sandbox_and_not_of_the_next(stage: Stage) -> None:
    mine = await key(stage)
    row = await stage.store.save_sandbox(mine, "box-1", "")
    await stage.store.pin_sandbox(row.id, True)
    assert (await stage.store.save_sandbox(mine, "box-1", "")).pinned
    assert not (await stage.store.save_sandbox(mine, "box-2", "")).pinned
    await stage.store.pin_sandbox(row.id, True)
    await stage.store.forget_sandbox(row.id, "box-2", "it was deleted")
    assert not (await stage.store.save_sandbox(mine, "box-3", "")).pinned


async def test_sandboxes_of_a_former_provider_are_known_still(stage: Stage) -> None:
    mine = await key(stage)
    await stage.store.save_sandbox(mine, "box-1", "")
    await stage.store.save_sandbox(replace(mine, provider="former"), "box-2", "")
    assert [row.provider_id for row in await stage.store.sandboxes(mine.installation, mine.provider)] == [
        "box-1"
    ]
    assert [row.provider_id for row in await stage.store.sandboxes(mine.installation)] == ["box-1", "box-2"]


async def test_a_sandbox_with_any_open_turn_is_not_expired(stage: Stage) -> None:
    await stage.store.save_sandbox(await key(stage), "box-1", "")
    admitted = await stage.start("s1")
    stage.clock.advance(100)
    assert await stage.store.expired_sandboxes(stage.clock.now()) == []
    assert admitted.turn is not None
    claim = await stage.run(admitted.turn)
    assert await stage.store.expired_sandboxes(stage.clock.now()) == []
    await stage.finish(claim, TurnState.DONE)
    assert len(await stage.store.expired_sandboxes(stage.clock.now())) == 1


async def test_a_reset_is_remembered_by_its_number_once_per_message(stage: Stage) -> None:
    mine = await key(stage)
    row = await stage.store.save_sandbox(mine, "box-1", "")
    first = await stage.store.new_reset("m1", row, slack(), ["s1"], 5.0)
    assert await stage.store.new_reset("m1", row, slack(), [], 9.0) == first
    assert (await stage.store.new_reset("m2", row, slack(), [], 5.0)).number != first.number
    assert await stage.store.reset(first.number) == first
    assert (first.told, first.provider_id, first.thread) == (("s1",), "box-1", slack())
    assert await stage.store.reset(99) is None


async def test_open_and_worked_sessions_of_a_person(stage: Stage) -> None:
    ann = await stage.store.person(ANN)
    for session in ("s1", "s2"):
        claim = await stage.running(session)
    await stage.finish(claim, TurnState.DONE)
    await stage.store.set_workspace("s2", "sandpiper/2", "main", "abc")
    assert [one.id for one in await stage.store.open_sessions(ann.id)] == ["s1"]
    assert [one.id for one in await stage.store.worked_sessions(ann.id)] == ["s2"]
    assert await stage.store.known_person(ann.id) == ann
    assert await stage.store.known_person(99) is None


def since(worked: float, closed: float = 0.0, tried: float = math.inf) -> Stale:
    return Stale(worked, closed, tried)


async def test_sessions_that_nobody_has_worked_in_for_long(stage: Stage) -> None:
    ann = await stage.store.person(ANN)

    async def stale(before: float) -> list[str]:
        tried = stage.clock.now()
        return [one.id for one in await stage.store.stale_sessions(ann.id, since(before, tried=tried), 9)]

    for session in ("old", "older", "at-work"):
        claim = await stage.running(session)
        await stage.store.set_workspace(session, f"sandpiper/{session}", "main", "abc")
        if session != "at-work":
            await stage.finish(claim, TurnState.DONE)
        stage.clock.advance(10)
    await stage.finish(await stage.running("never-worked"), TurnState.DONE)
    now = stage.clock.now()
    assert await stale(now) == ["old", "older"]
    assert [one.id for one in await stage.store.stale_sessions(ann.id, since(now), 1)] == ["old"]
    assert await stale(now - 25) == ["old"], "the other one was at work since"
    await stage.store.put_away("old", whole=True)
    assert await stale(now) == ["older"]
    await stage.store.put_away("older", whole=False)
    assert await stale(now) == []
    stage.clock.advance(1)
    assert await stale(now) == ["older"], "what had to stay is tried again, though not at once"
    await stage.store.set_workspace("old", "sandpiper/old", "main", "abc")  # it is back
    assert await stale(now) == ["old", "older"]
    assert not await stage.store.stale_sessions((await stage.store.person(BOB)).id, since(now), 9)


async def test_sessions_whose_pull_requests_are_done_with(stage: Stage) -> None:
    ann = await stage.store.person(ANN)

    async def stale(*, closed: float) -> list[str]:
        return [one.id for one in await stage.store.stale_sessions(ann.id, since(0.0, closed), 9)]

    for session, number in (("merged", 5), ("open", 6), ("none", 0)):
        claim = await stage.running(session)
        await stage.store.set_workspace(session, f"sandpiper/{session}", "main", "abc")
        if number:
            pull = replace(PR, number=number)
            await stage.store.set_published(claim.turn.id, claim.fence, "def", pull)
        await stage.consume(claim)
        await stage.finish(claim, TurnState.DONE)
    stage.clock.advance(10)
    assert await stage.store.close_pull_request(Closing(WEB.id, 5))
    assert not await stage.store.close_pull_request(Closing(WEB.id, 7)), "it is nobody's"
    assert not await stage.store.close_pull_request(Closing(API.id, 6)), "nor is that of another repository"
    assert await stale(closed=stage.clock.now()) == []
    stage.clock.advance(10)
    assert await stale(closed=stage.clock.now()) == ["merged"]
    assert await stage.store.close_pull_request(Closing(WEB.id, 5, open=True))
    assert await stale(closed=stage.clock.now()) == []


async def test_sandboxes_are_idle_when_unused_for_long(stage: Stage) -> None:
    row = await stage.store.save_sandbox(await key(stage), "box-1", "")
    assert await stage.store.idle_sandboxes(stage.clock.now()) == []
    stage.clock.advance(100)
    assert await stage.store.idle_sandboxes(stage.clock.now() - 50) == [row]
    await stage.store.touch_sandbox(row.id)
    assert await stage.store.idle_sandboxes(stage.clock.now() - 50) == []


async def test_a_sandbox_with_a_turn_is_never_idle(stage: Stage) -> None:
    await stage.store.save_sandbox(await key(stage), "box-1", "")
    admitted = await stage.start("s1")
    stage.clock.advance(100)
    assert len(await stage.store.idle_sandboxes(stage.clock.now())) == 1, "a queued turn needs no sandbox"
    assert admitted.turn is not None
    claim = await stage.run(admitted.turn)
    assert await stage.store.idle_sandboxes(stage.clock.now()) == []
    await stage.finish(claim, TurnState.DONE)
    assert len(await stage.store.idle_sandboxes(stage.clock.now())) == 1


async def test_audit_takes_any_row(stage: Stage) -> None:
    await stage.store.audit("slack:T1/U_ANN", "denied", "slack:T1/C1:1", "not on the list")


LEFT = Standing(ANN.tenant, ANN.user, why="deactivated")


async def test_whoever_leaves_stops_their_own_turns_queued_ones_too(stage: Stage) -> None:
    running, queued, bobs = [
        (await stage.start(id, by=by)).turn or 0 for id, by in ((("s1", ANN), ("s2", ANN), ("s3", BOB)))
    ]
    await stage.run(running)
    stage.woken.taken()
    assert await stage.store.note_standing(LEFT) == ["s1", "s2"]
    assert await stage.store.note_standing(LEFT) == [], "they are asked once"
    assert stage.woken.taken() == [queued], "it has no place to wait for"
    stops = [(await stage.store.inbox(turn)).stop_by for turn in (running, queued, bobs)]
    assert stops == ["Sandpiper: deactivated", "Sandpiper: deactivated", ""]


async def test_a_push_that_is_under_way_is_not_stopped_by_a_departure(stage: Stage) -> None:
    claim = await stage.run((await stage.start("s1")).turn or 0)
    await stage.store.close_intake(claim.turn.id, claim.fence)
    assert await stage.store.begin_push(claim.turn.id, claim.fence)
    assert await stage.store.note_standing(LEFT) == []


async def test_a_whole_tenant_and_one_of_its_people_leave_and_return_apart(stage: Stage) -> None:
    for who in (ANN, BOB, ZOE):
        person = await stage.store.person(who)
        await stage.store.save_sandbox(SandboxKey("here", who.tenant, person.id, "local"), who.user, "")

    async def due() -> list[str]:
        return [row.provider_id for row in await stage.store.departed_sandboxes(stage.clock.now() + 1)]

    assert await due() == []
    await stage.store.note_standing(LEFT)
    await stage.store.note_standing(Standing(ANN.tenant, why="uninstalled"))
    assert await due() == ["U_ANN", "U_BOB"]
    await stage.store.note_standing(Standing(ANN.tenant))
    assert await due() == ["U_ANN"]
    await stage.store.note_standing(Standing(ANN.tenant, ANN.user))
    assert await due() == []


async def test_the_time_since_somebody_left_does_not_begin_anew(stage: Stage) -> None:
    person = await stage.store.person(ANN)
    await stage.store.save_sandbox(SandboxKey("here", ANN.tenant, person.id, "local"), "box", "")
    left = stage.clock.now()
    await stage.store.note_standing(LEFT)
    stage.clock.advance(1000)
    await stage.store.note_standing(LEFT)
    assert len(await stage.store.departed_sandboxes(left + 1)) == 1
    assert not await stage.store.departed_sandboxes(left)


async def test_a_repository_that_is_taken_away_ends_whatever_works_on_it_too(stage: Stage) -> None:
    both = replace(await stage.session("s1"), further=(API,))
    await stage.store.admit(both, stage.words(), slack())
    await stage.start("s2")
    assert await stage.store.note_standing(Standing(repository=API.id, why="withdrawn")) == ["s1"]
    whole = Standing("github:7", installation=API.installation, why="uninstalled")
    assert await stage.store.note_standing(whole) == ["s2"]


async def test_what_is_kept_in_a_sandbox_of_another_provider_is_not_lost_with_this_one(stage: Stage) -> None:
    mine, far = await key(stage), await key(stage, "daytona")
    await stage.store.save_sandbox(far, "box-far", "")
    await stage.store.save_sandbox(mine, "box-1", "")
    for session, box in (("s1", "box-1"), ("s2", "box-far")):
        claim = await stage.running(session)
        await stage.store.opened_in(session, box)
        await stage.store.set_ready(claim.turn.id, claim.fence, "abc")
    await stage.store.save_sandbox(mine, "box-2", "")
    assert (await stage.store.session("s1")).ready == ""
    assert (await stage.store.session("s2")).ready == "abc"
    assert await stage.store.sandbox_kept(mine.person, "box-1") is None
    assert await stage.store.sandbox_kept(mine.person, "box-far") == await stage.store.sandbox(far)


async def test_a_session_knows_where_its_hooks_were_run_since_it_was_opened(stage: Stage) -> None:
    await stage.start("s1")
    await stage.store.opened_in("s1", "box-1")
    assert (await stage.store.hooked_in("s1", "box-1")).hooked_in == "box-1"
    assert (await stage.store.opened_in("s1", "box-1")).hooked_in == ""
