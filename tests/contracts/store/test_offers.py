"""What agents list, kept for whoever chooses next."""

from __future__ import annotations

from dataclasses import replace

from bot.models import Choice, Claim, Offered, OfferedModel, Offers, Record
from tests.contracts.store.stage import API, BOB, WEB, Stage, slack

WHOLE = Offered((OfferedModel("small", ("low",)), OfferedModel("large")), complete=("",))


async def told(stage: Stage, claim: Claim, offered: Offered = WHOLE, version: str = "1.0") -> None:
    record = Record(offers=Offers("claude", version, offered))
    await stage.store.record(claim.turn.id, claim.fence, record)


async def test_what_was_never_listed_is_not_known(stage: Stage) -> None:
    ann = (await stage.running()).session.owner.id
    assert await stage.store.offered("claude", "1.0", ann, WEB.id) is None


async def test_it_is_kept_as_it_was_listed_also_over_a_restart(stage: Stage) -> None:
    claim = await stage.running()
    await told(stage, claim)
    await stage.reopen()
    owner = claim.session.owner.id
    assert await stage.store.offered("claude", "1.0", owner, WEB.id) == WHOLE
    assert await stage.store.offered("codex", "1.0", owner, WEB.id) is None


async def test_the_newest_list_counts(stage: Stage) -> None:
    claim = await stage.running()
    await told(stage, claim)
    newer = replace(WHOLE, models=(OfferedModel("huge"),))
    await told(stage, claim, newer)
    assert await stage.store.offered("claude", "1.0", claim.session.owner.id, WEB.id) == newer


async def test_what_another_version_listed_is_not_used(stage: Stage) -> None:
    claim = await stage.running()
    await told(stage, claim)
    owner = claim.session.owner.id
    assert await stage.store.offered("claude", "2.0", owner, WEB.id) is None
    await told(stage, claim, version="2.0")
    assert await stage.store.offered("claude", "1.0", owner, WEB.id) is None


async def test_nothing_is_complete_elsewhere_and_nothing_is_known_to_others(stage: Stage) -> None:
    claim = await stage.running()
    await told(stage, claim)
    ann, bob = claim.session.owner.id, (await stage.store.person(BOB)).id
    part = replace(WHOLE, complete=())
    for repository in (API.id, 0):
        assert await stage.store.offered("claude", "1.0", ann, repository) == part
    assert await stage.store.offered("claude", "1.0", bob, WEB.id) is None


async def test_what_others_agents_list_is_not_told(stage: Stage) -> None:
    claim = await stage.running()
    await told(stage, claim)
    admitted = await stage.start("s2", by=BOB, thread=slack("s2"))
    assert admitted.turn is not None
    stage.clock.advance(10)
    await told(stage, await stage.run(admitted.turn), Offered((OfferedModel("bobs"),)))
    assert await stage.store.offered("claude", "1.0", claim.session.owner.id, WEB.id) == WHOLE
    elsewhere = await stage.store.offered("claude", "1.0", claim.session.owner.id, API.id)
    assert elsewhere is not None and elsewhere.names == WHOLE.names


async def test_permissions_stay_when_the_agent_changes_and_its_model_does_not(stage: Stage) -> None:
    new = await stage.session("s1")
    await stage.store.admit(new, stage.words(), new.thread)
    wanted = replace(stage.words("go on"), choice=Choice(model="large", permissions="ask"))
    await stage.store.admit("s1", wanted, new.thread)
    [turn] = await stage.store.boot("here")
    await stage.finish(await stage.run(turn))
    session = await stage.store.session("s1")
    assert (session.agent, session.model, session.permissions) == ("claude", "large", "ask")

    [turn] = await stage.store.boot("here")
    another = replace(stage.words("you do it"), choice=Choice(agent="codex"))
    await stage.store.admit("s1", another, new.thread)
    await stage.finish(await stage.run(turn))
    session = await stage.store.session("s1")
    assert (session.agent, session.model, session.permissions) == ("codex", "", "ask")


async def test_a_session_can_begin_with_permissions(stage: Stage) -> None:
    new = replace(await stage.session("s1"), permissions="plan")
    await stage.store.admit(new, stage.words(), new.thread)
    assert (await stage.store.session("s1")).permissions == "plan"
