"""What the real OpenCode goes through, behind its bridge."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from bot.agents.codec import Happening
from bot.agents.opencode.codec import OpenCodeCodec
from tests.agents.driven import DrivenAgent, Entry
from tests.agents.model.script import Refusal, Reply, Script, Tool
from tests.agents.model.server import ModelServer
from tests.agents.playing import (
    ANSWERABLE,
    ASKED_COMMAND,
    ASKING,
    COMMAND,
    LONG_COMMAND,
    NO_MODEL_OPENAI,
    PICTURE,
    PLANNING,
    STEER,
    TROUBLE,
    UNATTENDED,
    Options,
    Play,
    Rig,
    Scenario,
    approved,
    asked,
    denied,
    in_trouble,
    program,
    prompt,
    refused_then_approved,
    steered,
    steered_in_its_last_words,
    stopped_and_continued,
    stopped_at_once,
    stopped_with_a_steer_waiting,
    to_its_end,
    with_garbage,
    withdrawn,
)

BRIDGE = Path(__file__).parents[2] / "sandbox" / "inside" / "opencode_bridge.py"
MODEL = "lab/scripted"


def bash(command: str) -> Tool:
    return Tool("bash", {"command": command, "description": f"Run {command.split()[0]}"})


def todo(content: str, status: str) -> Mapping[str, str]:
    return {"content": content, "status": status, "priority": "high"}


COLOURS = Tool(
    "question",
    {
        "questions": [
            {
                "question": "Which colour?",
                "header": "Colour",
                "options": [
                    {"label": "Red", "description": "Warm"},
                    {"label": "Blue", "description": "Cold"},
                ],
            }
        ]
    },
)


def task(script: str) -> Tool:
    return Tool(
        "task",
        {
            "description": "Look around",
            "prompt": f"[[script:{script}]] look around",
            "subagent_type": "general",
        },
    )


SCRIPTS: Mapping[str, Script] = {
    **TROUBLE,
    "hello": [Reply("Hello from the scripted model.")],
    "tools": [
        Reply("I write a file first.", (bash(COMMAND),), "A file."),
        Reply("Then I read and change it.", (Tool("read", {"filePath": "one.txt"}),)),
        Reply("", (Tool("edit", {"filePath": "one.txt", "oldString": "two", "newString": "2"}),)),
        Reply("", (Tool("write", {"filePath": "two.txt", "content": "a\nb\nc\n"}),)),
        Reply("", (Tool("read", {"filePath": "missing.txt"}), bash("exit 3"), Tool("nosuch", {"x": 1}))),
        Reply("Two lines, the second changed."),
    ],
    "steer": [
        Reply("This takes a moment.", (bash("sleep 1.5; echo slept"),)),
        Reply("Going on.", (bash("echo after"),)),
        Reply("All done."),
    ],
    "talk": [Reply("It is a long story. " * 20, pause=0.08)],
    "slow": [Reply("This takes long.", (bash("sleep 60; echo never"),)), Reply("Never said.")],
    "plan": [
        Reply(
            "A plan first.",
            (Tool("todowrite", {"todos": [todo("Read the code", "pending"), todo("Mend it", "pending")]}),),
        ),
        Reply(
            "",
            (
                Tool(
                    "todowrite",
                    {"todos": [todo("Read the code", "completed"), todo("Mend it", "in_progress")]},
                ),
            ),
        ),
        Reply("Planned."),
    ],
    "ask": [Reply("I wonder.", (COLOURS,)), Reply("Thank you, I go on.")],
    "wish": [Reply("I'd like to touch a file.", (bash(ASKED_COMMAND),)), Reply("That is how it went.")],
    "planned": [
        Reply("I look first.", (Tool("read", {"filePath": "README.md"}),)),
        Reply("1. Touch the file."),
        Reply("As planned.", (bash(ASKED_COMMAND),)),
        Reply("Touched."),
    ],
    "delegate-asking": [Reply("Somebody else looks.", (task("wish"),)), Reply("They looked.")],
    "delegate": [Reply("Somebody else looks.", (task("helper"),)), Reply("They looked.")],
    "helper": [Reply("Looking.", (bash("echo looked"),)), Reply("I looked around.")],
    "delegate-slow": [Reply("Somebody else looks.", (task("slow-helper"),)), Reply("They looked.")],
    "slow-helper": [Reply("Looking.", (bash("sleep 61"),)), Reply("I looked around.")],
    "long": [Reply("It will be long.", (bash(LONG_COMMAND),)), Reply("That was long.")],
    "error": [Refusal(400, "the scripted model refuses")],
    "overloaded": [Refusal(529, "the scripted model is overloaded", "overloaded_error")],
    "unauthorised": [Refusal(401, "Incorrect API key provided.", "invalid_api_key")],
    "no-model": [NO_MODEL_OPENAI],
    "limited": [Refusal(429, "You exceeded your current quota, check your plan.", "insufficient_quota")],
}


async def killed_in_a_tool(agent: DrivenAgent) -> None:
    """The call is in OpenCode's database before we hear of it."""
    await agent.until_running("sleep")
    agent.kill()
    await agent.until_ended()


