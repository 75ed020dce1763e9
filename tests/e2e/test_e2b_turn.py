"""Whole turns in sandboxes at E2B: the bot's own process, the real SDK, and E2B on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2b_server import KEY, E2BServer, Fault
from tests.e2e.rig import Rig, at_gate, previews, rig, serve
from tests.port_people import browser, leads
from tests.remote_boxes import free_port

HELLO = "!write hello.txt hello\n!commit Say hello\n!answer I said hello."
HELD = f"!write hello.txt hello\n{at_gate('one')}\n!commit Say hello\n!answer I said hello."


@asynccontextmanager
async def at_e2b(directory: Path, **settings: str) -> AsyncIterator[tuple[Rig, E2BServer]]:
    server = E2BServer(directory / "bot" / "sandboxes")
    await server.start()
    try:
        way = {
            "SANDPIPER_SANDBOX_PROVIDER": "e2b",
            "SANDPIPER_E2B_API_KEY": KEY,
            "SANDPIPER_E2B_API_URL": f"{server.url}/api",
            "SANDPIPER_E2B_SANDBOX_URL": f"{server.url}/box",
        }
        async with rig(directory, **{**way, **settings}) as running:
            yield running, server
    finally:
        for id in list(server.boxes):
            await server.lose(id)
        await server.close()


async def test_a_mention_becomes_a_pull_request(tmp_path: Path) -> None:
    async with at_e2b(tmp_path) as (bot, server):
        root = bot.mention(HELLO)
        final = await bot.final(root)
        assert "I said hello." in final.text
        assert "+hello" in await bot.diff(final)
        [kept] = server.boxes.values()
        assert kept.metadata["sandpiper.purpose"] == "agent"
        assert kept.network["denyOut"] == ["0.0.0.0/0"] and "pypi.org" in kept.network["allowOut"]
        assert (kept.on_timeout, kept.auto_resume) == ("pause", True)
        again = bot.mention("!run ls ~/.. | head\n!answer Still here.")
        assert "Still here." in (await bot.final(again)).text
        assert len(server.boxes) == 1


@pytest.mark.parametrize("away", [True, False])
async def test_the_agent_sleeps_and_wakes_with_the_bot_and_without(tmp_path: Path, away: bool) -> None:
    async with at_e2b(tmp_path) as (bot, server):
        root = bot.mention(HELD)
        await bot.reached("one")
        if away:
            await bot.kill()
        [id] = server.boxes
        await server.end_of_life(id)
        bot.open_gate("one")
        if away:
            await bot.start_again()
        final = await bot.final(root)
        assert "I said hello." in final.text
        assert "Resuming" not in str(bot.notes(root))
        assert "+hello" in await bot.diff(final)
        assert len(bot.finals(root)) == 1
        assert list(server.boxes) == [id]


async def test_a_page_in_the_sandbox_is_shown_to_one_person_until_the_turn_ends(tmp_path: Path) -> None:
    async with at_e2b(tmp_path, SANDPIPER_SANDBOX_PORTS_HOST="127.0.0.1") as (bot, _):
        port = free_port()
        root = bot.mention(f"{serve(port)}{at_gate('page')}\n!run rm page.txt\n!answer Shown.")
        await bot.reached("page")
        bot.reply(root, f"preview {port}")
        await bot.slack_until(lambda: bool(previews(bot, root)))
        [link] = previews(bot, root)
        page = link.partition("/.sandpiper")[0] + "/page.txt"
        async with browser() as mine, browser() as other:
            assert (await mine.post(link, follow_redirects=True)).status_code == 200
            assert (await mine.get(page)).text == "hello people\n"
            assert (await other.get(page)).status_code == 403
            bot.open_gate("page")
            await bot.final(root)
            assert not await leads(mine, page)


async def test_a_turn_lives_on_while_e2b_does_not_answer(tmp_path: Path) -> None:
    async with at_e2b(tmp_path) as (bot, server):
        root = bot.mention(HELD)
        await bot.reached("one")
        server.faults = [Fault("/api/", 503, times=5), Fault("/box/", 0, times=3)]
        bot.open_gate("one")
        assert "+hello" in await bot.diff(await bot.final(root))
        assert [fault.times for fault in server.faults] == [0, 0]
        assert len(server.boxes) == 1


async def test_a_turn_waits_for_e2b_and_says_so(tmp_path: Path) -> None:
    async with at_e2b(tmp_path) as (bot, server):
        server.faults = [Fault("/api/", 503)]
        root = bot.mention(HELLO)
        await bot.shows(root, "E2B does not answer")
        server.faults = []
        assert "+hello" in await bot.diff(await bot.final(root))


async def test_a_template_that_is_missing_is_told_in_the_thread(tmp_path: Path) -> None:
    async with at_e2b(tmp_path, SANDPIPER_E2B_TEMPLATE="nowhere") as (bot, server):
        final = await bot.final(bot.mention(HELLO))
        assert "SANDPIPER_E2B_TEMPLATE" in str(final.blocks) + final.text
        assert not server.boxes
