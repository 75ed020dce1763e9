"""Gathering what one happening means: the part of a codec's step that all codecs share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bot.agents.codec import State, Step
from bot.agents.wire import (
    RAW_BYTES,
    RESULT_BYTES,
    SUBJECT_CHARS,
    Frame,
    clip,
    frame,
    one_line,
    plain,
    spelt_out,
    to_line,
)
from bot.events import Completed, Consumed, Event, Notice, Unknown
from bot.models import Offered, OfferedModel
from bot.redact import redact, redact_tokens

# More than any surface shows whole, so that what is cut here is refused for its length.
MOST_APPROVED = 60_000  # characters

# Enough for every limit of an event; more would only cost time in the search for secrets.
LONGEST = 256_000

# Of what an agent lists: models, efforts of each, and the length of a name.
MOST_MODELS, MOST_EFFORTS, LONGEST_NAME = 300, 20, 200


@dataclass(slots=True)
class StepBuilder:
    """All text that goes into events passes `clean`. known_secrets: what it hides whatever its form."""

    known_secrets: tuple[str, ...] = ()
    events: list[Event] = field(default_factory=list)
    write: list[bytes] = field(default_factory=list)
    consumed: list[int] = field(default_factory=list)
    deferred: list[int] = field(default_factory=list)
    completed: Completed | None = None
    resume_token: str = ""
    offered: Offered | None = None

    def step(self, state: State, written: tuple[int, ...] = ()) -> Step:
        return Step(
            state,
            tuple(self.events),
            b"".join(self.write),
            written=written,
            consumed=tuple(self.consumed),
            deferred=tuple(self.deferred),
            completed=self.completed,
            resume_token=self.resume_token,
            offered=self.offered,
        )

    def read(self, line: bytes) -> Frame | None:
        """The frame in a line of the agent's. A line without one is kept as unknown; None."""
        told = frame(line)
        if told is None and line.strip():
            self.unknown("not JSON", line)
        return told

    def send(self, message: Frame) -> None:
        self.write.append(to_line(message))

    def consume(self, inputs: Iterable[int]) -> None:
        if ids := tuple(inputs):
            self.consumed += ids
            self.events.append(Consumed(ids))

    def complete(self, completed: Completed) -> None:
        self.completed = completed
        self.events.append(completed)

    def notice(self, text: str) -> None:
        if clean := self.clean(text, RESULT_BYTES):
            self.events.append(Notice(clean))

    def unknown(self, name: str, raw: bytes) -> None:
        text = raw[:LONGEST].decode("utf-8", "replace")
        self.events.append(Unknown(self.clean(name, 80), self.clean(text, RAW_BYTES)))

    def offer(
        self, models: Iterable[tuple[str, Sequence[str] | None]], complete: tuple[str, ...] = ()
    ) -> None:
        """What the agent lists: names, each with its efforts (None: not told). A list that is too long to be
        kept is not complete."""
        kept: dict[str, OfferedModel] = {}
        for name, efforts in models:
            name = self.clean(name, LONGEST_NAME)
            words = None if efforts is None else tuple(self.clean(one, 80) for one in efforts[:MOST_EFFORTS])
            kept.setdefault(name, OfferedModel(name, words))
            if len(kept) == MOST_MODELS:
                complete = ()
                break
        if kept:
            self.offered = Offered(tuple(kept.values()), complete)

    def clean(self, text: str, limit: int) -> str:
        """Text that may be stored and shown: no secrets, no terminal codes, about `limit` bytes."""
        return clip(redact(plain(clip(text, LONGEST)), self.known_secrets), limit)

    def line(self, text: str) -> str:
        """The same on one line, as long as a subject may be."""
        return one_line(self.clean(text, SUBJECT_CHARS * 4), SUBJECT_CHARS)

    def exact(self, text: str) -> str:
        """What people are asked to approve: all of it to be seen, but for tokens. What merely has the form of
        a secret (a private key's lines, a password in a URL) could hide a command."""
        return redact_tokens(spelt_out(text), self.known_secrets)[:MOST_APPROVED]
