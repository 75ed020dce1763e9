"""What every codec keeps to, shown on transcripts of real runs (tests/agents/record.py)."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from bot.agents.codec import Answered, Decided, LineBuffer, Lines, Listing, Prompt, Steer
from bot.events import ApprovalAsked, Question, StopReason, ToolCall, ToolStatus, Unknown, Withdrawn
from tests.agents.driven import happening_of, task_of
from tests.agents.replay import CODECS, NAMES, Replay, replayed, storable, transcript

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
    "acp-claude-no-model": ([ERROR], [1], []),
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
    "acp-opencode-no-model": ([ERROR], [], [1]),
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
    "claude-no-model": ([ERROR], [1], []),
    "claude-plan": ([END], [1], []),
    "claude-planned": ([END], [1], []),
    "claude-question": ([END], [1], []),
    "claude-replanned": ([END], [1], []),
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
    "opencode-no-model": ([ERROR], [1], []),
    "opencode-plan": ([END], [1], []),
    "opencode-planned": ([END], [1], []),
    "opencode-question": ([END], [1], []),
    "opencode-replanned": ([END], [1], []),
    "opencode-resumed": ([END], [1], []),
    "opencode-steer": ([END], [1, 2], []),
    "opencode-steer-delegated": ([END], [1, 2], []),
    "opencode-steer-delegated-asking": ([END], [1, 2], []),
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
    "codex-no-model": ([ERROR], [1], []),
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
    replay = Replay.of(name)
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


@pytest.mark.parametrize("agent", CODECS)
def test_a_codec_has_words_from_the_step_that_they_come_with(agent: str) -> None:
    """Also those that wait in its state: they would be given to it again, or be edited in vain."""
    codec = CODECS[agent]()
    begun = codec.begin(
        replace(task_of(transcript(f"{agent}-tools")[0]), prompt=Prompt("a", "Ana: go", (1,)))
    )
    assert begun.written == (1,)
    step = codec.on(begun.state, Steer(Prompt("b", "Ana: on", (2,))))
    assert {*step.written, *step.deferred} == {2}


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


def test_deep_and_long_lines_never_raise() -> None:
    for agent in CODECS:
        name = f"{agent}-tools"
        replay = Replay.of(name)
        replay.begin(transcript(name)[0])
        deep = b'{"type":' + b"[" * 100_000
        number = b'{"type": "result", "total_cost_usd": ' + b"9" * 10_000 + b"}"
        wide = json.dumps({"type": "text", "text": "word " * 400_000}).encode()
        replay.on(Lines((deep, number, wide)))
        storable(replay)


@pytest.mark.parametrize("agent", CODECS)
def test_of_a_line_that_is_too_long_the_size_is_kept(agent: str) -> None:
    replay = Replay.of(f"{agent}-tools")
    replay.begin(transcript(f"{agent}-tools")[0])
    lines = LineBuffer(limit=100_000).feed(b'{"type": "result", "result": "' + b"x" * 200_000 + b'"}\n')
    (kept,) = [event for event in replay.on(Lines(lines)).events if isinstance(event, Unknown)]
    assert "(a line of 200032 bytes)" in kept.raw


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
