"""What an agent asks people in a Slack thread: who may answer, what is bound to what, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.playground.slack_state import Message
from handlers.slack.ids import ANSWER_ACTION, APPROVE_ACTION, DENY_ACTION
from tests.e2e.rig import CONSUMED, DEV, Rig, marker, rig

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def asked(it: Rig, root: str, number: int = 1) -> Message:
    """The n-th thing that was asked in a thread."""

    def asks() -> list[Message]:
        return [post for post in it.thread(root) if marker(post).startswith("ask:")]

    await it.slack_until(lambda: len(asks()) >= number)
    return asks()[number - 1]


def number_of(ask: Message) -> str:
    return marker(ask).removeprefix("ask:")


async def shows(it: Rig, root: str, words: str) -> None:
    await it.slack_until(lambda: any(words in post.shown for post in it.thread(root)))


async def test_a_click_of_who_was_asked_allows_exactly_what_was_shown(shared: Rig) -> None:
    root = shared.mention("!may echo approved > approved.txt\n!commit Approved")
    ask = await asked(shared, root)
    assert "echo approved &gt; approved.txt" in ask.shown or "echo approved > approved.txt" in str(ask.blocks)
    assert "<@U_ANA>" in ask.shown
    await shared.shows(root, "Waiting for an answer")
    await shared.slack.click("U_ANA", DEV, ask.ts, APPROVE_ACTION)
    final = await shared.final(root)
    assert "+approved" in await shared.diff(final)
    await shows(shared, root, "ana approved")
    assert APPROVE_ACTION not in str((await asked(shared, root)).blocks)


async def test_nobody_else_may_answer_though_they_may_steer(shared: Rig) -> None:
    root = shared.mention("!may echo no > no.txt")
    ask = await asked(shared, root)
    await shared.slack.click("U_BEN", DEV, ask.ts, APPROVE_ACTION)
    await shared.slack_until(
        lambda: any("Only ana may answer this" in post.text for post in shared.slack.ephemerals("U_BEN"))
    )
    shared.reply(root, f"approve {number_of(ask)}", by="U_BEN")
    shared.reply(root, f"approve {int(number_of(ask)) + 1}")
    shared.reply(root, "approve")
    await shows(shared, root, f"`approve {number_of(ask)}`")
    await shared.slack.click("U_ANA", DEV, ask.ts, DENY_ACTION)
    final = await shared.final(root)
    assert "ana said no" in final.shown
    await shows(shared, root, "ana denied")


async def test_a_button_of_an_earlier_turn_does_nothing(shared: Rig) -> None:
    first = shared.mention("!may echo 1")
    old = await asked(shared, first)
    await shared.stop(first)
    await shared.final(first)
    await shows(shared, first, "Not needed any more")
    shared.reply(first, "!may echo 2")
    new = await asked(shared, first, 2)
    shared.reply(first, f"approve {number_of(old)}")
    await shows(shared, first, "answered before, or too late")
    assert len(shared.finals(first)) == 1
    shared.reply(first, f"approve {number_of(new)}")
    assert "echo 2: 2" in (await shared.final(first, 2)).shown


async def test_a_reply_answers_a_question_and_others_still_steer(shared: Rig) -> None:
    root = shared.mention("!ask Which colour? | Red | Blue\n!write colour.txt c\n!commit Colour")
    ask = await asked(shared, root)
    assert "Which colour?" in ask.shown and "Blue" in str(ask.blocks)
    shared.reply(root, "Mauve, please", by="U_BEN")
    answer = shared.reply(root, "Teal")
    await shared.marked(answer, CONSUMED)
    final = await shared.final(root)
    assert "was told: Teal" in final.shown and "Mauve" in final.shown
    await shows(shared, root, "ana: Teal")


async def test_a_click_on_an_option_answers_too(shared: Rig) -> None:
    root = shared.mention("!ask Which colour? | Red | Blue")
    ask = await asked(shared, root)
    await shared.slack.click("U_ANA", DEV, ask.ts, f"{ANSWER_ACTION}_1")
    assert "was told: Blue" in (await shared.final(root)).shown


async def test_what_is_too_long_to_be_shown_whole_is_not_asked_for(shared: Rig) -> None:
    root = shared.mention(f"!may echo {'x' * 41_000}")
    await shared.final(root)  # whose end, with the reason, Slack does not show whole either
    assert not [post for post in shared.thread(root) if marker(post).startswith("ask:")]


async def test_a_long_wish_is_shown_over_several_messages_before_it_can_be_approved(shared: Rig) -> None:
    numbers = " ".join(str(number) for number in range(6_000))
    root = shared.mention(f"!may echo {numbers} > numbers.txt\n!commit Numbers")
    await shared.slack_until(lambda: any(APPROVE_ACTION in str(post.blocks) for post in shared.thread(root)))
    asks = [post for post in shared.thread(root) if marker(post).startswith("ask:")]
    shown = "".join(post.blocks[1]["elements"][0]["elements"][0]["text"] for post in asks)
    assert shown == f"echo {numbers} > numbers.txt" and len(asks) == 4
    assert [APPROVE_ACTION in str(post.blocks) for post in asks] == [False, False, False, True]
    await shared.slack.click("U_ANA", DEV, asks[-1].ts, APPROVE_ACTION)
    assert "numbers.txt" in await shared.diff(await shared.final(root))


async def test_an_agent_asks_on_while_the_bot_is_killed_and_comes_back(tmp_path: Path) -> None:
    async with rig(tmp_path, SANDPIPER_PERMISSIONS="ask") as it:
        root = it.mention("!run echo 1 > one.txt\n!commit One")
        ask = await asked(it, root)
        await it.kill()
        await it.start_again()
        it.reply(root, f"approve {number_of(ask)}")
        assert "+1" in await it.diff(await it.final(root))
        assert len([post for post in it.thread(root) if marker(post).startswith("ask:")]) == 1
