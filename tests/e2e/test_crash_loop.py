"""kill -9 at random moments while several threads are at work. CRASH_SEED chooses other moments."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.e2e.rig import DEV, Rig, rig
from tests.e2e.witness import Witness

SEED = int(os.environ.get("CRASH_SEED", "1"))
KILLS = 10
THREADS = 10
PATIENCE = 500.0  # seconds: a bot that dies as soon as it lives gets on slowly, on a busy machine more so

# What is asked for, and the commits that come of it.
TASKS = {
    "quick": ("!write {0}.txt {0}\n!commit Add {0}\n!say I added {0}.", ["Add {0}"]),
    "slow": ("!sleep 1\n!write {0}.txt {0}\n!sleep 1\n!commit Add {0}\n!big 300KB", ["Add {0}"]),
    "left": ("!say I begin.\n!leave {0}.txt {0}\n!sleep 0.5", ["Commit what was left over"]),
    "told": ("!wait\n!write {0}.txt {0}\n!commit Add {0}", ["Add {0}"]),
    "asked": ("!sleep 0.5\n!answer It is 42.", []),
}


@pytest.mark.timeout(600)
async def test_ten_deaths_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    dice = random.Random(SEED)
    print(f"CRASH_SEED={SEED}")
    async with rig(tmp_path) as r:
        talking = asyncio.gather(*(_talk(r, number, dice) for number in range(THREADS)))
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(0.1, 2.5))
            await r.kill()
            await asyncio.sleep(dice.uniform(0.0, 0.3))
            await r.start_again()
        w = Witness(r)
        wrong = []
        for root, told, commits in await talking:
            try:
                await w.once(root, commits=commits, told=told)
            except (AssertionError, TimeoutError) as failed:
                wrong.append(f"{r.slack.message(DEV, root).text!r}: {failed}\n{w.said(root)}")
        assert not wrong, "\n\n".join(wrong)


async def _talk(r: Rig, number: int, dice: random.Random) -> tuple[str, list[str], list[str]]:
    """Somebody asks for something at some time, and answers when the agent waits."""
    kind = list(TASKS)[number % len(TASKS)]
    task, commits = TASKS[kind]
    name = f"{kind}-{number}"
    starts, answers = dice.uniform(0, 20), dice.uniform(0, 3)
    await asyncio.sleep(starts)
    root = r.mention(task.format(name), by=("U_ANA", "U_BEN")[number % 2])
    told = []
    if kind == "told":
        await r.slack.wait_for(lambda: "Waiting for a message" in r.picture(root), timeout=PATIENCE)
        await asyncio.sleep(answers)
        told.append(r.reply(root, "go on"))
    return root, told, [subject.format(name) for subject in commits]
