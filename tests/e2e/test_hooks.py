"""A repository's hooks in a real box: what they have, and what they don't; and a bot that dies over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.rig import REPOSITORY, Rig
from tests.e2e.test_secrets import doors
from tests.e2e.witness import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETUP = """\
#!/bin/bash
echo begun >>~/begun
env >~/hook.env
ls /workspace /repositories >~/hook.ls
touch prepared.tmp
until test -e ~/gate-hook; do sleep 0.05; done
echo all is ready
"""


def home(r: Rig) -> Path:
    (found,) = (r.directory / "bot" / "sandboxes").glob("local-*/home")
    return found


async def until_begun(r: Rig, times: int) -> None:
    def begun() -> bool:
        homes = r.directory.glob("bot/sandboxes/local-*/home/begun")
        return any(path.read_text().count("begun") >= times for path in homes)

    await until(begun)


async def test_a_bot_that_is_killed_over_a_setup_repeats_it_and_the_turn_goes_on(shared: Rig) -> None:
    r = shared
    files = {".sandpiper/setup.sh": SETUP, ".gitignore": "*.tmp\n"}
    await r.github.push_commit(REPOSITORY, "main", files, "ana", "Set up")
    root = r.mention("!run ls prepared.tmp\n!answer It is there.")
    await until_begun(r, 1)
    await r.shows(root, "Running .sandpiper/setup.sh")
    await r.kill()
    await r.start_again()
    await until_begun(r, 2)
    (home(r) / "gate-hook").touch()
    await r.final(root)
    await r.shows(root, "Ran .sandpiper/setup.sh")
    assert "all is ready" in r.picture(root)
    assert r.picture(root).count("setup.sh") == r.picture(root).count("Ran .sandpiper/setup.sh")
    assert len(r.finals(root)) == 1

    # It has what an agent has, and no more.
    env = (home(r) / "hook.env").read_text()
    assert "HOME=/home/agent" in env and "https_proxy=" in env.lower()
    for what, word in doors(r).items():
        assert word not in env, what
    assert not [line for line in env.splitlines() if "KEY" in line.partition("=")[0]]
    below = (home(r) / "hook.ls").read_text().split()
    assert len(below) == 4, below  # two headings, its own session's directory, its repository

    # Another thread has a worktree and a setup of its own, and sees nothing of the first one's.
    other = r.mention("!run ls prepared.tmp\n!answer Also there.")
    await r.final(other)
    assert (home(r) / "begun").read_text().count("begun") == 3
    below = (home(r) / "hook.ls").read_text().split()
    assert len(below) == 4, below
