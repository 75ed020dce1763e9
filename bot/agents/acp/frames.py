"""An ACP agent's JSON-RPC frames (protocol version 1) read into events.

Sources: the schema in @agentclientprotocol/sdk 2.4.0, and the frames of real runs under
tests/transcripts. Fields that are missing or of another type are taken as absent.
"""

from __future__ import annotations

from dataclasses import dataclass

from bot.agents.acp.asks import is_asked_about, requested, withdrawn
from bot.agents.acp.session import Conversation
from bot.agents.acp.state import ENDED, Tool, Written
from bot.agents.acp.telling import close_tools, flush, tell_tool
from bot.agents.acp.tools import is_plan, learn, plan_in, plan_of, stopped
from bot.agents.wire import SUBJECT_CHARS, Frame, frames, money, part, string, token
from bot.events import Plan, PlanEntry, Usage

# Updates that are known and tell people nothing.
SILENT = frozenset(
    {
        "available_commands_update",  # slash commands: people write to us, not to the agent's prompt
        "config_option_update",  # an echo of what was chosen
        "current_mode_update",  # an echo too; what the agent may do is decided request by request
        "session_info_update",  # a title of the conversation, for clients that list them
        "user_message_chunk",  # an echo of our own words
        "compaction_summary_chunk",  # the agent's note to itself
    }
)

# Notifications outside of a session's updates.
SILENT_METHODS = frozenset(
    {
        "elicitation/complete",  # of URLs that people were sent to; we take none
        "_auth/status_update",  # claude-agent-acp: which kind of credential it has
    }
)


