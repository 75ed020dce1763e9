"""No work in a workspace is lost by what the bot's git does there: with what agents make beside the branch,
and with what they take away.

The real bubblewrap and git; the forge is the playground's.
"""

from __future__ import annotations

import re
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


# Repositories inside


NAMED = "git config --global user.name Ana; git config --global user.email ana@example.com"
SUBMODULE = f"""
{NAMED}
git init -q ~/lib; cd ~/lib; echo l >l.txt; git add .; git commit -qm Lib; cd - >/dev/null
git -c protocol.file.allow=always submodule --quiet add ~/lib lib; git commit -qm 'Add lib'
"""
IGNORED = "echo inner/ >.gitignore; git add .; git commit -qm Ignore;"


@pytest.mark.parametrize(
    ("left", "there"),
    [
        (f"{SUBMODULE} echo dirty >lib/dirty", "cat lib/dirty"),
        (
            f"{SUBMODULE} cd lib; echo p >p; git add .; git commit -qm P; cd ..; git commit -qam Up",
            "cat lib/p",
        ),
        (
            f"{SUBMODULE} cd lib; git commit -qm P --allow-empty; cd ..; git submodule --quiet deinit -f lib",
            "true",
        ),
        (f"{IGNORED} mkdir -p inner/a/b; cd inner/a/b; git init -q; echo x >x", "cat inner/a/b/x"),
        (f"{IGNORED} git worktree add -q inner/own -b own; echo x >inner/own/x", "cat inner/own/x"),
    ],
)
async def test_a_worktree_with_repositories_inside_stays(tmp_path: Path, left: str, there: str) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(left)
        assert await put_away(work) == "there are repositories in it"
        await work.open()
        await work.agent(there)
        if "deinit" in left:
            await work.agent('git -C "$(git rev-parse --git-dir)/modules/lib" log -1 --format=%s | grep -x P')


