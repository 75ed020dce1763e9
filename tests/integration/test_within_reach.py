"""Where a provider cannot keep a person's sessions apart, who steers one could read all the others'."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bot.errors import ForgeError
from bot.models import Final, Identity, Mark, Mode, Outcome, Repository, ThreadKey, Verb
from tests.town import Town, town
from tests.world import HostProvider, Script, ScriptedProcess

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


async def write(t: Town, text: str, by: Identity = ANN, **more: object) -> str:
    return await t.say(text, by, surface="github", thread="1", repository="acme/web", **more)  # type: ignore[arg-type]


async def final(t: Town, number: int) -> Final:
    await t.until(lambda: len(t.github.finals()) >= number)
    found = t.github.finals()[number - 1].saying.final
    assert found is not None
    return found


def until(done: asyncio.Event) -> Script:
    async def works(agent: ScriptedProcess) -> None:
        await agent.take()
        await done.wait()
        agent.say(done="Done.")

    return works


def hearing(heard: list[str]) -> Script:
    async def hears(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["prompt"])
        agent.say(done="Done.")

    return hears


async def obeys_stop(agent: ScriptedProcess) -> None:
    await agent.take()
    while "interrupt" not in await agent.heard():
        pass
    agent.say(cancelled=True)


async def works_beside_the_secret(t: Town) -> None:
    """Ann has a thread on her private repository, too."""
    scope = str(SECRET.id)
    await t.say("work", ANN, surface="github", scope=scope, thread="2", repository=SECRET.full_name)
    await t.until(lambda: any(item.saying.thread.id == "2" for item in t.github.finals()))


def refusals(t: Town) -> list[str]:
    return [note for note in t.github.notes() if "does not go to the agent" in note]


READS_ALL = "cat ../../*/code/*"


async def test_words_that_waited_are_not_obeyed_where_private_code_lies_since(tmp_path: Path) -> None:
    done, heard = asyncio.Event(), list[str]()
    async with town(tmp_path, [until(done), answers, hearing(heard)], provider=Together) as t:
        await t.forge.add(SECRET)
        t.forge.permissions.update({"8@acme/web": "write"})
        await write(t, "go")
        await t.until(lambda: is_running(t, "1"))
        assert await write(t, READS_ALL, BEN, mode=Mode.QUEUE) == "queued"
        assert await write(t, "and all of it", BEN, mode=Mode.QUEUE) == "queued"
        assert await write(t, "then tidy up", mode=Mode.QUEUE) == "queued"
        await works_beside_the_secret(t)
        done.set()
        await final(t, 3)
        assert "then tidy up" in heard[0] and READS_ALL not in heard[0] and "all of it" not in heard[0]
        (told,) = refusals(t)
        assert "ben" in told and "may not read" in told and "secret" not in told


async def test_a_turn_of_nothing_else_starts_no_agent(tmp_path: Path) -> None:
    done, heard = asyncio.Event(), list[str]()
    async with town(tmp_path, [until(done), answers, hearing(heard)], provider=Together) as t:
        await t.forge.add(SECRET)
        t.forge.permissions.update({"8@acme/web": "write"})
        await write(t, "go")
        await t.until(lambda: is_running(t, "1"))
        await write(t, READS_ALL, BEN, mode=Mode.QUEUE)
        await works_beside_the_secret(t)
        done.set()
        ended = await final(t, 3)
        assert ended.outcome is Outcome.FAILED and "Nothing is left to do" in ended.reason
        assert "ann can write here" in ended.mend and not ended.notes
        assert len(refusals(t)) == 1
        assert any(item.saying.mark is Mark.DROPPED for item in t.github.said)
        await write(t, "go on")
        await final(t, 4)
        (only,) = heard  # the third agent is this turn's
        assert "go on" in only and READS_ALL not in only


async def test_what_was_held_after_stop_is_asked_about_again(tmp_path: Path) -> None:
    heard: list[str] = []
    async with town(tmp_path, [obeys_stop, answers, hearing(heard)], provider=Together) as t:
        await t.forge.add(SECRET)
        t.forge.permissions.update({"8@acme/web": "write"})
        await write(t, "go")
        await t.until(lambda: is_running(t, "1"))
        await write(t, READS_ALL, BEN, mode=Mode.QUEUE)
        await write(t, "", verb=Verb.STOP)
        await final(t, 1)
        await works_beside_the_secret(t)
        await write(t, "go on")
        await final(t, 3)
        assert "go on" in heard[0] and READS_ALL not in heard[0] and len(refusals(t)) == 1


async def test_who_may_not_write_any_more_is_not_obeyed_where_sessions_are_kept_apart(tmp_path: Path) -> None:
    done, heard = asyncio.Event(), list[str]()
    async with town(tmp_path, [until(done), hearing(heard)]) as t:
        t.forge.permissions["8"] = "write"
        await write(t, "go")
        await t.until(lambda: is_running(t, "1"))
        await write(t, "delete it all", BEN, mode=Mode.QUEUE)
        await write(t, "then tidy up", mode=Mode.QUEUE)
        t.forge.permissions["8"] = "read"
        done.set()
        await final(t, 2)
        assert "tidy up" in heard[0] and "delete it all" not in heard[0]
        assert "ben may not write to acme/web" in refusals(t)[0]


async def test_words_are_asked_about_until_the_agent_is_given_them(tmp_path: Path) -> None:
    heard: list[str] = []
    async with town(tmp_path, [hearing(heard)]) as t:
        t.forge.permissions["8"] = "write"
        t.github.slow = asyncio.Event()
        await write(t, "go")
        await t.github.asked.wait()
        assert await write(t, "delete it all", BEN) == "joined"
        t.forge.permissions["8"] = "none"
        t.github.slow.set()
        await final(t, 1)
        assert "go" in heard[0] and "delete it all" not in heard[0] and len(refusals(t)) == 1


async def test_a_forge_that_is_away_is_waited_for_before_words_are_obeyed(tmp_path: Path) -> None:
    heard: list[str] = []
    async with town(tmp_path, [hearing(heard)]) as t:
        t.forge.permissions["8"] = "write"
        t.github.slow = asyncio.Event()
        await write(t, "go")
        await t.github.asked.wait()
        await write(t, "and this", BEN)
        t.forge.unsure.extend(ForgeError("GitHub is away.", retryable=True) for _ in range(3))
        t.github.slow.set()
        await t.until(lambda: len(t.forge.unsure) < 3)
        while not t.github.finals():
            t.clock.advance(1.0)
            await asyncio.sleep(0.005)
        assert "and this" in heard[0] and not refusals(t)


def remembering(heard: list[dict[str, str]]) -> Script:
    async def works(agent: ScriptedProcess) -> None:
        heard.append(await agent.take())
        agent.say(token="tok-1")
        agent.say(done="Done.")

    return works


async def test_an_agent_that_who_may_not_steer_any_more_wanted_is_not_chosen(tmp_path: Path) -> None:
    done, heard = asyncio.Event(), list[dict[str, str]]()

    async def works(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(token="tok-1")
        await done.wait()
        agent.say(done="Done.")

    async with town(tmp_path, [works, remembering(heard)]) as t:
        t.forge.permissions["8"] = "write"
        await write(t, "go")
        await t.until(lambda: is_running(t, "1"))
        assert await write(t, "by another", BEN, options={"agent": "other", "model": "b"}) == "queued"
        assert await write(t, "then tidy up", options={"model": "large"}) == "queued"
        t.forge.permissions["8"] = "read"
        done.set()
        await final(t, 2)
        assert heard[0]["resume"] == "tok-1" and "tidy up" in heard[0]["prompt"]
        session = await t.store.session_of(str(ThreadKey("github", "1", "1")))
        assert session is not None and session.works_with == ("lines", "large", "")
        assert "other" not in t.github.pictures[-1].label


async def test_an_agent_whose_chooser_loses_the_right_while_it_starts_is_given_nothing(
    tmp_path: Path,
) -> None:
    heard: list[dict[str, str]] = []
    async with town(tmp_path, [remembering(heard), remembering([]), remembering(heard)]) as t:
        t.forge.permissions["8"] = "write"
        await write(t, "go")
        await final(t, 1)
        t.github.slow = asyncio.Event()
        t.github.asked.clear()
        assert await write(t, "by another", BEN, options={"agent": "other"}) == "started"
        await t.github.asked.wait()
        assert await write(t, "and tidy up") == "joined"
        t.forge.permissions["8"] = "read"
        t.github.slow.set()
        ended = await final(t, 2)
        assert ended.outcome is Outcome.FAILED and "Whoever chose this turn's agent" in ended.reason
        await write(t, "go on")
        await final(t, 3)
        assert heard[1]["resume"] == "tok-1"
        assert "and tidy up" in heard[1]["prompt"] and "by another" not in heard[1]["prompt"]
