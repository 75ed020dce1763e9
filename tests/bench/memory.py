"""The memory of the bot's real process, between the playground's Slack and GitHub, and of a keeper."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from bot.errors import ProviderUnavailable
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider
from tests.bench.table import Row, Skipped
from tests.e2e.rig import rig

TURNS = 20
PATIENCE = 60.0
WAITING = b"Waiting for a message"
HELD = "Memory (resident set): a Python interpreter that has imported nothing and waits."
# All that a process written in Python needs to wait.
IDLE = (sys.executable, "-I", "-S", "-c", "print(flush=True); import sys; sys.stdin.read()")


async def measure(directory: Path) -> Sequence[Row]:
    try:
        await LocalProvider(directory / "probe", Bubblewrap(Options(), allow=())).check()
    except ProviderUnavailable as error:
        raise Skipped(str(error)) from error
    floor = await _interpreter()
    async with rig(directory, SANDPIPER_CAP_PERSON="0", SANDPIPER_CAP_TOTAL="0") as running:
        bot = running.bot.pid
        assert bot is not None
        idle = _resident(bot)
        for _ in range(TURNS):
            running.mention("!wait")
        spools = directory / "bot" / "sandboxes"
        await _all_wait(spools)
        busy = _resident(bot)
        kept = [json.loads(file.read_text()) for file in spools.glob("*/spool/*/keeper")]
        keepers = [_resident(keeper["pid"]) for keeper in kept]
    return [
        Row("memory of the bot, idle", "MB", idle, floor, HELD),
        Row(f"memory of the bot with {TURNS} turns waiting", "MB", busy, floor, HELD),
        Row("memory of a keeper", "MB", statistics.median(keepers), floor, HELD),
    ]


async def _all_wait(spools: Path) -> None:
    """Their pictures tell it later, since so many are not redrawn all at once."""
    async with asyncio.timeout(PATIENCE):
        while True:
            said = [file.read_bytes() for file in spools.glob("*/spool/*/stdout")]
            if sum(WAITING in output for output in said) == TURNS:
                return
            await asyncio.sleep(0.1)


async def _interpreter() -> float:
    process = await asyncio.create_subprocess_exec(
        *IDLE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    await process.stdout.readline()
    held = _resident(process.pid)
    await process.communicate(b"")
    return held


def _resident(pid: int) -> float:
    """The process's resident set, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc says nothing about the memory of {pid}")
