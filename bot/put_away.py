"""Worktrees that nobody needs any more are put away: those that nobody has worked in for long, and soon
those whose pull requests are all merged or closed. Their work stays on the branch and on a ref, and the
session's next turn has it all again."""

from __future__ import annotations

import logging

from bot.errors import SandboxError, WorkspaceError
from bot.models import SandboxRow, SandboxState, Session, Stale
from bot.ports import Clock, Sandbox, Store
from bot.sandboxes import Sandboxes
from bot.workspace import Workspaces

log = logging.getLogger(__name__)

AT_ONCE = 10  # sessions of a sandbox, so that the other sandboxes have their turn
SECONDS = 60.0  # for one worktree: a turn that comes now waits for it
SOON = 900.0  # seconds: after a merge people may go on in the thread, and an idle sandbox still runs
AGAIN = 86_400.0  # seconds until what had to stay is tried again


class PutAway:
    """after: seconds since a session's last turn; 0: never. workspaces: of little patience, since a worktree
    may be too large, or have a filter of git's that hangs."""

    def __init__(
        self, store: Store, sandboxes: Sandboxes, workspaces: Workspaces, clock: Clock, after: float
    ) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._workspaces = workspaces
        self._clock = clock
        self._after = after

    async def run(self) -> None:
        """Once, in the sandboxes that run anyway. What cannot be done now is tried the next time."""
        if not self._after:
            return
        for row in await self._sandboxes.rows():
            if row.state is not SandboxState.RUNNING:
                continue
            now = self._clock.now()
            stale = Stale(now - self._after, now - min(SOON, self._after), now - AGAIN)
            for session in await self._store.stale_sessions(row.key.person, stale, AT_ONCE):
                if not await self._visit(row, session.id):
                    break

    async def _visit(self, row: SandboxRow, id: str) -> bool:
        """Of one session alone, so that a turn that waits for the sandbox comes before the next. False: the
        sandbox is not there for others either."""

        async def put_away(sandbox: Sandbox) -> None:
            await self._one(await self._store.session(id), sandbox)

        try:
            await self._sandboxes.visit(row, put_away)
        except SandboxError as error:
            log.info("no worktree of sandbox %s can be put away: %s", row.provider_id, error)
            return False
        return True

    async def _one(self, session: Session, sandbox: Sandbox) -> None:
        whole = True
        for one in session.each():
            try:
                why = await self._workspaces.put_away(one, sandbox)
            except (WorkspaceError, SandboxError) as error:
                whole = False
                log.warning("a worktree of session %s cannot be put away: %s", session.id, error)
                continue
            if why:
                whole = False
                log.info("a worktree of session %s stays: %s", session.id, why)
        await self._store.put_away(session.id, whole=whole)