async def stopped_before_its_message(agent: DrivenAgent) -> None:
    """Stopped when the prompt is posted, and no message of it is there yet: it comes after the stop."""
    await agent.until(lambda agent: bool(agent.resume_token), "the session")
    agent.interrupt()
    await to_its_end(agent)


async def steered_while_people_are_asked(agent: DrivenAgent) -> None:
    await agent.until_approval()
    agent.steer(prompt(STEER, 2))
    await to_its_end(agent)


def steered_at(sign: str) -> Play:
    """Steered in the very moment that a line with this sign is heard, with no other line in between."""

    async def play(agent: DrivenAgent) -> None:
        hear = agent._on

        def hear_and_steer(entry: Entry, happening: Happening) -> None:
            hear(entry, happening)
            if sign in str(entry) and not any("steer" in one for one in agent.transcript):
                agent.steer(prompt(f"[[script:hello]] {STEER}", 2))

        setattr(agent, "_on", hear_and_steer)  # noqa: B010 (a method, for this one agent)
        await to_its_end(agent)

    return play


def codec(
    model: ModelServer, *, api_key: str = "scripted-key-0000000000", patience: float = 120.0
) -> OpenCodeCodec:
    known = {"limit": {"context": 200_000, "output": 8192}, "cost": {"input": 3, "output": 15}}
    return OpenCodeCodec(
        (sys.executable, str(BRIDGE)),
        api_key=api_key,
        base_url=f"{model.url}/v1",
        model=MODEL,
        models={"scripted": known},
        command=(program("opencode") or "opencode",),
        patience=patience,
    )


def codec_without_a_credential(model: ModelServer) -> OpenCodeCodec:
    """For a provider that OpenCode knows, as it is when nobody gave it a key."""
    return OpenCodeCodec(
        (sys.executable, str(BRIDGE)),
        model="anthropic/claude-sonnet-4-5",
        command=(program("opencode") or "opencode",),
    )


SCENARIOS: Mapping[str, Scenario] = {
    **in_trouble(partial(codec, patience=1.0)),
    "tools": Scenario("[[script:tools]] change a file", to_its_end),
    "steer": Scenario("[[script:steer]] take your time", steered),
    "steer-last": Scenario("[[script:talk]] tell a story", steered_in_its_last_words("message.part.delta")),
    "steer-failing": Scenario("[[script:error]] fail", steered_at("session.error")),
    "steer-failed": Scenario("[[script:error]] fail", steered_at("session.idle")),
    "stop": Scenario("[[script:slow]] take long", stopped_and_continued),
    "stop-waiting": Scenario("[[script:slow]] take long", stopped_with_a_steer_waiting),
    "stop-early": Scenario("[[script:slow]] take long", stopped_before_its_message),
    "stop-at-once": Scenario("[[script:slow]] take long", stopped_at_once, recorded=False),
    "killed": Scenario("[[script:slow]] take long", killed_in_a_tool),
    "resumed": Scenario("[[script:hello]] You were interrupted.", to_its_end, before="killed"),
    "error": Scenario("[[script:error]] fail", to_its_end),
    "unauthorised": Scenario("[[script:unauthorised]] go", to_its_end),
    "no-model": Scenario("[[script:no-model]] go", to_its_end),
    "limited": Scenario("[[script:limited]] go", to_its_end),
    "approved": Scenario("[[script:wish]] touch it", approved, options=ASKING),
    "denied": Scenario("[[script:wish]] touch it", denied, options=ASKING),
    "withdrawn": Scenario("[[script:wish]] touch it", withdrawn, options=ASKING),
    "unattended": Scenario("[[script:wish]] touch it", to_its_end, options=UNATTENDED),
    "asked": Scenario("[[script:ask]] ask me", asked, options=ANSWERABLE),
    "question": Scenario("[[script:ask]] ask me", to_its_end),
    "planned": Scenario("[[script:planned]] touch it", approved, options=PLANNING),
    "replanned": Scenario("[[script:planned]] touch it", refused_then_approved("planned"), options=PLANNING),
    "effort": Scenario("[[script:hello]] think", to_its_end, options=Options(effort="high")),
    "long": Scenario("[[script:long]] be long", to_its_end, recorded=False),
    "half-a-line": Scenario("[[script:steer]] take your time", steered, recorded=False, restarts=True),
    "picture": PICTURE,
    "garbage": Scenario("[[script:steer]] take your time", with_garbage),
    "delegated": Scenario("[[script:delegate]] let somebody look", to_its_end),
    "steer-delegated": Scenario("[[script:delegate-slow]] let somebody look for long", steered),
    "steer-delegated-asking": Scenario(
        "[[script:delegate-asking]] let somebody touch it", steered_while_people_are_asked, options=ASKING
    ),
    "plan": Scenario("[[script:plan]] plan", to_its_end),
    "logged-out": Scenario("[[script:hello]] go", to_its_end, codec=codec_without_a_credential),
    "overloaded": Scenario(
        "[[script:overloaded]] go", to_its_end, codec=partial(codec, patience=1.0), recorded=False
    ),
}


RIG = Rig("opencode", SCENARIOS, SCRIPTS, codec, lambda: program("opencode"))
