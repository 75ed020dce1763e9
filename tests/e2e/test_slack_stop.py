"""Stop in a Slack thread, at each stage of a turn, and who may."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from handlers.slack.ids import STOP_ACTION
from tests.e2e.rig import CODE_IN, CONSUMED, PUSH, REFUSED, REPOSITORY, Rig, at_gate, rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = "!write work.txt work\n!commit Work"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(tmp_path_factory.mktemp("rig"), SANDPIPER_CAP_PERSON="1") as running:
        yield running


async def test_stop_while_it_runs_keeps_the_work_and_publish_needs_no_new_run(shared: Rig) -> None:
    pulls = len(shared.github.pull_requests(REPOSITORY))
    root = shared.mention(f"{WORK}\n!write loose.txt loose\n{at_gate('stop')}\n!write never.txt never")
    await shared.reached("stop")
    await shared.stop(root)
    stopped = await shared.final(root)
    assert "Stopped by ana" in stopped.shown and "Say `publish`" in stopped.shown
    assert "`loose.txt`" in stopped.shown and "refs/sandpiper/kept/turn-" in stopped.shown
    assert "Stopped after" in shared.picture(root)
    assert len(shared.github.pull_requests(REPOSITORY)) == pulls

    shared.mention("publish", thread=root)
    published = await shared.final(root, 2)
    diff = await shared.diff(published)
    assert "+work" in diff and "+loose" in diff and "never" not in diff
    assert "Starting scripted" not in shared.picture(root)

    shared.mention("publish", thread=root)
    await shared.slack_until(lambda: bool(shared.notes(root)))
    assert "There is no unpublished work here" in shared.notes(root)[-1]


async def test_stop_while_it_prepares(shared: Rig) -> None:
    with shared.holding(CODE_IN) as arrived:
        root = shared.mention(WORK)
        await arrived()
        await shared.stop(root)
        stopped = await shared.final(root)  # without waiting for what is held up
    assert "Stopped by ana" in stopped.shown
    assert "Nothing is running here" in await shared.status(root)
    assert len(shared.finals(root)) == 1

    shared.reply(root, "!write again.txt again\n!commit Again")
    again = await shared.final(root, 2)
    diff = await shared.diff(again)
    assert "+again" in diff and "+work" in diff  # what was held goes in with the next message


async def test_stop_while_it_is_queued(shared: Rig) -> None:
    busy = shared.mention(f"{at_gate('busy')}\n!answer Free again.")
    await shared.reached("busy")
    root = shared.mention(WORK)
    await shared.shows(root, "Waiting, ")
    await shared.stop(root)
    assert "Stopped by ana" in (await shared.final(root)).shown
    assert not shared.finals(busy)
    shared.open_gate("busy")
    assert "Free again." in (await shared.final(busy)).shown
    assert "Nothing is running here" in await shared.status(root)


async def test_a_queued_turn_starts_when_there_is_room(shared: Rig) -> None:
    busy = shared.mention(f"{at_gate('room')}\n!answer Free again.")
    await shared.reached("room")
    root = shared.mention(WORK)
    await shared.shows(root, "Waiting, 1 turn is before this one")
    shared.open_gate("room")
    assert "+work" in await shared.diff(await shared.final(root))
    assert len(shared.finals(busy)) == 1


async def test_stop_while_it_publishes_comes_too_late_and_says_so(shared: Rig) -> None:
    with shared.holding(PUSH) as arrived:
        root = shared.mention(WORK)
        await arrived()
        await shared.shows(root, "Opening the pull request")
        assert STOP_ACTION not in shared.picture(root)
        await shared.stop(root, earlier=True)
        await shared.slack_until(
            lambda: any("Already published" in post.shown for post in shared.slack.ephemerals("U_ANA"))
        )
        shared.mention("stop", thread=root)
        await shared.slack_until(lambda: bool(shared.notes(root)))
        assert "Already published" in shared.notes(root)[0]
    final = await shared.final(root)
    assert "+work" in await shared.diff(final)
    assert "Stopped" not in final.shown and "Stopped" not in shared.picture(root)
    assert "Nothing is running here" in await shared.status(root)
    assert len(shared.finals(root)) == 1


async def test_who_may_not_can_neither_steer_nor_stop(shared: Rig) -> None:
    root = shared.mention(f"{at_gate('eve')}\n{WORK}")
    await shared.reached("eve")
    reply = shared.reply(root, "!write eve.txt eve\n!commit Eve", by="U_EVE")
    await shared.stop(root, by="U_EVE")
    await shared.marked(reply, REFUSED)
    await shared.slack_until(lambda: bool(shared.slack.ephemerals("U_EVE")))
    assert "not on the list" in shared.slack.ephemerals("U_EVE")[-1].shown
    assert "is running" in await shared.status(root)
    shared.open_gate("eve")
    final = await shared.final(root)
    diff = await shared.diff(final)
    assert "+work" in diff and "eve" not in diff
    assert shared.reactions(root) == {CONSUMED}
