"""OpenCode's sub-agents: a run that waits for one takes no message in, so they make way."""

from __future__ import annotations

from typing import Any

from bot.agents.codec import Permissions, Task
from bot.agents.opencode.subagents import GIVES_WAY, MADE_WAY
from bot.events import Notice, ToolStatus, Withdrawn
from tests.agents.opencode_talk import (
    CHILD,
    SECOND,
    SESSION,
    TASK,
    Frame,
    Talk,
    calls,
    event,
    heard,
    running,
    speaks,
    status,
    task,
    tool,
)


def delegating(task: Task = TASK) -> Talk:
    """A sub-agent has begun to work."""
    talk = running(task)
    talk.hears(tool("task", "running", metadata={"sessionId": CHILD}, input={"description": "Look"}))
    talk.hears(
        status("busy", CHILD), tool("bash", "running", "prt_9", CHILD, "msg_3", input={"command": "ls"})
    )
    return talk


def cancelled(call: str = "prt_t", child: str = CHILD) -> Frame:
    return tool("task", "error", call, error="Task cancelled", metadata={"sessionId": child})


def test_a_sub_agent_makes_way_for_a_message_once_that_is_there_to_be_read() -> None:
    talk = delegating()
    talk.steer()
    assert not talk.count("yield")
    step = talk.hears(heard(SECOND, "msg_4"))
    assert talk.last("yield")["path"] == f"/session/{CHILD}/abort"
    assert Notice(GIVES_WAY) in step.events
    ended = calls(talk.hears(event("session.idle", CHILD), cancelled()))
    assert {(call.id, call.status, call.result) for call in ended} == {
        ("prt_9", ToolStatus.FAILED, MADE_WAY),
        ("prt_t", ToolStatus.FAILED, MADE_WAY),
    }
    late = tool("bash", "completed", "prt_9", CHILD, "msg_3", input={"command": "ls"}, output="")
    assert talk.hears(late).events == ()
    assert talk.hears(speaks("msg_5", "msg_4")).consumed == (2,)


def test_a_sub_agent_that_begins_while_a_message_waits_makes_way_when_it_works() -> None:
    """An abort of one that has not begun would do nothing."""
    talk = running()
    talk.steer()
    talk.hears(heard(SECOND, "msg_4"))
    talk.hears(tool("task", "running", metadata={"sessionId": CHILD}, input={"description": "Look"}))
    assert not talk.count("yield")
    talk.hears(status("busy", CHILD))
    assert talk.count("yield") == 1
    # It works on after all, so it is told again, and people are not.
    again = talk.hears(status("busy", CHILD))
    assert talk.count("yield") == 2
    assert Notice(GIVES_WAY) not in again.events


def test_a_message_stops_no_sub_agent_that_is_back() -> None:
    talk = delegating()
    done = tool("task", "completed", metadata={"sessionId": CHILD}, output="Looked.")
    talk.hears(event("session.idle", CHILD), done)
    talk.steer()
    talk.hears(heard(SECOND, "msg_4"))
    assert not talk.count("yield")


def test_what_a_stopped_sub_agent_asked_of_people_is_withdrawn() -> None:
    talk = delegating(task(Permissions.ASK))
    mine: dict[str, Any] = {
        "id": "per_1",
        "permission": "bash",
        "patterns": ["ls"],
        "metadata": {"command": "ls"},
    }
    other = {**mine, "id": "per_2"}
    asked: dict[str, Any] = {"id": "que_1", "questions": [{"question": "Which?", "options": []}]}
    talk.hears(
        event("permission.asked", CHILD, **mine),
        event("permission.asked", **other),
        event("question.asked", CHILD, **asked),
    )
    talk.steer()
    talk.hears(heard(SECOND, "msg_4"))
    step = talk.hears(event("session.idle", CHILD), cancelled())
    assert [e.id for e in step.events if isinstance(e, Withdrawn)] == ["per_1", "que_1"]
    talk.decide("per_2", allowed=True)
    assert talk.last("permission")["path"] == "/permission/per_2/reply"


def test_a_sub_agent_that_began_unheard_makes_way_too() -> None:
    talk = running()
    talk.hears(tool("task", "running", metadata={"sessionId": CHILD}, input={"description": "Look"}))
    talk.steer()
    talk.hears(heard(SECOND, "msg_4"), {"type": "reconnected"})
    talk.replied("missed", {SESSION: {"type": "busy"}, CHILD: {"type": "busy"}})
    assert talk.count("yield") == 1
