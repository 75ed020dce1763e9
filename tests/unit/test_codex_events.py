"""What Codex's frames mean for people: titles, results, errors, sums."""

from __future__ import annotations

import pytest

from bot.agents.codex.errors import describe as describe_error
from bot.agents.codex.state import Running
from bot.agents.codex.tools import command_of, describe, done, outcome
from bot.events import Cause, Notice, Plan, StopReason, ToolStatus, Unknown, Usage
from tests.agents.codex_talk import (
    ASK,
    FIRST,
    RESUMED,
    SECRET,
    Frame,
    asks,
    begun,
    calls,
    ended,
    joined,
    methods,
    over,
    started,
    tell,
)


def status(name: str, code: object) -> Frame:
    return {"message": "x", "codexErrorInfo": {name: {"httpStatusCode": code}}}


def info(name: str, message: str = "x") -> Frame:
    return {"message": message, "codexErrorInfo": name}


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        (info("unauthorized"), Cause.LOGIN, "x"),
        ({"message": "Missing environment variable: `K`."}, Cause.LOGIN, "Missing"),
        (status("httpConnectionFailed", 403), Cause.LOGIN, "x"),
        (status("responseTooManyFailedAttempts", 429), Cause.LIMIT, "x"),
        (info("usageLimitExceeded"), Cause.LIMIT, "x"),
        (info("contextWindowExceeded"), Cause.MODEL, "x"),
        (status("httpConnectionFailed", True), Cause.MODEL, "x"),
        (info("other", '{"error": {"message": "no way"}}'), Cause.MODEL, "no way"),
        (info("other", "bad, url: http://127.0.0.1/v1"), Cause.MODEL, "bad"),
        ({}, Cause.UNKNOWN, "Codex failed without saying why."),
    ],
)
def test_what_failed_and_why(error: Frame, cause: Cause, words: str) -> None:
    text, found = describe_error(error)
    assert found == cause
    assert text.split("\n")[0].startswith(words)
    assert "http" not in text


def failing(status: int) -> Frame:
    info = {"responseStreamDisconnected": {"httpStatusCode": status}}
    error = {"message": "Reconnecting...", "codexErrorInfo": info, "additionalDetails": "no luck"}
    return tell("error", error=error, willRetry=True)


def test_a_failing_model_is_told_of_once() -> None:
    talk = started()
    step = talk.hears(*[failing(503)] * 5)
    assert [event for event in step.events if isinstance(event, Notice)] == [
        Notice("The model's API fails (no luck). Codex keeps trying.")
    ]


def test_a_refused_key_is_not_tried_for_long() -> None:
    talk = started()
    assert methods(talk.hears(failing(401), failing(401), failing(401))) == ["turn/interrupt"]
    talk.answered()
    step = talk.hears(ended(status="interrupted", text=""))
    assert step.completed is not None
    assert (step.completed.reason, step.completed.cause) == (StopReason.ERROR, Cause.LOGIN)


