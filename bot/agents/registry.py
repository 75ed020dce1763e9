"""The agents that an installation offers, by the name that people call them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from bot.agents.codec import Capabilities, Codec, Listing, Permissions, more_careful
from bot.errors import AgentUnknown
from bot.models import Choice, Offered

MOST_NAMED = 12


def by_name(codecs: Iterable[Codec]) -> Mapping[str, Codec]:
    """What the composition root hands to the core. Raises ValueError when two have the same name."""
    found: dict[str, Codec] = {}
    for codec in codecs:
        if codec.name in found:
            raise ValueError(f"two agents are called {codec.name!r}")
        found[codec.name] = codec
    return MappingProxyType(found)


def find(agents: Mapping[str, Codec], name: str) -> Codec:
    """Raises AgentUnknown, with the names that there are."""
    codec = agents.get(name)
    if codec is None:
        raise AgentUnknown(f"There is no agent '{name}' here.", instead(name, sorted(agents)))
    return codec


def chosen(
    agents: Mapping[str, Codec],
    wanted: Choice,
    before: Choice,
    offered: Offered | None = None,
    least: Permissions = Permissions.AUTO,
) -> Choice:
    """Who works, and how: what is wanted, else as before. Another agent leaves the earlier one's model and
    effort behind. offered: what this agent lists, as far as it is known. least: how careful it has to be.

    Raises AgentUnknown for what an agent is known not to have, with the nearest names, and for permissions
    that it cannot have here.
    """
    agent = wanted.agent or before.agent
    can = find(agents, agent).capabilities
    same = agent == before.agent
    model = wanted.model or (before.model if same else "")
    effort = wanted.effort or (before.effort if same else "")
    if wanted.model:
        _check_model(agent, model, can, offered)
    if wanted.effort:
        _check_effort(agent, model, effort, can, offered)
    permissions = _permissions(wanted.permissions, least) or before.permissions
    asks = more_careful(least, Permissions(permissions or Permissions.AUTO)) is not Permissions.AUTO
    if wanted and asks and not can.approvals:
        raise AgentUnknown(f"{agent} cannot ask before it acts.", "Choose another agent: `agent=name`.")
    return Choice(agent, model, effort, permissions)


def doubt(can: Capabilities, wanted: Choice, choice: Choice, offered: Offered | None) -> str:
    """What to tell whoever chose what the agent does not list, though it may have it; "": nothing."""
    if offered is None:
        return ""
    if wanted.model and not can.models and offered.names and choice.model not in offered.names:
        listed = instead(choice.model, offered.names, "It lists")
        return f"{choice.agent} does not list the model '{choice.model}'. I try it all the same. {listed}"
    efforts = offered.efforts_of(choice.model)
    if wanted.effort and efforts and choice.effort not in efforts:
        listed = instead(choice.effort, efforts, "It lists")
        about = f"the effort '{choice.effort}' for {choice.model}"
        return f"{choice.agent} does not list {about}. I try it all the same. {listed}"
    return ""


def _check_model(agent: str, model: str, can: Capabilities, offered: Offered | None) -> None:
    """What settings name counts before what the agent lists."""
    names = can.models or (offered.names if offered and offered.is_whole_for(model) else None)
    if names is None and can.aliases and not re.search(r"\d", model):
        names = tuple(dict.fromkeys((*can.aliases, *(offered.names if offered else ()))))
    if names is not None and model not in names:
        raise AgentUnknown(f"{agent} has no model '{model}'.", instead(model, names))


def _check_effort(agent: str, model: str, effort: str, can: Capabilities, offered: Offered | None) -> None:
    listed = offered.efforts_of(model) if offered else None
    if listed is not None and offered and offered.is_whole_for(model):
        named, efforts = f"{agent}'s {model}" if model else agent, listed
    elif can.efforts or can.listing is Listing.NONE:
        named, efforts = agent, (*can.efforts, *(one for one in listed or () if one not in can.efforts))
    else:
        return  # only its list would tell
    if not efforts:
        raise AgentUnknown(f"{named} cannot be told how hard to think.", "Leave `effort=` out.")
    if effort not in efforts:
        raise AgentUnknown(f"{named} has no effort '{effort}'.", instead(effort, efforts))


def _permissions(wanted: str, least: Permissions) -> str:
    if not wanted:
        return ""
    known = {one.value: one for one in Permissions}
    found = known.get(wanted.lower())
    if found is None:
        raise AgentUnknown(f"There is nothing like `permissions={wanted}`.", instead(wanted, known))
    if more_careful(found, least) is not found:
        raise AgentUnknown(
            f"`permissions={found}` is less careful than SANDPIPER_PERMISSIONS, which is '{least}' here.",
            "Leave it out, or ask an operator.",
        )
    return found.value


def instead(name: str, known: Iterable[str], there: str = "There is") -> str:
    """The nearest name, and some of the others: of a long list those that are nearer."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"Did you mean `{near[0]}`? " if near else ""
    shown = names if len(names) <= MOST_NAMED else difflib.get_close_matches(name, names, MOST_NAMED, 0.0)
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"{meant}{there}: {', '.join(shown) or 'none'}{more}."
