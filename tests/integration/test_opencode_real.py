"""The real OpenCode, driven by its codec through its bridge, against a scripted model on loopback."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.agents.asking import NOBODY
from bot.agents.codec import Prompt
from bot.agents.opencode.subagents import GIVES_WAY, MADE_WAY
from bot.events import (
    AgentStarted,
    ApprovalAsked,
    Cause,
    Completed,
    Consumed,
    Notice,
    Plan,
    PlanStatus,
    Question,
    StopReason,
    Text,
    ToolKind,
    ToolStatus,
    Unknown,
    Usage,
    Withdrawn,
)
from tests.agents import planted
from tests.agents.driven import DrivenAgent
from tests.agents.model.server import ModelServer
from tests.agents.opencode import RIG, SCRIPTS, codec
from tests.agents.playing import ASKING, DENIAL, REVISION, STEER, Place, approved, denied, played_by, prompt

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        RIG.program() is None,
        reason="OpenCode is not installed: npm install --prefix ~/.cache/sandpiper/agents "
        "opencode-ai@1.18.33, or name it with SANDPIPER_OPENCODE",
    ),
]

HELLO = "Hello from the scripted model."
END = StopReason.END


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer(SCRIPTS) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.made(tmp_path)


def ended_tools(agent: DrivenAgent) -> list[tuple[str, ToolStatus, str]]:
    ended = (ToolStatus.COMPLETED, ToolStatus.FAILED)
    return [(call.title, call.status, call.result) for call in agent.tool_calls if call.status in ended]


def usages(agent: DrivenAgent) -> list[Usage]:
    return list({event.key: event for event in agent.events if isinstance(event, Usage)}.values())


async def test_a_turn_with_tools(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "tools", model, place) as agent:
        assert agent.completions == [Completed(END, "Two lines, the second changed.")]
        assert [(e.version, e.model) for e in agent.events if isinstance(e, AgentStarted)] == [
            ("1.18.33", "lab/scripted")
        ]
        assert agent.consumed == [1]
        done, failed = ToolStatus.COMPLETED, ToolStatus.FAILED
        by_title = {title: (status, result) for title, status, result in ended_tools(agent)}
        assert by_title["Ran printf 'one\\ntwo\\n' > one.txt && cat one.txt"] == (done, "one\ntwo")
        assert by_title["Read one.txt"] == (done, "2 lines")
        assert by_title["Edited one.txt"] == (done, "+1 −1")
        assert by_title["Wrote two.txt"] == (done, "+3 −0")
        assert by_title["Ran exit 3 · exit code 3"] == (failed, "")
        assert by_title["Read missing.txt"][0] is by_title["Called nosuch"][0] is failed
        assert [(u.tokens_in, u.tokens_out, u.tokens_cached, u.micro_usd) for u in usages(agent)] == [
            (1000, 50, 200, 3750)
        ] * 6
        assert not [event for event in agent.events if isinstance(event, Unknown)]
        assert (place.work / "one.txt").read_text() == "one\n2\n"
        assert place.git("status", "--porcelain").split() == ["??", "one.txt", "??", "two.txt"]


async def test_no_configuration_and_no_credential_is_on_disk(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "error", model, place):
        found = [
            path for path in place.home.rglob("*") if path.is_file() and path.stat().st_size < 10_000_000
        ]
        assert not [path for path in found if b"scripted-key" in path.read_bytes()]
        assert not list(place.home.rglob("opencode.json*"))


async def test_a_steer_during_a_tool_is_consumed_in_the_same_turn(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "steer", model, place) as agent:
        assert (agent.consumed, agent.deferred) == ([1, 2], [])
        assert agent.completions == [Completed(END, "All done.")]
        assert STEER in json.dumps(model.requests[1]["messages"])


async def test_a_steer_in_its_last_words_is_answered_before_the_end(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "steer-last", model, place) as agent:
        assert agent.consumed == [1, 2]
        assert agent.completions == [Completed(END, HELLO)]


@pytest.mark.parametrize("name", ["steer-failing", "steer-failed"])
async def test_a_steer_as_a_run_fails_is_not_lost(model: ModelServer, place: Place, name: str) -> None:
    async with played_by(RIG, name, model, place) as agent:
        assert agent.consumed == [1, 2]
        assert agent.completions == [Completed(END, HELLO)]
        assert json.dumps(model.requests[-1]["messages"]).count(STEER) == 1


async def test_a_prompt_that_opencode_stored_and_never_read_is_posted_again(
    model: ModelServer, place: Place
) -> None:
    """The trap itself: one that is posted at the first idle of a failed run is lost by OpenCode."""
    task = place.task(prompt("[[script:error]] fail", 1))
    async with DrivenAgent.started(codec(model), task) as agent:
        hear = agent._on

        def hear_and_be_rash(entry: dict[str, object], happening: object) -> None:
            hear(entry, happening)  # type: ignore[arg-type]
            if "session.idle" in str(entry) and agent.state.get("run") == "ending":
                agent.state = {**agent.state, "run": "busy"}  # as if nothing had failed
                agent.steer(prompt(f"[[script:hello]] {STEER}", 2))
                agent.state = {**agent.state, "run": "ending"}

        agent._on = hear_and_be_rash  # type: ignore[method-assign]
        assert await agent.until_completed() == Completed(END, HELLO)
        assert agent.consumed == [1, 2]
        assert json.dumps(model.requests[-1]["messages"]).count(STEER) == 1


async def test_stop_in_a_tool_then_continue(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "stop", model, place) as agent:
        assert agent.completions == [Completed(StopReason.CANCELLED), Completed(END, HELLO)]
        assert ended_tools(agent) == [("Ran sleep 60; echo never", ToolStatus.FAILED, "Stopped.")]
        assert agent.consumed == [1, 2]


async def test_stop_gives_a_waiting_steer_back(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "stop-waiting", model, place) as agent:
        assert agent.completions == [Completed(StopReason.CANCELLED)]
        assert (agent.consumed, agent.deferred) == ([1], [2])
        assert not model.was_told("never read")


@pytest.mark.parametrize("name", ["stop-at-once", "stop-early"])
async def test_stop_before_anything_began(model: ModelServer, place: Place, name: str) -> None:
    async with played_by(RIG, name, model, place) as agent:
        assert agent.completions == [Completed(StopReason.CANCELLED)]
        assert sorted(agent.consumed + agent.deferred) == [1]
        assert not agent.tool_calls


async def test_resume_in_a_new_process_after_a_kill(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "resumed", model, place) as agent:
        assert agent.completions == [Completed(END, HELLO)]
        assert agent.resume_token == agent.task.resume_token
        assert model.was_told("This takes long.")
        assert [u.tokens_in for u in usages(agent)] == [1000]


async def test_a_steer_that_a_killed_process_left_unread_is_heard_once(
    model: ModelServer, place: Place
) -> None:
    async with DrivenAgent.started(codec(model), place.task(prompt("[[script:slow]] take long", 1))) as agent:
        await agent.until_running("sleep")
        agent.steer(prompt(STEER, 2))
        await agent.until(lambda agent: STEER in str(agent.transcript[-1]), "the steer as a message")
        agent.kill()
        await agent.until_ended()
        assert agent.consumed == [1]
    again = place.task(prompt(f"[[script:hello]] {STEER}", 2), agent.resume_token)
    async with DrivenAgent.started(codec(model), again) as agent:
        assert await agent.until_completed() == Completed(END, HELLO)
        assert json.dumps(model.requests[-1]["messages"]).count(STEER) == 1


async def test_a_conversation_that_is_gone_is_an_error_and_not_a_hang(
    model: ModelServer, place: Place
) -> None:
    task = place.task(prompt("[[script:hello]] go on", 1), "ses_1fc552f6affeUnUnUnUnUnUn")
    async with DrivenAgent.started(codec(model), task) as agent:
        completed = await agent.until_completed()
        assert (completed.reason, completed.cause) == (StopReason.ERROR, Cause.RESUME)
        assert (agent.consumed, agent.deferred) == ([], [1])


@pytest.mark.parametrize(
    ("name", "cause", "words"),
    [
        ("error", Cause.MODEL, "the scripted model refuses"),
        ("unauthorised", Cause.LOGIN, "Incorrect API key"),
        ("limited", Cause.LIMIT, "quota"),
        ("logged-out", Cause.LOGIN, "API key is missing"),
        ("overloaded", Cause.MODEL, "overloaded"),
    ],
)
async def test_an_error_of_the_model_ends_the_turn_and_tells_its_cause(
    model: ModelServer, place: Place, name: str, cause: Cause, words: str
) -> None:
    async with played_by(RIG, name, model, place) as agent:
        [completed] = agent.completions
        assert (completed.reason, completed.cause) == (StopReason.ERROR, cause)
        assert words in completed.error


async def test_what_people_allow_is_done(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "approved", model, place) as agent:
        [asked] = agent.approvals
        assert (asked.title, asked.detail, asked.kind) == (
            "Run touch asked.txt",
            "touch asked.txt",
            ToolKind.EXECUTE,
        )
        assert (place.work / "asked.txt").exists()
        assert agent.completions == [Completed(END, "That is how it went.")]


async def test_what_people_do_not_allow_is_not_done_and_the_agent_hears_why(
    model: ModelServer, place: Place
) -> None:
    async with played_by(RIG, "denied", model, place) as agent:
        assert not (place.work / "asked.txt").exists()
        assert ended_tools(agent) == [("Ran touch asked.txt", ToolStatus.FAILED, f"Not allowed: {DENIAL}")]
        assert model.was_told(DENIAL)
        assert agent.completions == [Completed(END, "That is how it went.")]


async def test_a_request_is_withdrawn_by_a_stop(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "withdrawn", model, place) as agent:
        assert [e.id for e in agent.events if isinstance(e, Withdrawn)] == [agent.approvals[0].id]
        assert agent.completions == [Completed(StopReason.CANCELLED)]
        assert not (place.work / "asked.txt").exists()


async def test_nobody_there_is_a_no(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "unattended", model, place) as agent:
        assert not (place.work / "asked.txt").exists()
        assert model.was_told(NOBODY)
        assert [e for e in agent.events if isinstance(e, Notice)]
        assert agent.completions == [Completed(END, "That is how it went.")]


async def test_a_repository_cannot_allow_itself_anything_but_its_words_are_read(
    model: ModelServer, place: Place
) -> None:
    mine = {"permission": "allow", "agent": {"build": {"permission": "allow"}}}
    (place.work / "opencode.json").write_text(json.dumps(mine))
    (place.work / "AGENTS.md").write_text("The tests are run with tox.\n")
    task = place.task(prompt("[[script:wish]] touch it", 1), options=ASKING)
    async with DrivenAgent.started(codec(model), task) as agent:
        await approved(agent)
        assert [asked.title for asked in agent.approvals] == ["Run touch asked.txt"]
        assert model.was_told("The tests are run with tox.")


async def test_an_earlier_turn_cannot_answer_for_people(model: ModelServer, place: Place) -> None:
    """What the agent may have written to the home where nobody was asked, and what the repository has."""
    planted.opencode(place)
    async with played_by(RIG, "denied", model, place) as agent:
        assert [asked.title for asked in agent.approvals] == ["Run touch asked.txt"]
        assert not (place.work / "asked.txt").exists()
        assert planted.started(place) == []


async def test_what_was_allowed_for_good_in_an_earlier_turn_is_asked_for(
    model: ModelServer, place: Place
) -> None:
    """The agent can write into its own database, or have got such a yes."""
    async with played_by(RIG, "tools", model, place) as earlier:
        token = earlier.resume_token
    planted.opencode_database(place)
    task = place.task(prompt("[[script:wish]] touch it", 1), token, ASKING)
    async with DrivenAgent.started(codec(model), task) as agent:
        await denied(agent)
        assert agent.resume_token == token
        assert not (place.work / "asked.txt").exists()


async def test_it_is_not_started_where_it_would_start_plugins_unasked(
    model: ModelServer, place: Place
) -> None:
    planted.opencode_plugin(place, place.work / ".opencode", "work")
    task = place.task(prompt("[[script:wish]] touch it", 1), options=ASKING)
    async with DrivenAgent.started(codec(model), task) as agent:
        assert await agent.until_ended() == 78
        assert b"plugins before people are asked" in agent.stderr
        assert planted.started(place) == []


async def test_a_question_waits_for_people(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "asked", model, place) as agent:
        [question] = agent.questions
        assert (question.text, question.options) == ("Which colour?", ("Red", "Blue"))
        assert ended_tools(agent) == [("Asked: Which colour?", ToolStatus.COMPLETED, "Blue")]
        assert agent.completions == [Completed(END, "Thank you, I go on.")]


async def test_a_question_that_nobody_can_answer_is_answered_with_the_way_out(
    model: ModelServer, place: Place
) -> None:
    async with played_by(RIG, "question", model, place) as agent:
        assert [(e.text, e.open) for e in agent.events if isinstance(e, Question)] == [
            ("Which colour?", False)
        ]
        assert model.was_told(NOBODY)
        assert agent.completions == [Completed(END, "Thank you, I go on.")]


async def test_a_plan_is_put_to_people_before_it_is_carried_out(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "planned", model, place) as agent:
        [asked] = [event for event in agent.events if isinstance(event, ApprovalAsked)]
        assert asked.detail == "1. Touch the file."
        assert (place.work / "asked.txt").exists()
        assert agent.completions == [Completed(END, "Touched.")]
        assert agent.consumed == [1]


async def test_a_plan_that_is_not_approved_is_made_again_by_the_agent_that_only_reads(
    model: ModelServer, place: Place
) -> None:
    async with played_by(RIG, "replanned", model, place) as agent:
        assert [asked.detail for asked in agent.approvals] == ["1. Touch the file."] * 2
        assert model.was_told(f"The plan is not approved: [[script:planned]] {REVISION}")
        assert agent.completions == [Completed(END, "Touched.")]


async def test_its_list_is_the_plan(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "plan", model, place) as agent:
        plans = [event for event in agent.events if isinstance(event, Plan)]
        assert [(entry.text, entry.status) for entry in plans[-1].entries] == [
            ("Read the code", PlanStatus.COMPLETED),
            ("Mend it", PlanStatus.IN_PROGRESS),
        ]
        assert agent.tool_calls == []


async def test_a_sub_agent_is_waited_for(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "delegated", model, place) as agent:
        inner = [call for call in agent.tool_calls if call.parent]
        assert {call.title for call in inner} == {
            "Running a command",
            "Running echo looked",
            "Ran echo looked",
        }
        assert [title for title, _, _ in ended_tools(agent)] == ["Ran echo looked", "Delegated: Look around"]
        assert agent.texts == ["Somebody else looks.", "They looked."]
        assert len(usages(agent)) == 4


async def test_a_steer_while_a_sub_agent_works_stops_it_and_is_heard_in_the_same_turn(
    model: ModelServer, place: Place
) -> None:
    async with played_by(RIG, "steer-delegated", model, place) as agent:
        assert agent.consumed == [1, 2]
        assert [event.text for event in agent.events if isinstance(event, Notice)] == [GIVES_WAY]
        assert {(title, result) for title, _, result in ended_tools(agent)} == {
            ("Ran sleep 61", MADE_WAY),
            ("Delegated: Look around", MADE_WAY),
        }
        assert agent.completions == [Completed(END, "They looked.")]


async def test_what_a_stopped_sub_agent_asked_of_people_is_withdrawn(
    model: ModelServer, place: Place
) -> None:
    async with played_by(RIG, "steer-delegated-asking", model, place) as agent:
        [asked] = agent.approvals
        kinds = [
            type(event) for event in agent.events if event == Withdrawn(asked.id) or type(event) is Consumed
        ]
        assert kinds == [Consumed, Withdrawn, Consumed]
        assert (agent.consumed, agent.deferred) == ([1, 2], [])
        assert not (place.work / "asked.txt").exists()


async def test_an_effort_reaches_the_model(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "effort", model, place) as agent:
        assert model.requests[-1]["reasoning_effort"] == "high"
        assert not [event for event in agent.events if isinstance(event, Notice)]


async def test_much_output_is_clipped(model: ModelServer, place: Place) -> None:
    async with played_by(RIG, "long", model, place) as agent:
        [(_, status, result)] = ended_tools(agent)
        assert status is ToolStatus.COMPLETED
        assert len(result) < 1000
        assert agent.completions == [Completed(END, "That was long.")]


def a_picture(path: Path) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\xff\0\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


async def test_a_picture_is_shown_to_the_model(model: ModelServer, place: Place) -> None:
    picture = a_picture(place.home / "a picture.png")
    task = place.task(Prompt("k-1", "[[script:hello]] look", (1,), (str(picture),)))
    async with DrivenAgent.started(codec(model), task) as agent:
        assert await agent.until_completed() == Completed(END, HELLO)
        assert "data:image/png;base64," in json.dumps(model.requests[-1]["messages"])
        assert [event.text for event in agent.events if isinstance(event, Text)] == [HELLO]


async def test_a_picture_that_is_not_there_does_not_lose_the_words(model: ModelServer, place: Place) -> None:
    task = place.task(Prompt("k-1", "[[script:hello]] look", (1,), (str(place.home / "gone.png"),)))
    async with DrivenAgent.started(codec(model), task) as agent:
        assert await agent.until_completed() == Completed(END, HELLO)
        assert agent.consumed == [1]
        assert model.was_told("gone.png")


async def test_words_that_begin_with_a_slash_are_words(model: ModelServer, place: Place) -> None:
    task = place.task(prompt("/init is what I'd like to know about. [[script:hello]]", 1))
    async with DrivenAgent.started(codec(model), task) as agent:
        assert await agent.until_completed() == Completed(END, HELLO)
        assert model.was_told("/init is what")
