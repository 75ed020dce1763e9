"""Every agent for real: in a real box, from a Slack thread to a pull request, also when the box is stopped
under it. Only their models are scripts."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.agents.codec import Prompt, Task
from bot.models import SandboxState
from handlers.slack.ids import APPROVE_ACTION
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider
from tests.agents import acp, claude, codex, opencode
from tests.agents.model import anthropic, responses
from tests.agents.model.script import Reply, Tool
from tests.agents.model.server import ModelServer
from tests.agents.playing import CACHE
from tests.e2e.rig import DEV, REPOSITORY, Rig, marker, rig

At = tuple[Rig, ModelServer]

KEY = "sk-scripted-0000000000"
WRITE = "echo blue > colour.txt && git add -A && git commit -qm 'Say the colour'"


@dataclass(frozen=True)
class Case:
    """One agent: whether it is there, its settings for a model at a URL, and how its model calls a shell."""

    name: str
    program: Callable[[], str | None]
    settings: Callable[[str], Mapping[str, object]]
    shell: Callable[[str], Tool]


def claude_behind_acp(url: str) -> Mapping[str, object]:
    bin = CACHE / "node_modules/.bin"
    return {
        "command": [str(bin / "node"), str(bin / "claude-agent-acp")],
        "env": {
            "ANTHROPIC_BASE_URL": url,
            "CLAUDE_CODE_EXECUTABLE": str(bin / "claude"),
            "IS_SANDBOX": "1",
        },
        "secrets": {"ANTHROPIC_API_KEY": KEY},
    }


def opencode_over_acp(url: str) -> Mapping[str, object]:
    codec = acp.opencode_codec_at(url, key=KEY)
    launch = codec.launch(Task(Prompt("", ""), "", ""))
    return {"command": list(launch.argv), "env": dict(launch.env), "secrets": dict(launch.secrets)}


CASES = (
    Case(
        "claude",
        claude.RIG.program,
        lambda url: {
            "command": [claude.RIG.program() or ""],
            "base_url": url,
            "api_key": KEY,
            "model": claude.MODEL,
        },
        anthropic.bash,
    ),
    Case(
        "codex",
        codex.RIG.program,
        lambda url: {
            "command": [codex.RIG.program() or ""],
            "base_url": f"{url}/v1",
            "api_key": KEY,
            "model": codex.MODEL,
        },
        responses.shell,
    ),
    Case(
        "opencode",
        opencode.RIG.program,
        lambda url: {
            "command": [opencode.RIG.program() or ""],
            "base_url": f"{url}/v1",
            "api_key": KEY,
            "model": opencode.MODEL,
        },
        opencode.bash,
    ),
    Case("acp-claude", acp.CLAUDE.program, claude_behind_acp, anthropic.bash),
    Case("acp-opencode", acp.OPENCODE.program, opencode_over_acp, acp.shell),
)

pytestmark = [
    pytest.mark.live,
    pytest.mark.timeout(400),
    pytest.mark.parametrize(
        "case",
        [
            pytest.param(case, id=case.name, marks=[pytest.mark.smoke] if case.name == "codex" else [])
            for case in CASES
        ],
    ),
]


@asynccontextmanager
async def at_work(directory: Path, case: Case, command: str, **settings: str) -> AsyncIterator[At]:
    """The bot with this agent, whose model wants the command to be run before it writes."""
    if case.program() is None:
        pytest.skip(f"{case.name} is not installed: make agents")
    scripts = {
        "colour": [
            Reply("I look around.", (case.shell(command),)),
            Reply("I write it.", (case.shell(WRITE),)),
            Reply("The colour is written down."),
        ]
    }
    async with ModelServer(scripts) as model:
        settings |= {
            "SANDPIPER_AGENTS": json.dumps({case.name: case.settings(model.url)}),
            "SANDPIPER_SANDBOX_TOOLS": str(CACHE),
            "SANDPIPER_EGRESS_LOOPBACK": model.url.removeprefix("http://"),
            "SANDPIPER_DEFAULT_AGENT": case.name,
            "PATH": os.environ["PATH"],
        }
        async with rig(directory, **settings) as r:
            yield r, model


async def test_it_asks_is_steered_and_its_commit_becomes_a_pull_request(tmp_path: Path, case: Case) -> None:
    ask = {"SANDPIPER_PERMISSIONS": "ask"}
    look = "until test -e ../go; do sleep 0.1; done; touch looked.txt"
    async with at_work(tmp_path, case, look, **ask) as (r, model):
        root = r.mention("write down the colour [[script:colour]]")
        await allow(r, root, 1)
        await soon(r, lambda: "until test" in r.picture(root))
        steer = r.reply(root, "make it blue")
        await soon(r, lambda: bool(r.reactions(steer)))
        (tree,) = tmp_path.glob("**/workspaces/*/code")
        (tree.parent / "go").touch()
        await allow(r, root, 2)
        await soon(r, lambda: bool(r.finals(root)))
        (final,) = r.finals(root)
        assert "The colour is written down." in final.text
        assert r.reactions(steer) == {"white_check_mark"}
        assert model.was_told("make it blue")
        (pull,) = r.github.pull_requests(REPOSITORY)
        assert "+blue" in await r.github.diff(REPOSITORY, pull.number)
        assert KEY not in r.log and KEY not in str(r.thread(root))
        assert not lies_in(r, "home", "I look around.") and lies_in(r, "sessions", "I look around.")


async def test_its_box_is_stopped_under_it_and_it_goes_on(tmp_path: Path, case: Case) -> None:
    """The box is started again, and the second attempt continues the conversation of the first, of which
    nothing lies where the owner's other sessions read it."""
    async with at_work(tmp_path, case, "sleep 60") as (r, model):
        root = r.mention("write down the colour [[script:colour]]")
        await soon(r, lambda: "sleep 60" in r.picture(root))
        await soon(r, lambda: has_written_down(r, case, "sleep 60"))
        await stop_the_box(r)
        await soon(r, lambda: bool(r.finals(root)))
        (final,) = r.finals(root)
        assert "The colour is written down." in final.text
        of_both = ("I look around.", "sleep 60", "You were interrupted")
        assert any(all(words in json.dumps(said) for words in of_both) for said in model.requests)
        (pull,) = r.github.pull_requests(REPOSITORY)
        assert "+blue" in await r.github.diff(REPOSITORY, pull.number)
        assert not lies_in(r, "home", "I look around.") and lies_in(r, "sessions", "I look around.")


