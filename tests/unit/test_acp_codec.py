"""The ACP codec beyond the transcripts of real runs: how it begins, what is chosen, and how it ends."""

from __future__ import annotations

import json

import pytest

from bot.agents.acp.codec import AcpCodec
from bot.agents.claude.codec import QUIET
from bot.agents.codec import (
    Permissions,
    Prompt,
    Steer,
)
from bot.agents.vendors import OPENCODE_KEEPS
from bot.events import (
    AgentStarted,
    ApprovalAsked,
    Cause,
    Completed,
    Consumed,
    Notice,
    StopReason,
    Unknown,
    Usage,
)
from tests.unit.acp_talk import (
    CODEC,
    KEY,
    MODES,
    Frame,
    Talk,
    asks,
    ends,
    hello,
    opened,
    says,
    task,
    update,
)

# starting


def test_no_secret_is_in_argv_or_plain_environment() -> None:
    launch = CODEC.launch(task())
    assert launch.argv == ("gemini", "--acp")
    assert launch.secrets == {"GEMINI_API_KEY": KEY}
    assert KEY not in str(launch.env) + repr(launch)


def test_an_endpoint_on_loopback_is_made_reachable() -> None:
    codec = AcpCodec("x", ["x"], env={"BASE": "http://127.0.0.1:8791/v1", "OTHER": "https://example.com"})
    assert codec.launch(task()).loopback == (8791,)


def test_the_handshake_offers_no_files_and_no_terminal() -> None:
    talk = Talk()
    [first] = talk.sent
    assert first["method"] == "initialize" and first["params"]["protocolVersion"] == 1
    able = first["params"]["clientCapabilities"]
    assert able["fs"] == {"readTextFile": False, "writeTextFile": False} and able["terminal"] is False
    assert able["elicitation"] == {"form": {}}
    assert talk.steps[0].written == (1,)


def test_it_goes_from_handshake_to_prompt() -> None:
    talk = opened(session={"modes": MODES})
    assert talk.methods() == ["initialize", "session/new", "session/set_mode"]
    assert talk.last["params"] == {"sessionId": "s-1", "modeId": "yolo"}
    talk.answers("session/set_mode")
    assert talk.last["params"]["prompt"] == [{"type": "text", "text": "Ana: fix it"}]
    assert [event for event in talk.events if isinstance(event, AgentStarted)] == [
        AgentStarted("gemini", "s-1", "0.61.0")
    ]


def test_a_session_can_be_resumed_once_it_has_an_answer() -> None:
    talk = opened()
    assert not any(step.resume_token for step in talk.steps)
    assert talk.hears(says("Looking.")).resume_token == "s-1"
    assert talk.hears(says(" Found.")).resume_token == ""


def test_another_version_of_the_protocol_is_an_error() -> None:
    step = Talk().answers("initialize", {"protocolVersion": 2})
    assert step.completed and step.completed.reason is StopReason.ERROR
    assert "version 2" in step.completed.error
    assert step.deferred == (1,)


def test_a_login_that_is_missing() -> None:
    talk = Talk()
    talk.answers("initialize", hello())
    step = talk.answers("session/new", error={"code": -32000, "message": "Authentication required"})
    assert step.completed == Completed(StopReason.ERROR, "", "Authentication required", Cause.LOGIN)
    assert step.deferred == (1,)
    # What comes after it is not lost either.
    again = talk.steers()
    assert again.deferred == (2,) and again.completed and again.completed.cause is Cause.LOGIN


def test_authentication_is_asked_for_where_it_is_configured() -> None:
    talk = Talk(AcpCodec("x", ["x"], auth_method="api-key"))
    talk.answers("initialize", hello())
    assert talk.last["params"] == {"methodId": "api-key"}
    talk.answers("authenticate")
    assert talk.last["method"] == "session/new"


def test_authentication_that_fails() -> None:
    talk = Talk(AcpCodec("x", ["x"], auth_method="api-key"))
    talk.answers("initialize", hello())
    step = talk.answers("authenticate", error={"code": -32603, "message": "no"})
    assert step.completed and step.completed.cause is Cause.LOGIN


def test_words_that_look_like_a_command_of_the_agents_are_written_as_words() -> None:
    talk = opened()
    talk.answers("session/prompt", ends())
    talk.steers(text=" /clear everything")
    [block] = talk.last["params"]["prompt"]
    assert not block["text"].lstrip().startswith("/") and "/clear everything" in block["text"]


