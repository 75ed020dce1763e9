"""A person's persistent sandbox: found, created, started, kept alive, stopped when idle."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from bot.errors import SandboxError, SandboxGone, StoreUnavailable
from bot.models import Person, SandboxKey, SandboxRow, SandboxState
from bot.patience import patiently
from bot.ports import Clock, Provider, Sandbox, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """A running sandbox. `lost` says what a person must know when an earlier one is gone."""

    sandbox: Sandbox
    lost: str = ""


class Sandboxes:
    """One sandbox per person in a tenant. The provider is asked every time: no cache can lie."""

    def __init__(
        self, store: Store, provider: Provider, clock: Clock, installation: str, idle_stop: float
    ) -> None:
        self._store = store
        self._provider = provider
        self._clock = clock
        self._installation = installation
        self._idle_stop = idle_stop
        self._locks: defaultdict[SandboxKey, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def provider(self) -> Provider:
        return self._provider

    def key(self, owner: Person) -> SandboxKey:
        return SandboxKey(self._installation, owner.tenant, owner.id, self._provider.name)

    async def ready(self, owner: Person) -> Ready:
        """The owner's sandbox, running. Unreachable is retried; only gone is replaced."""
        key = self.key(owner)
        async with self._locks[key]:  # two threads of one person must not make two
            row = await self._store.sandbox(key)
            lost = ""
            if row is not None:
                try:
                    sandbox = await self._started(row.provider_id)
                    await self._store.touch_sandbox(row.id)
                    return Ready(sandbox)
                except SandboxGone:
                    lost = (
                        "Your sandbox no longer exists at its provider, so I made a new one. "
                        "Work that was not pushed is lost with the old one."
                    )
                    await self._store.audit("sandpiper", "sandbox.gone", row.provider_id, key.tenant)
            found = await self._provider.find(key.labels())
            sandbox = found[0] if found and not lost else await self._provider.create(key.labels())
            await self._store.save_sandbox(key, sandbox.id, self._provider.host)
            await self._store.audit("sandpiper", "sandbox.ready", sandbox.id, key.tenant)
            if await sandbox.state() is not SandboxState.RUNNING:
                await sandbox.start()
            return Ready(sandbox, lost)

    async def existing(self, owner: Person) -> Sandbox | None:
        """The owner's sandbox as it is, without starting or making one."""
        row = await self._store.sandbox(self.key(owner))
        if row is None:
            return None
        try:
            return await self._provider.get(row.provider_id)
        except SandboxGone:
            return None

    async def keep_alive(self, owner: Person, sandbox: Sandbox) -> None:
        """While a turn runs: the sandbox is in use, for us and for its provider. Runs until cancelled."""
        while True:
            try:
                await sandbox.touch(self._idle_stop)
                row = await self._store.sandbox(self.key(owner))
                if row is not None:
                    await self._store.touch_sandbox(row.id)
            except (SandboxError, StoreUnavailable) as error:
                log.warning("could not touch sandbox %s: %s", sandbox.id, error)
            await self._clock.sleep(60.0)

    async def stop_idle(self) -> None:
        """Stop the sandboxes that nobody has used for the idle time. Their files stay."""
        for row in await self._idle():
            if row.key.provider != self._provider.name:
                continue
            async with self._locks[row.key]:
                # Stopping the others took its time: this one may have been taken meanwhile.
                if row.id in [idle.id for idle in await self._idle()]:
                    await self._stop(row.provider_id)

    async def _idle(self) -> Sequence[SandboxRow]:
        return await self._store.idle_sandboxes(self._clock.now() - self._idle_stop)

    async def _stop(self, provider_id: str) -> None:
        try:
            sandbox = await self._provider.get(provider_id)
            if await sandbox.state() is SandboxState.RUNNING:
                await sandbox.stop()
        except SandboxGone:
            log.info("idle sandbox %s no longer exists", provider_id)
        except SandboxError as error:
            log.warning("could not stop idle sandbox %s: %s", provider_id, error)

    async def _started(self, provider_id: str) -> Sandbox:
        async def start() -> Sandbox:
            sandbox = await self._provider.get(provider_id)
            if await sandbox.state() is not SandboxState.RUNNING:
                await sandbox.start()
            return sandbox

        return await patiently(self._clock, start)
