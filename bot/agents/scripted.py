"""The scripted agent of the demo and the tests: sandbox/inside/scripted_agent.py, whose docstring
describes the JSON lines that go to and fro."""

from __future__ import annotations

from collections.abc import Sequence

from bot.agents.asking import NOBODY, NOBODY_MAY
from bot.agents.codec import (
    Answered,
    Capabilities,
    Decided,
    Exited,
    Happening,
    Interrupt,
    Lines,
    Prompt,
    State,
    Steer,
    Step,
    Task,
)
from bot.agents.steps import StepBuilder
from bot.agents.wire import (
    NOTHING,
    RESULT_BYTES,
    SUBJECT_CHARS,
    TEXT_BYTES,
    THOUGHT_BYTES,
    Frame,
    frames,
    number,
    part,
    string,
    strings,
    to_line,
    token,
)
from bot.events import (
    AgentStarted,
    ApprovalAsked,
    Completed,
    Notice,
    Plan,
    PlanEntry,
    PlanStatus,
    Question,
    StopReason,
    Text,
    Thought,
    ToolCall,
    ToolKind,
    ToolStatus,
    Usage,
    Withdrawn,
)
from bot.models import Launch

MOST_ASKED = 20

KINDS = {kind.value: kind for kind in ToolKind}


class ScriptedCodec:
    """command: how the program is called in the sandbox. pace: how long it lets people wait; 0 in tests.
    visible: the program's directory, where the sandbox would hide it."""

    name = "scripted"
    capabilities = Capabilities(plan=True, approvals=True, questions=True, side_tools=True)

    def __init__(self, command: Sequence[str], *, pace: float = 1.0, visible: Sequence[str] = ()) -> None:
        self._command = tuple(command)
        self._pace = pace
        self._visible = tuple(visible)

    def launch(self, task: Task) -> Launch:
        session = task.resume_token or task.session_uuid
        argv = [*self._command, *(["--session", session] if session else [])]
        if task.resume_token:
            argv.append("--resume")
        env = {
            "SCRIPTED_AGENT_PACE": f"{self._pace:g}",
            "SCRIPTED_AGENT_PERMISSIONS": task.permissions,
            "PYTHONUNBUFFERED": "1",
        }
        if task.side_tools:
            env["SCRIPTED_AGENT_TOOLS"] = task.side_tools
        return Launch(tuple(argv), task.cwd, env, visible=(*task.visible, *self._visible))

    def begin(self, task: Task) -> Step:
        state = {"first": task.prompt.key, "open": {}, "answerable": task.answerable}
        return _say(state, task.prompt)

    def on(self, state: State, happening: Happening) -> Step:
        match happening:
            case Lines(lines=lines):
                out, now = StepBuilder(), dict(state)
                for line in lines:
                    now = _read(now, line, out)
                return out.step(now)
            case Steer(prompt=prompt):
                return _say(state, prompt)
            case Interrupt():
                return Step({**state, "over": False}, write=to_line({"type": "interrupt"}))
            case Decided(id=id, allowed=allowed, reason=reason):
                return _reply(state, id, {"allowed": allowed, "text": reason})
            case Answered(id=id, text=text, reason=reason):
                return _reply(state, id, {"text": text, "reason": reason})
            case Exited():
                return Step(state)


def _say(state: State, prompt: Prompt) -> Step:
    prompts = {**part(state, "open"), prompt.key: list(prompt.inputs)}
    write = to_line({"type": "prompt", "key": prompt.key, "text": prompt.text})
    return Step({**state, "open": prompts, "over": False}, write=write, written=prompt.inputs)


def _reply(state: State, id: str, told: Frame) -> Step:
    asked = strings(state, "asked")
    if id not in asked:  # it waits for no such answer
        return Step(state)
    rest = [one for one in asked if one != id]
    return Step({**state, "asked": rest}, write=to_line({"type": "reply", "id": id, **told}))


def _asks(state: dict[str, object], id: str, by_nobody: Frame, out: StepBuilder) -> dict[str, object]:
    """People are asked, or it is answered at once where they cannot be."""
    if state.get("answerable") is not True:
        out.send({"type": "reply", "id": id, **by_nobody})
        return state
    return {**state, "asked": [*strings(state, "asked"), id][-MOST_ASKED:]}


