"""Steering the real agents: from a message's injection to the call of the model that has it in.

The floor of each is its own: how long the same agent takes from the same moment to its next step when
nobody writes (the next call of the model during a tool; the end of the answer while it streams). What it
takes beyond that is what steering costs.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.agents.driven import DrivenAgent
from tests.agents.model.server import ModelServer
from tests.agents.playing import STEER, Place, Rig, prompt
from tests.agents.rigs import RIGS
from tests.bench.table import Row, Skipped

RUNS = 3
PATIENCE = 60.0
FIRST_TOOL = "toolu_steer_0_"  # how the scripted model calls the first tool of this scenario
TOOL = "Injected while a tool runs, until the model has it: the agent's next call of the model without that."
STREAM = "Injected while the model streams, until the model has it: the rest of that answer."


async def measure(directory: Path) -> Sequence[Row]:
    rigs = [rig for name, rig in RIGS.items() if name != "scripted" and rig.program() is not None]
    if not rigs:
        raise Skipped("No real agent is installed: make agents")
    rows: list[Row] = []
    for rig in rigs:
        for scenario, what, means in (("steer", "a tool", TOOL), ("steer-last", "streaming", STREAM)):
            ours = [
                await _once(rig, scenario, directory / f"{rig.name}-{scenario}-{n}", True)
                for n in range(RUNS)
            ]
            floor = [
                await _once(rig, scenario, directory / f"{rig.name}-{scenario}-f{n}", False)
                for n in range(RUNS)
            ]
            middle, bare = statistics.median(ours), statistics.median(floor)
            rows.append(Row(f"{rig.name} steered during {what}", "ms", middle * 1000, bare * 1000, means))
    return rows


async def _once(rig: Rig, name: str, directory: Path, steer: bool) -> float:
    """Seconds from the moment of injection to what is waited for."""
    directory.mkdir()
    place = Place.made(directory)
    scenario = rig.scenarios[name]
    async with ModelServer(rig.scripts) as model:
        codec = (scenario.codec or rig.codec)(model)
        async with DrivenAgent.started(codec, place.task(prompt(scenario.prompt, 1))) as agent:
            if name == "steer":
                await agent.until_running("sleep")
            else:
                await _until(lambda: model.speaking > 0, agent)
            # An agent also asks its model for a title and the like. The call that is meant has the tool's id.
            words = (FIRST_TOOL,) if name == "steer" else ()

            def has_it() -> bool:
                return model.was_told(STEER, *words)

            def next_step() -> bool:
                return model.was_told(*words) if words else not model.speaking

            began = time.perf_counter()
            if steer:
                agent.steer(prompt(STEER, 2))
            await _until(has_it if steer else next_step, agent)
            return time.perf_counter() - began


async def _until(met: Callable[[], bool], agent: DrivenAgent) -> None:
    async with asyncio.timeout(PATIENCE):
        while not met():
            if agent.ended:
                raise RuntimeError(f"the agent has ended: {agent.stderr.decode(errors='replace')[-500:]}")
            await asyncio.sleep(0.005)
