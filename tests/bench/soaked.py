"""The long soak (see tests.soak): the bot is killed over and over, and what it leaves behind is counted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bot.errors import ProviderUnavailable
from tests.bench.table import Row, Skipped, spread
from tests.soak import provider_in

CYCLES = 200
SEED = 1
MEANS = "The soak has no floor: a kept program and a steer's round trip have theirs above."


async def measure(directory: Path) -> Sequence[Row]:
    try:
        await provider_in(directory / "check").check()
    except ProviderUnavailable as error:
        raise Skipped(str(error)) from error
    place = directory / "soak"
    place.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.soak", str(place), "--cycles", str(CYCLES), "--seed", str(SEED)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    seen = json.loads(out)
    if seen["trouble"]:
        raise RuntimeError("; ".join(seen["trouble"]))
    for left in seen["left"]:
        print(f"soak: left over: {left}")
    return [
        Row("soak, cycles of spawn, steer, kill and attach", "count", seen["cycles"]),
        Row("soak, bots that were killed", "count", seen["kills"]),
        Row("soak, in all", "s", seen["seconds"]),
        Row("soak, processes, spools, directories and mounts left", "count", len(seen["left"])),
        *spread("soak, a spawn", seen["spawned"], means=MEANS),
        *spread("soak, a steer", seen["steered"], means=MEANS),
    ]
