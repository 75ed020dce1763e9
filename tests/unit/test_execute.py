"""Short programs on this machine: none outlives who asked for it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from bot.errors import SandboxError
from sandbox.bubblewrap import Command
from sandbox.execute import execute


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def alive(pid: int) -> bool:
    """A process that has ended but was not waited for yet by its new parent is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_what_is_cancelled_while_it_is_started_is_gone_with_its_group(tmp_path: Path) -> None:
    """On a busy machine it is at its work before we hear that it has started."""
    left = tmp_path / "pid"
    script = f"sleep 60 & echo $! >{left}.new; mv {left}.new {left}; wait"
    command = Command(("sh", "-c", script), {"PATH": os.environ["PATH"]}, str(tmp_path))
    before = children()
    running = asyncio.create_task(execute(lambda handover, life: command, stdin=b"", timeout=60))
    while children() == before:  # noqa: ASYNC110 step by step, so that no step too many is done
        await asyncio.sleep(0)
    while not left.exists():
        time.sleep(0.01)  # noqa: ASYNC251 the loop is held up
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(30):
        while alive(int(left.read_text())):  # noqa: ASYNC110 another process ends
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("word", ["a\0b", "\ud800", "x" * 140_000], ids=["nul", "surrogate", "long"])
async def test_an_argument_that_no_program_can_be_given_is_an_error_in_words(word: str) -> None:
    before = descriptors()
    with pytest.raises(SandboxError, match="cannot be started"):
        await execute(lambda handover, life: Command(("echo", word)), stdin=b"", timeout=60)
    assert descriptors() == before
