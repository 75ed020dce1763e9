"""Where the sandboxes that the store knows are: within reach, or on another disk, in another account. What is
out of reach is never taken for gone."""

from __future__ import annotations

from collections.abc import Sequence

from bot.errors import SandboxElsewhere, SandboxGone
from bot.models import SandboxKey, SandboxRow, account_of
from bot.ports import Provider, Sandbox, Store

RESET = "`sandbox reset` gives you a new sandbox, without the old one's work."


class Whereabouts:
    def __init__(self, store: Store, provider: Provider, installation: str) -> None:
        self._store = store
        self._provider = provider
        self._installation = installation

    async def here(self) -> Sequence[SandboxRow]:
        """All that the store knows of and this provider, here, can reach."""
        return [row for row in await self._known() if self.reaches(row)]

    async def elsewhere(self) -> Sequence[SandboxRow]:
        return [row for row in await self._known() if not self.reaches(row)]

    async def former(self) -> Sequence[SandboxRow]:
        """At providers that the settings do not name any more: nobody stops or deletes them."""
        rows = await self._store.sandboxes(self._installation)
        return [row for row in rows if row.key.provider != self._provider.name]

    async def _known(self) -> Sequence[SandboxRow]:
        return await self._store.sandboxes(self._installation, self._provider.name)

    def reaches(self, row: SandboxRow) -> bool:
        """Also where one of the two is not told: who then finds nothing there asks `believe_gone`."""
        key, here = row.key, self._provider.host
        ours = (key.installation, key.provider) == (self._installation, self._provider.name)
        return ours and (row.host == here or not row.host or not here)

    def demand(self, row: SandboxRow) -> None:
        """Raises SandboxElsewhere where it is out of reach."""
        if not self.reaches(row):
            raise SandboxElsewhere(f"Your sandbox is kept {self.place(row)}.", f"{self.mend(row)} {RESET}")

    def place(self, row: SandboxRow) -> str:
        if row.key.provider != self._provider.name:
            return f"at {row.key.provider}, where this bot stops and deletes nothing any more"
        if theirs := account_of(row.host):
            ours = account_of(self._provider.host) or "not known"
            return f"in another account at {self._provider.name} ({theirs}) than that of the API key ({ours})"
        return f"on another disk or machine ({row.host}) than what is here now"

    def mend(self, row: SandboxRow) -> str:
        if row.key.provider != self._provider.name:
            return f"To delete it, set SANDPIPER_SANDBOX_PROVIDER={row.key.provider} for that."
        if account_of(row.host):
            return f"An operator can set {self._key} to a key of the sandbox's account."
        return "An operator can bring that back (is its disk mounted?)."

    @property
    def _key(self) -> str:
        return f"SANDPIPER_{self._provider.name.upper()}_API_KEY"

    async def get(self, row: SandboxRow) -> Sandbox:
        """Raises SandboxGone only where that can be believed, SandboxElsewhere where not."""
        self.demand(row)
        try:
            sandbox = await self._provider.get(row.provider_id)
        except SandboxGone:
            await self.believe_gone(row)
            raise
        await self.note(row)
        return sandbox

    async def note(self, row: SandboxRow) -> None:
        """It was found here, which nobody has written down yet."""
        if self._provider.host and not row.host:
            await self._store.note_sandbox_host(row.id, row.provider_id, self._provider.host)

    async def believe_gone(self, row: SandboxRow) -> None:
        """Before a provider's word that it is gone is acted on: in another account, all of them are. Raises
        SandboxElsewhere when it may be there."""
        self.demand(row)
        if not row.host:
            await self.believe_all_gone()
        elif not self._provider.host:
            raise SandboxElsewhere(
                f"{self._provider.name} has no sandbox {row.provider_id}, and does not say of which account"
                f" the API key is. The sandbox is kept in {account_of(row.host) or row.host}.",
                f"{self.mend(row)} If it really is gone, {RESET}",
            )

    async def believe_all_gone(self) -> None:
        """Of sandboxes that nobody knows the account of: several of them are not gone at once. Raises
        SandboxElsewhere when the provider has none of several."""
        unplaced = [row for row in await self.here() if not row.host]
        if len(unplaced) < 2 or await self._provider.find({SandboxKey.INSTALLATION: self._installation}):
            return
        raise SandboxElsewhere(
            f"None of the {len(unplaced)} sandboxes that are known here is at its provider"
            f" ({self._provider.name}).",
            f"An operator can look whether {self._key} is of their account."
            " If they really are gone, `sandbox reset` gives you a new one.",
        )
