"""What the scripted agent goes through."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from bot.agents.scripted import ScriptedCodec
from tests.agents.driven import DrivenAgent
from tests.agents.model.server import ModelServer
from tests.agents.playing import (
    ANSWERABLE,
    ASKING,
    LONG_COMMAND,
    UNATTENDED,
    Rig,
    Scenario,
    approved,
    asked,
    denied,
    steered,
    stopped_and_continued,
    stopped_at_once,
    stopped_with_a_steer_waiting,
    to_its_end,
    withdrawn,
)

PROGRAM = Path(__file__).parents[2] / "sandbox" / "inside" / "scripted_agent.py"


async def dies(agent: DrivenAgent) -> None:
    await agent.until_ended()


SCENARIOS: Mapping[str, Scenario] = {
    "tools": Scenario(
        "!think A file first.\n!write one.txt one\n!read one.txt\n!read missing.txt\n!answer Written.",
        to_its_end,
    ),
    "steer": Scenario("!run sleep 0.3\n!say after\n!answer All done.", steered),
    "stop": Scenario("!run sleep 60\n!answer never", stopped_and_continued),
    "stop-waiting": Scenario("!run sleep 60\n!answer never", stopped_with_a_steer_waiting),
    "stop-at-once": Scenario("!run sleep 60\n!answer never", stopped_at_once),
    "killed": Scenario("!run sleep 0.1\n!crash\n!answer Went on.", dies),
    "resumed": Scenario("You were interrupted: go on.", to_its_end, before="killed"),
    "approved": Scenario("!may touch asked.txt\n!answer Done.", approved, options=ASKING),
    "denied": Scenario("!may touch asked.txt\n!answer Done.", denied, options=ASKING),
    "withdrawn": Scenario("!may touch asked.txt\n!answer Done.", withdrawn, options=ASKING),
    "unattended": Scenario("!may touch asked.txt\n!answer Done.", to_its_end, options=UNATTENDED),
    "asked": Scenario("!ask Which colour? | Red | Blue", asked, options=ANSWERABLE),
    "question": Scenario("!ask Which colour? | Red | Blue", to_its_end),
    "error": Scenario("!fail the model is on holiday", to_its_end),
    "long": Scenario(f"!run {LONG_COMMAND}\n!answer That was long.", to_its_end, recorded=False),
    "half-a-line": Scenario(
        "!run sleep 0.3\n!say after\n!answer All done.", steered, recorded=False, restarts=True
    ),
    "garbage": Scenario("!garbage\n!plan a; b\n!answer Still here.", to_its_end),
}


def codec(model: ModelServer | None = None) -> ScriptedCodec:
    """It needs no model: it does what its prompt says."""
    return ScriptedCodec([sys.executable, str(PROGRAM)], pace=0)


RIG = Rig("scripted", SCENARIOS, {}, codec, lambda: str(PROGRAM))
