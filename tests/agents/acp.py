"""What agents that speak ACP go through: Claude Code behind its ACP adapter, and OpenCode's own ACP."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bot.agents.acp.codec import AcpCodec
from bot.agents.acp.known import GENERIC, KNOWN
from bot.agents.codec import Steering
from tests.agents.claude import PLAN_FILE
from tests.agents.driven import DrivenAgent
from tests.agents.model.anthropic import bash
from tests.agents.model.script import Refusal, Reply, Script, Tool
from tests.agents.model.server import ModelServer
from tests.agents.playing import (
    ANSWERABLE,
    ASKED_COMMAND,
    ASKING,
    CACHE,
    COMMAND,
    LATE_COMMAND,
    LONG_COMMAND,
    NO_MODEL,
    NO_MODEL_OPENAI,
    PICTURE,
    PLANNING,
    TROUBLE,
    UNATTENDED,
    Rig,
    Scenario,
    approved,
    asked,
    denied,
    in_trouble,
    program,
    steered,
    steered_in_its_last_words,
    stopped_and_continued,
    stopped_at_once,
    stopped_with_a_steer_waiting,
    to_its_end,
    to_its_last_words,
    with_garbage,
    withdrawn,
)

MODEL = "claude-sonnet-4-5"

HELLO: Script = [Reply("Hello from the scripted model.")]
TALK: Script = [Reply("It is a long story. " * 20, pause=0.06)]
REFUSALS: Mapping[str, Script] = {
    **TROUBLE,
    "error": [Refusal(400, "the scripted model refuses")],
    "unauthorised": [Refusal(401, "invalid x-api-key", "authentication_error")],
}


def sub_agent(script: str) -> Tool:
    given = {"description": "Look around", "prompt": f"[[script:{script}]] look around"}
    return Tool("Agent", {**given, "subagent_type": "general-purpose"})


def opencode_agent(script: str) -> Tool:
    given = {"description": "Look around", "prompt": f"[[script:{script}]] look around"}
    return Tool("task", {**given, "subagent_type": "general"})


def shell(command: str) -> Tool:
    return Tool("bash", {"command": command, "description": f"Run {command.split()[0]}"})


def todos(*statuses: str) -> Tool:
    steps = zip(("Read the code", "Mend it"), statuses, strict=True)
    return Tool(
        "todowrite",
        {"todos": [{"content": step, "status": status, "priority": "high"} for step, status in steps]},
    )


CLAUDE_SCRIPTS: Mapping[str, Script] = {
    **REFUSALS,
    "no-model": [NO_MODEL],
    "limited": [Refusal(429, "This request would exceed your account's rate limit.", "rate_limit_error")],
    "hello": HELLO,
    "talk": TALK,
    "tools": [
        Reply("I write a file first.", (bash(COMMAND),), "A file."),
        Reply("Then I read and change it.", (Tool("Read", {"file_path": "one.txt"}),)),
        Reply("", (Tool("Edit", {"file_path": "one.txt", "old_string": "two", "new_string": "2"}),)),
        Reply("", (Tool("Read", {"file_path": "missing.txt"}),)),
        Reply("Two lines, the second changed."),
    ],
    "steer": [
        Reply("This takes a moment.", (bash("sleep 2; echo slept"),)),
        Reply("Going on.", (bash("echo after"),)),
        Reply("All done."),
    ],
    "slow": [Reply("This takes long.", (bash("sleep 60; echo never"),)), Reply("Never said.")],
    "touch": [Reply("I touch a file.", (bash(ASKED_COMMAND),)), Reply("That was it.")],
    "ask": [
        Reply(
            "I wonder.",
            (
                Tool(
                    "AskUserQuestion",
                    {
                        "questions": [
                            {
                                "question": "Which colour?",
                                "header": "Colour",
                                "multiSelect": False,
                                "options": [
                                    {"label": "Red", "description": "Warm"},
                                    {"label": "Blue", "description": "Cold"},
                                ],
                            }
                        ]
                    },
                ),
            ),
        ),
        Reply("I have what I need."),
    ],
    "planned": [
        Reply("I plan.", (Tool("Write", {"file_path": PLAN_FILE, "content": "1. Touch asked.txt\n"}),)),
        Reply("", (Tool("ExitPlanMode", {}),)),
        Reply("Now I do it.", (bash(ASKED_COMMAND),)),
        Reply("Done as planned."),
    ],
    "long": [Reply("Much to read.", (bash(LONG_COMMAND),)), Reply("Read it.")],
    "background": [
        Reply("This can wait.", (Tool("Bash", {"command": LATE_COMMAND, "run_in_background": True}),)),
        Reply("It works in the background."),
    ],
    "plan": [
        Reply(
            "A plan first.",
            (
                Tool("TaskCreate", {"subject": "Read the code", "description": "Read"}),
                Tool("TaskCreate", {"subject": "Mend it", "description": "Mend"}),
            ),
        ),
        Reply("", (Tool("TaskUpdate", {"taskId": "1", "status": "completed"}),)),
        Reply("", (Tool("TaskUpdate", {"taskId": "2", "status": "in_progress"}),)),
        Reply("Planned."),
    ],
    "delegate": [Reply("Somebody else looks.", (sub_agent("helper"),)), Reply("They looked.")],
    "delegate-long": [Reply("Somebody else looks.", (sub_agent("long-helper"),)), Reply("They looked.")],
    "long-helper": [
        Reply("Looking.", (bash("sleep 1.5; echo one"),)),
        Reply("Still looking.", (bash("sleep 61; echo two"),)),
        Reply("I looked around."),
    ],
    "helper": [
        Reply("Looking.", (bash("echo looked"),)),
        Reply("I looked around."),
    ],
}


def _kept(agent: DrivenAgent, files: str, words: str) -> bool:
    """Is it in the agent's own file of the conversation yet? It gets there a moment later."""
    return any(words.encode() in file.read_bytes() for file in Path(agent.task.home).glob(files))


