"""The timeline's picture in its thread: the newest wins, paced, and skipped when nothing changed."""

from __future__ import annotations

import asyncio
import logging

from bot.errors import SurfaceBusy, SurfaceError
from bot.models import MessageRef
from bot.ports import Clock, Store, Surface
from bot.timeline import Timeline

log = logging.getLogger(__name__)


class Redraw:
    """Draws one turn's picture until cancelled. `show` never waits."""

    def __init__(self, store: Store, surface: Surface, clock: Clock, turn: int) -> None:
        self._store = store
        self._surface = surface
        self._clock = clock
        self._turn = turn
        self._newest: Timeline | None = None
        self._changed = asyncio.Event()
        self._pen = asyncio.Lock()

    def show(self, picture: Timeline) -> None:
        self._newest = picture
        self._changed.set()

    async def end(self) -> None:
        """Draw no more. What is on its way has arrived when this returns, so the last picture may follow."""
        await self._pen.acquire()  # and nobody gets it back

    async def run(self) -> None:
        ref = await self._posted()
        drawn: Timeline | None = None
        while True:
            await self._changed.wait()
            self._changed.clear()
            picture = self._newest
            if picture is None or picture == drawn:
                continue
            try:
                async with self._pen:
                    await self._surface.show(ref, picture)
                drawn = picture
                pause = self._surface.redraw_interval(await self._store.running())
            except SurfaceBusy as busy:
                self._changed.set()
                pause = max(1.0, busy.retry_after)
            except SurfaceError as error:
                log.info("the picture of turn %s is no longer drawn: %s", self._turn, error)
                return
            await self._clock.sleep(pause)

    async def _posted(self) -> MessageRef:
        """The picture's first post is the outbox's; its place comes back through the store."""
        watch = self._store.watch(f"turn:{self._turn}")
        while True:
            ref = (await self._store.turn(self._turn)).timeline
            if ref is not None:
                return ref
            await watch.wait(5.0)
