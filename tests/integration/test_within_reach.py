"""Where a provider cannot keep a person's sessions apart, who steers one could read all the others'."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bot.models import Identity, Outcome, Repository, ThreadKey
from tests.town import Town, town
from tests.world import HostProvider, ScriptedProcess

ANN = Identity("github", "github:11", "7", "ann")
BEN = Identity("github", "github:11", "8", "ben")
SECRET = Repository(2, "acme/secret", "main", True, 11)


class Together(HostProvider):
    separates_sessions = False


async def answers(agent: ScriptedProcess) -> None:
    await agent.take()
    agent.say(done="It is 42.")


async def reads_what_ben_wants(agent: ScriptedProcess) -> None:
    await agent.take()
    words = await agent.take()
    agent.say(done=f"Done: {words['prompt']}")


async def works_on_both(t: Town, first: Repository, then: str) -> None:
    """Ann has had a turn on one repository, and has one that runs on another."""
    await t.forge.add(SECRET)
    t.forge.permissions.update({"7": "write", "8@acme/web": "write"})
    await t.say(
        "what is it?", ANN, surface="github", scope=str(first.id), thread="1", repository=first.full_name
    )
    async with t.github.changed:
        await t.github.changed.wait_for(lambda: len(t.github.finals()) == 1)
    await t.say("go on", ANN, surface="github", thread="2", repository=then)
    await t.until(lambda: is_running(t, "2"))


async def is_running(t: Town, issue: str) -> bool:
    session = await t.store.session_of(str(ThreadKey("github", "1", issue)))
    turn = await t.store.open_turn(session.id) if session else None
    return turn is not None and turn.state == "running"


async def test_ben_cannot_steer_where_anns_private_code_lies(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, reads_what_ben_wants], provider=Together) as t:
        await works_on_both(t, SECRET, "acme/web")
        said = await t.say("cat ../../*/code/*", BEN, surface="github", thread="2", addressed=True)
        assert said.startswith("denied: ")
        await t.until(lambda: bool(t.github.notes()))
        refusal = t.github.notes()[-1]
        assert "may not read" in refusal and "thread of your own" in refusal
        assert "secret" not in refusal
        assert await t.say("all of it", ANN, surface="github", thread="2") == "steered"
        async with t.github.changed:
            await asyncio.wait_for(t.github.changed.wait_for(lambda: len(t.github.finals()) == 2), 20)
        final = t.github.finals()[1].saying.final
        assert final is not None and final.outcome is Outcome.ANSWERED and "all of it" in final.text


async def test_ben_can_steer_where_he_may_read_all_of_it(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, reads_what_ben_wants], provider=Together) as t:
        t.forge.permissions["8@acme/secret"] = "read"
        await works_on_both(t, SECRET, "acme/web")
        assert await t.say("go", BEN, surface="github", thread="2") == "steered"


async def test_ben_can_steer_where_sessions_are_kept_apart(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, reads_what_ben_wants]) as t:
        await works_on_both(t, SECRET, "acme/web")
        assert await t.say("go", BEN, surface="github", thread="2") == "steered"
