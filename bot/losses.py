"""What would be lost with a sandbox: asked of the store, and of the sandbox itself where it answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bot.errors import SandboxError, WorkspaceError
from bot.models import Message, SandboxRow, Session
from bot.ports import Sandbox, Store, Surface
from bot.sandboxes import Sandboxes
from bot.workspace import Workspaces

log = logging.getLogger(__name__)

MOST = 50  # sessions that are looked into, the newest
PATIENCE = 60.0  # seconds for all of it
NAMED = 20


@dataclass(frozen=True, slots=True)
class Lost:
    """sessions: those whose work exists nowhere else. certain: all of them were looked into."""

    sessions: tuple[Session, ...] = ()
    certain: bool = True


class Losses:
    """workspaces: None where nothing is looked into; then only the store is asked."""

    def __init__(self, store: Store, sandboxes: Sandboxes, workspaces: Workspaces | None) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._workspaces = workspaces

    async def of(self, row: SandboxRow) -> Lost:
        """A stopped sandbox is started for it."""
        worked = await self._store.worked_sessions(row.key.person)
        only_here = {session.id for session in worked if session.any_ready}
        certain = self._workspaces is not None and len(worked) <= MOST
        try:
            async with asyncio.timeout(PATIENCE):
                if self._workspaces is not None:
                    sandbox = await self._sandboxes.start(row)
                    for session in [one for one in worked[:MOST] if one.id not in only_here]:
                        looked, work = await self._look(self._workspaces, session, sandbox)
                        certain = certain and looked
                        only_here |= {session.id} if work else set()
        except (SandboxError, TimeoutError) as error:
            log.info("sandbox %s cannot be looked into: %s", row.provider_id, error)
            certain = False
        return Lost(tuple(session for session in worked if session.id in only_here), certain)

    async def _look(self, workspaces: Workspaces, session: Session, sandbox: Sandbox) -> tuple[bool, bool]:
        """Whether it could be looked into, and whether there is work that is only there."""
        try:
            return True, await workspaces.unpublished(session, sandbox)
        except WorkspaceError as error:
            log.info("session %s cannot be looked into: %s", session.id, error)
            return False, False


def named(sessions: Sequence[Session], surfaces: Mapping[str, Surface], to: Message | None) -> str:
    """Sessions as a list. What is elsewhere is named only where nobody else reads it: in an answer for the
    author alone, or (None) to an operator."""
    shown, hidden = [], 0
    for session in sessions:
        if to is not None and not _may_be_named(session, surfaces, to):
            hidden += 1
            continue
        surface = surfaces.get(session.thread.surface)
        link = surface.link(session.thread) if surface else ""
        shown.append(f"• “{session.title}”" + (f" ({link})" if link else ""))
    lines, more = shown[:NAMED], len(shown) - NAMED
    if more > 0:
        lines.append(f"• and {more} more")
    if hidden:
        lines.append(f"• {hidden} in other places, which I don't name where others read along")
    return "\n".join(lines)


def _may_be_named(session: Session, surfaces: Mapping[str, Surface], to: Message) -> bool:
    here = (to.thread.surface, to.thread.scope)
    if to.private or (session.thread.surface, session.thread.scope) == here:
        return True
    surface = surfaces.get(to.thread.surface)
    return surface is not None and surface.direct(to.thread)
