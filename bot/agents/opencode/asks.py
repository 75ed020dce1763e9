"""What OpenCode asks of people: permissions and questions. An unanswered one would hang the turn."""

from __future__ import annotations

from urllib.parse import quote

from bot.agents.asking import NOBODY
from bot.agents.codec import Answered, Decided, Permissions
from bot.agents.opencode.tools import wish
from bot.agents.opencode.turn import Turn, question_ids
from bot.agents.wire import RESULT_BYTES, SUBJECT_CHARS, TITLE_CHARS, Frame, frames, string, token
from bot.events import ApprovalAsked, Question

UNSEEN = "The people who would have to allow it cannot see what it would do. Do it in another way."
NO = "People did not allow it."


def permission_asked(asked: Frame, turn: Turn) -> None:
    state, id = turn.state, token(asked, "id")
    if not id or id in state.allows:
        return
    approved = state.permissions is Permissions.PLAN and state.agent == "build"
    if approved or state.permissions is Permissions.AUTO:  # a rule of the repository's own asks, then
        _reply(turn, id, allowed=True)
        return
    kind, title, detail = wish(asked, state.cwd)
    if not state.answerable:
        turn.out.notice(f"Not allowed, since nobody could be asked: {title}")
        _reply(turn, id, allowed=False, reason=NOBODY)
    elif detail in ("", "*"):  # of a tool of an MCP server: OpenCode does not tell what it would be given
        turn.out.notice(f"Not allowed, since nobody could see what it would do: {title}")
        _reply(turn, id, allowed=False, reason=UNSEEN)
    else:
        state.allows.append(id)
        _of(asked, turn)
        clean = turn.out.clean
        turn.out.events.append(ApprovalAsked(id, clean(title, TITLE_CHARS * 8), turn.out.exact(detail), kind))


def decided(decision: Decided, turn: Turn) -> None:
    state = turn.state
    if state.plan and decision.id == state.plan:
        turn.decide_plan(allowed=decision.allowed, reason=decision.reason)
    elif decision.id in state.allows:
        state.allows.remove(decision.id)
        _reply(turn, decision.id, allowed=decision.allowed, reason=decision.reason or NO)


def settled(told: Frame, turn: Turn) -> None:
    """By us, or by OpenCode itself, which refuses what else is open when one is refused."""
    turn.withdraw([token(told, "requestID")])


def _reply(turn: Turn, id: str, *, allowed: bool, reason: str = "") -> None:
    # A refusal without words would end the run.
    turn.state.askers.pop(id, None)
    body = {"reply": "once"} if allowed else {"reply": "reject", "message": reason}
    turn.request("permission", "POST", f"/permission/{quote(id, safe='')}/reply", body)


def question_asked(asked: Frame, turn: Turn) -> None:
    """Several questions at once are one each for people; OpenCode hears the answers together."""
    state, id = turn.state, token(asked, "id")
    questions = frames(asked, "questions")
    if not id or id in state.questions:
        return
    clean = turn.out.clean
    for one, question in zip(question_ids(id, len(questions)), questions, strict=True):
        options = tuple(
            clean(string(option, "label"), SUBJECT_CHARS * 4) for option in frames(question, "options")
        )
        text = clean(string(question, "question"), RESULT_BYTES * 2)
        turn.out.events.append(Question(one, text, options, open=state.answerable))
    if state.answerable and questions:
        state.questions[id] = [None] * len(questions)
        _of(asked, turn)
    else:
        _answer(turn, id, [NOBODY] * len(questions))


def answered(answer: Answered, turn: Turn) -> None:
    id, _, index = (answer.id, "", "") if answer.id in turn.state.questions else answer.id.rpartition("/")
    answers = turn.state.questions.get(id)
    at = int(index) if index.isdecimal() and index.isascii() else 0
    if answers is None or at >= len(answers):
        return
    answers[at] = answer.text or f"Nobody answered. {answer.reason or NOBODY}"
    known = [text for text in answers if text is not None]
    if len(known) == len(answers):
        del turn.state.questions[id]
        _answer(turn, id, known)


def _of(asked: Frame, turn: Turn) -> None:
    """A sub-agent that is stopped leaves its requests open, so whose they are is kept."""
    session = token(asked, "sessionID")
    if session != turn.state.session:
        turn.state.askers[token(asked, "id")] = session


def _answer(turn: Turn, id: str, answers: list[str]) -> None:
    turn.state.askers.pop(id, None)
    body = {"answers": [[text] for text in answers]}
    turn.request("question", "POST", f"/question/{quote(id, safe='')}/reply", body)
