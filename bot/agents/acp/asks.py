"""What an ACP agent asks of its client: permissions, forms for people, files and terminals.

Every request is answered, or its agent would wait for ever: at once, or when a person has decided.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from bot.agents.acp.errors import CANCELLED, METHOD_NOT_FOUND
from bot.agents.acp.forms import answer_to, fields_of, options_of, question_of, takes_words
from bot.agents.acp.state import Ask, State
from bot.agents.acp.tools import described, learn
from bot.agents.asking import NOBODY
from bot.agents.codec import Permissions
from bot.agents.steps import StepBuilder
from bot.agents.wire import RESULT_BYTES, SUBJECT_CHARS, Frame, frames, part, string, token
from bot.events import ApprovalAsked, Question, ToolKind, Withdrawn

# Kinds of calls that need no word of a person: they change nothing.
HARMLESS = (ToolKind.READ, ToolKind.SEARCH, ToolKind.THINK)


GO_ON = "Go on with this plan"

CANCELLED_OUTCOME: Frame = {"outcome": {"outcome": "cancelled"}}


def requested(method: str, told: Frame, state: State, out: StepBuilder) -> bool:
    """Answer a request, or put it to people. False: it is one that we don't serve; it was refused."""
    rpc, params = json.dumps(told.get("id")), part(told, "params")
    # What it asks after it was stopped, before it has heard of that, is not allowed any more.
    stopped = state.stopping or state.cancelling
    match method:
        case "session/request_permission" if stopped:
            out.send(_answer(rpc, CANCELLED_OUTCOME))
        case "elicitation/create" if stopped:
            out.send(_answer(rpc, {"action": "cancel"}))
        case "session/request_permission":
            _permission(rpc, params, state, out)
        case "elicitation/create":
            _form(rpc, params, state, out)
        case _:
            why = f"This client has no {method[:80]}."
            out.send(_answer(rpc, error={"code": METHOD_NOT_FOUND, "message": why}))
            # Asked for though we said that we have none: OpenCode offers each of its edits to an editor.
            return method.startswith(("fs/", "terminal/"))
    return True


# permissions


def _permission(rpc: str, params: Frame, state: State, out: StepBuilder) -> None:
    call = part(params, "toolCall")
    id = token(call, "toolCallId")
    # Some agents tell of a call for the first time when they ask for it.
    tool = state.keep_tool(id)
    learn(tool, {**call, "status": tool.status or "pending"}, state.cwd)
    tool.known = True  # what people are asked about is not still being written
    kind, title, _, _, _ = described(tool, waits=True)
    options = frames(params, "options")
    # One yes is for one call: an option that allows it for good is taken only where nobody is asked.
    once, no = _option(options, "allow_once"), _option(options, "reject_once", "reject_always")
    switches = tool.kind == "switch_mode"
    free = kind in HARMLESS and not switches
    # A plan that the request does not have was said before it.
    words = _plan(call) or state.speech.text if switches else tool.exact
    if not words and kind is ToolKind.EXECUTE:  # some agents have a command for a title and tell no more
        words = string(call, "title")
    if state.permissions == Permissions.AUTO or free:
        _decide(rpc, once or _option(options, "allow_always") or no, out)
        return
    why = ""
    if not state.answerable:
        why = "nobody can be asked now"
    elif not once or not words:
        why = "people cannot be shown all that it would do, or cannot allow it for this once"
    if why:
        _decide(rpc, no, out)
        tool.refused = True
        out.notice(f"Not allowed, since {why}: {title}")
        state.refused.append(f"{title}. {NOBODY if not state.answerable else why}")
        return
    state.asked += 1
    id = f"{state.first}:{state.asked}"
    state.asks[id] = Ask(rpc, once, no, title, token(call, "toolCallId"), plan=switches)
    what = out.clean(GO_ON if switches else title, SUBJECT_CHARS * 4)
    out.events.append(ApprovalAsked(id, what, out.exact(words), ToolKind.OTHER if switches else kind))


def _plan(call: Frame) -> str:
    texts = [string(part(item, "content"), "text") for item in frames(call, "content")]
    return string(part(call, "rawInput"), "plan") or "\n".join(filter(None, texts))


def _option(options: Sequence[Frame], *kinds: str) -> str:
    """The id of the first option of one of these kinds, in their order; "" when there is none."""
    found = {string(option, "kind"): string(option, "optionId") for option in reversed(options)}
    return next((found[kind] for kind in kinds if found.get(kind)), "")


def _decide(rpc: str, option: str, out: StepBuilder) -> None:
    outcome = {"outcome": {"outcome": "selected", "optionId": option}} if option else CANCELLED_OUTCOME
    out.send(_answer(rpc, outcome))