async def test_links_are_no_repositories_inside(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent("git init -q ~/lib; ln -s ~/lib lib; ln -s .. up; mkdir empty")
        assert await put_away(work) == ""
        await work.open()
        assert await work.agent("git status --porcelain; test -d ~/lib/.git && readlink lib") == (
            "?? lib\n?? up\n/home/agent/lib"
        )


@pytest.mark.parametrize(
    ("does", "files"),
    [
        ("echo dirty >lib/dirty", ()),
        ("cd lib; echo changed >l.txt", ()),
        ("cd lib; echo p >p; git add .; git commit -qm P", ("lib",)),  # its commit's name, of the files none
        ("cd lib; echo p >p; git add .; git commit -qm P; cd ..; git commit -qam Up", ()),
    ],
)
async def test_work_in_a_submodule_is_not_told_as_kept(
    tmp_path: Path, does: str, files: tuple[str, ...]
) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(SUBMODULE)
        left = await work.workspaces.unfinished(work.session, work.sandbox, work.turn)
        assert (left.files, left.nested) == ((), ())
        await work.agent(does)
        left = await work.workspaces.unfinished(work.session, work.sandbox, work.turn)
        assert (left.files, left.nested) == (files, ("lib",))
        assert await work.workspaces.settle(work.session, work.sandbox, work.turn) == files
        assert await work.agent("cat lib/l.txt; ls lib | wc -l") in ("l\n2", "changed\n1")


async def test_a_submodules_work_counts_as_only_here(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(SUBMODULE)
        await work.publish()
        assert not await work.workspaces.unpublished(work.session, work.sandbox)
        await work.agent("echo dirty >lib/dirty")
        assert await work.workspaces.unpublished(work.session, work.sandbox)
        await work.agent("cd lib; git add .; git commit -qm Dirty; git checkout -q --detach HEAD~1")
        assert await work.workspaces.unpublished(work.session, work.sandbox)


async def test_putting_head_back_leaves_a_submodule_as_it_is(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(f"{SUBMODULE} git config submodule.recurse true; echo changed >lib/l.txt")
        await work.agent("echo x >x; git add x; git bisect start")
        await work.workspaces.settle(work.session, work.sandbox, work.turn)
        assert await work.agent("cat lib/l.txt") == "changed"


async def test_what_a_submodule_has_committed_outlives_its_worktree(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(f'{SUBMODULE} cd lib; git commit -q --allow-empty -m P; cd ..; rm -rf "$PWD"')
        await work.open()
        assert await work.agent("git -C ../code.modules-2/lib log -1 --format=%s") == "P"


# Repositories that became files


BECAME_FILES = r"""
for each in v 'd/-odd
 name'; do mkdir -p "$each/deep"; cd "$each"; git init -q; echo f >f; echo g >deep/g
git add .; git commit -qm Inner; cd "$OLDPWD"; done
mkdir later; cd later; git init -q; git commit -q --allow-empty -m Inner; cd ..
git -c advice.addEmbeddedRepo=false add .
"""
ITS_FILES = "cat v/f v/deep/g d/-odd*/f d/-odd*/deep/g later/h"


@pytest.mark.parametrize("commits", ["", "git commit -qm Links;"])
@pytest.mark.parametrize("then", ["kept", "put away", "settled", "committed"])
async def test_what_was_staged_as_a_repository_is_kept_as_the_files_that_it_is_now(
    tmp_path: Path, then: str, commits: str
) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(NAMED + BECAME_FILES + commits)
        await work.agent("find . -mindepth 2 -name .git -exec rm -rf {} +; echo h >later/h")
        left = await work.workspaces.unfinished(work.session, work.sandbox, work.turn)
        assert (set(left.files), left.nested) == ({"v", "d/-odd\n name", "later"}, ())
        assert await work.workspaces.unpublished(work.session, work.sandbox)
        ref = "HEAD"
        if then == "kept":
            ref = await kept(work)
        elif then == "put away":
            assert await put_away(work) == ""
            await work.open()
            assert await work.agent(ITS_FILES) == "f\ng\nf\ng\nh"
            left = await work.workspaces.unfinished(work.session, work.sandbox, work.turn)
            assert left.files and not left.nested
            ref = await kept(work)
        elif then == "settled":
            await work.agent(
                "git checkout -q --detach; git commit -q --allow-empty -m Past; git bisect start"
            )
            await work.workspaces.settle(work.session, work.sandbox, work.turn)
            ref = "refs/sandpiper/kept/turn-1"
        else:
            await work.workspaces.commit_all(work.session, work.sandbox, "All")
            left = await work.workspaces.unfinished(work.session, work.sandbox, work.turn)
            assert not left.askable
        assert await work.agent('git ls-tree -r -z --name-only "$1" | tr "\\0" "|"', ref) == (
            "README.md|d/-odd\n name/deep/g|d/-odd\n name/f|later/h|src/app.py|v/deep/g|v/f|"
        )


@pytest.mark.parametrize("ignored", [False, True])
async def test_a_submodule_that_is_not_filled_stays_one(tmp_path: Path, ignored: bool) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(f"{SUBMODULE} git submodule --quiet deinit -f lib")
        if ignored:  # a build tool's
            await work.agent(
                "echo out/ >.gitignore; git add .; git commit -qm Ignore; mkdir lib/out; >lib/out/x"
            )
        left = await work.workspaces.unfinished(work.session, work.sandbox, work.turn)
        assert not left.askable
        await work.agent("echo new >new.txt")
        assert await work.agent('git diff-tree -r --name-status HEAD "$1"', await kept(work)) == "A\tnew.txt"
        await work.workspaces.commit_all(work.session, work.sandbox, "All")
        assert await work.agent("git ls-tree HEAD lib | cut -c1-6; git show --format= --name-status") == (
            "160000\nA\tnew.txt"
        )


# Without the mark beside it, which an agent can delete


UNMARKED = "rm ../code.opened;"
LOOSE = "echo new >new.txt; echo changed >README.md; mkdir -p build; echo b >build/b; git add -f build;"
SEES = "git log -1 --format=%s; cat new.txt README.md build/b"


@pytest.mark.parametrize("then", ["opened", "put away"])
async def test_a_worktree_without_its_mark_keeps_what_is_in_it(tmp_path: Path, then: str) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(f"echo a >a; git add a; git commit -qm Mine; {LOOSE} {UNMARKED}")
        if then == "put away":
            assert await put_away(work) == ""
        assert not (await work.open()).notes
        assert await work.agent(SEES) == "Mine\nnew\nchanged\nb"


async def test_one_that_is_not_on_its_branch_is_told_where_it_is(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent("git checkout -q --detach; git commit -q --allow-empty -m Detached")
        await work.agent(f"{LOOSE} {UNMARKED}")
        assert await put_away(work) == "it is not on its branch"
        (note,) = (await work.open()).notes
        (ref,) = re.findall(r"refs/sandpiper/stranded/\S+[0-9a-f]", note)
        assert await work.agent('git log -1 --format=%s "$1~"; git show "$1:new.txt"', ref) == "Detached\nnew"


@pytest.mark.parametrize("how", ["mkdir inner; cd inner; git init -q", "rm .git", "rm .git; git init -q"])
async def test_what_no_ref_can_keep_is_moved_aside(tmp_path: Path, how: str) -> None:
    async with works(tmp_path) as (work,):
        await work.agent(f"{LOOSE} {UNMARKED} {how}")
        assert await put_away(work)
        for place in ("code.turn-2", "code.turn-2+"):
            (note,) = (await work.open()).notes
            work.turn = 1  # a try at the same turn, once more
            assert f"/{place}." in note
            there = await work.agent(f"cd ../{place}; cat new.txt README.md build/b; test ! -f .git")
            assert there == "new\nchanged\nb"
            await work.agent(f"{LOOSE} {UNMARKED} {how}")


async def test_a_checkout_that_was_broken_off_brings_nothing_back(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent("for each in 1 2 3; do echo $each >$each; done; git add .; git commit -qm Files")
        await work.agent(f"rm $(git rev-parse --git-path index); echo half >2; rm 3; {UNMARKED}")
        await work.open()
        assert await work.agent("git status --porcelain; cat 1 2 3") == "1\n2\n3"


async def test_what_is_read_only_is_put_away_too(tmp_path: Path) -> None:
    async with works(tmp_path) as (work,):
        await work.agent("echo mod/ >.gitignore; mkdir -p mod/a; echo x >mod/a/x; chmod -R a-w mod")
        assert await put_away(work) == ""
        await work.open()
        await work.agent("test ! -e mod; test ! -e ../code.removed; cat .gitignore")