def _read(state: dict[str, object], line: bytes, out: StepBuilder) -> dict[str, object]:
    """state: `open` are prompts that the agent has not taken (key → inputs), `result` is its word that
    it is done, kept while one is open; `over` when `completed` was said."""
    told = out.read(line)
    if told is None:
        return state
    match string(told, "type"):
        case "ready":
            out.resume_token = token(told, "session")
            out.events.append(AgentStarted("scripted", out.resume_token, token(told, "version")))
        case "consumed":
            return _settled(state, told, out, taken=True)
        case "dropped":
            return _settled(state, told, out, taken=False)
        case "text":
            out.events.append(Text(out.clean(string(told, "text"), TEXT_BYTES)))
        case "thought":
            out.events.append(Thought(out.clean(string(told, "text"), THOUGHT_BYTES)))
        case "error":
            out.events.append(Notice(out.clean(string(told, "text"), RESULT_BYTES)))
        case "plan":
            out.events.append(Plan(tuple(_entry(entry, out) for entry in frames(told, "entries"))))
        case "tool" if token(told, "id"):
            out.events.append(_tool(told, out))
        case "question" if token(told, "id"):
            options = tuple(out.clean(one, SUBJECT_CHARS) for one in strings(told, "options"))
            text = out.clean(string(told, "text"), RESULT_BYTES)
            waits = state.get("answerable") is True
            out.events.append(Question(token(told, "id"), text, options, open=waits))
            return _asks(state, token(told, "id"), {"text": "", "reason": NOBODY}, out)
        case "approval" if token(told, "id"):
            title = out.clean(string(told, "title"), SUBJECT_CHARS * 4)
            kind = KINDS.get(string(told, "kind"), ToolKind.OTHER)
            if state.get("answerable") is True:
                detail = out.exact(string(told, "detail"))
                out.events.append(ApprovalAsked(token(told, "id"), title, detail, kind))
            else:
                out.notice(f"Not allowed, as nobody can be asked: {title}")
            return _asks(state, token(told, "id"), {"allowed": False, "text": NOBODY_MAY}, out)
        case "withdrawn":
            out.events.append(Withdrawn(token(told, "id")))
            rest = [one for one in strings(state, "asked") if one != token(told, "id")]
            return {**state, "asked": rest}
        case "usage":
            # One row per process would be enough, were it not for turns: each reports its own.
            count = number(state, "reports") + 1
            key = f"{string(state, 'first')}:{count}"
            out.events.append(Usage(key, number(told, "given"), number(told, "made")))
            return {**state, "reports": count}
        case "done":
            result = {name: out.clean(string(told, name), TEXT_BYTES) for name in ("reason", "text", "error")}
            return _complete_if_over({**state, "result": result}, out)
        case other:
            out.unknown(token(told, "type") if other else "no type", line)
    return state


def _settled(state: dict[str, object], told: Frame, out: StepBuilder, *, taken: bool) -> dict[str, object]:
    prompts = dict(part(state, "open"))
    inputs = prompts.pop(string(told, "key"), None)
    ids = [item for item in inputs if isinstance(item, int)] if isinstance(inputs, list) else []
    if taken:
        out.consume(ids)
        # What it said before it took this one was not its last word.
        return {**state, "open": prompts, "result": NOTHING}
    out.deferred += ids
    return _complete_if_over({**state, "open": prompts}, out)


def _complete_if_over(state: dict[str, object], out: StepBuilder) -> dict[str, object]:
    """The turn is over when the agent said so and has taken everything that we wrote."""
    result = part(state, "result")
    if not result or part(state, "open") or state.get("over") is True:
        return state
    known = {reason.value: reason for reason in StopReason}
    reason = known.get(string(result, "reason"), StopReason.ERROR)
    out.complete(Completed(reason, string(result, "text"), string(result, "error")))
    return {**state, "result": NOTHING, "over": True}


def _tool(told: Frame, out: StepBuilder) -> ToolCall:
    states = {status.value: status for status in ToolStatus}
    return ToolCall(
        token(told, "id"),
        KINDS.get(string(told, "kind"), ToolKind.OTHER),
        out.clean(string(told, "title"), SUBJECT_CHARS * 4),
        states.get(string(told, "status"), ToolStatus.IN_PROGRESS),
        out.clean(string(told, "subject"), SUBJECT_CHARS * 4),
        out.clean(string(told, "result"), RESULT_BYTES),
    )


def _entry(entry: Frame, out: StepBuilder) -> PlanEntry:
    states = {status.value: status for status in PlanStatus}
    text = out.clean(string(entry, "text"), SUBJECT_CHARS * 4)
    return PlanEntry(text, states.get(string(entry, "status"), PlanStatus.PENDING))
