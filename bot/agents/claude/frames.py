"""Claude Code's frames (stream-json, as version 2.1.329 writes them) read into events.

Sources: the Agent SDK's message and control types, and the frames of real runs under
tests/transcripts. Fields that are missing or of another type are taken as absent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bot.agents.claude.asks import Asks
from bot.agents.claude.calls import Calls
from bot.agents.claude.rounds import Rounds
from bot.agents.claude.state import State
from bot.agents.steps import StepBuilder
from bot.agents.wire import (
    TEXT_BYTES,
    THOUGHT_BYTES,
    Frame,
    frames,
    part,
    string,
    to_line,
    token,
)
from bot.events import AgentStarted, Text, Thought, ToolStatus

# Frames that are known and tell people nothing that other frames do not tell better.
SILENT = frozenset(
    {
        "keep_alive",
        "tool_progress",
        "tool_use_summary",
        "prompt_suggestion",
        "system/background_tasks_changed",
        "system/commands_changed",
        "system/control_request_progress",
        "system/files_persisted",
        "system/hook_progress",
        "system/hook_response",
        "system/hook_started",
        "system/local_command_output",
        "system/memory_recall",
        "system/memory_saved",
        "system/notification",
        "system/permission_denied",
        "system/post_turn_summary",
        "system/session_state_changed",
        "system/session_title_changed",
        "system/shell_cwd",
        "system/status",
        "system/stop_hook_summary",
        "system/task_progress",
        "system/task_summary",
        "system/thinking_tokens",
        "system/turn_duration",
        "system/ui_invalidate",
        "stream_event/content_block_delta",
        "stream_event/content_block_stop",
        "stream_event/message_start",
        "stream_event/message_stop",
        "stream_event/ping",
    }
)


@dataclass(slots=True)
class Reading:
    """Reads lines, one after the other, into the state and a step."""

    state: State
    out: StepBuilder
    calls: Calls = field(init=False)
    rounds: Rounds = field(init=False)
    asks: Asks = field(init=False)

    def __post_init__(self) -> None:
        self.calls = Calls(self.state, self.out)
        self.rounds = Rounds(self.state, self.out)
        self.asks = Asks(self.state, self.out)

    def read(self, line: bytes) -> None:
        told = self.out.read(line)
        if told is None:
            return
        name = string(told, "type")
        match name:
            case "stream_event":
                known = self._stream_event(told)
            case "assistant":
                known = self._assistant(told)
            case "user":
                known = self._user(told)
            case "system":
                known = self._system(told)
            case "command_lifecycle":
                known = self.rounds.lifecycle(told)
            case "result":
                known = self.rounds.result(told)
            case "control_request":
                known = self.asks.asked(told)
            case "control_response":
                known = self.rounds.control_response(part(told, "response"))
            case "control_cancel_request":
                known = self.asks.cancelled(token(told, "request_id"))
            case "rate_limit_event":
                known = self._rate_limit(part(told, "rate_limit_info"))
            case _:
                known = name in SILENT
        if not known:
            inner = string(told, "subtype") or string(part(told, "event"), "type")
            self.out.unknown("/".join(filter(None, (name, inner))) or "no type", line)

    # what Claude says and does

    def _stream_event(self, told: Frame) -> bool:
        event = part(told, "event")
        name = string(event, "type")
        if name == "content_block_start":
            block = part(event, "content_block")
            if string(block, "type") == "tool_use":
                self.calls.start(block, told, ToolStatus.PENDING)
            return True
        if name == "message_delta":
            conversation = token(told, "parent_tool_use_id")
            call = token(told, "api_message_id")
            if call and self.state.count(conversation, call, part(event, "usage")):
                self.rounds.usage(None)
            return True
        return f"stream_event/{name}" in SILENT

    def _assistant(self, told: Frame) -> bool:
        message = part(told, "message")
        if string(message, "model") == "<synthetic>":
            # Claude's own words about a failure; the result repeats them, but not its kind.
            self.rounds.failing(string(told, "error"))
            return True
        if not self.state.resumable and self.state.session:
            # Not before: a conversation without an answer may not be on disk yet, and resuming one that
            # is not there fails, where starting anew would not.
            self.state.resumable, self.out.resume_token = True, self.state.session
        parent = token(told, "parent_tool_use_id")
        for block in frames(message, "content"):
            match string(block, "type"):
                case "text":
                    # A sub-agent's words are for the agent, which sums them up.
                    if not parent and (text := self.out.clean(string(block, "text"), TEXT_BYTES)):
                        self.out.events.append(Text(text))
                case "thinking":
                    if not parent and (text := self.out.clean(string(block, "thinking"), THOUGHT_BYTES)):
                        self.out.events.append(Thought(text))
                case "redacted_thinking":
                    pass
                case "tool_use" | "server_tool_use":
                    self.calls.start(block, told, ToolStatus.IN_PROGRESS)
                case other if other.endswith("_tool_result"):
                    self.calls.end(block, told)
                case other:
                    self.out.unknown(f"assistant/{other}", to_line(block))
        if self.state.count(parent, token(message, "id"), part(message, "usage")):
            self.rounds.usage(None)
        return True

    def _user(self, told: Frame) -> bool:
        for block in frames(part(told, "message"), "content"):
            if string(block, "type") == "tool_result":
                self.calls.end(block, told)
        return True  # the rest are echoes of prompts and Claude's notes to itself

    # the session and its prompts

    def _system(self, told: Frame) -> bool:
        name = string(told, "subtype")
        match name:
            case "init":
                self._init(told)
            case "api_retry":
                self.rounds.retry(told)
            case "task_started" | "task_updated" | "task_notification":
                self.calls.helper(told)
            case "compact_boundary":
                self.out.notice("Claude summed up the conversation so far to make room.")
            case "model_fallback" | "model_refusal_fallback" | "model_refusal_no_fallback":
                self.out.notice(string(told, "content") or "Claude went on with another model.")
            case "informational":
                if string(told, "level") == "warning":
                    self.out.notice(string(told, "content"))
            case "session_writes_lost":
                self.out.notice(
                    f"The sandbox's disk is full ({string(told, 'error_code')}): "
                    "Claude could not save all of the conversation, so resuming it may miss a part."
                )
            case _:
                return f"system/{name}" in SILENT
        return True

    def _init(self, told: Frame) -> None:
        session = token(told, "session_id")
        if session and session != self.state.session:
            self.state.session, self.state.resumable = session, False
            version, model = string(told, "claude_code_version"), string(told, "model")
            self.out.events.append(
                AgentStarted("claude", session, self.out.clean(version, 80), self.out.clean(model, 80))
            )

    def _rate_limit(self, info: Frame) -> bool:
        if string(info, "status") == "rejected":
            which = string(info, "rateLimitType").replace("_", " ") or "usage"
            self.out.notice(f"Claude's {which} limit is used up.")
        return True
