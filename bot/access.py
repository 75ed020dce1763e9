"""Who may: asked on start, steer, stop and publish, each time, on our side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bot.errors import Denied, RepositoryUnknown
from bot.models import Identity, Person, Repository, ThreadKey
from bot.ports import Forge, Surface

MAY_WRITE = frozenset({"admin", "maintain", "write"})
MAY_READ = MAY_WRITE | {"triage", "read"}


@dataclass(frozen=True, slots=True)
class Allowlist:
    """What an operator lets people of a surface without a forge account do. Closed by default.

    people: user ids. channels: channel ids, or "dm" for direct messages. repositories: "owner/name"
    patterns. "*" stands for all.
    """

    people: Sequence[str] = ()
    channels: Sequence[str] = ()
    repositories: Sequence[str] = ()


async def _nothing(owner: Person) -> Sequence[Repository]:
    return ()


class Access:
    """The one place that says yes or no."""

    def __init__(
        self,
        forge: Forge,
        surfaces: Mapping[str, Surface],
        allowlist: Allowlist,
        steer_policy: str = "collaborators",
        within_reach: Callable[[Person], Awaitable[Sequence[Repository]]] = _nothing,
    ) -> None:
        """within_reach: of a session's owner, the repositories besides its own that its agent can read."""
        self._forge = forge
        self._surfaces = surfaces
        self._allowlist = allowlist
        self._steer_policy = steer_policy
        self._within_reach = within_reach

    async def may_work(self, identity: Identity, thread: ThreadKey, repository: Repository | None) -> None:
        """May this person have an agent work here, on this repository? Raises Denied."""
        surface = self._surfaces.get(thread.surface)
        if surface is None:
            raise Denied(f"{thread.surface} is not configured any more.", "An operator can set it up again.")
        reason = await surface.external(identity, thread)
        if reason:
            raise Denied(f"I only work for members of this organisation ({reason}).")
        if identity.surface == "github":
            await self._may_write(identity, repository)
        else:
            place = "dm" if surface.direct(thread) else thread.scope.rpartition("/")[2]
            self._is_listed(identity, place, repository)

    async def why_not(self, identity: Identity, thread: ThreadKey, repository: Repository) -> str:
        """Why a session of theirs cannot work on this repository, as a sentence; "": it can. Raises a
        ForgeError when that cannot be asked."""
        try:
            await self.may_work(identity, thread, repository)
            await self._forge.repository(str(repository.id))
        except (Denied, RepositoryUnknown) as error:
            return error.what
        return ""

    async def may_steer(
        self, identity: Identity, thread: ThreadKey, repository: Repository | None, owner: Person
    ) -> None:
        """May this person's words go into the owner's session? Raises Denied."""
        await self.may_work(identity, thread, repository)
        if is_owner(identity, owner):
            return
        if self._steer_policy == "owner":
            raise Denied(
                f"Only {owner.identity.name} may steer this session.",
                "The operator can widen this with SANDPIPER_STEER_POLICY=collaborators.",
            )
        if not await self.may_read(identity, thread, await self._within_reach(owner)):
            raise Denied(  # which one, is theirs to know who may read it
                f"The agent here could show you code that you may not read: {owner.identity.name}'s "
                "sandbox holds other repositories too, and cannot keep them apart.",
                f"{owner.identity.name} can go on, or you start a thread of your own.",
            )

    async def may_read(
        self, identity: Identity, thread: ThreadKey, repositories: Sequence[Repository]
    ) -> bool:
        """May this person see the code of all of these? Raises a ForgeError when that cannot be asked."""
        for one in repositories:
            if not await self._may_read(identity, thread, one):
                return False
        return True

    async def _may_read(self, identity: Identity, thread: ThreadKey, repository: Repository) -> bool:
        try:
            if identity.surface == "github":
                return await self._forge.permission(repository, identity.user) in MAY_READ
            await self.may_work(identity, thread, repository)
        except (Denied, RepositoryUnknown):  # code of one that is gone lies there all the same
            return False
        return True

    async def _may_write(self, identity: Identity, repository: Repository | None) -> None:
        if repository is None:
            raise Denied("No repository is named.")
        role = await self._forge.permission(repository, identity.user)
        if role not in MAY_WRITE:
            raise Denied(
                f"{identity.name} may not write to {repository.full_name} (role: {role or 'none'}).",
                "Somebody with write access can start me.",
            )

    def _is_listed(self, identity: Identity, place: str, repository: Repository | None) -> None:
        if not _listed(self._allowlist.people, identity.user):
            raise Denied(
                f"{identity.name} is not on the list of people I work for.",
                f"An operator can add {identity.user} to SANDPIPER_ALLOW_PEOPLE.",
            )
        if not _listed(self._allowlist.channels, place):
            raise Denied(
                "I don't work in this channel.",
                f"An operator can add {place} to SANDPIPER_ALLOW_CHANNELS.",
            )
        if repository is not None and not _listed(self._allowlist.repositories, repository.full_name):
            raise Denied(
                f"I may not work on {repository.full_name} from here.",
                f"An operator can add {repository.full_name} to SANDPIPER_ALLOW_REPOSITORIES.",
            )


def _listed(patterns: Sequence[str], value: str) -> bool:
    return any(fnmatchcase(value.lower(), pattern.lower()) for pattern in patterns)


def is_owner(identity: Identity, owner: Person) -> bool:
    """Are these the same account?"""
    mine = owner.identity
    return (identity.surface, identity.tenant, identity.user) == (mine.surface, mine.tenant, mine.user)
