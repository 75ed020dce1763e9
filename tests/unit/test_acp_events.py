"""What ACP agents say and do, as events: rare frames, and agents that do it in their own way."""

from __future__ import annotations

import json

import pytest

from bot.events import (
    Completed,
    Notice,
    Plan,
    PlanStatus,
    StopReason,
    Text,
    Thought,
    ToolCall,
    ToolKind,
    ToolStatus,
    Unknown,
    Usage,
)
from tests.unit.acp_talk import (
    KEY,
    Frame,
    ends,
    opened,
    says,
    update,
)

# what it says and does


def test_pieces_make_one_message() -> None:
    talk = opened()
    talk.hears(update("agent_thought_chunk", content={"type": "text", "text": "Hm"}))
    talk.hears(update("agent_thought_chunk", content={"type": "text", "text": "m."}))
    talk.hears(says("One ", "m-1"), says("two.", "m-1"), says("Three.", "m-2"))
    step = talk.answers("session/prompt", ends())
    said = [event for event in talk.events if isinstance(event, Text | Thought)]
    assert said == [Thought("Hmm."), Text("One two."), Text("Three.")]
    assert step.completed == Completed(StopReason.END, "Three.")


def test_a_secret_in_two_pieces_is_found() -> None:
    talk = opened()
    talk.hears(says(f"It is {KEY[:12]}"), says(KEY[12:]))
    talk.answers("session/prompt", ends())
    assert KEY not in str(talk.events) and "It is [redacted]" in str(talk.events)


def test_a_long_message_keeps_its_head_and_tail() -> None:
    talk = opened()
    for number in range(6000):
        talk.hears(says(f"line {number} ä\n"))
    step = talk.answers("session/prompt", ends())
    assert step.completed is not None
    text = step.completed.text
    assert text.startswith("line 0") and "line 5999" in text and "characters left out" in text
    assert len(json.dumps(talk.state)) < 80_000


def test_tool_calls_have_titles_for_people() -> None:
    talk = opened()
    talk.updates("tool_call", toolCallId="a", title="shell", kind="execute", status="pending", rawInput={})
    talk.updates(
        "tool_call_update",
        toolCallId="a",
        status="in_progress",
        rawInput={"command": ["bash", "-lc", "pytest -q"]},
    )
    output = "F..\n1 failed, 2 passed in 0.1s"
    step = talk.updates(
        "tool_call_update", toolCallId="a", status="completed", rawOutput={"output": output, "exitCode": 1}
    )
    calls = [event for event in talk.events if isinstance(event, ToolCall)]
    assert [call.title for call in calls] == [
        "Running a command",
        "Running pytest -q",
        "Ran pytest -q · 1 failed",
    ]
    assert step.events[-1] == calls[-1] and calls[-1].result == output
    # Told again, it is not news.
    assert talk.updates("tool_call_update", toolCallId="a", status="completed").events == ()


def test_an_edit_counts_its_lines() -> None:
    talk = opened()
    diff = {"type": "diff", "path": "/home/agent/work/a.py", "oldText": "a\nb\n", "newText": "a\nc\nd\n"}
    step = talk.updates(
        "tool_call", toolCallId="a", title="edit", kind="edit", status="completed", content=[diff]
    )
    assert step.events[-1] == ToolCall(
        "a", ToolKind.EDIT, "Edited a.py", ToolStatus.COMPLETED, "a.py", "+2 −1"
    )


def test_a_call_that_never_ends_is_closed_with_its_prompt() -> None:
    talk = opened()
    talk.updates("tool_call", toolCallId="a", title="Look", kind="other", status="in_progress")
    step = talk.answers("session/prompt", ends())
    [call] = [event for event in step.events if isinstance(event, ToolCall)]
    assert (call.status, call.result) == (ToolStatus.FAILED, "It did not run to its end.")


def test_a_sub_agents_call_is_nested() -> None:
    talk = opened()
    meta = {"claudeCode": {"toolName": "Bash", "parentToolUseId": "agent-1"}}
    step = talk.updates("tool_call", toolCallId="a", title="ls", kind="execute", _meta=meta)
    assert isinstance(step.events[-1], ToolCall) and step.events[-1].parent == "agent-1"


