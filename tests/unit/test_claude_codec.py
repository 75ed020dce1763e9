"""The Claude codec where a transcript of a real run does not reach: starting, ending, and the frames of
its rounds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bot.agents.claude.codec import ClaudeCodec
from bot.agents.codec import (
    Exited,
    Task,
)
from bot.agents.loopback import loopback_ports
from bot.events import (
    AgentStarted,
    Cause,
    Completed,
    StopReason,
    Text,
)
from tests.agents.claude_talk import (
    CODEC,
    FIRST,
    INIT,
    KEY,
    SECOND,
    TASK,
    Talk,
    lifecycle,
    result,
    says,
    started,
    synthetic,
)

# starting


def test_no_secret_is_in_argv_or_plain_environment() -> None:
    launch = CODEC.launch(TASK)
    assert launch.secrets == {"ANTHROPIC_API_KEY": KEY}
    assert KEY not in " ".join(launch.argv) + str(launch.env)
    assert KEY not in repr(launch)


def test_a_conversation_is_named_or_resumed() -> None:
    new = CODEC.launch(Task(TASK.prompt, "/w", "/h", session_uuid="u-1")).argv
    again = CODEC.launch(Task(TASK.prompt, "/w", "/h", session_uuid="u-1", resume_token="s-1")).argv
    assert new[new.index("--session-id") + 1] == "u-1" and "--resume" not in new
    assert again[again.index("--resume") + 1] == "s-1" and "--session-id" not in again


def test_the_tasks_model_goes_before_the_codecs() -> None:
    argv = CODEC.launch(Task(TASK.prompt, "/w", "/h", model="opus")).argv
    assert argv[argv.index("--model") + 1] == "opus"
    assert "--model" not in ClaudeCodec().launch(TASK).argv


def test_an_endpoint_on_loopback_is_made_reachable() -> None:
    launch = CODEC.launch(TASK)
    assert launch.env["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8791"
    assert launch.loopback == (8791,)
    assert ClaudeCodec(oauth_token="t-0").launch(TASK).secrets == {"CLAUDE_CODE_OAUTH_TOKEN": "t-0"}


@pytest.mark.parametrize(
    ("url", "ports"),
    [
        ("http://127.0.0.1:8791", (8791,)),
        ("http://localhost:80/v1", (80,)),
        ("http://[::1]", (80,)),
        ("https://127.0.0.2", (443,)),
        ("https://api.anthropic.com", ()),
        ("http://10.0.0.1:8080", ()),
        ("", ()),
    ],
)
def test_loopback_ports(url: str, ports: tuple[int, ...]) -> None:
    assert loopback_ports(url) == ports


def test_it_begins_with_a_handshake_and_the_prompt() -> None:
    step = CODEC.begin(TASK)
    hello, prompt = map(json.loads, step.write.splitlines())
    assert hello["request"] == {"subtype": "initialize"}
    assert (prompt["uuid"], prompt["message"]["content"]) == (
        FIRST,
        [{"type": "text", "text": "Ana: fix it"}],
    )
    assert step.written == (1,)


def test_what_it_lists_is_told_with_its_first_words() -> None:
    models = [
        {"value": "opus", "resolvedModel": "claude-opus-5-5", "supportedEffortLevels": ["low", "max"]},
        {"value": "haiku", "resolvedModel": "claude-haiku-5-5"},
    ]
    answer = {"subtype": "success", "request_id": "sandpiper-hello", "response": {"models": models}}
    offered = Talk().hears({"type": "control_response", "response": answer}).offered
    assert offered is not None and offered.complete == ()
    assert offered.names == ("opus", "haiku", "claude-opus-5-5", "claude-haiku-5-5")
    assert offered.efforts_of("claude-opus-5-5") == ("low", "max") and offered.efforts_of("haiku") is None


def test_the_session_is_announced_once() -> None:
    talk = Talk()
    talk.hears(INIT)
    talk.hears(INIT)
    assert [event for step in talk.steps for event in step.events] == [
        AgentStarted("claude", "s-1", "2.1.329", "sonnet")
    ]


def test_a_conversation_can_be_resumed_once_it_has_an_answer() -> None:
    talk = Talk()
    assert talk.hears(INIT).resume_token == ""
    assert talk.hears(says({"type": "text", "text": "Looking."})).resume_token == "s-1"
    assert talk.hears(says({"type": "text", "text": "Found it."})).resume_token == ""


def test_words_that_look_like_a_command_of_claudes_are_written_as_words() -> None:
    told = json.loads(Talk().steer("/clear everything").write)
    assert told["message"]["content"][0]["text"] == " /clear everything"


# the end


def test_a_result_alone_is_not_the_end() -> None:
    talk = started()
    assert talk.hears(result()).completed is None
    assert talk.hears(lifecycle(FIRST, "completed")).completed == Completed(StopReason.END, "Done.")


def test_a_steer_during_the_last_words_makes_a_second_round() -> None:
    talk = started()
    talk.steer()
    assert talk.hears(result("First."), lifecycle(FIRST, "completed")).completed is None
    step = talk.hears(lifecycle(SECOND, "started"), result("Both."), lifecycle(SECOND, "completed"))
    assert step.consumed == (2,)
    assert step.completed == Completed(StopReason.END, "Both.")


def test_a_steer_that_was_folded_in_is_settled_before_the_result() -> None:
    talk = started()
    talk.steer()
    step = talk.hears(lifecycle(SECOND, "started"), lifecycle(SECOND, "completed"), result())
    assert step.completed is None
    assert talk.hears(lifecycle(FIRST, "completed")).completed == Completed(StopReason.END, "Done.")


def test_a_refused_call_of_the_model_says_success_and_is_an_error() -> None:
    talk = started()
    step = talk.hears(
        result("API Error: 529", is_error=True, terminal_reason="api_error"), lifecycle(FIRST, "cancelled")
    )
    assert step.completed == Completed(StopReason.ERROR, error="API Error: 529")


@pytest.mark.parametrize(
    ("kind", "words", "cause"),
    [
        ("authentication_failed", "Not logged in", Cause.LOGIN),
        ("oauth_org_not_allowed", "Not this organisation", Cause.LOGIN),
        ("billing_error", "Credit balance is too low", Cause.LIMIT),
        ("rate_limit", "API Error: Request rejected (429)", Cause.LIMIT),
        ("overloaded", "API Error: 529 Overloaded", Cause.MODEL),
        ("server_error", "API Error: 500 boom", Cause.MODEL),
        ("model_not_found", "There is no such model", Cause.NO_MODEL),
        ("invalid_request", "API Error: 400", Cause.MODEL),
        ("from_tomorrow", "API Error: 418", Cause.MODEL),
        ("", "It broke", Cause.UNKNOWN),
    ],
)
def test_why_a_round_failed_is_told_before_its_result(kind: str, words: str, cause: Cause) -> None:
    talk = started()
    failed = result(words, is_error=True, terminal_reason="api_error")
    step = talk.hears(synthetic(words, kind), failed, lifecycle(FIRST, "completed"))
    assert step.completed is not None
    assert (step.completed.reason, step.completed.cause) == (StopReason.ERROR, cause)


def test_a_failure_of_an_earlier_round_is_not_the_cause_of_a_later_one() -> None:
    talk = started()
    talk.steer()
    talk.hears(synthetic("429", "rate_limit"), result("429", is_error=True), lifecycle(FIRST, "completed"))
    broken = result("", is_error=True, errors=["boom"], user_message_uuids=[SECOND])
    step = talk.hears(lifecycle(SECOND, "started"), broken)
    assert step.completed == Completed(StopReason.ERROR, error="boom")


def test_a_credential_that_is_refused_twice_is_not_tried_ten_times() -> None:
    talk = started()
    refused = {
        "type": "system",
        "subtype": "api_retry",
        "error": "authentication_failed",
        "error_status": 401,
    }
    assert talk.hears({**refused, "attempt": 1}).write == b""
    step = talk.hears({**refused, "attempt": 2})
    assert json.loads(step.write)["request"]["subtype"] == "interrupt"
    assert step.events == ()
    aborted = result("", terminal_reason="aborted_streaming")
    ended = talk.hears(aborted, lifecycle(FIRST, "cancelled")).completed
    assert ended is not None
    assert (ended.reason, ended.cause) == (StopReason.ERROR, Cause.LOGIN)
    assert "401" in ended.error


def test_a_conversation_that_is_gone_is_told_apart() -> None:
    talk = Talk(replace(TASK, resume_token="s-0"))
    gone = "No conversation found with session ID: s-0"
    step = talk.hears(result("", is_error=True, subtype="error_during_execution", errors=[gone]))
    assert step.completed == Completed(StopReason.ERROR, error=gone, cause=Cause.RESUME)
    assert step.deferred == (1,)


def test_a_round_that_failed_by_throwing_settles_its_prompts() -> None:
    talk = started()
    failed = result("", is_error=True, errors=["boom"], user_message_uuids=[FIRST])
    assert talk.hears(failed).completed == Completed(StopReason.ERROR, error="boom")


@pytest.mark.parametrize(
    "words",
    [
        "Not logged in · Please run /login",
        "Invalid API key · Fix external API key",
        'API Error: 401 {"type":"error","error":{"type":"authentication_error"}}',
    ],
)
def test_a_credential_that_is_missing_or_wrong_is_told_apart(words: str) -> None:
    ended = started().hears(result(words, is_error=True), lifecycle(FIRST, "completed")).completed
    assert ended is not None
    assert (ended.error, ended.cause) == (words, Cause.LOGIN)


@pytest.mark.parametrize("fate", ["cancelled", "discarded", "refused"])
def test_what_was_never_taken_is_handed_back(fate: str) -> None:
    talk = started()
    talk.steer()
    assert talk.hears(lifecycle(SECOND, fate)).deferred == (2,)


def test_a_stop_while_nothing_runs_is_answered() -> None:
    talk = started()
    talk.hears(result(), lifecycle(FIRST, "completed"))
    request = json.loads(talk.interrupt().write)
    assert request["request"] == {"subtype": "interrupt", "cancel_queued": True}
    response = {"subtype": "success", "request_id": request["request_id"], "response": {}}
    step = talk.hears({"type": "control_response", "response": response})
    assert step.completed == Completed(StopReason.CANCELLED)


def test_a_round_that_claude_began_by_itself_does_not_complete_twice() -> None:
    talk = started()
    talk.hears(result(), lifecycle(FIRST, "completed"))
    step = talk.hears(says({"type": "text", "text": "By the way."}), result("By the way."))
    assert step.completed is None
    assert Text("By the way.") in step.events
    talk.interrupt()
    stopped = {"subtype": "success", "request_id": "sandpiper-stop-1", "response": {}}
    step = talk.hears({"type": "control_response", "response": stopped})
    assert step.completed == Completed(StopReason.CANCELLED)
    talk.steer("commit what is left")
    step = talk.hears(lifecycle(SECOND, "started"), result("Committed."), lifecycle(SECOND, "completed"))
    assert step.completed == Completed(StopReason.END, "Committed.")


def test_the_death_of_the_process_is_the_drivers_to_tell() -> None:
    talk = started()
    step = CODEC.on(talk.state, Exited(137, "killed"))
    assert (step.events, step.completed) == ((), None)
    assert step.state == talk.state


def test_nothing_is_asked_of_the_network_that_the_work_does_not_need() -> None:
    env = CODEC.launch(TASK).env
    assert {name for name, value in env.items() if value == "1"} >= {
        "DISABLE_AUTOUPDATER",
        "DISABLE_TELEMETRY",
        "DISABLE_ERROR_REPORTING",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    }