def killed_in_a_tool(files: str) -> Scenario:
    async def play(agent: DrivenAgent) -> None:
        await agent.until_running("sleep")
        await agent.until(lambda agent: _kept(agent, files, "sleep 60"), "the tool call on disk")
        agent.kill()
        await agent.until_ended()

    return Scenario("[[script:slow]] take long", play)


def patient(scenario: Scenario) -> Scenario:
    """For an agent that takes long to start: in a new home OpenCode makes its database first."""

    async def play(agent: DrivenAgent) -> None:
        agent.deadline = 120.0
        await scenario.play(agent)

    return replace(scenario, play=play)


# The common ones; a rig adds its own, and leaves out what its agent cannot do.
SCENARIOS: Mapping[str, Scenario] = {
    **in_trouble(),
    "tools": Scenario("[[script:tools]] change a file", to_its_end),
    "steer": Scenario("[[script:steer]] take your time", steered),
    "steer-last": Scenario("[[script:talk]] tell a story", steered_in_its_last_words("agent_message_chunk")),
    "stop": Scenario("[[script:slow]] take long", stopped_and_continued),
    "stop-waiting": Scenario("[[script:slow]] take long", stopped_with_a_steer_waiting),
    "stop-at-once": Scenario("[[script:slow]] take long", stopped_at_once),
    "resumed": Scenario("[[script:hello]] You were interrupted.", to_its_end, before="killed"),
    "error": Scenario("[[script:error]] fail", to_its_end),
    "no-model": Scenario("[[script:no-model]] fail", to_its_end),
    "limited": Scenario("[[script:limited]] fail", to_its_end),
    "unauthorised": Scenario("[[script:unauthorised]] fail", to_its_end),
    "approved": Scenario("[[script:touch]] touch it", approved, options=ASKING),
    "denied": Scenario("[[script:touch]] touch it", denied, options=ASKING),
    "withdrawn": Scenario("[[script:touch]] touch it", withdrawn, options=ASKING),
    "unattended": Scenario("[[script:touch]] touch it", to_its_end, options=UNATTENDED),
    "long": Scenario("[[script:long]] read much", to_its_end, recorded=False),
    "half-a-line": Scenario("[[script:steer]] take your time", steered, recorded=False, restarts=True),
    "picture": PICTURE,
    "garbage": Scenario("[[script:steer]] take your time", with_garbage),
    "plan": Scenario("[[script:plan]] plan", to_its_end),
    "planned": Scenario("[[script:planned]] plan it", approved, options=PLANNING),
}


def claude_codec(model: ModelServer, *, key: str = "sk-ant-scripted-0000000000") -> AcpCodec:
    """The adapter wants node 22 or newer, and brings a Claude Code of its own unless it is told of one."""
    bin = CACHE / "node_modules/.bin"
    env = {
        "PATH": f"{bin}:{os.environ['PATH']}",
        "CLAUDE_CODE_EXECUTABLE": program("claude") or "claude",
        "ANTHROPIC_BASE_URL": model.url,
        "ANTHROPIC_MODEL": MODEL,
        "IS_SANDBOX": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION": "false",
        # Else it tries ten times, and ACP has no word for it.
        "CLAUDE_CODE_MAX_RETRIES": "1",
    }
    command = (program("claude-agent-acp") or "claude-agent-acp",)
    return AcpCodec("acp-claude", command, env=env, secrets={"ANTHROPIC_API_KEY": key})


