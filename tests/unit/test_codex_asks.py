"""What Codex asks: approvals, questions and plans, with all their answers."""

from __future__ import annotations

import pytest

from bot.agents.asking import NOBODY, NOBODY_MAY, UNANSWERED
from bot.agents.codec import Exited, Permissions, Step, Task
from bot.agents.codex.tools import only_reads
from bot.agents.codex.turns import APPROVED
from bot.events import (
    ApprovalAsked,
    Completed,
    Question,
    StopReason,
    Text,
    ToolKind,
    ToolStatus,
    Unknown,
    Withdrawn,
)
from tests.agents.codex_talk import (
    ASK,
    CODEC,
    FIRST,
    PLAN,
    TASK,
    UNATTENDED,
    Talk,
    asks,
    asks_command,
    begun,
    calls,
    ended,
    joined,
    over,
    reply,
    running,
    said,
    started,
    tell,
    took,
)

# approvals


def test_an_unknown_request_is_refused_and_kept() -> None:
    step = started().hears(asks("item/tool/fly"))
    assert reply(step)["code"] == -32601
    assert [event.name for event in step.events if isinstance(event, Unknown)] == ["item/tool/fly"]


def test_an_elicitation_is_declined() -> None:
    step = started().hears(asks("mcpServer/elicitation/request", message="Log in?"))
    assert reply(step)["action"] == "decline"
    assert [event.text for event in step.events if isinstance(event, Question)] == ["Log in?"]


def test_where_nothing_is_asked_a_request_is_allowed() -> None:
    step = started().hears(asks_command("make"))
    assert reply(step) == {"decision": "accept"}
    assert not [event for event in step.events if isinstance(event, ApprovalAsked)]


def test_a_change_of_files_is_shown_whole() -> None:
    talk = started(ASK)
    changes = [
        {"path": "/home/agent/work/a.py", "kind": {"type": "add"}, "diff": "one\ntwo\n"},
        {"path": "/home/agent/work/b.py", "kind": {"type": "update"}, "diff": "@@ -1 +1 @@\n-x\n+\u202ey\rz"},
    ]
    [pending] = calls(talk.hears(begun("fileChange", changes=changes)))
    assert pending.status is ToolStatus.PENDING
    step = talk.hears(asks("item/fileChange/requestApproval"))
    assert step.write == b""
    assert step.events == (
        ApprovalAsked(
            "call-1",
            "Edit a.py, b.py",
            "/home/agent/work/a.py\n+one\n+two\n/home/agent/work/b.py\n@@ -1 +1 @@\n-x\n+\\u202ey\\u000dz",
            ToolKind.EDIT,
        ),
    )
    step = talk.decide("call-1", allowed=True)
    assert reply(step) == {"decision": "accept"}
    assert [call.status for call in calls(step)] == [ToolStatus.IN_PROGRESS]


def test_a_move_is_shown_with_its_target() -> None:
    talk = started(ASK)
    moved = {"type": "update", "move_path": "/home/agent/work/.git/hooks/pre-commit"}
    changes = [
        {"path": "/home/agent/work/a.sh", "kind": moved, "diff": "@@ -1 +1 @@\n-x\n+y\n"},
        {"path": "/home/agent/work/b", "kind": {"type": "add"}, "diff": "b\n"},
    ]
    talk.hears(begun("fileChange", changes=changes))
    [asked] = talk.hears(asks("item/fileChange/requestApproval")).events
    assert isinstance(asked, ApprovalAsked)
    assert "a.sh → /home/agent/work/.git/hooks/pre-commit" in asked.detail


def test_a_command_elsewhere_is_shown_with_its_place_and_anothers_shell_with_its_path() -> None:
    talk = started(ASK)
    [asked] = talk.hears(asks_command("make install", cwd="/etc")).events
    assert isinstance(asked, ApprovalAsked) and asked.detail == "make install\n(in /etc)"
    reading = [{"type": "read", "command": "ls"}]
    step = started(ASK).hears(
        asks(
            "item/commandExecution/requestApproval",
            command="/home/agent/work/bash -lc ls",
            commandActions=reading,
        )
    )
    assert step.write == b""
    [asked] = step.events
    assert isinstance(asked, ApprovalAsked) and asked.detail == "/home/agent/work/bash -lc ls"


def test_a_no_is_followed_by_its_reason() -> None:
    talk = started(ASK)
    talk.hears(running("rm -r /"), asks_command("rm -r /"))
    step = talk.decide("call-1", allowed=False, reason="Ana says: never")
    note, no = said(step)
    assert (note["method"], no["result"]) == ("turn/steer", {"decision": "decline"})
    assert "Ana says: never" in note["params"]["input"][0]["text"]
    assert talk.decide("call-1", allowed=True).write == b""


def test_where_nobody_can_be_asked_the_answer_is_no() -> None:
    talk = started(UNATTENDED)
    step = talk.hears(running("make"), asks_command("make"))
    note, no = said(step)
    assert note["params"]["input"][0]["text"] == NOBODY_MAY
    assert no["result"] == {"decision": "decline"}


def test_reading_is_allowed_without_people() -> None:
    reading = asks_command("cat a.py", commandActions=[{"type": "read", "command": "cat a.py"}])
    assert reply(started(UNATTENDED).hears(reading)) == {"decision": "accept"}


