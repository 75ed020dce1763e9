"""Whole turns of the real agents in a container of a real engine, made of our image: nothing is installed
on the way to a first word. SANDPIPER_TEST_DOCKER=<image> runs it (docs/sandboxes.md); the agents are those of
the image, and only their models are scripts."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox.container import Engine
from sandbox.docker import DockerProvider
from tests.agents import claude, codex, opencode
from tests.agents.model import anthropic, responses
from tests.agents.model.script import Reply, Tool
from tests.agents.model.server import ModelServer
from tests.docker_engine import LIVE_HOST, LIVE_IMAGE, leave_no_disk
from tests.e2e.rig import REPOSITORY, Rig, rig
from tests.e2e.witness import Witness, until

pytestmark = [
    pytest.mark.skipif(
        not LIVE_IMAGE, reason="SANDPIPER_TEST_DOCKER names no image to try on a Docker engine"
    ),
    pytest.mark.timeout(600),
]

KEY = "sk-scripted-0000000000"
WRITE = "echo blue >colour.txt && git add -A && git commit -qm 'Say the colour'"


@asynccontextmanager
async def in_containers(directory: Path, agent: str, model: str, url: str) -> AsyncIterator[Rig]:
    """Where no registry is let through, so that nothing could be installed."""
    spec = {"base_url": url, "api_key": KEY, "model": model}
    settings = {
        "SANDPIPER_SANDBOX_PROVIDER": "docker",
        "SANDPIPER_DOCKER_HOST": LIVE_HOST,
        "SANDPIPER_DOCKER_IMAGE": LIVE_IMAGE,
        "SANDPIPER_EGRESS_MODE": "list",
        "SANDPIPER_EGRESS_ALLOW": "nothing.example:443",
        "SANDPIPER_AGENTS": json.dumps({agent: spec}),
        "SANDPIPER_DEFAULT_AGENT": agent,
    }
    provider = DockerProvider(
        directory / "bot" / "sandboxes" / "docker", Engine(LIVE_HOST, LIVE_IMAGE), allow=()
    )
    try:
        async with rig(directory, **settings) as running:
            yield running
    finally:
        for sandbox in await provider.find({}):
            if (provider.directory / sandbox.id).exists():  # not one of another bot's on that engine
                await sandbox.delete()
        await leave_no_disk(provider)
        await provider.close()


async def first_word(r: Rig, text: str) -> tuple[str, float]:
    """A new thread, when its turn has ended; seconds from the mention to the agent's first word."""
    witness, begun = Witness(r), time.monotonic()
    root = r.mention(text)
    await until(lambda: any(witness.events(turn["id"], "text") for turn in witness.turns(root)))
    took = time.monotonic() - begun
    await r.final(root)
    return root, took


@pytest.mark.parametrize(
    ("agent", "model", "api", "shell"),
    [
        ("claude", claude.MODEL, "", anthropic.bash),
        ("codex", codex.MODEL, "/v1", responses.shell),
        ("opencode", opencode.MODEL, "/v1", opencode.bash),
    ],
)
async def test_nothing_is_installed_on_the_way_to_the_first_word_and_work_becomes_a_pull_request(
    tmp_path: Path, agent: str, model: str, api: str, shell: Callable[[str], Tool]
) -> None:
    scripts = {
        "work": [Reply("I write it.", (shell(WRITE),)), Reply("It is written.")],
        "talk": [Reply("Here I am.")],
    }
    async with (
        ModelServer(scripts) as server,
        in_containers(tmp_path, agent, model, f"{server.url}{api}") as r,
    ):
        root, new = await first_word(r, "write down the colour [[script:work]]")
        (pull,) = r.github.pull_requests(REPOSITORY)
        assert "+blue" in await r.github.diff(REPOSITORY, pull.number)
        roots, running = [root], []
        for _ in range(3):
            root, took = await first_word(r, "are you there? [[script:talk]]")
            roots.append(root)
            running.append(took)
        restarted = r.mention("sandbox restart")
        await until(lambda: bool(r.notes(restarted)))
        root, again = await first_word(r, "are you there? [[script:talk]]")
        assert not [one for one in (*roots, root) if "Installing" in r.picture(one)]
        assert "nstalling" not in r.log and KEY not in r.log
        print(
            f"{agent}, seconds to the first word: {new:.1f} in a new sandbox, {min(running):.1f} to"
            f" {max(running):.1f} in one that runs, {again:.1f} in one that was restarted"
        )
