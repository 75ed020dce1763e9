"""Whole turns in containers: the real bot and Docker's real SDK, with an engine on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from sandbox.engine import ID
from tests.docker_engine import IMAGE, DockerEngine
from tests.e2e.rig import REPOSITORY, Rig, previews, rig, serve
from tests.e2e.witness import Witness, until
from tests.port_people import browser, leads
from tests.remote_boxes import free_port

pytest.importorskip("aiodocker", reason="the extra `docker` is not installed")
pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = "!write {0}.txt {0}\n!commit Add {0}\n!say I added {0}.\n!answer {0} is there."
GATE = "!run touch ~/at-{0}; until test -e ~/gate-{0}; do sleep 0.05; done\n"
FETCH = 'import urllib.request as r; r.urlopen("https://denied.example", timeout=20)'
ASK = f"!run python3 -c '{FETCH}' || true\n"


@dataclass
class Yard:
    """The rig, with the engine's side of it."""

    rig: Rig
    engine: DockerEngine

    @property
    def witness(self) -> Witness:
        return Witness(self.rig)

    @property
    def homes(self) -> list[Path]:
        return [
            self.engine.directory / "volumes" / name / "home"
            for name in self.engine.volumes
            if ID.fullmatch(name)
        ]

    async def reached(self, gate: str) -> None:
        await until(lambda: any((home / f"at-{gate}").exists() for home in self.homes))

    def open(self, gate: str) -> None:
        for home in self.homes:
            (home / f"gate-{gate}").touch()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def yard(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Yard]:
    directory = tmp_path_factory.mktemp("yard")
    engine = DockerEngine(directory / "engine")
    await engine.start()
    settings = {
        "SANDPIPER_SANDBOX_PROVIDER": "docker",
        "SANDPIPER_DOCKER_HOST": engine.url,
        "SANDPIPER_DOCKER_IMAGE": IMAGE,
        "SANDPIPER_SANDBOX_PIDS": "500",
        "SANDPIPER_SANDBOX_PORTS_HOST": "127.0.0.1",
    }
    try:
        async with rig(directory, **settings) as running:
            yield Yard(running, engine)
    finally:
        await engine.close()


async def test_a_turn_becomes_a_pull_request(yard: Yard) -> None:
    root = yard.rig.mention(WORK.format("first"))
    assert "+first" in await yard.rig.diff(await yard.rig.final(root))
    whole, *rooms = yard.engine.created
    assert set(whole["Labels"].values()) >= {"sandpiper", "agent", "slack:T_ACME"}
    assert rooms and all(asked["HostConfig"]["PidsLimit"] == 500 for asked in (whole, *rooms))


async def test_a_reply_steers_the_turn(yard: Yard) -> None:
    root = yard.rig.mention("!wait\n" + WORK.format("steered"))
    await yard.rig.shows(root, "Waiting for a message")
    told = yard.rig.reply(root, "make it blue")
    await yard.rig.final(root)
    await yard.witness.once(root, commits=["Add steered"], told=[told])


async def test_ben_who_steers_one_thread_of_anas_reads_nothing_of_another(yard: Yard) -> None:
    r = yard.rig
    other = r.mention("!run echo s3cret >hers.txt; find / -name hers.txt 2>/dev/null\n!answer It is there.")
    assert "It is there." in (await r.final(other)).shown
    root = r.mention("!wait\n!answer Done.")
    await r.shows(root, "Waiting for a message")
    find = "find / -name hers.txt -exec cat {} + 2>/dev/null; cat /sandbox/workspace/*/*/hers.txt || true"
    told = r.reply(root, f"!run {find}", by="U_BEN")
    await r.final(root)
    await yard.witness.once(root, commits=[], told=[told])
    agents = r.thread(root)
    assert "s3cret" not in str([post.blocks for post in agents]) and "hers.txt" in r.picture(root)


async def test_a_host_that_is_refused_is_told_in_the_thread(yard: Yard) -> None:
    root = yard.rig.mention(ASK + "!answer Done.")
    await yard.rig.final(root)
    await yard.rig.shows(root, "denied.example:443")
    assert "SANDPIPER_EGRESS_ALLOW" in yard.rig.picture(root)


async def test_a_page_in_the_container_is_shown_to_one_person_until_the_turn_ends(yard: Yard) -> None:
    r, port = yard.rig, free_port()
    root = r.mention(serve(port) + GATE.format("page") + "!run rm page.txt\n!answer Shown.")
    await yard.reached("page")
    r.reply(root, f"preview {port}", by="U_EVE")
    r.reply(root, f"preview {port}")
    await r.slack_until(lambda: bool(previews(r, root)))
    [link] = previews(r, root)
    page = link.partition("/.sandpiper")[0] + "/page.txt"
    async with browser() as mine, browser() as other:
        assert (await mine.post(link, follow_redirects=True)).status_code == 200
        assert (await mine.get(page)).text == "hello people\n"
        assert (await other.post(link)).status_code == 410 and (await other.get(page)).status_code == 403
        yard.open("page")
        await r.final(root)
        assert not await leads(mine, page)


async def test_a_bot_that_was_killed_finds_the_agent_at_its_work(yard: Yard) -> None:
    root = yard.rig.mention(GATE.format("kill") + WORK.format("kill"))
    await yard.reached("kill")
    await yard.rig.kill()
    yard.open("kill")
    await yard.rig.start_again()
    assert "+kill" in await yard.rig.diff(await yard.rig.final(root))
    (turn,) = yard.witness.turns(root)
    assert turn["attempt"] == 1
    await yard.witness.once(root, commits=["Add kill"])


async def test_a_container_that_ends_under_the_agent_is_started_and_the_turn_goes_on(yard: Yard) -> None:
    root = yard.rig.mention(WORK.format("halt").replace("!say", GATE.format("halt") + "!say", 1))
    await yard.reached("halt")
    await yard.engine.halt()
    yard.open("halt")
    await yard.rig.final(root)
    await yard.witness.once(root, commits=["Add halt"], attempts=2)


async def test_a_large_repository_is_read_from_the_bot(yard: Yard) -> None:
    await yard.rig.kill()
    await yard.rig.start_again(SANDPIPER_CODE_ON_DEMAND_FROM="1")
    for word in ("one", "two", "three"):
        await yard.rig.github.push_commit(REPOSITORY, "main", {"changing.txt": f"{word}\n"}, "ana")
    missing = "!run git rev-list --objects --all --missing=print | grep '^?'"
    look = f"{missing}\n!run git show HEAD~1:changing.txt >seen.txt"
    root = yard.rig.mention(f"{look}\n!commit Add seen\n!answer It is there.")
    assert "+two" in await yard.rig.diff(await yard.rig.final(root))


async def test_an_image_that_cannot_be_pulled_is_told_in_the_thread(yard: Yard) -> None:
    yard.engine.images.clear()
    root = yard.rig.slack.post("U_BEN", "C_DEV", f"<@{yard.rig.slack.bot_user_id}> !answer Hello.")
    final = await yard.rig.final(root)
    yard.engine.images[IMAGE] = "sha256:" + "1" * 64
    assert f"could not pull the image {IMAGE}" in final.shown
    assert "SANDPIPER_DOCKER_IMAGE" in final.shown
