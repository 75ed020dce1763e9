"""The bridge's lines (sandbox/inside/opencode_bridge.py) read into events.

Sources: the OpenAPI description that OpenCode 1.18.33 serves at /doc, and the frames of real runs under
tests/transcripts. Fields that are missing or of another type are taken as absent.
"""

from __future__ import annotations

from dataclasses import dataclass

from bot.agents.codec import Permissions
from bot.agents.opencode import asks, subagents
from bot.agents.opencode.failures import reason, retrying, session_failed
from bot.agents.opencode.replies import is_fine, purpose_of, take_reply
from bot.agents.opencode.state import Running
from bot.agents.opencode.tools import PLAN_TOOL, aborted, describe, done_with, failed, outcome
from bot.agents.opencode.turn import MARK, Turn
from bot.agents.steps import StepBuilder
from bot.agents.wire import (
    RESULT_BYTES,
    SUBJECT_CHARS,
    TEXT_BYTES,
    THOUGHT_BYTES,
    Frame,
    frame_of,
    frames,
    items,
    money,
    number,
    part,
    string,
    to_line,
    token,
)
from bot.events import (
    Event,
    Plan,
    PlanEntry,
    PlanStatus,
    Text,
    Thought,
    ToolCall,
    ToolStatus,
    Usage,
)

# Events that are known and tell people nothing that other events do not tell better.
SILENT = frozenset(
    {
        "catalog.updated",
        "command.executed",
        "file.edited",
        "file.watcher.updated",
        "installation.update-available",
        "installation.updated",
        "integration.connection.updated",
        "integration.updated",
        "lsp.client.diagnostics",
        "lsp.updated",
        "mcp.tools.changed",
        "message.part.delta",  # the whole part follows; that something comes is enough
        "message.part.removed",
        "message.removed",
        "models-dev.refreshed",
        "plugin.added",
        "project.directories.updated",
        "project.updated",
        "pty.created",
        "pty.deleted",
        "pty.exited",
        "pty.updated",
        "reference.updated",
        "server.connected",
        "server.heartbeat",
        "server.instance.disposed",
        "session.created",
        "session.deleted",
        "session.diff",
        "session.updated",
        "vcs.branch.updated",
    }
)
# Parts likewise: what was attached, snapshots, and the beginning of a step.
HEARD_PARTS = frozenset({"tool", "step-finish", "text", "reasoning"})
SILENT_PARTS = frozenset(
    {"agent", "compaction", "file", "patch", "retry", "snapshot", "step-start", "subtask"}
)

MOST_CHILDREN = 16
MOST_TODOS = 60
LOOK_AGAIN = 5.0  # seconds, while the server cannot say how things stand
RESEEN = 30  # messages that are looked at again after a gap

_PLAN = {
    "pending": PlanStatus.PENDING,
    "in_progress": PlanStatus.IN_PROGRESS,
    "completed": PlanStatus.COMPLETED,
    "cancelled": PlanStatus.COMPLETED,
}


