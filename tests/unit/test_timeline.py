"""The picture of a turn: folded from events, bounded, and without a spinner at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.events import (
    Completed,
    Event,
    Notice,
    Phase,
    Plan,
    PlanEntry,
    PlanStatus,
    Steered,
    StopReason,
    Text,
    Thought,
    ToolCall,
    ToolKind,
    ToolStatus,
    Usage,
)
from bot.models import Final, Outcome
from bot.timeline import KEPT_ROWS, RUNNING, RowStatus, Timeline, duration, fold_repeats

words = st.sampled_from(["", "Running pytest", "Read app.py", "…"])
tools = st.builds(
    ToolCall,
    id=st.sampled_from([f"t{number}" for number in range(6)]),
    kind=st.sampled_from(ToolKind),
    title=words,
    status=st.sampled_from(ToolStatus),
    subject=words,
    result=words,
    parent=st.sampled_from(["", "t0"]),
)
plans = st.lists(st.builds(PlanEntry, words, st.sampled_from(PlanStatus)), max_size=3)
events = st.one_of(
    tools,
    st.builds(Phase, st.sampled_from(["sandbox", "agent", "publish"]), words),
    st.builds(Steered, st.just("Ben"), words),
    st.builds(Notice, words),
    st.builds(Text, words),
    st.builds(Thought, words),
    st.builds(Plan, plans.map(tuple)),
    st.builds(Usage, st.sampled_from(["a", "b"]), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    st.builds(Completed, st.sampled_from(StopReason), words),
)
stories = st.lists(events, max_size=40)
finals = st.builds(Final, st.sampled_from(Outcome), words, seconds=st.floats(0, 1e6))

READ, RUN = ToolKind.READ, ToolKind.EXECUTE
STARTED, DONE, FAILED = ToolStatus.IN_PROGRESS, ToolStatus.COMPLETED, ToolStatus.FAILED


def told(*story: Event) -> Timeline:
    return Timeline(1).apply(story)


@given(stories, tools)
def test_the_same_tool_event_again_changes_nothing(story: list[Event], call: ToolCall) -> None:
    once = told(*story, call)
    assert once.apply([call]) == once


@given(stories, st.integers(0, 40))
def test_folding_in_two_parts_is_folding_at_once(story: list[Event], at: int) -> None:
    assert told(*story[:at]).apply(story[at:]) == told(*story)


@given(stories, finals)
def test_nothing_spins_when_it_has_ended(story: list[Event], final: Final) -> None:
    picture = told(*story).ended(final)
    assert not [row for row in picture.rows if row.status in RUNNING]
    assert not [row for row in fold_repeats(picture.rows) if row.status in RUNNING]
    assert not [entry for entry in picture.plan if entry.status is PlanStatus.IN_PROGRESS]
    assert not picture.stoppable
    assert picture.headline


@given(
    st.lists(st.sampled_from(["tool", "notice", "steer", "phase"]), min_size=1, max_size=30),
    st.integers(1, 60),
)
def test_rows_are_bounded_and_their_ids_unique(kinds: list[str], times: int) -> None:
    make: dict[str, Callable[[int], Event]] = {
        "tool": lambda number: ToolCall(f"t{number}", RUN, "Ran it", DONE),
        "notice": lambda number: Notice("Look"),
        "steer": lambda number: Steered("Ben", "also this"),
        "phase": lambda number: Phase("code", f"Step {number}"),
    }
    story = [make[kind](number) for number, kind in enumerate(kinds * times)]
    picture = told(*story)
    assert len(picture.rows) <= KEPT_ROWS
    assert len(picture.rows) + picture.dropped == len(story)
    assert len({row.id for row in picture.rows}) == len(picture.rows)


def test_phases_that_a_restarted_bot_begins_anew_are_told_once() -> None:
    begun = [Phase("sandbox", "Getting the sandbox"), Phase("code", "Bringing in the code")]
    picture = told(*begun, *begun, begun[0])
    assert [(row.title, row.status) for row in picture.rows] == [
        ("Getting the sandbox", RowStatus.IN_PROGRESS)
    ]
    picture = told(*begun, Notice("Look"), *begun)
    assert [row.title for row in picture.rows] == [
        "Getting the sandbox",
        "Bringing in the code",
        "Look",
        "Getting the sandbox",
        "Bringing in the code",
    ]


def test_a_tool_call_grows_in_its_row() -> None:
    picture = told(
        ToolCall("t", RUN, "Running a command", ToolStatus.PENDING),
        ToolCall("t", RUN, "Running pytest -q", STARTED, "pytest -q"),
        ToolCall("t", RUN, "Ran pytest -q", DONE, result="3 passed"),
    )
    [row] = picture.rows
    assert (row.title, row.status, row.subject, row.result) == (
        "Ran pytest -q",
        RowStatus.COMPLETED,
        "pytest -q",
        "3 passed",
    )


def test_an_event_without_a_title_keeps_the_one_before() -> None:
    picture = told(ToolCall("t", RUN, "Running pytest", STARTED), ToolCall("t", RUN, "", FAILED))
    assert (picture.rows[0].title, picture.rows[0].status) == ("Running pytest", RowStatus.FAILED)
    assert told(ToolCall("new", RUN, "", DONE)).rows[0].title


def test_the_headline_is_what_goes_on_now() -> None:
    run = ToolCall("a", RUN, "Running pytest", STARTED)
    look = ToolCall("b", READ, "Reading app.py", STARTED)
    ended = replace(look, title="Read app.py", status=DONE)
    assert told(Phase("agent", "Starting claude")).headline == "Starting claude"
    assert told(run).headline == "Running pytest"
    assert told(run, look).headline == "Reading app.py"
    assert told(run, look, ended).headline == "Running pytest"
    assert told(run, replace(run, title="Ran pytest", status=DONE)).headline == "Thinking"
    assert told(run, replace(run, status=DONE), Thought("hm")).headline == "Thinking"
    assert told(run, Text("It works."), replace(run, status=DONE)).headline == "Writing"


def test_a_phase_is_over_when_the_next_begins_or_the_agent_acts() -> None:
    picture = told(Phase("code", "Bringing in the code"), Phase("agent", "Starting claude"))
    assert [row.status for row in picture.rows] == [RowStatus.COMPLETED, RowStatus.IN_PROGRESS]
    picture = picture.apply([ToolCall("t", RUN, "Running pytest", STARTED)])
    assert [row.status for row in picture.rows[:2]] == [RowStatus.COMPLETED] * 2
    assert told(Phase("publish", "Publishing")).stoppable is False


def test_the_newest_usage_of_a_key_counts() -> None:
    picture = told(Usage("a", 10, 1), Usage("a", 20, 2), Usage("b", 5, 5, micro_usd=70))
    assert (picture.tokens, picture.micro_usd) == (32, 70)
    assert told(Usage("a", 1, 1)).micro_usd is None


def test_a_stopped_turn_shows_what_did_not_finish() -> None:
    picture = told(ToolCall("t", RUN, "Running pytest", STARTED), ToolCall("u", READ, "Read app.py", DONE))
    stopped = picture.ended(Final(Outcome.STOPPED, "", seconds=125))
    assert [row.status for row in stopped.rows] == [RowStatus.FAILED, RowStatus.COMPLETED]
    assert stopped.headline == "Stopped after 2m 5s"


def test_reads_in_a_row_are_drawn_as_one() -> None:
    reads = [
        ToolCall(f"r{n}", READ, f"Read {name}", DONE, name) for n, name in enumerate(["a.py", "b.py", "c.py"])
    ]
    folded = fold_repeats(told(*reads, ToolCall("x", RUN, "Ran make", DONE), reads[0]).rows)
    assert [(row.title, row.count) for row in folded] == [("Read 3 files", 3), ("Ran make", 1)]
    assert folded[0].subject == "a.py, b.py, c.py"


def test_reads_of_a_sub_agent_stand_apart() -> None:
    mine = ToolCall("a", READ, "Read a.py", DONE, "a.py")
    theirs = ToolCall("b", READ, "Read b.py", DONE, "b.py", parent="task")
    failed = ToolCall("c", READ, "Read c.py", FAILED, "c.py", parent="task")
    assert len(fold_repeats(told(mine, theirs, failed).rows)) == 3


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.4, "0s"), (59.6, "1m 0s"), (372, "6m 12s"), (3600, "1h 0m"), (7325, "2h 2m"), (-5, "0s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
