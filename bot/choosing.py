"""What people choose of agents: checked against what is known of them before anything is woken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bot.agents.codec import Codec, Permissions, more_careful
from bot.agents.registry import chosen, doubt, find
from bot.errors import AgentUnknown
from bot.models import Choice, Offered, Repository, Session
from bot.ports import Store

MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Chosen:
    """doubt: what to tell whoever chose it, "" = nothing."""

    choice: Choice
    doubt: str = ""


class Choosing:
    """permissions: how careful every agent has to be at least."""

    def __init__(
        self, store: Store, agents: Mapping[str, Codec], permissions: Permissions = Permissions.AUTO
    ) -> None:
        self._store = store
        self._agents = agents
        self._permissions = permissions

    async def chosen(
        self,
        wanted: Choice,
        before: Choice,
        person: int,
        repository: Repository | None,
        *,
        lent: Session | None = None,
    ) -> Chosen:
        """person: in whose sandbox the agent works. lent: whose session it is, when somebody else chooses.

        Raises AgentUnknown: see bot.agents.registry.chosen; and where somebody else wants less care than the
        session has or its next turn will have, since its owner is among those who answer what an agent asks.
        """
        least = "" if lent is None else await self.least(lent)
        if least and _is_less(wanted.permissions, least):
            raise AgentUnknown(
                f"Only the session's owner may make it less careful than `permissions={least}`."
            )
        if least and wanted and not wanted.permissions:  # not what the session has now, over what waits
            wanted = replace(wanted, permissions=least)
        agent = wanted.agent or before.agent
        can = find(self._agents, agent).capabilities
        offered = None
        if wanted:
            offered = await self._offered(agent, person, repository)
        choice = chosen(self._agents, wanted, before, offered, self._permissions)
        return Chosen(choice, doubt(can, wanted, choice, offered))

    async def least(self, session: Session) -> str:
        """How careful the session is, or will be by what waits for it; "": as the installation."""
        waiting = await self._store.choices_waiting(session.id)
        least = session.permissions
        for choice in waiting:
            if choice.permissions and (not least or _is_less(least, choice.permissions)):
                least = choice.permissions
        return least

    async def models(self, session: Session) -> str:
        """Which models the session's agent can be asked for, in words; "" where that is not known."""
        codec = self._agents.get(session.agent)
        if codec is None:
            return ""
        offered = await self._offered(session.agent, session.owner.id, session.repository)
        names = codec.capabilities.models or (offered.names if offered else ())
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        return f"{', '.join(names[:MOST_NAMED])}{more}"

    async def _offered(self, agent: str, person: int, repository: Repository | None) -> Offered | None:
        """A program that is not pinned may have learnt of more since, so that nothing is complete."""
        version = find(self._agents, agent).capabilities.version
        known = await self._store.offered(agent, version, person, repository.id if repository else 0)
        return known if version or known is None else Offered(known.models)


def _is_less(wanted: str, than: str) -> bool:
    known = {one.value: one for one in Permissions}
    found = known.get(wanted.lower())
    return found is not None and more_careful(found, known[than]) is not found
