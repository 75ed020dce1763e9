"""What every codec keeps to, shown on transcripts of real runs (tests/agents/record.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.agents.acp.codec import AcpCodec
from bot.agents.claude.codec import ClaudeCodec
from bot.agents.codec import Answered, Codec, Decided, Happening, LineBuffer, Lines, Listing, State, Step
from bot.agents.codex.codec import CodexCodec
from bot.agents.opencode.codec import OpenCodeCodec
from bot.agents.scripted import ScriptedCodec
from bot.events import (
    ApprovalAsked,
    Event,
    Question,
    StopReason,
    ToolCall,
    ToolStatus,
    Unknown,
    Withdrawn,
)
from tests.agents.driven import Entry, happening_of, line_of, load, task_of

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts"
CODECS: dict[str, Codec] = {
    "acp-claude": AcpCodec("acp-claude", ["claude-agent-acp"]),
    "acp-opencode": AcpCodec("acp-opencode", ["opencode", "acp"]),
    "claude": ClaudeCodec(),
    "codex": CodexCodec(),
    "opencode": OpenCodeCodec(model="lab/scripted"),
    "scripted": ScriptedCodec(["scripted"]),
}
NAMES = sorted(path.stem for path in TRANSCRIPTS.glob("*.jsonl"))

END, ERROR, CANCELLED = StopReason.END, StopReason.ERROR, StopReason.CANCELLED

# How each run ended: the reasons, the inputs that were taken, and those that were handed back.
OUTCOMES = {
    "acp-claude-approved": ([END], [1], []),
    "acp-claude-asked": ([END], [1], []),
    "acp-claude-delegated": ([END], [1], []),
    "acp-claude-denied": ([END], [1], []),
    "acp-claude-error": ([ERROR], [1], []),
    "acp-claude-garbage": ([END], [1], []),
    "acp-claude-killed": ([], [1], []),
    "acp-claude-limited": ([ERROR], [1], []),
    "acp-claude-logged-out": ([ERROR], [], [1]),
    "acp-claude-plan": ([END], [1], []),
    "acp-claude-planned": ([END], [1], []),
    "acp-claude-question": ([END], [1], []),
    "acp-claude-resumed": ([END], [1], []),
    "acp-claude-steer": ([END], [1, 2], []),
    "acp-claude-steer-delegated": ([END], [1, 2], []),
    "acp-claude-steer-last": ([END], [1, 2], []),
    "acp-claude-stop": ([CANCELLED, END], [1, 2], []),
    "acp-claude-stop-at-once": ([CANCELLED], [], [1]),
    "acp-claude-stop-waiting": ([CANCELLED], [1], [2]),
    "acp-claude-tools": ([END], [1], []),
    "acp-claude-unattended": ([END], [1], []),
    "acp-claude-unauthorised": ([ERROR], [1], []),
    "acp-claude-withdrawn": ([CANCELLED], [1], []),
    "acp-opencode-approved": ([END], [1], []),
    "acp-opencode-denied": ([END], [1], []),
    "acp-opencode-error": ([ERROR], [], [1]),
    "acp-opencode-garbage": ([END], [1], []),
    "acp-opencode-killed": ([], [1], []),
    "acp-opencode-plan": ([END], [1], []),
    "acp-opencode-planned": ([END], [1], []),
    "acp-opencode-resumed": ([END], [1], []),
    "acp-opencode-steer": ([END], [1, 2], []),
    "acp-opencode-steer-last": ([END], [1, 2], []),
    "acp-opencode-stop": ([CANCELLED, END], [1, 2], []),
    "acp-opencode-stop-at-once": ([CANCELLED], [], [1]),
    "acp-opencode-stop-waiting": ([CANCELLED], [1], [2]),
    "acp-opencode-tools": ([END], [1], []),
    "acp-opencode-unattended": ([END], [1], []),
    "acp-opencode-unauthorised": ([ERROR], [], [1]),
    "acp-opencode-withdrawn": ([CANCELLED], [1], []),
    "claude-approved": ([END], [1], []),
    "claude-asked": ([END], [1], []),
    "claude-delegated": ([END], [1], []),
    "claude-denied": ([END], [1], []),
    "claude-error": ([ERROR], [1], []),
    "claude-killed": ([], [1], []),
    "claude-limited": ([ERROR], [1], []),
    "claude-logged-out": ([ERROR], [1], []),
    "claude-plan": ([END], [1], []),
    "claude-planned": ([END], [1], []),
    "claude-question": ([END], [1], []),
    "claude-resumed": ([END], [1], []),
    "claude-steer": ([END], [1, 2], []),
    "claude-steer-delegated": ([END], [1, 2], []),
    "claude-steer-last": ([END], [1, 2], []),
    "claude-stop": ([CANCELLED, END], [1, 2], []),
    "claude-stop-at-once": ([CANCELLED], [], [1]),
    "claude-stop-waiting": ([CANCELLED], [1], [2]),
    "claude-tools": ([END], [1], []),
    "claude-unattended": ([END], [1], []),
    "claude-unauthorised": ([ERROR], [1], []),
    "claude-withdrawn": ([CANCELLED], [1], []),
    "opencode-approved": ([END], [1], []),
    "opencode-asked": ([END], [1], []),
    "opencode-delegated": ([END], [1], []),
    "opencode-denied": ([END], [1], []),
    "opencode-effort": ([END], [1], []),
    "opencode-error": ([ERROR], [1], []),
    "opencode-garbage": ([END], [1], []),
    "opencode-killed": ([], [1], []),
    "opencode-limited": ([ERROR], [1], []),
    "opencode-logged-out": ([ERROR], [1], []),
    "opencode-plan": ([END], [1], []),
    "opencode-planned": ([END], [1], []),
    "opencode-question": ([END], [1], []),
    "opencode-resumed": ([END], [1], []),
    "opencode-steer": ([END], [1, 2], []),
    "opencode-steer-delegated": ([END], [1, 2], []),
    "opencode-steer-failed": ([END], [1, 2], []),
    "opencode-steer-failing": ([END], [1, 2], []),
    "opencode-steer-last": ([END], [1, 2], []),
    "opencode-stop": ([CANCELLED, END], [1, 2], []),
    "opencode-stop-early": ([CANCELLED], [], [1]),
    "opencode-stop-waiting": ([CANCELLED], [1], [2]),
    "opencode-tools": ([END], [1], []),
    "opencode-unattended": ([END], [1], []),
    "opencode-unauthorised": ([ERROR], [1], []),
    "opencode-withdrawn": ([CANCELLED], [1], []),
    "codex-abandoned": ([END], [1], []),
    "codex-approved": ([END], [1], []),
    "codex-asked": ([END], [1], []),
    "codex-delegated": ([END], [1], []),
    "codex-denied": ([END], [1], []),
    "codex-error": ([ERROR], [1], []),
    "codex-garbage": ([END], [1], []),
    "codex-killed": ([], [1], []),
    "codex-known-model": ([END], [1], []),
    "codex-left-running": ([END], [1], []),
    "codex-limited": ([ERROR], [1], []),
    "codex-logged-out": ([ERROR], [1], []),
    "codex-plan": ([END], [1], []),
    "codex-planned": ([END], [1], []),
    "codex-question": ([END], [1], []),
    "codex-replanned": ([END], [1], []),
    "codex-resumed": ([END], [1], []),
    "codex-steer": ([END], [1, 2], []),
    "codex-steer-delegated": ([END], [1, 2], []),
    "codex-steer-last": ([END], [1, 2], []),
    "codex-steer-running": ([END], [1, 2], []),
    "codex-stop": ([CANCELLED, END], [1, 2], []),
    "codex-stop-at-once": ([CANCELLED], [], [1]),
    "codex-stop-delegated": ([CANCELLED], [1], []),
    "codex-stop-waiting": ([CANCELLED], [1], [2]),
    "codex-tools": ([END], [1], []),
    "codex-unattended": ([END], [1], []),
    "codex-unauthorised": ([ERROR], [1], []),
    "codex-withdrawn": ([CANCELLED], [1], []),
    "scripted-approved": ([END], [1], []),
    "scripted-asked": ([END], [1], []),
    "scripted-denied": ([END], [1], []),
    "scripted-error": ([ERROR], [1], []),
    "scripted-garbage": ([END], [1], []),
    "scripted-killed": ([], [1], []),
    "scripted-question": ([END], [1], []),
    "scripted-resumed": ([END], [1], []),
    "scripted-steer": ([END], [1, 2], []),
    "scripted-stop": ([CANCELLED, END], [1, 2], []),
    "scripted-stop-at-once": ([CANCELLED], [1], []),
    "scripted-stop-waiting": ([CANCELLED], [1], [2]),
    "scripted-tools": ([END], [1], []),
    "scripted-unattended": ([END], [1], []),
    "scripted-withdrawn": ([CANCELLED], [1], []),
}


def codec_of(name: str) -> Codec:
    """The codec of a transcript, which begins with its agent's name."""
    return next(codec for agent, codec in CODECS.items() if name.startswith(f"{agent}-"))


