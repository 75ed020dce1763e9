"""What an agent may leave in its worktree, and what is published of it: the session's branch, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bot.core import Policy
from bot.driver import Deadlines
from bot.errors import BundleRefused, ForgeError, SandboxUnreachable, WorkspaceError
from bot.models import ExecResult, Final, Launch, Outcome, Verb
from bot.sessions import Defaults
from bot.workspace import Workspaces
from bot.workspace_scripts import CHANGED, OPEN
from tests.integration.test_turns import is_running, obeys_stop
from tests.town import ANA, Town, town
from tests.town import OPEN as OPEN_TO
from tests.world import HostSandbox, Script, ScriptedProcess, shell


async def makes_two_commits(agent: ScriptedProcess) -> None:
    await agent.take()
    agent.say(token="tok-1")
    await agent.write_file("a.txt", "a\n", commit="A")
    await agent.write_file("b.txt", "b\n", commit="B")
    agent.say(done="Two commits.")


async def answers(agent: ScriptedProcess) -> None:
    await agent.take()
    agent.say(done="It is 42.")


def does(script: str, *later: str, heard: list[str] | None = None) -> Script:
    """An agent that runs a script, and another one each time that it is asked again."""

    async def play(agent: ScriptedProcess) -> None:
        for each in (script, *later):
            said = await agent.take()
            if heard is not None:
                heard.append(said["prompt"])
            await shell(each, cwd=agent.cwd)
            agent.say(done="Done.")

    return play


async def subjects(t: Town, branch: str) -> list[str]:
    return (await shell('git log --format=%s "$1"', branch, cwd=t.forge.bare)).split("\n")


async def pushed(t: Town, branch: str, name: str) -> None:
    """Somebody pushes a commit that adds a file."""
    await shell(
        """
        rm -rf theirs; git clone -q web.git theirs; cd theirs
        git checkout -q "$1" 2>/dev/null || git checkout -q -b "$1"
        echo "$2" >"$2"; git add .; git commit -qm "$2"; git push -q origin "$1"
        """,
        branch,
        name,
        cwd=t.forge.root,
    )


Before = Callable[[HostSandbox, Launch], Awaitable[None]]


def before_each_run(t: Town, happens: Before) -> None:
    """Have something happen before the sandboxes of this town run a program of the bot's."""

    class Interposed(HostSandbox):
        async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
            await happens(self, launch)
            return await super().run(launch, stdin=stdin, timeout=timeout)

    t.provider.make = Interposed


def notes(final: Final) -> str:
    return "\n".join(final.notes)


# Half a checkout


async def test_a_checkout_that_was_broken_off_is_made_anew(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits]) as t:
        broken: list[Path] = []

        async def run(sandbox: HostSandbox, launch: Launch) -> None:
            if launch.argv[2] == OPEN and not broken:
                tree = Path(launch.argv[5])
                broken.append(tree)
                await HostSandbox.run(sandbox, launch)
                (tree / "README.md").unlink()  # as a kill in the middle leaves it
                tree.with_name("code.opened").unlink()
                index = await shell("git rev-parse --git-path index.lock", cwd=tree)
                Path(tree, index).touch()
                raise SandboxUnreachable("killed")

        before_each_run(t, run)
        await t.say("one")
        final = await t.after_time(1, 1.0)
        assert broken and final.outcome is Outcome.PUBLISHED and not final.notes
        assert await t.forge.file(final.branch, "README.md") == "hello"


# HEAD is not the branch


async def test_looking_at_the_base_at_the_end_does_not_hide_the_work(tmp_path: Path) -> None:
    look = does(
        """
        echo a >a; git add a; git commit -qm A
        git checkout -q --detach refs/remotes/origin/main
        """,
        "true",
    )
    async with town(tmp_path, [look]) as t:
        await t.say("one")
        final = await t.final()
        assert final.outcome is Outcome.PUBLISHED
        assert await subjects(t, final.branch) == ["A", "first"]
        assert "not on" in notes(final)


async def test_a_branch_that_the_agent_looks_at_is_not_published_in_place_of_its_own(tmp_path: Path) -> None:
    heard: list[str] = []
    look = does("git checkout -q --detach refs/remotes/origin/feature", "true", heard=heard)
    async with town(tmp_path, [makes_two_commits, look]) as t:
        await pushed(t, "feature", "F")
        await t.say("one")
        branch = (await t.final(1)).branch
        before = await subjects(t, branch)
        await t.say("look at feature", addressed=False)
        final = await t.final(2)
        assert final.outcome is Outcome.ANSWERED and await subjects(t, branch) == before
        assert branch in heard[1] and "check it out" in heard[1]


