"""Steering and stopping over ACP, which has the second only."""

from __future__ import annotations

from bot.events import (
    Completed,
    Notice,
    StopReason,
    ToolCall,
    ToolStatus,
)
from tests.unit.acp_talk import (
    QUEUEING,
    Talk,
    ends,
    hello,
    opened,
    says,
    update,
)

# steering where it is advertised


def test_a_steer_is_consumed_with_the_next_message_after_its_acknowledgement() -> None:
    talk = opened(steering=True)
    talk.hears(says("Lo", "m-1"))
    step = talk.steers()
    assert talk.last["method"] == "_session/steering" and step.written == (2,)
    assert talk.last["params"]["_meta"] == {"steering": {"idleBehavior": "promptRequired"}}
    assert talk.answers("_session/steering", {"outcome": "injected"}).consumed == ()
    assert talk.hears(says("oking.", "m-1")).consumed == ()  # this one was begun before
    assert talk.hears(says("And in German.", "m-2")).consumed == (2,)
    assert talk.answers("session/prompt", ends()).completed == Completed(StopReason.END, "And in German.")


def test_a_steer_during_a_tool_is_consumed_by_the_next_call_only() -> None:
    talk = opened(steering=True)
    talk.updates("tool_call", toolCallId="a", title="sleep 9", kind="execute", status="in_progress")
    talk.steers()
    talk.answers("_session/steering", {"outcome": "injected"})
    # Another call of the same message is no sign.
    assert talk.updates("tool_call", toolCallId="b", title="ls", kind="execute").consumed == ()
    talk.updates("tool_call_update", toolCallId="a", status="completed")
    assert talk.updates("tool_call", toolCallId="c", title="ls", kind="execute").consumed == (2,)


def test_a_thought_that_was_begun_before_is_no_receipt() -> None:
    talk = opened(steering=True)
    thinks = update("agent_thought_chunk", content={"type": "text", "text": "Hm"}, messageId="m-1")
    talk.hears(says("Old.", "m-0"), thinks)
    talk.steers()
    talk.answers("_session/steering", {"outcome": "injected"})
    assert talk.hears(thinks).consumed == ()
    assert talk.hears(says("New.", "m-2")).consumed == (2,)


def test_steering_is_not_tried_where_it_is_not_advertised() -> None:
    talk = opened()
    talk.steers()
    assert "_session/steering" not in talk.methods()


def test_a_steer_that_is_too_late_for_the_turn_is_a_prompt_of_its_own() -> None:
    talk = opened(steering=True)
    talk.hears(says("Done.", "m-1"))
    talk.steers()
    # The prompt ends before the steer is answered: that is not the end of the turn.
    assert talk.answers("session/prompt", ends()).completed is None
    talk.answers("_session/steering", {"outcome": "promptRequired", "reason": "noRunningTurn"})
    assert talk.last["method"] == "session/prompt"
    assert talk.last["params"]["prompt"] == [{"type": "text", "text": "Ben: also this"}]
    assert talk.hears(says("That too.", "m-2")).consumed == (2,)
    assert talk.answers("session/prompt", ends()).completed == Completed(StopReason.END, "That too.")


def test_a_steer_that_was_accepted_and_never_came_up_is_said_again() -> None:
    talk = opened(steering=True)
    talk.hears(says("Done.", "m-1"))
    talk.steers()
    talk.answers("_session/steering", {"outcome": "injected"})
    assert talk.answers("session/prompt", ends()).completed is None
    assert talk.methods().count("session/prompt") == 2


def test_a_steer_that_is_refused_falls_back() -> None:
    talk = opened(steering=True)
    talk.hears(says("Working."))
    talk.steers()
    talk.answers("_session/steering", error={"code": -32603, "message": "no"})
    assert talk.last["method"] == "session/cancel"
    talk.answers("session/prompt", ends("cancelled"))
    assert talk.last["method"] == "session/prompt"


# steering where it is not


def test_words_that_were_cancelled_unheard_are_said_again_in_their_order() -> None:
    talk = opened()
    talk.steers()
    step = talk.answers("session/prompt", ends("cancelled"))
    assert (step.consumed, step.deferred) == ((), ())
    first, *_, last = [block["text"] for block in talk.last["params"]["prompt"][1:]]
    assert first == "Ana: fix it" and last == "Ben: also this"
    assert talk.hears(says("With both.")).consumed == (1, 2)


