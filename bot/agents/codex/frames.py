"""Codex's frames (app-server on stdio, as version 0.169.0 writes them) read into events.

Sources: the JSON schema that `codex app-server generate-json-schema --experimental` writes, and the
frames of real runs under tests/transcripts. Fields that are missing or of another type are taken as absent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bot.agents.codex.asks import Asks
from bot.agents.codex.errors import describe
from bot.agents.codex.items import Items
from bot.agents.codex.state import State, Tokens
from bot.agents.codex.turns import Turns
from bot.agents.steps import StepBuilder
from bot.agents.wire import Frame, frames, part, string, token
from bot.events import Cause, Plan, PlanEntry, PlanStatus, Usage

# Notifications that are known and tell people nothing that others do not tell better.
SILENT = frozenset(
    {
        # pieces of items, which come whole when they are over
        "item/agentMessage/delta",
        "item/commandExecution/outputDelta",
        "item/commandExecution/terminalInteraction",
        "item/fileChange/outputDelta",
        "item/fileChange/patchUpdated",
        "item/mcpToolCall/progress",
        "item/plan/delta",
        "item/reasoning/summaryPartAdded",
        "item/reasoning/summaryTextDelta",
        "item/reasoning/textDelta",
        # the state of the conversation, which its turns and items tell
        "thread/archived",
        "thread/closed",
        "thread/compacted",
        "thread/environment/connected",
        "thread/environment/disconnected",
        "thread/goal/cleared",
        "thread/goal/updated",
        "thread/name/updated",
        "thread/prediction/updated",
        "thread/queue/changed",
        "thread/readState/changed",
        "thread/settings/updated",
        "thread/started",
        "thread/status/changed",
        "turn/diff/updated",
        "turn/moderationMetadata",
        # for graphical clients, and for whoever administers an installation
        "account/login/completed",
        "account/updated",
        "app/list/updated",
        "deprecationNotice",
        "fs/changed",
        "hook/completed",
        "hook/started",
        "model/safetyBuffering/updated",
        "model/verification",
        "modelProvider/authRecoveryCompleted",
        "modelProvider/authRecoveryStarted",
        "project/changed",
        "remoteControl/status/changed",
        "skills/changed",
        "thread/project/updated",
    }
)

# Warnings about what the operator has chosen: a model that Codex's catalogue lacks, a feature of ours.
_CHOSEN = re.compile(r"Model metadata for .* not found|Under-development features enabled")

_STEPS = {
    "pending": PlanStatus.PENDING,
    "inProgress": PlanStatus.IN_PROGRESS,
    "completed": PlanStatus.COMPLETED,
}
MOST_STEPS = 60
FAILURES = 2  # one failure is nothing to tell, ten lines neither


@dataclass(slots=True)
class Reading:
    """Reads lines, one after the other, into the state and a step."""

    state: State
    out: StepBuilder
    turns: Turns = field(init=False)

    def __post_init__(self) -> None:
        self.turns = Turns(self.state, self.out)

    def read(self, line: bytes) -> None:
        told = self.out.read(line)
        if told is None:
            return
        method, id = string(told, "method"), told.get("id")
        if method and "id" in told:
            named = isinstance(id, int | str) and not isinstance(id, bool)
            known = named and Asks(self.state, self.out).asked(method, _id(id), part(told, "params"))
        elif method:
            known = self._notification(method, part(told, "params"))
        else:
            known = isinstance(id, str) and self.turns.answer(id, told)
        if not known:
            self.out.unknown(method or "no method", line)

    def _notification(self, method: str, params: Frame) -> bool:
        thread = token(params, "threadId")
        main = thread == self.state.thread
        match method:
            case "item/started" | "item/completed":
                return self._item(method, part(params, "item"), thread)
            case "turn/started" | "turn/completed":
                self._turn(method, part(params, "turn"), thread)
            case "turn/plan/updated":
                if main:
                    self._plan(params)
            case "thread/tokenUsage/updated":
                self._usage(thread, token(params, "turnId"), part(params, "tokenUsage"))
            case "serverRequest/resolved":
                Asks(self.state, self.out).resolved(params.get("requestId"))
            case "error":
                if main and params.get("willRetry") is True:
                    self._retries(part(params, "error"))
            case "warning" | "guardianWarning" | "configWarning":
                text = string(params, "message") or string(params, "summary")
                if (main or not thread) and not _CHOSEN.search(text):
                    self.out.notice(text)
            case "model/rerouted":
                self.out.notice(f"Codex went on with another model: {string(params, 'toModel')}.")
            case "mcpServer/startupStatus/updated":
                if string(params, "status") == "failed":
                    why = string(params, "error") or "no reason given"
                    self.out.notice(f"The MCP server {string(params, 'name')} did not start: {why}")
            case "account/rateLimits/updated":
                if reached := string(part(params, "rateLimits"), "rateLimitReachedType"):
                    self.out.notice(f"A limit of the account is used up ({reached}).")
            case _:
                return method in SILENT
        return True

    def _item(self, method: str, item: Frame, thread: str) -> bool:
        state = self.state
        main = thread == state.thread
        if main and string(item, "type") == "userMessage":
            self.turns.took(string(item, "clientId"))
            return True
        if main and not state.resumable and state.thread:
            # Not before: what is not on disk yet cannot be resumed, where starting anew would do.
            state.resumable, self.out.resume_token = True, state.thread
        calls = Items(state, self.out)
        if method == "item/started":
            known = calls.begun(item, thread)
            if main and calls.waits_for_agent:
                self.turns.waits()
        else:
            known = calls.ended(item, thread)
            self.turns.go_on()
        return known

    def _turn(self, method: str, turn: Frame, thread: str) -> None:
        calls = Items(self.state, self.out)
        if thread == self.state.thread:
            if method == "turn/started":
                self.turns.began(token(turn, "id"))
            else:
                self.turns.ended(turn)
        elif method == "turn/started":
            calls.agent_began(thread, token(turn, "id"))
        elif thread in self.state.agents:
            calls.agent_ended(thread, turn)
            self.turns.go_on()

    def _plan(self, params: Frame) -> None:
        entries = [
            PlanEntry(
                self.out.line(string(step, "step")),
                _STEPS.get(string(step, "status"), PlanStatus.PENDING),
            )
            for step in frames(params, "plan")[:MOST_STEPS]
        ]
        self.out.events.append(Plan(tuple(entries)))

    def _usage(self, thread: str, turn: str, usage: Frame) -> None:
        """Codex says what a conversation has spent in all, and repeats itself; a resumed one begins with
        its old sum."""
        state = self.state
        agent = state.agents.get(thread)
        total = Tokens.of(part(usage, "total"))
        before = state.totals.get(thread)
        state.totals[thread] = total
        if turn == "" or turn not in (state.turn, agent.turn if agent else ""):
            return
        spent = Tokens.of(part(usage, "last")) if before is None else total.since(before)
        if spent != Tokens():
            state.tokens += spent
            tokens = state.tokens
            self.out.events.append(Usage(state.first, tokens.given, tokens.made, tokens.cached))

    def _retries(self, error: Frame) -> None:
        self.state.failures += 1
        if self.state.failures != FAILURES:
            return
        why = string(error, "additionalDetails") or string(error, "message")
        text, cause = describe({**error, "message": why})
        if cause is Cause.LOGIN:
            self.turns.refuse(text)
        else:
            self.out.notice(f"The model's API fails ({text}). Codex keeps trying.")


def _id(value: object) -> int | str:
    return value if isinstance(value, int | str) else ""
