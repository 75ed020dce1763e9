"""What Claude Code asks of its client. An unanswered request would hang the turn.

`can_use_tool` is how it asks for a permission, how it puts questions to people (AskUserQuestion) and how
it presents a plan (ExitPlanMode). While people think it waits; when it does not wait any more, it says so
with `control_cancel_request`. Several questions in one call are put to people one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bot.agents.asking import NOBODY, NOBODY_MAY, UNANSWERED, UNSUPPORTED, numbered, options, question
from bot.agents.claude.state import Asked, State
from bot.agents.claude.tools import PLAN_TOOL, QUESTION_TOOL, describe, exactly, kind_of
from bot.agents.codec import Answered, Decided, Permissions
from bot.agents.mcp import is_side_tool
from bot.agents.steps import StepBuilder
from bot.agents.wire import SUBJECT_CHARS, TEXT_BYTES, Frame, frames, part, plain, string, token
from bot.events import ApprovalAsked, Question, ToolKind, Withdrawn

NOBODY_SEES_THE_PLAN = (
    "Nobody can be asked inside this turn. Put the plan into your final message and end there; "
    "people will tell you how to go on."
)

# What is asked of people where they are to be asked. The rest changes nothing outside of Claude's head.
_HARMLESS = frozenset({ToolKind.READ, ToolKind.SEARCH, ToolKind.THINK})


@dataclass(slots=True)
class Asks:
    state: State
    out: StepBuilder

    def asked(self, told: Frame) -> bool:
        """A control request. False: it is one that we don't know, and was answered with an error."""
        id, request = string(told, "request_id"), part(told, "request")
        match string(request, "subtype"):
            case "can_use_tool":
                self._tool(id, request)
            case "elicitation":  # an MCP server wants something from a person, in a form of its own
                words = self._words(string(request, "message"))
                self.out.events.append(Question(token(told, "request_id"), words))
                self._success(id, {"action": "decline"})
            case _:
                response = {"subtype": "error", "request_id": id, "error": UNSUPPORTED}
                self.out.send({"type": "control_response", "response": response})
                return False
        return True

    def cancelled(self, id: str) -> bool:
        if id in self.state.asked:
            self._withdraw(id)
        return True

    def withdraw(self) -> None:
        """Nobody waits for anything any more."""
        for id in list(self.state.asked):
            self._withdraw(id)

    def decided(self, answer: Decided) -> None:
        """An answer that comes too late is nothing to Claude."""
        asked = self.state.asked.get(answer.id)
        if asked is None or asked.questions:
            return
        del self.state.asked[answer.id]
        if answer.allowed:
            self._allow(answer.id, asked)
            return
        why = plain(answer.reason) or "the people who were asked said no"
        message = (
            f"The plan is not approved: {why}\nRefine it and present it again."
            if asked.plan
            else f"This was not allowed: {why}\nDo not try it in another way; go on without it."
        )
        self._deny(answer.id, message)

    def answered(self, answer: Answered) -> None:
        id = answer.id.partition("/")[0]
        asked = self.state.asked.get(id)
        if asked is None or not asked.questions or answer.id != numbered(id, len(asked.answers)):
            return
        asked.answers.append(plain(answer.text) or f"{UNANSWERED} {plain(answer.reason)}".strip())
        if answer.text and len(asked.answers) < len(asked.questions):
            self._question(id, asked)
            return
        del self.state.asked[id]
        if all(text.startswith(UNANSWERED) for text in asked.answers):
            why = f" ({plain(answer.reason)})" if answer.reason else ""
            self._deny(id, f"Nobody answered{why}. {NOBODY}")
            return
        # Who has not answered one question is not asked the next.
        missing = len(asked.questions) - len(asked.answers)
        words = [*asked.answers, *[UNANSWERED] * missing]
        answers = {string(one, "question"): text for one, text in zip(asked.questions, words, strict=True)}
        updated = {"questions": asked.questions, "answers": answers}
        self._success(id, {"behavior": "allow", "updatedInput": updated})

    # inside

    def _tool(self, id: str, request: Frame) -> None:
        tool, given = string(request, "tool_name"), part(request, "input")
        state, call = self.state, token(request, "tool_use_id")
        key = token({"id": id}, "id")
        waits = state.answerable and key == id and id != "" and "/" not in id and id not in state.asked
        if tool == QUESTION_TOOL and frames(given, "questions") and waits:
            state.asked[id] = Asked(call, questions=[_plain(one) for one in frames(given, "questions")])
            self._question(id, state.asked[id])
        elif tool == QUESTION_TOOL or (
            request.get("requires_user_interaction") is True and tool != PLAN_TOOL
        ):  # of a tool that we don't know we can't know how it is answered
            self._refuse_question(id, request, given)
        elif state.permissions is Permissions.AUTO or (tool != PLAN_TOOL and self._may(tool)):
            # The sandbox is the boundary, it holds nothing that opens a door, and a refusal by nobody
            # helps nobody. That includes leaving plan mode.
            self._success(id, {"behavior": "allow"})
        elif waits:
            state.asked[id] = Asked(call, plan=tool == PLAN_TOOL)
            self.out.events.append(self._approval(id, tool, given))
        elif tool == PLAN_TOOL:
            self._deny(id, NOBODY_SEES_THE_PLAN)
        else:
            self.out.notice(f"Not allowed, as nobody can be asked: {self._approval(id, tool, given).title}")
            self._deny(id, NOBODY_MAY)

    def _may(self, tool: str) -> bool:
        return self.state.free or is_side_tool(tool) or kind_of(tool) in _HARMLESS

    def _approval(self, id: str, tool: str, given: Frame) -> ApprovalAsked:
        title = self._words(describe(tool, given, self.state.cwd).asked)
        return ApprovalAsked(id, title, self.out.exact(exactly(tool, given)), kind_of(tool))

    def _allow(self, id: str, asked: Asked) -> None:
        # Without `updatedInput` Claude does what it has asked for, to the letter.
        response: dict[str, object] = {"behavior": "allow"}
        if asked.plan and self.state.permissions is Permissions.PLAN:
            # The plan was what people wanted to see; with each step of it they are not bothered.
            self.state.free = True
            mode = {"type": "setMode", "mode": "bypassPermissions", "destination": "session"}
            response["updatedPermissions"] = [mode]
        self._success(id, response)

    def _deny(self, id: str, message: str) -> None:
        self._success(id, {"behavior": "deny", "message": message, "interrupt": False})

    def _question(self, id: str, asked: Asked) -> None:
        """Put the next one to people."""
        one = asked.questions[len(asked.answers)]
        words = self.out.clean(question(one), TEXT_BYTES)
        choice = tuple(self._words(option) for option in options(one))
        self.out.events.append(Question(numbered(id, len(asked.answers)), words, choice, open=True))

    def _refuse_question(self, id: str, request: Frame, given: Frame) -> None:
        asked = frames(given, "questions")
        words = " ".join(string(one, "question") for one in asked)
        self.out.events.append(
            Question(
                token({"id": id}, "id"),
                self._words(words or string(request, "description") or string(request, "tool_name")),
                tuple(self._words(option) for one in asked for option in options(one)),
            )
        )
        self._deny(id, NOBODY)

    def _withdraw(self, id: str) -> None:
        asked = self.state.asked.pop(id)
        if running := self.state.tools.get(asked.call):
            running.not_run()
        self.out.events.append(Withdrawn(numbered(id, len(asked.answers)) if asked.questions else id))

    def _success(self, id: str, given: Frame) -> None:
        response = {"subtype": "success", "request_id": id, "response": given}
        self.out.send({"type": "control_response", "response": response})

    def _words(self, text: str) -> str:
        return self.out.clean(text, SUBJECT_CHARS * 4)


def _plain(value: Mapping[str, object]) -> Frame:
    """A question fit to be kept, and to be given back as it was."""
    kept: dict[str, object] = {}
    for name, item in value.items():
        if isinstance(item, str):
            kept[plain(name)] = plain(item)
        elif isinstance(item, bool):
            kept[plain(name)] = item
        elif isinstance(item, list):
            kept[plain(name)] = [_plain(inner) for inner in item if isinstance(inner, dict)]
    return kept
