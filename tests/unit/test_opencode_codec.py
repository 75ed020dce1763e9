"""The OpenCode codec where a transcript of a real run does not reach: how it starts, and what it shows."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bot.agents.codec import (
    Permissions,
    Task,
)
from bot.agents.opencode.codec import KEY, OpenCodeCodec
from bot.agents.opencode.tools import describe
from bot.agents.vendors import OPENCODE_KEEPS
from bot.events import (
    AgentStarted,
    Cause,
    Notice,
    Plan,
    StopReason,
    Text,
    Thought,
    ToolStatus,
    Unknown,
    Usage,
)
from tests.agents.opencode_talk import (
    BUSY,
    CHILD,
    CODEC,
    FIRST,
    IDLE,
    SECOND,
    SECRET,
    SESSION,
    TASK,
    Frame,
    Talk,
    calls,
    event,
    failure,
    heard,
    part,
    running,
    says,
    speaks,
    started,
    task,
    tool,
)

# starting


def config_of(codec: OpenCodeCodec, task: Task = TASK) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(codec.launch(task).env["OPENCODE_CONFIG_CONTENT"])
    return config


def test_no_secret_is_in_argv_or_plain_environment() -> None:
    launch = CODEC.launch(TASK)
    assert launch.secrets == {KEY: SECRET}
    assert SECRET not in " ".join(launch.argv) + str(launch.env) + repr(launch)
    assert config_of(CODEC)["provider"]["lab"]["options"]["apiKey"] == "{env:" + KEY + "}"


def test_the_bridge_is_called_with_opencodes_command() -> None:
    codec = OpenCodeCodec(("python3", "b.py"), command=("npx", "opencode"), visible=("/opt/programs",))
    launch = codec.launch(Task(TASK.prompt, "/w", "/h", visible=("/data",)))
    assert launch.argv == (*OPENCODE_KEEPS, "python3", "b.py", "npx", "opencode")
    assert launch.visible == ("/data", "/opt/programs")
    assert launch.secrets == {}


def test_an_endpoint_on_loopback_is_made_reachable() -> None:
    assert CODEC.launch(TASK).loopback == (8791,)
    assert OpenCodeCodec(base_url="https://models.example.com").launch(TASK).loopback == ()


def test_a_provider_that_opencode_knows_keeps_its_own_api() -> None:
    known = config_of(OpenCodeCodec(api_key="k", base_url="https://gate.example", model="anthropic/opus"))
    assert known["provider"] == {
        "anthropic": {"options": {"apiKey": "{env:" + KEY + "}", "baseURL": "https://gate.example"}}
    }
    other = config_of(CODEC)["provider"]["lab"]
    assert other["npm"] == "@ai-sdk/openai-compatible"
    assert list(other["models"]) == ["scripted"]


def test_the_tasks_model_goes_before_the_codecs() -> None:
    config = config_of(CODEC, task(model="openrouter/meta/llama"))
    assert (config["model"], config["enabled_providers"]) == ("openrouter/meta/llama", ["openrouter"])
    assert "model" not in config_of(OpenCodeCodec())


def test_nothing_is_asked_of_the_network_that_the_work_does_not_need() -> None:
    launch, config = CODEC.launch(TASK), config_of(CODEC)
    assert (config["autoupdate"], config["share"], config["snapshot"]) == (False, "disabled", False)
    assert {name for name in launch.env if "DISABLE" in name} >= {
        "OPENCODE_DISABLE_AUTOUPDATE",
        "OPENCODE_DISABLE_MODELS_FETCH",
        "OPENCODE_DISABLE_LSP_DOWNLOAD",
    }


def test_permissions_say_what_asks_and_whether_the_repository_may_change_it() -> None:
    auto, ask = CODEC.launch(task()), CODEC.launch(task(Permissions.ASK))
    assert config_of(CODEC)["permission"] == {"*": "allow"}
    assert "OPENCODE_DISABLE_PROJECT_CONFIG" not in auto.env
    assert ask.env["OPENCODE_DISABLE_PROJECT_CONFIG"] == "1"
    assert ("opencode_alone" in auto.argv, "opencode_alone" in ask.argv) == (False, True)
    config = config_of(CODEC, task(Permissions.ASK))
    assert config["permission"]["*"] == "ask" and config["permission"]["read"] == "allow"
    assert config["agent"]["build"]["permission"] == config["permission"]
    assert config_of(CODEC, task(Permissions.PLAN))["agent"]["plan"]["permission"]["edit"] == "deny"


def test_the_v1_paths_are_used_since_v2_takes_no_provider_of_the_configuration() -> None:
    talk = started()
    talk.steer()
    talk.interrupt()
    assert not [frame["path"] for frame in talk.asked if frame.get("path", "").startswith("/api/")]


def test_a_prompt_waits_for_its_conversation_and_is_not_given_twice() -> None:
    talk = Talk()
    assert talk.steps[0].written == (1,)
    assert [frame["path"] for frame in talk.asked] == ["/session"]
    step = talk.replied("new", {"id": SESSION, "version": "1.18.33"})
    assert step.resume_token == SESSION
    assert step.events == (AgentStarted("opencode", SESSION, "1.18.33", "lab/scripted"),)
    post = talk.last("post")
    assert (post["method"], post["path"]) == ("POST", f"/session/{SESSION}/prompt_async")
    assert post["body"]["agent"] == "build"
    assert post["body"]["model"] == {"providerID": "lab", "modelID": "scripted"}
    assert talk.replied("new", {"id": "ses_9"}).events == ()


def test_ids_of_messages_are_never_made_up() -> None:
    talk = running()
    talk.steer()
    for frame in talk.asked:
        if frame["id"].split("/")[1] == "post":
            assert "messageID" not in frame["body"]
            assert not any("id" in part for part in frame["body"]["parts"])


def test_a_conversation_that_is_gone_says_so() -> None:
    talk = Talk(Task(TASK.prompt, "/w", "/h", resume_token=SESSION))
    assert talk.last("resume")["path"] == f"/session/{SESSION}"
    step = talk.replied("resume", {"name": "NotFoundError", "data": {"message": "Session not found"}}, 404)
    assert step.completed is not None
    assert (step.completed.reason, step.completed.cause) == (StopReason.ERROR, Cause.RESUME)
    assert "Session not found" in step.completed.error
    assert step.deferred == (1,)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"name": "ConfigInvalidError", "data": {"message": "bad opencode.json"}}),
        (400, "bad opencode.json"),
    ],
)
def test_a_server_that_cannot_begin_says_why(status: int, body: object) -> None:
    step = Talk().replied("new", body, status)
    assert step.completed is not None
    assert "bad opencode.json" in step.completed.error


def test_what_an_earlier_process_left_unread_is_not_heard_twice() -> None:
    talk = Talk(Task(TASK.prompt, "/w", "/h", resume_token=SESSION))
    talk.replied("resume", {"id": SESSION})

    def message(id: str, role: str, parent: str = "", key: str = "") -> Frame:
        metadata = {"sandpiper": key} if key else {}
        parts = [{"type": "text", "text": "words", "metadata": metadata}]
        return {"info": {"id": id, "role": role, "parentID": parent}, "parts": parts}

    talk.replied(
        "unread",
        [
            message("msg_1", "user", key="old"),
            message("msg_2", "assistant", "msg_1"),
            message("msg_3", "user", key="lost"),
            message("msg_4", "user"),
        ],
    )
    assert [frame["path"] for frame in talk.asked if frame["method"] == "DELETE"] == [
        f"/session/{SESSION}/message/msg_3"
    ]
    assert talk.count("post") == 1


# pictures and effort


def test_pictures_go_along_with_the_words() -> None:
    talk = running()
    talk.steer(images=("/home/agent/a b.PNG", "/home/agent/notes.txt"))
    _, file = talk.last("post")["body"]["parts"]
    assert file == {
        "type": "file",
        "mime": "image/png",
        "url": "file:///home/agent/a%20b.PNG",
        "filename": "a b.PNG",
    }


def test_a_picture_that_is_not_there_does_not_lose_the_words() -> None:
    talk = running()
    talk.hears(IDLE)
    talk.steer(images=("/gone.png",))
    [notice] = talk.hears(failure("NotFound: FileSystem.readFile (/gone.png)", "UnknownError")).events
    assert isinstance(notice, Notice)
    [words] = talk.last("post")["body"]["parts"]
    assert "/gone.png" in words["text"]
    talk.hears(heard(SECOND, "msg_3"), BUSY)
    assert talk.hears(speaks("msg_4", "msg_3")).consumed == (2,)


def test_an_effort_that_the_model_has_not_is_told() -> None:
    talk = Talk(task(effort="max"))
    providers = [{"id": "lab", "models": {"scripted": {"variants": {"low": {}, "high": {}}}}}]
    [notice] = talk.replied("efforts", {"providers": providers}).events
    assert isinstance(notice, Notice) and "max" in notice.text
    talk.replied("new", {"id": SESSION})
    assert "variant" not in talk.last("post")["body"]
    talk = Talk(task(effort="high"))
    assert talk.replied("efforts", {"providers": providers}).events == ()
    talk.replied("new", {"id": SESSION})
    assert talk.last("post")["body"]["variant"] == "high"


PROVIDERS = {
    "providers": [
        {"id": "anthropic", "models": {"opus": {"variants": {"high": {}, "max": {}}}, "haiku": {}}},
        {"id": "openai", "models": {"gpt": {"variants": {"low": {}}}}},
    ]
}


def test_its_models_are_asked_for_once_its_first_answer_is_under_way() -> None:
    talk = started()
    assert talk.count("models") == 0
    talk.hears(heard(FIRST, "msg_1"), BUSY, speaks("msg_2", "msg_1"), speaks("msg_4", "msg_1"))
    assert talk.count("models") == 1
    assert {"key", "options"} <= set(talk.last("models")["without"]), "the key would be written down"
    offered = talk.replied("models", PROVIDERS).offered
    assert offered is not None
    assert offered.names == ("anthropic/opus", "anthropic/haiku", "openai/gpt")
    assert offered.efforts_of("anthropic/opus") == ("high", "max")
    assert offered.efforts_of("anthropic/haiku") == ()


def test_its_list_is_whole_unless_we_tell_it_of_models() -> None:
    own = OpenCodeCodec(model="anthropic/opus")
    proxied = OpenCodeCodec(model="anthropic/opus", base_url="http://127.0.0.1:1/v1")
    told = OpenCodeCodec(model="anthropic/opus", models={"new": {}})
    for codec, whole in ((own, True), (proxied, True), (told, False), (CODEC, False)):
        talk = Talk(task(effort="high"), codec)
        offered = talk.replied("efforts", PROVIDERS).offered
        assert offered is not None and offered.complete == (("anthropic/", "openai/") if whole else ())


def test_a_list_that_cannot_be_had_is_none() -> None:
    assert running().replied("models", {"error": "no"}, 500).offered is None


# what it does


def test_text_is_told_whole_and_once() -> None:
    talk = running()
    assert talk.hears(part("text", "msg_2", "prt_5", text="Wri", time={"start": 1})).events == ()
    assert talk.hears(says("Written.", "msg_2")).events == (Text("Written."),)
    assert talk.hears(says("Written.", "msg_2")).events == ()
    assert talk.hears(says("Hm.", "msg_2", "prt_6", "reasoning")).events == (Thought("Hm."),)
    assert talk.hears(says(" ", "msg_2", "prt_7")).events == ()


def test_a_sub_agents_words_are_for_its_agent_and_its_calls_are_nested() -> None:
    talk = running()
    talk.hears(tool("task", "running", "prt_t", metadata={"sessionId": CHILD}, input={"description": "Look"}))
    step = talk.hears(
        speaks("msg_3", "msg_x", CHILD),
        part("text", "msg_3", "prt_8", CHILD, text="Looking.", time={"end": 1}),
        tool("bash", "running", "prt_9", CHILD, "msg_3", input={"command": "ls"}),
    )
    assert [call.parent for call in calls(step)] == ["prt_t"]
    assert not [event for event in step.events if isinstance(event, Text)]


def test_calls_are_told_apart_though_models_reuse_their_ids() -> None:
    talk = running()
    step = talk.hears(
        tool("bash", "running", "prt_1", input={"command": "a"}),
        tool("bash", "running", "prt_2", input={"command": "b"}),
    )
    assert len({call.id for call in calls(step)}) == 2


def test_the_output_so_far_is_not_told_again_and_again() -> None:
    talk = running()
    given = {"command": "make"}
    talk.hears(tool("bash", "pending", input={}), tool("bash", "running", input=given))
    assert talk.hears(tool("bash", "running", input=given, metadata={"output": "one\n"})).events == ()


def test_output_is_plain_and_clipped_and_without_secrets() -> None:
    talk = running()
    noisy = f"\x1b[32mok\x1b[0m {SECRET} ghp_{'a1' * 18}\n" + "line\n" * 5000 + "the end"
    given = {"command": f"curl -H 'x: {SECRET}' https://example.com"}
    [call] = calls(talk.hears(tool("bash", "completed", input=given, output=noisy, metadata={"exit": 0})))
    assert call.result.startswith("ok [redacted] [redacted]\n")
    assert call.result.endswith("the end")
    assert len(call.result) < 1000
    assert SECRET not in str([step.events for step in talk.steps])


@pytest.mark.parametrize(
    ("name", "state", "title", "how", "result"),
    [
        (
            "bash",
            {"input": {"command": "pytest"}, "output": "1 failed, 2 passed in 0.1s", "metadata": {"exit": 1}},
            "Ran pytest · 1 failed",
            ToolStatus.FAILED,
            "1 failed, 2 passed in 0.1s",
        ),
        (
            "bash",
            {"input": {"command": "true"}, "output": "(no output)", "metadata": {"exit": 0}},
            "Ran true",
            ToolStatus.COMPLETED,
            "",
        ),
        (
            "edit",
            {
                "input": {"filePath": "/home/agent/work/a.py"},
                "metadata": {"diff": "--- a\n+++ b\n@@ -1 +1,2 @@\n-b\n+c\n+d\n"},
            },
            "Edited a.py",
            ToolStatus.COMPLETED,
            "+2 −1",
        ),
        (
            "write",
            {"input": {"filePath": "b.py", "content": "1\n2\n"}, "metadata": {"exists": False}},
            "Wrote b.py",
            ToolStatus.COMPLETED,
            "+2 −0",
        ),
        (
            "invalid",
            {"input": {"tool": "nosuch", "error": "no such tool"}, "output": "…"},
            "Called nosuch",
            ToolStatus.FAILED,
            "no such tool",
        ),
        (
            "task",
            {
                "input": {"description": "Look"},
                "output": '<task id="ses_2">\n<task_result>\nSeen.\n</task_result>\n</task>',
            },
            "Delegated: Look",
            ToolStatus.COMPLETED,
            "Seen.",
        ),
        (
            "question",
            {"input": {"questions": [{"question": "Which?"}]}, "metadata": {"answers": [["Blue"]]}},
            "Asked: Which?",
            ToolStatus.COMPLETED,
            "Blue",
        ),
    ],
)
def test_what_came_out_of_a_call(
    name: str, state: dict[str, Any], title: str, how: ToolStatus, result: str
) -> None:
    [call] = calls(running().hears(tool(name, "completed", **state)))
    assert (call.title, call.status, call.result) == (title, how, result)


def test_a_call_that_was_not_allowed_says_who_said_so() -> None:
    error = (
        "The user rejected permission to use this specific tool call with the following feedback: not here"
    )
    [call] = calls(running().hears(tool("bash", "error", input={"command": "ls"}, error=error)))
    assert (call.status, call.result) == (ToolStatus.FAILED, "Not allowed: not here")


@pytest.mark.parametrize(
    ("name", "given", "doing", "done"),
    [
        ("bash", {"command": "pytest -q\n"}, "Running pytest -q", "Ran pytest -q"),
        ("read", {"filePath": "/w/src/a.py"}, "Reading src/a.py", "Read src/a.py"),
        ("read", {"filePath": "/etc/hosts"}, "Reading /etc/hosts", "Read /etc/hosts"),
        ("grep", {"pattern": "def greet"}, "Searching for def greet", "Searched for def greet"),
        ("webfetch", {"url": "https://x.org"}, "Fetching https://x.org", "Fetched https://x.org"),
        (
            "apply_patch",
            {"patchText": "*** Begin Patch\n*** Update File: /w/a.py\n*** Add File: b.py\n"},
            "Patching a.py, b.py",
            "Patched a.py, b.py",
        ),
        ("github_get_issue", {"n": 1}, "Using github_get_issue", "Used github_get_issue"),
        ("bash", {}, "Running a command", "Ran a command"),
        ("bash", {"command": ["odd"]}, "Running a command", "Ran a command"),
    ],
)
def test_titles_are_for_people(name: str, given: Frame, doing: str, done: str) -> None:
    described = describe(name, given, "/w")
    assert (described.doing, described.done) == (doing, done)


def test_no_call_spins_after_its_run() -> None:
    talk = running()
    talk.hears(tool("bash", "running", input={"command": "make"}))
    [call] = calls(talk.hears(IDLE))
    assert call.status is ToolStatus.FAILED


def test_its_list_is_the_plan_and_no_call() -> None:
    talk = running()
    todos = [
        {"content": "Read", "status": "completed"},
        {"content": "Drop", "status": "cancelled"},
        {"content": "Mend", "status": "in_progress"},
        {"content": "Test", "status": "odd"},
    ]
    step = talk.hears(
        tool("todowrite", "running", input={"todos": todos}), event("todo.updated", todos=todos)
    )
    [plan] = step.events
    assert isinstance(plan, Plan)
    assert [entry.status.value for entry in plan.entries] == [
        "completed",
        "completed",
        "in_progress",
        "pending",
    ]


def test_tokens_are_counted_once_for_each_call_of_the_model() -> None:
    tokens = {"input": 10, "output": 4, "reasoning": 3, "cache": {"read": 100, "write": 5}}
    talk = running()
    step = part("step-finish", "msg_2", "prt_9", tokens=tokens, cost=0.5)
    once, again = talk.hears(step).events, talk.hears(step).events
    assert once == again == (Usage("msg_2", 15, 7, 100, 500_000),)
    free = talk.hears(part("step-finish", "msg_4", "prt_9", tokens=tokens, cost=0))
    assert free.events == (Usage("msg_4", 15, 7, 100, None),)


@pytest.mark.parametrize(
    "frame",
    [
        event("message.part.delta", partID="prt_1", field="text", delta="wo"),
        event("session.updated", info={}),
        event("plugin.added"),
        part("step-start", "msg_2"),
        part("patch", "msg_2", files=[]),
        {"type": "event", "event": {"type": "server.heartbeat", "properties": {}}},
        event("message.part.updated", "ses_of_others", part={"type": "text", "text": "not ours"}),
    ],
)
def test_what_tells_nothing_is_not_shown(frame: Frame) -> None:
    assert running().hears(frame).events == ()


@pytest.mark.parametrize(
    "frame",
    [
        event("from.tomorrow"),
        part("hologram", "msg_2"),
        tool("bash", "levitating"),
        {"type": "reply", "id": "9/nothing", "status": 200},
        {"type": "event", "raw": "{no"},
    ],
)
def test_what_is_not_known_is_kept(frame: Frame) -> None:
    [kept] = running().hears(frame).events
    assert isinstance(kept, Unknown)


def test_a_compaction_is_told() -> None:
    [notice] = running().hears(event("session.compacted")).events
    assert isinstance(notice, Notice)