@dataclass
class Replay:
    """A transcript given to a codec again, with a driver's bookkeeping."""

    codec: Codec
    state: State = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def begin(self, entry: Entry) -> None:
        self.take(self.codec.begin(task_of(entry)))

    def on(self, happening: Happening) -> Step:
        # As it comes back from a store.
        state = json.loads(json.dumps(self.state))
        step = self.codec.on(state, happening)
        assert step == self.codec.on(state, happening), "not pure"
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
    return load(TRANSCRIPTS / f"{name}.jsonl")


def replayed(name: str, entries: Sequence[Entry] | None = None) -> Replay:
    replay = Replay(codec_of(name))
    first, *rest = transcript(name) if entries is None else entries
    replay.begin(first)
    for entry in rest:
        replay.on(happening_of(entry))
    return replay


def lines_of(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries after the first, in runs: lines of stdout together, anything else alone."""
    runs: list[list[Entry]] = []
    for entry in entries[1:]:
        is_line = "out" in entry or "raw" in entry
        if is_line and runs and ("out" in runs[-1][0] or "raw" in runs[-1][0]):
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return runs


def storable(replay: Replay) -> None:
    """Whatever came in, what comes out can be stored and stays small."""
    for event in replay.events:
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


names = st.sampled_from(NAMES)


def test_every_transcript_has_its_outcome() -> None:
    assert sorted(OUTCOMES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_agent_writes_its_key(name: str) -> None:
    """What it writes goes to a file. Its rigs' keys are all of this form."""
    told = "".join(str(entry.get("out", "")) for entry in transcript(name))
    assert not re.search(r"scripted-(?:key-)?0{10}", told)


@pytest.mark.parametrize("name", NAMES)
def test_the_outcome(name: str) -> None:
    replay = replayed(name)
    reasons, consumed, deferred = OUTCOMES[name]
    assert replay.reasons == reasons
    assert replay.inputs("consumed") == consumed
    assert replay.inputs("deferred") == deferred


@pytest.mark.parametrize("name", NAMES)
def test_completed_means_that_every_prompt_is_settled_and_no_tool_runs(name: str) -> None:
    replay = replayed(name)
    written: set[int] = set()
    settled: set[int] = set()
    running: set[str] = set()
    for step in replay.steps:
        written.update(step.written)
        settled.update(step.consumed, step.deferred)
        for call in (event for event in step.events if isinstance(event, ToolCall)):
            done = call.status in (ToolStatus.COMPLETED, ToolStatus.FAILED)
            (running.discard if done else running.add)(call.id)
        if step.completed:
            # What was handed back need not have been written.
            assert settled >= written
            assert not running
            assert step.completed in step.events


@pytest.mark.parametrize("name", NAMES)
def test_what_waits_for_people_is_answered_or_withdrawn(name: str) -> None:
    """Nothing is open any more when the turn is over, and what was asked once is not asked again."""
    open_asks: set[str] = set()
    ever: set[str] = set()
    replay = Replay(codec_of(name))
    first, *rest = transcript(name)
    replay.begin(first)
    for entry in rest:
        step = replay.on(happening_of(entry))
        for event in step.events:
            if isinstance(event, ApprovalAsked) or (isinstance(event, Question) and event.open):
                assert event.id and event.id not in ever
                ever.add(event.id)
                open_asks.add(event.id)
            elif isinstance(event, Withdrawn):
                open_asks.remove(event.id)
        answer = entry.get("decide") or entry.get("answer")
        if answer and answer["id"] in open_asks:
            assert step.write, "the answer went nowhere"
            open_asks.remove(answer["id"])
        if step.completed:
            assert not open_asks


@pytest.mark.parametrize("name", NAMES)
def test_what_can_be_chosen_is_told_once(name: str) -> None:
    """As the codec declares: a list is complete for something only where it says that it may be."""
    replay = replayed(name)
    offers = [step.offered for step in replay.steps if step.offered]
    assert len(offers) <= 1
    for offered in offers:
        assert len(set(offered.names)) == len(offered.names)
        assert not offered.complete or replay.codec.capabilities.listing is Listing.ALL


# Lists are cut short in transcripts.
LISTED = {
    "acp-claude-tools": (
        ("default", "opus", "fable", "sonnet", "haiku", "claude-sonnet-4-5"),
        ("",),
    ),
    "acp-opencode-tools": (("lab/scripted",), ("",)),
    "claude-tools": (("default", "opus", "fable", "claude-opus-5-5", "claude-fable-5-2"), ()),
    "codex-tools": (("gpt-6.1-sol", "gpt-6-astra", "gpt-6-sol"), ()),
    "opencode-tools": (("lab/scripted",), ("lab/",)),
}


@pytest.mark.parametrize("name", sorted(LISTED))
def test_what_the_real_agent_lists(name: str) -> None:
    [offered] = [step.offered for step in replayed(name).steps if step.offered]
    assert (offered.names, offered.complete) == LISTED[name]
    efforts = {"claude-tools": ("low", "medium", "high"), "codex-tools": ("low", "medium", "high")}
    if name in efforts:
        assert offered.efforts_of(offered.names[0]) == efforts[name]


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_to_nothing_changes_nothing(name: str) -> None:
    replay = replayed(name)
    for late in (Decided("nobody-asked", True), Answered("nobody-asked", "Blue")):
        step = replay.codec.on(replay.state, late)
        assert (step.events, step.write, step.state) == ((), b"", replay.state)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_stays_small(name: str) -> None:
    sizes = [len(json.dumps(step.state)) for step in replayed(name).steps]
    assert max(sizes) < 2_000


@given(names, st.lists(st.integers(1, 3000), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_same_events_whatever_the_chunking(name: str, sizes: list[int]) -> None:
    entries = transcript(name)
    replay = Replay(codec_of(name))
    replay.begin(entries[0])
    cuts = cycle(sizes)
    buffer = LineBuffer()
    for run in lines_of(entries):
        if "out" not in run[0] and "raw" not in run[0]:
            replay.on(happening_of(run[0]))
            continue
        data = b"".join(line_of(entry) + b"\n" for entry in run)
        while data:
            size = next(cuts)
            if lines := buffer.feed(data[:size]):
                replay.on(Lines(lines))
            data = data[size:]
    whole = replayed(name)
    assert replay.events == whole.events
    assert replay.state == whole.state


@given(names, st.data())
@settings(max_examples=60, deadline=None)
def test_an_unknown_frame_is_kept_and_changes_nothing_else(name: str, data: st.DataObject) -> None:
    entries = transcript(name)
    at = data.draw(st.integers(1, len(entries)))
    odd: Entry = data.draw(
        st.sampled_from(
            [
                {"out": {"type": "from_tomorrow", "session_id": "s", "more": [1, {"a": None}]}},
                {"out": {"no": "type"}},
                {"raw": "Segmentation fault"},
                {"raw": '{"type": "assistant", "message": {"content": [{"type": "te'},
                {"raw": "[1, 2, 3]"},
                {"raw": "\xff\xfe\x00"},
            ]
        )
    )
    with_it = replayed(name, [*entries[:at], odd, *entries[at:]])
    without = replayed(name)
    unknown = [event for event in with_it.events if isinstance(event, Unknown)]
    assert len(unknown) == 1 + sum(isinstance(event, Unknown) for event in without.events)
    assert [event for event in with_it.events if not isinstance(event, Unknown)] == [
        event for event in without.events if not isinstance(event, Unknown)
    ]
    assert with_it.state == without.state


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def mutated(value: object, data: st.DataObject, depth: int = 0) -> object:
    """One part of a frame replaced by anything, or left out."""
    if isinstance(value, dict) and value and (depth < 2 or data.draw(st.booleans())):
        key = data.draw(st.sampled_from(sorted(value)))
        if data.draw(st.integers(0, 4)) == 0:
            return {name: item for name, item in value.items() if name != key}
        return {**value, key: mutated(value[key], data, depth + 1)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        return [mutated(value[0], data, depth + 1), *value[1:]]
    return data.draw(ANYTHING)


@given(names, st.data())
@settings(max_examples=150, deadline=None)
def test_corrupt_frames_never_raise(name: str, data: st.DataObject) -> None:
    entries = transcript(name)
    outs = [index for index, entry in enumerate(entries) if "out" in entry]
    for at in data.draw(st.lists(st.sampled_from(outs), min_size=1, max_size=6)):
        entries[at] = {"out": mutated(entries[at]["out"], data)}
    storable(replayed(name, entries))


@given(names, st.data())
@settings(max_examples=60, deadline=None)
def test_corrupt_bytes_never_raise(name: str, data: st.DataObject) -> None:
    entries = transcript(name)
    outs = [index for index, entry in enumerate(entries) if "out" in entry]
    for at in data.draw(st.lists(st.sampled_from(outs), min_size=1, max_size=4)):
        line = bytearray(line_of(entries[at]))
        where = data.draw(st.integers(0, len(line) - 1))
        line[where : where + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8)).replace(
            b"\n", b""
        )
        entries[at] = {"raw": bytes(line).decode("latin-1")}
    storable(replayed(name, entries))


@given(names, st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_noise_never_raises(name: str, noise: bytes) -> None:
    replay = replayed(name)
    replay.on(Lines(tuple(noise.split(b"\n"))))
    storable(replay)


def test_deep_and_long_lines_never_raise() -> None:
    for codec in CODECS.values():
        replay = Replay(codec)
        replay.begin(transcript(f"{codec.name}-tools")[0])
        deep = b'{"type":' + b"[" * 100_000
        number = b'{"type": "result", "total_cost_usd": ' + b"9" * 10_000 + b"}"
        wide = json.dumps({"type": "text", "text": "word " * 400_000}).encode()
        replay.on(Lines((deep, number, wide)))
        storable(replay)


SECRET = "sk-ant-" + "api03-" + "0123456789abcdefABCDEF"


def leaking(value: object) -> object:
    """The frame, with a secret in everything that a model or a tool may have written."""
    open_to_words = {"text", "thinking", "content", "command", "stdout", "result", "error", "description"}
    open_to_words |= {"output", "filePath", "message"}
    open_to_words |= {"subject", "title", "question", "label", "old_string", "file_path", "errors"}
    if isinstance(value, dict):
        return {
            key: f"{item} {SECRET}" if isinstance(item, str) and key in open_to_words else leaking(item)
            for key, item in value.items()
        }
    return [leaking(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
def test_secrets_do_not_reach_the_events(name: str) -> None:
    entries = [{"out": leaking(entry["out"])} if "out" in entry else entry for entry in transcript(name)]
    replay = replayed(name, entries)
    assert SECRET not in str(replay.events)
    assert replay.reasons == OUTCOMES[name][0]
