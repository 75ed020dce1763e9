"""The real Claude Code, driven by its codec, against a scripted model on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.agents.asking import NOBODY
from bot.events import (
    AgentStarted,
    Cause,
    Completed,
    Plan,
    PlanStatus,
    Question,
    StopReason,
    Text,
    ToolStatus,
    Unknown,
    Usage,
)
from tests.agents.claude import RIG, SCENARIOS, SCRIPTS, codec, ended_tools
from tests.agents.driven import DrivenAgent
from tests.agents.model.server import ModelServer
from tests.agents.playing import (
    Place,
    played,
    prompt,
)

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        RIG.program() is None,
        reason="Claude Code is not installed: npm install --prefix ~/.cache/sandpiper/agents "
        "@anthropic-ai/claude-code@2.1.329, or name it with SANDPIPER_CLAUDE",
    ),
]


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer(SCRIPTS) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.made(tmp_path)


async def test_a_turn_with_tools(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "tools", place) as agent:
        assert agent.completions == [Completed(StopReason.END, "Two lines, the second changed.")]
        assert [event.model for event in agent.events if isinstance(event, AgentStarted)] == [
            "claude-sonnet-4-5"
        ]
        assert agent.consumed == [1]
        ran, read, edited, failed = ended_tools(agent)
        assert ran == ("Ran printf 'one\\ntwo\\n' > one.txt && cat one.txt", ToolStatus.COMPLETED, "one\ntwo")
        assert read == ("Read one.txt", ToolStatus.COMPLETED, "2 lines")
        assert edited == ("Edited one.txt", ToolStatus.COMPLETED, "+1 −1")
        assert failed[:2] == ("Read missing.txt", ToolStatus.FAILED)
        usage = [event for event in agent.events if isinstance(event, Usage)]
        assert len({row.key for row in usage}) == 1
        assert (usage[-1].tokens_in, usage[-1].tokens_out, usage[-1].tokens_cached) == (5000, 250, 1000)
        assert usage[-1].micro_usd
        assert not [event for event in agent.events if isinstance(event, Unknown)]
        assert (place.work / "one.txt").read_text() == "one\n2\n"


async def test_a_steer_during_a_tool_is_consumed_in_the_same_turn(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "steer", place) as agent:
        assert agent.consumed == [1, 2]
        assert agent.deferred == []
        assert agent.completions == [Completed(StopReason.END, "All done.")]
        assert model.was_told("Ben: also say it in German")


async def test_a_steer_in_its_last_words_is_answered_before_the_end(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "steer-last", place) as agent:
        assert agent.consumed == [1, 2]
        assert agent.completions == [Completed(StopReason.END, "Hello from the scripted model.")]
        assert [text.split(".")[0] for text in agent.texts] == [
            "It is a long story",
            "Hello from the scripted model",
        ]


async def test_stop_in_a_tool_then_continue(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "stop", place) as agent:
        assert agent.completions == [
            Completed(StopReason.CANCELLED),
            Completed(StopReason.END, "Hello from the scripted model."),
        ]
        assert [status for _, status, _ in ended_tools(agent)] == [ToolStatus.FAILED]
        assert agent.consumed == [1, 2]


async def test_stop_gives_a_waiting_steer_back(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "stop-waiting", place) as agent:
        assert agent.completions == [Completed(StopReason.CANCELLED)]
        assert (agent.consumed, agent.deferred) == ([1], [2])
        assert not model.was_told("never read")


async def test_stop_before_anything_began(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "stop-at-once", place) as agent:
        assert agent.completions == [Completed(StopReason.CANCELLED)]
        # Whether it was taken in is Claude's to say; lost it is not.
        assert sorted(agent.consumed + agent.deferred) == [1]


async def test_resume_in_a_new_process_after_a_kill(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "resumed", place) as agent:
        assert agent.completions == [Completed(StopReason.END, "Hello from the scripted model.")]
        assert agent.resume_token == agent.task.resume_token
        assert model.was_told("This takes long.")
        # A resumed conversation brings its old sums along; only what this process spent counts.
        usage = [event for event in agent.events if isinstance(event, Usage)]
        assert (usage[-1].tokens_in, usage[-1].tokens_out) == (1000, 50)


async def test_a_conversation_that_is_gone_is_an_error_and_not_a_hang(
    model: ModelServer, place: Place
) -> None:
    task = place.task(prompt("[[script:hello]] go on", 1), "11111111-1111-4111-8111-111111111111")
    async with DrivenAgent.started(codec(model), task) as agent:
        completed = await agent.until_completed()
        assert completed.reason is StopReason.ERROR
        assert "No conversation found" in completed.error
        assert completed.cause is Cause.RESUME
        assert (agent.consumed, agent.deferred) == ([], [1])


async def test_an_error_of_the_model_ends_the_turn(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "error", place) as agent:
        assert agent.completions == [
            Completed(StopReason.ERROR, error="API Error: 400 the scripted model refuses", cause=Cause.MODEL)
        ]


async def test_a_question_is_refused_with_the_way_out(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "question", place) as agent:
        [question] = [event for event in agent.events if isinstance(event, Question)]
        assert (question.text, question.options) == ("Which colour?", ("Red", "Blue"))
        assert ended_tools(agent) == [("Asked: Which colour?", ToolStatus.COMPLETED, "")]
        assert model.was_told(NOBODY)
        assert agent.completions == [Completed(StopReason.END, "Which colour do you want: red or blue?")]


async def test_its_task_list_is_the_plan(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "plan", place) as agent:
        plans = [event for event in agent.events if isinstance(event, Plan)]
        assert [(entry.text, entry.status) for entry in plans[-1].entries] == [
            ("Read the code", PlanStatus.COMPLETED),
            ("Mend it", PlanStatus.IN_PROGRESS),
        ]
        assert agent.tool_calls == []


async def test_a_sub_agent_is_waited_for(model: ModelServer, place: Place) -> None:
    async with played(codec(model), SCENARIOS, "delegated", place) as agent:
        inner = [call for call in agent.tool_calls if call.parent]
        assert {call.title for call in inner} == {"Running echo looked"}
        assert [(title, said) for title, _, said in ended_tools(agent)] == [
            ("Ran echo looked", "looked"),
            ("Delegated: Look around", "I looked around."),
        ]
        assert agent.texts == ["Somebody else looks.", "They looked."]
        usage = [event for event in agent.events if isinstance(event, Usage)]
        assert usage[-1].tokens_in == 4000


async def test_words_that_begin_with_a_slash_are_words(model: ModelServer, place: Place) -> None:
    task = place.task(prompt("/compact is what I'd like to know about. [[script:hello]]", 1))
    async with DrivenAgent.started(codec(model), task) as agent:
        assert await agent.until_completed() == Completed(StopReason.END, "Hello from the scripted model.")
        assert model.was_told("/compact is what")
        assert [event.text for event in agent.events if isinstance(event, Text)]