async def test_a_question_about_a_branch_that_is_ahead_opens_no_pull_request_of_it(tmp_path: Path) -> None:
    async with town(tmp_path, [does("git checkout -q --detach refs/remotes/origin/feature", "true")]) as t:
        await pushed(t, "feature", "F")
        await t.say("what is in feature?")
        assert (await t.final()).outcome is Outcome.ANSWERED and not t.forge.pull_requests


@pytest.mark.parametrize(
    "how", ["git checkout -q --detach", "git checkout -q -b other", "git branch -m other"]
)
async def test_commits_on_top_of_the_branch_count_wherever_head_is(tmp_path: Path, how: str) -> None:
    async with town(tmp_path, [does(f"{how}; echo a >a; git add a; git commit -qm A")]) as t:
        await t.say("one")
        final = await t.final()
        assert final.outcome is Outcome.PUBLISHED and not final.notes
        assert await subjects(t, final.branch) == ["A", "first"]


async def test_the_next_turn_starts_on_the_branch(tmp_path: Path) -> None:
    away = "echo a >a; git add a; git commit -qm A; git checkout -q --detach refs/remotes/origin/main"
    more = "git symbolic-ref HEAD; cat a; echo c >c; git add c; git commit -qm C"
    async with town(tmp_path, [does(away, "true"), does(more)]) as t:
        await t.say("one")
        await t.final(1)
        await t.say("more", addressed=False)
        final = await t.final(2)
        assert await subjects(t, final.branch) == ["C", "A", "first"]


# Operations in progress


REBASE = """
echo mine >README.md; git commit -qam Mine
echo z >z; git add z; git commit -qm Z
own=$(git symbolic-ref --short HEAD)
git checkout -q -b theirs HEAD~2; echo theirs >README.md; git commit -qam Theirs
git checkout -q "$own"
"""


@pytest.mark.parametrize("what", ["rebase", "merge", "cherry-pick"])
async def test_what_is_half_done_is_asked_for_then_left_out(tmp_path: Path, what: str) -> None:
    heard: list[str] = []
    play = does(f"{REBASE} git {what} theirs >/dev/null 2>&1 || true", "true", heard=heard)
    async with town(
        tmp_path, [play, does('test -z "$(git status --porcelain)"; git log -1 --format=%s')]
    ) as t:
        await t.say("one")
        final = await t.final()
        assert f"A {what} is still in progress" in heard[1]
        assert final.outcome is Outcome.PUBLISHED and f"A {what} was still in progress" in notes(final)
        assert await subjects(t, final.branch) == ["Z", "Mine", "first"]
        assert await t.forge.file(final.branch, "README.md") == "mine"
        kept = f"refs/sandpiper/kept/turn-{t.box().key.split('-')[1]}:README.md"
        assert "<<<<" in await shell(f"git show {kept}", cwd=t.box().cwd)
        await t.say("more", addressed=False)
        assert (await t.final(2)).outcome is Outcome.ANSWERED


@pytest.mark.parametrize("where", ["git rebase theirs || true", "git checkout -q --detach HEAD~2"])
async def test_a_stop_in_the_middle_of_it_offers_the_branch_alone(tmp_path: Path, where: str) -> None:
    async def is_stopped(agent: ScriptedProcess) -> None:
        await agent.take()
        await shell(f"{REBASE} {where}; echo half >half.txt", cwd=agent.cwd)
        agent.say(text="working")
        while "interrupt" not in await agent.heard():
            pass
        agent.say(cancelled=True)

    heard: list[str] = []
    async with town(tmp_path, [is_stopped, does("true", "true", heard=heard)]) as t:
        await t.say("one")
        await t.until(lambda: len(t.provider.boxes) > 0 and is_running(t))
        await t.until(lambda: (t.box().cwd / "half.txt").exists())
        await t.say("", verb=Verb.STOP)
        final = await t.final(1)
        assert "I left that out" in notes(final) and "refs/sandpiper/kept/turn-" in notes(final)
        assert "`half.txt`" in notes(final) and "2 commits" in notes(final)
        await t.say("", verb=Verb.PUBLISH)
        final = await t.final(2)
        assert await subjects(t, final.branch) == ["Z", "Mine", "first"]
        await t.say("go on", addressed=False)
        await t.final(3)
        on = await shell("git symbolic-ref --short HEAD", cwd=t.box().cwd)
        assert on == final.branch
        assert ("A rebase is in progress" in heard[0]) is ("rebase" in where)


