"""What an agent did, in our words. A timeline is folded from these, and they are stored as they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class ToolKind(StrEnum):
    """What a tool call does to the world; ACP's kinds."""

    READ = "read"
    EDIT = "edit"
    DELETE = "delete"
    MOVE = "move"
    SEARCH = "search"
    EXECUTE = "execute"
    THINK = "think"
    FETCH = "fetch"
    OTHER = "other"


class ToolStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


class PlanStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


class Cause(StrEnum):
    """Why an agent could not do it, where that tells what to do about it."""

    UNKNOWN = ""
    LOGIN = "login"  # its credential is missing, wrong or has expired
    LIMIT = "limit"  # its account may not spend more for now
    MODEL = "model"  # the model's API failed or refused
    NO_MODEL = "no_model"  # the model that was asked for is none of that API's
    RESUME = "resume"  # the conversation that it was to continue is not there


class StopReason(StrEnum):
    END = "end"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The agent's own session exists; `resume_token` continues it in a new process."""

    agent: str
    resume_token: str
    version: str = ""
    model: str = ""
    type: Literal["agent_started"] = "agent_started"


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    type: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class Thought:
    text: str
    type: Literal["thought"] = "thought"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call's newest state; the same `id` again replaces what was known of it.

    `title` is what people read ("Ran pytest -q"); `subject` the file or command; `result` a line or
    a few of what came out. `parent` is the id of the call (a sub-agent) that made this one.
    Empty strings mean "as before".
    """

    id: str
    kind: ToolKind
    title: str
    status: ToolStatus
    subject: str = ""
    result: str = ""
    parent: str = ""
    type: Literal["tool_call"] = "tool_call"


@dataclass(frozen=True, slots=True)
class PlanEntry:
    text: str
    status: PlanStatus


@dataclass(frozen=True, slots=True)
class Plan:
    entries: tuple[PlanEntry, ...]
    type: Literal["plan"] = "plan"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and money. The newest row of the same `key` counts (agents repeat themselves)."""

    key: str
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    micro_usd: int | None = None
    type: Literal["usage"] = "usage"


@dataclass(frozen=True, slots=True)
class Consumed:
    """The agent has taken these inputs into its conversation."""

    inputs: tuple[int, ...]
    type: Literal["consumed"] = "consumed"


@dataclass(frozen=True, slots=True)
class Question:
    """The agent asks people, and waits unless the codec has answered by itself (`open` is false)."""

    id: str
    text: str
    options: tuple[str, ...] = ()
    open: bool = False
    type: Literal["question"] = "question"


@dataclass(frozen=True, slots=True)
class ApprovalAsked:
    """The agent asks whether it may. `title` says what in words, `detail` is exactly what it would do (the
    whole command, the path), which is what people approve."""

    id: str
    title: str
    detail: str = ""
    kind: ToolKind = ToolKind.OTHER
    type: Literal["approval_asked"] = "approval_asked"


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The agent does not wait for the answer to this question or approval any more."""

    id: str
    type: Literal["withdrawn"] = "withdrawn"


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of a question or approval: `text` says it in words ("Ann approved")."""

    id: str
    text: str
    allowed: bool = True
    type: Literal["settled"] = "settled"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something people should see that is neither the agent's words nor a tool."""

    text: str
    type: Literal["notice"] = "notice"


@dataclass(frozen=True, slots=True)
class Completed:
    """The agent says that it is done. `text` is its last answer; `error` what went wrong."""

    reason: StopReason
    text: str = ""
    error: str = ""
    cause: Cause = Cause.UNKNOWN
    type: Literal["completed"] = "completed"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A frame that the codec does not know (`name`), kept so that nothing is dropped silently."""

    name: str
    raw: str
    type: Literal["unknown"] = "unknown"


# What an agent does with side tools of ours.


@dataclass(frozen=True, slots=True)
class Named:
    """What the work is called, and how it is to be described when it is published ("": as the agent's last
    words do)."""

    title: str
    description: str = ""
    type: Literal["named"] = "named"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the agent is, in a line of its own for people."""

    text: str
    type: Literal["progress"] = "progress"


@dataclass(frozen=True, slots=True)
class FileOffered:
    """A file for people in the thread: a copy at `path` in the sandbox's home, of `size` bytes. The agent
    waits for what becomes of it (Shared)."""

    id: str
    path: str
    name: str
    title: str = ""
    size: int = 0
    type: Literal["file_offered"] = "file_offered"


@dataclass(frozen=True, slots=True)
class PortOffered:
    """A server for people to look at, on this TCP port of the box's loopback; `path` is a unix socket in the
    sandbox's home that leads to it. The agent waits for what becomes of it (Shared)."""

    id: str
    port: int
    path: str
    title: str = ""
    type: Literal["port_offered"] = "port_offered"


@dataclass(frozen=True, slots=True)
class Shared:
    """What became of a FileOffered or PortOffered, in words for people. done: they have it now."""

    id: str
    text: str
    done: bool = True
    type: Literal["shared"] = "shared"


# What the bot itself adds to a turn's story.


@dataclass(frozen=True, slots=True)
class Phase:
    """A step of ours: `name` is stable (sandbox, code, agent, commit, publish), `text` is for people."""

    name: str
    text: str
    type: Literal["phase"] = "phase"


@dataclass(frozen=True, slots=True)
class Steered:
    """A person's words went into the running turn."""

    by: str
    text: str
    type: Literal["steered"] = "steered"


@dataclass(frozen=True, slots=True)
class LeftOver:
    """Changes that the agent left uncommitted, about to be committed by the bot. notes: what else it
    left, and what the bot is about to do with that."""

    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    type: Literal["left_over"] = "left_over"


@dataclass(frozen=True, slots=True)
class BrokenOff:
    """The turn has failed, and why: kept before its ending begins, for a bot that restarts in it."""

    what: str
    mend: str = ""
    type: Literal["broken_off"] = "broken_off"


Event = (
    AgentStarted
    | Text
    | Thought
    | ToolCall
    | Plan
    | Usage
    | Consumed
    | Question
    | ApprovalAsked
    | Withdrawn
    | Settled
    | Notice
    | Completed
    | Unknown
    | Named
    | Progress
    | FileOffered
    | PortOffered
    | Shared
    | Phase
    | Steered
    | LeftOver
    | BrokenOff
)
