"""OpenCode's sub-agents: sessions of their own, which the `task` tool waits for.

A run takes no message in while it waits for one. Aborting the sub-agent's session ends the call ("Task
cancelled"), and the run goes on with the message in the same turn. An abort before the sub-agent has begun to
work does nothing, and one that is aborted leaves its calls and its requests to people open.
"""

from __future__ import annotations

from urllib.parse import quote

from bot.agents.opencode.tools import kind_of
from bot.agents.opencode.turn import Turn
from bot.events import ToolCall, ToolStatus

GIVES_WAY = (
    "A sub-agent was at work, and OpenCode hears nothing while it waits for one: the sub-agent was stopped, "
    "and OpenCode goes on with the new message."
)
MADE_WAY = "Stopped for a new message."


def works(child: str, turn: Turn) -> None:
    if child not in turn.state.working:
        turn.state.working.append(child)
    give_way(turn)


def rests(child: str, turn: Turn) -> None:
    if child in turn.state.working:
        turn.state.working.remove(child)


def give_way(turn: Turn) -> None:
    """Stop the sub-agents at work, once a message of ours is there for the run to read."""
    state = turn.state
    if state.stopping or not any(said.message for said in state.prompts.values()):
        return
    if any(child not in state.yielding for child in state.working):
        turn.out.notice(GIVES_WAY)
    for child in state.working:
        if child not in state.yielding:
            state.yielding.append(child)
        turn.request("yield", "POST", f"/session/{quote(child, safe='')}/abort")


def returned(call: str, turn: Turn) -> None:
    """The call of a sub-agent has ended: what it did and asked has ended with it."""
    state = turn.state
    children = [child for child, made_by in state.children.items() if made_by == call]
    made_way = any(child in state.yielding for child in children)
    for id in [id for id, tool in state.tools.items() if tool.parent == call]:
        tool = state.tools.pop(id)
        result = MADE_WAY if made_way else "It did not run to its end."
        ended = ToolCall(id, kind_of(tool.name), tool.done, ToolStatus.FAILED, result=result, parent=call)
        turn.out.events.append(ended)
    turn.withdraw([id for id, child in state.askers.items() if child in children])
    for child in children:
        rests(child, turn)
        if made_way:  # its last frames tell of the abort
            del state.children[child]