# Commits taken back


async def test_a_published_commit_can_be_taken_back(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits, does("git reset -q --hard HEAD~1")]) as t:
        await t.say("one")
        await t.final(1)
        await t.say("drop the last one", addressed=False)
        final = await t.final(2)
        assert final.outcome is Outcome.PUBLISHED
        assert await subjects(t, final.branch) == ["A", "first"]


async def test_when_all_commits_are_taken_back_the_pull_request_is_mentioned(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits, does("git reset -q --hard HEAD~2")]) as t:
        await t.say("one")
        await t.final(1)
        await t.say("drop it all", addressed=False)
        final = await t.final(2)
        assert final.outcome is Outcome.ANSWERED and "close it" in notes(final)


# What helps and what doesn't


async def test_commits_that_can_never_be_pushed_are_not_offered_for_publishing(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits]) as t:
        t.forge.trouble.append(BundleRefused("It changes a workflow.", "Tell me to leave it alone."))
        await t.say("one")
        final = await t.final()
        assert final.outcome is Outcome.UNPUBLISHED
        assert "publish" not in final.mend and "what to change" in final.mend


# Locks that nobody holds


async def test_a_lock_of_a_killed_agent_does_not_stand_in_the_way(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop, does("git add -A; git commit -qm More")]) as t:
        await t.say("one")
        await t.until(lambda: (len(t.provider.boxes) > 0) and is_running(t))
        await t.until(lambda: (t.box().cwd / "rest.txt").exists())
        for name in ("index", "HEAD"):
            lock = await shell(f"git rev-parse --git-path {name}.lock", cwd=t.box().cwd)
            Path(t.box().cwd, lock).touch()
        await t.say("", verb=Verb.STOP)
        assert "Say `publish`" in notes(await t.after_time(1, 1.0))
        await t.say("", verb=Verb.PUBLISH)
        final = await t.after_time(2, 1.0)
        assert final.outcome is Outcome.PUBLISHED


async def test_a_lock_of_a_killed_fetch_does_not_stand_in_the_way(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits, makes_two_commits]) as t:
        await t.say("one")
        await t.final(1)
        bare = Path(next(iter(t.provider.boxes.values())).repositories, "1.git")
        for name in ("refs/remotes/origin/main.lock", "packed-refs.lock", "config.lock"):
            Path(bare, name).parent.mkdir(parents=True, exist_ok=True)
            Path(bare, name).touch()
        await pushed(t, "main", "F")
        await t.say("two", thread="t2")
        assert (await t.after_time(2, 0.1)).outcome is Outcome.PUBLISHED


# The worktree is gone, or no worktree of ours


@pytest.mark.parametrize("how", ['rm -rf "$PWD"', "rm .git; git init -q; echo x >x"])
async def test_what_was_committed_is_published_though_the_worktree_is_gone(tmp_path: Path, how: str) -> None:
    async with town(tmp_path, [does(f"echo a >a; git add a; git commit -qm A; {how}"), answers]) as t:
        await t.say("one")
        final = await t.final()
        assert final.outcome is Outcome.PUBLISHED and "deleted or replaced" in notes(final)
        assert await subjects(t, final.branch) == ["A", "first"]
        await t.say("what now?", addressed=False)
        assert (await t.final(2)).text == "It is 42."
        assert (t.box().cwd / "a").exists()


async def test_work_of_a_turn_that_failed_is_mentioned_by_one_that_only_answers(tmp_path: Path) -> None:
    async def commits_and_fails(agent: ScriptedProcess) -> None:
        await agent.take()
        await agent.write_file("a.txt", "a\n", commit="A")
        agent.say(failed="No credit.")

    async with town(tmp_path, [commits_and_fails, answers]) as t:
        await t.say("one")
        assert (await t.final(1)).outcome is Outcome.FAILED
        await t.say("what now?", addressed=False)
        final = await t.final(2)
        assert final.outcome is Outcome.ANSWERED and "unpublished work" in notes(final)
        await t.say("", verb=Verb.PUBLISH)
        assert (await t.final(3)).outcome is Outcome.PUBLISHED