def tokens(total: int, last: int, turn: str = "u-1") -> Frame:
    def counted(given: int) -> Frame:
        return {"inputTokens": given, "cachedInputTokens": given // 4, "outputTokens": given // 10}

    usage = {"total": counted(total), "last": counted(last)}
    return tell("thread/tokenUsage/updated", turnId=turn, tokenUsage=usage)


def test_tokens_are_counted_once() -> None:
    talk = started()
    step = talk.hears(tokens(1000, 1000), tokens(1000, 1000), tokens(3000, 2000))
    assert [event for event in step.events if isinstance(event, Usage)] == [
        Usage(FIRST, 750, 100, 250),
        Usage(FIRST, 2250, 300, 750),
    ]


def test_what_an_earlier_process_spent_does_not_count() -> None:
    talk = joined(RESUMED)
    assert talk.hears(tokens(9000, 500, turn="u-0")).events == ()
    talk.answered({"turn": {"id": "u-1"}})
    assert talk.hears(tokens(10_000, 1000)).events == (Usage(FIRST, 750, 100, 250),)


def test_what_was_chosen_is_not_warned_of() -> None:
    talk = started()
    step = talk.hears(
        tell("warning", message="Model metadata for `x` not found. Defaulting"),
        tell("warning", message="The disk is almost full."),
        tell("warning", thread="t-2", message="Of a sub-agent."),
        tell("mcpServer/startupStatus/updated", name="docs", status="failed", error="no such program"),
        tell("mcpServer/startupStatus/updated", name="docs", status="ready"),
        tell("model/rerouted", fromModel="a", toModel="b"),
    )
    assert step.events == (
        Notice("The disk is almost full."),
        Notice("The MCP server docs did not start: no such program"),
        Notice("Codex went on with another model: b."),
    )


def test_the_words_of_a_sub_agent_are_for_codex() -> None:
    talk = started()
    made_by = {"tool": "spawnAgent", "prompt": "Look around"}
    talk.hears(begun("collabAgentToolCall", **made_by))
    assert talk.hears(over("collabAgentToolCall", **made_by, receiverThreadIds=["t-2"])).events == ()
    turn = {"id": "u-2", "status": "completed", "items": [{"type": "agentMessage", "text": "All is well."}]}
    step = talk.hears(
        tell("turn/started", thread="t-2", turn={"id": "u-2"}),
        over("agentMessage", thread="t-2", text="Hm."),
        tell("turn/plan/updated", thread="t-2", plan=[{"step": "x", "status": "pending"}]),
        begun("commandExecution", thread="t-2", id="call-2", command="ls"),
        over("commandExecution", thread="t-2", id="call-2", command="ls", exitCode=0),
        tell("turn/completed", thread="t-2", turn=turn),
    )
    inner, _, made = calls(step)
    assert (inner.parent, made.id, made.result) == ("call-1", "call-1", "All is well.")
    assert made.title == "Delegated: Look around"
    assert len(step.events) == 3


ITEMS: list[tuple[Frame, str, ToolStatus, str]] = [
    (
        {
            "type": "commandExecution",
            "command": "/bin/bash -lc 'pytest -q'",
            "status": "failed",
            "exitCode": 1,
            "aggregatedOutput": "2 failed, 3 passed in 0.1s",
        },
        "Ran pytest -q · 2 failed",
        ToolStatus.FAILED,
        "2 failed, 3 passed in 0.1s",
    ),
    (
        {
            "type": "commandExecution",
            "command": "rg -n x src",
            "commandActions": [{"type": "search", "query": "x", "path": "src"}],
            "status": "failed",
            "exitCode": 1,
        },
        "Searched for x in src",
        ToolStatus.COMPLETED,
        "Nothing found.",
    ),
    (
        {
            "type": "commandExecution",
            "command": "ls",
            "commandActions": [{"type": "listFiles"}],
            "status": "completed",
            "exitCode": 0,
            "aggregatedOutput": "a\nb\n",
        },
        "Listed files",
        ToolStatus.COMPLETED,
        "2 lines",
    ),
    (
        {
            "type": "fileChange",
            "status": "completed",
            "changes": [
                {
                    "path": "/w/a",
                    "kind": {"type": "update", "move_path": "/w/b"},
                    "diff": "@@\n-x\n+y\n+z\n\n\nMoved to: /w/b",
                }
            ],
        },
        "Moved a to b",
        ToolStatus.COMPLETED,
        "+2 −1",
    ),
    (
        {
            "type": "fileChange",
            "status": "completed",
            "changes": [{"path": "/w/a", "kind": {"type": "delete"}, "diff": "x\ny\n"}],
        },
        "Deleted a",
        ToolStatus.COMPLETED,
        "+0 −2",
    ),
    (
        {
            "type": "mcpToolCall",
            "server": "github",
            "tool": "get_issue",
            "status": "completed",
            "result": {"content": [{"type": "text", "text": "Issue 1"}, {"type": "image"}]},
        },
        "Used github: get_issue",
        ToolStatus.COMPLETED,
        "Issue 1\n(image)",
    ),
    (
        {
            "type": "mcpToolCall",
            "server": "github",
            "tool": "x",
            "status": "failed",
            "error": {"message": "not found"},
        },
        "Used github: x",
        ToolStatus.FAILED,
        "not found",
    ),
    (
        {"type": "webSearch", "query": "", "action": {"type": "search", "query": "weather"}},
        "Searched the web for weather",
        ToolStatus.COMPLETED,
        "",
    ),
    (
        {"type": "webSearch", "query": "", "action": {"type": "openPage", "url": "https://example.com"}},
        "Opened https://example.com",
        ToolStatus.COMPLETED,
        "",
    ),
    ({"type": "imageView", "path": "/w/a.png"}, "Looked at a.png", ToolStatus.COMPLETED, ""),
    ({"type": "sleep", "durationMs": 1500}, "Waited for 1.5 s", ToolStatus.COMPLETED, ""),
    (
        {
            "type": "dynamicToolCall",
            "tool": "x",
            "success": False,
            "contentItems": [{"type": "inputText", "text": "no"}],
        },
        "Used x",
        ToolStatus.FAILED,
        "no",
    ),
]


@pytest.mark.parametrize(("item", "title", "status", "result"), ITEMS)
def test_items_in_words(item: Frame, title: str, status: ToolStatus, result: str) -> None:
    told = describe(item, "/w")
    came = outcome(item, "/w")
    call = Running(item["type"], "", "t-1", told.kind, told.verb, told.subject, told.thing)
    assert (done(call, came), came.status, came.result) == (title, status, result)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/bin/bash -lc 'echo \"hi\"'", 'echo "hi"'),
        ("bash -c ls", "bash -c ls"),
        ("/w/x/bash -lc ls", "/w/x/bash -lc ls"),
        ("/bin/bash -lc 'ls", "/bin/bash -lc 'ls"),
        ("python -c 1", "python -c 1"),
        ("", ""),
    ],
)
def test_the_command_without_its_shell(text: str, command: str) -> None:
    assert command_of(text) == command


