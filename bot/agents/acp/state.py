"""What the ACP codec must remember between two lines. Small, and JSON in and out.

Texts that are still being written are kept raw: a secret that came in two pieces is only found whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import TypeVar

from bot.agents.wire import (
    Frame,
    each,
    frames,
    numbers,
    part,
    string,
    strings,
)

T = TypeVar("T")

# Characters of a message that is being written. Its middle is left out beyond that: such a plan is longer
# than what people are asked to approve.
HEAD = 30_000
TAIL = 12_000
# Calls that have ended are remembered for a while: agents send updates of them late.
MOST_TOOLS = 30


@dataclass(slots=True)
class Words:
    """Words of ours for the agent, with the inputs that are in them."""

    key: str
    text: str
    inputs: list[int] = field(default_factory=list)
    images: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Injected:
    """A steer given to the running prompt. request: until it is acknowledged. message: the one that the
    model was writing then. tool_ended: a tool has ended since it was acknowledged."""

    words: Words
    request: str
    message: str = ""
    tool_ended: bool = False


@dataclass(slots=True)
class Offer:
    """What the agent lets its clients choose. via: the id of a config option, or "" for the method."""

    via: str
    current: str
    values: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tool:
    """A tool call as far as it is known. exact: all that it would do, for people to approve, while it has
    not ended. told: a sum over what was said of it last, which is not said again."""

    kind: str = ""
    name: str = ""
    title: str = ""
    command: str = ""
    exact: str = ""
    path: str = ""
    status: str = ""
    parent: str = ""
    result: str = ""
    outcome: str = ""
    code: int = 0
    known: bool = False  # its input is there
    plan: bool = False  # its input is the plan
    question: bool = False  # it asks people
    refused: bool = False  # people did not allow it
    told: int = 0


@dataclass(slots=True)
class Written:
    """A message as it comes in, piece by piece. told: it is an event already."""

    message: str = ""
    head: str = ""
    tail: str = ""
    left_out: int = 0
    told: bool = False

    def add(self, piece: str) -> None:
        if not self.tail and len(self.head) + len(piece) <= HEAD:
            self.head += piece
            return
        tail = self.tail + piece
        self.left_out += max(len(tail) - TAIL, 0)
        self.tail = tail[-TAIL:]

    @property
    def text(self) -> str:
        between = f"\n… {self.left_out} characters left out …\n" if self.left_out else ""
        return self.head + between + self.tail


@dataclass(slots=True)
class Ask:
    """A request of the agent that waits for a person. rpc: its id in JSON, with which it is answered; "":
    the codec itself asks, whether to go on with a plan.
    yes, no: options to choose. tool: the call it is about. plan: a yes lets the agent work as planned.
    form: the fields that are still to be asked for; content: what was answered so far."""

    rpc: str
    yes: str = ""
    no: str = ""
    title: str = ""
    tool: str = ""
    plan: bool = False
    form: list[Frame] = field(default_factory=list)
    content: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class State:
    """stage: hello · login · session · setup · ready · failed. steers: the agent said that it can be
    steered. calls: requests of ours without an answer, and what they are for. choosing: what is still to
    be chosen in the setup. prompt: the request of the running prompt, "" when there is none. stopping: a
    person stopped it; planning: the agent is in its mode for that; message: the newest one of the model;
    cancelling: the running prompt was cancelled. refused: what people did not allow,
    and the model may not have seen; retold: how often it was prompted again for that alone."""

    cwd: str = ""
    first: str = ""
    resume: str = ""
    model: str = ""
    effort: str = ""
    permissions: str = ""
    answerable: bool = False
    side_tools: str = ""
    stage: str = "hello"
    title: str = ""
    version: str = ""
    session: str = ""
    resumable: bool = False
    steers: bool = False
    plans_by_words: bool = False
    planning: bool = False
    message: str = ""
    calls: dict[str, str] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    choosing: list[str] = field(default_factory=list)
    waiting: list[Words] = field(default_factory=list)
    running: list[Words] = field(default_factory=list)
    injected: list[Injected] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    prompt: str = ""
    stopping: bool = False
    cancelling: bool = False
    retold: int = 0
    failure: str = ""
    cause: str = ""
    asks: dict[str, Ask] = field(default_factory=dict)
    tools: dict[str, Tool] = field(default_factory=dict)
    plan: list[str] = field(default_factory=list)
    speech: Written = field(default_factory=Written)
    thought: Written = field(default_factory=Written)
    requests: int = 0
    asked: int = 0
    rounds: int = 0
    cost: int = -1  # of the whole session in millionths of a dollar, as the agent last said; -1: not yet
    cost_before: int = -1  # the same at the start of this round; -1: nobody knows

    def to_json(self) -> Mapping[str, object]:
        """Only what is not as at the start."""
        known = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: _slim(value) for name, value in known.items() if value != getattr(_START, name)}

    @classmethod
    def from_json(cls, state: Frame) -> State:
        known = cls(
            offers={
                name: Offer(string(o, "via"), string(o, "current"), strings(o, "values"))
                for name, o in each(state, "offers")
            },
            waiting=[_words(item) for item in frames(state, "waiting")],
            running=[_words(item) for item in frames(state, "running")],
            injected=[
                Injected(
                    _words(part(item, "words")),
                    string(item, "request"),
                    string(item, "message"),
                    item.get("tool_ended") is True,
                )
                for item in frames(state, "injected")
            ],
            asks={id: _ask(item) for id, item in each(state, "asks")},
            tools={id: _filled(Tool(), item) for id, item in each(state, "tools")},
            speech=_filled(Written(), part(state, "speech")),
            thought=_filled(Written(), part(state, "thought")),
            calls={id: string(part(state, "calls"), id) for id in part(state, "calls")},
            choosing=strings(state, "choosing"),
            refused=strings(state, "refused"),
            plan=strings(state, "plan"),
        )
        return _filled(known, state)

    def ended(self, id: str) -> None:
        """Of a call that has ended little is needed."""
        tool = self.tools[id]
        self.tools[id] = Tool(status=tool.status, parent=tool.parent)

    def keep_tool(self, id: str) -> Tool:
        """The call of this id, new or known; the oldest ones go."""
        if id not in self.tools:
            while len(self.tools) >= MOST_TOOLS:
                ended = (old for old, tool in self.tools.items() if tool.status in ENDED)
                del self.tools[next(ended, next(iter(self.tools)))]
            self.tools[id] = Tool()
        return self.tools[id]


ENDED = ("completed", "failed")


_START = State()


def _slim(value: object) -> object:
    """As JSON, without the fields that are as they are at the start: that is empty."""
    if isinstance(value, list):
        return [_slim(item) for item in value]
    if isinstance(value, dict):
        return {key: _slim(item) for key, item in value.items()}
    if is_dataclass(value):
        fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
        return {name: _slim(item) for name, item in fields.items() if item or name == "rpc"}
    return value


def _filled(known: T, state: Frame) -> T:
    """Its texts, numbers and flags, from the JSON of them."""
    for name in known.__dataclass_fields__:  # type: ignore[attr-defined]
        value = state.get(name)
        if type(value) is type(getattr(known, name)) and isinstance(value, str | int | bool):
            setattr(known, name, value)
    return known


def _words(item: Frame) -> Words:
    return Words(string(item, "key"), string(item, "text"), numbers(item, "inputs"), strings(item, "images"))


def _ask(item: Frame) -> Ask:
    ask = _filled(Ask(""), item)
    ask.form, ask.content = list(frames(item, "form")), dict(part(item, "content"))
    return ask