@dataclass(slots=True)
class Reading:
    """Reads lines, one after the other, into a conversation."""

    talk: Conversation

    def read(self, line: bytes) -> None:
        out = self.talk.out
        told = out.read(line)
        if told is None:
            return
        method = string(told, "method")
        if not method:
            known, method = self._response(told), "response"
        elif "id" in told:
            known = self._request(method, told)
        else:
            known = self._notification(method, part(told, "params"))
        if not known:
            inner = string(part(told, "params", "update"), "sessionUpdate")
            out.unknown("/".join(filter(None, (method, inner))), line)

    def _response(self, told: Frame) -> bool:
        id = told.get("id")
        purpose = self.talk.state.calls.pop(str(id), None) if isinstance(id, int | str) else None
        if purpose is None or ("result" not in told and "error" not in told):
            return False
        error = part(told, "error")
        if "error" in told and not error:
            error = {"message": str(told["error"])[:400]}
        self.talk.answered(purpose, str(id), part(told, "result"), error)
        return True

    def _request(self, method: str, told: Frame) -> bool:
        id = told.get("id")
        if isinstance(id, bool) or not isinstance(id, int | str) or len(str(id)[:300]) > 200:
            return False
        talk = self.talk
        if method in ("session/request_permission", "elicitation/create"):
            flush(talk.state, talk.out)
            talk.heard("", tool=True)
        known = requested(method, told, talk.state, talk.out)
        call = token(part(told, "params", "toolCall"), "toolCallId")
        if method == "session/request_permission" and call in talk.state.tools:
            tell_tool(call, talk.state, talk.out)
        return known

    def _notification(self, method: str, params: Frame) -> bool:
        match method:
            case "session/update":
                return self._update(params)
            case "$/cancel_request":
                withdrawn(params, self.talk.state, self.talk.out)
                return True
            case _:
                return method in SILENT_METHODS

    def _update(self, params: Frame) -> bool:
        state, update = self.talk.state, part(params, "update")
        name = string(update, "sessionUpdate")
        session = string(params, "sessionId")
        if state.session and session != state.session:
            return False  # of a sub-agent's own session, say
        if name == "usage_update":
            self._usage(update)
            return True
        if state.stage != "ready":
            # The history of a session that is loaded again, which people have seen.
            return name in SILENT or name in _HISTORY
        match name:
            case "agent_message_chunk" | "agent_thought_chunk":
                self._chunk(name, update)
            case "tool_call" | "tool_call_update":
                return self._tool(update)
            case "plan":
                self._plan(plan_of(frames(update, "entries")))
            case "notice":
                words = filter(None, (string(update, "title"), string(update, "description")))
                self.talk.out.notice(": ".join(words))
            case "compaction_update":
                self._compaction(update)
            case _:
                return name in SILENT
        return True

    def _chunk(self, name: str, update: Frame) -> None:
        state, content = self.talk.state, part(update, "content")
        said = name == "agent_message_chunk"
        piece = string(content, "text")
        if not piece and string(content, "type") in ("", "text"):
            return
        piece = piece or f"({string(content, 'type')[:40]})"
        message = token(update, "messageId")
        writing, other = (state.speech, state.thought) if said else (state.thought, state.speech)
        if writing.told or (message and message != writing.message) or not other.told:
            flush(state, self.talk.out)
            writing = Written(message)
            if said:
                state.speech = writing
            else:
                state.thought = writing
        self.talk.heard(message)
        writing.add(piece)

    def _tool(self, update: Frame) -> bool:
        state, out = self.talk.state, self.talk.out
        id = token(update, "toolCallId")
        if not id:
            return False
        is_new = id not in state.tools
        tool = state.keep_tool(id)
        if tool.status in ENDED:
            return True  # it has been told, and what comes after that is of a call that was stopped
        if is_new:
            flush(state, out)
        learn(tool, update, state.cwd)
        if string(update, "sessionUpdate") == "tool_call" and is_new:
            self.talk.heard("", tool=True)
        if (entries := plan_in(update)) is not None:
            self._plan(entries)
        tool.plan = tool.plan or is_plan(tool) or entries is not None
        if tool.status in ENDED:
            self._ends(id, tool)
            close_tools(state, out, of=id)
        # Some agents leave a call pending for good; while its input is still written it has no content.
        elif tool.status in ("", "pending") and tool.known and frames(update, "content"):
            tool.status = "in_progress"
        tell_tool(id, state, out)
        return True

    def _ends(self, id: str, tool: Tool) -> None:
        state = self.talk.state
        if state.stopping or state.cancelling:
            stopped(tool)
        waiting = [steer for steer in state.injected if not steer.request]
        for steer in waiting:
            steer.tool_ended = True
        if waiting and tool.status == "failed" and any(one.parent == id for one in state.tools.values()):
            self.talk.out.notice(f"{state.title} stopped a sub-agent of its own to take the message in.")

    def _plan(self, entries: tuple[PlanEntry, ...]) -> None:
        state, out = self.talk.state, self.talk.out
        self.talk.heard("", tool=True)
        told = [f"{entry.status}: {entry.text}" for entry in entries]
        if told != state.plan:
            state.plan = told
            flush(state, out)
            cleaned = (PlanEntry(out.clean(entry.text, SUBJECT_CHARS * 4), entry.status) for entry in entries)
            out.events.append(Plan(tuple(cleaned)))

    def _usage(self, update: Frame) -> None:
        """The context's size is no news for people; the money is. And a model call has ended, so what it
        asked for runs now."""
        state = self.talk.state
        cost = part(update, "cost")
        amount = money(cost, "amount") if string(cost, "currency") == "USD" else None
        if amount is not None and amount != state.cost:
            state.cost = amount
            spent = self.talk.spent()
            if spent and state.prompt:
                self.talk.out.events.append(Usage(f"{state.first}:{state.rounds}", micro_usd=spent))
            elif spent and state.rounds:  # told after the end of the round
                self.talk.out.events.append(Usage(f"{state.first}:{state.rounds - 1}+", micro_usd=spent))
        for id, tool in list(state.tools.items()):
            if tool.status in ("", "pending") and tool.known and tool.told and not is_asked_about(id, state):
                tool.status = "in_progress"
                tell_tool(id, state, self.talk.out)

    def _compaction(self, update: Frame) -> None:
        title = self.talk.state.title
        match string(update, "status"):
            case "completed":
                self.talk.out.notice(f"{title} summed up the conversation so far to make room.")
            case "failed":
                self.talk.out.notice(f"{title} could not sum up its conversation: {string(update, 'error')}")


_HISTORY = frozenset(
    {
        "agent_message_chunk",
        "agent_thought_chunk",
        "tool_call",
        "tool_call_update",
        "plan",
        "notice",
        "compaction_update",
    }
)
