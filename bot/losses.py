"""What would be lost with a sandbox: asked of the store, and of the sandbox itself where it answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bot.errors import SandboxError, WorkspaceError
from bot.models import Message, Repository, SandboxRow, Session
from bot.ports import Store, Surface
from bot.sandboxes import Sandboxes
from bot.workspace import Workspaces

log = logging.getLogger(__name__)

MOST = 50  # sessions that are looked into, the newest
PATIENCE = 60.0  # seconds for all of it
NAMED = 20
UNSURE = "unsure"
NOT_LOOKED = "No bot runs that could look into it."
TOO_LONG = "A look into it takes too long."


@dataclass(frozen=True, slots=True)
class Lost:
    """sessions: those whose work exists nowhere else. beside: repositories of which there is work
    on the branch of no session, and nowhere else. doubt: why there may be more, "": there is no more."""

    sessions: tuple[Session, ...] = ()
    beside: tuple[Repository, ...] = ()
    doubt: str = ""

    @property
    def names(self) -> list[str]:
        """Of all that is lost, for who was told of it; that there may be more has one, too."""
        beside = [f"beside:{one.id}" for one in self.beside]
        return [session.id for session in self.sessions] + beside + ([UNSURE] if self.doubt else [])


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
        doubts = [] if self._workspaces is not None else [NOT_LOOKED]
        if len(worked) > MOST:
            doubts.append(f"Only the newest {MOST} of {len(worked)} threads were looked into.")
        beside: list[Repository] = []
        try:
            async with asyncio.timeout(PATIENCE):
                if self._workspaces is not None:
                    sandbox = await self._sandboxes.start(row)
                    await sandbox.enter()
                    for session in [one for one in worked[:MOST] if one.id not in only_here]:
                        doubt, work = await _look(self._workspaces.unpublished(session, sandbox))
                        doubts += [doubt] if doubt else []
                        only_here |= {session.id} if work else set()
                    for repository, sessions in _in_each(worked).items():
                        doubt, work = await _look(self._workspaces.beside(sessions, sandbox))
                        doubts += [doubt] if doubt else []
                        beside += [repository] if work else []
        except (SandboxError, TimeoutError) as error:
            log.info("sandbox %s cannot be looked into: %s", row.provider_id, error)
            doubts.append(error.what if isinstance(error, SandboxError) else TOO_LONG)
        lost = tuple(session for session in worked if session.id in only_here)
        return Lost(lost, tuple(beside), doubts[0] if doubts else "")


async def _look(work: Awaitable[bool]) -> tuple[str, bool]:
    """Why it cannot be looked into, and whether there is work that is only there."""
    try:
        return "", await work
    except WorkspaceError as error:
        log.info("a sandbox cannot be looked into: %s", error)
        return "A worktree or a clone in it cannot be looked into.", False


def _in_each(sessions: Iterable[Session]) -> Mapping[Repository, Sequence[Session]]:
    """All of the sessions' repositories, and the sessions as they are there."""
    found: dict[int, tuple[Repository, list[Session]]] = {}
    for session in sessions:
        for one in (*session.each(), *map(session.within, session.left_out)):
            if one.repository is not None:
                found.setdefault(one.repository.id, (one.repository, []))[1].append(one)
    return dict(found.values())


def listed(lost: Lost, surfaces: Mapping[str, Surface], to: Message | None) -> str:
    """What would be lost, as a list; names as in `named`."""
    lines = [named(lost.sessions, surfaces, to)] if lost.sessions else []
    if lost.beside:
        where = ", ".join(one.full_name for one in lost.beside)
        if to is not None and not _alone(surfaces, to):
            where = f"{len(lost.beside)} of your repositories"
        lines.append(f"• branches of an agent's own, or stashes, in {where}")
    return "\n".join(lines)


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
    return (session.thread.surface, session.thread.scope) == here or _alone(surfaces, to)


def _alone(surfaces: Mapping[str, Surface], to: Message) -> bool:
    """Does nobody but the author read the answer?"""
    if to.private:
        return True
    surface = surfaces.get(to.thread.surface)
    return surface is not None and surface.direct(to.thread)
