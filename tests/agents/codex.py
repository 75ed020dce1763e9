"""What the real Codex goes through."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bot.agents.codex.codec import CodexCodec
from tests.agents.driven import DrivenAgent
from tests.agents.model.responses import code, patch, shell, wait, wait_for_agent, write
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
    TROUBLE,
    UNATTENDED,
    Options,
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

# Not in Codex's catalogue: then it offers its plain tools.
MODEL = "scripted"
# In its catalogue, and so given one tool that runs scripts of the model's.
KNOWN_MODEL = "gpt-6-sol"
KEY = "sk-scripted-0000000000"

ADD_FILE = "*** Begin Patch\n*** Add File: new.txt\n+a\n*** End Patch"

QUESTION = {
    "id": "colour",
    "header": "Colour",
    "question": "Which colour?",
    "options": [{"label": "Red", "description": "Warm"}, {"label": "Blue", "description": "Cold"}],
}


def plan(*steps: str) -> Tool:
    entries = zip(("Read the code", "Mend it"), steps, strict=True)
    return Tool("update_plan", {"plan": [{"step": step, "status": status} for step, status in entries]})


def spawn(message: str) -> Tool:
    return Tool("spawn_agent", {"message": message})


def leave_running(command: str) -> Tool:
    return shell(command, yield_time_ms=300)


SCRIPTS: Mapping[str, Script] = {
    **TROUBLE,
    "hello": [Reply("Hello from the scripted model.")],
    "tools": [
        Reply("I write a file first.", (shell(COMMAND),), "A file."),
        Reply("Then I change it.", (patch("*** Update File: one.txt", "@@", " one", "-two", "+2"),)),
        Reply("", (shell("cat one.txt"),)),
        Reply("", (shell("cat missing.txt"),)),
        Reply("", (patch("*** Add File: new.txt", "+a", "+b", "*** Delete File: README.md"),)),
        Reply("Two lines, the second changed."),
    ],
    "steer": [
        Reply("This takes a moment.", (shell("sleep 1.5; echo slept"),)),
        Reply("Going on.", (shell("echo after"),)),
        Reply("All done."),
    ],
    "talk": [Reply("It is a long story. " * 20, pause=0.03)],
    "slow": [Reply("This takes long.", (shell("sleep 60; echo never"),)), Reply("Never said.")],
    "plan": [
        Reply("A plan first.", (plan("in_progress", "pending"),)),
        Reply("", (plan("completed", "in_progress"),)),
        Reply("Planned."),
    ],
    "ask": [
        Reply("I wonder.", (Tool("request_user_input", {"questions": [QUESTION]}),)),
        Reply("Then it is settled."),
    ],
    "delegate": [
        Reply("Somebody else looks.", (spawn("[[script:helper]] look around"),)),
        Reply("", (wait_for_agent(20_000),)),
        Reply("They looked."),
    ],
    "helper": [Reply("Looking.", (shell("echo looked"),)), Reply("I looked around.")],
    "error": [Refusal(400, "the scripted model refuses")],
    "unauthorised": [Refusal(401, "Incorrect API key provided", "invalid_api_key")],
    "limited": [Refusal(429, "You exceeded your current quota", "insufficient_quota")],
    "no-model": [NO_MODEL_OPENAI],
    "touch": [Reply("I need a file.", (shell(ASKED_COMMAND),)), Reply("That was it.")],
    "lay-out": [
        Reply("I plan.\n<proposed_plan>\n1. Touch asked.txt\n</proposed_plan>\n"),
        Reply("", (shell(ASKED_COMMAND),)),
        Reply("Done as planned."),
    ],
    "long": [Reply("This is long.", (shell(LONG_COMMAND, max_output_tokens=100),)), Reply("That was long.")],
    "send-out": [
        Reply("Somebody else looks.", (spawn("[[script:long-helper]] look around"),)),
        Reply("", (wait_for_agent(60_000),)),
        Reply("Then without them."),
    ],
    "long-helper": [Reply("Looking.", (shell("sleep 61"),)), Reply("I looked around.")],
    "forget": [
        Reply("I start something.", (leave_running("sleep 60; touch late.txt"),)),
        Reply("Done."),
        Reply("Really done."),
    ],
    "remember": [
        Reply("I start something.", (leave_running("sleep 2; touch late.txt"),)),
        Reply("Done."),
    ],
    "wait-for": [
        Reply("I start something.", (leave_running("sleep 4; echo slept"),)),
        Reply("", (wait(10_000),)),
        Reply("All done."),
    ],
    "abandon": [Reply("Somebody else looks.", (spawn("[[script:slow]] look around"),)), Reply("Done.")],
    "code": [
        Reply("I run a script.", (code("text(JSON.stringify(await tools.exec_command({cmd: 'echo hi'})))"),)),
        Reply("", (code(f"text(await tools.apply_patch({ADD_FILE!r}))"),)),
        Reply("That was a script."),
    ],
    "type": [
        Reply("I type.", (leave_running("cat > typed.txt"),)),
        Reply("", (write("not asked about\n"),)),
        Reply("", (shell("cat > typed.txt", tty=True),)),
        Reply("Typed."),
    ],
    "environment": [Reply("I look.", (shell("env"),)), Reply("Looked.")],
}


def saved(agent: DrivenAgent, words: str) -> bool:
    """Has Codex written these words to its file of the conversation?"""
    files = Path(agent.task.home).glob(".codex/sessions/**/*.jsonl")
    return any(words in file.read_text() for file in files)


async def killed_in_a_tool(agent: DrivenAgent) -> None:
    await agent.until_running("sleep")
    await agent.until(lambda agent: saved(agent, "sleep 60"), "the tool call in Codex's file")
    agent.kill()
    await agent.until_ended()


async def steered_while_it_waits(agent: DrivenAgent) -> None:
    """Once it waits for the sub-agent, whose command runs."""
    await agent.until_running("sleep")
    await agent.until_running("Waiting for a sub-agent")
    await steered(agent)


async def stopped_with_what_it_started(agent: DrivenAgent) -> None:
    await agent.until_running("sleep")
    agent.interrupt()
    await to_its_end(agent)


def codec(model: ModelServer) -> CodexCodec:
    return CodexCodec(api_key=KEY, base_url=f"{model.url}/v1", model=MODEL, command=_command())


def impatient(model: ModelServer) -> CodexCodec:
    """It does not try thirty times."""
    few = [f"model_providers.sandpiper.{name}_max_retries=1" for name in ("request", "stream")]
    command = (*_command(), *(word for setting in few for word in ("-c", setting)))
    return CodexCodec(api_key=KEY, base_url=f"{model.url}/v1", model=MODEL, command=command)


def logged_out(model: ModelServer) -> CodexCodec:
    return CodexCodec(base_url=f"{model.url}/v1", model=MODEL, command=_command())


def _command() -> tuple[str, ...]:
    return (program("codex") or "codex",)


SCENARIOS: Mapping[str, Scenario] = {
    **in_trouble(impatient),
    "tools": Scenario("[[script:tools]] change a file", to_its_end),
    "steer": Scenario("[[script:steer]] take your time", steered),
    "steer-last": Scenario("[[script:talk]] tell a story", steered_in_its_last_words("agentMessage/delta")),
    "stop": Scenario("[[script:slow]] take long", stopped_and_continued),
    "stop-waiting": Scenario("[[script:slow]] take long", stopped_with_a_steer_waiting),
    "stop-at-once": Scenario("[[script:slow]] take long", stopped_at_once),
    "killed": Scenario("[[script:slow]] take long", killed_in_a_tool),
    "resumed": Scenario("[[script:hello]] You were interrupted.", to_its_end, before="killed"),
    "error": Scenario("[[script:error]] fail", to_its_end),
    "unauthorised": Scenario("[[script:unauthorised]] fail", to_its_end),
    "no-model": Scenario("[[script:no-model]] fail", to_its_end),
    "limited": Scenario("[[script:limited]] fail", to_its_end),
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
    "garbage": Scenario("[[script:steer]] take your time", with_garbage),
    "plan": Scenario("[[script:plan]] plan", to_its_end),
    "delegated": Scenario("[[script:delegate]] let somebody look", to_its_end),
    "steer-delegated": Scenario("[[script:send-out]] let somebody look for long", steered_while_it_waits),
    "stop-delegated": Scenario("[[script:send-out]] let somebody look", stopped_with_what_it_started),
    "left-running": Scenario("[[script:forget]] start something", to_its_end),
    "background": Scenario("[[script:forget]] start something", to_its_last_words, recorded=False),
    "abandoned": Scenario("[[script:abandon]] let somebody look", to_its_end),
    "steer-running": Scenario("[[script:wait-for]] start something", steered),
    "known-model": Scenario("[[script:code]] run it", to_its_end, options=Options(model=KNOWN_MODEL)),
    "typed": Scenario("[[script:type]] type", approved, options=ASKING, recorded=False),
    "environment": Scenario("[[script:environment]] show me", to_its_end, recorded=False),
}

RIG = Rig("codex", SCENARIOS, SCRIPTS, codec, lambda: program("codex"))