def test_a_plan_and_a_list_of_todos_are_the_plan() -> None:
    talk = opened()
    entries = [{"content": "Read", "status": "completed", "priority": "high"}, {"content": "Mend"}]
    talk.updates("plan", entries=entries)
    talk.updates("plan", entries=entries)
    todos = {"todos": [{"content": "Mend", "status": "in_progress"}]}
    talk.updates("tool_call", toolCallId="a", title="todowrite", kind="other", rawInput=todos)
    plans = [event for event in talk.events if isinstance(event, Plan)]
    assert [[(one.text, one.status) for one in plan.entries] for plan in plans] == [
        [("Read", PlanStatus.COMPLETED), ("Mend", PlanStatus.PENDING)],
        [("Mend", PlanStatus.IN_PROGRESS)],
    ]
    assert not [event for event in talk.events if isinstance(event, ToolCall)]


def test_notices_and_compaction_are_told() -> None:
    talk = opened()
    talk.updates("notice", severity="warning", title="Slow", description="The API is slow.")
    talk.updates("compaction_update", compactionId="c", status="completed")
    assert [event.text for event in talk.events if isinstance(event, Notice)] == [
        "Slow: The API is slow.",
        "Gemini CLI summed up the conversation so far to make room.",
    ]


@pytest.mark.parametrize(
    "frame",
    [
        update("from_tomorrow", more=1),
        update("agent_message_chunk", session="another", content={"type": "text", "text": "x"}),
        {"method": "from/tomorrow"},
        {"id": 999, "result": {}},
        {"id": None, "method": "session/request_permission"},
        {"id": [1], "method": "session/request_permission"},
    ],
)
def test_what_is_not_known_is_kept(frame: Frame) -> None:
    step = opened().hears(frame)
    assert [type(event) for event in step.events] == [Unknown]
    assert step.write == b""


def test_costs_of_a_session_are_told_round_by_round() -> None:
    talk = opened()
    cost = {"amount": 0.5, "currency": "USD"}
    talk.hears(says("One."), update("usage_update", used=1, size=9, cost=cost))
    talk.hears(update("usage_update", used=1, size=9, cost=cost))
    tokens = {"inputTokens": 10, "outputTokens": 5, "cachedReadTokens": 2, "cachedWriteTokens": 1}
    talk.answers("session/prompt", ends(usage=tokens))
    talk.steers()
    talk.hears(update("usage_update", used=1, size=9, cost={"amount": 0.75, "currency": "USD"}))
    talk.hears(update("usage_update", used=1, size=9, cost={"amount": 7, "currency": "EUR"}))
    talk.answers("session/prompt", ends())
    newest = {event.key: event for event in talk.events if isinstance(event, Usage)}
    assert newest == {"p-1:0": Usage("p-1:0", 11, 5, 2, 500_000), "p-1:1": Usage("p-1:1", 0, 0, 0, 250_000)}
    assert len([event for event in talk.events if isinstance(event, Usage)]) == 4


def test_a_cost_that_is_told_after_the_end_is_counted() -> None:
    talk = opened()
    talk.hears(says("One."))
    talk.answers("session/prompt", ends(usage={"inputTokens": 5}))
    step = talk.updates("usage_update", used=1, size=9, cost={"amount": 0.5, "currency": "USD"})
    assert step.events == (Usage("p-1:0+", micro_usd=500_000),)
    talk.steers()
    talk.hears(says("Two."))
    rest = talk.answers("session/prompt", ends()).events
    assert not [event for event in rest if isinstance(event, Usage)]


def test_geminis_tokens_are_in_its_quota() -> None:
    talk = opened()
    quota = {"quota": {"token_count": {"input_tokens": 2823, "output_tokens": 100}}}
    step = talk.answers("session/prompt", ends(_meta=quota))
    assert Usage("p-1:0", 2823, 100) in step.events
