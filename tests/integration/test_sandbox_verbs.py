"""What people say about their sandbox, over a real store and real git in a directory that is the sandbox."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bot.core import Policy
from bot.errors import SandboxUnreachable
from bot.models import Identity, Outcome, SandboxState, Saying, SayingKind, Verb
from bot.sandbox_verbs import RESET_WITHIN
from bot.sandboxes import Ages
from bot.sessions import Defaults
from tests.integration.test_sandboxes import Box
from tests.integration.test_turns import is_running, obeys_stop
from tests.integration.test_workspace import does
from tests.town import ANA, BEN, OPEN, Town, town
from tests.world import ScriptedProcess, shell

POLICY = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN)


async def answers(agent: ScriptedProcess) -> None:
    await agent.take()
    agent.say(done="that is all")


def boxes(t: Town) -> list[Box]:
    return [box for box in t.provider.boxes.values() if isinstance(box, Box)]


async def sandbox(t: Town, do: str = "status", by: Identity = ANA, **more: object) -> str:
    return await t.say("", by, verb=Verb.SANDBOX, options={"do": do}, **more)  # type: ignore[arg-type]


async def confirm(t: Town, number: int, by: Identity = ANA, thread: str = "t1") -> str:
    return await t.say(
        "", by, verb=Verb.SANDBOX, options={"do": "reset", "number": str(number)}, thread=thread
    )


async def said(t: Town, words: str) -> str:
    await t.until(lambda: any(words in note for note in t.slack.notes()))
    return next(note for note in t.slack.notes() if words in note)


async def asked(t: Town) -> Saying:
    """The newest question whether to reset."""

    def questions() -> list[Saying]:
        return [item.saying for item in t.slack.said if item.saying.reset]

    await t.until(lambda: bool(questions()))
    return questions()[-1]


def with_boxes(t: Town) -> Town:
    t.provider.make = Box
    return t


async def test_status_says_which_sandbox_and_how_it_is(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        with_boxes(t)
        assert await sandbox(t) == "no sandbox"
        await t.say("hello")
        await t.final()
        t.clock.advance(120)
        assert await sandbox(t) == "sandbox"
        text = await said(t, "Sandbox `box-0`")
        assert "(host): running for 2m 0s. Made 2m 0s ago, last used" in text
        assert "stopped after 30m 0s." in text and "No turn of yours is open." in text


async def test_a_status_that_comes_late_does_not_undo_what_was_noted_meanwhile(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        with_boxes(t)
        await t.say("hello")
        await t.final()
        (box,) = boxes(t)
        late = box.late = asyncio.Event()
        asking = asyncio.create_task(sandbox(t))
        await t.until(lambda: box.late is None)
        (row,) = await t.core.sandboxes.rows()
        assert await t.core.sandboxes.stop(row) == ()
        late.set()
        assert await asking == "sandbox"
        (row,) = await t.core.sandboxes.rows()
        assert row.state is box.now is SandboxState.STOPPED


async def test_a_status_says_what_its_provider_says(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        with_boxes(t)
        await t.say("hello")
        await t.final()
        await boxes(t)[0].stop()  # not by us
        await sandbox(t)
        assert "(host): stopped. Made" in await said(t, "Sandbox `box-0`")


async def test_status_names_the_open_turns(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop]) as t:
        await t.say("add it")
        await t.until(lambda: is_running(t))
        await sandbox(t)
        assert "Open turns:\n• “add it” (https://chat.example/t1)" in await said(t, "Sandbox `box-0`")


async def test_only_the_owner_of_a_threads_sandbox_may(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        await t.say("hello")
        await t.final()
        for do in ("status", "restart", "pin", "unpin", "reset"):
            assert (await sandbox(t, do, BEN)).startswith("denied: The sandbox of this thread is Ana's")
        assert await sandbox(t, "pin", BEN, thread="bens") == "no sandbox"


async def test_a_restart_stops_and_starts(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        with_boxes(t)
        await t.say("hello")
        await t.final()
        assert await sandbox(t, "restart") == "restarted"
        assert [(box.stopping, box.now) for box in boxes(t)] == [(1, SandboxState.RUNNING)]


@pytest.mark.parametrize("do", ["restart", "reset"])
async def test_nothing_ends_a_sandbox_while_one_of_its_turns_is_open(tmp_path: Path, do: str) -> None:
    async with town(tmp_path, [obeys_stop]) as t:
        with_boxes(t)
        await t.say("add it")
        await t.until(lambda: is_running(t))
        assert await sandbox(t, do, thread="another") == "busy"
        assert "Say `stop` there first, then this again:\n• “add it”" in await said(t, "A turn of yours")
        assert (boxes(t)[0].stopping, len(t.provider.boxes)) == (0, 1)
        await t.say("", verb=Verb.STOP)
        assert (await t.final()).outcome is Outcome.STOPPED


async def test_a_turn_that_opens_after_the_question_keeps_the_sandbox(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, obeys_stop]) as t:
        await t.say("hello")
        await t.final()
        await sandbox(t, "reset")
        number = (await asked(t)).reset
        await t.say("add it")
        await t.until(lambda: is_running(t))
        assert await confirm(t, number) == "busy"
        assert len(t.provider.boxes) == 1


async def test_a_reset_says_what_it_costs_and_the_next_turn_gets_a_fresh_sandbox(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop, answers, answers]) as t:
        await t.say("add it")
        await t.until(lambda: is_running(t))
        await t.until(lambda: (t.box().cwd / "rest.txt").exists())
        await t.say("", verb=Verb.STOP)
        await t.final()
        await t.say("hello", thread="t2")
        await t.final(2)

        assert await sandbox(t, "reset") == "reset asked"
        question = await asked(t)
        assert "“add it”" in question.text and "“hello”" not in question.text
        assert f"`reset {question.reset}`" in question.text
        assert len(t.provider.boxes) == 1

        assert await confirm(t, question.reset) == "deleted"
        assert not t.provider.boxes
        await said(t, "Your next turn gets a fresh one.")
        lost = await said(t, "The work of this thread that was not published is lost")
        assert "its owner deleted the sandbox" in lost
        await t.until(lambda: any(item.saying.kind is SayingKind.ASKED for item in t.slack.said))

        await t.say("again", thread="t2")
        await t.final(3)
        titles = [row.title for picture in t.slack.pictures for row in picture.rows]
        assert any("Your earlier sandbox was deleted" in title for title in titles)
        assert any("does not remember" in title or "summary" in title for title in titles), titles
        assert list(t.provider.boxes) == ["box-1"]


async def test_a_reset_names_what_was_only_changed(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        await t.say("leave it")
        await t.final()
        (t.box().cwd / "later.txt").write_text("nobody has committed this")
        await sandbox(t, "reset")
        assert "“leave it”" in (await asked(t)).text


BESIDE = "git checkout -q --detach refs/remotes/origin/main; echo x >x; git add x; git commit -qm X"
BREAKS_OFF = "git checkout -q -b theirs HEAD~1; echo x >README.md; git commit -qam X; git merge - || true"


@pytest.mark.parametrize("beside", [BESIDE, BREAKS_OFF])
async def test_a_reset_names_what_a_turn_left_beside_its_branch(tmp_path: Path, beside: str) -> None:
    changes = "echo mine >README.md; git commit -qam Mine"
    async with town(tmp_path, [does(changes), does(beside, "true"), does("true")]) as t:
        await t.say("one")
        assert (await t.final()).outcome is Outcome.PUBLISHED
        await t.say("two", addressed=False)
        assert (await t.final(2)).outcome is Outcome.ANSWERED
        await t.say("three", addressed=False)
        await t.final(3)
        assert not await shell("git status --porcelain", cwd=t.box().cwd)
        await sandbox(t, "reset")
        assert "“one”" in (await asked(t)).text


async def test_a_reset_does_not_name_what_is_pushed_as_it_was_left(tmp_path: Path) -> None:
    looks = "git checkout -q --detach refs/remotes/origin/main"
    async with town(tmp_path, [does("echo a >a; git add .; git commit -qm A"), does(looks, "true")]) as t:
        await t.say("one")
        await t.final()
        await t.say("two", addressed=False)
        await t.final(2)
        await sandbox(t, "reset")
        assert "No work that is not published was found." in (await asked(t)).text


OWN_BRANCH = "git checkout -q -b experiment; echo x >x; git add x; git commit -qm X; git checkout -q -"
STASH = "echo x >README.md; git stash -q"


@pytest.mark.parametrize("elsewhere", [OWN_BRANCH, STASH], ids=["branch", "stash"])
async def test_a_reset_names_once_what_is_on_no_threads_branch(tmp_path: Path, elsewhere: str) -> None:
    async with town(tmp_path, [does(elsewhere), answers]) as t:
        await t.say("try something beside")
        await t.final()
        await t.say("hello", thread="t2")
        await t.final(2)
        await sandbox(t, "reset", private="https://answers.example")
        question = (await asked(t)).text
    assert question.endswith("only you can.") and question.count("•") == 1
    assert "\n• branches of an agent's own, or stashes, in acme/web\n" in question


async def test_where_others_read_along_a_repository_with_a_stash_is_not_named(tmp_path: Path) -> None:
    async with town(tmp_path, [does(STASH)]) as t:
        await t.say("try something beside")
        await t.final()
        await sandbox(t, "reset", scope="T1/C2", thread="t9")
        assert "or stashes, in 1 of your repositories" in (await asked(t)).text


async def test_a_reset_does_not_name_a_branch_of_an_agents_own_that_is_published(tmp_path: Path) -> None:
    publishes = "echo a >a; git add a; git commit -qm A; git branch experiment; git tag before"
    async with town(tmp_path, [does(publishes)]) as t:
        await t.say("one")
        assert (await t.final()).outcome is Outcome.PUBLISHED
        await sandbox(t, "reset")
        assert "No work that is not published was found." in (await asked(t)).text


async def test_a_reset_is_asked_again_when_something_was_stashed_since(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        await t.say("hello")
        await t.final()
        await sandbox(t, "reset")
        question = await asked(t)
        await shell(STASH, cwd=t.box().cwd)
        assert await confirm(t, question.reset) == "more lost"
        assert len(t.provider.boxes) == 1


async def test_a_reset_that_would_cost_more_than_was_said_is_asked_again(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        await t.say("hello")
        await t.final()
        await sandbox(t, "reset")
        question = await asked(t)
        assert "No work that is not published was found." in question.text
        (t.box().cwd / "later.txt").write_text("since then")
        assert await confirm(t, question.reset) == "more lost"
        assert len(t.provider.boxes) == 1
        await sandbox(t, "reset")
        await t.until(lambda: [item.saying.reset for item in t.slack.said if item.saying.reset] == [1, 2])
        assert await confirm(t, 2) == "deleted"


async def test_a_reset_is_asked_again_when_it_can_no_longer_be_seen_what_is_lost(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        with_boxes(t)
        await t.say("hello")
        await t.final()
        await sandbox(t, "reset")
        question = await asked(t)
        (t.box().cwd / "later.txt").write_text("since then")
        (box,) = boxes(t)
        away = SandboxUnreachable("The box does not answer.")
        box.troubles = [away, away]
        assert await confirm(t, question.reset) == "more lost"
        assert "all of it now. The box does not answer. Say `sandbox reset` again" in await said(
            t, "More may be"
        )
        assert len(t.provider.boxes) == 1
        await sandbox(t, "reset")
        await t.until(lambda: [item.saying.reset for item in t.slack.said if item.saying.reset] == [1, 2])
        assert "there may be more" in (await asked(t)).text
        assert await confirm(t, 2) == "more lost", "by now it can be seen"


async def test_a_reset_is_its_owners_has_a_deadline_and_counts_for_one_sandbox(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, answers]) as t:
        await t.say("hello")
        await t.final()
        await sandbox(t, "reset")
        number = (await asked(t)).reset
        denied = await confirm(t, number, BEN, "bens")
        assert denied == "denied: Only the owner of that sandbox may reset it."
        assert await confirm(t, number + 1) == "over"
        await sandbox(t, "reset")
        assert await confirm(t, number) == "deleted"
        assert await confirm(t, number) == "deleted", "the same said twice is done"
        await t.say("again")
        await t.final(2)
        assert await confirm(t, number + 1) == "over", "it was about the sandbox before"
        assert list(t.provider.boxes) == ["box-1"]
        await sandbox(t, "reset")
        t.clock.advance(RESET_WITHIN)
        assert await confirm(t, number + 2) == "over"


async def test_a_sandbox_that_cannot_be_looked_into_is_reset_all_the_same(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        await t.say("hello")
        await t.final()
        t.provider.boxes.clear()  # its provider has lost it
        await sandbox(t, "reset")
        question = await asked(t)
        assert "I could not look into all of it" in question.text
        assert await confirm(t, question.reset) == "deleted"


async def test_nobody_is_promised_a_fresh_sandbox_by_a_key_of_another_account(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, answers]) as t:
        await t.say("hello")
        await t.say("hello", BEN, thread="t2")
        await t.final(2)
        t.provider.boxes.clear()
        assert await sandbox(t, "status") == "sandbox failed"
        await t.until(lambda: any("None of the 2 sandboxes" in note for note in t.slack.notes()))


async def test_a_sandbox_of_another_account_is_spoken_of_as_that_and_only_given_up(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, answers]) as t:
        t.provider.host = "account:org-1"
        await t.say("hello")
        await t.final()
        t.provider.host = "account:org-2"
        for verb in ("status", "restart"):
            assert await sandbox(t, verb) == "sandbox failed"
        await t.until(lambda: len([note for note in t.slack.notes() if "in another account" in note]) == 2)
        await sandbox(t, "reset")
        question = await asked(t)
        assert "Give up your sandbox `box-0`? It is kept in another account" in question.text
        assert await confirm(t, question.reset) == "deleted"
        await t.until(lambda: any("is given up" in note for note in t.slack.notes()))
        assert list(t.provider.boxes) == ["box-0"]
        await t.say("again", addressed=False)
        assert (await t.final(2)).outcome is Outcome.ANSWERED and len(t.provider.boxes) == 2


async def test_what_is_elsewhere_is_not_named_where_others_read_along(tmp_path: Path) -> None:
    async with town(tmp_path, [answers]) as t:
        await t.say("hush")
        await t.final()
        (t.box().cwd / "later.txt").write_text("since then")
        await sandbox(t, "reset", thread="t9", scope="T1/C2")
        text = (await asked(t)).text
        assert "hush" not in text and "1 in other places" in text
        places: tuple[dict[str, Any], ...] = (
            {"scope": "T1/alone"},
            {"scope": "T1/C2", "private": "https://answers.example"},
        )
        for more in places:
            before = (await asked(t)).reset
            await sandbox(t, "reset", thread="t9", **more)
            await t.until(lambda: any(item.saying.reset > before for item in t.slack.said))  # noqa: B023
            assert "“hush”" in (await asked(t)).text


async def test_a_pinned_sandbox_is_neither_stopped_nor_deleted(tmp_path: Path) -> None:
    async with town(tmp_path, [answers], replace(POLICY, ages=Ages(1800.0, 86_400.0))) as t:
        with_boxes(t)
        await t.say("hello")
        await t.final()
        assert await sandbox(t, "pin") == "pinned"
        t.clock.advance(400 * 86_400)
        await t.core.sandboxes.stop_idle()
        await t.core.sandboxes.delete_expired()
        assert [(box.stopping, box.now) for box in boxes(t)] == [(0, SandboxState.RUNNING)]
        assert await sandbox(t, "unpin") == "unpinned"
        t.clock.advance(3600)
        await t.core.sandboxes.stop_idle()
        await t.core.sandboxes.delete_expired()
        assert [box.now for box in boxes(t)] == [SandboxState.STOPPED], "its age counts from the unpinning"