def test_the_fallback_stops_and_goes_on_in_the_same_turn() -> None:
    talk = opened()
    talk.hears(says("Working."))
    talk.updates("tool_call", toolCallId="a", title="sleep 60", kind="execute", status="in_progress")
    step = talk.steers()
    assert (step.written, step.consumed, step.deferred) == ((2,), (), ())
    assert [event for event in step.events if isinstance(event, Notice)]
    talk.steers("p-3", "Cy: and this", 3)
    assert talk.methods().count("session/cancel") == 1
    step = talk.answers("session/prompt", ends("cancelled"))
    assert step.completed is None
    [call] = [event for event in step.events if isinstance(event, ToolCall)]
    assert (call.status, call.result) == (ToolStatus.FAILED, "Stopped.")
    texts = [block["text"] for block in talk.last["params"]["prompt"]]
    assert texts[1:] == ["Ben: also this", "Cy: and this"] and "go on" in texts[0]
    assert talk.hears(says("With both.")).consumed == (2, 3)
    assert talk.answers("session/prompt", ends()).completed == Completed(StopReason.END, "With both.")


def test_a_late_update_of_a_stopped_call_is_no_output_of_the_model() -> None:
    """Gemini CLI sends it after the end of the prompt."""
    talk = opened()
    talk.updates("tool_call", toolCallId="a", title="sleep 60", kind="execute", status="in_progress")
    talk.steers()
    talk.answers("session/prompt", ends("cancelled"))
    step = talk.updates("tool_call_update", toolCallId="a", status="completed", title="sleep 60")
    assert step.consumed == ()


def test_an_agent_that_answers_a_cancel_with_an_error() -> None:
    talk = opened()
    talk.hears(says("Working."))
    talk.steers()
    step = talk.answers("session/prompt", error={"code": -32603, "message": "AbortError"})
    assert step.completed is None and talk.last["method"] == "session/prompt"


def test_the_other_fallback_leaves_it_to_the_next_turn() -> None:
    talk = opened(QUEUEING)
    step = talk.steers()
    assert (step.deferred, step.write) == ((2,), b"")
    talk.answers("session/prompt", ends())
    # After the end it is a prompt like any other.
    assert talk.steers("p-3").deferred == ()
    assert talk.last["method"] == "session/prompt"


def test_a_steer_during_the_handshake_joins_the_first_prompt() -> None:
    talk = Talk()
    assert talk.steers().written == (2,)
    talk.steers()  # told again, as after a restart
    talk.answers("initialize", hello())
    talk.answers("session/new", {"sessionId": "s-1"})
    assert [block["text"] for block in talk.last["params"]["prompt"]] == ["Ana: fix it", "Ben: also this"]
    assert talk.hears(says("Both.")).consumed == (1, 2)


# stopping


def test_a_stop_hands_back_what_was_not_taken() -> None:
    talk = opened(steering=True)
    talk.hears(says("Working.", "m-1"))
    talk.steers()
    talk.answers("_session/steering", {"outcome": "injected"})
    assert talk.stops().completed is None
    assert talk.last == {"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "s-1"}}
    step = talk.answers("session/prompt", ends("cancelled"))
    assert step.completed == Completed(StopReason.CANCELLED)
    assert step.deferred == (2,)


def test_a_stop_during_the_handshake_is_the_end_at_once() -> None:
    talk = Talk()
    step = talk.stops()
    assert step.completed == Completed(StopReason.CANCELLED) and step.deferred == (1,)
    talk.answers("initialize", hello())
    talk.answers("session/new", {"sessionId": "s-1"})
    assert "session/prompt" not in talk.methods()
    talk.steers()
    assert talk.last["method"] == "session/prompt"


def test_a_stop_that_an_agent_answers_with_an_error_is_a_stop() -> None:
    talk = opened()
    talk.stops()
    step = talk.answers("session/prompt", error={"code": -32603, "message": "AbortError"})
    assert step.completed == Completed(StopReason.CANCELLED)
