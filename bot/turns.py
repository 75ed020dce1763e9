"""run_turn: the story of a turn, top to bottom. One driver owns a turn; everybody else only rings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from bot.attempts import Attempts
from bot.driver import Deadlines, Driver, TurnStopped
from bot.endings import Endings
from bot.errors import (
    LeaseLost,
    SandpiperError,
    StoreUnavailable,
    SurfaceBusy,
    SurfaceError,
)
from bot.models import (
    Caps,
    MessageRef,
    Outcome,
    Session,
    TurnKind,
    TurnState,
    Waiting,
)
from bot.ports import Clock, Store, Surface
from bot.preparation import Preparation
from bot.redraw import Redraw
from bot.timeline import Timeline

log = logging.getLogger(__name__)

LEASE = 60.0
BATCH = 500

# Why a turn has to wait, by the cap that holds it back.
CAPPED = {
    "person": "as many of yours run as may at once.",
    "tenant": "as many run here as may at once.",
    "sandboxes": "as many sandboxes run here as may at once, and all of them are at work.",
    "total": "as many run as may at once.",
}


class Turns:
    """Drives turns from their claim to their last word."""

    def __init__(
        self,
        store: Store,
        surfaces: Mapping[str, Surface],
        preparation: Preparation,
        attempts: Attempts,
        endings: Endings,
        clock: Clock,
        *,
        owner: str,
        caps: Caps,
        deadlines: Deadlines,
        warning: str = "",
    ) -> None:
        self._store = store
        self._surfaces = surfaces
        self._preparation = preparation
        self._attempts = attempts
        self._endings = endings
        self._clock = clock
        self._owner = owner
        self._caps = caps
        self._deadlines = deadlines
        self._warning = warning

    async def run_turn(self, driver: Driver) -> None:
        """Prepare, converse, publish, and end in the thread, whatever happens."""
        state = TurnState.DONE
        try:
            if (failed := driver.timeline.broken_off) is not None:  # before a restart
                raise SandpiperError(failed.what, failed.mend)
            await driver.within("prepare", self._deadlines.prepare, self._preparation.permit(driver))
            driver.timeline = replace(driver.timeline, label=self._label(driver.session))
            await driver.within("apart", 0, self._preparation.apart(driver))
            box = await driver.within("prepare", self._deadlines.prepare, self._preparation.prepare(driver))
            if driver.turn.kind is TurnKind.AGENT and driver.turn.state is not TurnState.FINISHING:
                box = await driver.within("hooks", 0, self._preparation.hooked(driver, box))
                box = await self._attempts.converse(driver, box)
            final = await self._endings.publish(driver, box.sandbox)
        except TurnStopped as stop:
            state, final = TurnState.STOPPED, await self._endings.broken_off(driver, Outcome.STOPPED, stop)
        except (LeaseLost, StoreUnavailable):
            raise
        except SandpiperError as error:
            state, final = TurnState.FAILED, await self._endings.broken_off(driver, Outcome.FAILED, error)
        except Exception:  # the outermost loop of a turn: it must end in its thread
            log.exception("turn %s failed unexpectedly", driver.turn.id)
            ours = SandpiperError(
                "Something went wrong on my side.", f"The operator's log has it, under turn {driver.turn.id}."
            )
            state, final = TurnState.FAILED, await self._endings.broken_off(driver, Outcome.FAILED, ours)
        await driver.end_drawing()
        took = self._clock.now() - (driver.turn.started_at or driver.turn.queued_at)
        await self._store.finish(driver.turn.id, driver.fence, state, replace(final, seconds=took))

    # around the story

    async def drive(self, turn_id: int) -> None:
        """The dispatcher's handler: claim the turn, run it, keep the lease meanwhile."""
        surface = self._surfaces.get((await self._store.turn(turn_id)).thread.surface)
        if surface is None:
            log.error("turn %s waits: its surface is not configured any more", turn_id)
            return
        claim = await self._store.claim(turn_id, self._owner, LEASE, self._caps)
        if claim is None:
            return
        if isinstance(claim, Waiting):
            await self._tell_place(turn_id, claim)
            return
        redraw = Redraw(self._store, surface, self._clock, turn_id)
        _, timeline = await self.picture(turn_id)
        driver = Driver(claim, self._store, self._clock, redraw, timeline)
        if timeline.rows:  # taken up again
            redraw.show(timeline)
        drawing = asyncio.create_task(redraw.run())
        keeping = asyncio.create_task(self._keep_lease(driver))
        running = asyncio.create_task(self.run_turn(driver))
        try:
            await asyncio.wait({running, keeping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (running, keeping):
                if task.done():
                    task.result()
        except LeaseLost as error:
            log.warning("turn %s: %s", turn_id, error)
        finally:
            for task in (running, keeping, drawing):
                task.cancel()
            await asyncio.gather(running, keeping, drawing, return_exceptions=True)

    async def picture(self, turn_id: int) -> tuple[MessageRef | None, Timeline]:
        """A turn's picture, rebuilt from what is stored."""
        turn = await self._store.turn(turn_id)
        session = await self._store.session(turn.session)
        events = await self._store.events(turn_id)
        timeline = Timeline(turn_id, label=self._label(session))
        for start in range(0, len(events), BATCH):  # so that nobody waits for a long story
            timeline = timeline.apply(stored.event for stored in events[start : start + BATCH])
            await asyncio.sleep(0)
        return turn.timeline, timeline

    async def _keep_lease(self, driver: Driver) -> None:
        """Ends (and with it the driving) when the lease is lost."""
        while True:
            await self._clock.sleep(LEASE / 3)
            try:
                await self._store.renew(driver.turn.id, driver.fence, LEASE)
            except LeaseLost as error:
                log.warning("turn %s: %s", driver.turn.id, error)
                return

    async def _tell_place(self, turn_id: int, waiting: Waiting) -> None:
        ref, timeline = await self.picture(turn_id)
        if ref is None:
            return
        before = "1 turn is" if waiting.place == 1 else f"{waiting.place} turns are"
        text = f"Waiting, {before} before this one: {CAPPED[waiting.cap]}"
        surface = self._surfaces[ref.surface]
        try:
            await surface.show(ref, replace(timeline, headline=text))
        except (SurfaceBusy, SurfaceError) as error:
            log.info("could not show the place of turn %s: %s", turn_id, error)

    def _label(self, session: Session) -> str:
        code = " + ".join(
            f"{repository.full_name}@{one.base or repository.default_branch}"
            for one, repository in zip(session.each(), session.repositories, strict=False)
        )
        parts = [code or "@", session.agent, session.model, self._warning]
        return " · ".join(part for part in parts if part)
