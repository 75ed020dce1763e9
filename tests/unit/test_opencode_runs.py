"""OpenCode's prompts and runs in orders that are rare: receipts, lost prompts, stops, failures."""

from __future__ import annotations

from typing import Any

import pytest

from bot.agents.codec import (
    Exited,
    Permissions,
)
from bot.agents.opencode.codec import OpenCodeCodec
from bot.agents.opencode.turn import MOST_LOOKS, MOST_TRIES
from bot.events import (
    ApprovalAsked,
    Cause,
    Completed,
    Notice,
    StopReason,
    Text,
    ToolStatus,
)
from tests.agents.opencode_talk import (
    BUSY,
    CHILD,
    CODEC,
    FIRST,
    IDLE,
    SECOND,
    SESSION,
    TASK,
    Frame,
    Talk,
    calls,
    event,
    failure,
    heard,
    part,
    running,
    says,
    speaks,
    started,
    status,
    task,
    tool,
)

# prompts and their receipts


def test_a_prompt_is_consumed_when_the_model_is_asked_with_it() -> None:
    talk = started()
    assert talk.hears(heard(FIRST, "msg_1"), BUSY).consumed == ()
    assert talk.hears(speaks("msg_2", "msg_1")).consumed == (1,)


def test_a_steer_is_consumed_by_the_answer_to_it_and_not_by_the_one_before() -> None:
    talk = running()
    assert talk.steer().written == (2,)
    talk.replied("post", None, 204)
    assert talk.hears(heard(SECOND, "msg_3"), says("…", "msg_2")).consumed == ()
    assert talk.hears(speaks("msg_4", "msg_3")).consumed == (2,)


def test_an_answer_to_a_later_message_has_heard_the_earlier_ones() -> None:
    """Such as the one that OpenCode writes itself, to go on after a compaction."""
    talk = running()
    talk.steer()
    assert talk.hears(heard(SECOND, "msg_3"), speaks("msg_5", "msg_4")).consumed == (2,)


def test_the_summary_of_a_compaction_answers_nobody() -> None:
    talk = running()
    talk.steer()
    step = talk.hears(
        heard(SECOND, "msg_3"), speaks("msg_4", "msg_3", summary=True), says("So far: …", "msg_4")
    )
    assert (step.consumed, step.events) == ((), ())
    assert talk.hears(speaks("msg_6", "msg_5")).consumed == (2,)


def test_a_message_without_our_mark_is_known_by_its_words() -> None:
    talk = started()
    talk.hears(part("text", "msg_1", text="Ana: fix it"), BUSY)
    assert talk.hears(speaks("msg_2", "msg_1")).consumed == (1,)


def test_an_answer_that_is_told_before_its_message_counts() -> None:
    talk = started()
    talk.hears(BUSY, speaks("msg_2", "msg_1"))
    assert talk.hears(heard(FIRST, "msg_1")).consumed == (1,)


def test_a_turn_is_over_when_nothing_runs_and_nothing_is_unread() -> None:
    talk = running()
    talk.hears(says("Done.", "msg_2"))
    assert talk.hears(IDLE).completed == Completed(StopReason.END, "Done.")
    assert talk.hears(IDLE).completed is None


def test_a_steer_that_was_posted_before_the_end_keeps_the_turn_open() -> None:
    talk = running()
    talk.steer()
    assert talk.hears(says("First.", "msg_2"), IDLE).completed is None
    talk.hears(heard(SECOND, "msg_3"), BUSY, speaks("msg_4", "msg_3"), says("Both.", "msg_4", "prt_6"))
    assert talk.hears(IDLE).completed == Completed(StopReason.END, "Both.")
    assert talk.inputs("consumed") == [1, 2]


def test_a_steer_after_the_end_begins_a_run_of_its_own() -> None:
    talk = running()
    talk.hears(says("First.", "msg_2"), IDLE)
    talk.steer()
    assert talk.count("post") == 2
    talk.hears(heard(SECOND, "msg_3"), BUSY, speaks("msg_4", "msg_3"), says("Both.", "msg_4", "prt_6"), IDLE)
    assert talk.completions == [Completed(StopReason.END, "First."), Completed(StopReason.END, "Both.")]


def test_the_idle_of_a_sub_agent_is_not_the_end() -> None:
    talk = running()
    metadata = {"sessionId": CHILD}
    talk.hears(tool("task", "running", metadata=metadata, input={"description": "Look"}))
    assert talk.hears(status("busy", CHILD), event("session.idle", CHILD)).completed is None