def test_an_item_of_tomorrow_is_kept() -> None:
    step = started().hears(begun("hologram"))
    assert [event.name for event in step.events if isinstance(event, Unknown)] == ["item/started"]


def test_secrets_do_not_reach_the_events() -> None:
    talk = started(ASK)
    change = {"path": f"/{SECRET}", "kind": {"type": "add"}, "diff": SECRET}
    talk.hears(
        begun("fileChange", changes=[change]),
        asks("item/fileChange/requestApproval"),
        begun("commandExecution", id="call-2", command=f"echo {SECRET}"),
        over("commandExecution", id="call-2", command=f"echo {SECRET}", aggregatedOutput=SECRET),
        over("reasoning", summary=[SECRET]),
        over("agentMessage", text=SECRET),
        over("plan", text=SECRET),
        tell("turn/plan/updated", plan=[{"step": SECRET, "status": "pending"}]),
        tell("warning", message=SECRET),
        asks("item/tool/requestUserInput", id=1, questions=[{"id": "a", "question": SECRET}]),
        asks(SECRET, id=2),
        ended(status="failed", error={"message": SECRET}),
    )
    assert len(talk.steps[-1].events) > 9
    assert SECRET not in str([step.events for step in talk.steps])


def test_a_plan_is_told_with_its_steps() -> None:
    step = started().hears(tell("turn/plan/updated", plan=[{"step": " Mend\nit ", "status": "fancy"}]))
    [plan] = step.events
    assert isinstance(plan, Plan)
    assert [(entry.text, entry.status.value) for entry in plan.entries] == [("Mend it", "pending")]
