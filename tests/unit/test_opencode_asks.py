"""What OpenCode asks of people, and what it is answered: permissions, questions, the plan."""

from __future__ import annotations

from typing import Any

import pytest

from bot.agents.asking import NOBODY
from bot.agents.codec import (
    Permissions,
)
from bot.agents.opencode.asks import UNSEEN
from bot.agents.opencode.turn import APPROVED, NOT_APPROVED
from bot.events import (
    ApprovalAsked,
    Completed,
    Notice,
    Question,
    StopReason,
    ToolKind,
    Withdrawn,
)
from tests.agents.opencode_talk import (
    BUSY,
    CHILD,
    IDLE,
    SECOND,
    SESSION,
    Frame,
    Talk,
    event,
    failure,
    heard,
    running,
    says,
    speaks,
    task,
    tool,
)

# what it asks


def asks(id: str = "per_1", name: str = "bash", session: str = SESSION, **metadata: Any) -> Frame:
    details = metadata or {"command": "rm -rf build && make"}
    return event("permission.asked", session, id=id, permission=name, patterns=["rm *"], metadata=details)


@pytest.mark.parametrize(
    ("name", "metadata", "expected"),
    [
        ("bash", {"command": "a && b"}, ApprovalAsked("per_1", "Run a && b", "a && b", ToolKind.EXECUTE)),
        (
            "edit",
            {"filepath": "/home/agent/work/a.py", "diff": "+x"},
            ApprovalAsked("per_1", "Edit a.py", "/home/agent/work/a.py\n+x", ToolKind.EDIT),
        ),
        (
            "webfetch",
            {"url": "https://x.org", "format": "text"},
            ApprovalAsked("per_1", "Fetch https://x.org", "https://x.org", ToolKind.FETCH),
        ),
        (
            "db_drop",
            {"table": "users"},
            ApprovalAsked("per_1", "Use db_drop: rm *", '{"table": "users"}', ToolKind.OTHER),
        ),
    ],
)
def test_people_are_shown_exactly_what_would_be_done(
    name: str, metadata: dict[str, Any], expected: ApprovalAsked
) -> None:
    talk = running(task(Permissions.ASK))
    assert talk.hears(asks(name=name, **metadata)).events == (expected,)
    talk.decide("per_1", allowed=True)
    assert talk.last("permission")["path"] == "/permission/per_1/reply"
    assert talk.last("permission")["body"] == {"reply": "once"}


def test_a_refusal_has_words_since_one_without_would_end_the_run() -> None:
    talk = running(task(Permissions.ASK))
    talk.hears(asks("per_1"), asks("per_2"))
    talk.decide("per_1", allowed=False, reason="not today")
    assert talk.last("permission")["body"] == {"reply": "reject", "message": "not today"}
    talk.decide("per_2", allowed=False)
    assert talk.last("permission")["body"]["message"]
    talk.decide("per_2", allowed=True)
    assert talk.count("permission") == 2


def test_what_opencode_refuses_along_with_it_is_withdrawn() -> None:
    talk = running(task(Permissions.ASK))
    talk.hears(asks("per_1"), asks("per_2"))
    talk.decide("per_1", allowed=False, reason="no")
    replied = event("permission.replied", requestID="per_2", reply="reject")
    assert talk.hears(replied).events == (Withdrawn("per_2"),)
    assert talk.hears(event("permission.replied", requestID="per_1", reply="reject")).events == ()


def test_a_request_is_withdrawn_when_its_run_is_over() -> None:
    talk = running(task(Permissions.ASK))
    talk.hears(asks())
    talk.interrupt()
    step = talk.hears(failure("Aborted", "MessageAbortedError"), IDLE, IDLE)
    assert Withdrawn("per_1") in step.events


def test_nobody_there_is_a_no_with_the_way_out() -> None:
    talk = running(task(Permissions.ASK, answerable=False))
    [notice] = talk.hears(asks()).events
    assert isinstance(notice, Notice)
    assert talk.last("permission")["body"] == {"reply": "reject", "message": NOBODY}


def test_what_does_not_say_what_it_would_do_is_not_put_to_people() -> None:
    """A tool of an MCP server: no metadata, and a pattern for everything."""
    talk = running(task(Permissions.ASK))
    told = {"id": "per_1", "permission": "deploy_prod", "patterns": ["*"], "metadata": {}}
    [notice] = talk.hears(event("permission.asked", SESSION, **told)).events
    assert isinstance(notice, Notice)
    assert talk.last("permission")["body"] == {"reply": "reject", "message": UNSEEN}


def test_auto_allows_what_a_rule_of_the_repository_asks_about() -> None:
    talk = running(task(Permissions.AUTO))
    assert talk.hears(asks()).events == ()
    assert talk.last("permission")["body"] == {"reply": "once"}


def test_a_sub_agent_asks_like_its_agent_and_strangers_are_not_heard() -> None:
    talk = running(task(Permissions.ASK))
    assert talk.hears(asks(session="ses_of_others")).events == ()
    talk.hears(tool("task", "running", metadata={"sessionId": CHILD}, input={}))
    assert talk.hears(asks(session=CHILD)).events != ()


def questions(*texts: str, id: str = "que_1") -> Frame:
    options = [{"label": "Red"}, {"label": "Blue"}]
    return event("question.asked", id=id, questions=[{"question": t, "options": options} for t in texts])


def test_a_question_waits_for_its_answer() -> None:
    talk = running(task())
    step = talk.hears(questions("Which?"))
    assert step.events == (Question("que_1", "Which?", ("Red", "Blue"), open=True),)
    talk.answer("que_1", "Blue")
    assert talk.last("question")["path"] == "/question/que_1/reply"
    assert talk.last("question")["body"] == {"answers": [["Blue"]]}


