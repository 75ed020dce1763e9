"""The codec: a sans-I/O translator between an agent's wire protocol and our events.

A codec gets whole lines of the agent's stdout and says which events they mean and which bytes to
write back. It keeps nothing between calls: its state is a JSON object that the driver stores, so
that a restarted bot goes on where the last recorded step ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from bot.events import Completed, Event
from bot.models import Launch, Offered

State = Mapping[str, object]

BEGINNING = 1_500  # bytes that are kept of a line that is too long


class Steering(StrEnum):
    """What becomes of a message during a turn."""

    NATIVE = "native"  # the running turn takes it
    INTERRUPT = "interrupt"  # the agent is stopped, and goes on with it in the same turn
    QUEUE = "queue"  # the next turn gets it


class Permissions(StrEnum):
    """What an agent does without asking."""

    AUTO = "auto"  # everything: the sandbox is the boundary
    ASK = "ask"  # people are asked before it changes or runs something
    PLAN = "plan"  # it lays out a plan, and people are asked before it changes anything


# From little care to much. After one yes to its plan an agent works without asking, so PLAN is less than ASK,
# where nothing is changed that people did not allow one by one.
CARE = (Permissions.AUTO, Permissions.PLAN, Permissions.ASK)


def more_careful(one: Permissions, other: Permissions) -> Permissions:
    return max(one, other, key=CARE.index)


class Listing(StrEnum):
    """What an agent's own list of models means for a name that is not on it."""

    NONE = "none"  # it lists none that we could read
    SOME = "some"  # it may have it all the same: people are told, and it is tried
    ALL = "all"  # there is no such model: it is refused


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an agent can do. Where it can't, the product degrades in a stated way.

    resume: its conversation goes on in a new process. images: it is shown pictures; else it is told their
    paths, and may open them. approvals: it asks before it acts, where it is told to. questions: it can
    put one to people and wait. side_tools: it can be given tools of ours (bot/agents/side_tools.py).
    sub_agents: it tells what its sub-agents do, and hands on what they ask for; else it is started without.
    efforts: how hard it can be told to think, from little to much. models: the only names that it may be
    asked for, by its settings; none: what it lists counts, as `listing` says. aliases: its own words for
    models, where it is known that a name without a digit is one of these or none. version: the one that
    it is pinned to. credential: where an operator has set its key or login, in words. varies: this is said of
    more than one agent, so each thing holds where the one that is used has it.
    """

    steering: Steering = Steering.NATIVE
    resume: bool = True
    images: bool = False
    plan: bool = False
    cost: bool = False
    approvals: bool = False
    questions: bool = False
    side_tools: bool = False
    sub_agents: bool = True
    efforts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    listing: Listing = Listing.NONE
    aliases: tuple[str, ...] = ()
    version: str = ""
    credential: str = ""
    varies: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """Words for the agent. `key` is a UUID of ours that the agent's receipt names; `inputs` are the
    rows that are in it (none when the bot itself asks something). images: paths in the sandbox."""

    key: str
    text: str
    inputs: tuple[int, ...] = ()
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is started for. `resume_token` continues the agent's own session. effort: how hard
    to think, in the agent's own words; "" leaves it to the agent. answerable: people can be asked inside
    the turn; else a question or a request for approval is answered by the codec at once. command: how the
    program is called in this sandbox; () = as the codec calls it. side_tools: the path in the box of an MCP
    server on stdio that the agent is to have, "": none. shared: the session's directory in the box for what
    the agent offers people; "": nothing can be offered."""

    prompt: Prompt
    cwd: str
    home: str
    model: str = ""
    resume_token: str = ""
    session_uuid: str = ""  # for agents that let us name a new session
    visible: tuple[str, ...] = ()
    effort: str = ""
    permissions: Permissions = Permissions.AUTO
    answerable: bool = False
    command: tuple[str, ...] = ()
    side_tools: str = ""
    shared: str = ""


# What happens to a codec


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines of stdout, without their newline."""

    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Steer:
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Stop what the agent is doing, now."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The answer to ApprovalAsked `id`. reason: told to the agent when it may not."""

    id: str
    allowed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to Question `id`, an option or other words; or what became of FileOffered or PortOffered
    `id`. "": nobody answered, or nothing came of it; `reason` says why."""

    id: str
    text: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Exited:
    """The process ended. `tail` is the end of its stderr and of what could not be parsed."""

    code: int | None
    tail: str


Happening = Lines | Steer | Interrupt | Decided | Answered | Exited


@dataclass(frozen=True, slots=True)
class Step:
    """What a happening means: new state, events, bytes for stdin, and the fates of inputs.

    written: inputs whose words the codec has from here on, in `write` or in its state. consumed: inputs that
    the agent says it has taken.
    deferred: inputs that this agent cannot take now; the next turn gets them.
    completed: the turn's work is over *and* every prompt that we wrote is settled. After it the
    driver may still write another prompt, or close stdin.
    offered: what the agent lists, told once by each process.
    """

    state: State
    events: tuple[Event, ...] = ()
    write: bytes = b""
    written: tuple[int, ...] = ()
    consumed: tuple[int, ...] = ()
    deferred: tuple[int, ...] = ()
    completed: Completed | None = None
    resume_token: str = ""
    offered: Offered | None = None


class Codec(Protocol):
    """One agent's protocol. Pure: the same state and happening give the same step."""

    name: str
    capabilities: Capabilities

    def launch(self, task: Task) -> Launch:
        """How to start the agent's process."""
        ...

    def begin(self, task: Task) -> Step:
        """The first bytes: handshake and first prompt."""
        ...

    def on(self, state: State, happening: Happening) -> Step: ...


@dataclass(slots=True)
class LineBuffer:
    """Cuts a byte stream into lines. `offset` is where a restarted reader goes on: after the last whole
    line, or in a line longer than `limit` bytes, of which only the beginning and the size are kept: as a
    line that is no JSON, which every codec tells as unknown."""

    offset: int = 0
    limit: int = 32 * 1024 * 1024
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0
    _beginning: bytes = b""
    _let_go: int = 0  # bytes of a line that is too long

    def feed(self, data: bytes) -> tuple[bytes, ...]:
        lines: list[bytes] = []
        *ended, rest = data.split(b"\n")
        for part in ended:
            self._keep(part)
            lines.append(self.rest())
            self.offset += self._size + 1
            self._parts, self._size, self._let_go = [], 0, 0
        self._keep(rest)
        return tuple(lines)

    def rest(self) -> bytes:
        """The unfinished last line, as it is when the stream has ended."""
        if self._let_go:
            return self._beginning + f" … (a line of {self._let_go} bytes)".encode()
        return b"".join(self._parts)

    def _keep(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self._size += len(part)
        if self._let_go or self._size > self.limit:
            beginning = self._beginning if self._let_go else b""
            self._beginning = b"".join([beginning, *self._parts])[:BEGINNING]
            self._let_go += self._size
            self.offset += self._size
            self._parts, self._size = [], 0
