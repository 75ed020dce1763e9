"""What ACP agents ask for, and who answers."""

from __future__ import annotations

from typing import Any

import pytest

from bot.agents.asking import NOBODY
from bot.agents.codec import (
    Exited,
    Permissions,
)
from bot.approvals import asked
from bot.events import (
    ApprovalAsked,
    Completed,
    Notice,
    Question,
    StopReason,
    ToolCall,
    ToolKind,
    Unknown,
    Withdrawn,
)
from tests.unit.acp_talk import (
    CODEC,
    MODES,
    Frame,
    Talk,
    asks,
    chosen,
    ends,
    opened,
    says,
)

# asking


def test_auto_allows_once() -> None:
    talk = opened(session={})
    step = talk.hears(asks())
    assert chosen(talk) == {"outcome": "selected", "optionId": "proceed_once"}
    assert not [event for event in step.events if isinstance(event, ApprovalAsked)]
    # The call was announced by its request only; its end has a title all the same.
    step = talk.updates(
        "tool_call_update", toolCallId="c-1", status="completed", title="make test", content=[]
    )
    assert [event.title for event in step.events if isinstance(event, ToolCall)] == ["Ran make test"]


@pytest.mark.parametrize("allowed", [True, False])
def test_people_decide(allowed: bool) -> None:
    talk = opened(permissions=Permissions.ASK, answerable=True)
    step = talk.hears(asks("r-1", rawInput={"command": "make test\u202e && x"}))
    [asked] = [event for event in step.events if isinstance(event, ApprovalAsked)]
    assert (asked.kind, asked.detail) == (ToolKind.EXECUTE, "make test\\u202e && x")
    assert not [one for one in talk.sent if one.get("id") == "r-1"]
    talk.decides(asked.id, allowed)
    assert talk.last["id"] == "r-1"
    assert chosen(talk) == {"outcome": "selected", "optionId": "proceed_once" if allowed else "cancel"}
    assert talk.decides(asked.id, allowed).write == b"", "decided twice"


@pytest.mark.parametrize(
    ("call", "detail"),
    [
        ({"title": "x" * 900 + " && rm -rf /"}, "x" * 900 + " && rm -rf /"),
        ({"rawInput": {"command": "ls", "cwd": "/etc"}}, '{\n "command": "ls",\n "cwd": "/etc"\n}'),
        ({"rawInput": {"command": ["./evil", "-c", "ls"]}}, '"./evil"'),
        ({"kind": "other", "rawInput": {"repo": "web", "force": True}}, '"force": true'),
        (
            {"kind": "edit", "content": [{"type": "diff", "path": "a.py", "oldText": "a", "newText": "b"}]},
            "a.py\n-a\n+b",
        ),
    ],
)
def test_people_are_shown_all_that_it_would_do(call: dict[str, Any], detail: str) -> None:
    talk = opened(permissions=Permissions.ASK, answerable=True)
    [asked] = [event for event in talk.hears(asks(**call)).events if isinstance(event, ApprovalAsked)]
    assert detail in asked.detail


def test_what_does_not_say_what_it_would_do_is_not_allowed() -> None:
    talk = opened(permissions=Permissions.ASK, answerable=True)
    step = talk.hears(asks(kind="other", title="Deploy"))
    assert chosen(talk) == {"outcome": "selected", "optionId": "cancel"}
    assert not [event for event in step.events if isinstance(event, ApprovalAsked)]


def test_one_yes_is_not_a_yes_for_good() -> None:
    talk = opened(permissions=Permissions.ASK, answerable=True)
    request = asks()
    request["params"]["options"] = [
        option for option in request["params"]["options"] if option["kind"] != "allow_once"
    ]
    step = talk.hears(request)
    assert chosen(talk) == {"outcome": "selected", "optionId": "cancel"}
    assert not [event for event in step.events if isinstance(event, ApprovalAsked)]


def test_reading_needs_nobody() -> None:
    talk = opened(permissions=Permissions.ASK, answerable=True)
    talk.hears(asks(kind="read"))
    assert chosen(talk) == {"outcome": "selected", "optionId": "proceed_once"}


