"""What the Claude codec must remember between two lines. Small, and JSON in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from bot.agents.codec import Permissions
from bot.agents.wire import (
    Frame,
    each,
    frame_of,
    frames,
    items,
    number,
    part,
    string,
)
from bot.events import Cause, PlanEntry, PlanStatus, StopReason

MOST_TASKS = 60


@dataclass(slots=True)
class Written:
    """A prompt of ours that is not settled yet. started: Claude has taken it."""

    inputs: list[int]
    started: bool = False


@dataclass(slots=True)
class Running:
    """A tool call without a result yet. done: its title once it has one. about: what it is about."""

    name: str
    done: str
    about: str = ""

    def not_run(self) -> None:
        self.done = f"Not run: {self.about or self.name}"


@dataclass(slots=True)
class ToDo:
    """A task of Claude's own list."""

    text: str
    status: str


@dataclass(slots=True)
class Result:
    """What Claude said at the end of its last round."""

    reason: StopReason
    text: str
    error: str
    cause: Cause = Cause.UNKNOWN


@dataclass(slots=True)
class Asked:
    """A request of Claude's that waits for people: `plan` and other tools for a yes, `questions` (as
    Claude put them) one after the other for words. call: the tool call that it is about."""

    call: str = ""
    plan: bool = False
    questions: list[Frame] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tokens:
    given: int = 0
    made: int = 0
    cached: int = 0

    @classmethod
    def of(cls, state: Frame) -> Tokens:
        return cls(number(state, "given"), number(state, "made"), number(state, "cached"))


@dataclass(slots=True)
class Call:
    """The model call that was counted last in one conversation."""

    id: str
    tokens: Tokens


@dataclass(slots=True)
class State:
    """first: the UUID of the process's first prompt. session: Claude's id of the conversation, and
    resumable: the driver was given it. open: our prompts by their UUID. calls: by
    conversation ("" is the main one). rounds: results so far. requests: control requests of ours.
    stopping: "" · asked · answered. over: `completed` was said, and nothing was written since.
    asked: what waits for people, by Claude's id of the request. free: a plan was approved, so nothing is
    asked any more. failing: Claude's word for the failure that it spoke of last. refused: the credential
    was, and Claude is being stopped for it. helpers: sub-agents that it waits for, by its id of the
    task. giving_way: they were stopped for a message."""

    cwd: str = ""
    first: str = ""
    session: str = ""
    resumable: bool = False
    open: dict[str, Written] = field(default_factory=dict)
    tools: dict[str, Running] = field(default_factory=dict)
    tasks: dict[str, ToDo] = field(default_factory=dict)
    result: Result | None = None
    tokens: Tokens = field(default_factory=Tokens)
    calls: dict[str, Call] = field(default_factory=dict)
    rounds: int = 0
    requests: int = 0
    stopping: str = ""
    over: bool = False
    permissions: Permissions = Permissions.AUTO
    answerable: bool = False
    asked: dict[str, Asked] = field(default_factory=dict)
    free: bool = False
    failing: str = ""
    refused: str = ""
    helpers: list[str] = field(default_factory=list)
    giving_way: bool = False

    def to_json(self) -> Mapping[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, state: Frame) -> State:
        result = frame_of(state.get("result"))
        return cls(
            cwd=string(state, "cwd"),
            first=string(state, "first"),
            session=string(state, "session"),
            resumable=state.get("resumable") is True,
            open={
                uuid: Written(_inputs(item.get("inputs")), item.get("started") is True)
                for uuid, item in each(state, "open")
            },
            tools={
                id: Running(string(item, "name"), string(item, "done"), string(item, "about"))
                for id, item in each(state, "tools")
            },
            tasks={
                id: ToDo(string(item, "text"), string(item, "status")) for id, item in each(state, "tasks")
            },
            result=Result(
                StopReason(string(result, "reason")),
                string(result, "text"),
                string(result, "error"),
                Cause(string(result, "cause")),
            )
            if result
            else None,
            tokens=Tokens.of(part(state, "tokens")),
            calls={
                conversation: Call(string(item, "id"), Tokens.of(part(item, "tokens")))
                for conversation, item in each(state, "calls")
            },
            rounds=number(state, "rounds"),
            requests=number(state, "requests"),
            stopping=string(state, "stopping"),
            over=state.get("over") is True,
            permissions=Permissions(string(state, "permissions") or Permissions.AUTO),
            answerable=state.get("answerable") is True,
            asked={
                id: Asked(
                    string(item, "call"),
                    item.get("plan") is True,
                    list(frames(item, "questions")),
                    [answer for answer in items(item, "answers") if isinstance(answer, str)],
                )
                for id, item in each(state, "asked")
            },
            free=state.get("free") is True,
            failing=string(state, "failing"),
            refused=string(state, "refused"),
            helpers=[id for id in items(state, "helpers") if isinstance(id, str)],
            giving_way=state.get("giving_way") is True,
        )

    def plan(self) -> tuple[PlanEntry, ...]:
        known = {status.value: status for status in PlanStatus}
        return tuple(
            PlanEntry(task.text, known.get(task.status, PlanStatus.PENDING)) for task in self.tasks.values()
        )

    def set_task(self, id: str, text: str, status: str) -> None:
        """Add or change a task; one that Claude deleted goes. A change of an unknown one without a
        text (it is of an earlier process) is not worth a line."""
        old = self.tasks.get(id, ToDo("", PlanStatus.PENDING.value))
        if status == "deleted":
            self.tasks.pop(id, None)
        elif (text or old.text) and (id in self.tasks or len(self.tasks) < MOST_TASKS):
            self.tasks[id] = ToDo(text or old.text, status or old.status)

    def count(self, conversation: str, call: str, usage: Frame) -> bool:
        """Count a model call of this round. Claude reports each one several times, with numbers that
        only grow. True: the sum has changed."""
        last = self.calls.get(conversation)
        before = last.tokens if last and last.id == call else Tokens()
        after = Tokens(
            max(before.given, number(usage, "input_tokens") + number(usage, "cache_creation_input_tokens")),
            max(before.made, number(usage, "output_tokens")),
            max(before.cached, number(usage, "cache_read_input_tokens")),
        )
        self.calls[conversation] = Call(call, after)
        self.tokens.given += after.given - before.given
        self.tokens.made += after.made - before.made
        self.tokens.cached += after.cached - before.cached
        return after != before


def _inputs(value: object) -> list[int]:
    return [item for item in value if isinstance(item, int)] if isinstance(value, list | tuple) else []
