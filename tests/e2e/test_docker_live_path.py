"""Whole turns of the real Claude Code in a container of a real engine, made of our image: nothing is
installed on the way to its first word. SANDPIPER_TEST_DOCKER=<image> runs it (docs/sandboxes.md); agents are
those of the image, and only the model is a script."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox.container import Engine
from sandbox.docker import DockerProvider
from tests.agents.model.anthropic import bash
from tests.agents.model.script import Reply
from tests.agents.model.server import ModelServer
from tests.docker_engine import LIVE_HOST, LIVE_IMAGE
from tests.e2e.rig import REPOSITORY, Rig, rig
from tests.e2e.witness import Witness, until

pytestmark = [
    pytest.mark.skipif(
        not LIVE_IMAGE, reason="SANDPIPER_TEST_DOCKER names no image to try on a Docker engine"
    ),
    pytest.mark.timeout(600),
]

COMMIT = "git add -A && git commit -qm 'Say the colour'"
SCRIPTS = {
    "work": [Reply("I write it.", (bash(f"echo blue >colour.txt && {COMMIT}"),)), Reply("It is written.")],
    "talk": [Reply("Here I am.")],
}


@asynccontextmanager
async def in_containers(directory: Path, model: ModelServer) -> AsyncIterator[Rig]:
    """Where no registry is let through, so that nothing could be installed."""
    settings = {
        "SANDPIPER_SANDBOX_PROVIDER": "docker",
        "SANDPIPER_DOCKER_HOST": LIVE_HOST,
        "SANDPIPER_DOCKER_IMAGE": LIVE_IMAGE,
        "SANDPIPER_EGRESS_MODE": "list",
        "SANDPIPER_EGRESS_ALLOW": "nothing.example:443",
        "SANDPIPER_ANTHROPIC_API_KEY": "sk-ant-test",
        "SANDPIPER_ANTHROPIC_BASE_URL": model.url,
        "SANDPIPER_DEFAULT_AGENT": "claude",
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
        await provider.close()


async def first_word(r: Rig, text: str) -> tuple[str, float]:
    """A new thread, when its turn has ended; seconds from the mention to the agent's first word."""
    witness, begun = Witness(r), time.monotonic()
    root = r.mention(text)
    await until(lambda: any(witness.events(turn["id"], "text") for turn in witness.turns(root)))
    took = time.monotonic() - begun
    await r.final(root)
    return root, took


async def test_nothing_is_installed_on_the_way_to_the_first_word_and_work_becomes_a_pull_request(
    tmp_path: Path,
) -> None:
    async with ModelServer(SCRIPTS) as model, in_containers(tmp_path, model) as r:
        root, first = await first_word(r, "write down the colour [[script:work]]")
        (pull,) = r.github.pull_requests(REPOSITORY)
        assert "+blue" in await r.github.diff(REPOSITORY, pull.number)
        roots, warm = [root], []
        for _ in range(3):
            root, took = await first_word(r, "are you there? [[script:talk]]")
            roots.append(root)
            warm.append(took)
        stopped = r.mention("sandbox restart")
        await until(lambda: bool(r.notes(stopped)))
        root, cold = await first_word(r, "are you there? [[script:talk]]")
        for one in [*roots, root]:
            assert "Installing" not in r.picture(one)
        assert "Installing" not in r.log and "sk-ant-test" not in r.log
        print(
            f"seconds to the first word: {first:.1f} in a new sandbox, {min(warm):.1f} to {max(warm):.1f} in"
            f" one that runs, {cold:.1f} in one that was restarted"
        )
