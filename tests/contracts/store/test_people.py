"""People, channel defaults, and the sandboxes that belong to people."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from bot.models import Memory, Record, SandboxKey, SandboxState, SayingKind, TurnState
from tests.contracts.store.stage import ANN, API, BOB, WEB, ZOE, Stage, note, slack


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
    await stage.finish(before)
    stage.clock.advance(1)
    await stage.store.save_sandbox(mine, "box-1", "")
    assert await stage.store.checked_out(mine) == []  # its turn was in another one
    await stage.start("bobs", by=BOB)
    ended = await stage.start("ended", repository=API)
    assert ended.turn is not None
    await stage.finish(await stage.run(ended.turn))
    assert await stage.store.checked_out(mine) == [API]
    await stage.start("open", repository=WEB)
    await stage.start("again", repository=WEB)
    await stage.start("none", repository=None)
    assert await stage.store.checked_out(mine) == [WEB, API]
    assert await stage.store.checked_out(await key(stage, "daytona")) == [WEB]


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
