"""The real Claude Code in a real box, steered from a Slack thread; only its model is a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from handlers.playground.demo import claude_settings
from handlers.playground.holds import Hold
from tests.agents.claude import RIG
from tests.agents.model.anthropic import bash
from tests.agents.model.script import Reply
from tests.agents.model.server import ModelServer
from tests.e2e.rig import REPOSITORY, WAIT, Rig, rig
from tests.e2e.witness import Witness, until

pytestmark = [
    pytest.mark.live,
    pytest.mark.smoke,
    pytest.mark.skipif(
        RIG.program() is None,
        reason="Claude Code is not installed: see tests/integration/test_claude_real.py",
    ),
]

SCRIPTS = {
    "steered": [
        Reply("I look around.", (bash("until test -e ../go; do sleep 0.1; done; ls"),)),
        Reply(
            "I write it.", (bash("echo blue > colour.txt && git add -A && git commit -qm 'Say the colour'"),)
        ),
        Reply("The colour is written down."),
    ],
}


@asynccontextmanager
async def claude_rig(directory: Path, model: ModelServer) -> AsyncIterator[Rig]:
    settings = claude_settings(
        {
            "SANDPIPER_AGENT_CLAUDE": str(RIG.program()),
            "ANTHROPIC_API_KEY": "sk-ant-test",
            "ANTHROPIC_BASE_URL": model.url,
        }
    )
    async with rig(directory, **settings, SANDPIPER_DEFAULT_AGENT="claude") as r:
        yield r


async def test_claude_code_is_steered_from_the_thread_and_its_commit_becomes_a_pull_request(
    tmp_path: Path,
) -> None:
    async with ModelServer(SCRIPTS) as model, claude_rig(tmp_path, model) as r:
        root = r.mention("write down the colour [[script:steered]]")
        await r.slack_until(lambda: "until test" in r.picture(root))
        steer = r.reply(root, "make it blue")
        await r.slack_until(lambda: bool(r.reactions(steer)))
        (tree,) = tmp_path.glob("**/workspaces/*/code")
        (tree.parent / "go").touch()
        final = await r.final(root)
        assert "The colour is written down." in final.text
        assert r.reactions(steer) == {"white_check_mark"}
        assert any("make it blue" in str(request) for request in model.requests)
        (pull,) = r.github.pull_requests(REPOSITORY)
        assert "+blue" in await r.github.diff(REPOSITORY, pull.number)
        assert "sk-ant-test" not in r.log


async def test_an_answer_of_the_model_outlives_the_bot_that_it_is_for(tmp_path: Path) -> None:
    """Its stream goes through the box's forwarder and the egress proxy, and neither is the bot's."""
    hold = Hold(acted=True)
    story = "Once there was a bird that ran along the edge of the water, and it never got wet feet."
    scripts = {"story": [Reply(story, pause=0.02, hold=hold)]}
    async with ModelServer(scripts) as model, claude_rig(tmp_path, model) as r:
        w = Witness(r)
        root = r.mention("tell a story [[script:story]]")
        await asyncio.wait_for(hold.arrived.wait(), WAIT)
        before = await w.started(root)
        await r.kill()
        assert before.alive()
        await r.start_again()
        await until(lambda: w.turns(root)[0]["fence"] == 2)
        hold.release()
        final = await r.final(root)
        assert story in final.shown
        assert w.agent(root) in (before, None)
        await w.once(root, commits=[])
        assert len([asked for asked in model.requests if "[[script:story]]" in str(asked)]) == 1
