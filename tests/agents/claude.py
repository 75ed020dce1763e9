"""What the real Claude Code goes through."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bot.agents.claude.codec import ClaudeCodec
from bot.events import ToolStatus
from tests.agents.driven import DrivenAgent
from tests.agents.model.anthropic import bash
from tests.agents.model.script import Refusal, Reply, Script, Seen, Tool
from tests.agents.model.server import ModelServer
from tests.agents.playing import (
    ANSWERABLE,
    ASKED_COMMAND,
    ASKING,
    COMMAND,
    LATE_COMMAND,
    LONG_COMMAND,
    NO_MODEL,
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
    refused_then_approved,
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
KEY = "sk-ant-scripted-0000000000"

# In plan mode Claude Code tells the model the file that is to hold the plan.
PLAN_FILE = Seen(r"/[^\s\"\\]*/\.claude/plans/[\w-]+\.md")

SCRIPTS: Mapping[str, Script] = {
    **TROUBLE,
    "hello": [Reply("Hello from the scripted model.")],
    "tools": [
        Reply("I write a file first.", (bash(COMMAND),), "A file."),
        Reply("Then I read and change it.", (Tool("Read", {"file_path": "one.txt"}),)),
        Reply("", (Tool("Edit", {"file_path": "one.txt", "old_string": "two", "new_string": "2"}),)),
        Reply("", (Tool("Read", {"file_path": "missing.txt"}),)),
        Reply("Two lines, the second changed."),
    ],
    "steer": [
        Reply("This takes a moment.", (bash("sleep 1.5; echo slept"),)),
        Reply("Going on.", (bash("echo after"),)),
        Reply("All done."),
    ],
    "talk": [Reply("It is a long story. " * 20, pause=0.03)],
    "slow": [Reply("This takes long.", (bash("sleep 60; echo never"),)), Reply("Never said.")],
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
        Reply("Which colour do you want: red or blue?"),
    ],
    "delegate": [
        Reply(
            "Somebody else looks.",
            (
                Tool(
                    "Agent",
                    {
                        "description": "Look around",
                        "prompt": "[[script:helper]] look around",
                        "subagent_type": "general-purpose",
                    },
                ),
            ),
        ),
        Reply("They looked."),
    ],
    "helper": [Reply("Looking.", (bash("echo looked"),)), Reply("I looked around.")],
    "error": [Refusal(400, "the scripted model refuses")],
    "unauthorised": [Refusal(401, "invalid x-api-key", "authentication_error")],
    "limited": [Refusal(429, "This would exceed your account's rate limit", "rate_limit_error")],
    "no-model": [NO_MODEL],
    "touch": [Reply("I need a file.", (bash(ASKED_COMMAND),)), Reply("That was it.")],
    "lay-out": [
        Reply("I plan.", (Tool("Write", {"file_path": PLAN_FILE, "content": "1. Touch asked.txt\n"}),)),
        Reply("", (Tool("ExitPlanMode", {}),)),
        Reply("", (bash(ASKED_COMMAND),)),
        Reply("Done as planned."),
    ],
    "long": [Reply("This is long.", (bash(LONG_COMMAND),)), Reply("That was long.")],
    "send-out": [
        Reply(
            "Somebody else looks.",
            (
                Tool(
                    "Agent",
                    {
                        "description": "Look for long",
                        "prompt": "[[script:long-helper]] look around",
                        "subagent_type": "general-purpose",
                    },
                ),
            ),
        ),
        Reply("Then without them."),
    ],
    "long-helper": [
        Reply("Looking.", (bash("sleep 61; echo one"),)),
        Reply("I looked around."),
    ],
}


def ended_tools(agent: DrivenAgent) -> list[tuple[str, ToolStatus, str]]:
    ended = (ToolStatus.COMPLETED, ToolStatus.FAILED)
    return [(call.title, call.status, call.result) for call in agent.tool_calls if call.status in ended]


def saved(agent: DrivenAgent, words: str) -> bool:
    """Has Claude written these words to its file of the conversation? It does so a moment later."""
    files = Path(agent.task.home).glob(".claude/projects/*/*.jsonl")
    return any(words in file.read_text() for file in files)


async def killed_in_a_tool(agent: DrivenAgent) -> None:
    await agent.until_running("sleep")
    await agent.until(lambda agent: saved(agent, "sleep 60"), "the tool call in Claude's file")
    agent.kill()
    await agent.until_ended()


def codec(model: ModelServer) -> ClaudeCodec:
    return ClaudeCodec(api_key=KEY, base_url=model.url, model=MODEL, command=_command())


def impatient(model: ModelServer) -> ClaudeCodec:
    """It does not try ten times, for minutes."""
    env = {"CLAUDE_CODE_MAX_RETRIES": "1"}
    return ClaudeCodec(api_key=KEY, base_url=model.url, model=MODEL, command=_command(), env=env)


def logged_out(model: ModelServer) -> ClaudeCodec:
    return ClaudeCodec(base_url=model.url, model=MODEL, command=_command())


def _command() -> tuple[str, ...]:
    return (program("claude") or "claude",)


SCENARIOS: Mapping[str, Scenario] = {
    **in_trouble(impatient),
    "tools": Scenario("[[script:tools]] change a file", to_its_end),
    "steer": Scenario("[[script:steer]] take your time", steered),
    "steer-last": Scenario("[[script:talk]] tell a story", steered_in_its_last_words("text_delta")),
    "stop": Scenario("[[script:slow]] take long", stopped_and_continued),
    "stop-waiting": Scenario("[[script:slow]] take long", stopped_with_a_steer_waiting),
    "stop-at-once": Scenario("[[script:slow]] take long", stopped_at_once),
    "killed": Scenario("[[script:slow]] take long", killed_in_a_tool),
    "resumed": Scenario("[[script:hello]] You were interrupted.", to_its_end, before="killed"),
    "error": Scenario("[[script:error]] fail", to_its_end),
    "unauthorised": Scenario("[[script:unauthorised]] fail", to_its_end),
    "limited": Scenario("[[script:limited]] fail", to_its_end, codec=impatient),
    "no-model": Scenario("[[script:no-model]] fail", to_its_end),
    "logged-out": Scenario("[[script:hello]] fail", to_its_end, codec=logged_out),
    "approved": Scenario("[[script:touch]] make a file", approved, options=ASKING),
    "denied": Scenario("[[script:touch]] make a file", denied, options=ASKING),
    "withdrawn": Scenario("[[script:touch]] make a file", withdrawn, options=ASKING),
    "unattended": Scenario("[[script:touch]] make a file", to_its_end, options=UNATTENDED),
    "asked": Scenario("[[script:ask]] ask me", asked, options=ANSWERABLE),
    "question": Scenario("[[script:ask]] ask me", to_its_end),
    "planned": Scenario("[[script:lay-out]] make a file", approved, options=PLANNING),
    "replanned": Scenario(
        "[[script:lay-out]] make a file", refused_then_approved("lay-out"), options=PLANNING
    ),
    "long": Scenario("[[script:long]] say much", to_its_end, recorded=False),
    "half-a-line": Scenario("[[script:steer]] take your time", steered, recorded=False, restarts=True),
    "picture": PICTURE,
    "garbage": Scenario("[[script:steer]] take your time", with_garbage, recorded=False),
    "plan": Scenario("[[script:plan]] plan", to_its_end),
    "background": Scenario("[[script:background]] and go on", to_its_last_words, recorded=False),
    "delegated": Scenario("[[script:delegate]] let somebody look", to_its_end),
    "steer-delegated": Scenario("[[script:send-out]] let somebody look for long", steered),
}

RIG = Rig("claude", SCENARIOS, SCRIPTS, codec, lambda: program("claude"))
