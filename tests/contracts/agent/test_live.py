"""What every agent keeps to, shown on the real programs with a scripted model on loopback.

The scenarios are those of tests/agents/playing.py, and one set of assertions holds for all rigs. Where an
agent can't do a thing, its capabilities say so, and the stated way of doing without it is asserted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bot.agents.codec import Capabilities, Steering
from bot.events import (
    AgentStarted,
    ApprovalAsked,
    Cause,
    Completed,
    Notice,
    Plan,
    Question,
    StopReason,
    ToolCall,
    ToolKind,
    ToolStatus,
    Unknown,
    Usage,
    Withdrawn,
)
from tests.agents.driven import DrivenAgent, happening_of
from tests.agents.model.server import ModelServer
from tests.agents.playing import (
    ANSWER,
    DENIAL,
    GARBAGE,
    PIXEL,
    REVISION,
    STEER,
    Place,
    Rig,
    played,
    played_by,
)
from tests.agents.replay import Replay
from tests.agents.rigs import RIGS

pytestmark = [
    pytest.mark.live,
    pytest.mark.parametrize("rig", [pytest.param(rig, id=name) for name, rig in RIGS.items()]),
]

ENDED = (ToolStatus.COMPLETED, ToolStatus.FAILED)

# The demo's agent asks no model, and does what its prompt says.
MODELLESS = frozenset({"scripted"})

ALWAYS = frozenset({"tools", "steer", "stop", "stop-waiting", "stop-at-once", "error"})
ALWAYS |= {"garbage", "half-a-line", "long"}
OF_A_MODEL = frozenset({"steer-last", "picture", "unauthorised", "logged-out", "limited", "no-model"})
OF_A_MODEL |= {"rate-limited", "rate-limited-once", "failing", "failing-once"}
OF_A_MODEL |= {"delegated"}


def needed(rig: Rig, capable: Capabilities) -> frozenset[str]:
    """The scenarios that a rig must have: what its agent can do, it is asked to show."""
    names = set(ALWAYS)
    if rig.name not in MODELLESS:
        names |= OF_A_MODEL
        names |= {"plan"} if capable.plan else set()
        names |= {"planned"} if capable.approvals else set()
        names |= {"steer-delegated"} if capable.sub_agents else set()
    if capable.resume:
        names |= {"killed", "resumed"}
    if capable.approvals:
        names |= {"approved", "denied", "withdrawn", "unattended"}
    if capable.questions:
        names |= {"asked", "question"}
    return frozenset(names)


@pytest.fixture
async def model(rig: Rig) -> AsyncIterator[ModelServer]:
    if rig.program() is None:
        pytest.skip(f"{rig.name} is not installed: make agents")
    async with ModelServer(rig.scripts) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.made(tmp_path)


@pytest.fixture
def capable(rig: Rig, model: ModelServer) -> Capabilities:
    return rig.codec(model).capabilities


@contextlib.asynccontextmanager
async def went_through(rig: Rig, name: str, model: ModelServer, place: Place) -> AsyncIterator[DrivenAgent]:
    """The agent after a scenario. Nothing of it may be out of the ordinary in any of them."""
    if name not in rig.scenarios:
        pytest.skip(f"{rig.name} has no scenario {name!r}: it has no such thing")
    async with played_by(rig, name, model, place) as agent:
        storable(agent)
        every_call_ended(agent)
        odd = [event for event in agent.events if isinstance(event, Unknown)]
        assert name == "garbage" or not odd
        yield agent


def storable(agent: DrivenAgent) -> None:
    for event in agent.events:
        text = json.dumps(asdict(event), ensure_ascii=False)
        text.encode()
        assert "\\u0000" not in text and len(text) < 80_000
    assert all(len(json.dumps(step.state)) < 20_000 for step in agent.steps)


def every_call_ended(agent: DrivenAgent) -> None:
    """No spinner is left over when the turn is over."""
    if agent.completions:
        last = {call.id: call for call in agent.tool_calls}
        assert [call for call in last.values() if call.status not in ENDED] == []


def ended_calls(agent: DrivenAgent, kind: ToolKind) -> list[ToolCall]:
    kinds = {call.id: call.kind for call in agent.tool_calls}
    return [call for call in agent.tool_calls if call.status in ENDED and kinds[call.id] is kind]


def test_a_rig_shows_what_its_agent_can_do(rig: Rig, capable: Capabilities) -> None:
    assert needed(rig, capable) <= set(rig.scenarios)


# a turn


@pytest.mark.smoke
async def test_tools(rig: Rig, capable: Capabilities, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "tools", model, place) as agent:
        [completed] = agent.completions
        assert (completed.reason, completed.error) == (StopReason.END, "")
        assert completed.text
        assert (agent.consumed, agent.deferred) == ([1], [])
        [started] = [event for event in agent.events if isinstance(event, AgentStarted)]
        assert started.agent == rig.name
        assert bool(agent.resume_token) == capable.resume
        assert (place.work / "one.txt").exists()
        statuses = [call.status for call in agent.tool_calls]
        assert ToolStatus.IN_PROGRESS in statuses and ToolStatus.COMPLETED in statuses
        assert all(call.title for call in agent.tool_calls if call.status is ToolStatus.IN_PROGRESS)
        if rig.name not in MODELLESS:
            assert completed.text in agent.texts[-1]
            ran = ended_calls(agent, ToolKind.EXECUTE)[0]
            assert ran.title.startswith("Ran printf") and "one" in ran.result
            usage = [event for event in agent.events if isinstance(event, Usage)]
            assert usage and usage[-1].tokens_in and usage[-1].tokens_out
            assert capable.cost or usage[-1].micro_usd is None


async def test_a_plan(rig: Rig, capable: Capabilities, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "plan", model, place) as agent:
        assert capable.plan
        plans = [event for event in agent.events if isinstance(event, Plan)]
        assert [entry.text for entry in plans[-1].entries] == ["Read the code", "Mend it"]


async def test_a_sub_agent_is_waited_for_and_nested(
    rig: Rig, capable: Capabilities, model: ModelServer, place: Place
) -> None:
    """Where it would be hidden, the agent has none, and its model hears so."""
    async with went_through(rig, "delegated", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        if not capable.sub_agents:
            offered = {
                tool["function"]["name"] for request in model.requests for tool in request.get("tools", ())
            }
            assert "bash" in offered and "task" not in offered
            assert not model.was_told("I looked around.") and "They looked." in agent.texts[-1]
            return
        ids = {call.id for call in agent.tool_calls}
        nested = [call for call in agent.tool_calls if call.parent]
        assert nested and {call.parent for call in nested} <= ids


async def test_nothing_works_on_in_the_background_when_the_turn_is_over(
    rig: Rig, model: ModelServer, place: Place
) -> None:
    async with went_through(rig, "background", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        async with asyncio.timeout(30):  # what was told to end may take a moment on a busy machine
            while running_in(place, "sleep"):  # noqa: ASYNC110 another process ends
                await asyncio.sleep(0.05)
        assert not (place.work / "late.txt").exists()


async def test_a_picture(rig: Rig, capable: Capabilities, model: ModelServer, place: Place) -> None:
    """It is shown, or else its path is told."""
    async with went_through(rig, "picture", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        said = json.dumps(model.requests)
        assert PIXEL.name in said or capable.images
        assert (b64encode(PIXEL.read_bytes()).decode() in said) is capable.images


# steering


async def test_a_steer_during_a_tool(
    rig: Rig, capable: Capabilities, model: ModelServer, place: Place
) -> None:
    async with went_through(rig, "steer", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        if capable.steering is Steering.QUEUE:
            assert (agent.consumed, agent.deferred) == ([1], [2])
            assert not model.was_told(STEER)
            return
        assert (agent.consumed, agent.deferred) == ([1, 2], [])
        if rig.name not in MODELLESS:
            assert model.was_told(STEER)
        if capable.steering is Steering.NATIVE:
            ran = ended_calls(agent, ToolKind.EXECUTE)
            assert ran[0].status is ToolStatus.COMPLETED, "it was interrupted for the steer"


async def test_a_steer_while_the_model_speaks(
    rig: Rig, capable: Capabilities, model: ModelServer, place: Place
) -> None:
    async with went_through(rig, "steer-last", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        if capable.steering is Steering.QUEUE:
            assert (agent.consumed, agent.deferred) == ([1], [2])
        else:
            assert (agent.consumed, agent.deferred) == ([1, 2], [])
            assert "Hello from the scripted model." in agent.completions[0].text


async def test_a_receipt_is_given_when_the_model_has_it(
    rig: Rig, capable: Capabilities, model: ModelServer, place: Place
) -> None:
    """Not when it is written: the receipt stands after the end of the tool that it had to wait for."""
    if capable.steering is not Steering.NATIVE or rig.name in MODELLESS:
        pytest.skip("the receipt is not bound to a tool's end")
    async with went_through(rig, "steer", model, place) as agent:
        steps = agent.steps
        receipt = next(index for index, step in enumerate(steps) if 2 in step.consumed)
        written = next(index for index, step in enumerate(steps) if 2 in step.written)
        tool = next(
            index
            for index, step in enumerate(steps)
            if any(isinstance(event, ToolCall) and event.status in ENDED for event in step.events)
        )
        assert written < tool < receipt


async def test_a_steer_is_not_held_by_a_sub_agent(rig: Rig, model: ModelServer, place: Place) -> None:
    """Its sub-agent would run for a minute. Where it is stopped for the steer, people are told."""
    async with went_through(rig, "steer-delegated", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        assert (agent.consumed, agent.deferred) == ([1, 2], [])
        assert model.was_told(STEER)
        assert [event for event in agent.events if isinstance(event, Notice)]
        steered = next(entry for entry in agent.transcript if "steer" in entry)
        assert agent.transcript[-1]["at"] - steered["at"] < 30
        assert not running("sleep", "61")


# stopping


async def test_stop_in_a_tool_then_go_on(rig: Rig, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "stop", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [
            StopReason.CANCELLED,
            StopReason.END,
        ]
        assert (agent.consumed, agent.deferred) == ([1, 2], [])
        assert [call.status for call in ended_calls(agent, ToolKind.EXECUTE)][:1] == [ToolStatus.FAILED]
        assert not running_in(place, "sleep")


async def test_stop_with_a_steer_waiting(rig: Rig, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "stop-waiting", model, place) as agent:
        assert agent.completions[-1].reason is StopReason.CANCELLED
        assert len(agent.completions) == 1
        # Whether it was taken in is the agent's to say; lost it is not, and done it is not.
        assert sorted(agent.consumed + agent.deferred) == [1, 2]
        assert agent.consumed[0] == 1


async def test_stop_at_once(rig: Rig, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "stop-at-once", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.CANCELLED]
        assert sorted(agent.consumed + agent.deferred) == [1]


async def test_a_crash_in_the_middle(
    rig: Rig, capable: Capabilities, model: ModelServer, place: Place
) -> None:
    """It is no word that the turn is over, and what is needed to go on is known by then."""
    async with went_through(rig, "killed", model, place) as agent:
        assert agent.completions == []
        assert agent.process.returncode
        assert (agent.consumed, agent.deferred) == ([1], [])
        assert agent.resume_token


async def test_resume_after_a_kill(rig: Rig, capable: Capabilities, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "resumed", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        assert agent.task.resume_token
        assert (agent.consumed, agent.deferred) == ([1], [])
        if rig.name not in MODELLESS:
            # What was said before the kill is still in the conversation.
            assert "sleep 60" in json.dumps(model.requests[-1])


# asking


async def test_allowed(rig: Rig, capable: Capabilities, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "approved", model, place) as agent:
        assert capable.approvals
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        asked = agent.approvals[0]
        assert "touch asked.txt" in asked.detail and asked.title
        assert asked.kind is ToolKind.EXECUTE
        assert (place.work / "asked.txt").exists()
        assert not [event for event in agent.events if isinstance(event, Withdrawn)]


async def test_denied(rig: Rig, capable: Capabilities, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "denied", model, place) as agent:
        assert capable.approvals
        assert len(agent.completions) == 1
        assert agent.completions[0].reason in (StopReason.END, StopReason.CANCELLED)
        assert not (place.work / "asked.txt").exists()
        # Some agents have no place for a reason and end the turn instead.
        told = model.was_told(DENIAL) or DENIAL in " ".join(agent.texts)
        assert told or [event for event in agent.events if isinstance(event, Notice)]


async def test_a_conversation_in_which_all_was_allowed_asks_later(
    rig: Rig, model: ModelServer, place: Place
) -> None:
    """What an agent has written down of an earlier turn is no yes."""
    scenarios = {**rig.scenarios, "later": replace(rig.scenarios["denied"], before="tools")}
    async with played(rig.codec(model), scenarios, "later", place) as agent:
        assert agent.task.resume_token and agent.task.resume_token == agent.resume_token
        assert len(agent.approvals) == 1
        assert not (place.work / "asked.txt").exists()


async def test_stopped_while_it_waits(rig: Rig, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "withdrawn", model, place) as agent:
        [asked] = agent.approvals
        assert [event.id for event in agent.events if isinstance(event, Withdrawn)] == [asked.id]
        assert [completed.reason for completed in agent.completions] == [StopReason.CANCELLED]
        assert not (place.work / "asked.txt").exists()


async def test_nobody_is_there_to_allow_it(rig: Rig, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "unattended", model, place) as agent:
        assert len(agent.completions) == 1
        assert not (place.work / "asked.txt").exists()
        assert not [event for event in agent.events if isinstance(event, ApprovalAsked)]


async def test_asked_and_answered(rig: Rig, capable: Capabilities, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "asked", model, place) as agent:
        assert capable.questions
        question = agent.questions[0]
        assert "Which colour?" in question.text and question.options == ("Red", "Blue")
        if rig.name in MODELLESS:
            assert ANSWER in agent.completions[0].text
        else:
            assert ANSWER in said_after(model, "Which colour?")
        assert [completed.reason for completed in agent.completions] == [StopReason.END]


async def test_nobody_is_there_to_answer(rig: Rig, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "question", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        asked = [event for event in agent.events if isinstance(event, Question)]
        assert [event.open for event in asked] == [False]


async def test_a_plan_is_approved_before_anything_changes(rig: Rig, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "planned", model, place) as agent:
        assert agent.approvals
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        assert (place.work / "asked.txt").exists()


async def test_a_plan_that_is_not_approved_is_made_again(rig: Rig, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "replanned", model, place) as agent:
        first, second = agent.approvals
        assert first.id != second.id
        assert model.was_told(REVISION)
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        assert (place.work / "asked.txt").exists()


# what goes wrong


async def test_half_a_line(rig: Rig, model: ModelServer, place: Place) -> None:
    """Each of its lines reaches the bot in two halves, and between them the bot is started again."""
    async with went_through(rig, "half-a-line", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        first, *rest = agent.transcript
        whole = Replay(rig.codec(model))
        whole.begin(first)
        for entry in rest:
            whole.on(happening_of(entry))
        assert agent.events == whole.events
        assert sorted(agent.consumed + agent.deferred) == [1, 2]


async def test_five_megabytes_of_output(rig: Rig, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "long", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        assert sum(len(str(event)) for event in agent.events) < 200_000


async def test_garbage_on_its_stdout(rig: Rig, model: ModelServer, place: Place) -> None:
    async with went_through(rig, "garbage", model, place) as agent:
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        unknown = [event for event in agent.events if isinstance(event, Unknown)]
        assert len(unknown) >= (1 if rig.name in MODELLESS else len(GARBAGE))
        assert agent.deferred == []


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        pytest.param(name, cause, id=name)
        for name, cause in {
            "error": Cause.MODEL,
            "unauthorised": Cause.LOGIN,
            "logged-out": Cause.LOGIN,
            "limited": Cause.LIMIT,
            "no-model": Cause.NO_MODEL,
            "rate-limited": Cause.LIMIT,
            "failing": Cause.MODEL,
        }.items()
    ],
)
async def test_errors_of_the_model(
    rig: Rig, name: str, cause: Cause, model: ModelServer, place: Place
) -> None:
    async with went_through(rig, name, model, place) as agent:
        [completed] = agent.completions
        assert completed.reason is StopReason.ERROR
        assert completed.error and completed.text == ""
        assert rig.name in MODELLESS or completed.cause is cause
        # The first prompt is not lost: what the agent has not taken is handed back.
        assert sorted(agent.consumed + agent.deferred) == [1]
        assert all("scripted-0" not in str(event) for event in agent.events if isinstance(event, Completed))


@pytest.mark.parametrize("name", ["rate-limited-once", "failing-once"])
async def test_trouble_of_the_model_that_passes(
    rig: Rig, name: str, model: ModelServer, place: Place
) -> None:
    """The agent asks again by itself, and nobody is bothered with it."""
    async with went_through(rig, name, model, place) as agent:
        assert model.refusals
        assert [completed.reason for completed in agent.completions] == [StopReason.END]
        assert "Hello at last." in agent.texts
        assert (agent.consumed, agent.deferred) == ([1], [])
        assert not [event for event in agent.events if isinstance(event, Notice)]


def said_after(model: ModelServer, words: str) -> str:
    text = json.dumps(model.requests[-1])
    return text[text.rindex(words) :] if words in text else ""


def running(*argv: str) -> list[int]:
    """The processes with exactly these arguments."""
    wanted = "\0".join(argv).encode() + b"\0"
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if file.read_bytes() == wanted:
                found.append(int(file.parent.name))
    return found


def running_in(place: Place, program: str) -> list[int]:
    """The processes of this program whose working directory is the agent's."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            argv = file.read_bytes().split(b"\0")
            if argv[0].decode().endswith(program) and (file.parent / "cwd").readlink() == place.work:
                found.append(int(file.parent.name))
    return found