def test_images_are_links() -> None:
    talk = opened()
    talk.answers("session/prompt", ends())
    prompt = Prompt("p-2", "Look", (2,), ("/home/agent/in/a.png",))
    talk.take(CODEC.on(talk.state, Steer(prompt)))
    assert talk.last["params"]["prompt"][1] == {
        "type": "resource_link",
        "name": "a.png",
        "uri": "file:///home/agent/in/a.png",
    }


# going on with a session


def test_resume_goes_before_load() -> None:
    talk = Talk(resume_token="s-0")
    talk.answers("initialize", hello(sessionCapabilities={"resume": {}}))
    assert talk.last["method"] == "session/resume"
    assert talk.last["params"]["sessionId"] == "s-0"


def test_a_replayed_history_is_no_news() -> None:
    talk = Talk(resume_token="s-1")
    talk.answers("initialize", hello())
    assert talk.last["method"] == "session/load"
    step = talk.hears(
        update("user_message_chunk", content={"type": "text", "text": "fix it"}),
        says("I did."),
        update("tool_call", toolCallId="old", title="ls", kind="execute", status="completed"),
        update("plan", entries=[{"content": "Old", "status": "completed"}]),
        update("usage_update", used=10, size=100, cost={"amount": 1.5, "currency": "USD"}),
    )
    assert step.events == ()
    talk.answers("session/load", {"modes": MODES})
    talk.answers("session/set_mode")
    talk.hears(update("usage_update", used=10, size=100, cost={"amount": 1.75, "currency": "USD"}))
    talk.hears(says("New."))
    step = talk.answers("session/prompt", ends())
    assert step.completed == Completed(StopReason.END, "New.")
    assert [event.micro_usd for event in step.events if isinstance(event, Usage)] == [250_000]


def test_the_mode_is_set_again_after_a_resume_whatever_it_says() -> None:
    talk = Talk(resume_token="s-1", permissions=Permissions.ASK)
    talk.answers("initialize", hello())
    talk.answers("session/load", {"modes": {**MODES, "currentModeId": "default"}})
    assert talk.last["params"] == {"sessionId": "s-1", "modeId": "default"}


@pytest.mark.parametrize("code", [-32002, -32603])
def test_a_session_that_is_gone(code: int) -> None:
    """Gemini CLI 0.61: "No previous sessions found"."""
    talk = Talk(resume_token="s-1")
    talk.answers("initialize", hello())
    step = talk.answers("session/load", error={"code": code, "message": "No previous sessions found"})
    assert step.completed == Completed(StopReason.ERROR, "", "No previous sessions found", cause=Cause.RESUME)
    assert step.deferred == (1,)


def test_an_agent_that_cannot_resume() -> None:
    step = Talk(resume_token="s-1").answers("initialize", hello(loadSession=False))
    assert step.completed and step.completed.cause is Cause.RESUME


def test_what_an_unknown_past_cost_is_not_guessed() -> None:
    talk = Talk(resume_token="s-1")
    talk.answers("initialize", hello(sessionCapabilities={"resume": {}}))
    talk.answers("session/resume")
    talk.hears(update("usage_update", used=1, size=9, cost={"amount": 3.0, "currency": "USD"}), says("Hi."))
    step = talk.answers("session/prompt", ends(usage={"inputTokens": 5, "outputTokens": 6}))
    assert Usage("p-1:0", 5, 6, 0, None) in step.events


# what is chosen


def test_model_effort_and_mode_by_config_options() -> None:
    def options(*efforts: str) -> Frame:
        return {
            "configOptions": [
                {
                    "id": "m",
                    "category": "model",
                    "currentValue": "small",
                    "options": [{"group": "g", "options": [{"value": "small"}, {"value": "large"}]}],
                },
                {
                    "id": "e",
                    "category": "thought_level",
                    "currentValue": "low",
                    "options": [{"value": effort} for effort in efforts],
                },
                {
                    "id": "a",
                    "category": "mode",
                    "currentValue": "build",
                    "options": [{"value": "build"}, {"value": "plan"}],
                },
            ]
        }

    talk = opened(session=options("low"), model="large", effort="high", permissions=Permissions.PLAN)
    assert talk.last["params"] == {"sessionId": "s-1", "configId": "m", "value": "large"}
    talk.answers("session/set_config_option", options("low", "high"))  # the large one thinks harder
    assert talk.last["params"] == {"sessionId": "s-1", "configId": "e", "value": "high"}
    talk.answers("session/set_config_option")
    assert talk.last["params"] == {"sessionId": "s-1", "configId": "a", "value": "plan"}
    talk.answers("session/set_config_option")
    assert talk.last["method"] == "session/prompt"


