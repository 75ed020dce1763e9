"""Codex, OpenCode and an ACP agent for real: in a real box, from a Slack thread to a pull request. Only
their models are scripts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from handlers.slack.ids import APPROVE_ACTION
from tests.agents import acp, codex, opencode
from tests.agents.model import anthropic, responses
from tests.agents.model.script import Reply, Tool
from tests.agents.model.server import ModelServer
from tests.agents.playing import CACHE
from tests.e2e.rig import DEV, REPOSITORY, Rig, marker, rig

KEY = "sk-scripted-0000000000"
WRITE = "echo blue > colour.txt && git add -A && git commit -qm 'Say the colour'"


@dataclass(frozen=True)
class Case:
    """One agent: whether it is there, its settings for a model at a URL, and how its model calls a shell."""

    name: str
    program: Callable[[], str | None]
    settings: Callable[[str], Mapping[str, object]]
    shell: Callable[[str], Tool]


CASES = (
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
    Case(
        "claude-acp",
        acp.CLAUDE.program,
        lambda url: {
            "command": [
                str(CACHE / "node_modules/.bin/node"),
                str(CACHE / "node_modules/.bin/claude-agent-acp"),
            ],
            "env": {
                "ANTHROPIC_BASE_URL": url,
                "CLAUDE_CODE_EXECUTABLE": str(CACHE / "node_modules/.bin/claude"),
                "IS_SANDBOX": "1",
            },
            "secrets": {"ANTHROPIC_API_KEY": KEY},
        },
        anthropic.bash,
    ),
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


async def test_it_asks_is_steered_and_its_commit_becomes_a_pull_request(tmp_path: Path, case: Case) -> None:
    if case.program() is None:
        pytest.skip(f"{case.name} is not installed: make agents")
    scripts = {
        "colour": [
            Reply("I look around.", (case.shell("sleep 2; touch looked.txt"),)),
            Reply("I write it.", (case.shell(WRITE),)),
            Reply("The colour is written down."),
        ]
    }
    async with ModelServer(scripts) as model:
        settings = {
            "SANDPIPER_AGENTS": json.dumps({case.name: case.settings(model.url)}),
            "SANDPIPER_SANDBOX_TOOLS": str(CACHE),
            "SANDPIPER_EGRESS_LOOPBACK": model.url.removeprefix("http://"),
            "SANDPIPER_PERMISSIONS": "ask",
            "SANDPIPER_DEFAULT_AGENT": case.name,
            "PATH": os.environ["PATH"],
        }
        async with rig(tmp_path, **settings) as r:
            root = r.mention("write down the colour [[script:colour]]")
            await allow(r, root, 1)
            await soon(r, lambda: "sleep 2" in r.picture(root))
            steer = r.reply(root, "make it blue")
            await allow(r, root, 2)
            await soon(r, lambda: bool(r.finals(root)))
            (final,) = r.finals(root)
            assert "The colour is written down." in final.text
            assert r.reactions(steer) == {"white_check_mark"}
            assert model.was_told("make it blue")
            (pull,) = r.github.pull_requests(REPOSITORY)
            assert "+blue" in await r.github.diff(REPOSITORY, pull.number)
            assert KEY not in r.log and KEY not in str(r.thread(root))


async def soon(r: Rig, true: Callable[[], bool]) -> None:
    """The start of some of these agents takes its time."""
    await r.slack.wait_for(true, timeout=100)


async def allow(r: Rig, root: str, number: int) -> None:
    """Approve the n-th thing that is asked in a thread."""

    def asked() -> list[str]:
        return [post.ts for post in r.thread(root) if marker(post).startswith("ask:")]

    await soon(r, lambda: len(asked()) >= number)
    await r.slack.click("U_ANA", DEV, asked()[number - 1], APPROVE_ACTION)
