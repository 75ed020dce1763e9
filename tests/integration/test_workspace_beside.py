"""What lies beside a session's own files in its worktree and its clone: submodules that hold nothing of an
agent's, what build tools leave, and what is left of worktrees that are gone.

The real bubblewrap and git; the forge is the playground's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_workspace_keeps import NAMED, SUBMODULE, put_away, works

UPSTREAM = f"""
{NAMED}; git config --global protocol.file.allow always
git init -q ~/lib; cd ~/lib; git config uploadpack.allowAnySHA1InWant true
echo l >l.txt; git add .; git commit -qm Lib
git checkout -q -b release; git commit -q --allow-empty -m Release; git tag v1; git checkout -q -
git commit -q --allow-empty -m Newer; cd - >/dev/null
"""
FILLS = {
    "a tag": f"{UPSTREAM} git -C ~/lib branch -qD release; git submodule --quiet add ~/lib lib",
    "shallow": f"""{UPSTREAM} git submodule --quiet add ~/lib lib; git -C lib checkout -q HEAD~1
git commit -qam 'Add lib'; git push -q "$(git rev-parse --git-common-dir)" HEAD:refs/remotes/origin/theirs
rm -rf lib "$(git rev-parse --git-dir)/modules"
git -c url."file://$HOME/lib".insteadOf="$HOME/lib" submodule --quiet update --init --depth 1
test -f "$(git -C lib rev-parse --git-path shallow)" """,
}


@pytest.mark.parametrize("how", FILLS)
async def test_a_submodule_that_was_only_filled_is_no_work(tmp_path: Path, how: str) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(FILLS[how])
        left = await work.workspaces.unfinished(work.session, work.sandbox, work.turn)
        assert not left.nested
        for does in ("git stash -q", "git commit -qm Own"):
            await work.agent(f"cd lib; echo own >>l.txt; git add .; {does}")
            left = await work.workspaces.unfinished(work.session, work.sandbox, work.turn)
            assert left.nested == ("lib",)
            await work.agent("cd lib; git stash drop -q 2>/dev/null || true")
        # What says so is the session's own.
        pushes = 'git push -q "$(git rev-parse --git-common-dir)" "HEAD:refs/remotes/origin/$1"'
        await work.agent(f"git add lib; git commit -qm Up; {pushes}", work.branch)
        left = await work.workspaces.unfinished(work.session, work.sandbox, work.turn)
        assert left.nested == ("lib",)


async def test_what_a_submodule_has_committed_outlives_each_of_its_worktrees(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(f"{SUBMODULE} rm -rf lib")
        fills = "git -c protocol.file.allow=always submodule --quiet update --init; cd lib"
        for name in "PQR":
            await work.agent(
                f'rm -rf lib; {fills}; git commit -q --allow-empty -m {name}; cd ..; rm -rf "$PWD"'
            )
            await work.open()
            work.turn = 1  # a try at the same turn, once more
        looks = "for each in ../code.modules-2*; do git -C $each/lib log -1 --format=%s; done"
        assert await work.agent(looks) == "P\nQ\nR"


async def test_what_a_build_leaves_is_a_repository_only_if_it_is_one(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(
            "echo build/ >.gitignore; git add .; git commit -qm Ignore; mkdir -p build/_deps/x/.git"
        )
        assert await put_away(work) == ""
        await work.open()
        await work.agent("mkdir -p build/_deps; cd build/_deps; git init -q x")
        assert await put_away(work) == "there are repositories in it"


ENTRY = '"$(git rev-parse --git-common-dir)"/worktrees'
OLD = f"find {ENTRY}/x -exec touch -d '2 days ago' {{}} +"
BLOCKED = "git worktree add -q ../again feature 2>/dev/null || echo blocked"


@pytest.mark.parametrize("place", ["/tmp", "/var/tmp"])
async def test_a_worktree_that_went_with_its_program_holds_its_branch_no_more(
    tmp_path: Path, place: str
) -> None:
    async with works(tmp_path, 2) as (one, two):
        await one.agent(f"git worktree add -q {place}/x -b feature")
        await two.open()  # its program may run yet
        assert await two.agent(BLOCKED) == "blocked"
        await one.agent(OLD)
        await two.open()
        assert await two.agent(BLOCKED) == ""


@pytest.mark.parametrize(
    "made",
    [
        "git worktree add -q ../x -b feature",
        "git worktree add -q ~/x -b feature",
        "git worktree add -q --lock /tmp/x -b feature",
        "git worktree add -q --detach /tmp/x",
        f"git worktree add -q /tmp/x -b feature; mkdir -p {ENTRY}/x/modules/lib",
    ],
)
async def test_what_may_be_there_or_holds_more_than_its_branch_keeps_its_entry(
    tmp_path: Path, made: str
) -> None:
    async with works(tmp_path, 2) as (one, two):
        await one.agent(f"{made}; {OLD}")
        await two.open()
        assert await two.agent(f"ls {ENTRY} | grep -x x") == "x"
