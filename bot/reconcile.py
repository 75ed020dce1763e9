"""The store's sandboxes beside the provider's: known ones are adopted, gone ones forgotten, strangers listed.

Nothing is ever deleted here: of a sandbox that the store does not know, nobody knows when it was last used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from bot.errors import SandboxError, SandboxGone, StoreUnavailable
from bot.models import SandboxKey, SandboxRow, SandboxState
from bot.ports import Provider, Sandbox, Store
from bot.sandboxes import Sandboxes

log = logging.getLogger(__name__)

GONE = "its provider no longer has the sandbox that it was in"


class Reconcile:
    def __init__(self, store: Store, sandboxes: Sandboxes) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._listed: set[str] = set()
        self._out_of_reach: set[str] = set()

    @property
    def _provider(self) -> Provider:
        return self._sandboxes.provider

    async def run(self) -> None:
        """Once. A provider that does not answer is asked the next time."""
        try:
            found = await self._found()
            if not found:
                await self._sandboxes.whereabouts.believe_all_gone()
        except SandboxError as error:
            log.warning("the sandboxes of %s cannot be listed: %s", self._provider.name, error)
            return
        await self._tell_of_others()
        rows = await self._sandboxes.rows()
        for row in rows:
            await self._look_at(row)
        known = {row.provider_id for row in rows}
        strangers = [one for one in found if one.id not in known and not await self._adopted(one)]
        for stranger in strangers:
            if stranger.id not in self._listed:
                log.warning("sandbox %s is of this installation, but of nobody known here", stranger.id)
        self._listed = {stranger.id for stranger in strangers}

    async def _tell_of_others(self) -> None:
        where = self._sandboxes.whereabouts
        others = await where.elsewhere()
        for row in others:
            if row.provider_id not in self._out_of_reach:
                log.warning("sandbox %s is %s. %s", row.provider_id, where.place(row), where.mend(row))
        self._out_of_reach = {row.provider_id for row in others}

    async def strangers(self) -> Sequence[Sandbox]:
        """Sandboxes of our installation that the store does not know. Raises SandboxError."""
        known = {row.provider_id for row in await self._sandboxes.rows()}
        return [sandbox for sandbox in await self._found() if sandbox.id not in known]

    async def _found(self) -> Sequence[Sandbox]:
        return await self._provider.find({SandboxKey.INSTALLATION: self._sandboxes.installation})

    async def _look_at(self, row: SandboxRow) -> None:
        """How it is now. That it is gone, only the provider can say, and a turn finds that out by itself."""
        async with self._sandboxes.alone(row.key):
            now = await self._store.sandbox(row.key)
            if now is None or now.provider_id != row.provider_id:  # replaced or deleted meanwhile
                return
            try:
                sandbox = await self._sandboxes.get(now)
                state = await sandbox.state()
                await self._store.saw_sandbox(row.id, state)
                if now.pinned and state is SandboxState.RUNNING:
                    await self._sandboxes.prolong(sandbox)
            except SandboxGone:
                if not await self._store.open_sessions(row.key.person):
                    await self._store.forget_sandbox(row.id, row.provider_id, GONE)
                    await self._store.audit("sandpiper", "sandbox.gone", row.provider_id, row.key.tenant)
            except SandboxError as error:
                log.info("sandbox %s cannot be looked at: %s", row.provider_id, error)
            except StoreUnavailable:
                raise
            except Exception:  # the others are looked at all the same
                log.exception("sandbox %s cannot be looked at", row.provider_id)

    async def _adopted(self, sandbox: Sandbox) -> bool:
        """Is it somebody's whom we know, and who has no other? After a deletion it may only be a shadow."""
        key = key_of(sandbox.labels, self._provider.name)
        person = await self._store.known_person(key.person) if key else None
        if key is None or person is None or person.tenant != key.tenant:
            return False
        async with self._sandboxes.alone(key):
            row = await self._store.sandbox(key)
            if row is not None:
                return row.provider_id == sandbox.id  # made just now
            row = await self._store.save_sandbox(key, sandbox.id, self._provider.host)
            await self._store.audit("sandpiper", "sandbox.adopted", sandbox.id, key.tenant)
            log.info("sandbox %s is adopted for person %d", sandbox.id, key.person)
        await self._look_at(row)
        return True


def key_of(labels: Mapping[str, str], provider: str) -> SandboxKey | None:
    """Whose it is, as it is labelled. None: nobody's."""
    person = labels.get(SandboxKey.PERSON, "")
    if not (person.isascii() and person.isdigit() and len(person) < 19):
        return None
    installation, tenant = labels.get(SandboxKey.INSTALLATION, ""), labels.get(SandboxKey.TENANT, "")
    key = SandboxKey(installation, tenant, int(person), provider)
    return key if all(labels.get(name) == value for name, value in key.labels().items()) else None