OPENCODE_SCRIPTS: Mapping[str, Script] = {
    **REFUSALS,
    "hello": HELLO,
    "talk": TALK,
    "tools": [
        Reply("I write a file first.", (shell(COMMAND),), "A file."),
        Reply("Then I read and change it.", (Tool("read", {"filePath": "one.txt"}),)),
        Reply("", (Tool("edit", {"filePath": "one.txt", "oldString": "two", "newString": "2"}),)),
        Reply("", (Tool("write", {"filePath": "two.txt", "content": "a\nb\nc\n"}),)),
        Reply("", (Tool("read", {"filePath": "missing.txt"}), shell("exit 3"))),
        Reply("Two lines, the second changed."),
    ],
    "steer": [
        Reply("This takes a moment.", (shell("sleep 2; echo slept"),)),
        Reply("Going on.", (shell("echo after"),)),
        Reply("All done."),
    ],
    "slow": [Reply("This takes long.", (shell("sleep 60; echo never"),)), Reply("Never said.")],
    "touch": [Reply("I touch a file.", (shell(ASKED_COMMAND),)), Reply("That was it.")],
    "planned": [
        Reply("1. Touch the file."),
        Reply("As planned.", (shell(ASKED_COMMAND),)),
        Reply("Touched."),
    ],
    "long": [Reply("Much to read.", (shell(LONG_COMMAND),)), Reply("Read it.")],
    "no-model": [NO_MODEL_OPENAI],
    "limited": [Refusal(429, "You exceeded your current quota, check your plan.", "insufficient_quota")],
    "delegate": [Reply("Somebody else looks.", (opencode_agent("helper"),)), Reply("They looked.")],
    "helper": [Reply("Looking.", (shell(ASKED_COMMAND),)), Reply("I looked around.")],
    "plan": [
        Reply("A plan first.", (todos("pending", "pending"),)),
        Reply("", (todos("completed", "in_progress"),)),
        Reply("Planned."),
    ],
}


def opencode_codec_at(
    url: str, *, key: str = "scripted-key-0000000000", steering: Steering = GENERIC.steering
) -> AcpCodec:
    """Its environment says where its model is, and nothing of what it may do."""
    scripted = {"limit": {"context": 200_000, "output": 8192}, "cost": {"input": 3, "output": 15}}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{url}/v1", "apiKey": "{env:LAB_KEY}"},
        "models": {"scripted": scripted},
    }
    config = {
        "autoupdate": False,
        "share": "disabled",
        "model": "lab/scripted",
        "small_model": "lab/scripted",
        "enabled_providers": ["lab"],
        "provider": {"lab": provider},
    }
    env = {
        "OPENCODE_CONFIG_CONTENT": json.dumps(config),
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_SHARE": "1",
    }
    command = (program("opencode") or "opencode", "acp")
    able = replace(KNOWN["opencode"].capabilities, steering=steering)
    secrets = {"LAB_KEY": key} if key else {}
    return AcpCodec("acp-opencode", command, env=env, secrets=secrets, capabilities=able)


CLAUDE = Rig(
    "acp-claude",
    {
        **SCENARIOS,
        "killed": killed_in_a_tool(".claude/projects/*/*.jsonl"),
        "logged-out": Scenario(
            "[[script:hello]] hello", to_its_end, codec=lambda model: claude_codec(model, key="")
        ),
        "asked": Scenario("[[script:ask]] ask me", asked, options=ANSWERABLE),
        "question": Scenario("[[script:ask]] ask me", to_its_end),
        "background": Scenario("[[script:background]] and go on", to_its_last_words, recorded=False),
        "delegated": Scenario("[[script:delegate]] let somebody look", to_its_end),
        "steer-delegated": Scenario("[[script:delegate-long]] let somebody look", steered),
    },
    CLAUDE_SCRIPTS,
    claude_codec,
    lambda: program("claude-agent-acp") and program("claude"),
)


def opencode_codec(model: ModelServer) -> AcpCodec:
    return opencode_codec_at(model.url)


OPENCODE_SCENARIOS = {
    **SCENARIOS,
    "killed": killed_in_a_tool(".local/share/opencode/conversations/opencode.db*"),
    # It asks without a credential, and hears what the API says to that.
    "logged-out": Scenario(
        "[[script:unauthorised]] hello", to_its_end, codec=lambda model: opencode_codec_at(model.url, key="")
    ),
    "delegated": Scenario("[[script:delegate]] let somebody look", to_its_end),
}

OPENCODE = Rig(
    "acp-opencode",
    {name: patient(scenario) for name, scenario in OPENCODE_SCENARIOS.items()},
    OPENCODE_SCRIPTS,
    opencode_codec,
    lambda: program("opencode"),
)
