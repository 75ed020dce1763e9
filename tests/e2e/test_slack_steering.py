"""What is written in a Slack thread while a turn is under way, at each of its stages."""

from __future__ import annotations

import pytest

from tests.e2e.rig import CODE_IN, CONSUMED, PUSH, SEEN, WAITS, Rig, at_gate

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST = "!write first.txt first\n!commit First"
MORE = "!write more.txt more\n!commit More"


async def test_a_message_while_it_runs_steers_and_is_ticked_off_when_consumed(shared: Rig) -> None:
    root = shared.mention(f"{at_gate('steer')}\n{FIRST}")
    await shared.reached("steer")
    steer = shared.reply(root, MORE, by="U_BEN")
    await shared.shows(root, "Steered by ben")  # the agent has been told, but it is busy
    await shared.marked(steer, SEEN)
    shared.open_gate("steer")
    await shared.marked(steer, CONSUMED)
    final = await shared.final(root)
    diff = await shared.diff(final)
    assert "+first" in diff and "+more" in diff
    assert len(shared.finals(root)) == len(shared.timelines(root)) == 1
    assert "Asked for by ana, ben" in (shared.pull(final).body or "")


async def test_a_message_while_it_prepares_goes_into_the_first_prompt(shared: Rig) -> None:
    with shared.holding(CODE_IN) as arrived:
        root = shared.mention(FIRST)
        await arrived()
        second = shared.reply(root, MORE)
        await shared.marked(second, SEEN)
    final = await shared.final(root)
    diff = await shared.diff(final)
    assert "+first" in diff and "+more" in diff
    assert "Steered by" not in shared.picture(root)
    assert len(shared.finals(root)) == 1
    await shared.marked(second, CONSUMED)


async def test_an_edit_or_a_deletion_of_a_message_that_waits_counts(shared: Rig) -> None:
    with shared.holding(CODE_IN) as arrived:
        root = shared.mention(FIRST)
        await arrived()
        edited = shared.reply(root, "!write wrong.txt wrong\n!commit Wrong")
        deleted = shared.reply(root, "!write gone.txt gone\n!commit Gone")
        await shared.marked(deleted, SEEN)
        shared.slack.edit("U_ANA", "C_DEV", edited, MORE)
        shared.slack.delete("U_ANA", "C_DEV", deleted)
        assert "is preparing" in await shared.status(root)
    diff = await shared.diff(await shared.final(root))
    assert "+first" in diff and "+more" in diff
    assert "wrong" not in diff and "gone" not in diff


async def test_a_message_while_it_finishes_starts_the_next_turn_by_itself(shared: Rig) -> None:
    with shared.holding(PUSH) as arrived:
        root = shared.mention(FIRST)
        await arrived()
        second = shared.reply(root, MORE)
        await shared.marked(second, WAITS)
    first, final = await shared.final(root), await shared.final(root, 2)
    assert shared.pull(first) is shared.pull(final)
    assert "+more" in await shared.diff(final)
    await shared.marked(second, CONSUMED)
    assert len(shared.timelines(root)) == 2


async def test_a_queued_message_waits_for_the_next_turn(shared: Rig) -> None:
    root = shared.mention(f"{at_gate('queue')}\n{FIRST}")
    await shared.reached("queue")
    queued = shared.reply(root, f"queue: {MORE}")
    await shared.marked(queued, WAITS)
    shared.open_gate("queue")
    first, second = await shared.final(root), await shared.final(root, 2)
    assert shared.pull(first) is shared.pull(second)
    assert "+more" in await shared.diff(second)
    await shared.marked(queued, CONSUMED)


async def test_an_interrupting_message_stops_the_turn_and_starts_with_it(shared: Rig) -> None:
    root = shared.mention(f"{at_gate('interrupt')}\n{FIRST}")
    await shared.reached("interrupt")
    shared.reply(root, f"interrupt: {MORE}")
    assert "Stopped by ana" in (await shared.final(root)).shown
    diff = await shared.diff(await shared.final(root, 2))
    assert "+more" in diff and "first" not in diff