def decided(id: str, allowed: bool, reason: str, state: State, out: StepBuilder) -> str:
    """Hand a person's decision on. Returns what the model should be told of it: ACP has no place for the
    reason of a refusal."""
    ask = state.asks.pop(id, None)
    if ask is None or ask.form:
        if ask is not None:
            state.asks[id] = ask
        return ""
    _decide(ask.rpc, ask.yes if allowed else ask.no, out)
    if allowed and ask.plan and state.permissions == Permissions.PLAN:
        # People have seen what it is going to do.
        state.planning, state.permissions = False, Permissions.AUTO.value
    if not allowed and ask.tool in state.tools:
        state.tools[ask.tool].refused = True
    return "" if allowed else f"{ask.title}. {reason}".strip()


# forms


def _form(rpc: str, params: Frame, state: State, out: StepBuilder) -> None:
    message = string(params, "message")
    if tool := state.tools.get(token(params, "toolCallId")):
        tool.question = True
    fields = fields_of(part(params, "requestedSchema"))
    state.asked += 1
    id = f"{state.first}:{state.asked}"
    if string(params, "mode") not in ("", "form") or not fields:
        out.events.append(Question(id, out.clean(message, RESULT_BYTES)))
        out.send(_answer(rpc, {"action": "decline"}))
        return
    ask = Ask(rpc, title=message, form=fields)
    if state.answerable:
        state.asks[id] = ask
        _ask_next(id, ask, out, alone=len(fields) == 1)
        return
    for field in fields:
        _question(id, field, message, out, alone=len(fields) == 1, open=False)
    _nobody_answers(ask, out)


def _ask_next(id: str, ask: Ask, out: StepBuilder, *, alone: bool) -> None:
    _question(id, ask.form[0], ask.title, out, alone=alone, open=True)


def _question(id: str, field: Frame, message: str, out: StepBuilder, *, alone: bool, open: bool) -> None:
    text = out.clean(question_of(field, message, alone=alone), RESULT_BYTES)
    options = tuple(out.clean(option, SUBJECT_CHARS) for option in options_of(field))
    out.events.append(Question(id, text, options, open))


def answered(id: str, text: str, reason: str, state: State, out: StepBuilder) -> None:
    """Hand a person's answer on, or put the form's next question."""
    ask = state.asks.get(id)
    if ask is None or not ask.form:
        return
    del state.asks[id]
    if not text:
        _nobody_answers(ask, out, reason)
        return
    field, *rest = ask.form
    value = answer_to(field, text)
    if value is None:
        out.notice(f"“{text[:80]}” is no answer that the question takes: it is left open.")
        out.send(_answer(ask.rpc, {"action": "decline"}))
        return
    ask.content |= value
    ask.form = rest
    if not rest:
        out.send(_answer(ask.rpc, {"action": "accept", "content": ask.content}))
        return
    state.asked += 1
    following = f"{state.first}:{state.asked}"
    state.asks[following] = ask
    _ask_next(following, ask, out, alone=False)


def _nobody_answers(ask: Ask, out: StepBuilder, reason: str = "") -> None:
    """A declined form tells the model nothing, so the way out is written into it where it takes words."""
    if not all(takes_words(field) for field in ask.form):
        out.send(_answer(ask.rpc, {"action": "decline"}))
        return
    words = f"{reason} {NOBODY}" if reason else NOBODY
    content = dict(ask.content)
    for field in ask.form:
        content[string(field, "own_words") or string(field, "name")] = words
    out.send(_answer(ask.rpc, {"action": "accept", "content": content}))


# the end of waiting


def withdraw(state: State, out: StepBuilder) -> None:
    """The agent is stopped: its open requests are answered as the protocol wants it."""
    for ask in state.asks.values():
        if not ask.rpc:
            continue
        out.send(_answer(ask.rpc, {"action": "cancel"} if ask.form else CANCELLED_OUTCOME))
    forget_asks(state, out)


def forget_asks(state: State, out: StepBuilder) -> None:
    out.events += [Withdrawn(id) for id in state.asks]
    state.asks.clear()


def withdrawn(params: Frame, state: State, out: StepBuilder) -> None:
    """The agent takes a request of its own back."""
    rpc = json.dumps(params.get("requestId"))
    for id, ask in list(state.asks.items()):
        if ask.rpc == rpc:
            del state.asks[id]
            out.send(_answer(rpc, error={"code": CANCELLED, "message": "Cancelled."}))
            out.events.append(Withdrawn(id))


def is_asked_about(tool: str, state: State) -> bool:
    return any(ask.tool == tool for ask in state.asks.values())


def _answer(rpc: str, result: Frame | None = None, error: Frame | None = None) -> Frame:
    body: Frame = {"error": error} if error is not None else {"result": result or {}}
    return {"jsonrpc": "2.0", "id": json.loads(rpc), **body}