@pytest.mark.parametrize(
    ("command", "harmless"),
    [
        ("ls -la", True),
        ("cat a.py | head -5", True),
        ("rg -n 'def main' src", True),
        ("sed -n '1,200p' src/app.py", True),
        ("cat a.py > b.py", False),
        ("cat a.py; rm b.py", False),
        ("cat $(rm b.py)", False),
        ("cat `rm b.py`", False),
        ("cat a.py | sh", False),
        ("ls || rm b.py", False),
        ("ls && rm b.py", False),
        ("ls\nrm b.py", False),
        ("ls & rm b.py", False),
        ("rg --pre rm x", False),
        ("sed -n '1w b.py' a.py", False),
        ("sed -i s/a/b/ a.py", False),
        ("find . -delete", False),
        ("git diff", False),
        ("LD_PRELOAD=./x.so cat a.py", False),
        ("./cat a.py", False),
        ("cat 'a.py", False),
        ("", False),
    ],
)
def test_what_only_reads(command: str, harmless: bool) -> None:
    params = {"command": command, "commandActions": [{"type": "read", "command": command}]}
    assert only_reads(params) is harmless
    assert not only_reads({**params, "commandActions": [{"type": "unknown"}]})
    assert not only_reads({"command": command})


def test_more_permissions_are_granted_as_they_were_asked_for() -> None:
    talk = started(ASK)
    wanted = {"network": {"enabled": True}}
    talk.hears(asks("item/permissions/requestApproval", permissions=wanted, reason="To fetch"))
    assert reply(talk.decide("call-1", allowed=True)) == {"permissions": wanted, "scope": "turn"}
    talk.hears(asks("item/permissions/requestApproval", permissions=wanted))
    step = talk.decide("call-1", allowed=False)
    assert said(step)[-1]["result"] == {"permissions": {}, "scope": "turn"}


def test_one_call_that_asks_twice_asks_under_two_names() -> None:
    talk = started(ASK)
    talk.hears(running("make"), asks_command("make"))
    step = talk.hears({**asks_command("make"), "id": 1})
    [asked] = step.events
    assert isinstance(asked, ApprovalAsked)
    assert asked.id == "call-1-2"
    assert said(talk.decide("call-1-2", allowed=True))[0]["id"] == 1


def test_what_codex_does_not_wait_for_any_more_is_withdrawn() -> None:
    talk = started(ASK)
    talk.hears(running("make"), asks_command("make"))
    resolved = tell("serverRequest/resolved", requestId=0)
    assert talk.hears(resolved).events == (Withdrawn("call-1"),)
    assert talk.hears(resolved).events == ()


def test_a_dead_process_waits_for_nothing() -> None:
    talk = started(ASK)
    talk.hears(running("make"), asks_command("make"))
    assert CODEC.on(talk.state, Exited(1, "")).events == (Withdrawn("call-1"),)


QUESTIONS = [
    {"id": "colour", "question": "Which colour?", "options": [{"label": "Red", "description": "Warm"}]},
    {"id": "size", "question": "Which size?", "options": None},
]


def answerable() -> Talk:
    return started(Task(TASK.prompt, TASK.cwd, TASK.home, answerable=True))


def test_questions_are_put_one_after_the_other() -> None:
    talk = answerable()
    step = talk.hears(asks("item/tool/requestUserInput", questions=QUESTIONS))
    assert step.events == (Question("call-1", "Which colour?\n• Red: Warm", ("Red",), open=True),)
    step = talk.answer("call-1", "Blue")
    assert (step.events, step.write) == ((Question("call-1/2", "Which size?", (), open=True),), b"")
    assert talk.answer("call-1", "Green").write == b""  # of a question that was answered
    assert reply(talk.answer("call-1/2", "Large")) == {
        "answers": {"colour": {"answers": ["Blue"]}, "size": {"answers": ["Large"]}}
    }


def test_who_does_not_answer_is_not_asked_on() -> None:
    talk = answerable()
    talk.hears(asks("item/tool/requestUserInput", questions=QUESTIONS))
    answers = reply(talk.answer("call-1", "", "it took too long"))["answers"]
    assert answers["colour"]["answers"] == [f"{UNANSWERED} it took too long"]
    assert NOBODY in answers["size"]["answers"][0]


# planning


def planned(task: Task = PLAN) -> tuple[Talk, Step]:
    talk = joined(task)
    mode = said(talk.steps[-1])[0]["params"]["collaborationMode"]["mode"]
    assert mode == "plan"
    talk.answered({"turn": {"id": "u-1"}})
    return talk, talk.hears(took(FIRST), over("plan", text="1. Mend it"), ended(text=""))


def test_a_plan_waits_for_people() -> None:
    talk, step = planned()
    assert step.completed is None
    [asked] = [event for event in step.events if isinstance(event, ApprovalAsked)]
    assert asked.detail == "1. Mend it"
    [start] = said(talk.decide(asked.id, allowed=True))
    assert start["params"]["input"][0]["text"] == APPROVED
    assert start["params"]["approvalPolicy"] == "never"
    assert start["params"]["collaborationMode"]["mode"] == "default"


def test_words_about_a_plan_are_answered_by_a_new_one() -> None:
    talk, _ = planned()
    step = talk.steer("Ben: with a test")
    assert Withdrawn("u-1-plan") in step.events
    [start] = said(step)
    assert start["params"]["collaborationMode"]["mode"] == "plan"


def test_stop_while_a_plan_waits() -> None:
    talk, _ = planned()
    assert Withdrawn("u-1-plan") in talk.interrupt().events
    assert talk.answered().completed == Completed(StopReason.CANCELLED)


def test_a_plan_that_nobody_can_approve_is_the_answer() -> None:
    _, step = planned(Task(TASK.prompt, TASK.cwd, TASK.home, permissions=Permissions.PLAN))
    assert Text("1. Mend it") in step.events
    assert step.completed == Completed(StopReason.END, "1. Mend it")


def test_an_answer_instead_of_a_plan_is_an_answer() -> None:
    talk = joined(PLAN)
    talk.answered({"turn": {"id": "u-1"}})
    assert talk.hears(took(FIRST), ended()).completed == Completed(StopReason.END, "Done.")