async def test_a_branch_without_a_common_history_is_said_in_words(tmp_path: Path) -> None:
    orphan = """
    own=$(git symbolic-ref --short HEAD)
    git checkout -q --orphan fresh; echo q >q; git add .; git commit -qm Fresh; git branch -M fresh "$own"
    """
    async with town(tmp_path, [does(orphan, "true"), answers]) as t:
        await t.say("one")
        final = await t.final()
        assert final.outcome is Outcome.UNPUBLISHED and "no common history" in final.reason
        await t.say("what now?", addressed=False)
        assert "no common history" in (await t.final(2)).reason


# The end of a turn can be waited for and stopped


async def test_a_sandbox_that_is_away_for_a_moment_at_the_end_fails_nothing(tmp_path: Path) -> None:
    away: list[str] = []

    async def run(sandbox: HostSandbox, launch: Launch) -> None:
        if launch.argv[2] == CHANGED and len(away) < 2:
            away.append("once")
            raise SandboxUnreachable("It does not answer.")

    async with town(tmp_path, [makes_two_commits]) as t:
        before_each_run(t, run)
        await t.say("one")
        assert (await t.after_time(1, 1.0)).outcome is Outcome.PUBLISHED
    assert len(away) == 2


async def test_a_sandbox_that_stays_away_at_the_end_leaves_the_work_unpublished(tmp_path: Path) -> None:
    async def run(sandbox: HostSandbox, launch: Launch) -> None:
        if launch.argv[2] == CHANGED:
            raise SandboxUnreachable("It does not answer.")

    async with town(tmp_path, [makes_two_commits]) as t:
        before_each_run(t, run)
        await t.say("one")
        final = await t.after_time(1, 1.0)
    assert final.outcome is Outcome.UNPUBLISHED and final.text == "Two commits."


@pytest.mark.parametrize("ends", ["stop", "deadline"])
async def test_a_stuck_end_can_be_stopped_and_has_a_deadline(tmp_path: Path, ends: str) -> None:
    inside, never = asyncio.Event(), asyncio.Event()

    async def run(sandbox: HostSandbox, launch: Launch) -> None:
        if launch.argv[2] == CHANGED:
            inside.set()
            await never.wait()

    async with town(tmp_path, [makes_two_commits]) as t:
        before_each_run(t, run)
        await t.say("one")
        await inside.wait()
        if ends == "stop":
            await t.say("", verb=Verb.STOP)
        final = await t.after_time(1, 5.0)
    assert final.outcome is (Outcome.STOPPED if ends == "stop" else Outcome.UNPUBLISHED)


# Names that change


async def test_a_renamed_default_branch_is_followed_and_told(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits, does("echo c >c; git add c; git commit -qm C")]) as t:
        await t.say("one")
        await t.final(1)
        await shell("git branch -m main trunk", cwd=t.forge.bare)
        await t.say("more", addressed=False)
        final = await t.final(2)
        assert final.outcome is Outcome.PUBLISHED
        assert t.forge.pull_requests[final.branch].base == "trunk"
        await t.until(lambda: any("go on with trunk" in str(picture.rows) for picture in t.slack.pictures))


async def test_a_renamed_repository_does_not_move_the_worktree(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits, answers, answers]) as t:
        await t.say("one")
        await t.final(1)
        before = t.box().cwd
        t.forge.renamed = "acme/website"
        await t.say("learn its new name", thread="t2")
        await t.final(2)
        await t.say("again", addressed=False)
        assert (await t.final(3)).outcome is Outcome.ANSWERED
        assert t.box().cwd == before


# Repositories inside of repositories


@pytest.mark.parametrize("inner", ["git init -q", "git init -q; echo x >x; git add .; git commit -qm Inner"])
async def test_a_nested_repository_is_named_and_not_taken(tmp_path: Path, inner: str) -> None:
    heard: list[str] = []
    play = does(f"echo a >a; mkdir app; cd app; {inner}; echo y >y", "true", heard=heard)
    async with town(tmp_path, [play]) as t:
        await t.say("one")
        final = await t.final()
        assert "- app" in heard[1] and "git repositories of their own" in heard[1]
        assert (
            "`app`" in notes(final)
            and await shell(f"git ls-tree -r --name-only {final.branch}", cwd=t.forge.bare) == "README.md\na"
        )


