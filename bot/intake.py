"""Stored deliveries become effects: parsed by their surface, received by the sessions, settled.

Deliveries of one lane go one by one, in the order of their storing; lanes don't wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from bot.departures import Departures
from bot.errors import ForgeError, StoreUnavailable, SurfaceBusy, Undecodable
from bot.models import Delivery, Message
from bot.ports import Clock, Store, Surface
from bot.sessions import PARKED, Sessions

log = logging.getLogger(__name__)

BATCH = 200
POLL = 5.0
TRIES = 6
NOT_NOW = (SurfaceBusy, ForgeError, StoreUnavailable)
SEEN_AFTER = 1.0  # seconds after which an author sees that their message has come in
TOLD_AFTER = 30.0  # seconds after which somebody hears that their message waits
GIVE_UP_AFTER = 24 * 3600.0


class Intake:
    """Works on what is on disk until each delivery has an outcome."""

    def __init__(
        self,
        store: Store,
        surfaces: Mapping[str, Surface],
        sessions: Sessions,
        departures: Departures,
        clock: Clock,
    ) -> None:
        self._store = store
        self._departures = departures
        self._surfaces = surfaces
        self._sessions = sessions
        self._clock = clock
        self._taken: set[tuple[str, str]] = set()
        self._lanes: dict[str, asyncio.Queue[Delivery]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        watch = self._store.watch("deliveries")
        async with asyncio.TaskGroup() as group:
            while True:
                for delivery in await self._stored():
                    key = (delivery.surface, delivery.id)
                    if key not in self._taken:
                        self._taken.add(key)
                        self._line_up(delivery, group)
                await watch.wait(POLL)

    async def _stored(self) -> Sequence[Delivery]:
        try:
            return await self._store.received(len(self._taken) + BATCH)
        except StoreUnavailable as error:  # read again after the pause
            log.warning("deliveries cannot be read: %s", error)
            return ()

    def _line_up(self, delivery: Delivery, group: asyncio.TaskGroup) -> None:
        name = f"{delivery.surface}:{delivery.lane or delivery.id}"
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = asyncio.Queue()
            group.create_task(self._work_off(name, lane))
        lane.put_nowait(delivery)

    async def _work_off(self, name: str, lane: asyncio.Queue[Delivery]) -> None:
        """One after the other. Behind one that has to wait, the others wait too: all are let go of, and
        read again in their order."""
        waits = False
        while not lane.empty():
            delivery = lane.get_nowait()
            try:
                waits = waits or not await self._handled(delivery)
            finally:
                self._taken.discard((delivery.surface, delivery.id))
        del self._lanes[name]

    async def _handled(self, delivery: Delivery) -> bool:
        """False: it has no outcome yet."""
        try:
            try:
                await self.handle(delivery)
            except NOT_NOW:
                raise
            except Exception:  # the outermost loop of one delivery: the lane must go on
                log.exception("delivery %s of %s failed; it stays stored", delivery.id, delivery.surface)
                await self._store.settle(delivery.surface, delivery.id, "failed: see the log")
        except NOT_NOW as error:
            log.warning("delivery %s of %s waits: %s", delivery.id, delivery.surface, error)
            return False
        return True

    async def handle(self, delivery: Delivery) -> None:
        """Give one delivery its outcome."""
        surface = self._surfaces.get(delivery.surface)
        if surface is None:
            await self._store.settle(delivery.surface, delivery.id, "ignored: surface not configured")
            return
        try:
            outcome = await self._effect(surface, delivery)
        except Undecodable as error:
            log.error("delivery %s of %s: %s", delivery.id, delivery.surface, error)
            outcome = f"failed: {error}"
        if outcome != PARKED:
            await self._store.settle(delivery.surface, delivery.id, outcome)

    async def _effect(self, surface: Surface, delivery: Delivery) -> str:
        if standings := surface.standings(delivery):
            return await self._departures.note(standings)
        if closings := surface.closings(delivery):
            known = [await self._store.close_pull_request(closing) for closing in closings]
            return "noted" if any(known) else "ignored: no pull request of ours"
        outcomes = []
        for message in await surface.parse(delivery):
            try:
                outcome = await self._received(message, delivery)
            except Exception as error:
                old = self._clock.now() - delivery.received_at > GIVE_UP_AFTER
                if isinstance(error, StoreUnavailable) or (isinstance(error, NOT_NOW) and not old):
                    raise
                log.exception("delivery %s of %s had no effect", delivery.id, delivery.surface)
                if message.addressed or message.verb is not None:
                    await self._sessions.apologise(message, error)
                outcome = f"failed: {error}"
            if outcome == PARKED:
                await self._store.park(delivery.surface, delivery.id, message.thread)
                return PARKED
            outcomes.append(outcome)
        return ", ".join(outcomes) or "ignored: nothing for us"

    async def _received(self, message: Message, delivery: Delivery) -> str:
        noticing = asyncio.create_task(self._notice(message))
        try:
            return await self._patiently_received(message, delivery)
        finally:
            noticing.cancel()

    async def _notice(self, message: Message) -> None:
        await self._clock.sleep(SEEN_AFTER)
        try:
            await self._sessions.tell_seen(message)
        except NOT_NOW as error:  # a courtesy: what the message means is told by its effect
            log.info("nothing can be shown for %s yet: %s", message.key, error)

    async def _patiently_received(self, message: Message, delivery: Delivery) -> str:
        """Received, with a few patient tries when the world could not be asked."""
        for attempt in range(TRIES - 1):
            try:
                return await self._sessions.receive(message)
            except (SurfaceBusy, ForgeError) as error:
                wait = error.retry_after if isinstance(error, SurfaceBusy) else 2.0**attempt
                log.warning("delivery %s waits %.0f s: %s", delivery.id, wait, error)
                waited = self._clock.now() + wait - delivery.received_at
                if waited >= TOLD_AFTER and (message.addressed or message.verb is not None):
                    await self._sessions.tell_waiting(message, error)
                await self._clock.sleep(wait)
        return await self._sessions.receive(message)
