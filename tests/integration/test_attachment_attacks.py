"""Files that people attach, where names and times are not what one hopes for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from bot.models import Outcome, Verb
from tests.integration.test_attachments import PNG, SEES, notices
from tests.integration.test_turns import is_running
from tests.town import town
from tests.world import ScriptedProcess


@pytest.mark.parametrize(
    "name",
    [
        "\u8a2d\u8a08" * 60 + ".png",  # 360 bytes and more of UTF-8
        "\U0001f4a9" * 130 + ".png",
        "..",
        "../../.bashrc",
        "/etc/passwd",
        "-rf",
        "a\nb\u202egnp.exe",
    ],
)
async def test_any_name_is_a_file_of_its_own_place(tmp_path: Path, name: str) -> None:
    places: list[str] = []

    async def reads(agent: ScriptedProcess) -> None:
        heard = await agent.take()
        places.append(heard["prompt"])
        agent.say(done="Seen.")

    async with town(tmp_path, [reads], agents=SEES) as t:
        t.slack.uploads = {"F1": b"png"}
        await t.say("look", attachments=(replace(PNG, name=name),))
        assert (await t.final()).text == "Seen."
        assert "not here" not in places[0]
        [box] = t.provider.boxes.values()
        found = [path for path in Path(box.workspaces).glob("*/.sandpiper/attached/**/*") if path.is_file()]
        assert [path.read_bytes() for path in found] == [b"png"]
        assert len(found[0].name.encode()) <= 200
        assert str(found[0]) in places[0]


async def test_a_file_that_never_comes_does_not_fail_the_turn_that_it_opens(tmp_path: Path) -> None:
    heard: list[str] = []

    async def goes_on(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["prompt"])
        agent.say(done="Without it.")

    async with town(tmp_path, [goes_on], agents=SEES) as t:
        t.slack.holding = asyncio.Event()
        await t.say("look", attachments=(PNG,))
        await t.slack.fetched.wait()
        final = await t.after_time()
        assert (final.text, final.outcome) == ("Without it.", Outcome.ANSWERED)
        assert "(not here: shot.png." in heard[0]
        assert "shot.png" in notices(t)


async def test_a_stop_of_a_turn_that_is_prepared_does_not_wait_for_a_file(tmp_path: Path) -> None:
    async def nothing(agent: ScriptedProcess) -> None:
        await agent.take()

    async with town(tmp_path, [nothing], agents=SEES) as t:
        t.slack.holding = asyncio.Event()
        await t.say("look", attachments=(PNG,))
        await t.slack.fetched.wait()
        await t.say("", verb=Verb.STOP, addressed=False)
        assert (await t.final()).outcome is Outcome.STOPPED
        assert not list((tmp_path / "scratch").glob("attached*"))


async def test_a_file_that_comes_after_the_last_word_is_still_looked_at(tmp_path: Path) -> None:
    said = asyncio.Event()

    async def is_done_too_soon(agent: ScriptedProcess) -> None:
        await agent.take()
        await said.wait()
        agent.say(done="Done.")
        heard = await agent.take()
        assert Path(heard["pictures"]).read_bytes() == b"png"
        agent.say(done="Seen.")

    async with town(tmp_path, [is_done_too_soon], agents=SEES) as t:
        t.slack.uploads, t.slack.holding = {"F1": b"png"}, asyncio.Event()
        await t.say("start")
        await t.until(lambda: is_running(t))
        await t.say("look", addressed=False, attachments=(PNG,))
        await t.slack.fetched.wait()
        said.set()
        await t.until(lambda: b"Done." in bytes(t.box().out))
        t.slack.holding.set()
        assert (await t.final()).text == "Seen."


async def test_an_agent_that_is_resumed_is_told_again_and_people_are_not(tmp_path: Path) -> None:
    heard: list[str] = []

    async def dies(agent: ScriptedProcess) -> None:
        heard.append((await agent.heard())["prompt"])
        agent.exit(3)

    async def goes_on(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["prompt"])
        agent.say(done="Without it.")

    async with town(tmp_path, [dies, goes_on], agents=SEES) as t:
        await t.say("look", attachments=(PNG,))
        assert (await t.after_time(step=1.0)).text == "Without it."
        assert [text.count("(not here: shot.png.") for text in heard] == [1, 1]
        rows = [row.title for row in t.slack.pictures[-1].rows]
        assert len([title for title in rows if "shot.png" in title]) == 1