def lies_in(r: Rig, where: str, words: str) -> list[Path]:
    """The files with these words in a part of the sandbox."""
    files = (r.directory / "bot" / "sandboxes").glob(f"local-*/{where}/**/*")
    return [file for file in files if file.is_file() and words.encode() in file.read_bytes()]


def has_written_down(r: Rig, case: Case, words: str) -> bool:
    """Whether it will still know of them. Claude writes its file of a conversation a moment later."""
    if "claude" not in case.name:
        return True
    return any("/.claude/projects/" in str(file) for file in lies_in(r, "sessions", words))


async def stop_the_box(r: Rig) -> None:
    """As whoever runs the machine does; the bot is not told."""
    provider = LocalProvider(r.directory / "bot" / "sandboxes", Bubblewrap(Options(), allow=()))
    (box,) = await provider.find({})
    await box.stop()
    assert await box.state() is SandboxState.STOPPED


async def soon(r: Rig, true: Callable[[], bool]) -> None:
    """The start of some of these agents takes its time."""
    await r.slack.wait_for(true, timeout=100)


async def allow(r: Rig, root: str, number: int) -> None:
    """Approve the n-th thing that is asked in a thread."""

    def asked() -> list[str]:
        return [post.ts for post in r.thread(root) if marker(post).startswith("ask:")]

    await soon(r, lambda: len(asked()) >= number)
    await r.slack.click("U_ANA", DEV, asked()[number - 1], APPROVE_ACTION)
