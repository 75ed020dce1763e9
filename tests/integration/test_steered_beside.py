"""Code does not come in beside an agent that follows the words of somebody who may not read it, where a
sandbox does not keep its owner's threads apart."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bot.core import Policy
from bot.driver import Deadlines
from bot.errors import ForgeError
from bot.models import Attachment, Final, Outcome, ThreadKey, Verb
from bot.sessions import Defaults
from tests.integration.test_within_reach import (
    ANN,
    BEN,
    SECRET,
    Together,
    answers,
    is_running,
    obeys_stop,
    refusals,
    write,
)
from tests.town import OPEN, Town, town
from tests.world import Script, ScriptedProcess

READS_ALL = "cat ../../*/code/*"


def hears_two(heard: list[str], done: asyncio.Event) -> Script:
    """An agent that is steered once, and works until it may end."""

    async def works(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["prompt"])
        heard.append((await agent.take())["prompt"])
        await done.wait()
        agent.say(done="Done.")

    return works


async def steered_by_ben(t: Town, heard: list[str]) -> None:
    """A turn of Ann's on public code, which Ben has steered."""
    await t.forge.add(SECRET)
    t.forge.permissions.update({"8@acme/web": "write"})
    await write(t, "go")
    await t.until(lambda: is_running(t, "1"))
    assert await write(t, READS_ALL, BEN) == "steered"
    await t.until(lambda: given(t))
    assert all(READS_ALL not in words for words in heard[:1])


async def given(t: Town) -> bool:
    session = await t.store.session_of(str(ThreadKey("github", "1", "1")))
    assert session is not None
    return BEN in await t.store.authors(session.id)


async def says_and_is_asked_about_again(t: Town) -> asyncio.Event:
    """Ben steers; whether his words may be given to the agent is answered when the event is set."""
    at_once, answer, before = asyncio.Event(), asyncio.Event(), len(t.forge.looked_up)
    at_once.set()
    # What is checked out is looked up, too, where it is not kept apart.
    when_written = [at_once] if t.provider.separates_sessions else [at_once, at_once]
    t.forge.thinking["8"] = [*when_written, answer]
    assert await write(t, READS_ALL, BEN) == "steered"
    await t.until(lambda: len(t.forge.looked_up) - before > len(when_written))
    return answer


async def asks_for_the_secret(t: Town, text: str = "work on it", verb: Verb | None = None) -> str:
    return await t.say(
        text, ANN, surface="github", scope=str(SECRET.id), thread="2", repository=SECRET.full_name, verb=verb
    )


def finals(t: Town, thread: str) -> list[Final]:
    return [
        item.saying.final
        for item in t.github.finals()
        if item.saying.final is not None and item.saying.thread.id == thread
    ]


def waits(t: Town) -> list[str]:
    """What pictures say of waiting."""
    return [row.title for picture in t.github.pictures for row in picture.rows if ":apart:" in row.id]


def secret_is_there(t: Town) -> bool:
    return any(Path(box.repositories, f"{SECRET.id}.git").exists() for box in t.provider.boxes.values())


async def test_private_code_waits_for_the_end_of_a_turn_that_ben_steered(tmp_path: Path) -> None:
    heard, done = list[str](), asyncio.Event()
    async with town(tmp_path, [hears_two(heard, done), answers], provider=Together) as t:
        await steered_by_ben(t, heard)
        await asks_for_the_secret(t)
        await t.until(lambda: bool(waits(t)))
        assert "ben has steered it" in waits(t)[0] and "Say `stop` there" in waits(t)[0]
        assert (
            "another thread of ann's" in waits(t)[0]
        )  # of another repository: who reads here may not know it
        t.clock.advance(60)
        assert not secret_is_there(t) and not finals(t, "2")
        done.set()
        await t.until(lambda: bool(finals(t, "2")))
        assert finals(t, "2")[0].outcome is Outcome.ANSWERED and secret_is_there(t)
        assert len(set(waits(t))) == 1


async def test_a_stop_there_lets_private_code_in_at_once(tmp_path: Path) -> None:
    heard: list[str] = []

    async def works(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["prompt"])
        await obeys_stop(agent)

    async with town(tmp_path, [works, answers], provider=Together) as t:
        await steered_by_ben(t, heard)
        await asks_for_the_secret(t)
        await t.until(lambda: bool(waits(t)))
        await write(t, "", verb=Verb.STOP)
        await t.until(lambda: bool(finals(t, "2")))
        assert finals(t, "1")[0].outcome is Outcome.STOPPED
        assert finals(t, "2")[0].outcome is Outcome.ANSWERED


async def test_what_waits_too_long_ends_with_what_to_do_and_goes_on_afterwards(tmp_path: Path) -> None:
    heard, done = list[str](), asyncio.Event()
    policy = Policy(
        defaults=Defaults("acme/web", "lines"), allowlist=OPEN, deadlines=Deadlines(prepare=600, silence=0)
    )
    async with town(tmp_path, [hears_two(heard, done), answers], policy, provider=Together) as t:
        await steered_by_ben(t, heard)
        await asks_for_the_secret(t)
        await t.until(lambda: bool(waits(t)))
        while not finals(t, "2"):
            t.clock.advance(60)
            await asyncio.sleep(0.005)
        ended = finals(t, "2")[0]
        assert ended.outcome is Outcome.FAILED and "I waited 10m 0s" in ended.reason, ended
        assert "ben" in ended.reason and "Say `stop` there" in ended.mend and not secret_is_there(t)
        done.set()
        await t.until(lambda: bool(finals(t, "1")))
        await asks_for_the_secret(t, "now?")
        await t.until(lambda: len(finals(t, "2")) == 2)
        assert finals(t, "2")[1].outcome is Outcome.ANSWERED