def test_a_model_by_its_own_method() -> None:
    models = {"currentModelId": "auto", "availableModels": [{"modelId": "auto"}, {"modelId": "pro"}]}
    talk = opened(session={"models": models}, model="pro")
    assert (talk.last["method"], talk.last["params"]["modelId"]) == ("session/set_model", "pro")


def test_what_it_lists_can_be_chosen_and_nothing_else() -> None:
    models = {"currentModelId": "auto", "availableModels": [{"modelId": "auto"}, {"modelId": "pro"}]}
    efforts = {"id": "e", "category": "thought_level", "options": [{"value": "low"}, {"value": "high"}]}
    talk = opened(session={"models": models, "configOptions": [efforts]})
    [offered] = [step.offered for step in talk.steps if step.offered]
    assert (offered.names, offered.complete) == (("auto", "pro"), ("",))
    assert offered.efforts_of("auto") == ("low", "high") and offered.efforts_of("pro") is None
    talk = opened(session={"configOptions": [efforts]})
    [offered] = [step.offered for step in talk.steps if step.offered]
    assert offered.names == () and offered.efforts_of("whichever") == ("low", "high")
    assert not [step for step in opened(session={"modes": MODES}).steps if step.offered]


def test_a_model_that_is_not_offered_is_said() -> None:
    models = {"currentModelId": "auto", "availableModels": [{"modelId": "auto"}, {"modelId": "pro"}]}
    talk = opened(session={"models": models}, model="huge")
    [notice] = [event.text for event in talk.events if isinstance(event, Notice)]
    assert "huge" in notice and "auto, pro" in notice
    assert talk.last["method"] == "session/prompt"


def test_a_choice_that_is_refused_is_said_and_the_work_goes_on() -> None:
    talk = opened(session={"modes": MODES})
    talk.answers("session/set_mode", error={"code": -32603, "message": "not as root"})
    assert "not as root" in str(talk.events)
    assert talk.last["method"] == "session/prompt"


def test_a_plan_is_asked_for_in_words_where_there_is_no_mode_for_it() -> None:
    talk = opened(permissions=Permissions.PLAN, answerable=True)
    assert "lay out a plan" in talk.last["params"]["prompt"][-1]["text"]
    assert [event for event in talk.hears(asks()).events if isinstance(event, ApprovalAsked)]


def test_a_mode_can_be_named() -> None:
    codec = AcpCodec("x", ["x"], modes={Permissions.AUTO: "autoEdit"})
    assert opened(codec, session={"modes": MODES}).last["params"]["modeId"] == "autoEdit"


# the end


@pytest.mark.parametrize("stop", ["max_tokens", "max_turn_requests", "refusal"])
def test_a_limit_is_no_end_of_the_work(stop: str) -> None:
    talk = opened()
    talk.hears(says("Half of it"))
    completed = talk.answers("session/prompt", ends(stop)).completed
    assert completed and (completed.reason, completed.cause) == (StopReason.ERROR, Cause.MODEL)
    assert completed.error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ({"code": -32000, "message": "Authentication required"}, Cause.LOGIN),
        ({"code": -32603, "message": "Internal error: API Error: 401 invalid x-api-key"}, Cause.LOGIN),
        ({"code": -32603, "message": "x", "data": {"errorName": "ProviderAuthError"}}, Cause.LOGIN),
        ({"code": -32603, "message": "API Error: 429 too many requests"}, Cause.LIMIT),
        ({"code": -32603, "message": "Internal error", "data": {"errorKind": "billing_error"}}, Cause.LIMIT),
        ({"code": -32603, "message": "Internal error: API Error: 500"}, Cause.MODEL),
        ({"code": -32603}, Cause.MODEL),
    ],
)
def test_why_a_prompt_failed(error: Frame, cause: Cause) -> None:
    step = opened().answers("session/prompt", error=error)
    assert step.completed and (step.completed.reason, step.completed.cause) == (StopReason.ERROR, cause)
    assert step.completed.error and not step.completed.error.startswith("Internal error:")
    # Nothing was heard of a model: it is not taken.
    assert step.deferred == (1,)