# a prompt that is stored and never read


def test_a_prompt_in_a_failing_run_waits_for_the_second_idle() -> None:
    talk = running()
    talk.hears(failure())
    assert talk.hears(IDLE).completed is None
    talk.steer()
    assert talk.count("post") == 1
    talk.hears(IDLE)
    assert talk.count("post") == 2


def test_where_the_second_idle_does_not_come_it_is_not_waited_for_for_ever() -> None:
    talk = running()
    talk.hears(failure(), IDLE)
    talk.steer()
    assert talk.last("gone") == {"id": talk.last("gone")["id"], "method": "WAIT", "seconds": 5.0}
    talk.replied("gone")
    assert talk.count("post") == 2


def test_a_wait_of_an_earlier_run_means_nothing() -> None:
    talk = running()
    talk.hears(failure(), IDLE)
    old = talk.last("gone")["id"]
    talk.steer()
    talk.hears(IDLE, heard(SECOND, "msg_3"), BUSY, speaks("msg_4", "msg_3"), failure(), IDLE)
    assert talk.hears({"type": "reply", "id": old, "status": 200}).completed is None
    assert talk.replied("gone").completed is not None


def lost_one() -> Talk:
    """A steer whose message came while the run was failing: stored, and never read."""
    talk = running()
    talk.steer()
    talk.hears(failure(), IDLE, heard(SECOND, "msg_3"), IDLE)
    return talk


def test_a_lost_prompt_is_posted_again_in_place_of_what_was_stored() -> None:
    talk = lost_one()
    assert talk.completions == []
    assert talk.last("look")["method"] == "WAIT"
    talk.replied("look")
    assert (talk.last("lost")["method"], talk.last("lost")["path"]) == (
        "DELETE",
        f"/session/{SESSION}/message/msg_3",
    )
    assert talk.count("post") == 2
    talk.replied("lost", True)
    assert talk.count("post") == 3
    assert talk.last("post")["body"]["parts"][0]["text"] == "Ben: also this"
    talk.hears(heard(SECOND, "msg_5"), BUSY, speaks("msg_6", "msg_5"), says("Both.", "msg_6"), IDLE)
    assert talk.completions == [Completed(StopReason.END, "Both.")]
    assert talk.inputs("consumed") == [1, 2]


def test_what_seemed_lost_and_runs_after_all_is_left_alone() -> None:
    talk = lost_one()
    talk.hears(BUSY)
    talk.replied("look")
    assert talk.count("lost") == 0
    talk = lost_one()
    talk.replied("look")
    talk.hears(BUSY)
    talk.replied("lost", {"name": "BusyError"}, 400)
    assert talk.count("post") == 2
    assert talk.hears(speaks("msg_6", "msg_3")).consumed == (2,)


def test_a_prompt_that_is_lost_again_and_again_is_handed_back() -> None:
    talk = lost_one()
    for number in range(MOST_TRIES + 1):
        talk.replied("look")
        talk.replied("lost", True)
        talk.hears(BUSY, heard(SECOND, f"msg_{number + 4}"), IDLE)
    assert talk.inputs("deferred") == [2]
    [completed] = talk.completions
    assert completed.reason is StopReason.ERROR


def test_a_prompt_whose_message_never_comes_is_handed_back() -> None:
    talk = started()
    for _ in range(MOST_LOOKS + 1):
        assert talk.completions == []
        talk.replied("look")
    assert talk.inputs("deferred") == [1]
    [completed] = talk.completions
    assert completed.reason is StopReason.ERROR


def test_a_prompt_that_the_server_refuses_is_handed_back() -> None:
    talk = Talk()
    talk.replied("new", {"id": SESSION})
    step = talk.replied("post", {"data": {"message": "Invalid agent"}}, 400)
    assert step.deferred == (1,)
    assert step.completed is not None
    assert "Invalid agent" in step.completed.error


def test_a_request_that_nobody_answered_may_have_been_heard() -> None:
    talk = Talk()
    talk.replied("new", {"id": SESSION})
    post = talk.last("post")["id"]
    assert talk.hears({"type": "reply", "id": post, "status": 0, "error": "timed out"}).deferred == ()
    talk.hears(heard(FIRST, "msg_1"), BUSY)
    assert talk.hears(speaks("msg_2", "msg_1")).consumed == (1,)


# stopping


