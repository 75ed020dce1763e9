"""The outbox: each key once, each thread in order, threads side by side."""

from __future__ import annotations

import asyncio

from bot.models import (
    Final,
    Mark,
    MessageRef,
    OutboxItem,
    Outcome,
    PullRequest,
    Saying,
    SayingKind,
    SharedFile,
)
from tests.contracts.store.stage import Stage, issue, note, slack


async def due(stage: Stage) -> list[OutboxItem]:
    return list(await stage.store.due(stage.clock.now(), 100))


async def keys(stage: Stage) -> list[str]:
    return [item.saying.key for item in await due(stage)]


async def test_a_saying_comes_out_as_it_went_in(stage: Stage) -> None:
    whole = Saying(
        "k1",
        SayingKind.FINAL,
        slack(),
        text="Done: 🐦",
        mention="U_ANN",
        ref=MessageRef("slack", "C1", "1.2", kind="reaction", url="https://slack.test"),
        mark=Mark.CONSUMED,
        final=Final(
            Outcome.PUBLISHED,
            "text",
            pull_request=PullRequest(5, "https://x", "t", "h", "b", "acme/web", created=False),
            notes=("one", "two"),
            seconds=1.5,
        ),
        private="https://response.test",
        file=SharedFile("/data/shared/1", "re\u202eport.txt", "What I found", 120_000),
    )
    assert await stage.store.say(whole)
    [item] = await due(stage)
    assert item.saying == whole
    assert (item.attempts, item.tried, item.created_at) == (0, False, stage.clock.now())


async def test_a_key_is_said_once(stage: Stage) -> None:
    assert await stage.store.say(note("k1"))
    assert not await stage.store.say(note("k1", text="again"))
    assert [one.text for one in await stage.said()] == ["hello"]
    assert not await stage.store.say(note("k1"))
    assert await keys(stage) == []


async def test_saying_rings(stage: Stage) -> None:
    watch = stage.store.watch("outbox")
    await stage.store.say(note("k1"))
    await asyncio.wait_for(watch.wait(3600), 5)


async def test_only_the_head_of_each_lane_is_due(stage: Stage) -> None:
    for key, thread in (("a1", slack("a")), ("a2", slack("a")), ("b1", issue(1)), ("b2", issue(1))):
        await stage.store.say(note(key, thread))
    first, second = await due(stage)
    assert [first.saying.key, second.saying.key] == ["a1", "b1"]
    watch = stage.store.watch("outbox")
    await stage.store.sent(first.id, None)
    await asyncio.wait_for(watch.wait(3600), 5)
    assert await keys(stage) == ["a2", "b1"]
    assert len(await stage.store.due(stage.clock.now(), 1)) == 1


async def test_a_postponed_head_holds_its_lane_and_no_other(stage: Stage) -> None:
    for key, thread in (("a1", slack("a")), ("a2", slack("a")), ("b1", slack("b"))):
        await stage.store.say(note(key, thread))
    head = (await due(stage))[0]
    await stage.store.sending(head.id)
    await stage.store.postpone(head.id, stage.clock.now() + 30, "busy")
    assert await keys(stage) == ["b1"]
    stage.clock.advance(30)
    again = (await due(stage))[0]
    assert (again.saying.key, again.attempts, again.tried) == ("a1", 1, True)


async def test_what_was_being_sent_is_looked_for_first_after_a_crash(stage: Stage) -> None:
    await stage.store.say(note("a1", slack("a")))
    await stage.store.say(note("a2", slack("a")))
    [head] = await due(stage)
    await stage.store.sending(head.id)
    await stage.reopen()
    await stage.store.boot("here")
    [again] = await due(stage)
    assert (again.saying.key, again.tried) == ("a1", True)


async def test_a_refused_saying_lets_its_lane_go_on(stage: Stage) -> None:
    await stage.store.say(note("a1", slack("a")))
    await stage.store.say(note("a2", slack("a")))
    [head] = await due(stage)
    watch = stage.store.watch("outbox")
    await stage.store.refused(head.id, "channel_not_found")
    await asyncio.wait_for(watch.wait(3600), 5)
    assert await keys(stage) == ["a2"]
    assert not await stage.store.say(note("a1", slack("a")))


async def test_what_is_settled_stays_settled(stage: Stage) -> None:
    await stage.store.say(note("a1"))
    [item] = await due(stage)
    await stage.store.sent(item.id, None)
    await stage.store.sending(item.id)
    await stage.store.postpone(item.id, 0.0, "late")
    await stage.store.refused(item.id, "late")
    assert await keys(stage) == []


async def test_files_that_are_still_to_be_said_are_named(stage: Stage) -> None:
    for number, thread in enumerate((slack("a"), slack("a"), slack("b"), issue(1))):
        file = SharedFile(f"/data/shared/{number}", "report.txt", "", 9)
        await stage.store.say(Saying(f"file:{number}", SayingKind.FILE, thread, file=file))
    await stage.store.say(note("k1", slack("c")))
    first, second, third, _ = await due(stage)
    await stage.store.sent(first.id, None)
    await stage.store.refused(second.id, "no")
    await stage.store.sending(third.id)
    assert sorted(await stage.store.shared_files()) == ["/data/shared/1", "/data/shared/3"]