def test_a_question_is_answered_at_its_own_path_whatever_its_id() -> None:
    talk = running(task())
    (first, second) = talk.hears(questions("Which?", "When?", id="../session?a=1")).events
    assert isinstance(first, Question) and isinstance(second, Question)
    talk.answer(first.id, "Blue")
    talk.answer(second.id, "Now")
    assert talk.last("question")["path"] == "/question/..%2Fsession%3Fa%3D1/reply"


def test_several_questions_are_answered_together() -> None:
    talk = running(task())
    first, second = talk.hears(questions("Which?", "When?")).events
    assert isinstance(first, Question) and isinstance(second, Question)
    assert (second.text, first.id != second.id) == ("When?", True)
    assert talk.answer(second.id, "now").write == b""
    talk.answer(first.id, "", "Nobody was there for an hour.")
    answers = talk.last("question")["body"]["answers"]
    assert "Nobody was there for an hour." in answers[0][0]
    assert answers[1] == ["now"]
    assert talk.answer(first.id, "again").write == b""


@pytest.mark.parametrize("id", ["que_9", "que_1/7", "que_1/x", "que_1/²", ""])
def test_an_answer_to_nothing_is_nothing(id: str) -> None:
    talk = running(task())
    talk.hears(questions("Which?"))
    if id != "que_1/x" and id != "que_1/²":
        assert talk.answer(id, "Blue").write == b""


def test_a_question_that_nobody_can_answer_is_answered_with_the_way_out() -> None:
    talk = running(task(answerable=False))
    step = talk.hears(questions("Which?", "When?"))
    assert [e.open for e in step.events if isinstance(e, Question)] == [False, False]
    assert talk.last("question")["body"] == {"answers": [[NOBODY], [NOBODY]]}


def test_an_open_question_is_withdrawn_when_it_is_settled_otherwise() -> None:
    talk = running(task())
    talk.hears(questions("Which?"))
    assert talk.hears(event("question.rejected", requestID="que_1")).events == (Withdrawn("que_1"),)


# the plan


def planned() -> Talk:
    talk = running(task(Permissions.PLAN))
    talk.hears(says("1. Do it.", "msg_2"))
    return talk


def test_nothing_of_a_plan_is_hidden_from_who_approves_it() -> None:
    talk = running(task(Permissions.PLAN))
    talk.hears(says("drop the prod db\rfix a typo", "msg_2"))
    [asked] = talk.hears(IDLE).events
    assert isinstance(asked, ApprovalAsked) and asked.detail == "drop the prod db\\u000dfix a typo"


def test_a_plan_is_put_to_people_and_carried_out_by_the_other_agent() -> None:
    talk = planned()
    assert talk.last("post")["body"]["agent"] == "plan"
    [asked] = talk.hears(IDLE).events
    assert isinstance(asked, ApprovalAsked)
    assert asked.detail == "1. Do it."
    talk.decide(asked.id, allowed=True)
    body = talk.last("post")["body"]
    assert (body["agent"], body["parts"][0]["text"]) == ("build", APPROVED)
    key = body["parts"][0]["metadata"]["sandpiper"]
    talk.hears(heard(key, "msg_3"), BUSY, speaks("msg_4", "msg_3"), asks())
    assert talk.last("permission")["body"] == {"reply": "once"}
    talk.hears(says("Did it.", "msg_4", "prt_6"))
    assert talk.hears(IDLE).completed == Completed(StopReason.END, "Did it.")
    talk.steer()
    assert talk.last("post")["body"]["agent"] == "build"


def test_a_plan_that_is_not_allowed_is_made_again_with_the_reason() -> None:
    talk = planned()
    [asked] = talk.hears(IDLE).events
    assert isinstance(asked, ApprovalAsked)
    assert talk.decide(asked.id, allowed=False, reason="Ana: with a test").completed is None
    body = talk.last("post")["body"]
    assert (body["agent"], body["parts"][0]["text"]) == ("plan", NOT_APPROVED.format(why="Ana: with a test"))
    key = body["parts"][0]["metadata"]["sandpiper"]
    talk.hears(heard(key, "msg_3"), BUSY, speaks("msg_4", "msg_3"), says("1. Test it.", "msg_4", "prt_6"))
    [again] = talk.hears(IDLE).events
    assert isinstance(again, ApprovalAsked) and again.id != asked.id
    assert again.detail == "1. Test it."
    talk.decide(again.id, allowed=True)
    assert talk.last("post")["body"]["agent"] == "build"


def test_words_about_a_plan_make_another_one() -> None:
    talk = planned()
    [asked] = talk.hears(IDLE).events
    assert isinstance(asked, ApprovalAsked)
    assert Withdrawn(asked.id) in talk.steer("Ben: rather that").events
    assert talk.last("post")["body"]["agent"] == "plan"
    step = talk.hears(
        heard(SECOND, "msg_3"), BUSY, speaks("msg_4", "msg_3"), says("2.", "msg_4", "prt_6"), IDLE
    )
    [again] = [e for e in step.events if isinstance(e, ApprovalAsked)]
    assert again.id != asked.id
    assert talk.decide(asked.id, allowed=True).write == b""


def test_a_plan_is_withdrawn_by_a_stop() -> None:
    talk = planned()
    [asked] = talk.hears(IDLE).events
    assert isinstance(asked, ApprovalAsked)
    assert Withdrawn(asked.id) in talk.interrupt().events
    assert talk.replied("abort", True).completed == Completed(StopReason.CANCELLED)


def test_a_plan_that_nobody_can_allow_is_the_answer() -> None:
    talk = running(task(Permissions.PLAN, answerable=False))
    assert talk.hears(says("1. Do it.", "msg_2"), IDLE).completed == Completed(StopReason.END, "1. Do it.")
