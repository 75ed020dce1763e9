"""kill -9 of the bot, of an agent and of its keeper: what people see is as if nothing had happened."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from handlers.playground.holds import Hold
from tests.e2e.rig import OPEN_PULL, PUSH, REPOSITORY, SEEN, WAIT, Rig, at_gate
from tests.e2e.test_github_path import final, labelled, pull_of, said, told
from tests.e2e.witness import Witness, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = "!write {0}.txt {0}\n!commit Add {0}\n!say I added {0}.\n!answer {0} is there."


@pytest_asyncio.fixture(loop_scope="module")
async def r(shared: Rig) -> AsyncIterator[Rig]:
    """The shared rig with a bot that lives, also when the test before broke off."""
    if shared.bot.pid is None:
        await shared.start_again()
    yield shared


@pytest.fixture
def w(r: Rig) -> Witness:
    return Witness(r)


async def stands(hold: Hold) -> None:
    await asyncio.wait_for(hold.arrived.wait(), WAIT)


# While the agent works


async def test_in_mid_turn_the_same_agent_process_is_found_again(r: Rig, w: Witness) -> None:
    hold = r.slack.hold_next("chat.update", "at-mid")
    root = r.mention(f"!say I begin.\n{at_gate('mid')}\n!sleep 0.2\n" + WORK.format("mid"))
    await stands(hold)
    before = await w.started(root)
    await r.kill()
    hold.cut()
    assert before.alive()
    await r.start_again()
    await r.shows(root, "at-mid")  # what was recorded is drawn, though nothing new happens
    r.open_gate("mid")
    await r.final(root)
    assert w.agent(root) in (before, None)
    await w.once(root, commits=["Add mid"])


async def test_a_message_to_a_dead_bot_reaches_the_waiting_agent_once(r: Rig, w: Witness) -> None:
    root = r.mention("!wait\n" + WORK.format("waited"))
    await r.shows(root, "Waiting for a message")
    await r.kill()
    told = r.reply(root, "make it blue")
    await r.start_again()
    await r.final(root)
    await w.once(root, commits=["Add waited"], told=[told])
    texts = [event["text"] for event in w.events(w.turns(root)[0]["id"], "text")]
    assert [text for text in texts if text.startswith("Understood")] == ["Understood: ana: make it blue"]


async def test_an_agent_that_ends_while_the_bot_is_dead_is_heard_to_the_end(r: Rig, w: Witness) -> None:
    root = r.mention(f"{at_gate('alone')}\n!big 5MB\n" + WORK.format("alone"))
    await r.reached("alone")
    agent = await w.started(root)
    spool = w.spool(root)
    assert spool is not None
    await r.kill()
    r.open_gate("alone")
    await until(lambda: b'"done"' in (spool / "stdout").read_bytes()[-400:])
    assert (spool / "stdout").stat().st_size > 5_000_000
    assert agent.alive()  # it waits for what else we have to say
    await r.start_again()
    await r.final(root)
    await w.once(root, commits=["Add alone"])


async def test_a_stop_in_good_order_leaves_the_agent_at_its_work(r: Rig, w: Witness) -> None:
    root = r.mention(f"{at_gate('calm')}\n" + WORK.format("calm"))
    await r.reached("calm")
    before = await w.started(root)
    await r.bot.stop()
    assert before.alive()
    r.open_gate("calm")
    await r.start_again()
    await r.final(root)
    await w.once(root, commits=["Add calm"])


# While it is prepared


@pytest.mark.parametrize("late", [False, True])
async def test_while_the_code_is_fetched(r: Rig, w: Witness, late: bool) -> None:
    """`late`: the dead bot's own fetch goes on in the middle of the next one's."""
    name = f"fetched-{late}"
    await r.github.push_commit(REPOSITORY, "main", {f"news-{name}.txt": "new"}, "ana", "News")
    hold = r.github.hold_next("POST", r"git-upload-pack$")
    root = r.mention(WORK.format(name))
    await stands(hold)
    await r.kill()
    if not late:
        hold.cut()
    await r.start_again()
    if late:
        await until(lambda: len(w.turns(root)) == 1 and w.turns(root)[0]["fence"] == 2)
        hold.release()
    await r.final(root)
    await w.once(root, commits=[f"Add {name}"])


async def test_right_after_the_agent_was_started(r: Rig, w: Witness) -> None:
    root = r.mention(WORK.format("spawned"))
    await until(lambda: w.agent(root) is not None, every=0.001)
    await r.kill()
    await r.start_again()
    await r.final(root)
    await w.once(root, commits=["Add spawned"])


@pytest.mark.parametrize("acted", [False, True])
async def test_while_the_first_picture_is_posted(r: Rig, w: Witness, acted: bool) -> None:
    hold = r.slack.hold_next("chat.postMessage", "timeline:", acted=acted)
    root = r.mention(WORK.format(f"picture-{acted}"))
    await stands(hold)
    await r.kill()
    hold.cut()
    await r.start_again()
    await r.final(root)
    await w.once(root, commits=[f"Add picture-{acted}"])


# While it is published

PUBLISHING = {
    "before-the-push": (PUSH, False),
    "behind-the-push": (PUSH, True),
    "before-the-pull-request": (OPEN_PULL, False),
    "behind-the-pull-request": (OPEN_PULL, True),
}


@pytest.mark.parametrize("step", PUBLISHING)
async def test_while_it_is_published(r: Rig, w: Witness, step: str) -> None:
    request, acted = PUBLISHING[step]
    hold = r.github.hold_next(*request, acted=acted)
    root = r.mention(WORK.format(step))
    await stands(hold)
    await r.kill()
    hold.cut()
    await r.start_again()
    final = await r.final(root)
    await w.once(root, commits=[f"Add {step}"])
    assert "The pull request is ready" in str(final.blocks)  # not: updated


@pytest.mark.parametrize("request_", [PUSH, OPEN_PULL], ids=["push", "pull-request"])
async def test_what_the_dead_bot_sent_arrives_after_all(
    r: Rig, w: Witness, request_: tuple[str, str]
) -> None:
    name = f"late{request_[1].strip('$')[-5:]}".replace("/", "-")
    hold = r.github.hold_next(*request_)
    root = r.mention(WORK.format(name))
    await stands(hold)
    await r.kill()
    await r.start_again()
    await r.final(root)
    answered = len([call for call in r.github.calls_to(*request_) if call.status])
    hold.release()
    await r.github_until(
        lambda: len([call for call in r.github.calls_to(*request_) if call.status]) > answered
    )
    await w.once(root, commits=[f"Add {name}"])


LAST_WORDS = {
    "before-the-last-picture": ("chat.update", "Worked for", False),
    "behind-the-last-picture": ("chat.update", "Worked for", True),
    "before-the-final": ("chat.postMessage", "final:", False),
    "behind-the-final": ("chat.postMessage", "final:", True),
}


@pytest.mark.parametrize("step", LAST_WORDS)
async def test_while_the_last_words_are_said(r: Rig, w: Witness, step: str) -> None:
    method, words, acted = LAST_WORDS[step]
    hold = r.slack.hold_next(method, words, acted=acted)
    root = r.mention(WORK.format(step))
    await stands(hold)
    await r.kill()
    hold.cut()
    await r.start_again()
    await r.final(root)
    await w.once(root, commits=[f"Add {step}"])


async def test_right_after_the_last_words(r: Rig, w: Witness) -> None:
    root = r.mention(WORK.format("over"))
    await r.final(root)
    await r.kill()
    await r.start_again()
    await w.once(root, commits=["Add over"])


async def test_a_late_redraw_does_not_come_behind_the_last_picture(r: Rig, w: Witness) -> None:
    hold = r.slack.hold_next("chat.update", "in_progress")
    root = r.mention(WORK.format("redrawn"))
    await stands(hold)
    await until(lambda: w.session(root)["pull_request"] != 0)  # what comes next is the turn's end
    with contextlib.suppress(TimeoutError):
        await r.slack.wait_for(lambda: r.finals(root), timeout=1)
    redrawn = len(r.slack.calls_of("chat.update"))
    hold.release()
    await r.slack_until(lambda: len(r.slack.calls_of("chat.update")) > redrawn)
    await r.final(root)
    await w.once(root, commits=["Add redrawn"])


# Deliveries


async def test_what_was_acknowledged_is_worked_on(r: Rig, w: Witness) -> None:
    root = r.mention(WORK.format("acknowledged"))
    await r.slack_until(lambda: not r.slack.undelivered)
    await r.kill()
    await r.start_again()
    await r.final(root)
    await w.once(root, commits=["Add acknowledged"])


async def test_what_was_not_acknowledged_is_handed_over_again(r: Rig, w: Witness) -> None:
    assert r.bot.pid is not None
    os.kill(r.bot.pid, signal.SIGSTOP)
    root = r.mention(WORK.format("unheard"))
    await r.slack_until(lambda: all(delivery.state == "sent" for delivery in r.slack.undelivered))
    assert r.slack.undelivered
    await r.kill()
    await r.start_again()
    await r.final(root)
    await w.once(root, commits=["Add unheard"])


async def test_what_was_kept_but_not_acknowledged_is_handed_over_twice(r: Rig, w: Witness) -> None:
    r.slack.lose_ack_next(2)  # of the message, and of the mention in it
    root = r.mention(WORK.format("kept"))
    await r.slack_until(lambda: SEEN in r.reactions(root))
    assert len(r.slack.undelivered) == 2
    await r.kill()
    await r.start_again()
    await r.final(root)
    await r.slack_until(lambda: not r.slack.undelivered)
    await w.once(root, commits=["Add kept"])


# The same on GitHub


async def test_a_webhook_that_was_answered_is_worked_on(r: Rig, w: Witness) -> None:
    before = len(r.github.deliveries)
    number = labelled(r, WORK.format("webhook"))
    await r.github_until(
        lambda: any(hook.action == "labeled" and hook.status == "OK" for hook in r.github.deliveries[before:])
    )
    await r.kill()
    await r.start_again()
    await commented_once(r, w, number)


@pytest.mark.parametrize("comment", ["timeline", "final"])
async def test_a_comment_whose_answer_was_lost_is_found_again(r: Rig, w: Witness, comment: str) -> None:
    comments = ("POST", r"/comments$")
    if comment == "timeline":
        hold = r.github.hold_next(*comments, acted=True)
        number = labelled(r, WORK.format(comment))
    else:
        number = labelled(r, f"{at_gate('comment')}\n" + WORK.format(comment))
        await r.reached("comment")
        await told(r, number, "turn")
        hold = r.github.hold_next(*comments, acted=True)
        r.open_gate("comment")
    await stands(hold)
    await r.kill()
    hold.cut()
    await r.start_again()
    await commented_once(r, w, number)


async def commented_once(r: Rig, w: Witness, number: int) -> None:
    last = await final(r, number)
    await until(lambda: not w.rows("SELECT 1 FROM outbox WHERE state IN ('pending', 'sending')"))
    assert len(said(r, number, "final:")) == len(said(r, number, "turn")) == 1
    pull = pull_of(r, last)
    opened = [
        other for other in r.github.pull_requests(REPOSITORY) if f"Fixes #{number}" in (other.body or "")
    ]
    assert opened == [pull]
    assert not said(r, pull.number)  # the new pull request speaks for itself


# The agent's own death


async def test_a_killed_agent_is_resumed_where_it_stood(r: Rig, w: Witness) -> None:
    root = r.mention(f"!write begun.txt begun\n{at_gate('die')}\n" + WORK.format("resumed"))
    await r.reached("die")
    os.kill(w.program(await w.started(root)), signal.SIGKILL)
    await r.final(root)
    await w.once(root, commits=["Add resumed"], attempts=2)
    assert "Resuming it" in r.picture(root)
    pull = w.pulls(root)[0].pull
    assert pull is not None and pull.changed_files == 2


async def test_an_agent_that_is_killed_three_times_ends_the_turn_honestly(r: Rig, w: Witness) -> None:
    root = r.mention(f"!write half.txt half\n{at_gate('die-1')}\n{at_gate('die-2')}\n{at_gate('die-3')}")
    for attempt in (1, 2, 3):
        await r.reached(f"die-{attempt}")
        os.kill(w.program(await w.started(root, attempt)), signal.SIGKILL)
    final = await r.final(root)
    await w.quiet(root)
    assert "The agent ended before it was done" in str(final.blocks)
    assert "publish" in str(final.blocks)
    assert len(r.finals(root)) == 1 and w.turns(root)[0]["state"] == "failed"
    await w.settled(root)
    assert not w.pulls(root) and not w.left_running(root)


async def test_a_restarted_bot_still_knows_why_an_agent_died(r: Rig, w: Witness) -> None:
    root = r.mention(f"!exit 3\n!exit 3\n!stderr the licence has expired\n{at_gate('why')}\n!exit 4")
    await r.reached("why")
    await until(lambda: w.turns(root)[0]["err_offset"] > 0)
    await r.kill()
    await r.start_again()
    r.open_gate("why")
    final = await r.final(root)
    assert "exit code 4" in final.shown and "the licence has expired" in final.shown


async def test_what_could_not_be_published_is_published_by_the_next_bot(r: Rig, w: Witness) -> None:
    r.github.refuse_push_next("error: GH013: Repository rule violations found")
    root = r.mention(WORK.format("refused"))
    assert "not published" in (await r.final(root)).shown
    await w.quiet(root)
    await r.kill()
    await r.start_again()
    r.mention("publish", thread=root)
    assert "+refused" in await r.diff(await r.final(root, 2))
    assert [turn["kind"] for turn in w.turns(root)] == ["agent", "publish"]
    assert len(w.pulls(root)) == 1 and await w.commits(root) == ["Add refused"]


async def test_a_publish_that_was_asked_of_a_dead_bot_is_done_once(r: Rig, w: Witness) -> None:
    r.github.refuse_push_next("error: GH013: Repository rule violations found")
    root = r.mention(WORK.format("later"))
    await r.final(root)
    hold = r.github.hold_next(*PUSH, acted=True)
    r.mention("publish", thread=root)
    await stands(hold)
    await r.kill()
    hold.cut()
    await r.start_again()
    await r.final(root, 2)
    await w.quiet(root)
    assert len(r.finals(root)) == 2 and len(w.pulls(root)) == 1
    assert await w.commits(root) == ["Add later"]


async def test_a_killed_keeper_costs_its_agent_but_not_the_turn(r: Rig, w: Witness) -> None:
    root = r.mention(f"!write begun.txt begun\n{at_gate('keeper')}\n" + WORK.format("keeper"))
    await r.reached("keeper")
    agent = await w.started(root)
    os.kill(agent.keeper, signal.SIGKILL)
    await r.final(root)
    await w.once(root, commits=["Add keeper"], attempts=2)
    assert not agent.alive()
