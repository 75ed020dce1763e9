"""Real agents behind ACP, driven by its codec, against a scripted model on loopback.

What every agent is asked for is in tests/contracts/agent/test_live.py; here is what these two are for:
one that can be steered over ACP, one that cannot.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.agents.acp.session import STOPPED_FOR
from bot.agents.asking import NOBODY
from bot.agents.codec import Interrupt, Steering
from bot.events import (
    AgentStarted,
    Cause,
    Completed,
    Notice,
    Plan,
    PlanStatus,
    StopReason,
    ToolCall,
    ToolStatus,
    Unknown,
    Usage,
)
from tests.agents import planted
from tests.agents.acp import CLAUDE, OPENCODE, claude_codec, opencode_codec, opencode_codec_at
from tests.agents.driven import DrivenAgent
from tests.agents.model.anthropic import bash
from tests.agents.model.script import Reply, Script
from tests.agents.model.server import ModelServer
from tests.agents.playing import ASKING, DENIAL, STEER, Place, Rig, denied, played, played_by, prompt

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]


def installed(rig: Rig) -> pytest.MarkDecorator:
    return pytest.mark.skipif(rig.program() is None, reason=f"{rig.name} is not installed: make agents")


with_claude, with_opencode = installed(CLAUDE), installed(OPENCODE)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.made(tmp_path)


def ended(agent: DrivenAgent) -> list[tuple[str, ToolStatus, str]]:
    over = (ToolStatus.COMPLETED, ToolStatus.FAILED)
    return [(call.title, call.status, call.result) for call in agent.tool_calls if call.status in over]


def written(agent: DrivenAgent) -> str:
    return b"".join(step.write for step in agent.steps).decode()


def usage(agent: DrivenAgent) -> list[Usage]:
    newest = {event.key: event for event in agent.events if isinstance(event, Usage)}
    return list(newest.values())


# Claude Code, which can be steered


@with_claude
async def test_a_turn_of_claude(place: Place) -> None:
    async with ModelServer(CLAUDE.scripts) as model, played_by(CLAUDE, "tools", model, place) as agent:
        assert agent.completions == [Completed(StopReason.END, "Two lines, the second changed.")]
        [started] = [event for event in agent.events if isinstance(event, AgentStarted)]
        assert (started.agent, started.version, started.model) == (
            "acp-claude",
            "0.100.0",
            "claude-sonnet-4-5",
        )
        ran, read, edited, failed = ended(agent)
        assert ran == ("Ran printf 'one\\ntwo\\n' > one.txt && cat one.txt", ToolStatus.COMPLETED, "one\ntwo")
        assert read == ("Read one.txt", ToolStatus.COMPLETED, "2 lines")
        assert edited == ("Edited one.txt", ToolStatus.COMPLETED, "+1 −1")
        assert failed[:2] == ("Read missing.txt", ToolStatus.FAILED)
        [row] = usage(agent)
        assert (row.tokens_in, row.tokens_out, row.tokens_cached) == (5000, 250, 1000)
        assert row.micro_usd
        assert '"modeId":"bypassPermissions"' in written(agent)
        assert not [event for event in agent.events if isinstance(event, Unknown)]


@with_claude
async def test_a_steer_waits_for_the_tool_and_is_given_to_the_next_model_call(place: Place) -> None:
    """With background tasks off; else the adapter moves the command to the background for it."""
    async with ModelServer(CLAUDE.scripts) as model, played_by(CLAUDE, "steer", model, place) as agent:
        assert "session/cancel" not in written(agent)
        assert ended(agent)[0][1:] == (ToolStatus.COMPLETED, "slept")
        at = [
            index
            for index, step in enumerate(agent.steps)
            if 2 in step.consumed
            or any(isinstance(event, ToolCall) and event.result == "slept" for event in step.events)
        ]
        assert len(at) == 2 and 2 in agent.steps[at[1]].consumed
        assert model.was_told(STEER)


@with_claude
async def test_a_refusal_and_its_reason_reach_claude(place: Place) -> None:
    async with ModelServer(CLAUDE.scripts) as model, played_by(CLAUDE, "denied", model, place) as agent:
        assert model.was_told(DENIAL)
        assert ended(agent) == [("Ran touch asked.txt", ToolStatus.FAILED, "Not allowed.")]
        assert '"modeId":"default"' not in written(agent), "it is the mode that a new session has"


@with_claude
async def test_a_resumed_session_is_set_to_its_mode_and_is_not_told_again(place: Place) -> None:
    async with ModelServer(CLAUDE.scripts) as model, played_by(CLAUDE, "resumed", model, place) as agent:
        assert '"method":"session/resume"' in written(agent)
        assert '"modeId":"bypassPermissions"' in written(agent)
        assert agent.texts == ["Hello from the scripted model."]
        assert agent.tool_calls == []
        # What the session had cost before is not told, so what this round cost is not known.
        assert [row.micro_usd for row in usage(agent)] == [None]


@with_claude
async def test_a_session_that_is_gone_is_said_to_be(place: Place) -> None:
    task = place.task(prompt("[[script:hello]] go on", 1), "11111111-1111-4111-8111-111111111111")
    async with (
        ModelServer(CLAUDE.scripts) as model,
        DrivenAgent.started(claude_codec(model), task) as agent,
    ):
        completed = await agent.until_completed()
        assert (completed.reason, completed.cause) == (StopReason.ERROR, Cause.RESUME)
        assert (agent.consumed, agent.deferred) == ([], [1])


@with_claude
async def test_a_question_that_nobody_can_answer_says_the_way_out(place: Place) -> None:
    async with ModelServer(CLAUDE.scripts) as model, played_by(CLAUDE, "question", model, place) as agent:
        assert model.was_told(NOBODY)
        assert ended(agent) == [("Asked: Which colour?", ToolStatus.COMPLETED, "")]


@with_claude
async def test_claudes_plan_is_put_to_people_and_then_it_works(place: Place) -> None:
    async with ModelServer(CLAUDE.scripts) as model, played_by(CLAUDE, "planned", model, place) as agent:
        [asked] = agent.approvals
        assert (asked.title, asked.detail.strip()) == ("Go on with this plan", "1. Touch asked.txt")
        assert '"modeId":"plan"' in written(agent)
        assert (place.work / "asked.txt").exists()


@with_claude
async def test_how_a_long_run_of_tests_went_is_told(place: Place) -> None:
    told = "yes 0123456789abcdef | head -c 100000; echo; echo '===== 2 failed, 5 passed in 1.23s ====='"
    (place.work / "tests.sh").write_text(told)
    script: Script = [Reply("I test.", (bash("sh tests.sh"),)), Reply("Tested.")]
    async with ModelServer({"test": script}) as model:
        task = place.task(prompt("[[script:test]] test", 1))
        async with DrivenAgent.started(claude_codec(model), task) as agent:
            await agent.until_completed()
            [(title, _, _)] = ended(agent)
            assert "2 failed" in title


# OpenCode, which cannot


@with_opencode
async def test_a_turn_of_opencode(place: Place) -> None:
    async with ModelServer(OPENCODE.scripts) as model, played_by(OPENCODE, "tools", model, place) as agent:
        assert agent.completions == [Completed(StopReason.END, "Two lines, the second changed.")]
        ran, read, edited, wrote, *failed = ended(agent)
        assert ran == ("Ran printf 'one\\ntwo\\n' > one.txt && cat one.txt", ToolStatus.COMPLETED, "one\ntwo")
        assert read == ("Read one.txt", ToolStatus.COMPLETED, "2 lines")
        assert edited == ("Edited one.txt", ToolStatus.COMPLETED, "+1 −1")
        assert wrote == ("Edited two.txt", ToolStatus.COMPLETED, "+3 −0")
        assert {title for title, _, _ in failed} == {"Read missing.txt", "Ran exit 3 · exit code 3"}
        [row] = usage(agent)
        # Money of all calls; tokens of the last one only, as OpenCode tells them.
        assert (row.tokens_in, row.tokens_out, row.micro_usd) == (1000, 50, 22_500)
        assert (place.work / "two.txt").read_text() == "a\nb\nc\n"
        assert not [event for event in agent.events if isinstance(event, Unknown)]


@with_opencode
async def test_a_steer_interrupts_it_and_it_goes_on_in_the_same_turn(place: Place) -> None:
    async with ModelServer(OPENCODE.scripts) as model, played_by(OPENCODE, "steer", model, place) as agent:
        assert agent.completions == [Completed(StopReason.END, "All done.")]
        assert ended(agent)[0] == ("Ran sleep 2; echo slept", ToolStatus.FAILED, "Stopped.")
        assert (agent.consumed, agent.deferred) == ([1, 2], [])
        assert model.was_told(STEER) and model.was_told(STOPPED_FOR)
        [notice] = [event.text for event in agent.events if isinstance(event, Notice)]
        assert "takes no messages while it works" in notice


@with_opencode
async def test_it_ends_its_turn_when_it_is_refused_and_is_told_why(place: Place) -> None:
    async with ModelServer(OPENCODE.scripts) as model, played_by(OPENCODE, "denied", model, place) as agent:
        assert model.was_told(DENIAL)
        assert written(agent).count('"method":"session/prompt"') == 2
        assert agent.completions == [Completed(StopReason.END, "That was it.")]


@with_opencode
async def test_its_todos_are_the_plan(place: Place) -> None:
    async with ModelServer(OPENCODE.scripts) as model, played_by(OPENCODE, "plan", model, place) as agent:
        plans = [event for event in agent.events if isinstance(event, Plan)]
        assert [(entry.text, entry.status) for entry in plans[-1].entries] == [
            ("Read the code", PlanStatus.COMPLETED),
            ("Mend it", PlanStatus.IN_PROGRESS),
        ]
        assert agent.tool_calls == []


@with_opencode
async def test_it_dies_in_the_handshake(place: Place) -> None:
    """Nothing is lost then: the prompt was never written."""
    task = place.task(prompt("[[script:hello]] hello", 1))
    async with (
        ModelServer(OPENCODE.scripts) as model,
        DrivenAgent.started(opencode_codec(model), task) as agent,
    ):
        agent.kill()
        await agent.until_ended()
        assert (agent.consumed, agent.deferred, agent.completions) == ([], [], [])
        # A stop that comes now finds nothing to wait for.
        step = agent.codec.on(agent.state, Interrupt())
        assert step.completed == Completed(StopReason.CANCELLED) and step.deferred == (1,)


@with_opencode
async def test_an_agent_that_is_to_queue_gets_a_message_in_the_next_turn(place: Place) -> None:
    """`"steering": "queue"` in SANDPIPER_AGENTS, for who does not want a turn to be stopped for a message."""

    async with ModelServer(OPENCODE.scripts) as model:
        codec = opencode_codec_at(model.url, steering=Steering.QUEUE)
        async with played(codec, OPENCODE.scenarios, "steer", place) as agent:
            assert [completed.reason for completed in agent.completions] == [StopReason.END]
            assert (agent.consumed, agent.deferred) == ([1], [2])
            assert "session/cancel" not in written(agent) and not model.was_told(STEER)
        task = place.task(prompt(STEER, 2), agent.resume_token)
        async with DrivenAgent.started(codec, task) as agent:
            agent.deadline = 120.0
            assert (await agent.until_completed()).reason is StopReason.END
            assert (agent.consumed, agent.deferred) == ([2], []) and model.was_told(STEER)


# What an earlier turn may have left


@with_claude
@pytest.mark.parametrize("name", ["denied", "unattended"])
async def test_nothing_that_claude_finds_answers_for_people(place: Place, name: str) -> None:
    planted.claude(place)
    async with ModelServer(CLAUDE.scripts) as model, played_by(CLAUDE, name, model, place) as agent:
        assert len(agent.approvals) == (name == "denied")
        assert not (place.work / "asked.txt").exists()
        assert planted.started(place) == []


@with_opencode
async def test_nothing_that_opencode_finds_answers_for_people(place: Place) -> None:
    planted.opencode(place)
    async with ModelServer(OPENCODE.scripts) as model, played_by(OPENCODE, "denied", model, place) as agent:
        assert len(agent.approvals) == 1
        assert not (place.work / "asked.txt").exists()
        assert planted.started(place) == []


@with_opencode
async def test_what_opencode_was_allowed_for_good_in_an_earlier_turn_is_asked_for(place: Place) -> None:
    async with ModelServer(OPENCODE.scripts) as model:
        async with played_by(OPENCODE, "tools", model, place) as earlier:
            token = earlier.resume_token
        planted.opencode_database(place)
        task = place.task(prompt("[[script:touch]] touch it", 1), token, ASKING)
        async with DrivenAgent.started(opencode_codec(model), task) as agent:
            agent.deadline = 120.0
            await denied(agent)
            assert agent.resume_token == token
            assert not (place.work / "asked.txt").exists()
