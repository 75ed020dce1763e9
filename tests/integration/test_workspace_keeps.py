"""No work in a workspace is lost by what the bot's git does there: with what agents make beside the branch,
and with what they take away.

The real bubblewrap and git; the forge is the playground's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider
from tests.boxes import cannot_be_tested
from tests.github_stage import github_stage
from tests.integration.test_attacks import Work, new_session


@asynccontextmanager
async def works(tmp_path: Path, sessions: int = 1) -> AsyncIterator[list[Work]]:
    """So many sessions of one person on one repository, in one sandbox."""
    provider = LocalProvider(tmp_path / "sandboxes", Bubblewrap(Options(), ()))
    try:
        await provider.check()
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))
    async with github_stage(tmp_path / "stage") as stage:
        sandbox = await provider.create({})
        try:
            yield [await new_session(stage, sandbox, tmp_path) for _ in range(sessions)]
        finally:
            await sandbox.delete()


async def put_away(work: Work) -> str:
    return await work.workspaces.put_away(work.session, work.sandbox)


# Worktrees that an agent made itself


OWN_WORKTREES = """
git worktree add -q ../feature -b "feature-$1"
git worktree add -q --detach .wt/side
cd .wt/side
echo side >side.txt; git add .; git commit -qm Side
"""
LOOKS_AT_THEM = """
git -C ../feature symbolic-ref --short HEAD
git -C .wt/side log -1 --format=%s
git worktree list | wc -l
"""


@pytest.mark.parametrize("other", ["opens", "is put away"])
async def test_an_agents_own_worktrees_outlive_what_another_session_does(tmp_path: Path, other: str) -> None:
    async with works(tmp_path, 2) as (one, two):
        await one.agent(OWN_WORKTREES, "one")
        if other == "opens":
            await two.open()
        else:
            assert await put_away(two) == ""
        left = 5 if other == "opens" else 4  # with the clone
        assert await one.agent(LOOKS_AT_THEM) == f"feature-one\nSide\n{left}"
        # What is a repository of its own is not taken for files of the session's branch.
        await one.agent("echo loose >loose.txt")
        await one.publish()
        assert await one.agent(
            "git log -1 --format=%s; git ls-tree -r --name-only HEAD | grep -E 'wt|loose'"
        ) == ("Commit what was left over\nloose.txt")


async def test_what_is_put_away_leaves_no_entry_and_takes_no_other(tmp_path: Path) -> None:
    async with works(tmp_path, 2) as (one, two):
        await two.agent(OWN_WORKTREES, "two")
        await one.agent('git worktree add -q ../feature -b "feature-one"')
        assert await put_away(one) == ""
        listed = await two.agent("git worktree list --porcelain | sed -n 's/^worktree //p' | sort")
        (a, b) = (work.session.id[:8] for work in (one, two))
        assert set(listed.split("\n")) == {
            f"/repositories/{_id(one)}.git",
            f"/workspace/{a}/feature",
            f"/workspace/{b}/code",
            f"/workspace/{b}/code/.wt/side",
            f"/workspace/{b}/feature",
        }
        await one.open()
        assert await one.agent("git status --porcelain; git -C ../feature branch --show-current") == (
            "feature-one"
        )


async def test_no_other_sessions_entry_goes_though_the_worktree_names_it(tmp_path: Path) -> None:
    async with works(tmp_path, 2) as (one, two):
        await two.agent("echo two >two.txt; git add .")
        bare, id = f"/repositories/{_id(one)}.git", two.session.id[:8]
        entries = f'for each in {bare}/worktrees/*; do grep -q {id} "$each/gitdir" && echo "$each"; done'
        await one.agent(f'echo "gitdir: $({entries})" >.git')
        await put_away(one)
        assert await two.agent("git status --porcelain") == "A  two.txt"
        await one.open()
        await one.agent(f'echo "gitdir: {bare}" >.git')
        await put_away(one)
        assert await two.agent("git status --porcelain") == "A  two.txt"


def _id(work: Work) -> int:
    assert work.session.repository is not None
    return work.session.repository.id
