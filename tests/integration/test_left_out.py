"""A further repository that is not there any more, or not for the session's owner: the thread goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bot.core import Policy
from bot.models import Final, Identity, Outcome, Verb
from bot.sessions import Defaults
from tests.integration.test_several_repositories import API, BOTH, changes_both, commit
from tests.town import OPEN, Town, town
from tests.world import Script, ScriptedProcess, shell

ANN = Identity("github", "github:11", "7", "ann")
BOB = Identity("github", "github:11", "8", "bob")
POLICY = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN)


async def write(t: Town, text: str, by: Identity = ANN, **more: object) -> str:
    return await t.say(text, by, thread="5", surface="github", repository="acme/web", **more)  # type: ignore[arg-type]


async def final(t: Town, number: int = 1) -> Final:
    await t.until(lambda: len(t.github.finals()) >= number)
    found = t.github.finals()[number - 1].saying.final
    assert found is not None
    return found


def left_out(t: Town) -> list[str]:
    return [note for note in (*t.slack.notes(), *t.github.notes()) if "acme/api" in note]


def looking(heard: list[str], seen: list[list[str]]) -> Script:
    async def looks(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["prompt"])
        seen.append(sorted(path.name for path in agent.cwd.parent.iterdir() if path.name.startswith("api")))
        await commit(agent, "code", f"web {len(seen)}")
        agent.say(done="Done.")

    return looks


UNCLEAN = ["true", "mkdir inner; cd inner; git init -q; echo x >x", "git checkout -q --detach HEAD~1"]


@pytest.mark.parametrize("leave", UNCLEAN)
async def test_one_that_was_deleted_is_told_once_hidden_and_comes_back(tmp_path: Path, leave: str) -> None:
    heard: list[str] = []
    seen: list[list[str]] = []
    looks = looking(heard, seen)

    async with town(tmp_path, [changes_both, looks, looks, looks], POLICY) as t:
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        await t.final()
        await shell(leave, cwd=t.box().cwd.parent / "api")
        others, t.forge.others = t.forge.others, ()
        for number in (2, 3):
            await t.say("go on", addressed=False)
            after = await t.final(number)
            assert after.outcome is Outcome.PUBLISHED
            assert [one.repository for one in after.pull_requests] == ["acme/web"]
        assert seen == [[], []], "nothing of it is in reach of the agent"
        (told,) = left_out(t)
        aside = [row.title for picture in t.slack.pictures for row in picture.rows if "/aside/" in row.title]
        assert bool(aside) is (leave != "true"), "what cannot be put away is kept as it is, and told"
        assert "acme/api is left out of this thread: There is no repository" in told
        assert "goes on with acme/web" in told
        assert all("acme/api is left out" in prompt for prompt in heard)
        t.forge.others = others
        await t.say("go on", addressed=False)
        await t.final(4)
        assert "acme/api belongs to this thread again." in left_out(t)[1]
        assert "api" in seen[2] and (t.box().cwd.parent / "api" / "hello.txt").read_text() == "api\n"


async def test_one_that_the_owner_may_not_use_any_more_is_left_out(tmp_path: Path) -> None:
    heard: list[str] = []
    seen: list[list[str]] = []
    async with town(tmp_path, [changes_both, looking(heard, seen)], POLICY) as t:
        await t.forge.add(API)
        await write(t, "say hello everywhere", options=BOTH)
        await final(t)
        t.forge.permissions["7@acme/api"] = "read"
        assert (await write(t, "", verb=Verb.GET, options={"path": "api/hello.txt"})).startswith("denied")
        assert await write(t, "go on", addressed=False) == "started"
        assert (await final(t, 2)).outcome is Outcome.PUBLISHED
        assert seen == [[]] and "ann may not write to acme/api" in left_out(t)[-1]


async def test_others_who_may_not_use_one_stay_refused(tmp_path: Path) -> None:
    async with town(tmp_path, [changes_both], POLICY) as t:
        t.forge.permissions["8"] = "write"
        await t.forge.add(API)
        await write(t, "say hello everywhere", options=BOTH)
        await final(t)
        t.forge.permissions["8@acme/api"] = "read"
        assert (await write(t, "go on", BOB, addressed=False)).startswith("denied")


@pytest.mark.parametrize("trees", [("code", "api"), ("api",)])
async def test_publish_goes_on_with_what_is_left(tmp_path: Path, trees: tuple[str, ...]) -> None:
    begun = asyncio.Event()

    async def obeys_stop(agent: ScriptedProcess) -> None:
        await agent.take()
        for tree in trees:
            await commit(agent, tree, "half")
        begun.set()
        while "interrupt" not in await agent.heard():
            pass
        agent.say(cancelled=True)

    async with town(tmp_path, [obeys_stop], POLICY) as t:
        await t.forge.add(API)
        await write(t, "say hello everywhere", options=BOTH)
        await begun.wait()
        await write(t, "", verb=Verb.STOP)
        await final(t)
        t.forge.permissions["7@acme/api"] = "none"
        assert await write(t, "", verb=Verb.PUBLISH) == "started"
        published = await final(t, 2)
        assert [one.repository for one in published.pull_requests] == ["acme/web"][: len(trees) - 1]
        if trees == ("api",):
            assert "The work to publish is in acme/api, which this thread cannot use now." in published.reason


async def test_nothing_is_said_into_a_turn_that_still_has_it(tmp_path: Path) -> None:
    heard: list[str] = []
    seen: list[list[str]] = []
    begun, go = asyncio.Event(), asyncio.Event()

    async def works(agent: ScriptedProcess) -> None:
        await agent.take()
        begun.set()
        await go.wait()
        agent.say(done="Done.")

    async with town(tmp_path, [works, looking(heard, seen)], POLICY) as t:
        await t.forge.add(API)
        await write(t, "say hello everywhere", options=BOTH)
        await begun.wait()
        t.forge.permissions["7@acme/api"] = "none"
        assert await write(t, "and this", addressed=False) == "queued"
        go.set()
        await final(t, 2)
        assert "and this" in heard[0] and seen == [[]]
