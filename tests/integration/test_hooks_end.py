"""A hook that is ended has ended, with all that it has started, where programs have no box of their own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.hook_scripts import RUN
from bot.models import Launch
from bot.ports import Sandbox
from sandbox.container import Engine
from tests.boxes import cannot_be_tested
from tests.docker_engine import IMAGE, DockerEngine, no_containers
from tests.remote_boxes import DirectoryProvider

# Hears no signal that can be missed, and has a child of its own, one in a session of its own, and one in
# another that has lost its parent.
STUBBORN = """
: MARK
trap '' INT TERM HUP
on() { echo "$1" >>../up; while :; do date >>ticks; sleep 0.05; done; }
on child &
setsid sh -c ': MARK; trap "" INT TERM HUP; echo apart >>../up; while :; do sleep 0.05; done' &
(setsid sh -c ': MARK; trap "" INT TERM HUP; echo orphan >>../up; while :; do sleep 0.05; done' &)
on hook
"""
SERVES = (
    "setsid sh -c ': MARK; echo server >>../up; sleep 600' & : ; while ! test -e ../up; do sleep 0.05; done"
)


@dataclass
class Stage:
    """seen: a session's directory, as this machine has it."""

    sandbox: Sandbox
    seen: Path

    def hook(self, command: str, mark: str, seconds: int = 300) -> Launch:
        session = f"{self.sandbox.workspaces}/s1"
        words = (f"{session}/code", "setup", "stamp", "1", str(seconds), command.replace("MARK", mark))
        return Launch(("sh", "-c", RUN, "hook", *words), "/", visible=(session,))

    async def has_begun(self, programs: int) -> None:
        up = self.seen / "up"
        async with asyncio.timeout(30):
            while not up.exists() or len(up.read_text().split()) < programs:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.fixture(params=["by a door", "by commands", "in a container"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "in a container":
            docker = pytest.importorskip("sandbox.docker", reason="the extra `docker` is not installed")
            if why := await no_containers():
                cannot_be_tested(why)
            engine = DockerEngine(tmp_path / "engine")
            await engine.start()
            stack.push_async_callback(engine.close)
            provider = docker.DockerProvider(tmp_path / "docker", Engine(engine.url, IMAGE), allow=())
            sandbox = await provider.create({"person": "ana"})
            seen = Path(engine.volumes[sandbox.id]["Mountpoint"]) / "workspace" / "s1"
        else:
            provider = DirectoryProvider(tmp_path / "boxes", door=request.param == "by a door")
            sandbox = await provider.create({"person": "ana"})
            await sandbox.enter()
            seen = Path(sandbox.workspaces) / "s1"
        stack.push_async_callback(provider.close)
        stack.push_async_callback(sandbox.delete)
        session = f"{sandbox.workspaces}/s1"
        await sandbox.run(Launch(("mkdir", "-p", f"{session}/code"), "/", visible=(session,)))
        yield Stage(sandbox, seen)


def running(mark: str) -> list[str]:
    """The command lines of this machine's programs, also those in containers, that have this word."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            said = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if mark in said:
                found.append(said)
    return found


async def test_a_stop_ends_a_hook_with_all_that_it_has_started(stage: Stage) -> None:
    mark = secrets.token_hex(8)
    hook = asyncio.ensure_future(stage.sandbox.run(stage.hook(STUBBORN, mark), timeout=630))
    await stage.has_begun(4)
    assert running(mark)
    hook.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await hook
    assert running(mark) == []
    again = await stage.sandbox.run(stage.hook("echo again", mark), timeout=30)
    assert again.out.partition(b"\n")[2] == b"again\n", "its lock is free"


async def test_a_server_that_a_hook_leaves_stays_when_it_ends_by_itself(stage: Stage) -> None:
    mark = secrets.token_hex(8)
    done = await stage.sandbox.run(stage.hook(SERVES, mark), timeout=60)
    assert done.out.startswith(b"0 ")
    assert running(mark)
