"""Every real agent finds our side tools, calls them without asking people, and is told what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from bot.agents.codec import Permissions
from bot.agents.side_tools import SideTools
from bot.events import (
    ApprovalAsked,
    FileOffered,
    Named,
    Notice,
    Progress,
    Question,
    StopReason,
    ToolCall,
    Unknown,
)
from tests.agents.driven import DrivenAgent
from tests.agents.model.script import Reply, Script, Tool
from tests.agents.model.server import ModelServer
from tests.agents.playing import ANSWERABLE, Place, Rig, prompt
from tests.agents.rigs import RIGS

# How each agent names the tools of a server to its model.
PREFIXES = {
    "claude": "mcp__sandpiper__",
    "acp-claude": "mcp__sandpiper__",
    "codex": "",  # the tool's own name, in the server's namespace
    "opencode": "sandpiper_",
    "acp-opencode": "sandpiper_",
}

CALLS: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("set_title", {"title": "Mend the clock"}),
    ("note_progress", {"text": "Half way there"}),
    ("ask_person", {"question": "Which colour?", "options": ["Red", "Blue"]}),
    ("share_file", {"path": "README.md", "title": "The readme"}),
    ("open_pr", {"title": "Mend it", "body": "It was broken."}),
)

# Those that start quickly are asked in every run.
QUICK = ("claude", "codex")

# Where people are to be asked before something is done.
CAREFUL = [
    pytest.param(RIGS[name], permissions, id=f"{permissions}-{name}")
    for name, permissions in (
        ("claude", Permissions.ASK),
        ("claude", Permissions.PLAN),
        ("codex", Permissions.ASK),
        ("codex", Permissions.PLAN),
        ("opencode", Permissions.ASK),
    )
]

pytestmark = pytest.mark.live


def rigs(*names: str) -> list[ParameterSet]:
    smoke = pytest.mark.smoke
    return [pytest.param(RIGS[name], id=name, marks=[smoke] if name in QUICK else []) for name in names]


def script(rig: Rig) -> Script:
    calls = [Reply("", (Tool(PREFIXES[rig.name] + tool, given),)) for tool, given in CALLS]
    return [*calls, Reply("All said.")]


async def through(rig: Rig, place: Place, permissions: Permissions) -> DrivenAgent:
    """The agent after it has called every tool, with its question answered and its file shared."""
    async with ModelServer({**rig.scripts, "side-tools": script(rig)}) as model:
        task = place.task(
            prompt("[[script:side-tools]] go", 1), options=replace(ANSWERABLE, permissions=permissions)
        )
        async with DrivenAgent.started(SideTools(rig.codec(model)), task) as agent:
            question = await agent.until_question()
            agent.answer(question.id, "Blue")
            await agent.until(lambda agent: bool(files(agent)), "a file")
            agent.answer(files(agent)[0].id, "It is in the thread.")
            await agent.until_completed()
            await agent.close()
        assert model.was_told("Blue") and model.was_told("It is in the thread.")
    return agent


def files(agent: DrivenAgent) -> list[FileOffered]:
    return [event for event in agent.events if isinstance(event, FileOffered)]


@pytest.fixture(autouse=True)
def installed(rig: Rig) -> None:
    if rig.program() is None:
        pytest.skip(f"{rig.name} is not installed: make agents")


@pytest.mark.parametrize("rig", rigs(*PREFIXES))
async def test_side_tools(rig: Rig, tmp_path: Path) -> None:
    agent = await through(rig, Place.made(tmp_path), Permissions.AUTO)
    assert [event for event in agent.events if isinstance(event, Named | Progress | Question)] == [
        Named("Mend the clock"),
        Progress("Half way there"),
        Question(agent.questions[0].id, "Which colour?", ("Red", "Blue"), open=True),
        Named("Mend it", "It was broken."),
    ]
    [file] = files(agent)
    assert (file.name, file.title, Path(file.path).read_text()) == ("README.md", "The readme", "# web\n")
    assert [completed.reason for completed in agent.completions] == [StopReason.END]
    assert not [event for event in agent.events if isinstance(event, ToolCall | Unknown | Notice)]


@pytest.mark.parametrize(("rig", "permissions"), CAREFUL)
async def test_people_are_not_asked_whether_they_may_be_asked(
    rig: Rig, permissions: Permissions, tmp_path: Path
) -> None:
    agent = await through(rig, Place.made(tmp_path), permissions)
    assert not [event for event in agent.events if isinstance(event, ApprovalAsked)]


@pytest.mark.parametrize("rig", rigs("acp-claude", "acp-opencode"))
async def test_by_acp_it_has_none_where_people_are_asked(rig: Rig, tmp_path: Path) -> None:
    """There, a tool's name is no proof of whose it is, so people would be asked for each call."""
    place = Place.made(tmp_path)
    async with ModelServer(rig.scripts) as model:
        options = replace(ANSWERABLE, permissions=Permissions.ASK)
        task = place.task(prompt("[[script:hello]] go", 1), options=options)
        async with DrivenAgent.started(SideTools(rig.codec(model)), task) as agent:
            await agent.until_completed()
            await agent.close()
        assert model.requests and "note_progress" not in str(model.requests)