@pytest.mark.parametrize("ends", ["stop", "failure"])
async def test_a_turn_that_breaks_off_names_what_it_keeps_and_what_it_leaves_out(
    tmp_path: Path, ends: str
) -> None:
    async def breaks_off(agent: ScriptedProcess) -> None:
        await agent.take()
        await agent.write_file("done.txt", "done\n", commit="Done")
        await shell(
            """
            for each in 1 2 3 4 5 6 7 8 9; do echo $each >loose-$each.txt; done
            mkdir app; cd app; git init -q; echo y >y
            """,
            cwd=agent.cwd,
        )
        if ends == "failure":
            agent.say(failed="The model is not there.")
            return
        agent.say(text="working")
        while "interrupt" not in await agent.heard():
            pass
        agent.say(cancelled=True)

    async with town(tmp_path, [breaks_off]) as t:
        await t.say("one")
        if ends == "stop":
            await t.until(lambda: len(t.provider.boxes) > 0 and is_running(t))
            await t.until(lambda: (t.box().cwd / "app" / "y").exists())
            await t.say("", verb=Verb.STOP)
        final = await t.final()
        assert final.outcome is (Outcome.STOPPED if ends == "stop" else Outcome.FAILED)
        assert "`loose-1.txt`" in notes(final) and "and 1 more" in notes(final)
        ref = f"refs/sandpiper/kept/turn-{t.box().key.split('-')[1]}"
        assert f"`{ref}` (2 commits)" in notes(final)
        assert "git repositories of their own: `app`" in notes(final)
        kept = await shell(f"git ls-tree -r --name-only {ref}", cwd=t.box().cwd)
        assert "loose-9.txt" in kept and "app" not in kept


# Large ones


@pytest.mark.parametrize(
    ("prepare", "publish", "least"), [(3600.0, 300.0, 3600.0), (60.0, 900.0, 900.0), (0.0, 300.0, 86400.0)]
)
async def test_git_in_the_sandbox_has_as_long_as_the_deadlines_say(
    tmp_path: Path, prepare: float, publish: float, least: float
) -> None:
    given: list[float] = []

    class Timed(HostSandbox):
        async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
            if launch.argv[2] in (OPEN, CHANGED):
                given.append(timeout)
            return await super().run(launch, stdin=stdin, timeout=timeout)

    policy = Policy(
        defaults=Defaults("acme/web", "lines"),
        allowlist=OPEN_TO,
        deadlines=Deadlines(prepare=prepare, publish=publish),
    )
    async with town(tmp_path, [makes_two_commits], policy) as t:
        t.provider.make = Timed
        await t.say("one")
        await t.final()
    assert given and min(given) >= least


async def test_commits_that_are_too_large_say_what_to_do(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits]) as t:
        t.forge.trouble.append(ForgeError("GitHub is away."))
        await t.say("one")
        assert (await t.final()).outcome is Outcome.UNPUBLISHED
        (session,) = await t.store.worked_sessions((await t.store.person(ANA)).id)
        box = next(iter(t.provider.boxes.values()))
        workspaces = Workspaces(t.store, t.forge, tmp_path, "bot", "bot@example.com", largest=100)
        outgoing = await workspaces.outgoing(session, box)
        assert outgoing is not None
        with pytest.raises(WorkspaceError, match="Large files belong in Git LFS") as refused:
            await workspaces.bundle(session, box, outgoing)
        assert not refused.value.repeatable and not list(tmp_path.glob("out-*"))
        roomy = Workspaces(t.store, t.forge, tmp_path, "bot", "bot@example.com")
        assert (await roomy.bundle(session, box, outgoing)).stat().st_size > 100


async def test_submodules_and_lfs_are_told_of_once(tmp_path: Path) -> None:
    heard: list[str] = []
    async with town(tmp_path, [does("true", heard=heard), does("true", heard=heard)]) as t:
        await pushed(t, "main", ".gitmodules")
        await shell(
            """
            cd theirs; mkdir art; echo '*.png filter=lfs diff=lfs' >art/.gitattributes
            git add .; git commit -qm LFS; git push -q origin main
            """,
            cwd=t.forge.root,
        )
        await t.say("one")
        await t.final(1)
        await t.say("two", addressed=False)
        await t.final(2)
        told = [row.title for picture in t.slack.pictures[-1:] for row in picture.rows]
        assert not any("submodules" in title or "LFS" in title for title in told)
    assert "submodules" in heard[0] and "Git LFS" in heard[0]
    assert "submodules" not in heard[1] and "Git LFS" not in heard[1]
