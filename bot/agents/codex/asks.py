"""What Codex asks of its client. An unanswered request would hang the turn.

Commands and changes of files are asked about one by one, questions come up to three in a request. Codex
tells with `serverRequest/resolved` that it does not wait any more. It takes a no without a reason, so the
reason follows as words to the running turn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from bot.agents.asking import NOBODY, NOBODY_MAY, UNANSWERED, UNSUPPORTED, numbered, options, question
from bot.agents.codec import Answered, Decided
from bot.agents.codex.state import Asked, State
from bot.agents.codex.tools import ask, command_of, doing, only_reads
from bot.agents.steps import StepBuilder
from bot.agents.wire import (
    SUBJECT_CHARS,
    TEXT_BYTES,
    TITLE_CHARS,
    Frame,
    frames,
    one_line,
    part,
    plain,
    string,
    token,
)
from bot.events import ApprovalAsked, Question, ToolCall, ToolKind, ToolStatus, Withdrawn

_APPROVALS = {
    "item/commandExecution/requestApproval": "command",
    "item/fileChange/requestApproval": "file",
    "item/permissions/requestApproval": "permissions",
}


@dataclass(slots=True)
class Asks:
    state: State
    out: StepBuilder

    def asked(self, method: str, request: int | str, params: Frame) -> bool:
        """A request of Codex. False: one that we don't know; it was answered with an error."""
        if way := _APPROVALS.get(method):
            self._approval(Asked(request, way, token(params, "threadId"), token(params, "itemId")), params)
        elif method == "item/tool/requestUserInput":
            self._questions(request, params)
        elif method == "mcpServer/elicitation/request":
            # An MCP server wants something from a person, in a form of its own.
            words = self._words(string(params, "message") or string(params, "title"))
            self.out.events.append(Question(f"elicitation-{request}", words))
            self._reply(request, {"action": "decline", "content": None, "_meta": None})
        else:
            self.out.send({"id": request, "error": {"code": -32601, "message": UNSUPPORTED}})
            return False
        return True

    def plan(self, id: str, text: str) -> None:
        """The plan that Codex has laid out, for people to approve."""
        self.state.asked[id] = Asked("", "plan", self.state.thread)
        detail = self.out.exact(text)
        self.out.events.append(ApprovalAsked(id, "Carry out this plan", detail, ToolKind.THINK))

    def decided(self, answer: Decided) -> Asked | None:
        """What was asked; None for an answer that comes too late. A plan's is the caller's to act on."""
        asked = self.state.asked.get(answer.id)
        if asked is None or asked.way == "question":
            return None
        del self.state.asked[answer.id]
        if asked.way == "plan":
            return asked
        if not answer.allowed:
            why = plain(answer.reason) or "the people who were asked said no"
            self._note(asked, f"This was not allowed: {why}\nDo not try it in another way; go on without it.")
        self._decide(asked, allowed=answer.allowed)
        return asked

    def answered(self, answer: Answered) -> None:
        id = answer.id.partition("/")[0]
        asked = self.state.asked.get(id)
        if asked is None or asked.way != "question" or answer.id != numbered(id, len(asked.answers)):
            return
        asked.answers.append(plain(answer.text) or f"{UNANSWERED} {plain(answer.reason)}".strip())
        if answer.text and len(asked.answers) < len(asked.questions):
            self._question(id, asked)
            return
        del self.state.asked[id]
        # Who has not answered one question is not asked the next.
        missing = len(asked.questions) - len(asked.answers)
        words = [*asked.answers, *[UNANSWERED] * missing]
        if not answer.text:
            words[-1] += f" {NOBODY}"
        self._answer(asked.request, asked.questions, words)

    def resolved(self, request: object) -> None:
        """Codex does not wait for an answer to this request of its own any more."""
        for id in [id for id, asked in self.state.asked.items() if asked.request == request]:
            if self.state.asked[id].way != "plan":
                self._withdraw(id)

    def withdraw(self) -> None:
        """Nobody waits for anything any more."""
        for id in list(self.state.asked):
            self._withdraw(id)

    # inside

    def _approval(self, asked: Asked, params: Frame) -> None:
        state = self.state
        if asked.way == "permissions":
            asked.given = part(params, "permissions")
        harmless = asked.way == "command" and only_reads(params)
        if not state.asks or harmless:
            # The sandbox is the boundary, it holds nothing that opens a door, and a refusal by nobody
            # helps nobody.
            self._decide(asked, allowed=True)
            return
        id = _free(state, token(params, "approvalId") or asked.item or f"request-{asked.request}")
        approval = self._words_of(id, asked, params)
        if state.answerable:
            state.asked[id] = asked
            self.out.events.append(approval)
            return
        self.out.notice(f"Not allowed, as nobody can be asked: {approval.title}")
        self._note(asked, NOBODY_MAY)
        self._decide(asked, allowed=False)

    def _words_of(self, id: str, asked: Asked, params: Frame) -> ApprovalAsked:
        running = self.state.tools.get(asked.item)
        title = ask(running) if running else ""
        kind = running.kind if running else ToolKind.OTHER
        detail = running.exactly if running else ""  # made exact when it began
        match asked.way:
            case "command":
                # Of a terminal that runs already, what is typed into it.
                command = command_of(string(params, "command"))
                where = string(params, "cwd")
                if command and where and where != self.state.cwd:
                    command = f"{command}\n(in {where})"
                kind, detail = ToolKind.EXECUTE, self.out.exact(command) or detail
                title = f"Run {one_line(detail, TITLE_CHARS)}" if detail else title or "Run a command"
            case "permissions":
                title = string(params, "reason") or "More permissions"
                detail = self.out.exact(json.dumps(asked.given, ensure_ascii=False, indent=1))
        return ApprovalAsked(id, self._words(title), detail, kind)

    def _questions(self, request: int | str, params: Frame) -> None:
        asked = [_kept(one) for one in frames(params, "questions")]
        id = _free(self.state, token(params, "itemId").replace("/", "-") or f"request-{request}")
        if asked and self.state.answerable:
            waiting = Asked(request, "question", token(params, "threadId"), questions=asked)
            self.state.asked[id] = waiting
            self._question(id, waiting)
            return
        for number, one in enumerate(asked):
            self.out.events.append(Question(numbered(id, number), *self._choice(one)))
        self._answer(request, asked, [NOBODY] * len(asked))

    def _question(self, id: str, asked: Asked) -> None:
        """Put the next one to people."""
        number = len(asked.answers)
        words, choice = self._choice(asked.questions[number])
        self.out.events.append(Question(numbered(id, number), words, choice, open=True))

    def _choice(self, one: Frame) -> tuple[str, tuple[str, ...]]:
        words = self.out.clean(question(one), TEXT_BYTES)
        return words, tuple(self._words(option) for option in options(one))

    def _answer(self, request: int | str, questions: list[Frame], words: list[str]) -> None:
        answers = {string(one, "id"): {"answers": [text]} for one, text in zip(questions, words, strict=True)}
        self._reply(request, {"answers": answers})

    def _decide(self, asked: Asked, *, allowed: bool) -> None:
        if allowed and self.state.asks and (running := self.state.tools.get(asked.item)):
            agent = self.state.agents.get(asked.thread)
            parent, now = agent.call if agent else "", ToolStatus.IN_PROGRESS
            call = ToolCall(asked.item, running.kind, doing(running), now, running.about, parent=parent)
            self.out.events.append(call)
        if asked.way == "permissions":
            self._reply(asked.request, {"permissions": asked.given if allowed else {}, "scope": "turn"})
        else:
            self._reply(asked.request, {"decision": "accept" if allowed else "decline"})

    def _note(self, asked: Asked, text: str) -> None:
        """Words that Codex takes in with the result of the call, sent before the result is there."""
        state = self.state
        agent = state.agents.get(asked.thread)
        turn = agent.turn if agent else state.turn
        if turn:
            state.count += 1
            id = f"note-{state.count}"
            state.requests[id] = ""
            words = [{"type": "text", "text": text}]
            params = {"threadId": asked.thread, "expectedTurnId": turn, "input": words}
            self.out.send({"id": id, "method": "turn/steer", "params": params})

    def _withdraw(self, id: str) -> None:
        asked = self.state.asked.pop(id)
        self.out.events.append(Withdrawn(numbered(id, len(asked.answers)) if asked.questions else id))

    def _reply(self, request: int | str, result: Frame) -> None:
        self.out.send({"id": request, "result": result})

    def _words(self, text: str) -> str:
        return self.out.clean(text, SUBJECT_CHARS * 4)


def _free(state: State, id: str) -> str:
    """One item can ask more than once."""
    return next(key for key in (id, *(f"{id}-{n}" for n in range(2, 100)), "") if key not in state.asked)


def _kept(one: Frame) -> Frame:
    """A question fit to be kept."""
    given = [
        {name: plain(string(option, name)) for name in ("label", "description")} for option in _list(one)
    ]
    return {"id": string(one, "id"), "question": plain(string(one, "question")), "options": given}


def _list(one: Frame) -> list[Frame]:
    return list(frames(one, "options"))
