"""What an ACP agent lets its clients choose in a session: model, effort and mode.

It is told twice in the protocol: by methods of their own (`session/set_mode`, and the unofficial
`session/set_model`), and by config options with a category. Some agents have both, some one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bot.agents.acp.state import Offer
from bot.agents.codec import Permissions
from bot.agents.wire import Frame, frames, items, part, string

# The modes that say what a Permissions says, by the names that agents have for them; the first one that
# an agent lists is set. An agent without one keeps its own, and its requests are answered accordingly.
MODES: Mapping[Permissions, Sequence[str]] = {
    Permissions.AUTO: (
        *(
            "bypassPermissions",
            "yolo",
            "agent-full-access",
            "full-access",
            "danger-full-access",
            "auto-approve",
        ),
        *("autopilot", "auto", "build", "agent", "code"),
    ),
    Permissions.ASK: ("default", "approve", "manual", "read-only", "build", "agent", "code"),
    Permissions.PLAN: ("plan", "architect"),
}


def mode_for(permissions: Permissions, offer: Offer | None, named: str = "") -> str:
    """The offered mode that says this; "" when there is none. named: what it is called at this agent."""
    listed = {value.lower(): value for value in offer.values} if offer else {}
    names = [named] if named else MODES[permissions]
    return next((listed[name.lower()] for name in names if name.lower() in listed), "")


def offers_of(result: Frame) -> dict[str, Offer]:
    """The models, efforts and modes that a session can be set to, by a method or by a config option."""
    found: dict[str, Offer] = {}
    models, modes = part(result, "models"), part(result, "modes")
    if listed := frames(models, "availableModels"):
        found["model"] = _offer("", string(models, "currentModelId"), listed, "modelId")
    if listed := frames(modes, "availableModes"):
        found["mode"] = _offer("", string(modes, "currentModeId"), listed, "id")
    names = {"model": "model", "mode": "mode", "thought_level": "effort"}
    for option in frames(result, "configOptions"):
        what = names.get(string(option, "category"), "")
        if what and what not in found and isinstance(option.get("options"), list):
            # They may stand in groups.
            listed = [
                choice
                for one in frames(option, "options")
                for choice in (frames(one, "options") if items(one, "options") else [one])
            ]
            found[what] = _offer(string(option, "id"), string(option, "currentValue"), listed, "value")
    return found


def choices_of(offers: Mapping[str, Offer]) -> list[tuple[str, Sequence[str] | None]]:
    """The models, and the efforts of the one that the session is at."""
    model, effort = offers.get("model"), offers.get("effort")
    efforts = effort.values if effort else None
    if model is None:
        return [] if efforts is None else [("", efforts)]
    return [(name, efforts if name == model.current else None) for name in model.values]


def _offer(via: str, current: str, listed: Sequence[Frame], name: str) -> Offer:
    return Offer(via, current, [string(one, name)[:200] for one in listed[:300] if string(one, name)])