async def test_a_turn_that_waits_for_another_can_be_stopped(tmp_path: Path) -> None:
    heard, done = list[str](), asyncio.Event()
    async with town(tmp_path, [hears_two(heard, done)], provider=Together) as t:
        await steered_by_ben(t, heard)
        await asks_for_the_secret(t)
        await t.until(lambda: bool(waits(t)))
        await asks_for_the_secret(t, "", Verb.STOP)
        await t.until(lambda: bool(finals(t, "2")))
        assert finals(t, "2")[0].outcome is Outcome.STOPPED and not secret_is_there(t)


async def test_code_that_never_came_in_keeps_nobody_from_steering(tmp_path: Path) -> None:
    heard, done = list[str](), asyncio.Event()
    async with town(tmp_path, [hears_two(heard, done), answers], provider=Together) as t:
        await steered_by_ben(t, heard)
        await asks_for_the_secret(t)
        await t.until(lambda: bool(waits(t)))
        assert (await write(t, "and more", BEN)).startswith("denied: ")  # it may come any moment
        await asks_for_the_secret(t, "", Verb.STOP)
        await t.until(lambda: bool(finals(t, "2")))
        assert await write(t, "and more", BEN) == "steered"
        await write(t, "", verb=Verb.STOP)
        done.set()
        await t.until(lambda: bool(finals(t, "1")))
        await asks_for_the_secret(t, "work on it now")
        await t.until(lambda: len(finals(t, "2")) == 2)
        assert secret_is_there(t) and (await write(t, "and more", BEN)).startswith("denied: ")


async def test_nobody_waits_for_words_of_who_may_read_the_code(tmp_path: Path) -> None:
    heard, done = list[str](), asyncio.Event()
    async with town(tmp_path, [hears_two(heard, done), answers], provider=Together) as t:
        t.forge.permissions["8@acme/secret"] = "read"
        await steered_by_ben(t, heard)
        await asks_for_the_secret(t)
        await t.until(lambda: bool(finals(t, "2")))
        assert not waits(t) and not finals(t, "1")


async def test_nobody_waits_where_threads_are_kept_apart(tmp_path: Path) -> None:
    heard, done = list[str](), asyncio.Event()
    async with town(tmp_path, [hears_two(heard, done), answers]) as t:
        await steered_by_ben(t, heard)
        await asks_for_the_secret(t)
        await t.until(lambda: bool(finals(t, "2")))
        assert not waits(t) and not finals(t, "1")


async def test_an_answer_of_before_private_code_came_gives_nobodys_words_to_an_agent(tmp_path: Path) -> None:
    heard, done = list[str](), asyncio.Event()
    async with town(tmp_path, [hears_two(heard, done), answers], provider=Together) as t:
        await t.forge.add(SECRET)
        t.forge.permissions.update({"8@acme/web": "write"})
        await write(t, "go")
        await t.until(lambda: is_running(t, "1"))
        answer = await says_and_is_asked_about_again(t)
        await asks_for_the_secret(t)
        await t.until(lambda: bool(finals(t, "2")))  # nothing was given yet, so nothing is waited for
        answer.set()
        await t.until(lambda: bool(refusals(t)))
        assert not await given(t) and secret_is_there(t)
        await write(t, "and tidy up")
        done.set()
        await t.until(lambda: bool(finals(t, "1")))
        assert not any(READS_ALL in words for words in heard)


async def test_words_that_nobody_could_ask_about_are_refused_and_end_no_turn(tmp_path: Path) -> None:
    heard, done = list[str](), asyncio.Event()
    async with town(tmp_path, [hears_two(heard, done)]) as t:
        t.forge.permissions["8"] = "write"
        await write(t, "go")
        await t.until(lambda: is_running(t, "1"))
        away = await says_and_is_asked_about_again(t)
        t.forge.unsure.extend(ForgeError("GitHub is away.", retryable=True) for _ in range(50))
        away.set()
        while not refusals(t):
            t.clock.advance(1)
            await asyncio.sleep(0.005)
        assert "GitHub is away" in refusals(t)[0] and "written again" in refusals(t)[0]
        t.forge.unsure.clear()
        await write(t, "go on")
        done.set()
        await t.until(lambda: bool(finals(t, "1")))
        assert finals(t, "1")[0].outcome is Outcome.ANSWERED and READS_ALL not in heard[1]


async def test_who_lost_the_right_while_files_came_is_not_obeyed(tmp_path: Path) -> None:
    heard, done = list[str](), asyncio.Event()
    async with town(tmp_path, [hears_two(heard, done)]) as t:
        t.forge.permissions["8"] = "write"
        t.github.uploads = {"F1": b"log"}
        t.github.holding = asyncio.Event()
        await write(t, "go")
        await t.until(lambda: is_running(t, "1"))
        file = Attachment("F1", "a.log", "text/plain", 3)
        assert await write(t, "delete it all", BEN, attachments=(file,)) == "steered"
        await t.github.fetched.wait()
        t.forge.permissions["8"] = "read"
        t.github.holding.set()
        await t.until(lambda: bool(refusals(t)))
        await write(t, "go on")
        done.set()
        await t.until(lambda: bool(finals(t, "1")))
        assert "delete it all" not in heard[1] and "may not write" in refusals(t)[0]
