"""How turns end in a Slack thread when something goes wrong, or is left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.playground.demo import claude_settings
from tests.e2e.rig import REPOSITORY, Rig, rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = "!write work.txt work\n!commit Work"


async def test_an_agent_that_dies_once_goes_on_where_it_was(shared: Rig) -> None:
    root = shared.mention(f"{WORK}\n!crash\n!write rest.txt rest\n!commit Rest")
    final = await shared.final(root)
    diff = await shared.diff(final)
    assert "+work" in diff and "+rest" in diff
    assert len(shared.finals(root)) == 1


async def test_an_agent_that_dies_three_times_says_how_and_keeps_the_work(shared: Rig) -> None:
    secret = "ghp_" + "a1B2c3D4" * 5
    dies = f"!stderr cannot log in with {secret}\n!exit 3"
    root = shared.mention(f"{WORK}\n{dies}\n{dies}\n{dies}")
    final = await shared.final(root)
    assert "exit code 3" in final.shown
    assert "cannot log in with" in final.shown and secret not in final.shown
    assert "Say `publish`" in final.shown and "Failed after" in shared.picture(root)
    shared.mention("publish", thread=root)
    assert "+work" in await shared.diff(await shared.final(root, 2))


async def test_an_agent_that_is_not_installed_is_named(shared: Rig) -> None:
    root = shared.mention("agent=claude Fix it")
    final = await shared.final(root)
    assert "'claude' is not installed in the sandbox" in final.shown
    assert "SANDPIPER_AGENT_CLAUDE" in final.shown


async def test_an_agent_that_lacks_its_interpreter_says_so_without_its_key(tmp_path: Path) -> None:
    """As npm's `claude` does where there is no node, behind a gateway whose keys have no known form."""
    key = "gateway-of-the-house-1"
    program = tmp_path / "tools" / "claude"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "no access with $ANTHROPIC_API_KEY" >&2\nexec env node-of-nowhere\n')
    program.chmod(0o755)
    settings = claude_settings({"SANDPIPER_AGENT_CLAUDE": str(program), "ANTHROPIC_API_KEY": key})
    async with rig(tmp_path, **settings) as r:
        final = await r.final(r.mention("agent=claude Fix it"))
        assert "something that it needs is missing" in final.shown and "not installed" not in final.shown
        assert "node-of-nowhere" in final.shown and "SANDPIPER_SANDBOX_TOOLS" in final.shown
        assert "no access with" in final.shown and key not in final.shown


async def test_an_unknown_agent_is_refused_with_the_names_that_there_are(shared: Rig) -> None:
    root = shared.mention("agent=gpt Fix it")
    await shared.slack_until(lambda: bool(shared.notes(root)))
    (note,) = shared.notes(root)
    assert "gpt" in note and "scripted" in note
    assert not shared.timelines(root)


async def test_the_agent_is_asked_to_commit_what_it_left_over(shared: Rig) -> None:
    root = shared.mention("!leave left.txt left")
    final = await shared.final(root)
    assert "+left" in await shared.diff(final)
    assert shared.pull(final).title == "Commit what was left over"  # the agent's own words
    assert "Asked the agent to commit" in shared.picture(root)


async def test_what_the_agent_does_not_commit_the_bot_commits_and_names(shared: Rig) -> None:
    root = shared.mention("!stubborn\n!leave left.txt left\n!run mkdir sub && echo deep > sub/deep.txt")
    final = await shared.final(root)
    diff = await shared.diff(final)
    assert "+left" in diff and "+deep" in diff
    assert "I committed them" in final.shown
    assert "left.txt" in final.shown and "sub/deep.txt" in final.shown
    assert shared.pull(final).title == "Commit what the agent left over"


async def test_a_refused_push_leaves_the_work_ready_and_publish_mends_it(shared: Rig) -> None:
    shared.github.refuse_push_next("error: GH013: Repository rule violations found")
    pulls = len(shared.github.pull_requests(REPOSITORY))
    root = shared.mention(WORK)
    final = await shared.final(root)
    assert "not published" in final.shown and "GH013" in final.shown and "publish" in final.shown
    assert len(shared.github.pull_requests(REPOSITORY)) == pulls
    shared.mention("publish", thread=root)
    assert "+work" in await shared.diff(await shared.final(root, 2))
