"""The dispatcher of one process: an asyncio queue of turns that somebody must drive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

LONGEST_RETRY = 60.0  # seconds


class QueueDispatcher:
    """Drives turns side by side, the same turn never twice at once.

    A wake while the turn is being driven drives it again afterwards. A handler that raises is
    logged and called again after `retry_after` seconds, then later and later: a turn is not
    forgotten because its driver had a bug.
    """

    def __init__(self, retry_after: float = 5.0) -> None:
        self._retry_after = retry_after
        self._woken: asyncio.Queue[int] = asyncio.Queue()
        self._queued: set[int] = set()
        self._driven: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()

    def wake(self, turn: int) -> None:
        if turn in self._driven:
            self._again.add(turn)
        elif turn not in self._queued:
            self._queued.add(turn)
            self._woken.put_nowait(turn)

    async def run(self, handler: Callable[[int], Awaitable[None]]) -> None:
        try:
            while True:
                turn = await self._woken.get()
                self._queued.discard(turn)
                self._driven[turn] = asyncio.create_task(self._drive(turn, handler), name=f"turn {turn}")
        finally:
            drivers = list(self._driven.values())
            for driver in drivers:
                driver.cancel()
            await asyncio.gather(*drivers, return_exceptions=True)

    async def _drive(self, turn: int, handler: Callable[[int], Awaitable[None]]) -> None:
        failures = 0
        try:
            while True:
                self._again.discard(turn)
                try:
                    await handler(turn)
                except Exception:
                    logger.exception("the driver of turn %d failed", turn)
                    await asyncio.sleep(min(self._retry_after * 2**failures, LONGEST_RETRY))
                    failures += 1
                    continue
                if turn not in self._again:
                    return
        finally:
            self._again.discard(turn)
            del self._driven[turn]