def test_a_stop_is_over_when_it_is_answered_and_the_run_is_gone() -> None:
    talk = running()
    talk.interrupt()
    assert talk.last("abort")["path"] == f"/session/{SESSION}/abort"
    talk.hears(failure("Aborted", "MessageAbortedError"), IDLE)
    assert talk.replied("abort", True).completed is None
    assert talk.hears(IDLE).completed == Completed(StopReason.CANCELLED)


def test_a_stop_takes_what_was_not_read_back_out_of_the_conversation() -> None:
    talk = running()
    talk.steer()
    talk.hears(heard(SECOND, "msg_3"))
    talk.interrupt()
    talk.hears(failure("Aborted", "MessageAbortedError"), IDLE)
    talk.replied("abort", True)
    step = talk.hears(IDLE)
    assert step.deferred == (2,)
    assert step.completed == Completed(StopReason.CANCELLED)
    assert talk.last("drop")["path"] == f"/session/{SESSION}/message/msg_3"


def test_a_stop_before_there_is_a_conversation_posts_nothing() -> None:
    talk = Talk()
    step = talk.interrupt()
    assert (step.deferred, step.completed) == ((1,), Completed(StopReason.CANCELLED))
    talk.replied("new", {"id": SESSION})
    assert talk.count("post") == 0
    talk.steer()
    assert talk.count("post") == 1


def test_a_run_that_begins_after_the_stop_is_stopped_too() -> None:
    talk = started()
    talk.interrupt()
    talk.hears(IDLE)
    assert talk.replied("abort", True).completed is None
    talk.hears(heard(FIRST, "msg_1"))
    talk.replied("look")
    assert talk.completions == []
    talk.hears(BUSY)
    assert talk.count("abort") == 2
    talk.hears(speaks("msg_2", "msg_1"), failure("Aborted", "MessageAbortedError"), IDLE, IDLE)
    assert talk.replied("abort", True).completed == Completed(StopReason.CANCELLED)
    assert talk.inputs("consumed") == [1]


def test_a_stopped_call_is_waited_for() -> None:
    """On a busy machine it ends most of a second after the first idle."""
    talk = running()
    talk.hears(tool("bash", "running", input={"command": "sleep 60"}))
    talk.interrupt()
    talk.hears(failure("Aborted", "MessageAbortedError"), IDLE)
    assert talk.replied("abort", True).completed is None
    [call] = calls(talk.hears(tool("bash", "completed", output="User aborted the command")))
    assert call.status is ToolStatus.FAILED
    assert talk.hears(IDLE).completed == Completed(StopReason.CANCELLED)


def test_a_stop_while_nothing_runs_is_answered() -> None:
    talk = running()
    talk.hears(IDLE)
    talk.interrupt()
    talk.hears(IDLE)
    assert talk.replied("abort", True).completed == Completed(StopReason.CANCELLED)


def test_a_stopped_call_says_so_in_our_words() -> None:
    talk = running()
    talk.hears(tool("bash", "running", input={"command": "sleep 60"}))
    talk.interrupt()
    output = "(no output)\n\n<shell_metadata>\nUser aborted the command\n</shell_metadata>"
    [call] = calls(talk.hears(tool("bash", "completed", input={"command": "sleep 60"}, output=output)))
    assert (call.status, call.result) == (ToolStatus.FAILED, "Stopped.")


def test_the_death_of_the_process_is_the_drivers_to_tell() -> None:
    talk = running()
    step = CODEC.on(talk.state, Exited(137, "killed"))
    assert (step.events, step.completed, step.state) == ((), None, talk.state)


# failing


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (failure("Incorrect API key", statusCode=401), Cause.LOGIN),
        (failure("Forbidden", statusCode=403), Cause.LOGIN),
        (failure("no key", "ProviderAuthError", providerID="lab"), Cause.LOGIN),
        (failure("Anthropic API key is missing.", "UnknownError"), Cause.LOGIN),
        (failure("Payment required", statusCode=402), Cause.LIMIT),
        (failure("slow down", statusCode=429), Cause.LIMIT),
        (failure("Your credit balance is too low", statusCode=400), Cause.LIMIT),
        (failure("no such parameter", statusCode=400), Cause.MODEL),
        (failure("too long", "ContextOverflowError"), Cause.MODEL),
        (failure("ProviderModelNotFoundError: lab/x", "UnknownError"), Cause.NO_MODEL),
        (failure("ENOENT: boom\n    at a.js:1", "UnknownError"), Cause.UNKNOWN),
        (event("session.error", error="odd"), Cause.UNKNOWN),
    ],
)
def test_an_error_tells_its_cause(error: Frame, cause: Cause) -> None:
    talk = running()
    completed = talk.hears(error, IDLE, IDLE).completed
    assert completed is not None
    assert (completed.reason, completed.cause) == (StopReason.ERROR, cause)
    assert completed.error
    assert "a.js" not in completed.error


