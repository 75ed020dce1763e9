"""What the Codex codec must remember between two lines. Small, and JSON in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from bot.agents.codec import Permissions
from bot.agents.wire import (
    Frame,
    each,
    frame_of,
    frames,
    number,
    numbers,
    part,
    string,
    strings,
)
from bot.events import Cause, StopReason, ToolKind


@dataclass(slots=True)
class Words:
    """A prompt of ours that Codex has not taken yet. way: "" it waits to be sent · turn, steer: it was
    sent so · taken: Codex has accepted to steer with it · held: the running turn does not take it."""

    text: str
    inputs: list[int] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    way: str = ""


@dataclass(slots=True)
class Running:
    """An item that has begun. type, tool: Codex's names. thread: the conversation that it belongs to.
    verb, about, thing: of its title; the thing stands where nothing is known of what it is about.
    exactly: all of what it does, kept where people may be asked about it."""

    type: str
    tool: str
    thread: str
    kind: ToolKind
    verb: str
    about: str = ""
    thing: str = ""
    exactly: str = ""


@dataclass(slots=True)
class SubAgent:
    """call: the item that made it. turn: what it works at, "" when it is idle."""

    call: str
    turn: str = ""


@dataclass(slots=True)
class Asked:
    """A request of Codex that waits for people. request: its JSON-RPC id. way: command · file ·
    permissions · question · plan. questions: what is asked, one after the other, with the `answers` so
    far. given: what it asks for, to be granted as it is."""

    request: int | str
    way: str
    thread: str
    item: str = ""
    questions: list[Frame] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    given: Frame = field(default_factory=dict)


@dataclass(slots=True)
class Result:
    """How the last turn of Codex ended."""

    reason: StopReason
    text: str = ""
    error: str = ""
    cause: Cause = Cause.UNKNOWN


@dataclass(slots=True)
class Tokens:
    given: int = 0
    made: int = 0
    cached: int = 0

    @classmethod
    def of(cls, counted: Frame) -> Tokens:
        """In Codex's counts the cached ones are among those given."""
        given, cached = number(counted, "inputTokens"), number(counted, "cachedInputTokens")
        return cls(max(given - cached, 0), number(counted, "outputTokens"), min(cached, given))

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.given + other.given, self.made + other.made, self.cached + other.cached)

    def since(self, before: Tokens) -> Tokens:
        return Tokens(
            max(self.given - before.given, 0),
            max(self.made - before.made, 0),
            max(self.cached - before.cached, 0),
        )


@dataclass(slots=True)
class State:
    """first: the key of the process's first prompt. requests: ours that are not answered, with the key
    of the prompt in each. thread: Codex's id of the conversation, and resumable: the driver was given
    it. turn: the running turn of it, ended: the one before. closed: items that were ended with the turn
    before Codex said so. totals: what each conversation has spent, as Codex counts it. refused: why it
    is stopped though nobody wants it. stopping: people want it to stop; giving_way: it is stopped so that
    it takes new words. asked_back: Codex was told of what still runs; clearing: that is being ended.
    over: `completed` was said, and nothing was sent since."""

    cwd: str = ""
    first: str = ""
    permissions: Permissions = Permissions.AUTO
    answerable: bool = False
    effort: str = ""
    model: str = ""
    resumed: bool = False
    requests: dict[str, str] = field(default_factory=dict)
    count: int = 0
    thread: str = ""
    resumable: bool = False
    turn: str = ""
    ended: str = ""
    words: dict[str, Words] = field(default_factory=dict)
    tools: dict[str, Running] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    agents: dict[str, SubAgent] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)
    result: Result | None = None
    plan: str = ""
    free: bool = False
    tokens: Tokens = field(default_factory=Tokens)
    totals: dict[str, Tokens] = field(default_factory=dict)
    failures: int = 0
    refused: str = ""
    stopping: bool = False
    giving_way: bool = False
    asked_back: bool = False
    clearing: bool = False
    over: bool = False

    @property
    def planning(self) -> bool:
        return self.permissions is Permissions.PLAN and not self.free

    @property
    def asks(self) -> bool:
        """Are people asked before something is done?"""
        return self.permissions is not Permissions.AUTO and not self.free

    def waits_for(self, *ways: str) -> bool:
        """Is a request of ours of one of these kinds not answered yet?"""
        return any(id.partition("-")[0] in ways for id in self.requests)

    def to_json(self) -> Mapping[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, state: Frame) -> State:
        result = frame_of(state.get("result"))
        return cls(
            cwd=string(state, "cwd"),
            first=string(state, "first"),
            permissions=Permissions(string(state, "permissions") or "auto"),
            answerable=_true(state, "answerable"),
            effort=string(state, "effort"),
            model=string(state, "model"),
            resumed=_true(state, "resumed"),
            requests={id: string(part(state, "requests"), id) for id in part(state, "requests")},
            count=number(state, "count"),
            thread=string(state, "thread"),
            resumable=_true(state, "resumable"),
            turn=string(state, "turn"),
            ended=string(state, "ended"),
            words={key: _words(item) for key, item in each(state, "words")},
            tools={id: _running(item) for id, item in each(state, "tools")},
            closed=strings(state, "closed"),
            agents={
                id: SubAgent(string(item, "call"), string(item, "turn")) for id, item in each(state, "agents")
            },
            asked={id: _asked(item) for id, item in each(state, "asked")},
            result=_result(result) if result else None,
            plan=string(state, "plan"),
            free=_true(state, "free"),
            tokens=_tokens(part(state, "tokens")),
            totals={id: _tokens(item) for id, item in each(state, "totals")},
            failures=number(state, "failures"),
            refused=string(state, "refused"),
            stopping=_true(state, "stopping"),
            giving_way=_true(state, "giving_way"),
            asked_back=_true(state, "asked_back"),
            clearing=_true(state, "clearing"),
            over=_true(state, "over"),
        )


def _words(item: Frame) -> Words:
    return Words(string(item, "text"), numbers(item, "inputs"), strings(item, "images"), string(item, "way"))


def _running(item: Frame) -> Running:
    names = ("type", "tool", "thread")
    type, tool, thread = (string(item, name) for name in names)
    words = (string(item, name) for name in ("verb", "about", "thing", "exactly"))
    return Running(type, tool, thread, ToolKind(string(item, "kind")), *words)


def _asked(item: Frame) -> Asked:
    request = item.get("request")
    return Asked(
        request if isinstance(request, int | str) else "",
        string(item, "way"),
        string(item, "thread"),
        string(item, "item"),
        list(frames(item, "questions")),
        strings(item, "answers"),
        part(item, "given"),
    )


def _result(item: Frame) -> Result:
    return Result(
        StopReason(string(item, "reason")),
        string(item, "text"),
        string(item, "error"),
        Cause(string(item, "cause")),
    )


def _tokens(item: Frame) -> Tokens:
    return Tokens(number(item, "given"), number(item, "made"), number(item, "cached"))


def _true(state: Frame, name: str) -> bool:
    return state.get(name) is True
