"""Threads of the forge, over a real store and real git: whose words count there, and which pull request
closes what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bot.core import Policy
from bot.models import Final, Identity, Mark, Outcome, Verb
from bot.sessions import Defaults
from tests.town import OPEN, Town, town
from tests.world import ScriptedProcess, shell

POLICY = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN)
ANA = Identity("github", "github:11", "7", "ana")
BEN = Identity("github", "github:11", "8", "ben")
EVE = Identity("github", "github:11", "9", "eve")


async def commits(agent: ScriptedProcess) -> None:
    await agent.take()
    name = f"{agent.key}.txt"
    await agent.write_file(name, "work\n", commit=f"Add {name}")
    agent.say(done=f"I added {name}.")


async def comment(t: Town, text: str, by: Identity = ANA, *, number: str = "5", **more: object) -> str:
    return await t.say(text, by, thread=number, surface="github", repository="acme/web", **more)  # type: ignore[arg-type]


async def final(t: Town, number: int = 1) -> Final:
    await t.until(lambda: len(t.github.finals()) >= number)
    found = t.github.finals()[number - 1].saying.final
    assert found is not None
    return found


async def notes(t: Town, count: int = 1) -> list[str]:
    await t.until(lambda: len(t.github.notes()) >= count)
    return t.github.notes()


# what a pull request closes


async def test_the_pull_request_closes_the_issue_that_asked_for_it(tmp_path: Path) -> None:
    async with town(tmp_path, [commits], POLICY) as t:
        await comment(t, "add it")
        ended = await final(t)
        assert ended.outcome is Outcome.PUBLISHED
        assert "Fixes #5" in t.forge.bodies[ended.branch]


async def test_no_other_repository_is_worked_on_from_an_issue(tmp_path: Path) -> None:
    async with town(tmp_path, [], POLICY) as t:
        assert await comment(t, "add it", options={"repo": "acme/secret"}) == "refused"
        assert "works on acme/web" in (await notes(t))[0]
        assert await t.store.session_of("github:1:5") is None


async def test_a_pull_request_of_a_slack_thread_closes_nothing(tmp_path: Path) -> None:
    async with town(tmp_path, [commits, commits, commits], POLICY) as t:
        for turn in (1, 2, 3):
            await t.say("add it", addressed=turn == 1)
            ended = await t.final(turn)
            assert ended.pull_request is not None and ended.pull_request.created
            t.forge.pull_requests[f"closed-{turn}"] = t.forge.pull_requests.pop(ended.branch)
        assert "Fixes" not in t.forge.bodies[ended.branch]


# pull requests


async def test_on_somebody_elses_pull_request_nothing_is_started_beside_it(tmp_path: Path) -> None:
    async with town(tmp_path, [], POLICY) as t:
        assert await comment(t, "make it green", number="8", pull_request=True) == "refused"
        assert "pull requests that I opened myself" in (await notes(t))[0]
        assert await t.store.session_of("github:1:8") is None


async def test_on_a_pull_request_of_ours_the_work_goes_on(tmp_path: Path) -> None:
    async with town(tmp_path, [commits, commits], POLICY) as t:
        await comment(t, "add it")
        first = await final(t)
        assert first.pull_request is not None
        number = str(first.pull_request.number)
        assert await comment(t, "and more", number=number, pull_request=True) == "started"
        second = await final(t, 2)
        assert second.pull_request is not None and second.pull_request.number == first.pull_request.number


async def test_after_a_merge_the_next_pull_request_holds_only_what_is_new(tmp_path: Path) -> None:
    heard: list[str] = []

    async def starts_from_the_base(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["prompt"])
        await shell("git reset -q --hard origin/main", cwd=agent.cwd)
        await agent.write_file("new.txt", "new\n", commit="Add new.txt")
        agent.say(done="I added new.txt.")

    async with town(tmp_path, [commits, starts_from_the_base], POLICY) as t:
        await comment(t, "add it")
        first = (await final(t)).pull_request
        assert first is not None
        await t.forge.squash(first)
        await comment(t, "and more")
        second = (await final(t, 2)).pull_request
        assert second is not None and second.created and second.commits == 1
        told = f"Pull request #{first.number} has been merged"
        assert told in heard[0] and "start from origin/main" in heard[0]
        assert any(told in row.title for row in t.github.pictures[-1].rows)


async def test_a_closed_pull_request_is_told(tmp_path: Path) -> None:
    async with town(tmp_path, [commits, commits], POLICY) as t:
        await comment(t, "add it")
        first = (await final(t)).pull_request
        assert first is not None
        t.forge.states[first.number] = "closed"
        await comment(t, "and more")
        await final(t, 2)
        told = f"Pull request #{first.number} has been closed"
        assert any(told in row.title for row in t.github.pictures[-1].rows)


async def test_a_pull_request_names_everybody_who_asked_for_it(tmp_path: Path) -> None:
    async def asks_back(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(done="Which colour?")

    async with town(tmp_path, [asks_back, commits, commits], POLICY) as t:
        t.forge.permissions[BEN.user] = "write"
        await comment(t, "add it")
        await final(t)
        await comment(t, "blue", by=BEN)
        second = await final(t, 2)
        assert "Asked for by @ana, @ben" in t.forge.bodies[second.branch]
        await comment(t, "one more", by=BEN)
        await final(t, 3)
        body = t.forge.bodies[second.branch]
        assert body.count("Fixes #5") == 1 and body.count("Asked for by @ana, @ben") == 2
        assert body.index("I added turn-2-1.txt.") < body.index("I added turn-3-1.txt.")


# strangers


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "do it"},
        {"text": "", "verb": Verb.HELP},
        {"text": "", "verb": Verb.STATUS},
        {"text": "", "verb": Verb.CHANNEL},
        {"text": "", "verb": Verb.STOP},
        {"text": "", "verb": Verb.PUBLISH},
        {"text": "", "options": {"error": "model= needs a value"}},
        {"text": ""},
    ],
)
async def test_strangers_cannot_make_us_write_without_end(tmp_path: Path, asked: dict[str, Any]) -> None:
    async with town(tmp_path, [], POLICY) as t:
        for _ in range(3):
            assert (await comment(t, by=EVE, **asked)).startswith("denied")
        await comment(t, "", verb=Verb.STATUS)
        (denied, status) = await notes(t, 2)
        assert "eve may not write to acme/web" in denied
        assert "no session" in status
        marks = [item.saying.mark for item in t.github.said if item.saying.mark]
        assert marks == [Mark.REFUSED] * 3
