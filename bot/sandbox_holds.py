"""Who is alone with a sandbox: one at a time, in all bots on a store."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bot.errors import StoreUnavailable
from bot.models import SandboxKey
from bot.ports import Clock, Store

log = logging.getLogger(__name__)

HOLD = 60.0  # seconds until another bot may take what this one holds, when this one has died
HELD_POLL = 0.5


class Holds:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._holder = secrets.token_hex(8)
        self._locks: defaultdict[SandboxKey, asyncio.Lock] = defaultdict(asyncio.Lock)

    @asynccontextmanager
    async def alone(self, key: SandboxKey) -> AsyncIterator[None]:
        """Inside, nobody else takes, makes or ends the sandbox of this key."""
        async with self._locks[key]:
            while not await self._store.hold_sandbox(key, self._holder, HOLD):
                await self._clock.sleep(HELD_POLL)
            holding = asyncio.create_task(self._hold(key))
            try:
                yield
            finally:
                holding.cancel()
                try:
                    await self._store.release_sandbox(key, self._holder)
                except StoreUnavailable as error:
                    log.warning("another bot has to wait for a sandbox until the hold on it ends: %s", error)

    async def _hold(self, key: SandboxKey) -> None:
        """Until cancelled. Starting a sandbox can take minutes."""
        while True:
            await self._clock.sleep(HOLD / 3)
            try:
                if not await self._store.hold_sandbox(key, self._holder, HOLD):
                    log.warning(
                        "the hold on a sandbox of person %d ran out: this bot stood still", key.person
                    )
            except StoreUnavailable as error:
                log.warning("the hold on a sandbox cannot be renewed: %s", error)
