"""What an earlier turn left in the home or in the clone runs nothing unasked, where people are asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bot.agents.codec import Permissions
from bot.events import ToolStatus
from tests.agents import acp, codex, opencode
from tests.agents.claude import PLAN_FILE, RIG, SCRIPTS, codec, ended_tools
from tests.agents.driven import DrivenAgent
from tests.agents.leftovers import leave
from tests.agents.model.anthropic import bash
from tests.agents.model.responses import shell
from tests.agents.model.script import Reply, Script, Tool
from tests.agents.model.server import ModelServer
from tests.agents.playing import ASKING, PLANNING, Options, Place, Rig, approved, prompt, refused

pytestmark = [pytest.mark.live]

WITHOUT = "make agents installs it"
claude_only = pytest.mark.skipif(RIG.program() is None, reason=WITHOUT)

FREE = ("ls", "cat README.md", "rg web", "cd nested")
# Ways to have git read: by itself, beside something, behind something, and written otherwise.
GIT = (
    "git",
    "git status --short",
    "git diff",
    "git log -p",
    "git show --format=%G? HEAD",
    "git blame README.md",
    "git -C nested diff",
    "git ls-remote origin",
    "git log --help",
    "cd nested && git diff",
    "ls -la && git diff",
    "git diff | head",
    "echo README.md | xargs git log -p --",
    "find . -name README.md -exec git diff {} +",
    "FOO=1 timeout 5 git diff",
    "env git diff",
    "command git diff",
    "/usr/bin/git diff",
    "\\git diff",
    "g''it diff",
    "cat <(git diff)",
    "echo $(git diff)",
    "{ git diff; }",
    "if true; then git diff; fi",
    "bash -c 'git diff'",
)
MORE: dict[str, Script] = {
    "read": [*(Reply("", (bash(one),)) for one in (*FREE[:3], *GIT, FREE[3], *GIT[:3])), Reply("Looked.")],
    "plan-to-read": [
        Reply("I plan.", (Tool("Write", {"file_path": PLAN_FILE, "content": "1. Look\n"}),)),
        Reply("", (Tool("ExitPlanMode", {}),)),
        Reply("", (bash("git log -1"),)),
        Reply("Looked."),
    ],
}


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer({**SCRIPTS, **MORE}) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.made(tmp_path)


@claude_only
@pytest.mark.parametrize("permissions", [Permissions.ASK, Permissions.PLAN])
async def test_what_reads_runs_nothing_of_an_earlier_turn(
    permissions: Permissions, model: ModelServer, place: Place
) -> None:
    leave(place)
    options = Options(permissions, answerable=True)
    task = place.task(prompt("[[script:read]] look", 1), options=options)
    async with DrivenAgent.started(codec(model), task) as agent:
        for number, command in enumerate((*GIT, *GIT[:3]), 1):
            asked = await agent.until_approval(number)
            assert asked.detail == command
            agent.decide(asked.id, allowed=False)
        await agent.until_completed()
        done = [title for title, status, _ in ended_tools(agent) if status is ToolStatus.COMPLETED]
        assert done == [f"Ran {command}" for command in FREE]
    assert sorted(place.home.glob("*-ran")) == []


@claude_only
async def test_git_is_not_asked_about_once_a_plan_is_approved(model: ModelServer, place: Place) -> None:
    task = place.task(prompt("[[script:plan-to-read]] look", 1), options=PLANNING)
    async with DrivenAgent.started(codec(model), task) as agent:
        await approved(agent)
        assert [asked.title for asked in agent.approvals] == ["Go ahead with a plan"]
        assert ended_tools(agent)[-1][:2] == ("Ran git log -1", ToolStatus.COMPLETED)


LOOKS = ("git status --short", "git diff", "bash -c ls", *FREE, "sed -n 1,2p README.md")


@pytest.mark.parametrize(
    ("rig", "tool"),
    [(codex.RIG, shell), (opencode.RIG, opencode.bash), (acp.CLAUDE, bash), (acp.OPENCODE, acp.shell)],
    ids=["codex", "opencode", "acp-claude", "acp-opencode"],
)
async def test_other_agents_run_nothing_of_an_earlier_turn_either(
    rig: Rig, tool: Callable[[str], Tool], place: Place
) -> None:
    """Neither what is not asked about nor the commands that they have need of themselves."""
    if rig.program() is None:
        pytest.skip(WITHOUT)
    leave(place)
    script: Script = [*(Reply("", (tool(look),)) for look in LOOKS), Reply("Looked.")]
    async with ModelServer({"read": script}) as model:
        task = place.task(prompt("[[script:read]] look", 1), options=ASKING)
        async with DrivenAgent.started(rig.codec(model), task) as agent:
            await refused(agent)
            asked = [approval.detail for approval in agent.approvals]
            assert {"git status --short", "git diff", "bash -c ls"} <= set(asked)
    assert sorted(place.home.glob("*-ran")) == []
