"""The course of a turn with Codex where transcripts of real runs do not reach: rare orders and refusals."""

from __future__ import annotations

import pytest

from bot.agents.apart import APART
from bot.agents.codec import Prompt, Steer, Step, Task
from bot.agents.codex.codec import KEY, OPENAI, CodexCodec
from bot.agents.codex.turns import GIVES_WAY, READ_FIRST
from bot.events import AgentStarted, Cause, Completed, Notice, StopReason, ToolStatus
from tests.agents.codex_talk import (
    ASK,
    CODEC,
    FIRST,
    PLAN,
    RESUMED,
    SECOND,
    SECRET,
    TASK,
    THIRD,
    Frame,
    Talk,
    begun,
    calls,
    ended,
    joined,
    methods,
    over,
    running,
    said,
    started,
    took,
)

# starting


def test_the_key_is_in_the_environment_and_all_else_in_the_arguments() -> None:
    launch = CODEC.launch(Task(TASK.prompt, TASK.cwd, TASK.home, model="gpt-6.1-sol", effort="high"))
    flags = dict(zip(launch.argv[1:-1:2], launch.argv[2:-1:2], strict=True))
    settings = [word for word in launch.argv if "=" in word]
    assert set(flags) == {"-c"}
    assert (launch.argv[0], launch.argv[-1]) == ("codex", "app-server")
    assert launch.secrets == {KEY: SECRET}
    assert not any(SECRET in word for word in launch.argv)
    assert launch.loopback == (8791,)
    assert 'model="gpt-6.1-sol"' in settings
    assert 'model_reasoning_effort="high"' in settings
    assert 'model_providers.sandpiper.base_url="http://127.0.0.1:8791/v1"' in settings
    assert f'model_providers.sandpiper.env_key="{KEY}"' in settings
    assert "analytics.enabled=false" in settings


def test_without_a_base_url_it_is_openais() -> None:
    launch = CodexCodec(api_key=SECRET).launch(TASK)
    assert f'model_providers.sandpiper.base_url="{OPENAI}"' in launch.argv
    assert launch.loopback == ()
    assert not any(word.startswith("model=") for word in launch.argv)


@pytest.mark.parametrize(
    ("task", "trust", "policy"),
    [(TASK, "trusted", "never"), (ASK, "untrusted", "untrusted"), (PLAN, "untrusted", "untrusted")],
)
def test_permissions_set_what_codex_trusts_and_asks(task: Task, trust: str, policy: str) -> None:
    assert f'projects={{"/home/agent/work"={{trust_level="{trust}"}}}}' in CODEC.launch(task).argv
    terminals = "features.unified_exec_tty=false" not in CODEC.launch(task).argv
    assert terminals is (policy == "never")
    own_home = APART in CODEC.launch(task).argv
    assert own_home is (policy == "untrusted")
    start = said(CODEC.begin(task))[-1]
    assert (start["method"], start["params"]["approvalPolicy"]) == ("thread/start", policy)
    assert (READ_FIRST in start["params"]["developerInstructions"]) is (policy == "untrusted")


def test_the_first_words_are_sent_once_there_is_a_conversation() -> None:
    talk = Talk()
    assert methods(talk.steps[0]) == ["initialize", "initialized", "thread/start"]
    assert talk.steps[0].written == (1,)
    step = talk.answered({"thread": {"id": "t-1", "cliVersion": "0.169.0"}, "model": "gpt-6-sol"})
    assert AgentStarted("codex", "t-1", "0.169.0", "gpt-6-sol") in step.events
    assert (step.consumed, step.resume_token) == ((), "")
    [start] = said(step)
    assert start["method"] == "turn/start"
    assert start["params"]["clientUserMessageId"] == FIRST
    assert start["params"]["input"] == [{"type": "text", "text": "Ana: fix it"}]


def test_a_resumed_conversation_is_put_into_its_default_mode() -> None:
    talk = Talk(RESUMED)
    resume = said(talk.steps[0])[-1]
    assert (resume["method"], resume["params"]["threadId"]) == ("thread/resume", "t-1")
    [start] = said(talk.answered({"thread": {"id": "t-1"}, "model": "gpt-6-sol"}))
    assert start["params"]["collaborationMode"]["mode"] == "default"


