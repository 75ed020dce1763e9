"""What an ACP agent says and does, as events: messages when they are whole, calls when they change."""

from __future__ import annotations

import json
from zlib import crc32

from bot.agents.acp.asks import is_asked_about
from bot.agents.acp.state import ENDED, State
from bot.agents.acp.tools import described
from bot.agents.steps import StepBuilder
from bot.agents.wire import RESULT_BYTES, SUBJECT_CHARS, TEXT_BYTES, THOUGHT_BYTES
from bot.events import Text, Thought, ToolCall, ToolStatus


def flush(state: State, out: StepBuilder) -> None:
    """A message that came in pieces has its end."""
    for written, kind, limit in ((state.thought, Thought, THOUGHT_BYTES), (state.speech, Text, TEXT_BYTES)):
        if not written.told and (text := out.clean(written.text.strip(), limit)):
            out.events.append(kind(text))
        written.told = True


def close_tools(state: State, out: StepBuilder, of: str = "") -> None:
    """A call that has no end when its prompt ends, or the sub-agent `of` which it is, will never get one."""
    why = "Stopped." if state.stopping or state.cancelling else "It did not run to its end."
    for id, tool in list(state.tools.items()):
        if tool.status not in ENDED and tool.told and (not of or tool.parent == of):
            tool.status, tool.result = "failed", why
            tell_tool(id, state, out)


def show_tools(state: State, out: StepBuilder) -> None:
    """After a decision: what was asked about waits no more."""
    for id, tool in list(state.tools.items()):
        if tool.told and tool.status not in ENDED:
            tell_tool(id, state, out)


def tell_tool(id: str, state: State, out: StepBuilder) -> None:
    """Say what is known of a call, unless that was said. The plan has a place of its own."""
    tool = state.tools[id]
    if tool.plan:
        if tool.status in ENDED:
            state.ended(id)
        return
    waits = tool.status not in ENDED and (tool.refused or is_asked_about(id, state))
    kind, title, status, subject, result = described(tool, waits=waits)
    ended = status in (ToolStatus.COMPLETED, ToolStatus.FAILED)
    call = ToolCall(
        id,
        kind,
        out.clean(title, SUBJECT_CHARS * 4),
        status,
        out.clean(subject, SUBJECT_CHARS * 4),
        out.clean(result, RESULT_BYTES) if ended else "",
        tool.parent,
    )
    told = crc32(json.dumps([call.title, call.status, call.subject]).encode())
    if told != tool.told:
        tool.told = told
        out.events.append(call)
    if ended:
        state.ended(id)
