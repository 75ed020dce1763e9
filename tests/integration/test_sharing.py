"""What agents share, when they, the bot or the turn end in between."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from bot.agents.codec import Happening, Lines, State, Step
from bot.agents.side_tools import SideTools
from bot.models import Outcome, Saying, SayingKind, Session
from bot.ports import Store
from bot.sharing import MOST_WAITING
from sandbox.local_ports import LocalPorts
from tests.moody import MoodyStore, moody
from tests.town import Town, town
from tests.world import LineCodec, Script, ScriptedProcess

NAME = "0123456789abcdef"


@dataclass
class Stage:
    up: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[dict[str, str]] = field(default_factory=list)


def with_side_tools(tmp_path: Path, *scripts: Script) -> AbstractAsyncContextManager[Town]:
    return town(tmp_path, scripts, agents={"lines": SideTools(LineCodec())})


def copy_in(agent: ScriptedProcess, name: str = NAME) -> str:
    path = agent.cwd.parent / ".sandpiper" / "shared" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"hello")
    return str(path)


async def is_over(t: Town) -> bool:
    return await t.store.open_turn((await session_of(t)).id) is None


async def session_of(t: Town) -> Session:
    session = await t.store.session_of("slack:T1/C1:t1")
    assert session is not None
    return session


def offers(agent: ScriptedProcess, tool: str, id: str = "1") -> str:
    path = copy_in(agent)
    agent.say(
        sandpiper="call", id=id, tool=tool, arguments={"path": path, "name": "a.txt", "size": 5, "port": 80}
    )
    return path


async def test_an_answer_of_an_earlier_attempt_is_not_given_to_the_next(tmp_path: Path) -> None:
    stage = Stage()

    async def dies(agent: ScriptedProcess) -> None:
        await agent.take()
        offers(agent, "share_file")
        agent.exit(137)

    async def asks(agent: ScriptedProcess) -> None:
        agent.say(took=(await agent.heard())["key"])
        agent.say(sandpiper="call", id="1", tool="ask_person", arguments={"question": "Delete it?"})
        stage.heard.append(await agent.heard())
        agent.say(done="ok")

    async with with_side_tools(tmp_path, dies, asks) as t:
        await t.say("go")
        async with asyncio.timeout(20):
            while not any(item.saying.kind is SayingKind.ASK for item in t.slack.said):
                t.clock.advance(0.5)
                await asyncio.sleep(0.01)
        await t.say("Keep it", addressed=False)
        assert (await t.final()).text == "ok"
        assert [heard["text"] for heard in stage.heard] == ["Keep it"]
        files = [item for item in t.slack.said if item.saying.kind is SayingKind.FILE]
        assert len(files) == 1, "the file is there twice"


async def test_a_port_that_is_offered_with_the_last_word_is_closed_too(tmp_path: Path) -> None:
    async def ends(agent: ScriptedProcess) -> None:
        await agent.take()
        offers(agent, "share_port")
        agent.say(done="bye")

    async with with_side_tools(tmp_path, ends) as t:
        await t.say("go")
        await t.final()
        [box] = t.provider.boxes.values()
        assert not box.exposed


class Fails(LineCodec):
    """A codec with a mistake in it."""

    def on(self, state: State, happening: Happening) -> Step:
        if isinstance(happening, Lines) and any(b"fail now" in line for line in happening.lines):
            raise RuntimeError("a mistake")
        return super().on(state, happening)


async def test_a_port_is_closed_when_a_turn_fails_by_a_mistake_of_ours(tmp_path: Path) -> None:
    async def serves(agent: ScriptedProcess) -> None:
        await agent.take()
        offers(agent, "share_port")
        await agent.heard()
        agent.say(text="fail now")
        await asyncio.Event().wait()

    async with town(tmp_path, [serves], agents={"lines": SideTools(Fails())}) as t:
        await t.say("go")
        assert (await t.final()).outcome is Outcome.FAILED
        [box] = t.provider.boxes.values()
        assert not box.exposed


async def test_an_agent_that_ends_after_its_last_word_is_not_talked_to(tmp_path: Path) -> None:
    """It ends while its file is on the way, and has left a change uncommitted."""

    async def leaves(agent: ScriptedProcess) -> None:
        await agent.take()
        await agent.write_file("left.txt", "left\n")
        offers(agent, "share_file")
        agent.say(done="bye")
        agent.exit(0)

    async def goes_on(agent: ScriptedProcess) -> None:
        await agent.take()
        await agent.write_file("left.txt", "left\n", commit="What was left")
        agent.say(done="all there")

    async with with_side_tools(tmp_path, leaves, goes_on) as t:
        await t.say("go")
        final = await t.after_time(step=1.0)
        assert final.text == "all there"
        assert len([item for item in t.slack.said if item.saying.kind is SayingKind.FILE]) == 1


async def test_a_bot_that_stops_in_good_order_leaves_the_ports_way_to_the_next(tmp_path: Path) -> None:
    stage, ways = Stage(), []

    async def serves(agent: ScriptedProcess) -> None:
        await agent.take()
        ways.append(offers(agent, "share_port"))
        await agent.heard()
        stage.up.set()
        await asyncio.Event().wait()

    async with with_side_tools(tmp_path, serves) as t:
        await t.say("go")
        await stage.up.wait()
    assert Path(ways[0]).exists()


async def test_one_way_is_opened_once(tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(lambda _, out: out.close(), tmp_path / "s")
    ports = LocalPorts("127.0.0.1")
    links = await asyncio.gather(*(ports.expose(tmp_path, "s") for _ in range(3)))
    await ports.close()
    alive = 0
    for link in links:
        try:
            _, out = await asyncio.open_connection("127.0.0.1", int(link.url.rstrip("/").rpartition(":")[2]))
            out.close()
            alive += 1
        except OSError:
            pass
    server.close()
    assert alive == 0


async def test_a_store_that_fails_while_a_file_is_shared_leaves_nobody_waiting(tmp_path: Path) -> None:
    moods: list[MoodyStore] = []

    def sometimes(store: Store) -> Store:
        it, seen = moody(store)
        moods.append(it)
        return seen

    async def shares(agent: ScriptedProcess) -> None:
        await agent.take()
        moods[0].away = {"say"}
        offers(agent, "share_file")
        assert "on its way" in (await agent.heard())["text"]
        agent.say(done="bye")

    agents = {"lines": SideTools(LineCodec())}
    async with town(tmp_path, [shares], agents=agents, seen=sometimes) as t:
        await t.say("go")
        await t.until(lambda: "say" in moods[0].turned_away)
        moods[0].away = set()
        assert (await t.after_time()).text == "bye"


async def test_a_copy_that_waits_to_be_shown_is_not_fetched_again(tmp_path: Path) -> None:
    """It is read at any moment, after it was looked through for keys; the agent may have changed its own."""

    async def shares_twice(agent: ScriptedProcess) -> None:
        await agent.take()
        path = offers(agent, "share_file", "1")
        assert "on its way" in (await agent.heard())["text"]
        Path(path).write_bytes(b"something else")
        again = {"path": path, "name": "a.txt"}
        agent.say(sandpiper="call", id="2", tool="share_file", arguments=again)
        assert "on its way" in (await agent.heard())["text"]
        agent.say(done="bye")

    async with with_side_tools(tmp_path, shares_twice) as t:
        t.slack.busy = 1_000_000
        await t.say("go")
        shared = tmp_path / "shared"
        await t.until(lambda: is_over(t))
        [copy] = shared.iterdir()
        assert copy.read_bytes() == b"hello"
        t.slack.busy = 0
        await t.after_time()
        assert len([item for item in t.slack.said if item.saying.kind is SayingKind.FILE]) == 1


@pytest.mark.parametrize(
    "path",
    [
        "{session}/.ssh/id",
        NAME,
        "{session}/.sandpiper/shared/../../x",
        "/etc/passwd",
        "{home}/.sandpiper/shared/" + NAME,
    ],
)
async def test_nothing_but_a_copy_is_fetched_or_deleted(tmp_path: Path, path: str) -> None:
    kept: list[Path] = []

    async def offers_another(agent: ScriptedProcess) -> None:
        await agent.take()
        session = Path(copy_in(agent)).parents[2]
        home = session.parents[1] / "home"
        (session / ".ssh").mkdir()
        (home / ".sandpiper/shared").mkdir(parents=True)
        for file in (session / ".ssh/id", session / "x", home / ".sandpiper/shared" / NAME):
            file.write_text("precious")
            kept.append(file)
        given = {"path": path.format(home=home, session=session), "name": "a.txt"}
        agent.say(sandpiper="call", id="1", tool="share_file", arguments=given)
        assert (await agent.heard())["text"].startswith("Not shared: What was offered is none")
        agent.say(done="bye")

    async with with_side_tools(tmp_path, offers_another) as t:
        await t.say("go")
        await t.final()
        assert [file.read_text() for file in kept] == ["precious"] * 3
        assert not [item for item in t.slack.said if item.saying.kind is SayingKind.FILE]


async def test_more_than_can_wait_is_not_taken(tmp_path: Path) -> None:
    async def shares(agent: ScriptedProcess) -> None:
        await agent.take()
        for name in ("1-1-a", "1-1-b"):
            with (tmp_path / "shared" / name).open("wb") as file:
                file.truncate(MOST_WAITING)
        offers(agent, "share_file")
        assert "Too much waits" in (await agent.heard())["text"]
        agent.say(done="bye")

    async with with_side_tools(tmp_path, shares) as t:
        await t.say("go")
        assert (await t.final()).text == "bye"


class SlowToSay:
    """A real store that takes in nothing to be said before it may."""

    def __init__(self) -> None:
        self.asked, self.may = asyncio.Event(), asyncio.Event()
        self._store: Any = None

    def over(self, store: Store) -> Store:
        self._store = store
        return cast("Store", self)

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._store, verb)

    async def say(self, saying: Saying) -> bool:
        self.asked.set()
        await self.may.wait()
        return bool(await self._store.say(saying))


async def test_words_that_come_while_a_file_is_shared_after_the_last_word_are_answered(
    tmp_path: Path,
) -> None:
    """The word that was there before them is not the last one any more."""
    store = SlowToSay()

    async def shares(agent: ScriptedProcess) -> None:
        await agent.take()
        offers(agent, "share_file")
        agent.say(done="bye")
        await agent.take()
        store.may.set()
        assert "on its way" in (await agent.heard())["text"]
        agent.say(done="It is blue now.")

    agents = {"lines": SideTools(LineCodec())}
    async with town(tmp_path, [shares], agents=agents, seen=store.over) as t:
        await t.say("go")
        await asyncio.wait_for(store.asked.wait(), 20)
        assert await t.say("make it blue", addressed=False) == "steered"
        assert (await t.final()).text == "It is blue now."
