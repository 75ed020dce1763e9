"""What the scripted model says, whatever the API that an agent asks it through.

A prompt names its script with `[[script:NAME]]`; the newest such mark counts. Where the script goes on
is read from the tool-call ids that the agent sends back, so the server keeps nothing of it between requests:
a resumed or restarted agent meets the same model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from handlers.playground.holds import Hold

MARK = re.compile(r"\[\[script:([\w-]+)\]\]")
TOOL_ID = re.compile(r"toolu_([\w-]+?)_(\d+)_[0-9a-f]+")
TOKENS_IN, TOKENS_CACHED, TOKENS_OUT = 1000, 200, 50

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """A tool's argument that a model would take from what it was told: the first match of a pattern."""

    pattern: str

    def of(self, conversation: object) -> str:
        found = re.search(self.pattern, json.dumps(conversation))
        return found[0] if found else ""


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    input: Mapping[str, Any]

    def given(self, conversation: object) -> Body:
        return {
            name: value.of(conversation) if isinstance(value, Seen) else value
            for name, value in self.input.items()
        }


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model. Without tools it is the last one of its script.

    pause: seconds before each piece of text, for a model that takes its time. hold: it stops there, after
    its first piece.
    """

    text: str
    tools: tuple[Tool, ...] = ()
    thinking: str = ""
    pause: float = 0.0
    hold: Hold | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The API's own error. times: after so many it goes on with what the script has next; None: never.
    retry_after: when it says that it may be asked again, in seconds."""

    status: int
    message: str
    type: str = "invalid_request_error"
    times: int | None = None
    retry_after: int | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


Script = Sequence[Reply | Refusal]

NO_SCRIPT = Reply("I have no script for this.")


@dataclass(slots=True)
class Position:
    """Follows a conversation: the script that the newest mark names, and how many replies it gave."""

    name: str = ""
    step: int = 0

    def words(self, text: str) -> None:
        if marks := MARK.findall(text):
            self.name, self.step = marks[-1], 0

    def called(self, id: object) -> None:
        told = TOOL_ID.fullmatch(str(id))
        if told and told[1] == self.name:
            self.step = int(told[2]) + 1


@dataclass(slots=True)
class Scripts:
    """The scripts of a server, by their names. Of conversations it knows nothing; what it counts is how
    often it refused, where that passes."""

    given: Mapping[str, Script]
    refused: Counter[tuple[str, int]] = field(default_factory=Counter)

    def reply(self, position: Position) -> Reply | Refusal:
        script = self.given.get(position.name, [NO_SCRIPT])
        for step in range(min(position.step, len(script) - 1), len(script)):
            reply = script[step]
            if not isinstance(reply, Refusal) or reply.times is None:
                break
            self.refused[position.name, step] += 1
            if self.refused[position.name, step] <= reply.times:
                break
        position.step = max(position.step, step)
        return reply


@dataclass(slots=True)
class Turn:
    """One reply on its way out: ids that the same request gives again."""

    position: Position
    conversation: object
    nonce: str = field(init=False)

    def __post_init__(self) -> None:
        said = json.dumps([self.conversation, self.position.name, self.position.step])
        self.nonce = hashlib.sha256(said.encode()).hexdigest()[:10]

    def tool_id(self, index: int) -> str:
        return f"toolu_{self.position.name}_{self.position.step}_{self.nonce}{index:02x}"


def pieces(text: str) -> list[str]:
    """A text as a model streams it."""
    return [text[at : at + 24] for at in range(0, len(text), 24)]
