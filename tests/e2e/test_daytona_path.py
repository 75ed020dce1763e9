"""Whole turns in boxes at Daytona: the real bot and Daytona's real SDK, with Daytona's API on loopback."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from handlers.playground.bot_process import BotFailed
from tests.daytona_server import ANOTHER_KEY, KEY, DaytonaServer
from tests.e2e.rig import REFUSED, Rig, rig, serve
from tests.e2e.witness import Witness, until
from tests.remote_boxes import free_port

pytest.importorskip("daytona", reason="the extra `daytona` is not installed")
pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = "!write {0}.txt {0}\n!commit Add {0}\n!say I added {0}.\n!answer {0} is there."
GATE = "!run touch ~/at-{0}; until test -e ~/gate-{0}; do sleep 0.05; done\n"


@dataclass
class Cloud:
    """The rig, with Daytona's side of it."""

    rig: Rig
    server: DaytonaServer

    @property
    def witness(self) -> Witness:
        return Witness(self.rig)

    @property
    def ids(self) -> list[str]:
        return list(self.server.boxes)

    @property
    def id(self) -> str:
        (id,) = self.ids
        return id

    async def reached(self, gate: str) -> None:
        await until(lambda: any((self.server.box(id).home / f"at-{gate}").exists() for id in self.ids))

    def open(self, gate: str) -> None:
        for id in self.ids:
            (self.server.box(id).home / f"gate-{gate}").touch()

    def agents(self) -> list[str]:
        """The attempts that are kept in the box now, by the names of their processes."""
        processes = self.server.box(self.id).home / ".sandpiper" / "processes"
        return sorted(path.name for path in processes.glob("turn-*"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cloud]:
    directory = tmp_path_factory.mktemp("cloud")
    server = DaytonaServer(directory / "daytona")
    await server.start()
    settings = {
        "SANDPIPER_SANDBOX_PROVIDER": "daytona",
        "SANDPIPER_DAYTONA_API_KEY": KEY,
        "SANDPIPER_DAYTONA_API_URL": f"{server.url}/api",
        "SANDPIPER_DAYTONA_SNAPSHOT": "sandpiper-1",
    }
    try:
        async with rig(directory, **settings) as running:
            yield Cloud(running, server)
    finally:
        await server.close()


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def sound(cloud: Cloud) -> None:
    """The provider well and the bot alive, also when the test before broke off."""
    cloud.server.faults.clear()
    if cloud.rig.bot.pid is None:
        await cloud.rig.start_again()


async def test_a_turn_becomes_a_pull_request(cloud: Cloud) -> None:
    r, server = cloud.rig, cloud.server
    root = r.mention(GATE.format("first") + WORK.format("first"))
    await cloud.reached("first")
    await until(lambda: server.boxes[cloud.id].auto_stop_interval == 1440)  # it outlives a bot that is away
    cloud.open("first")
    final = await r.final(root)
    assert "+first" in await r.diff(final)
    asked = server.created[0]
    assert (asked.snapshot, asked.auto_delete_interval) == ("sandpiper-1", -1)
    assert "registry.npmjs.org" in asked.domain_allow_list
    assert set(asked.labels.values()) >= {"sandpiper", "agent", "slack:T_ACME"}
    assert server.boxes[cloud.id].auto_stop_interval == 30


async def test_a_reply_steers_the_turn(cloud: Cloud) -> None:
    root = cloud.rig.mention("!wait\n" + WORK.format("steered"))
    await cloud.rig.shows(root, "Waiting for a message")
    told = cloud.rig.reply(root, "make it blue")
    await cloud.rig.final(root)
    await cloud.witness.once(root, commits=["Add steered"], told=[told])


async def test_a_bot_that_was_killed_finds_the_agent_at_its_work(cloud: Cloud) -> None:
    root = cloud.rig.mention(GATE.format("kill") + WORK.format("kill"))
    await cloud.reached("kill")
    before = cloud.agents()
    await cloud.rig.kill()
    cloud.open("kill")
    await cloud.rig.start_again()
    final = await cloud.rig.final(root)
    assert "+kill" in await cloud.rig.diff(final)
    assert "Resuming" not in str(cloud.rig.notes(root))
    (turn,) = cloud.witness.turns(root)
    assert turn["attempt"] == 1
    assert f"turn-{turn['id']}-1" in before
    await cloud.witness.once(root, commits=["Add kill"])


async def test_a_box_that_stops_under_the_agent_is_started_and_the_turn_goes_on(cloud: Cloud) -> None:
    root = cloud.rig.mention(WORK.format("halt").replace("!say", GATE.format("halt") + "!say", 1))
    await cloud.reached("halt")
    cloud.open("halt")
    await cloud.server.halt(cloud.id)
    await cloud.rig.final(root)
    await cloud.witness.once(root, commits=["Add halt"], attempts=2)


async def test_what_a_stopped_turn_has_done_is_kept_in_the_box(cloud: Cloud) -> None:
    root = cloud.rig.mention("!write kept.txt kept\n!commit Add kept\n" + GATE.format("kept"))
    await cloud.reached("kept")
    cloud.rig.reply(root, "stop")
    final = await cloud.rig.final(root)
    assert "The work so far is kept" in str(final) and "(1 commit)" in str(final)


@pytest.mark.parametrize(
    ("status", "said", "words", "mend"),
    [
        (400, "Total memory limit exceeded. Maximum allowed: 10GiB.", "quota of memory", "dashboard/limits"),
        (400, "Snapshot sandpiper-1 not found.", "cannot use the snapshot sandpiper-1", "DAYTONA_SNAPSHOT"),
        (
            400,
            "Disk request 90GB exceeds maximum allowed per sandbox (10GB).",
            "no sandbox of that",
            "smaller",
        ),
        (401, "Invalid credentials", "does not accept the API key", "SANDPIPER_DAYTONA_API_KEY"),
    ],
)
async def test_what_daytona_refuses_is_told_in_the_thread(
    cloud: Cloud, status: int, said: str, words: str, mend: str
) -> None:
    cloud.server.fail("POST /api/sandbox$", status, message=said)
    root = cloud.rig.slack.post("U_BEN", "C_DEV", f"<@{cloud.rig.slack.bot_user_id}> !answer Hello.")
    final = await cloud.rig.final(root)
    assert words in final.shown
    assert mend in final.shown


async def test_an_image_that_cannot_be_pulled_is_told_in_the_thread(cloud: Cloud) -> None:
    async def fails() -> None:
        (box,) = [box for box in cloud.server.boxes.values() if box.state == "creating"]
        box.state, box.error_reason = "build_failed", "pull access denied"

    cloud.server.begun = fails
    root = cloud.rig.slack.post("U_BEN", "C_DEV", f"<@{cloud.rig.slack.bot_user_id}> !answer Hello.")
    final = await cloud.rig.final(root)
    cloud.server.begun = None
    assert "could not make a sandbox of the snapshot sandpiper-1: pull access denied" in final.shown


async def test_a_provider_that_is_away_for_a_while_is_waited_for(cloud: Cloud) -> None:
    cloud.server.fail("(GET|POST) /api", 503, message="maintenance", times=-1)
    root = cloud.rig.mention(WORK.format("late"))
    await cloud.rig.shows(root, "I keep trying")
    cloud.server.faults.clear()
    assert "+late" in await cloud.rig.diff(await cloud.rig.final(root))


async def test_a_provider_that_is_away_in_mid_turn_leaves_the_agent_at_its_work(cloud: Cloud) -> None:
    root = cloud.rig.mention(GATE.format("away") + WORK.format("away"))
    await cloud.reached("away")
    cloud.server.fail(".", 503, message="maintenance", times=-1)
    before = len(cloud.server.asked)
    cloud.open("away")
    await until(lambda: len(cloud.server.asked) > before + 10)
    cloud.server.faults.clear()
    await cloud.rig.final(root)
    await cloud.witness.once(root, commits=["Add away"])


async def test_a_preview_is_a_link_that_shows_the_page_and_ends(cloud: Cloud) -> None:
    r, port = cloud.rig, free_port()
    root = r.mention(serve(port) + GATE.format("page") + "!run rm page.txt\n!answer Shown.")
    await cloud.reached("page")

    async def link(ask: str, count: int) -> str:
        r.reply(root, ask)
        await r.slack_until(lambda: len(links(r, root)) == count)
        return links(r, root)[-1]

    async with httpx.AsyncClient(trust_env=False) as anybody:
        first = await link(f"preview {port}", 1)
        assert (await anybody.get(f"{first}page.txt")).text == "hello people\n"
        cloud.server.later = 3601.0
        assert (await anybody.get(f"{first}page.txt")).status_code == 401
        second = await link(f"preview {port}", 2)
        assert (await anybody.get(f"{second}page.txt")).status_code == 200
        r.reply(root, f"preview {free_port()}")
        await r.slack_until(lambda: any("Nothing listens" in note for note in r.notes(root)))
        refused = r.reply(root, f"preview {port}", by="U_EVE")
        await r.marked(refused, REFUSED)
        cloud.open("page")
        await r.final(root)
        assert (await anybody.get(f"{second}page.txt")).status_code == 401, "it ends with the turn"
    assert len(links(r, root)) == 2
    assert all("Whoever has this link may open it" in note for note in r.notes(root) if "/signed/" in note)


def links(r: Rig, root: str) -> list[str]:
    return [
        found[0] for note in r.notes(root) if (found := re.search(r"http://[^ >|]+/signed/[0-9a-f]+/", note))
    ]


async def test_a_box_that_is_gone_is_replaced_and_the_thread_told(cloud: Cloud) -> None:
    root = cloud.rig.mention(GATE.format("gone") + WORK.format("gone"))
    await cloud.reached("gone")
    await cloud.server.vanish(cloud.id)
    await until(lambda: bool(cloud.ids))
    await cloud.reached("gone")
    cloud.open("gone")
    assert "+gone" in await cloud.rig.diff(await cloud.rig.final(root))
    assert "no longer exists at its provider" in cloud.rig.picture(root)


async def test_a_box_that_is_gone_under_two_turns_is_replaced_for_both_and_both_are_told(
    cloud: Cloud,
) -> None:
    names = ("gone-a", "gone-b")
    roots = [cloud.rig.mention(GATE.format(name) + WORK.format(name)) for name in names]
    for name in names:
        await cloud.reached(name)
    await cloud.server.vanish(cloud.id)
    await until(lambda: bool(cloud.ids))
    for name, root in zip(names, roots, strict=True):
        await cloud.reached(name)
        cloud.open(name)
        assert f"+{name}" in await cloud.rig.diff(await cloud.rig.final(root))
        assert "Work that was not pushed is lost with the old one." in cloud.rig.picture(root)


async def test_a_wrong_key_is_told_at_the_start(cloud: Cloud) -> None:
    await cloud.rig.bot.stop()
    right = cloud.rig.settings
    with pytest.raises(BotFailed, match="SANDPIPER_DAYTONA_API_KEY"):
        await cloud.rig.start_again(SANDPIPER_DAYTONA_API_KEY="wrong")
    await cloud.rig.bot.stop()
    cloud.rig.settings = right
    await cloud.rig.start_again()


async def test_a_bot_that_starts_while_daytona_is_away_works_as_soon_as_it_is_back(cloud: Cloud) -> None:
    await cloud.rig.bot.stop()
    cloud.server.fail(" /api/", 503, times=-1)
    await cloud.rig.start_again()
    root = cloud.rig.mention(WORK.format("back"))
    await cloud.rig.shows(root, "503")
    cloud.server.faults.clear()
    assert "+back" in await cloud.rig.diff(await cloud.rig.final(root))


async def test_a_key_of_another_account_loses_nothing(cloud: Cloud) -> None:
    """Of one sandbox alone, too."""
    r, server = cloud.rig, cloud.server
    root = r.mention("!answer Hello.")
    await r.final(root)
    await r.bot.stop()
    before = dict(server.boxes)
    assert len(before) == 1
    await r.start_again(SANDPIPER_DAYTONA_API_KEY=ANOTHER_KEY)
    r.reply(root, "!answer There.")
    told = (await r.final(root, 2)).shown
    assert "in another account at daytona (org-1)" in told and "SANDPIPER_DAYTONA_API_KEY" in told
    assert server.boxes == before
    await r.bot.stop()
    await r.start_again(SANDPIPER_DAYTONA_API_KEY=KEY)
    r.reply(root, "!answer There.")
    assert "There." in (await r.final(root, 3)).shown
    assert server.boxes == before and "no longer" not in r.picture(root)