def test_a_run_that_fails_before_it_reads_is_tried_once_more_and_tells_why() -> None:
    """As with a model that is not there; without a credential its provider is not there at all."""
    talk = Talk(TASK, OpenCodeCodec(model="anthropic/opus"))
    talk.replied("new", {"id": SESSION})
    for message in ("msg_1", "msg_2"):
        talk.hears(heard(FIRST, message), BUSY, failure("Model not found: anthropic/opus", "UnknownError"))
        talk.hears(IDLE)
        talk.hears(failure("ProviderModelNotFoundError: …\n    at x.js", "UnknownError"))  # the only one more
        talk.replied("look")
        talk.replied("lost", True)
    [completed] = talk.completions
    assert (completed.cause, completed.error) == (Cause.LOGIN, "Model not found: anthropic/opus")
    assert talk.inputs("deferred") == [1]


def test_an_error_that_opencode_recovers_from_is_not_the_end() -> None:
    """A conversation that was too long is summed up, and goes on."""
    talk = running()
    talk.hears(failure("too long", "ContextOverflowError"), BUSY)
    talk.hears(speaks("msg_3", "msg_1", summary=True), event("session.compacted"))
    talk.hears(speaks("msg_5", "msg_4"), says("Done.", "msg_5"))
    assert talk.hears(IDLE).completed == Completed(StopReason.END, "Done.")


def test_retries_are_told_once_and_go_on_for_a_while() -> None:
    talk = running()
    step = talk.hears(status("retry", attempt=1, message="overloaded", next=1))
    assert step.events == ()
    assert talk.last("patience")["seconds"] == 120.0
    [notice] = talk.hears(status("retry", attempt=2, message="overloaded", next=1)).events
    assert isinstance(notice, Notice) and "overloaded" in notice.text
    talk.hears(status("retry", attempt=3, message="overloaded", next=1))
    assert (talk.count("patience"), talk.count("give-up")) == (1, 0)


@pytest.mark.parametrize(("why", "cause"), [("overloaded", Cause.MODEL), ("Rate limit reached", Cause.LIMIT)])
def test_retries_end_when_patience_does(why: str, cause: Cause) -> None:
    talk = running()
    talk.hears(status("retry", attempt=1, message=why, next=1))
    talk.replied("patience")
    assert talk.last("give-up")["path"] == f"/session/{SESSION}/abort"
    completed = talk.hears(IDLE).completed  # one that waits to try again is gone at once
    assert completed == Completed(StopReason.ERROR, "", f"The model's API keeps failing: {why}", cause)


def test_more_retries_than_opencodes_own_are_cut_off() -> None:
    talk = running()
    for attempt in range(1, 9):
        talk.hears(status("retry", attempt=attempt, message="overloaded", next=1))
    assert talk.count("give-up") == 1


@pytest.mark.parametrize(
    "more",
    [
        {"message": "You exceeded your current quota"},
        {"message": "Go limit", "action": {"reason": "account_rate_limit", "title": "Go limit reached"}},
    ],
)
def test_an_account_that_is_spent_is_not_waited_for(more: dict[str, Any]) -> None:
    talk = running()
    talk.hears(status("retry", attempt=1, next=1, **more))
    assert talk.count("give-up") == 1
    talk.hears(failure("Aborted", "MessageAbortedError"), IDLE)
    completed = talk.hears(IDLE).completed
    assert completed is not None
    assert (completed.cause, completed.error) == (Cause.LIMIT, more["message"])


def test_a_call_that_went_well_in_time_ends_the_patience() -> None:
    talk = running()
    talk.hears(status("retry", attempt=1, message="overloaded", next=1))
    talk.hears(BUSY, says("…", "msg_2"), speaks("msg_3", "msg_1"))
    talk.replied("patience")
    assert talk.count("give-up") == 0


def test_a_steer_while_the_model_is_given_up_is_handed_back() -> None:
    talk = running()
    talk.steer()
    talk.hears(heard(SECOND, "msg_3"), status("retry", attempt=1, message="quota", next=1))
    step = talk.hears(IDLE)
    assert step.deferred == (2,)
    assert step.completed is not None and step.completed.cause is Cause.LIMIT