def test_nobody_is_there_to_allow_it() -> None:
    talk = opened(permissions=Permissions.ASK)
    step = talk.hears(asks())
    assert chosen(talk) == {"outcome": "selected", "optionId": "cancel"}
    assert [event for event in step.events if isinstance(event, Notice)]
    # An agent that ends its turn for it is told the way out, once; three times it is enough.
    for _ in range(3):
        assert talk.answers("session/prompt", ends("cancelled")).completed is None
        assert NOBODY in talk.last["params"]["prompt"][0]["text"]
        talk.hears(asks())
    assert talk.answers("session/prompt", ends("cancelled")).completed is not None


def test_an_agent_that_ends_its_turn_when_it_is_refused_is_told_why() -> None:
    talk = opened(permissions=Permissions.ASK, answerable=True)
    [asked] = [event for event in talk.hears(asks()).events if isinstance(event, ApprovalAsked)]
    talk.decides(asked.id, False, "Not here, says Ana.")
    assert talk.answers("session/prompt", ends("cancelled")).completed is None
    assert "Not here, says Ana." in talk.last["params"]["prompt"][0]["text"]


def test_an_agent_that_goes_on_after_a_refusal_is_left_to_it() -> None:
    talk = opened(permissions=Permissions.ASK, answerable=True)
    [asked] = [event for event in talk.hears(asks()).events if isinstance(event, ApprovalAsked)]
    talk.decides(asked.id, False)
    talk.hears(says("Then without."))
    assert talk.answers("session/prompt", ends()).completed == Completed(StopReason.END, "Then without.")


def test_an_agent_that_can_be_steered_is_told_why_by_a_steer() -> None:
    talk = opened(steering=True, permissions=Permissions.ASK, answerable=True)
    [asked] = [event for event in talk.hears(asks()).events if isinstance(event, ApprovalAsked)]
    talk.decides(asked.id, False, "Not here.")
    assert talk.last["method"] == "_session/steering"
    assert "Not here." in talk.last["params"]["prompt"][0]["text"]


def test_an_approved_plan_is_the_last_question() -> None:
    talk = opened(permissions=Permissions.PLAN, answerable=True, session={"modes": MODES})
    talk.answers("session/set_mode")
    talk.hears(says("1. Touch the file."))
    [asked] = [
        event for event in talk.hears(asks(kind="switch_mode")).events if isinstance(event, ApprovalAsked)
    ]
    assert asked.detail == "1. Touch the file."
    talk.decides(asked.id, True)
    talk.hears(asks(8, toolCallId="c-2"))
    assert talk.last["id"] == 8 and chosen(talk) == {"outcome": "selected", "optionId": "proceed_once"}


def planned() -> tuple[Talk, ApprovalAsked]:
    """An agent that ends its prompt with its plan, in its mode for that."""
    talk = opened(permissions=Permissions.PLAN, answerable=True, session={"modes": MODES})
    talk.answers("session/set_mode")
    talk.hears(says("1. Touch the file."))
    step = talk.answers("session/prompt", ends())
    assert step.completed is None
    [event] = [event for event in step.events if isinstance(event, ApprovalAsked)]
    assert event.detail == "1. Touch the file."
    return talk, event


def test_a_plan_at_the_end_of_a_prompt_is_put_to_people() -> None:
    talk, asked = planned()
    talk.decides(asked.id, True)
    assert talk.last["params"]["modeId"] == "yolo"
    talk.answers("session/set_mode")
    assert "approved" in talk.last["params"]["prompt"][0]["text"]
    talk.hears(asks())
    assert chosen(talk) == {"outcome": "selected", "optionId": "proceed_once"}
    talk.hears(says("Touched."))
    assert talk.answers("session/prompt", ends()).completed == Completed(StopReason.END, "Touched.")


