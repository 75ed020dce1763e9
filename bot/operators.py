"""What an operator does with sandboxes: list, stop, start, delete, pin, unpin. Answers are for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

from bot.errors import SandpiperError
from bot.losses import Losses, listed, named
from bot.models import SandboxRow, Session
from bot.ports import Clock, Sandbox, Store, Surface
from bot.reconcile import Reconcile, key_of
from bot.sandboxes import Sandboxes
from bot.timeline import span

BY = "operator"
BY_OPERATOR = "an operator deleted the sandbox that it was in"


class Operators:
    def __init__(
        self,
        store: Store,
        sandboxes: Sandboxes,
        reconcile: Reconcile,
        losses: Losses,
        surfaces: Mapping[str, Surface],
        clock: Clock,
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._reconcile = reconcile
        self._losses = losses
        self._surfaces = surfaces
        self._clock = clock

    async def obey(self, do: str, id: str = "", *, yes: bool = False) -> str:
        """id: the provider's, as `list` shows it. yes: delete, whatever is lost with it. Raises
        SandpiperError when it was not done."""
        if do == "list":
            return await self._list()
        row = next((row for row in await self._sandboxes.rows() if row.provider_id == id), None)
        if row is None:
            await self._refuse_out_of_reach(id)
            return await self._of_a_stranger(do, id)
        match do:
            case "stop":
                _refuse(await self._sandboxes.stop(row), self._surfaces)
                return f"{id} is stopped."
            case "start":
                await self._sandboxes.start(row)
                return f"{id} runs."
            case "pin" | "unpin":
                await self._store.pin_sandbox(row.id, do == "pin")
                return f"{id} is {do}ned."
            case "delete":
                return await self._delete(row, yes)
        raise SandpiperError(f"'{do}' is nothing that can be done with a sandbox.")

    async def _list(self) -> str:
        strangers = await self._reconcile.strangers()  # before all else: after it, the account is known
        now = self._clock.now()
        lines = []
        for row in await self._sandboxes.rows():
            turns = len(await self._store.open_sessions(row.key.person))
            state = row.state.value if row.state else "unknown"
            facts = [f"{state:8}", await self._whose(row), f"used {span(now - row.last_used)} ago"]
            facts += ["pinned"] if row.pinned else []
            facts += [f"open turns: {turns}"] if turns else []
            lines.append(f"{row.provider_id}  {'  '.join(facts)}")
        for stranger in strangers:
            lines.append(f"{stranger.id}  of this installation, but of nobody known here")
        where = self._sandboxes.whereabouts
        missing = await self._told(await where.elsewhere(), await where.former())
        lines += [line for line, _ in missing]
        lines += sorted({mend for _, mend in missing})
        return "\n".join(lines) or "There is no sandbox."

    async def out_of_reach(self) -> Sequence[tuple[str, str]]:
        """Of each sandbox that is known here, but elsewhere: where it is, and what to do. Raises
        SandboxError."""
        await self._reconcile.strangers()  # as in `list`
        return await self._told(await self._sandboxes.whereabouts.elsewhere())

    async def _told(self, *several: Sequence[SandboxRow]) -> Sequence[tuple[str, str]]:
        where = self._sandboxes.whereabouts
        return [
            (f"{row.provider_id}  {await self._whose(row)}  {where.place(row)}", where.mend(row))
            for rows in several
            for row in rows
        ]

    async def _whose(self, row: SandboxRow) -> str:
        person = await self._store.known_person(row.key.person)
        return f"{person.identity.name if person else '?'} ({row.key.tenant})"

    async def _refuse_out_of_reach(self, id: str) -> None:
        where = self._sandboxes.whereabouts
        for row in (*await where.elsewhere(), *await where.former()):
            if row.provider_id == id:
                raise SandpiperError(f"{id} is {where.place(row)}.", where.mend(row))

    async def _delete(self, row: SandboxRow, yes: bool) -> str:
        id = row.provider_id
        if not yes:
            lost = await self._losses.of(row)
            work = listed(lost, self._surfaces, None)
            doubt = f"Not all of it could be looked into. {lost.doubt} " if lost.doubt else ""
            what = f"Work that is not published would be lost:\n{work}\n" if work else ""
            raise SandpiperError(
                f"{id} was not deleted. {what}{doubt}", "Say it again with --yes to delete it."
            )
        _refuse(await self._sandboxes.delete(row, BY_OPERATOR, BY), self._surfaces)
        return f"{id} is deleted."

    async def _of_a_stranger(self, do: str, id: str) -> str:
        """Of those that nobody known here has, only deletion makes sense; others are no matter of ours."""
        stranger: Sandbox | None = next(
            (one for one in await self._reconcile.strangers() if one.id == id), None
        )
        if stranger is None:
            raise SandpiperError(f"There is no sandbox {id}.", "`sandpiper sandboxes list` names them.")
        if do != "delete":
            raise SandpiperError(f"{id} is of nobody known here: it can only be deleted.")
        key = key_of(stranger.labels, self._sandboxes.provider.name)
        async with self._sandboxes.alone(key) if key else nullcontext():
            if key:  # it may just be made for a turn of theirs
                row = await self._store.sandbox(key)
                if row is not None and row.provider_id == id:
                    raise SandpiperError(f"{id} was not deleted: somebody has it since just now.")
                _refuse(await self._store.open_sessions(key.person), self._surfaces)
            await stranger.delete()
        await self._store.audit(BY, "sandbox.deleted", id, "of nobody known here")
        return f"{id} is deleted."


def _refuse(busy: Sequence[Session], surfaces: Mapping[str, Surface]) -> None:
    if busy:
        turns = named(busy, surfaces, None)
        raise SandpiperError(f"Nothing was done: turns of its owner are open.\n{turns}\n", "Stop them first.")