def test_words_to_a_run_that_is_given_up_do_not_hide_why() -> None:
    talk = running()
    talk.hears(status("retry", attempt=1, message="quota", next=1))
    talk.steer()
    talk.hears(heard(SECOND, "msg_3"), failure("Aborted", "MessageAbortedError"), IDLE)
    step = talk.hears(IDLE)
    assert step.deferred == (2,)
    assert step.completed is not None and step.completed.cause is Cause.LIMIT


def test_a_retry_of_a_sub_agents_call_is_one_of_ours() -> None:
    talk = running()
    talk.hears(tool("task", "running", metadata={"sessionId": CHILD}, input={}))
    talk.hears(status("retry", CHILD, attempt=1, message="quota", next=1))
    assert talk.count("give-up") == 1


def test_an_error_of_the_server_itself_is_told() -> None:
    told = {
        "type": "session.error",
        "properties": {"error": {"name": "UnknownError", "data": {"message": "no"}}},
    }
    [notice] = running().hears({"type": "event", "event": told}).events
    assert notice == Notice("OpenCode: no")


# after a gap in the events


def test_what_was_missed_is_looked_up() -> None:
    talk = running()
    talk.hears({"type": "reconnected"})
    talk.hears(says("Heard.", "msg_2", "prt_5"))
    messages = next(frame for frame in talk.asked if frame["id"].endswith("missed/messages"))
    first, then = [
        {
            "info": {"id": "msg_2", "role": "assistant", "parentID": "msg_1"},
            "parts": [
                {"id": "prt_5", "messageID": "msg_2", "type": "text", "text": "Heard.", "time": {"end": 2}},
                {"id": "prt_6", "messageID": "msg_2", "type": "text", "text": "Missed.", "time": {"end": 2}},
            ],
        },
        {
            "info": {"id": "msg_0", "role": "assistant"},
            "parts": [{"id": "prt_4", "type": "tool", "state": {}}],
        },
    ]
    step = talk.hears({"type": "reply", "id": messages["id"], "status": 200, "body": [then, first]})
    assert step.events == (Text("Missed."),)
    [states] = [frame for frame in talk.asked if frame["id"].endswith("missed/status")]
    step = talk.hears({"type": "reply", "id": states["id"], "status": 200, "body": {}})
    assert step.completed == Completed(StopReason.END, "Heard.\n\nMissed.")


def test_what_cannot_be_looked_up_now_is_looked_up_again() -> None:
    talk = running()
    talk.hears({"type": "reconnected"})
    [states] = [frame for frame in talk.asked if frame["id"].endswith("missed/status")]
    talk.hears({"type": "reply", "id": states["id"], "status": 0, "error": "timed out"})
    wait = talk.asked[-1]
    assert wait["method"] == "WAIT"
    talk.hears({"type": "reply", "id": wait["id"], "status": 200})
    assert talk.asked[-1]["id"].endswith("missed/status")


def test_a_call_that_succeeds_in_the_same_message_ends_the_patience() -> None:
    """Of a sub-agent, say, while a long test of its runs."""
    talk = running()
    talk.hears(status("retry", attempt=1, message="overloaded", next=1))
    talk.hears(tool("bash", "running", input={"command": "pytest"}))
    talk.replied("patience")
    assert talk.count("give-up") == 0


def test_a_question_that_was_missed_is_asked() -> None:
    talk = running(task(Permissions.ASK))
    talk.hears({"type": "reconnected"})
    [asked] = [frame for frame in talk.asked if frame["id"].endswith("missed/permissions")]
    body = [{"id": "per_1", "sessionID": SESSION, "permission": "bash", "metadata": {"command": "ls"}}]
    [wish] = talk.hears({"type": "reply", "id": asked["id"], "status": 200, "body": body}).events
    assert isinstance(wish, ApprovalAsked)
    assert talk.hears({"type": "reply", "id": asked["id"], "status": 200, "body": body}).events == ()


def test_a_run_that_goes_on_is_left_alone() -> None:
    talk = running()
    talk.hears({"type": "reconnected"})
    [states] = [frame for frame in talk.asked if frame["id"].endswith("missed/status")]
    body = {SESSION: {"type": "busy"}}
    assert talk.hears({"type": "reply", "id": states["id"], "status": 200, "body": body}).completed is None
