"""Transcripts of real runs (tests/agents/record.py), given to a codec again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

from bot.agents.acp.codec import AcpCodec
from bot.agents.claude.codec import ClaudeCodec
from bot.agents.codec import Codec, Happening, State, Step
from bot.agents.codex.codec import CodexCodec
from bot.agents.opencode.codec import OpenCodeCodec
from bot.agents.scripted import ScriptedCodec
from bot.events import Event, StopReason
from tests.agents.driven import Entry, happening_of, load, task_of

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
CODECS: Mapping[str, Callable[[], Codec]] = {
    "acp-claude": lambda: AcpCodec("acp-claude", ["claude-agent-acp"]),
    "acp-opencode": lambda: AcpCodec("acp-opencode", ["opencode", "acp"]),
    "claude": ClaudeCodec,
    "codex": CodexCodec,
    "opencode": lambda: OpenCodeCodec(model="lab/scripted"),
    "scripted": lambda: ScriptedCodec(["scripted"]),
}
NAMES = sorted(path.stem for path in TRANSCRIPTS.glob("*.jsonl"))


def agent_of(name: str) -> str:
    """A transcript's name begins with its agent's."""
    return next(agent for agent in CODECS if name.startswith(f"{agent}-"))


@dataclass
class Replay:
    """What a codec makes of what happened, with a driver's bookkeeping. twice: to see that it is pure."""

    codec: Codec
    twice: bool = True
    state: State = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    @classmethod
    def of(cls, name: str) -> Self:
        return cls(CODECS[agent_of(name)]())

    def begin(self, entry: Entry) -> None:
        self.take(self.codec.begin(task_of(entry)))

    def on(self, happening: Happening) -> Step:
        # As it comes back from a store.
        state = json.loads(json.dumps(self.state))
        step = self.codec.on(state, happening)
        assert not self.twice or step == self.codec.on(state, happening), "not pure"
        self.take(step)
        return step

    def take(self, step: Step) -> None:
        self.state = step.state
        self.steps.append(step)

    @property
    def events(self) -> list[Event]:
        return [event for step in self.steps for event in step.events]

    def inputs(self, fate: str) -> list[int]:
        return [input for step in self.steps for input in getattr(step, fate)]

    @property
    def reasons(self) -> list[StopReason]:
        return [step.completed.reason for step in self.steps if step.completed]


def transcript(name: str) -> list[Entry]:
    return list(_transcript(name))


def replayed(name: str, entries: Sequence[Entry] | None = None, same: int = 0) -> Replay:
    """same: how many entries at the beginning are those of the transcript. A codec is pure, so what it
    makes of them is known."""
    replay = Replay.of(name)
    given = _transcript(name) if entries is None else entries
    if same:
        replay.twice = False
        for step in whole(name).steps[:same]:
            replay.take(step)
    else:
        replay.begin(given[0])
    for entry in given[same or 1 :]:
        replay.on(happening_of(entry))
    return replay


@cache
def whole(name: str) -> Replay:
    """The transcript as it is: to be read, not to be gone on with."""
    return replayed(name)


@cache
def _transcript(name: str) -> Sequence[Entry]:
    return tuple(load(TRANSCRIPTS / f"{name}.jsonl"))


def storable(replay: Replay, since: int = 0) -> None:
    """Whatever came in, what comes out can be stored and stays small. since: the first step to look at."""
    for event in (event for step in replay.steps[since:] for event in step.events):
        text = json.dumps(asdict(event), ensure_ascii=False)
        text.encode()
        assert not any("\x00" in part for part in _strings(asdict(event)))
        assert len(text) < 80_000
    assert len(json.dumps(replay.state)) < 80_000


def _strings(value: object) -> list[str]:
    if isinstance(value, dict | list | tuple):
        parts = value.values() if isinstance(value, dict) else value
        return [text for part in parts for text in _strings(part)]
    return [value] if isinstance(value, str) else []
