"""People who leave, and tenants that do: their turns end, and after a while their sandboxes are deleted."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from bot.errors import ForgeError, SandboxError, SurfaceBusy, SurfaceError
from bot.models import Identity, SandboxRow, Standing
from bot.ports import Clock, Store, Surface
from bot.sandboxes import OURSELVES, Sandboxes
from bot.timeline import span

log = logging.getLogger(__name__)


class Departures:
    def __init__(
        self, store: Store, surfaces: Mapping[str, Surface], sandboxes: Sandboxes, clock: Clock
    ) -> None:
        self._store = store
        self._surfaces = surfaces
        self._sandboxes = sandboxes
        self._clock = clock

    async def note(self, standings: Sequence[Standing]) -> str:
        """Returns what became of it, for the delivery's record. Doing it again does no harm."""
        stopped = 0
        for standing in standings:
            stopped += len(await self._store.note_standing(standing))
            what = "departed" if standing.why else "here"
            log.info("%s: %s", what, standing)
        return f"noted, {stopped} turns stopped"

    async def ask_around(self) -> None:
        """Of all who have a sandbox: are they still there? For what was said while we did not listen."""
        whole: set[str] = set()  # tenants of which nothing more is said about single accounts
        for row in await self._sandboxes.rows():
            person = await self._store.known_person(row.key.person)
            if person is None or person.identity.tenant in whole:
                continue
            standings = await self._ask(person.identity)
            if standings and not any(standing.account for standing in standings):
                whole.add(person.identity.tenant)
            if standings:
                await self.note(standings)

    async def delete_due(self) -> None:
        """Delete the sandboxes of people who have been gone for the retention, unless they are back."""
        retention = self._sandboxes.ages.retention
        if not retention:
            return
        before = self._clock.now() - retention
        reached = {row.id for row in await self._sandboxes.rows()}
        for row in await self._store.departed_sandboxes(before):
            if row.id in reached and not await self._may_be_back(row, before):
                why = f"its owner has been gone for {span(retention)}"
                try:
                    await self._sandboxes.delete(row, why, OURSELVES)
                except SandboxError as error:
                    log.warning("could not delete sandbox %s of somebody gone: %s", row.provider_id, error)

    async def _may_be_back(self, row: SandboxRow, before: float) -> bool:
        """Deletion is for ever, and the news of a return may have been lost: so it is asked once more."""
        person = await self._store.known_person(row.key.person)
        if person is None:
            return False
        standings = await self._ask(person.identity)
        if standings is None:
            return True
        await self.note(standings)
        return row.id not in [due.id for due in await self._store.departed_sandboxes(before)]

    async def _ask(self, identity: Identity) -> Sequence[Standing] | None:
        """None: it cannot be asked now."""
        surface = self._surfaces.get(identity.surface)
        if surface is None:
            return None
        try:
            return await surface.standing(identity)
        except (SurfaceBusy, SurfaceError, ForgeError) as error:
            log.info("whether %s is still there cannot be asked: %s", identity.name, error)
            return None
