"""A person's words on their way into a turn, and a turn's on their way out (see tests.bench.stage).

A picture is drawn when it has been quiet for a while, so what is measured is not the pace of redrawing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bot.errors import ProviderUnavailable
from tests.bench.bare import BareAgent, bare_agent, run_true
from tests.bench.stage import Stage, stage
from tests.bench.table import Row, Skipped, spread

TURNS = 20
STEERS = 20
SAID = "A reply, an event: one SQLite insert with an fsync, and a pipe to or from a bare bubblewrap."
SPAWNED = "A message: `true` in a bare bubblewrap, from its start to its end."
QUIET = 0.12  # seconds without an event before the one that is measured


async def measure(directory: Path) -> Sequence[Row]:
    try:
        async with stage(directory) as ours, bare_agent(directory) as bare:
            return [*await _steered(ours, bare), *await _whole(ours)]
    except ProviderUnavailable as error:
        raise Skipped(str(error)) from error


async def _steered(ours: Stage, bare: BareAgent) -> Sequence[Row]:
    """One turn of many steers; each makes the agent say a word some time later."""
    await ours.say("steered", "!wait")
    await ours.slack.shows_row("Waiting for a message")
    words = [f"word-{number:02}" for number in range(STEERS)]
    asked, shown, floors = [], [], []
    for word in words:
        floors.append(await bare.echo(word))
        asked.append(await ours.say("steered", f"!sleep {QUIET}\n!say {word}\n!wait"))
        shown.append(await ours.slack.shows_text(word))
    await ours.turn("steered", "!answer done")
    heard = [ours.passed("in", word)[0] for word in words]
    said = [ours.passed("out", f'"{word}"')[0] for word in words]
    return [
        *spread(
            "a reply, delivered → in the agent's stdin",
            _between(asked, heard),
            [bare.passed("in", word) - begun for word, (begun, _) in zip(words, floors, strict=True)],
            SAID,
        ),
        *spread(
            "an agent's event, written → asked to redraw",
            _between(said, shown),
            [ended - bare.passed("out", word) for word, (_, ended) in zip(words, floors, strict=True)],
            SAID,
        ),
    ]


async def _whole(ours: Stage) -> Sequence[Row]:
    """Threads of a person whose sandbox is warm, each a turn that ends in a pull request."""
    spawned, posted, floor = [], [], []
    for number in range(TURNS):
        start = time.monotonic()
        await run_true()
        floor.append(time.monotonic() - start)
        words = f"!write {number}.txt x\n!commit add {number}\n!answer done"
        asked, ended = await ours.turn(f"thread {number}", words)
        spawned.append(ours.agent.spawned[-1] - asked)
        posted.append(ended - ours.passed("out", '"done"')[-1])
    return [
        *spread("a message, delivered → its agent spawned", spawned, floor, SPAWNED),
        *spread("an agent's last word → its pull request is told", posted),
    ]


def _between(starts: Sequence[float], ends: Sequence[float]) -> Sequence[float]:
    return [end - start for start, end in zip(starts, ends, strict=True)]
