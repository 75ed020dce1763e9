"""Side tools are heard between an agent's own lines, and what they ask is answered there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.agents.asking import NOBODY, UNANSWERED
from bot.agents.codec import Answered, Exited, Happening, Lines, Prompt, State, Steer, Step, Task
from bot.agents.mcp import TOOLS
from bot.agents.scripted import ScriptedCodec
from bot.agents.side_tools import MOST_CALLS, MOST_NOTES, MOST_OPTIONS, MOST_WAITING, SideTools
from bot.events import (
    Event,
    FileOffered,
    Named,
    PortOffered,
    Progress,
    Question,
    Text,
    ToolCall,
    Unknown,
    Withdrawn,
)

KEY = "11111111-0000-4000-8000-000000000001"
SECRET = "a-key-of-no-known-form-0123456789"
AGENT = ScriptedCodec(["scripted"])
CODEC = SideTools(AGENT, secrets=(SECRET,))
SHARED = "/workspace/1a2b3c4d/.sandpiper/shared"
TASK = Task(
    Prompt(KEY, "Ana: fix it", (1,)),
    "/workspace/1a2b3c4d/code",
    "/home/agent",
    answerable=True,
    shared=SHARED,
)

COPY = f"{SHARED}/0123456789abcdef"


class Talk:
    def __init__(self, task: Task = TASK) -> None:
        self.state: State = {}
        self.take(CODEC.begin(task))

    def take(self, step: Step) -> Step:
        self.state = json.loads(json.dumps(step.state))
        return step

    def on(self, happening: Happening) -> Step:
        return self.take(CODEC.on(self.state, happening))

    def hears(self, *frames: Mapping[str, Any]) -> Step:
        return self.on(Lines(tuple(json.dumps(frame, separators=(",", ":")).encode() for frame in frames)))

    def calls(self, tool: str, id: str = "1", **arguments: Any) -> Step:
        return self.hears(call(tool, id, **arguments))


def call(tool: str, id: str = "1", **arguments: Any) -> Mapping[str, Any]:
    return {"sandpiper": "call", "id": id, "tool": tool, "arguments": arguments}


def told(step: Step) -> list[dict[str, Any]]:
    return [json.loads(line) for line in step.write.splitlines()]


def answer(step: Step) -> tuple[str, bool]:
    [frame] = told(step)
    assert (frame["sandpiper"], frame["id"]) == ("answer", "1")
    return frame["text"], frame["error"]


def test_it_is_started_beside_its_tools() -> None:
    launch = CODEC.launch(TASK)
    assert launch.argv[-1] == "scripted" or "scripted" in launch.argv
    assert ",".join(TOOLS) in launch.argv
    assert launch.env["SCRIPTED_AGENT_TOOLS"] == f"/tmp/sandpiper-{KEY}/serve"


def test_the_agents_own_lines_are_the_agents() -> None:
    talk = Talk()
    step = talk.hears(
        {"type": "text", "text": "Hello"},
        call("note_progress", text="half way"),
        {"type": "consumed", "key": KEY},
    )
    assert step.events == (
        Text("Hello"),
        *AGENT.on(
            AGENT.begin(TASK).state, Lines((json.dumps({"type": "consumed", "key": KEY}).encode(),))
        ).events,
        Progress("half way"),
    )
    assert step.consumed == (1,)


def test_it_names_its_work() -> None:
    step = Talk().calls("set_title", title="Mend the  clock\nnow")
    assert step.events == (Named("Mend the clock now"),)
    assert answer(step)[1] is False


def test_it_says_how_its_work_is_to_be_published() -> None:
    step = Talk().calls("open_pr", title="Mend it", body="It was broken.\n\nNow it is not.")
    assert step.events == (Named("Mend it", "It was broken.\n\nNow it is not."),)
    text, error = answer(step)
    assert not error and "when you finish" not in text and "finish" in text


def test_a_question_waits_for_people() -> None:
    talk = Talk()
    step = talk.calls("ask_person", question="Which colour?", options=["Red", "", "Blue", 7])
    [question] = step.events
    assert question == Question("side-tool:11111111:1", "Which colour?", ("Red", "Blue"), open=True)
    assert step.write == b""
    assert answer(talk.on(Answered("side-tool:11111111:1", "Blue"))) == ("Blue", False)
    assert talk.on(Answered("side-tool:11111111:1", "Red")).write == b"", "it was answered twice"


def test_a_question_that_nobody_answers() -> None:
    talk = Talk()
    talk.calls("ask_person", question="Which?")
    assert answer(talk.on(Answered("side-tool:11111111:1", "", "Nobody answered within 1h."))) == (
        "Nobody answered within 1h.",
        False,
    )
    talk.calls("ask_person", question="Which?")
    assert answer(talk.on(Answered("side-tool:11111111:1", ""))) == (UNANSWERED, False)


def test_where_nobody_can_be_asked_that_is_the_answer() -> None:
    talk = Talk(Task(TASK.prompt, TASK.cwd, TASK.home))
    step = talk.calls("ask_person", question="Which?")
    assert step.events == (Question("side-tool:11111111:1", "Which?", (), open=False),)
    assert answer(step) == (NOBODY, False)


def test_a_question_that_the_agent_gives_up() -> None:
    talk = Talk()
    talk.calls("ask_person", question="Which?")
    assert talk.hears({"sandpiper": "gone", "id": "1"}).events == (Withdrawn("side-tool:11111111:1"),)
    assert talk.hears({"sandpiper": "gone", "id": "1"}).events == ()


def test_questions_end_with_the_process() -> None:
    talk = Talk()
    talk.calls("ask_person", question="Which?")
    talk.calls("share_file", id="2", path=COPY, name="a.txt", size=3)
    assert talk.on(Exited(137, "")).events == (Withdrawn("side-tool:11111111:1"),)


def test_a_file_is_offered_and_what_became_of_it_is_told() -> None:
    talk = Talk()
    step = talk.calls("share_file", path=COPY, name="shot.png", title="The page", size=2048)
    assert step.events == (FileOffered("side-tool:11111111:1", COPY, "shot.png", "The page", 2048),)
    assert answer(talk.on(Answered("side-tool:11111111:1", "It is in the thread."))) == (
        "It is in the thread.",
        False,
    )
    talk.calls("share_file", path=COPY, name="shot.png", size=1)
    refused = talk.on(Answered("side-tool:11111111:1", "", "Not shared: too large."))
    assert answer(refused) == ("Not shared: too large.", True)


def test_a_port_is_offered() -> None:
    step = Talk().calls("share_port", port=8000, path=COPY, title="The site")
    assert step.events == (PortOffered("side-tool:11111111:1", 8000, COPY, "The site"),)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("set_title", {}),
        ("set_title", {"title": " \n "}),
        ("set_title", {"title": 7}),
        ("open_pr", {"body": "no title"}),
        ("note_progress", {"text": ""}),
        ("ask_person", {"question": ["a"]}),
        ("share_file", {"path": ""}),
        ("share_port", {"port": 80}),
        ("share_port", {"port": 80, "path": 7}),
        ("rm_rf", {"path": "/"}),
    ],
)
def test_a_call_without_what_it_needs_is_an_error_for_the_agent(tool: str, arguments: dict[str, Any]) -> None:
    step = Talk().calls(tool, **arguments)
    assert step.events == ()
    text, error = answer(step)
    assert error and text


def test_no_end_of_questions_is_kept_open() -> None:
    talk = Talk()
    for number in range(MOST_WAITING):
        assert talk.calls("ask_person", id=f"q{number}", question="Which?").write == b""
    text, error = answer(talk.calls("ask_person", question="One more?"))
    assert text == NOBODY or error


def test_an_answer_for_an_earlier_process_is_not_given_to_this_one() -> None:
    later = Task(Prompt("22222222-0000-4000-8000-000000000001", "go"), TASK.cwd, TASK.home, answerable=True)
    talk = Talk(later)
    talk.calls("ask_person", question="Delete the production database?")
    assert talk.on(Answered("side-tool:11111111:1", "It is in the thread.")).write == b""
    assert answer(talk.on(Answered("side-tool:22222222:1", "No"))) == ("No", False)


def test_a_call_of_an_id_that_waits_is_none() -> None:
    talk = Talk()
    assert talk.calls("share_file", path=COPY, name="a").events
    assert talk.calls("share_file", path=COPY, name="a").events == ()


@pytest.mark.parametrize("tool", ["ask_person", "share_file", "share_port", "set_title", "note_progress"])
def test_an_agent_cannot_call_without_end(tool: str) -> None:
    talk = Talk()
    given: dict[str, Any] = {
        "title": "t",
        "text": "t",
        "question": "q",
        "path": COPY,
        "name": "n",
        "port": 80,
    }
    events = 0
    for number in range(600):
        events += len(talk.calls(tool, id=f"c{number}", **given).events)
        talk.on(Answered(f"side-tool:11111111:c{number}", "done"))
    assert events == MOST_CALLS.get(tool, MOST_NOTES)
    assert answer(talk.calls(tool, **given)) == (f"{tool} was called too often in this turn.", True)


def test_a_question_has_no_end_of_options() -> None:
    [question] = Talk().calls("ask_person", question="Which?", options=["x"] * 10_000).events
    assert isinstance(question, Question) and len(question.options) == MOST_OPTIONS


def test_a_call_that_is_too_long_is_kept_as_unknown_and_cut() -> None:
    step = Talk().calls("ask_person", question="x" * (1 << 20))
    [event] = step.events
    assert isinstance(event, Unknown) and len(event.raw) < 10_000 and step.write == b""


def test_its_calls_are_not_told_twice() -> None:
    talk = Talk()
    tool = {
        "type": "tool",
        "id": "t1",
        "kind": "other",
        "title": "Using sandpiper: set_title",
        "status": "in_progress",
    }
    other = {**tool, "id": "t2", "title": "Using github: set_title"}
    command = {**tool, "id": "t3", "kind": "execute", "title": "sandpiper: set_title"}
    shown = [event.id for event in talk.hears(tool, other, command).events if isinstance(event, ToolCall)]
    assert shown == ["t2", "t3"]
    assert talk.hears({**tool, "title": "", "status": "completed"}).events == ()


def test_secrets_are_not_shown() -> None:
    step = Talk().calls("open_pr", title=f"Use {SECRET}", body=f"key {SECRET} and ghp_{'a' * 36}")
    [named] = step.events
    assert isinstance(named, Named)
    assert SECRET not in named.title + named.description and "ghp_a" not in named.description


def test_a_steer_goes_to_the_agent() -> None:
    talk = Talk()
    step = talk.on(Steer(Prompt("22222222-0000-4000-8000-000000000002", "Ben: also this", (2,))))
    assert step.written == (2,)
    assert told(step)[0]["type"] == "prompt"


def test_a_mark_of_something_else_is_kept() -> None:
    step = Talk().hears({"sandpiper": "dance", "id": "1"})
    assert [type(event) for event in step.events] == [Unknown]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
words = st.sampled_from([*TOOLS, "call", "gone", "1", "2", "", COPY])
arguments = st.dictionaries(
    st.sampled_from(["title", "text", "question", "options", "path", "name", "port", "size", "body"]),
    words | values,
)
calls = st.fixed_dictionaries(
    {}, optional={"id": words | values, "tool": words | values, "arguments": arguments | values}
)
ours = st.builds(
    lambda kind, rest: json.dumps({"sandpiper": kind, **rest}, separators=(",", ":")).encode(),
    words | values,
    calls,
)
garbage = st.binary(max_size=40).map(lambda data: b'{"sandpiper":' + data.replace(b"\n", b""))
lines = st.lists(ours | garbage, min_size=1, max_size=6)


@given(lines)
def test_nothing_that_is_heard_raises_or_is_dropped(heard: list[bytes]) -> None:
    together, apart = Talk(), Talk()
    one_by_one: list[Event] = []
    for line in heard:
        step = apart.on(Lines((line,)))
        gone = line.startswith(b'{"sandpiper":"gone"')
        assert step.events or step.write or gone, "it was dropped"
        one_by_one += step.events
    assert list(together.on(Lines(tuple(heard))).events) == one_by_one
    assert together.state == apart.state
