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


# What the index knows


async def kept(work: Work) -> str:
    """What a turn that was stopped keeps, as a ref."""
    return (await work.workspaces.keep(work.session, work.sandbox, work.turn)).ref


async def test_what_is_staged_though_ignored_is_kept_and_comes_back_so(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent("echo build/ >.gitignore; git add .; git commit -qm Ignore")
        await work.agent("mkdir build; echo precious >build/out.bin; echo rest >build/rest.bin")
        await work.agent("git add -f build/out.bin; echo later >build/out.bin; echo new >new.txt")
        ref = await kept(work)
        assert await work.agent('git show "$1:build/out.bin"', ref) == "later"
        for _ in range(2):
            assert await put_away(work) == ""
            await work.open()
            assert await work.agent("cat build/out.bin; ls build; git status --porcelain") == (
                "later\nout.bin\nA  build/out.bin\n?? new.txt"
            )


async def test_what_is_staged_though_ignored_is_kept_when_head_is_put_back(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent("echo build/ >.gitignore; git add .; git commit -qm Ignore")
        await work.agent("git checkout -q --detach HEAD~1; mkdir build; echo precious >build/out.bin")
        await work.agent("echo build/ >.gitignore; git add -f .gitignore build/out.bin")
        await work.workspaces.settle(work.session, work.sandbox, work.turn)
        there = "git ls-tree -r --name-only refs/sandpiper/kept/turn-1 | grep build; git symbolic-ref HEAD"
        assert await work.agent(there) == f"build/out.bin\nrefs/heads/{work.branch}"


UNMERGED = """
echo one >both; echo one >theirs-gone; echo one >ours-gone; git add .; git commit -qm One
echo stashed >both; git rm -q theirs-gone; echo stashed >ours-gone; git stash -q
echo mine >both; echo mine >theirs-gone; git rm -q ours-gone; git commit -qam Mine
git stash pop >/dev/null 2>&1 || true
git ls-files -u | wc -l
"""


async def test_unmerged_files_are_kept_as_they_lie_there(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        assert int(await work.agent(UNMERGED)) > 5
        before = await work.agent("sha1sum both *gone")
        assert await put_away(work) == ""
        await work.open()
        assert await work.agent("sha1sum both *gone") == before
        assert "<<<<<<<" in await work.agent("cat both")


@pytest.mark.parametrize("how", ["rm $index", "echo nonsense >$index", "rm $index; mkdir $index"])
async def test_work_is_kept_though_the_index_is_lost(tmp_path: Path, how: str) -> None:
    async with works(tmp_path) as (work,):
        await work.agent("echo new >new.txt; echo changed >README.md")
        await work.agent(f"index=$(git rev-parse --git-path index); {how}")
        ref = await kept(work)
        there = 'git --git-dir="$(git rev-parse --git-common-dir)" diff-tree --name-status "$1~" "$1"'
        assert await work.agent(there, ref) == "M\tREADME.md\nA\tnew.txt"


async def test_what_git_was_told_not_to_look_at_is_kept(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent("for each in a s both; do echo 1 >$each; done; git add .; git commit -qm Files")
        await work.agent(
            "git update-index --assume-unchanged a both; git update-index --skip-worktree s both"
        )
        await work.agent("for each in a s both; do echo 2 >$each; done; git status --porcelain")
        assert await put_away(work) == ""
        await work.open()
        assert await work.agent("cat a s both") == "2\n2\n2"


async def test_a_sparse_worktree_keeps_what_is_in_it_and_what_is_not(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent("mkdir d e; echo d >d/x; echo e >e/y; git add .; git commit -qm Files")
        await work.agent("git sparse-checkout set d; test ! -e e; echo more >>d/x")
        await work.agent("mkdir -p e; echo new >e/new; echo odd >odd.txt")
        ref = await kept(work)
        assert await work.agent('git diff-tree -r --name-status HEAD "$1"', ref) == (
            "M\td/x\nA\te/new\nA\todd.txt"
        )