def test_a_plan_that_was_cut_is_too_long_to_be_approved() -> None:
    for number, refused in ((30_000, False), (100_000, True)):
        talk = opened(permissions=Permissions.PLAN, answerable=True, session={"modes": MODES})
        talk.answers("session/set_mode")
        for piece in range(number // 100):
            talk.hears(says(f"{piece:99}\n"))
        step = talk.answers("session/prompt", ends())
        [ask] = asked(step.events, 0.0)
        assert bool(ask.refused) is refused
        assert refused or "left out" not in ask.detail


def test_a_plan_that_is_refused() -> None:
    talk, asked = planned()
    assert talk.decides(asked.id, False).completed == Completed(StopReason.END, "1. Touch the file.")
    talk, asked = planned()
    talk.decides(asked.id, False, "Do not touch it.")
    assert "Do not touch it." in talk.last["params"]["prompt"][0]["text"]
    talk.hears(says("1. Look at it."))
    assert talk.answers("session/prompt", ends()).completed is None, "the new plan is asked about too"


def test_a_message_about_a_plan_is_taken_before_its_approval() -> None:
    talk, asked = planned()
    step = talk.steers()
    assert Withdrawn(asked.id) in step.events
    assert talk.last["method"] == "session/prompt"


def test_a_stop_while_a_plan_waits() -> None:
    talk, asked = planned()
    step = talk.stops()
    assert Withdrawn(asked.id) in step.events and step.write == b""
    assert step.completed == Completed(StopReason.CANCELLED)


def test_a_plan_that_nobody_can_approve_is_the_answer() -> None:
    talk = opened(permissions=Permissions.PLAN, session={"modes": MODES})
    talk.answers("session/set_mode")
    talk.hears(says("1. Touch the file."))
    assert talk.answers("session/prompt", ends()).completed == Completed(StopReason.END, "1. Touch the file.")


def test_a_stop_withdraws_what_waits() -> None:
    talk = opened(permissions=Permissions.ASK, answerable=True)
    [asked] = [event for event in talk.hears(asks()).events if isinstance(event, ApprovalAsked)]
    step = talk.stops()
    assert [event for event in step.events if isinstance(event, Withdrawn)] == [Withdrawn(asked.id)]
    assert chosen(talk) == {"outcome": "cancelled"}
    assert talk.decides(asked.id, True).write == b""


@pytest.mark.parametrize("stops", [True, False])
def test_what_is_asked_after_a_stop_is_not_allowed_any_more(stops: bool) -> None:
    """OpenCode asks for a call that it began before it heard of the stop."""
    talk = opened()
    talk.updates("tool_call", toolCallId="c-1", title="make test", kind="execute", status="pending")
    if stops:
        talk.stops()
    else:
        talk.steers()
    step = talk.hears(asks())
    assert chosen(talk) == {"outcome": "cancelled"}
    talk.hears(form(c=COLOUR))
    assert talk.last["result"] == {"action": "cancel"}
    assert not [event for event in step.events if isinstance(event, ApprovalAsked | Question)]


def test_a_request_that_the_agent_takes_back() -> None:
    talk = opened(permissions=Permissions.ASK, answerable=True)
    [asked] = [event for event in talk.hears(asks(7)).events if isinstance(event, ApprovalAsked)]
    step = talk.hears({"method": "$/cancel_request", "params": {"requestId": 7}})
    assert Withdrawn(asked.id) in step.events
    assert talk.last["error"]["code"] == -32800


def test_when_the_agent_dies_nothing_waits() -> None:
    talk = opened(permissions=Permissions.ASK, answerable=True)
    [asked] = [event for event in talk.hears(says("Hm."), asks()).events if isinstance(event, ApprovalAsked)]
    step = talk.take(CODEC.on(talk.state, Exited(137, "")))
    assert Withdrawn(asked.id) in step.events and step.write == b""


@pytest.mark.parametrize("method", ["fs/read_text_file", "fs/write_text_file", "terminal/create"])
def test_files_and_terminals_are_refused(method: str) -> None:
    """OpenCode asks for files though we said that we have none."""
    talk = opened()
    step = talk.hears({"id": 3, "method": method, "params": {}})
    assert talk.last["error"]["code"] == -32601 and step.events == ()


def test_an_unknown_request_is_refused_and_kept() -> None:
    talk = opened()
    step = talk.hears({"id": 3, "method": "session/from_tomorrow", "params": {}})
    assert talk.last["error"]["code"] == -32601
    assert [type(event) for event in step.events] == [Unknown]


# forms


def form(*required: str, **properties: Frame) -> Frame:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    params = {"sessionId": "s-1", "mode": "form", "message": "Which colour?", "requestedSchema": schema}
    return {"id": 5, "method": "elicitation/create", "params": params}


COLOUR: Frame = {
    "type": "string",
    "title": "Colour",
    "oneOf": [{"const": "red", "title": "Red"}, {"const": "blue", "title": "Blue"}],
}


def test_a_question_with_options() -> None:
    talk = opened(answerable=True)
    [question] = [event for event in talk.hears(form(c=COLOUR)).events if isinstance(event, Question)]
    assert question == Question(question.id, "Which colour?", ("Red", "Blue"), open=True)
    talk.is_answered(question.id, "Blue")
    assert talk.last["result"] == {"action": "accept", "content": {"c": "blue"}}


def test_own_words_go_where_the_form_takes_them() -> None:
    talk = opened(answerable=True)
    frame = form(c=COLOUR, c_custom={"type": "string", "title": "Other"})
    [question] = [event for event in talk.hears(frame).events if isinstance(event, Question)]
    talk.is_answered(question.id, "green, please")
    assert talk.last["result"] == {"action": "accept", "content": {"c_custom": "green, please"}}


def test_an_answer_that_a_form_does_not_take() -> None:
    talk = opened(answerable=True)
    [question] = [event for event in talk.hears(form(c=COLOUR)).events if isinstance(event, Question)]
    step = talk.is_answered(question.id, "green")
    assert talk.last["result"] == {"action": "decline"}
    assert [event for event in step.events if isinstance(event, Notice)]


def test_a_form_is_asked_field_by_field() -> None:
    talk = opened(answerable=True)
    fields: dict[str, Frame] = {
        "n": {"type": "integer", "description": "How many?"},
        "sure": {"type": "boolean", "title": "Sure?"},
        "of": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "title": "Of which?"},
        "note": {"type": "string", "title": "A note?"},
    }
    talk.hears(form("n", "sure", "of", **fields))
    for answer in ("3", "no", "a, c"):
        question = [event for event in talk.events if isinstance(event, Question)][-1]
        talk.is_answered(question.id, answer)
    assert [event.text for event in talk.events if isinstance(event, Question)] == [
        "How many?",
        "Sure?",
        "Of which?",
    ]
    assert talk.last["result"] == {"action": "accept", "content": {"n": 3, "sure": False, "of": ["a", "c"]}}


def test_nobody_is_there_to_answer() -> None:
    talk = opened()
    step = talk.hears(form(c=COLOUR, c_custom={"type": "string"}))
    assert talk.last["result"] == {"action": "accept", "content": {"c_custom": NOBODY}}
    assert [event.open for event in step.events if isinstance(event, Question)] == [False]
    talk.hears(form(c=COLOUR))
    assert talk.last["result"] == {"action": "decline"}


def test_nobody_answered_in_time() -> None:
    talk = opened(answerable=True)
    talk.hears(form(note={"type": "string"}))
    [question] = [event for event in talk.events if isinstance(event, Question)]
    talk.is_answered(question.id, "", "No answer in an hour.")
    assert talk.last["result"]["content"]["note"].startswith("No answer in an hour.")


def test_a_link_to_open_is_declined() -> None:
    talk = opened(answerable=True)
    params = {"mode": "url", "message": "Log in", "url": "https://example.com", "elicitationId": "e"}
    step = talk.hears({"id": 5, "method": "elicitation/create", "params": params})
    assert talk.last["result"] == {"action": "decline"}
    assert [event.open for event in step.events if isinstance(event, Question)] == [False]
