"""What people attach to their messages is in the sandbox before the agent reads of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from bot.agents.codec import Capabilities
from bot.models import Attachment, Outcome, Verb
from bot.shared_files import LARGEST_FILE
from tests.integration.test_turns import is_running, never_ends
from tests.town import Town, town
from tests.world import LineCodec, ScriptedProcess

PNG = Attachment("F1", "shot.png", "image/png", 3)
LOG = Attachment("F2", "../../a`b.log", "text/plain", 3)
SEES = {"lines": LineCodec(capabilities=replace(LineCodec().capabilities, images=True))}


def path_of(heard: dict[str, str], name: str) -> Path:
    [path] = [word.strip("(),") for word in heard["prompt"].split() if word.strip("(),").endswith(name)]
    return Path(path)


def notices(t: Town) -> str:
    return str([picture.rows for picture in t.slack.pictures])


@pytest.mark.parametrize("sees", [True, False])
async def test_files_come_with_the_first_prompt(tmp_path: Path, sees: bool) -> None:
    async def reads(agent: ScriptedProcess) -> None:
        heard = await agent.take()
        shot = path_of(heard, "1-shot.png")
        assert shot.read_bytes() == b"png"
        assert heard["pictures"] == (str(shot) if sees else "")
        assert path_of(heard, "2-a`b.log").read_bytes() == b"log"
        assert shot.parents[1] == agent.cwd.parent / ".sandpiper" / "attached"
        agent.say(done="Seen.")

    agents = SEES if sees else {"lines": LineCodec(capabilities=Capabilities(images=False))}
    async with town(tmp_path, [reads], agents=agents) as t:
        t.slack.uploads = {"F1": b"png", "F2": b"log"}
        await t.say("look", attachments=(PNG, LOG))
        assert (await t.final()).text == "Seen."
        assert not list((tmp_path / "scratch").glob("attached*"))


async def test_a_steer_waits_for_its_file_and_later_ones_for_it(tmp_path: Path) -> None:
    async def steered(agent: ScriptedProcess) -> None:
        await agent.take()
        heard = await agent.take()
        assert path_of(heard, "1-shot.png").read_bytes() == b"png"
        assert heard["prompt"].index("look at this") < heard["prompt"].index("and hurry")
        agent.say(done="Seen.")

    async with town(tmp_path, [steered], agents=SEES) as t:
        t.slack.uploads, t.slack.holding = {"F1": b"png"}, asyncio.Event()
        await t.say("start")
        await t.until(lambda: is_running(t))
        await t.say("look at this", addressed=False, attachments=(PNG,))
        await t.slack.fetched.wait()
        await t.say("and hurry", addressed=False)
        t.slack.holding.set()
        assert (await t.final()).text == "Seen."


async def test_a_stop_does_not_wait_for_a_file(tmp_path: Path) -> None:
    async def stops(agent: ScriptedProcess) -> None:
        await agent.take()
        while "interrupt" not in await agent.heard():
            pass
        agent.say(cancelled=True)

    async with town(tmp_path, [stops]) as t:
        t.slack.holding = asyncio.Event()
        await t.say("start")
        await t.until(lambda: is_running(t))
        await t.say("look", addressed=False, attachments=(PNG,))
        await t.slack.fetched.wait()
        await t.say("", verb=Verb.STOP, addressed=False)
        assert (await t.final()).outcome is Outcome.STOPPED


async def test_what_cannot_be_had_is_told_and_fails_nothing(tmp_path: Path) -> None:
    heard: list[str] = []

    async def goes_on(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["prompt"])
        agent.say(done="Without it.")

    huge = Attachment("F3", "huge.bin", "", LARGEST_FILE + 1)
    many = tuple(Attachment("F2", f"{n}.txt") for n in range(11))
    async with town(tmp_path, [goes_on]) as t:
        t.slack.uploads = {"F2": b"log"}
        await t.say("look", attachments=(PNG, huge, *many))
        assert (await t.final()).text == "Without it."
        assert "(not here: shot.png. It was deleted.)" in heard[0]
        assert "(not here: huge.bin. It has 21.0 MB, and at most 21.0 MB are taken.)" in heard[0]
        assert "(not here: 3 more." in heard[0] and heard[0].count("(attached: ") == 8
        assert "Not brought to the agent: `shot.png`. It was deleted." in notices(t)


async def test_an_edit_does_not_bring_a_file_again(tmp_path: Path) -> None:
    async with town(tmp_path, [never_ends]) as t:
        t.slack.uploads = {"F1": b"png"}
        await t.say("look", key="one", attachments=(PNG,))
        await t.until(lambda: is_running(t))
        del t.slack.uploads["F1"]
        await t.say("look closely", addressed=False, revises="one", attachments=(PNG,))
        [box] = t.provider.boxes.values()
        [process] = box.processes.values()
        await t.until(lambda: b"look closely" in process.stdin)
        assert b"not here" not in process.stdin
