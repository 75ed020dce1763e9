"""What the OpenCode codec must remember between two lines. Small, and JSON in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from bot.agents.codec import Permissions
from bot.agents.wire import (
    Frame,
    frame_of,
    items,
    number,
    part,
    string,
    strings,
)
from bot.events import Cause


@dataclass(slots=True)
class Said:
    """A prompt of ours that the model has not been given yet. message: OpenCode's id of it, once it has
    one. during: a run was under way since, which may have ended without reading it. rounds: how often we
    looked in vain for such a message, or such a run. tries: how often it was lost."""

    text: str
    inputs: list[int]
    images: list[str] = field(default_factory=list)
    posted: bool = False
    message: str = ""
    during: bool = False
    rounds: int = 0
    tries: int = 0


@dataclass(slots=True)
class Running:
    """A tool call that has not ended. done: its title once it has. parent: whose sub-agent made it."""

    name: str
    done: str
    begun: bool = False
    parent: str = ""


@dataclass(slots=True)
class Failure:
    error: str
    cause: Cause


@dataclass(slots=True)
class State:
    """model: "provider/model". agent: which of OpenCode's agents the next prompt is for. session: OpenCode's
    id of the conversation. prompts: by our keys. run: "" · busy · failing · ending (it failed, and a prompt
    that is posted now would be lost). runs: how many began. checking: a look at unread prompts is due.
    parent: the newest message of a person's that the model was given. speaking: the newest answer, summing:
    it is the summary of a compaction. said: the newest part whose text was told. answer: the text of the
    newest answer. children: sessions of sub-agents, and the call that made each. working: those of them that
    work now. yielding: those that were stopped so that new words are read. allows: open requests for
    permission. questions: open ones, with the answers so far. askers: the sessions of requests of sub-agents.
    plan: the id of the plan that people are to
    approve. retrying: why the model call fails that is tried again now. gave_up: it was broken off for that.
    stopping: "" · asked · answered. over: `completed` was said, and nothing was written since.
    defines: we tell OpenCode of models that it does not know by itself."""

    first: str = ""
    cwd: str = ""
    model: str = ""
    effort: str = ""
    permissions: Permissions = Permissions.AUTO
    answerable: bool = False
    agent: str = "build"
    session: str = ""
    prompts: dict[str, Said] = field(default_factory=dict)
    run: str = ""
    runs: int = 0
    checking: bool = False
    parent: str = ""
    speaking: str = ""
    summing: bool = False
    said: str = ""
    answer: str = ""
    tools: dict[str, Running] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)
    working: list[str] = field(default_factory=list)
    yielding: list[str] = field(default_factory=list)
    allows: list[str] = field(default_factory=list)
    questions: dict[str, list[str | None]] = field(default_factory=dict)
    askers: dict[str, str] = field(default_factory=dict)
    plan: str = ""
    plans: int = 0
    retrying: Failure | None = None
    gave_up: bool = False
    failed: Failure | None = None
    requests: int = 0
    stopping: str = ""
    over: bool = False
    defines: bool = False

    def to_json(self) -> Mapping[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, state: Frame) -> State:
        return cls(
            first=string(state, "first"),
            cwd=string(state, "cwd"),
            model=string(state, "model"),
            effort=string(state, "effort"),
            permissions=Permissions(string(state, "permissions") or "auto"),
            answerable=state.get("answerable") is True,
            agent=string(state, "agent"),
            session=string(state, "session"),
            prompts={key: _said(frame_of(item)) for key, item in part(state, "prompts").items()},
            run=string(state, "run"),
            runs=number(state, "runs"),
            checking=state.get("checking") is True,
            parent=string(state, "parent"),
            speaking=string(state, "speaking"),
            summing=state.get("summing") is True,
            said=string(state, "said"),
            answer=string(state, "answer"),
            tools={key: _running(frame_of(item)) for key, item in part(state, "tools").items()},
            children={key: str(item) for key, item in part(state, "children").items()},
            working=strings(state, "working"),
            yielding=strings(state, "yielding"),
            allows=strings(state, "allows"),
            questions={
                key: [
                    item if isinstance(item, str) else None for item in items(part(state, "questions"), key)
                ]
                for key in part(state, "questions")
            },
            askers={key: str(item) for key, item in part(state, "askers").items()},
            plan=string(state, "plan"),
            plans=number(state, "plans"),
            retrying=_failure(part(state, "retrying")),
            gave_up=state.get("gave_up") is True,
            failed=_failure(part(state, "failed")),
            requests=number(state, "requests"),
            stopping=string(state, "stopping"),
            over=state.get("over") is True,
            defines=state.get("defines") is True,
        )

    def knows(self, session: str) -> bool:
        return bool(session) and (session == self.session or session in self.children)


def _said(item: Frame) -> Said:
    return Said(
        text=string(item, "text"),
        inputs=[id for id in items(item, "inputs") if isinstance(id, int)],
        images=strings(item, "images"),
        posted=item.get("posted") is True,
        message=string(item, "message"),
        during=item.get("during") is True,
        rounds=number(item, "rounds"),
        tries=number(item, "tries"),
    )


def _running(item: Frame) -> Running:
    begun = item.get("begun") is True
    return Running(string(item, "name"), string(item, "done"), begun, string(item, "parent"))


def _failure(item: Frame) -> Failure | None:
    return Failure(string(item, "error"), Cause(string(item, "cause"))) if item else None