def test_its_models_are_asked_for_once_its_first_turn_is_under_way() -> None:
    def asked(step: Step) -> list[str]:
        return [frame["id"] for frame in said(step) if frame.get("method") == "model/list"]

    talk = joined()
    assert not any(asked(step) for step in talk.steps)
    assert asked(talk.answered({"turn": {"id": "u-1"}})) == ["models"]
    efforts = [{"reasoningEffort": "low"}, {"reasoningEffort": "high"}]
    models = [{"model": "gpt-6-sol", "supportedReasoningEfforts": efforts}, {"id": "no-name"}]
    offered = talk.hears({"id": "models", "result": {"data": models}}).offered
    assert offered is not None and offered.complete == ()
    assert offered.names == ("gpt-6-sol",) and offered.efforts_of("gpt-6-sol") == ("low", "high")
    talk.hears(took(FIRST), ended())
    talk.steer()
    assert asked(talk.answered({"turn": {"id": "u-2"}})) == []


def test_a_list_that_is_refused_changes_nothing() -> None:
    talk = started()
    step = talk.hears({"id": "models", "error": {"code": -32601, "message": "no such method"}})
    assert (step.offered, step.events, step.completed) == (None, (), None)


def test_images_go_along_by_their_paths() -> None:
    talk = started()
    prompt = Prompt(SECOND, "Ben: look", (2,), ("/home/agent/a.png",))
    step = talk.take(CODEC.on(talk.state, Steer(prompt)))
    assert said(step)[0]["params"]["input"][1] == {"type": "localImage", "path": "/home/agent/a.png"}


def test_the_token_is_given_when_there_is_something_to_resume() -> None:
    talk = joined()
    assert talk.hears(took(FIRST)).resume_token == ""
    assert talk.hears(begun("agentMessage", text="")).resume_token == "t-1"
    assert talk.hears(over("agentMessage", text="Hi.")).resume_token == ""


@pytest.mark.parametrize(
    ("task", "error", "cause"),
    [
        (RESUMED, "no rollout found for thread id t-1", Cause.RESUME),
        (RESUMED, "invalid session id: invalid character", Cause.RESUME),
        (RESUMED, "disk full", Cause.UNKNOWN),
        (TASK, "no rollout found for thread id t-1", Cause.UNKNOWN),
    ],
)
def test_no_conversation_is_an_error(task: Task, error: str, cause: Cause) -> None:
    step = Talk(task).answered(error=error)
    assert step.completed == Completed(StopReason.ERROR, error=error, cause=cause)
    assert step.deferred == (1,)


def test_words_after_a_failed_start_are_handed_back() -> None:
    talk = Talk(RESUMED)
    talk.answered(error="no rollout found")
    step = talk.steer()
    assert step.completed is not None
    assert step.deferred == (2,)


# steering


def test_a_steer_is_consumed_when_codex_has_it_and_not_when_it_is_accepted() -> None:
    talk = started()
    step = talk.steer()
    [steer] = said(step)
    assert (steer["method"], steer["params"]["expectedTurnId"]) == ("turn/steer", "u-1")
    assert (step.written, step.consumed) == ((2,), ())
    assert talk.answered({"turnId": "u-1"}).consumed == ()
    assert talk.hears(took(SECOND)).consumed == (2,)
    assert talk.hears(took(SECOND)).consumed == ()


def test_words_that_come_before_the_turn_has_begun_wait_for_it() -> None:
    talk = joined()
    step = talk.steer()
    assert (step.write, step.written) == (b"", (2,))
    assert methods(talk.answered({"turn": {"id": "u-1"}})) == ["turn/steer"]


@pytest.mark.parametrize("ended_first", [True, False])
def test_a_steer_that_came_too_late_starts_a_turn_in_the_same_process(ended_first: bool) -> None:
    talk = started()
    talk.steer()
    refused: Frame = {"id": said(talk.steps[-1])[0]["id"], "error": {"message": "no active turn to steer"}}
    for frame in (ended(), refused) if ended_first else (refused, ended()):
        step = talk.hears(frame)
    assert talk.steps[-2].completed is None
    [start] = said(step)
    assert (start["method"], start["params"]["clientUserMessageId"]) == ("turn/start", SECOND)
    talk.answered({"turn": {"id": "u-2"}})
    assert talk.hears(took(SECOND)).consumed == (2,)
    assert talk.hears(ended("u-2")).completed == Completed(StopReason.END, "Done.")


def test_a_steer_that_this_turn_does_not_take_waits_for_its_end() -> None:
    talk = started()
    talk.steer()
    assert talk.answered(error="this turn cannot be steered").write == b""
    talk.steer("Cem: and that", THIRD, 3)
    talk.answered({"turnId": "u-1"})
    talk.hears(took(THIRD))
    assert methods(talk.hears(ended())) == ["turn/start"]


def test_accepted_words_that_a_turn_did_not_take_start_the_next() -> None:
    talk = started()
    talk.steer()
    talk.answered({"turnId": "u-1"})
    step = talk.hears(ended())
    assert step.completed is None
    assert methods(step) == ["turn/start"]