def test_an_unknown_stop_reason_is_kept_and_is_an_end() -> None:
    step = opened().answers("session/prompt", ends("from_tomorrow"))
    assert [type(event) for event in step.events] == [Unknown, Consumed, Completed]
    assert step.completed and step.completed.reason is StopReason.END
    assert step.consumed == (1,)


def test_after_the_end_the_bot_may_go_on() -> None:
    talk = opened()
    talk.hears(says("Done."))
    talk.answers("session/prompt", ends())
    talk.take(CODEC.on(talk.state, Steer(Prompt("commit", "Commit what is left."))))
    assert talk.last["method"] == "session/prompt"
    talk.hears(says("Committed."))
    assert talk.answers("session/prompt", ends()).completed == Completed(StopReason.END, "Committed.")


# what is known of programs


def test_background_work_is_switched_off_unless_an_operator_wants_it() -> None:
    name = "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS"
    assert AcpCodec("x", ["wrapper"]).launch(task()).env[name] == "1"
    assert AcpCodec("x", ["wrapper"], env={name: "0"}).launch(task()).env[name] == "0"


@pytest.mark.parametrize(
    "command", [["opencode", "acp"], ["npx", "opencode-ai@1.18.33", "acp"], ["/x/opencode", "acp"]]
)
def test_opencode_asks_where_it_is_to_and_has_no_sub_agents(command: list[str]) -> None:
    codec = AcpCodec("x", command, env={"OPENCODE_PERMISSION": '{"*": "allow"}'})
    assert not codec.capabilities.sub_agents
    auto = AcpCodec("x", command).launch(task())
    allowed = json.loads(auto.env["OPENCODE_PERMISSION"])
    assert auto.argv == (*OPENCODE_KEEPS, *command) and allowed == {"edit": "ask", "task": "deny"}
    ask = codec.launch(task(permissions=Permissions.ASK))
    assert "opencode_alone" in ask.argv and ask.argv[-len(command) :] == tuple(command)
    rules = json.loads(ask.env["OPENCODE_PERMISSION"])
    assert (rules["*"], rules["task"]) == ("ask", "deny")


@pytest.mark.parametrize("permissions", [Permissions.AUTO, Permissions.ASK])
def test_opencode_makes_no_commits_of_its_own(permissions: Permissions) -> None:
    def config(**env: str) -> object:
        codec = AcpCodec("x", ["opencode", "acp"], env=env)
        return codec.launch(task(permissions=permissions)).env["OPENCODE_CONFIG_CONTENT"]

    asks = permissions is Permissions.ASK
    assert config() == '{"snapshot": false}'
    assert json.loads(str(config(OPENCODE_CONFIG_CONTENT='{"model": "a/b", "snapshot": true}'))) == {
        "model": "a/b",
        "snapshot": not asks,
    }
    assert config(OPENCODE_CONFIG_CONTENT="// no JSON\n{}") == "// no JSON\n{}"


def test_claudes_adapter_reads_as_much_as_claude_does_unless_an_operator_wants_less() -> None:
    name, command = "BASH_MAX_OUTPUT_LENGTH", ["claude-agent-acp"]
    assert AcpCodec("x", command).launch(task()).env[name] == QUIET[name]
    assert AcpCodec("x", command, env={name: "9"}).launch(task(permissions=Permissions.ASK)).env[name] == "9"
    assert name not in AcpCodec("x", ["opencode", "acp"]).launch(task()).env


def test_claudes_adapter_reads_no_settings_where_people_are_asked() -> None:
    for permissions in (Permissions.AUTO, Permissions.ASK):
        talk = Talk(AcpCodec("x", ["node", "/x/claude-agent-acp"]), permissions=permissions)
        talk.answers("initialize", {"protocolVersion": 1})
        options = talk.last["params"]["_meta"]["claudeCode"]["options"]
        assert "Monitor" in options["disallowedTools"]
        asks = permissions is Permissions.ASK
        assert (options.get("settingSources") == []) is asks
        assert options.get("additionalDirectories") == (["/home/agent/work"] if asks else None)


def test_of_an_unknown_program_nothing_is_assumed() -> None:
    talk = Talk(AcpCodec("x", ["/opencode/gemini", "--acp"]), permissions=Permissions.ASK)
    talk.answers("initialize", {"protocolVersion": 1})
    assert "_meta" not in talk.last["params"]