@dataclass(slots=True)
class Reading:
    """Reads lines, one after the other, into a turn and its step. patience: how long a model's API may
    keep failing, in seconds. has_key: a credential was given."""

    turn: Turn
    patience: float
    has_key: bool = True

    @property
    def out(self) -> StepBuilder:
        return self.turn.out

    def read(self, line: bytes) -> None:
        told = self.out.read(line)
        if told is None:
            return
        match string(told, "type"):
            case "event":
                name = string(part(told, "event"), "type")
                known = self._event(name, part(told, "event", "properties"))
                name = f"event/{name}"
            case "reply" if purpose_of(told)[0] == "missed":
                known, name = True, ""
                self._missed(purpose_of(told)[1], told)
            case "reply":
                known, name = take_reply(told, self.turn), "reply"
            case "reconnected":
                known, name = True, ""
                self._look_again()
            case name:
                known = False
        if not known:
            self.out.unknown(name or "no type", line)

    def _event(self, name: str, told: Frame) -> bool:
        turn, state = self.turn, self.turn.state
        session = token(told, "sessionID")
        ours, known = session == state.session and bool(session), state.knows(session)
        match name:
            case "message.updated":
                if known:
                    self._message(session, part(told, "info"))
            case "message.part.updated":
                if known:
                    return self._part(session, part(told, "part"))
                return string(part(told, "part"), "type") in HEARD_PARTS | SILENT_PARTS
            case "todo.updated":
                if ours:
                    self._todos(told)
            case "session.status":
                if known:
                    self._status(session, part(told, "status"))
            case "session.idle":
                if ours:
                    turn.idle()
                else:
                    subagents.rests(session, turn)
            case "session.error":
                if ours:
                    session_failed(part(told, "error"), turn, has_key=self.has_key)
                elif not session:  # the server's own, of its configuration for instance
                    self.out.notice(f"OpenCode: {reason(part(told, 'error'), has_key=self.has_key)[0]}")
            case "session.compacted":
                if ours:
                    self.out.notice("OpenCode summed up the conversation so far to make room.")
            case "permission.asked":
                if known:
                    asks.permission_asked(told, turn)
            case "question.asked":
                if known:
                    asks.question_asked(told, turn)
            case "permission.replied" | "question.replied" | "question.rejected":
                asks.settled(told, turn)
            case _:
                return name in SILENT
        return True

    # what it says and does

    def _message(self, session: str, info: Frame) -> None:
        state = self.turn.state
        id = token(info, "id")
        if string(info, "role") != "assistant" or session != state.session or id <= state.speaking:
            return
        state.speaking, state.summing, state.answer = id, info.get("summary") is True, ""
        state.retrying = None
        if state.run == "failing":  # it goes on
            state.run = "busy"
        if not state.gave_up:
            state.failed = None
        if not state.summing:
            self.turn.given(token(info, "parentID"))

    def _part(self, session: str, told: Frame) -> bool:
        state = self.turn.state
        kind, id, message = string(told, "type"), token(told, "id"), token(told, "messageID")
        if kind in ("tool", "step-finish"):  # a model has answered, so its API works again
            state.retrying = None
        match kind:
            case "tool":
                if id:
                    self._tool(session, id, told)
            case "step-finish":
                self._usage(message or id, told)
            case "text" | "reasoning" if session == state.session:
                if message != state.speaking:
                    if kind == "text" and not state.summing:
                        self._heard(message, told)
                elif not state.summing:
                    self._words(kind, id, told)
            case "text" | "reasoning":
                pass  # a sub-agent's words are for the agent, which sums them up
            case _:
                return kind in SILENT_PARTS
        return True

    def _heard(self, message: str, told: Frame) -> None:
        """A text in a message of a person's: ours by its mark, or else by its words."""
        prompts = self.turn.state.prompts
        key = string(part(told, "metadata"), MARK)
        if key not in prompts:
            text = string(told, "text")
            waiting = (key for key, said in prompts.items() if said.posted and not said.message)
            key = next((key for key in waiting if prompts[key].text == text), "")
        self.turn.seen(key, message)
        subagents.give_way(self.turn)

    def _words(self, kind: str, id: str, told: Frame) -> None:
        state = self.turn.state
        ended = part(told, "time").get("end") is not None
        if not ended or id <= state.said or told.get("synthetic") is True or told.get("ignored") is True:
            return
        state.said = id
        event: Event
        if kind == "reasoning":
            event = Thought(self.out.clean(string(told, "text").strip(), THOUGHT_BYTES))
        else:
            event = Text(self.out.clean(string(told, "text").strip(), TEXT_BYTES))
            if event.text:
                planning = state.permissions is Permissions.PLAN and state.agent == "plan"
                said = self.out.exact(string(told, "text").strip()) if planning else event.text
                state.answer = "\n\n".join(filter(None, (state.answer, said)))[:TEXT_BYTES]
        if event.text:
            self.out.events.append(event)

    def _tool(self, session: str, id: str, told: Frame) -> None:
        state, now = self.turn.state, part(told, "state")
        name, status = token(told, "tool"), string(now, "status")
        child = token(part(now, "metadata"), "sessionId")
        if name == "task" and child and (child in state.children or len(state.children) < MOST_CHILDREN):
            state.children[child] = id
        if name == PLAN_TOOL:
            return
        running = state.tools.get(id)
        if status == "running" and running is not None and running.begun:
            return  # its output so far
        tool = describe(name, part(now, "input"), state.cwd)
        doing, done, subject = (
            self.out.clean(text, SUBJECT_CHARS * 4) for text in (tool.doing, tool.done, tool.subject)
        )
        parent = state.children.get(session, "")
        if status in ("pending", "running"):
            begun = status == "running"
            state.tools[id] = Running(name, done, begun, parent)
            now_is = ToolStatus.IN_PROGRESS if begun else ToolStatus.PENDING
            self.out.events.append(ToolCall(id, tool.kind, doing, now_is, subject, parent=parent))
        elif status in ("completed", "error"):
            state.tools.pop(id, None)
            broken_off = aborted(now)
            came_out = "Stopped." if broken_off and state.stopping else outcome(name, now)
            made_way = {session, *(child for child, call in state.children.items() if call == id)}
            if made_way & set(state.yielding) and (broken_off or status == "error"):
                came_out = subagents.MADE_WAY
            ended = ToolStatus.FAILED if broken_off or failed(name, now) else ToolStatus.COMPLETED
            result = self.out.clean(came_out.strip(), RESULT_BYTES)
            done = self.out.clean(done_with(tool, name, now), SUBJECT_CHARS * 4)
            if name == "task":
                subagents.returned(id, self.turn)
            self.out.events.append(ToolCall(id, tool.kind, done, ended, subject, result, parent))
        else:
            self.out.unknown(f"tool/{status}", to_line(told))

    def _usage(self, key: str, told: Frame) -> None:
        """A step is one call of the model, and has a message of its own. Without a price it costs 0."""
        tokens = part(told, "tokens")
        cached = part(tokens, "cache")
        self.out.events.append(
            Usage(
                key,
                number(tokens, "input") + number(cached, "write"),
                number(tokens, "output") + number(tokens, "reasoning"),
                number(cached, "read"),
                money(told, "cost") or None,
            )
        )

    def _todos(self, told: Frame) -> None:
        entries = [
            PlanEntry(
                self.out.line(string(todo, "content")),
                _PLAN.get(string(todo, "status"), PlanStatus.PENDING),
            )
            for todo in frames(told, "todos")[:MOST_TODOS]
        ]
        self.out.events.append(Plan(tuple(entries)))

    def _status(self, session: str, status: Frame) -> None:
        kind = string(status, "type")
        if kind in ("busy", "retry"):
            if session == self.turn.state.session:
                self.turn.busy()
            else:
                subagents.works(session, self.turn)
        if kind == "retry":
            retrying(status, self.turn, self.patience)

    # after a gap in the events

    def _look_again(self) -> None:
        turn = self.turn
        if turn.state.session:
            turn.request("missed/messages", "GET", turn.path(f"/message?limit={RESEEN}"))
            turn.request("missed/permissions", "GET", "/permission")
            turn.request("missed/questions", "GET", "/question")
            turn.request("missed/status", "GET", "/session/status")

    def _missed(self, about: str, told: Frame) -> None:
        """Told as if it had been heard; what was heard already changes nothing."""
        turn, state = self.turn, self.turn.state
        if about == "again":
            self._look_again()
            return
        if not is_fine(told):
            if about == "status":  # an idle may have been missed, and nothing else would tell of it
                turn.wait("missed/again", LOOK_AGAIN)
            return
        body = [frame_of(item) for item in items(told, "body")]
        if about == "messages":
            newest = state.speaking
            for item in body:
                info = part(item, "info")
                if string(info, "role") == "assistant" and token(info, "id") < newest:
                    continue
                self._message(state.session, info)
                for one in frames(item, "parts"):
                    self._part(state.session, one)
        elif about in ("permissions", "questions"):
            take = asks.permission_asked if about == "permissions" else asks.question_asked
            for item in body:
                if state.knows(token(item, "sessionID")):
                    take(item, turn)
        elif not part(told, "body", state.session):
            while state.run:
                turn.idle()
        else:
            for child in state.children:
                if status := part(told, "body", child):
                    self._status(child, status)