def test_a_lost_receipt_of_the_first_words_does_not_say_them_twice() -> None:
    talk = joined()
    talk.answered({"turn": {"id": "u-1"}})
    step = talk.hears(ended())
    assert step.consumed == (1,)
    assert step.completed == Completed(StopReason.END, "Done.")


def test_words_wait_for_nothing_when_codex_waits_for_a_sub_agent() -> None:
    talk = started()
    talk.hears(begun("collabAgentToolCall", tool="wait"))
    step = talk.steer()
    assert methods(step) == ["turn/interrupt"]
    assert Notice(GIVES_WAY) in step.events
    talk.answered()
    step = talk.hears(ended(status="interrupted", text=""))
    assert calls(step)[0].result == "Stopped for new words."
    assert step.completed is None
    assert methods(step) == ["turn/start"]


def test_words_that_were_accepted_before_it_began_to_wait_are_not_held_either() -> None:
    talk = started()
    talk.steer()
    talk.answered({"turnId": "u-1"})
    assert methods(talk.hears(begun("collabAgentToolCall", tool="wait"))) == ["turn/interrupt"]
    talk.answered()
    assert methods(talk.hears(ended(status="interrupted", text=""))) == ["turn/start"]


# stopping


def test_stop_ends_commands_and_gives_back_what_waits() -> None:
    talk = started()
    talk.hears(running("sleep 60"))
    talk.steer()
    talk.answered({"turnId": "u-1"})
    assert methods(talk.interrupt()) == ["turn/interrupt"]
    talk.answered()
    step = talk.hears(ended(status="interrupted", text=""))
    assert methods(step) == ["thread/backgroundTerminals/clean"]  # an interrupt lets commands run on
    assert step.completed is None
    step = talk.answered()
    assert step.completed == Completed(StopReason.CANCELLED)
    assert step.deferred == (2,)
    assert [(call.title, call.status, call.result) for call in calls(step)] == [
        ("Ran sleep 60", ToolStatus.FAILED, "Stopped.")
    ]
    late = over("commandExecution", status="failed", command="sleep 60", exitCode=-1)
    assert talk.hears(late).events == ()


def test_stop_while_the_turn_is_being_started() -> None:
    talk = joined()
    assert talk.interrupt().write == b""
    step = talk.answered({"turn": {"id": "u-1"}})
    assert methods(step) == ["turn/interrupt"]
    assert said(step)[0]["params"]["turnId"] == "u-1"


def test_a_stop_that_comes_too_late_is_a_stop() -> None:
    talk = started()
    talk.interrupt()
    talk.hears(ended())
    talk.answered(error="no active turn to interrupt")
    assert talk.answered().completed == Completed(StopReason.CANCELLED)


def test_a_refused_cleaning_does_not_hang_the_turn() -> None:
    talk = started()
    talk.interrupt()
    talk.answered()
    talk.hears(ended(status="interrupted", text=""))
    assert talk.answered(error="thread not found").completed == Completed(StopReason.CANCELLED)


# the end


def test_the_turn_is_not_over_while_a_command_runs() -> None:
    talk = started()
    talk.hears(running("make"))
    step = talk.hears(ended())
    assert step.completed is None
    [asked_back] = said(step)
    assert "`make`" in asked_back["params"]["input"][0]["text"]
    talk.answered({"turn": {"id": "u-2"}})
    talk.hears(over("commandExecution", command="/bin/bash -lc make", exitCode=0))
    assert talk.hears(ended("u-2", text="Made.")).completed == Completed(StopReason.END, "Made.")


def test_a_failed_turn_ends_what_runs_without_asking() -> None:
    talk = started()
    talk.hears(running("make"))
    error = {"message": "boom", "codexErrorInfo": "serverOverloaded"}
    step = talk.hears(ended(status="failed", text="", error=error))
    assert methods(step) == ["thread/backgroundTerminals/clean"]
    assert talk.answered().completed == Completed(StopReason.ERROR, error="boom", cause=Cause.MODEL)


def test_a_call_without_an_outcome_is_closed_with_its_turn() -> None:
    talk = started()
    talk.hears(begun("mcpToolCall", server="github", tool="get_issue"))
    step = talk.hears(ended())
    assert [(call.title, call.status) for call in calls(step)] == [
        ("Used github: get_issue", ToolStatus.FAILED)
    ]
    assert step.completed == Completed(StopReason.END, "Done.")


def test_nothing_is_asked_of_the_network_that_the_work_does_not_need() -> None:
    argv = CODEC.launch(TASK).argv
    assert {"check_for_update_on_startup=false", "analytics.enabled=false", "feedback.enabled=false"} <= set(
        argv
    )
