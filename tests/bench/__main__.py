"""make bench: every measurement, some minutes in all, as one table. Times are shown, never judged."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.bench import boxes, code, memory, processes, soaked, steering, turns, webhooks
from tests.bench.table import Row, Skipped, table

# A measurement gets an empty directory and gives rows. Raises Skipped where this machine can't make it.
Measure = Callable[[Path], Awaitable[Sequence[Row]]]

MEASUREMENTS: dict[str, Measure] = {
    "webhooks": webhooks.measure,
    "boxes": boxes.measure,
    "processes": processes.measure,
    "code": code.measure,
    "turns": turns.measure,
    "memory": memory.measure,
    "steering": steering.measure,
    "soak": soaked.measure,
}


async def main() -> None:
    print(f"Measuring {', '.join(MEASUREMENTS)}: some minutes.\n", flush=True)
    rows: list[Row] = []
    for name, measure in MEASUREMENTS.items():
        with tempfile.TemporaryDirectory(prefix="sandpiper-bench-") as directory:
            Path(directory).chmod(0o711)  # where we are root, sandboxes have users of their own
            try:
                rows += await measure(Path(directory))
            except Skipped as reason:
                print(f"{name}: skipped. {reason}")
            except Exception as error:  # noqa: BLE001 it must not cost the figures of the others
                print(f"{name}: failed. {type(error).__name__}: {error}")
    print(table(rows))


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main())
