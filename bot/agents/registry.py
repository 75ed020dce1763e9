"""The agents that an installation offers, by the name that people call them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from bot.agents.codec import Codec
from bot.errors import AgentUnknown
from bot.models import Choice


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
        raise AgentUnknown(f"There is no agent '{name}' here.", _instead(name, sorted(agents)))
    return codec


def chosen(agents: Mapping[str, Codec], wanted: Choice, before: Choice) -> Choice:
    """Who works, and how: what is wanted, else as before. Another agent leaves the earlier one's model and
    effort behind. Raises AgentUnknown for what an agent is known not to have, with the nearest names."""
    agent = wanted.agent or before.agent
    can = find(agents, agent).capabilities
    same = agent == before.agent
    model = wanted.model or (before.model if same else "")
    effort = wanted.effort or (before.effort if same else "")
    if wanted.model and can.models and model not in can.models:
        raise AgentUnknown(f"{agent} has no model '{model}'.", _instead(model, can.models))
    if wanted.effort and effort not in can.efforts:
        if not can.efforts:
            raise AgentUnknown(f"{agent} cannot be told how hard to think.", "Leave `effort=` out.")
        raise AgentUnknown(f"{agent} has no effort '{effort}'.", _instead(effort, can.efforts))
    return Choice(agent, model, effort)


def _instead(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"Did you mean `{near[0]}`? " if near else ""
    return f"{meant}There is: {', '.join(names) or 'none'}."
