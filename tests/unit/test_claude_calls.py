"""What Claude and its sub-agents do, in events that people read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bot.agents.claude.tools import describe
from bot.agents.codec import (
    Step,
)
from bot.events import (
    Notice,
    Plan,
    ToolKind,
    ToolStatus,
    Usage,
)
from tests.agents.claude_talk import (
    FIRST,
    KEY,
    SECOND,
    Frame,
    calls,
    gave,
    result,
    says,
    started,
    uses,
)

# sub-agents


def task(subtype: str, **more: Any) -> Frame:
    return {"type": "system", "subtype": subtype, "task_id": "a-1", **more}


STARTED = task("task_started", task_type="local_agent", spawn_depth=1, is_backgrounded=False)


def requests(step: Step) -> list[Frame]:
    sent = [json.loads(line) for line in step.write.splitlines()]
    return [one["request"] for one in sent if one["type"] == "control_request"]


def test_a_sub_agent_gives_way_to_a_message() -> None:
    talk = started()
    talk.hears(says(uses("t", "Agent", description="Look")), STARTED)
    step = talk.steer()
    assert json.loads(step.write.splitlines()[0])["uuid"] == SECOND
    assert requests(step) == [{"subtype": "stop_task", "task_id": "a-1"}]
    assert step.written == (2,) and step.consumed == ()
    assert [type(event) for event in step.events] == [Notice]
    # Once for all messages.
    assert requests(talk.steer()) == []
    [call] = calls(talk.hears(gave("t", "[Request interrupted by user for tool use]", failed=True)))
    assert (call.status, call.result) == (ToolStatus.FAILED, "Stopped for a new message.")


def test_a_message_just_before_a_sub_agent_is_not_held_by_it() -> None:
    talk = started()
    talk.steer()
    assert requests(talk.hears(STARTED)) == [{"subtype": "stop_task", "task_id": "a-1"}]


@pytest.mark.parametrize(
    "frame",
    [
        task("task_updated", patch={"status": "completed"}),
        task("task_notification", status="completed"),
        result(),
    ],
)
def test_a_sub_agent_that_has_ended_is_not_stopped(frame: Frame) -> None:
    talk = started()
    talk.hears(STARTED, task("task_updated", patch={"status": "running"}), frame)
    assert requests(talk.steer()) == []


@pytest.mark.parametrize("more", [{"is_backgrounded": True}, {"spawn_depth": 2}, {"task_type": "local_bash"}])
def test_what_claude_does_not_wait_for_goes_on(more: Frame) -> None:
    talk = started()
    talk.hears({**STARTED, **more})
    assert requests(talk.steer()) == []


def test_that_a_sub_agent_had_ended_just_then_is_nothing_to_tell() -> None:
    talk = started()
    talk.hears(STARTED)
    talk.steer()
    told = {"subtype": "error", "request_id": "sandpiper-task-1", "error": "No task found"}
    assert talk.hears({"type": "control_response", "response": told}).events == ()


# what it does


def test_output_is_plain_and_clipped_and_without_secrets() -> None:
    talk = started()
    talk.hears(says(uses("t", "Bash", command=f"curl -H 'x: {KEY}' https://example.com")))
    noisy = f"\x1b[32mok\x1b[0m {KEY} ghp_{'a1' * 18}\n" + "line\n" * 5000 + "the end"
    [call] = calls(talk.hears(gave("t", noisy)))
    assert call.result.startswith("ok [redacted] [redacted]\n")
    assert call.result.endswith("the end")
    assert len(call.result) < 1000
    assert KEY not in str([step.events for step in talk.steps])


def test_a_call_is_seen_while_its_input_is_being_written() -> None:
    block = {"type": "tool_use", "id": "t", "name": "Write", "input": {}}
    event = {"type": "content_block_start", "index": 0, "content_block": block}
    [pending] = calls(started().hears({"type": "stream_event", "event": event, "parent_tool_use_id": None}))
    assert (pending.title, pending.status, pending.kind) == (
        "Writing a file",
        ToolStatus.PENDING,
        ToolKind.EDIT,
    )


def test_a_stopped_call_says_so_in_our_words() -> None:
    talk = started()
    talk.hears(says(uses("t", "Bash", command="sleep 60")))
    talk.interrupt()
    [call] = calls(talk.hears(gave("t", "The user doesn't want to proceed with this tool use.", failed=True)))
    assert (call.status, call.result) == (ToolStatus.FAILED, "Stopped.")


def test_no_call_spins_after_its_round() -> None:
    talk = started()
    talk.hears(says(uses("t", "Bash", command="make")))
    [call] = calls(talk.hears(result()))
    assert call.status is ToolStatus.FAILED


@pytest.mark.parametrize(
    ("command", "content", "failed", "title", "out"),
    [
        (
            "pytest tests/auth",
            "Exit code 1\nF.\n=== 2 failed, 14 passed in 0.1s ===",
            True,
            "Ran pytest tests/auth · 2 failed",
            "F.\n=== 2 failed, 14 passed in 0.1s ===",
        ),
        ("pytest", "14 passed in 0.1s", False, "Ran pytest · 14 passed", "14 passed in 0.1s"),
        ("make", "Exit code 2", True, "Ran make · exit code 2", ""),
        ("true", "(Bash completed with no output)", False, "Ran true", ""),
        ("cat log", "14 passed in 0.1s", False, "Ran cat log", "14 passed in 0.1s"),
        ("nope", "<tool_use_error>No</tool_use_error>", True, "Ran nope", "No"),
    ],
)
def test_the_outcome_of_a_command_is_in_its_title(
    command: str, content: str, failed: bool, title: str, out: str
) -> None:
    talk = started()
    talk.hears(says(uses("t", "Bash", command=command)))
    [call] = calls(talk.hears(gave("t", content, failed=failed)))
    assert (call.title, call.result) == (title, out)


def test_large_output_is_told_by_its_size_and_beginning() -> None:
    talk = started()
    talk.hears(says(uses("t", "Bash", command="yes")))
    details = {"stdout": "y\n" * 15_000, "persistedOutputSize": 5_000_009}
    [call] = calls(talk.hears(gave("t", "<persisted-output>…", details=details)))
    assert call.result.startswith("5,000,009 bytes of output, which begin with:\ny\ny")
    assert len(call.result) < 900


def test_output_of_which_the_model_has_a_preview_is_told_with_its_end() -> None:
    talk = started()
    talk.hears(says(uses("t", "Bash", command="pytest")))
    details = {"stdout": "a test passed\n" * 4_000 + "=== 2 failed, 14 passed in 0.12s ==="}
    preview = "<persisted-output>\nOutput too large (55KB)…"
    [call] = calls(talk.hears(gave("t", preview, details=details)))
    assert call.title == "Ran pytest · 2 failed"
    assert call.result.startswith("a test passed\n")
    assert call.result.endswith("=== 2 failed, 14 passed in 0.12s ===")


def test_a_sub_agents_report_is_its_result() -> None:
    talk = started()
    talk.hears(says(uses("t", "Agent", description="Look")))
    content = [{"type": "text", "text": "<tools-used/>"}, {"type": "text", "text": "I looked."}]
    [call] = calls(talk.hears(gave("t", "[Subagent hand-back] …", details={"content": content})))
    assert (call.title, call.result) == ("Delegated: Look", "I looked.")


def test_an_edit_shows_its_size() -> None:
    talk = started()
    talk.hears(says(uses("t", "Edit", file_path="/home/agent/work/web/app.py")))
    patch = {"structuredPatch": [{"lines": [" a", "-b", "+c", "+d"]}]}
    [call] = calls(talk.hears(gave("t", "The file has been updated.", details=patch)))
    assert (call.title, call.result) == ("Edited web/app.py", "+2 −1")


@pytest.mark.parametrize(
    ("name", "given", "doing", "done"),
    [
        ("Bash", {"command": "pytest -q\n"}, "Running pytest -q", "Ran pytest -q"),
        ("Read", {"file_path": "/w/src/a.py"}, "Reading src/a.py", "Read src/a.py"),
        ("Read", {"file_path": "/etc/hosts"}, "Reading /etc/hosts", "Read /etc/hosts"),
        ("Grep", {"pattern": "def greet"}, "Searching for def greet", "Searched for def greet"),
        ("WebFetch", {"url": "https://x.org"}, "Fetching https://x.org", "Fetched https://x.org"),
        ("Agent", {"description": "Look"}, "Delegating: Look", "Delegated: Look"),
        ("mcp__github__get_issue", {"n": 1}, "Using github: get_issue", "Used github: get_issue"),
        ("FromTomorrow", {}, "Using FromTomorrow", "Used FromTomorrow"),
        ("Bash", {}, "Running a command", "Ran a command"),
        ("Bash", {"command": ["odd"]}, "Running a command", "Ran a command"),
    ],
)
def test_titles_are_for_people(name: str, given: Frame, doing: str, done: str) -> None:
    tool = describe(name, given, "/w")
    assert (tool.doing, tool.done) == (doing, done)


def test_the_file_of_a_plan_is_called_so() -> None:
    assert describe("Write", {"file_path": "/h/.claude/plans/a-b.md"}, "/w").done == "Wrote its plan"


def test_an_older_todo_list_is_a_plan_too() -> None:
    todos = [{"content": "Read", "status": "completed"}, {"content": "Mend", "status": "in_progress"}]
    step = started().hears(says(uses("t", "TodoWrite", todos=todos)))
    [plan] = [event for event in step.events if isinstance(event, Plan)]
    assert [(entry.text, entry.status) for entry in plan.entries] == [
        ("Read", "completed"),
        ("Mend", "in_progress"),
    ]


def test_tokens_are_counted_once_and_a_guessed_price_is_no_price() -> None:
    talk = started()
    usage = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 100,
        "output_tokens": 1,
    }
    first = talk.hears(says({"type": "text", "text": "a"}, usage=usage))
    again = talk.hears(says({"type": "text", "text": "b"}, usage=usage))
    assert [e for e in first.events if isinstance(e, Usage)] == [Usage(f"{FIRST}:0", 15, 1, 100)]
    assert not [e for e in again.events if isinstance(e, Usage)]
    other = talk.hears(says({"type": "text", "text": "c"}, id="msg_2", usage=usage))
    assert [e for e in other.events if isinstance(e, Usage)] == [Usage(f"{FIRST}:0", 30, 2, 200)]
    models = {"sonnet": {"inputTokens": 31, "outputTokens": 9, "cacheReadInputTokens": 200, "costUSD": 0.5}}
    ended = talk.hears(result(model_usage_since_last_result=models))
    assert [e for e in ended.events if isinstance(e, Usage)] == [Usage(f"{FIRST}:0", 31, 9, 200, 500_000)]
    guessed = {"mystery": {"inputTokens": 1, "costUSD": 0.5, "costBasis": "unknown"}}
    ended = talk.hears(result(model_usage_since_last_result=guessed))
    assert [e for e in ended.events if isinstance(e, Usage)] == [Usage(f"{FIRST}:1", 1, 0, 0, None)]


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (
            {
                "type": "system",
                "subtype": "api_retry",
                "attempt": 2,
                "error_status": 529,
                "error": "overloaded",
            },
            "529",
        ),
        ({"type": "system", "subtype": "compact_boundary"}, "summed up"),
        ({"type": "system", "subtype": "model_fallback", "content": "Now with haiku"}, "Now with haiku"),
        ({"type": "system", "subtype": "session_writes_lost", "error_code": "ENOSPC"}, "disk is full"),
        (
            {
                "type": "rate_limit_event",
                "rate_limit_info": {"status": "rejected", "rateLimitType": "five_hour"},
            },
            "five hour",
        ),
    ],
)
def test_what_people_should_know_is_a_notice(frame: Frame, words: str) -> None:
    [notice] = started().hears(frame).events
    assert isinstance(notice, Notice) and words in notice.text


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "system", "subtype": "api_retry", "attempt": 1},
        {"type": "system", "subtype": "thinking_tokens", "estimated_tokens": 3},
        {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed"}},
        {"type": "keep_alive"},
        {"type": "user", "message": {"role": "user", "content": "echo"}, "isReplay": True},
        {
            "type": "assistant",
            "message": {"model": "<synthetic>", "content": [{"type": "text", "text": "API Error"}]},
        },
    ],
)
def test_what_tells_nothing_is_not_shown(frame: Frame) -> None:
    assert started().hears(frame).events == ()
