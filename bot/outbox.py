"""What is said exactly once: in order per thread, retried, and looked for before it is said again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from bot.errors import StoreUnavailable, SurfaceBusy, SurfaceError
from bot.models import MessageRef, OutboxItem, Saying, SayingKind
from bot.ports import Clock, Store, Surface
from bot.shared_files import SharedFiles, in_words
from bot.timeline import Timeline

log = logging.getLogger(__name__)

AT_ONCE = 16
POLL = 5.0
GIVE_UP_AFTER = 24 * 3600.0
UNCONFIGURED = 300.0  # seconds between two looks whether a surface has been set up again


class Outbox:
    """Sends what the store says is due. One lane per thread, lanes side by side.

    picture: a turn's timeline as rebuilt from its stored events; its last redraw goes with the
    final reply, so that no picture keeps spinning after a crash between the two. shared: where the files
    are that agents share; they are deleted as soon as they are said, or refused for good.
    """

    def __init__(
        self,
        store: Store,
        surfaces: Mapping[str, Surface],
        clock: Clock,
        picture: Callable[[int], Awaitable[tuple[MessageRef | None, Timeline]]],
        shared: SharedFiles,
    ) -> None:
        self._store = store
        self._surfaces = surfaces
        self._clock = clock
        self._picture = picture
        self._shared = shared
        self._busy: set[int] = set()
        self._retry_at = 0.0  # when the soonest postponed saying is due; 0: none is known

    async def run(self) -> None:
        """Until cancelled."""
        watch = self._store.watch("outbox")
        async with asyncio.TaskGroup() as group:
            while True:
                free = AT_ONCE - len(self._busy)
                if self._retry_at <= self._clock.now():
                    self._retry_at = 0.0
                items = await self._due() if free > 0 else ()
                started = 0
                for item in items:
                    if item.id not in self._busy and started < free:
                        self._busy.add(item.id)
                        group.create_task(self._deliver(item))
                        started += 1
                await watch.wait(self._pause())

    async def _due(self) -> Sequence[OutboxItem]:
        try:
            return await self._store.due(self._clock.now(), AT_ONCE)
        except StoreUnavailable as error:  # asked again after the pause
            log.warning("the outbox cannot be read: %s", error)
            return ()

    def _pause(self) -> float:
        """How long to wait for a bell: not beyond the next retry."""
        if not self._retry_at:
            return POLL
        return min(POLL, max(0.05, self._retry_at - self._clock.now()))

    async def _postpone(self, item: OutboxItem, seconds: float, why: str) -> None:
        until = self._clock.now() + seconds
        self._retry_at = min(self._retry_at, until) if self._retry_at else until
        await self._store.postpone(item.id, until, why)  # rings, so that the pause is measured anew

    async def _deliver(self, item: OutboxItem) -> None:
        try:
            await self.deliver(item)
        except StoreUnavailable as error:  # it is as it was, and due again
            log.warning("outbox item %s (%s) waits: %s", item.id, item.saying.key, error)
            await self._clock.sleep(POLL)
        except Exception:  # the outermost loop of one saying: the lane must not die
            log.exception("outbox item %s (%s) failed", item.id, item.saying.key)
            with contextlib.suppress(StoreUnavailable):
                await self._postpone(item, 30.0, "unexpected error, see the log")
        finally:
            self._busy.discard(item.id)

    async def deliver(self, item: OutboxItem) -> None:
        """Say one thing, or put it off, or give it up."""
        surface = self._surfaces.get(item.saying.thread.surface)
        if surface is None:
            log.info("outbox item %s (%s) waits: its surface is not configured", item.id, item.saying.key)
            await self._postpone(item, UNCONFIGURED, "its surface is not configured")
            return
        try:
            ref = await surface.find(item) if item.tried else None
            if ref is None:
                item = await self._ready(item)
                await self._store.sending(item.id)
                if item.saying.kind is SayingKind.FINAL and item.saying.turn is not None:
                    await self._settle_picture(surface, item)
                ref = await surface.send(item)
            await self._store.sent(item.id, ref)
            self._let_go(item.saying)
        except SurfaceBusy as busy:
            if self._clock.now() - item.created_at > GIVE_UP_AFTER:
                await self._refuse(item, f"gave up: {busy}")
                return
            wait = max(busy.retry_after, min(60.0, 2.0 ** min(item.attempts, 6)))
            await self._postpone(item, wait, str(busy))
        except SurfaceError as error:
            await self._refuse(item, str(error))

    async def _ready(self, item: OutboxItem) -> OutboxItem:
        """What is to be shown is checked each time, for a crash may have come in between."""
        if item.saying.file is None:
            return item
        file = await self._shared.ready(item.saying.file)
        return replace(item, saying=replace(item.saying, file=file))

    async def _refuse(self, item: OutboxItem, why: str) -> None:
        """It will never be said. Who waits for a file or is to be asked hears of it."""
        log.error("%s was refused: %s", item.saying.key, why)
        saying = item.saying
        if saying.file is not None:
            words = in_words(saying.file, why)
            await self._store.say(Saying(f"{saying.key}:refused", SayingKind.NOTE, saying.thread, words))
        if saying.kind is SayingKind.ASK:
            words = f"What the agent asks cannot be shown here, so it was told no. {why}"
            await self._store.say(Saying(f"{saying.key}:refused", SayingKind.NOTE, saying.thread, words))
        await self._store.refused(item.id, why)
        self._let_go(saying)

    def _let_go(self, saying: Saying) -> None:
        if saying.file is not None:
            self._shared.drop(saying.file)

    async def _settle_picture(self, surface: Surface, item: OutboxItem) -> None:
        assert item.saying.turn is not None and item.saying.final is not None  # noqa: S101
        ref, timeline = await self._picture(item.saying.turn)
        if ref is None:
            return
        try:
            await surface.show(ref, timeline.ended(item.saying.final))
        except SurfaceError as error:  # somebody deleted the picture: the reply still goes out
            log.info("the picture of turn %s could not be settled: %s", item.saying.turn, error)
