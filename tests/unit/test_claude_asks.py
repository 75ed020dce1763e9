"""What Claude asks of people, and what is answered for them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bot.agents.asking import NOBODY, NOBODY_MAY
from bot.agents.claude.codec import ClaudeCodec
from bot.agents.codec import (
    Exited,
    Permissions,
    Prompt,
)
from bot.events import (
    ApprovalAsked,
    Notice,
    Question,
    ToolKind,
    ToolStatus,
    Unknown,
    Withdrawn,
)
from tests.agents.claude_talk import (
    CODEC,
    FIRST,
    TASK,
    Frame,
    Talk,
    answer,
    asks,
    calls,
    gave,
    result,
    says,
    started,
    uses,
)

# what it asks


@pytest.mark.parametrize("tool", ["Bash", "ExitPlanMode", "mcp__db__drop"])
def test_tools_are_allowed_as_they_are(tool: str) -> None:
    given = {"command": "rm -rf build"}
    step = started().hears(
        asks(
            "can_use_tool",
            tool_name=tool,
            input=given,
            tool_use_id="t",
            requires_user_interaction=tool == "ExitPlanMode",
        )
    )
    # Without an input of ours, Claude does to the letter what it asked for.
    assert answer(step)["response"] == {"behavior": "allow"}


@pytest.mark.parametrize("tool", ["AskUserQuestion", "PickOne"])
def test_questions_are_refused_with_the_way_out(tool: str) -> None:
    given = {"questions": [{"question": "Which?", "options": [{"label": "Red"}, {"label": "Blue"}]}]}
    step = started().hears(
        asks("can_use_tool", tool_name=tool, input=given, tool_use_id="t", requires_user_interaction=True)
    )
    assert answer(step)["response"] == {"behavior": "deny", "message": NOBODY, "interrupt": False}
    assert step.events == (Question("r-1", "Which?", ("Red", "Blue")),)


def test_an_mcp_servers_question_is_declined() -> None:
    step = started().hears(asks("elicitation", message="Your birthday?", mcp_server_name="forms"))
    assert answer(step)["response"] == {"action": "decline"}
    assert step.events == (Question("r-1", "Your birthday?"),)


@pytest.mark.parametrize(
    "subtype", ["hook_callback", "mcp_message", "request_user_dialog", "from_tomorrow", ""]
)
def test_no_request_stays_unanswered(subtype: str) -> None:
    step = started().hears(asks(subtype))
    assert answer(step)["subtype"] == "error"
    assert isinstance(step.events[0], Unknown)


def test_its_echo_of_our_answer_is_nothing_new() -> None:
    step = started().hears(
        {"type": "control_response", "response": {"subtype": "success", "request_id": "r-1"}}
    )
    assert (step.events, step.write) == ((), b"")


@pytest.mark.parametrize(
    ("permissions", "mode"),
    [(Permissions.AUTO, "bypassPermissions"), (Permissions.ASK, "default"), (Permissions.PLAN, "plan")],
)
def test_the_mode_is_always_named(permissions: Permissions, mode: str) -> None:
    """A resumed conversation would keep the mode that it had."""
    argv = CODEC.launch(replace(TASK, permissions=permissions, resume_token="s-1")).argv
    assert argv[argv.index("--permission-mode") + 1] == mode
    asks = permissions is not Permissions.AUTO
    assert ("--managed-settings" in argv) is asks
    assert ("--allow-dangerously-skip-permissions" in argv) is (permissions is Permissions.PLAN)


def test_the_effort_is_passed_on() -> None:
    argv = CODEC.launch(replace(TASK, effort="xhigh")).argv
    assert argv[argv.index("--effort") + 1] == "xhigh"
    assert "--effort" not in CODEC.launch(TASK).argv


def test_the_operators_environment_goes_along() -> None:
    env = ClaudeCodec(env={"CLAUDE_CODE_MAX_RETRIES": "3", "DISABLE_TELEMETRY": "0"}).launch(TASK).env
    assert (env["CLAUDE_CODE_MAX_RETRIES"], env["DISABLE_TELEMETRY"]) == ("3", "0")


def test_pictures_are_named_under_the_words() -> None:
    prompt = Prompt(FIRST, "See this", (1,), ("/home/agent/in/a.png", "/home/agent/in/b.png"))
    told = json.loads(CODEC.begin(replace(TASK, prompt=prompt)).write.splitlines()[1])
    text = told["message"]["content"][0]["text"]
    assert text.startswith("See this\n\n") and text.endswith("\n/home/agent/in/a.png\n/home/agent/in/b.png")


# asking people

ASK_BASH: dict[str, Any] = {
    "tool_name": "Bash",
    "input": {"command": "rm -rf build", "description": "Tidy"},
    "tool_use_id": "t",
}


def test_an_approval_is_asked_and_allowed_as_it_is() -> None:
    talk = started(Permissions.ASK, answerable=True)
    step = talk.hears(asks("can_use_tool", **ASK_BASH))
    assert step.events == (ApprovalAsked("r-1", "Run rm -rf build", "rm -rf build", ToolKind.EXECUTE),)
    assert step.write == b""
    assert answer(talk.decide("r-1", True))["response"] == {"behavior": "allow"}
    # Once.
    assert talk.decide("r-1", True).write == b""


def test_a_denial_says_why() -> None:
    talk = started(Permissions.ASK, answerable=True)
    talk.hears(asks("can_use_tool", **ASK_BASH))
    denied = answer(talk.decide("r-1", False, "nobody answered within an hour"))["response"]
    assert (denied["behavior"], denied["interrupt"]) == ("deny", False)
    assert "nobody answered within an hour" in denied["message"]


def test_a_denied_call_did_not_run() -> None:
    talk = started(Permissions.ASK, answerable=True)
    talk.hears(says(uses("t", "Bash", command="rm -rf build")), asks("can_use_tool", **ASK_BASH))
    talk.decide("r-1", False)
    meta = [{"id": "t", "non_execution_kind": "permission-rule"}]
    [call] = calls(talk.hears({**gave("t", "This was not allowed.", failed=True), "tool_result_meta": meta}))
    assert (call.title, call.status) == ("Not run: rm -rf build", ToolStatus.FAILED)


@pytest.mark.parametrize("end", ["cancel", "result", "exit"])
def test_what_nobody_waits_for_any_more_is_withdrawn(end: str) -> None:
    talk = started(Permissions.ASK, answerable=True)
    talk.hears(asks("can_use_tool", **ASK_BASH))
    if end == "cancel":
        step = talk.hears({"type": "control_cancel_request", "request_id": "r-1"})
    elif end == "result":
        step = talk.hears(result())
    else:
        step = talk.take(CODEC.on(talk.state, Exited(137, "")))
    assert Withdrawn("r-1") in step.events
    late = talk.decide("r-1", True)
    assert (late.write, late.events) == (b"", ())


@pytest.mark.parametrize("tool", ["Read", "Glob", "EnterPlanMode", "Agent"])
def test_what_changes_nothing_is_not_asked_for(tool: str) -> None:
    step = started(Permissions.ASK, answerable=True).hears(
        asks("can_use_tool", tool_name=tool, input={}, tool_use_id="t")
    )
    assert answer(step)["response"] == {"behavior": "allow"}
    assert step.events == ()


def test_where_nobody_can_be_asked_it_is_not_allowed() -> None:
    step = started(Permissions.ASK).hears(asks("can_use_tool", **ASK_BASH))
    assert answer(step)["response"] == {"behavior": "deny", "message": NOBODY_MAY, "interrupt": False}
    assert step.events == (Notice("Not allowed, as nobody can be asked: Run rm -rf build"),)


@pytest.mark.parametrize("id", ["", "a/b", "x" * 300, "nul\x00"])
def test_a_request_whose_id_we_cannot_keep_is_not_allowed(id: str) -> None:
    talk = started(Permissions.ASK, answerable=True)
    step = talk.hears({**asks("can_use_tool", **ASK_BASH), "request_id": id})
    response = json.loads(step.write)["response"]
    assert (response["request_id"], response["response"]["behavior"]) == (id, "deny")


def test_a_plan_is_put_to_people_and_lets_it_work() -> None:
    talk = started(Permissions.PLAN, answerable=True)
    plan = {"plan": "1. Mend it\n2. Test it", "planFilePath": "/home/agent/.claude/plans/a.md"}
    request = asks("can_use_tool", tool_name="ExitPlanMode", input=plan, requires_user_interaction=True)
    step = talk.hears(request)
    assert step.events == (
        ApprovalAsked("r-1", "Go ahead with a plan", "1. Mend it\n2. Test it", ToolKind.THINK),
    )
    refused = answer(talk.decide("r-1", False, "test it first"))["response"]
    assert refused["behavior"] == "deny" and "test it first" in refused["message"]
    talk.hears(request)
    allowed = answer(talk.decide("r-1", True))["response"]
    assert allowed["updatedPermissions"] == [
        {"type": "setMode", "mode": "bypassPermissions", "destination": "session"}
    ]
    # Should it ask all the same, its steps are allowed; another plan is shown again.
    assert answer(talk.hears(asks("can_use_tool", **ASK_BASH)))["response"] == {"behavior": "allow"}
    assert isinstance(talk.hears(request).events[0], ApprovalAsked)


def test_a_plan_of_its_own_where_each_step_is_asked_for() -> None:
    talk = started(Permissions.ASK, answerable=True)
    talk.hears(asks("can_use_tool", tool_name="ExitPlanMode", input={"plan": "Mend it"}))
    assert answer(talk.decide("r-1", True))["response"] == {"behavior": "allow"}
    assert isinstance(talk.hears(asks("can_use_tool", **ASK_BASH)).events[0], ApprovalAsked)


@pytest.mark.parametrize(
    ("tool", "given", "detail"),
    [
        ("Bash", {"command": "make\n\ntest", "description": "x", "timeout": 5}, "make\n\ntest"),
        ("Bash", {"command": "echo safe\rrm -rf ~"}, "echo safe\\u000drm -rf ~"),
        ("Bash", {"command": "echo \u202egnp.exe\u200b\x1b[2K"}, "echo \\u202egnp.exe\\u200b\\u001b[2K"),
        ("Bash", {"command": "ls", "run_in_background": True}, 'ls\n{\n "run_in_background": true\n}'),
        ("Write", {"file_path": "/w/a", "content": "one\ntwo\n"}, "/w/a\n+one\n+two"),
        (
            "Edit",
            {"file_path": "/w/a", "old_string": "b", "new_string": "c", "replace_all": False},
            "/w/a\n-b\n+c",
        ),
        ("mcp__db__drop", {"table": "users"}, '{\n "table": "users"\n}'),
        ("Bash", {}, ""),
    ],
)
def test_people_read_exactly_what_they_allow(tool: str, given: Frame, detail: str) -> None:
    step = started(Permissions.ASK, answerable=True).hears(
        asks("can_use_tool", tool_name=tool, input=given, tool_use_id="t")
    )
    [asked] = step.events
    assert isinstance(asked, ApprovalAsked) and asked.detail == detail


TWO_QUESTIONS = {
    "questions": [
        {
            "question": "Which?",
            "multiSelect": True,
            "options": [{"label": "Red", "description": "Warm"}, {"label": "Blue"}],
        },
        {"question": "Why?", "options": []},
    ]
}


def asked_two() -> Talk:
    talk = started(answerable=True)
    step = talk.hears(asks("can_use_tool", tool_name="AskUserQuestion", input=TWO_QUESTIONS, tool_use_id="t"))
    words = "Which?\n• Red: Warm\n(More than one may be chosen.)"
    assert (step.events, step.write) == ((Question("r-1", words, ("Red", "Blue"), open=True),), b"")
    return talk


def test_questions_are_asked_one_after_the_other() -> None:
    talk = asked_two()
    assert talk.answer("r-1/2", "too early").events == ()
    step = talk.answer("r-1", "Blue, Red")
    assert (step.events, step.write) == ((Question("r-1/2", "Why?", (), open=True),), b"")
    assert talk.answer("r-1", "again").events == ()
    given = answer(talk.answer("r-1/2", "Because"))["response"]["updatedInput"]
    assert given["answers"] == {"Which?": "Blue, Red", "Why?": "Because"}
    assert given["questions"] == TWO_QUESTIONS["questions"]
    assert talk.answer("r-1/2", "again").write == b""


def test_who_does_not_answer_one_question_is_not_asked_the_next() -> None:
    refused = answer(asked_two().answer("r-1", "", "an hour has passed"))["response"]
    assert refused["behavior"] == "deny"
    assert "an hour has passed" in refused["message"] and NOBODY in refused["message"]
    talk = asked_two()
    talk.answer("r-1", "Blue")
    given = answer(talk.answer("r-1/2", "", "an hour has passed"))["response"]["updatedInput"]
    assert given["answers"] == {"Which?": "Blue", "Why?": "(nobody answered) an hour has passed"}


def test_the_question_that_is_open_is_the_one_withdrawn() -> None:
    talk = asked_two()
    talk.answer("r-1", "Blue")
    step = talk.hears({"type": "control_cancel_request", "request_id": "r-1"})
    assert step.events == (Withdrawn("r-1/2"),)


def test_a_yes_is_no_answer_and_an_answer_no_yes() -> None:
    talk = asked_two()
    assert talk.decide("r-1", True).write == b""
    talk = started(Permissions.ASK, answerable=True)
    talk.hears(asks("can_use_tool", **ASK_BASH))
    assert talk.answer("r-1", "yes").write == b""
