"""Record what the agents write, for the contract suite: `python -m tests.agents.record claude`, with the
names of scenarios after it to record only these.

A transcript is what was given to the codec, one JSON line each: begin, then out (a frame), raw (a line
that is no JSON), steer, interrupt, decide, answer, exited, with the seconds since the start in `at`.
Paths of the machine are replaced, and frames that hold the program's own lists and instructions are
cut short.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.agents.driven import Entry
from tests.agents.model.server import ModelServer
from tests.agents.playing import Place, played_by
from tests.agents.rigs import RIGS

TRANSCRIPTS = Path(__file__).parents[1] / "transcripts"
KEPT = 3
LONGEST = 60
# Frames that tell much of the program itself: its tools, its instructions to the model.
LONG = ("control_response", "system", "tool", "thread/settings/updated")


async def record(agent: str, *only: str) -> None:
    rig = RIGS[agent]
    for name in only or [name for name, scenario in rig.scenarios.items() if scenario.recorded]:
        with tempfile.TemporaryDirectory() as directory:
            place = Place.made(Path(directory))
            async with (
                ModelServer(rig.scripts) as model,
                played_by(rig, name, model, place) as driven,
            ):
                pass
            text = "".join(
                json.dumps(_trimmed(entry), ensure_ascii=False) + "\n" for entry in driven.transcript
            )
            for found, instead in _scrubbed(place).items():
                text = text.replace(found, instead)
            (TRANSCRIPTS / f"{agent}-{name}.jsonl").write_text(text)
            print(f"{agent}-{name}: {len(driven.transcript)} entries")


def _scrubbed(place: Place) -> dict[str, str]:
    work, home = str(place.work), str(place.home)
    return {
        work: "/home/agent/work",
        home: "/home/agent",
        work.replace("/", "-").replace("_", "-"): "-home-agent-work",
        str(Path(tempfile.gettempdir())) + "/": "/scratch/",
    }


def _trimmed(entry: Entry) -> Entry:
    told = entry.get("out")
    if not isinstance(told, dict):
        return entry
    long = told.get("type") in LONG or told.get("method") in LONG
    long = long or any(name in str(told) for name in ("availableCommands", "supportedReasoningEfforts"))
    return {**entry, "out": _cut(told)} if long else entry


def _cut(value: object) -> object:
    if isinstance(value, dict):
        return {key: _cut(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cut(item) for item in value[:KEPT]]
    return value[:LONGEST] if isinstance(value, str) else value


if __name__ == "__main__":
    TRANSCRIPTS.mkdir(exist_ok=True)
    asyncio.run(record(*sys.argv[1:]))
