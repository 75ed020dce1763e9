"""A program in a local sandbox, beside the same program in a bare bubblewrap."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bot.errors import ProviderUnavailable
from bot.models import Launch
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider
from tests.bench.bare import run_true
from tests.bench.table import Row, Skipped, spread

SECONDS = 3.0
MEANS = "`true` in a sandbox: the same in a bubblewrap that hides nothing."


async def measure(directory: Path) -> Sequence[Row]:
    provider = LocalProvider(directory / "sandboxes", Bubblewrap(Options(), allow=()))
    try:
        await provider.check()
    except ProviderUnavailable as error:
        raise Skipped(str(error)) from error
    floor = await _repeated(run_true)
    sandbox = await provider.create({})
    launch = Launch(("true",), cwd=sandbox.home)

    async def boxed() -> int:
        return (await sandbox.run(launch)).code

    try:
        ours = await _repeated(boxed)
    finally:
        await sandbox.delete()
    return spread("`true` in a sandbox", ours, floor, MEANS)


async def _repeated(run: Callable[[], Awaitable[int]]) -> list[float]:
    """Seconds of each run, one after the other."""
    took: list[float] = []
    end = time.perf_counter() + SECONDS
    await run()
    while time.perf_counter() < end or len(took) < 2:
        start = time.perf_counter()
        if code := await run():
            raise RuntimeError(f"it ended with exit code {code}")
        took.append(time.perf_counter() - start)
    return took
