"""An edit or a deletion that comes between the reading of a message for the agent and the record of that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

from bot.models import Attachment, Outcome, Record
from bot.ports import Store
from tests.town import Town, town
from tests.world import ScriptedProcess

Come = Callable[[], Awaitable[object]]


class Interleaved:
    """A real store, where something comes in once: right before words for the agent are recorded, or before
    the intake is closed."""

    def __init__(self) -> None:
        self.before_words: Come | None = None
        self.before_the_end: Come | None = None
        self._store: Any = None

    def over(self, store: Store) -> Store:
        self._store = store
        return cast("Store", self)

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._store, verb)

    async def record(self, turn: int, fence: int, record: Record) -> object:
        if record.written and (come := self.before_words):
            self.before_words = None
            await come()
        return await self._store.record(turn, fence, record)

    async def begin_finishing(self, turn: int, fence: int) -> object:
        if come := self.before_the_end:
            self.before_the_end = None
            await come()
        return await self._store.begin_finishing(turn, fence)


class Hears:
    """An agent that remembers what it was told, and is done with it at once."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def play(self, agent: ScriptedProcess) -> None:
        while True:
            self.words.append((await agent.take())["prompt"])
            await self.go_on.wait()
            agent.say(done="ok")


def edits(t: Town, text: str) -> Come:
    async def come() -> None:
        assert await t.say(text, addressed=False, revises="said") == "revised"

    return come


def withdraws(t: Town) -> Come:
    async def come() -> None:
        assert await t.say("", addressed=False, revises="said", withdrawn=True) == "withdrawn"

    return come


def says(t: Town, *attachments: Attachment) -> Come:
    async def come() -> None:
        said = await t.say("make it red", key="said", addressed=False, attachments=attachments)
        assert said == "steered"

    return come


async def test_the_first_prompt_has_the_words_as_they_were_edited_last(tmp_path: Path) -> None:
    store, agent = Interleaved(), Hears()
    async with town(tmp_path, [agent.play], seen=store.over) as t:
        store.before_words = edits(t, "add hello")
        await t.say("delete everything", key="said")
        await t.final()
        assert "add hello" in agent.words[0] and "delete everything" not in agent.words[0]


async def test_a_steer_has_the_words_as_they_were_edited_last(tmp_path: Path) -> None:
    store, agent = Interleaved(), Hears()
    agent.go_on.clear()
    async with town(tmp_path, [agent.play], seen=store.over) as t:
        await t.say("add hello")
        await t.until(lambda: len(agent.words) == 1)
        store.before_words = edits(t, "make it blue")
        await says(t)()
        agent.go_on.set()
        await t.final()
        assert agent.words[1:] == ["Ana: make it blue"]


async def test_words_that_are_taken_back_are_not_given_to_the_agent(tmp_path: Path) -> None:
    store, agent = Interleaved(), Hears()
    async with town(tmp_path, [agent.play], seen=store.over) as t:
        store.before_words = withdraws(t)
        await t.say("delete everything", key="said")
        assert (await t.final()).outcome is Outcome.STOPPED
        assert agent.words == []


async def test_a_turn_ends_whose_last_words_are_taken_back_when_its_agent_is_done(tmp_path: Path) -> None:
    """The agent has said its last word, and without new ones there is no other."""
    store, agent = Interleaved(), Hears()
    async with town(tmp_path, [agent.play], seen=store.over) as t:

        async def comes_late() -> None:
            store.before_words = withdraws(t)
            await says(t)()

        store.before_the_end = comes_late
        await t.say("add hello")
        assert (await t.final()).outcome is Outcome.ANSWERED
        assert len(agent.words) == 1


async def test_a_turn_ends_whose_last_words_are_taken_back_while_their_file_is_fetched(
    tmp_path: Path,
) -> None:
    store, agent = Interleaved(), Hears()
    async with town(tmp_path, [agent.play], seen=store.over) as t:
        t.slack.uploads, t.slack.holding = {"F1": b"png"}, asyncio.Event()
        store.before_the_end = says(t, Attachment("F1", "shot.png", "image/png", 3))
        await t.say("add hello")
        await asyncio.wait_for(t.slack.fetched.wait(), 20)
        await withdraws(t)()
        t.slack.holding.set()
        assert (await t.final()).outcome is Outcome.ANSWERED
        assert len(agent.words) == 1


async def test_an_agent_that_ends_while_a_file_for_it_is_fetched_is_resumed(tmp_path: Path) -> None:
    store, agent = Interleaved(), Hears()

    async def ends(process: ScriptedProcess) -> None:
        await process.take()
        process.say(done="ok")
        await t.slack.fetched.wait()
        process.exit(1)
        assert t.slack.holding is not None
        t.slack.holding.set()

    async with town(tmp_path, [ends, agent.play], seen=store.over) as t:
        t.slack.uploads, t.slack.holding = {"F1": b"png"}, asyncio.Event()
        store.before_the_end = says(t, Attachment("F1", "shot.png", "image/png", 3))
        await t.say("add hello")
        assert (await t.after_time(step=1.0)).outcome is Outcome.ANSWERED
        assert "make it red" in agent.words[0]
