"""A worktree that nobody has worked in for long goes, its work stays, and the next turn has it again."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest

from bot.core import Policy
from bot.hooks import HookSeconds
from bot.models import Closing, Delivery, Outcome, PullRequest, Verb
from bot.put_away import AGAIN, SOON, PutAway
from bot.sandboxes import Ages
from bot.sessions import Defaults
from bot.workspace import Workspaces
from tests.integration.test_hooks import SETUP, has
from tests.integration.test_several_repositories import API, BOTH, changes_both
from tests.integration.test_turns import is_running, obeys_stop
from tests.integration.test_workspace import answers, does, makes_two_commits
from tests.town import OPEN, Town, town
from tests.world import ScriptedProcess, shell

AFTER = 1000.0
POLICY = Policy(
    defaults=Defaults("acme/web", "lines"),
    allowlist=OPEN,
    ages=Ages(1e9, worktree=AFTER),
    hooks=HookSeconds(60, 60),
)


async def fails_with_changes(agent: ScriptedProcess) -> None:
    """Leaves a commit, a change, a new file and a removal, and breaks off."""
    await agent.take()
    await agent.write_file("gone.txt", "g\n", commit="Work")
    await shell("echo changed >README.md; echo new >'new file'; rm gone.txt", cwd=agent.cwd)
    agent.say(failed="No credit.")


async def put_away(t: Town, after: float = AFTER + 1) -> None:
    t.clock.advance(after)
    await t.core.worktrees.run()


async def test_it_goes_when_its_time_has_come_and_comes_back_with_the_next_turn(tmp_path: Path) -> None:
    looks = does("cat a.txt b.txt >../seen; git status --porcelain >>../seen")
    async with town(tmp_path, [makes_two_commits, looks], POLICY) as t:
        await t.say("one")
        await t.final(1)
        tree = t.box().cwd
        await put_away(t, AFTER - 1)
        assert (tree / "a.txt").exists()
        await put_away(t, 2)
        assert not tree.exists() and not tree.with_name("code.opened").exists()
        assert await shell("git worktree list --porcelain | grep -c ^worktree", cwd=_bare(t)) == "1"
        assert await away(t) == ""  # nothing was left over
        await t.say("go on", addressed=False)
        final = await t.final(2)
        assert final.outcome is Outcome.ANSWERED and not final.notes
        assert tree.with_name("seen").read_text() == "a\nb\n"


async def test_what_was_not_committed_is_kept_and_comes_back(tmp_path: Path) -> None:
    looks = does("git status --porcelain >../seen; cat README.md 'new file' >>../seen", "true")
    async with town(tmp_path, [fails_with_changes, looks], POLICY) as t:
        await t.say("one")
        assert (await t.final(1)).outcome is Outcome.FAILED
        tree = t.box().cwd
        await put_away(t)
        assert not tree.exists()
        await t.say("two", addressed=False)
        await t.final(2)
        assert (
            tree.with_name("seen").read_text() == ' M README.md\n D gone.txt\n?? "new file"\nchanged\nnew\n'
        )
        assert await away(t) == ""


async def test_what_was_put_away_can_be_published_without_a_new_run(tmp_path: Path) -> None:
    looks = does("git status --porcelain >../seen; cat 'new file' >>../seen")
    async with town(tmp_path, [fails_with_changes, looks], POLICY) as t:
        await t.say("one")
        await t.final(1)
        tree = t.box().cwd
        await put_away(t)
        await t.say("", verb=Verb.PUBLISH)
        final = await t.final(2)
        assert final.outcome is Outcome.PUBLISHED
        assert await t.forge.file(final.branch, "new file") == "new"
        await t.say("go on", addressed=False)
        final = await t.final(3)
        assert tree.with_name("seen").read_text() == "new\n"
        assert await away(t) == "" and not final.notes


async def test_a_reset_still_says_what_it_would_cost(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits], POLICY) as t:
        await t.say("one")
        await t.final(1)
        await shell("echo loose >loose", cwd=t.box().cwd)
        await put_away(t)
        assert not t.box().cwd.exists()
        await t.say("", verb=Verb.SANDBOX, options={"do": "reset"})
        await t.until(lambda: any(item.saying.reset for item in t.slack.said))
        asked = [item.saying.text for item in t.slack.said if item.saying.reset]
        assert "one" in asked[0]


async def test_a_branch_that_people_moved_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    heard: list[str] = []
    looks = does("git status --porcelain >../seen", heard=heard)
    async with town(tmp_path, [makes_two_commits, looks], POLICY) as t:
        await t.say("one")
        branch = (await t.final(1)).branch
        tree = t.box().cwd
        await shell("echo loose >loose", cwd=tree)
        await put_away(t)
        bare = _bare(t)
        await shell('git update-ref "refs/heads/$1" "$1~1"', branch, cwd=bare)
        await t.say("go on", addressed=False)
        await t.final(2)
        assert tree.with_name("seen").read_text() == ""
        (told,) = re.findall(rf"refs/sandpiper/stranded/{branch}/[0-9a-f]+", heard[0])
        await shell("echo newer >loose", cwd=tree)
        await put_away(t)  # what was put away before is not lost by it
        assert await shell(f"git show {told}:loose", cwd=bare) == "loose"
        assert await shell(f"git show refs/sandpiper/away/{branch}:loose", cwd=bare) == "newer"


@pytest.mark.parametrize(
    ("left", "why"),
    [
        ("mkdir inner; cd inner; git init -q; echo x >x", "repositories"),
        ("git checkout -q --detach HEAD~1", "branch"),
        (
            "git checkout -q -b theirs HEAD~2; echo b >a.txt; git add .; git commit -qm B;"
            " git checkout -q -; git merge theirs >/dev/null || true",
            "merge",
        ),
        ("rm .git; git init -q", "none of the repository's"),
    ],
)
async def test_what_a_ref_cannot_keep_stays(
    tmp_path: Path, left: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with town(tmp_path, [makes_two_commits], POLICY) as t:
        await t.say("one")
        await t.final(1)
        await shell(left, cwd=t.box().cwd)
        await put_away(t)
        assert t.box().cwd.exists()
        assert why in caplog.text
        caplog.clear()
        await put_away(t, 1)
        assert not caplog.text  # it is not looked at again


async def test_one_that_takes_too_long_is_left_for_a_day_and_keeps_no_other_from_going(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The bot's own worktrees never grow old: it would have its minute of patience, and this one wait for it.
    policy = replace(POLICY, ages=Ages(1e9))
    async with town(tmp_path, [makes_two_commits, makes_two_commits], policy) as t:
        await t.say("one")
        await t.final(1)
        hangs = t.box().cwd
        await t.say("two", thread="t2")
        await t.final(2)
        other = t.box().cwd
        await shell(
            "git config filter.slow.clean 'sleep 1000'; echo '* filter=slow' >.gitattributes", cwd=hangs
        )
        brief = Workspaces(t.core.store, t.forge, tmp_path / "brief", "bot", "bot@example", patience=3.0)
        worktrees = PutAway(t.core.store, t.core.sandboxes, brief, t.clock, AFTER)
        t.clock.advance(AFTER + 1)
        await worktrees.run()
        assert hangs.exists() and not other.exists()
        assert "took longer than 3 s" in caplog.text
        caplog.clear()
        await worktrees.run()
        assert not caplog.text  # it is not looked at again


async def test_one_whose_turn_is_open_stays(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop], POLICY) as t:
        await t.say("one")
        await t.until(lambda: is_running(t))
        await t.until(lambda: (t.box().cwd / "rest.txt").exists())
        await put_away(t)
        assert (t.box().cwd / "rest.txt").exists()


async def test_what_is_half_removed_does_not_come_back(tmp_path: Path) -> None:
    """The bot or its box died in the middle of it."""
    looks = does("git status --porcelain >../seen; cat loose >>../seen", "true")
    async with town(tmp_path, [makes_two_commits, looks], POLICY) as t:
        await t.say("one")
        await t.final(1)
        tree = t.box().cwd
        await shell("echo loose >loose", cwd=tree)
        await put_away(t)
        half = tree.with_name("code.removed")
        half.mkdir()
        (half / "b.txt").write_text("half\n")
        await t.say("go on", addressed=False)
        await t.final(2)
        assert tree.with_name("seen").read_text() == "?? loose\nloose\n" and not half.exists()


async def test_a_setup_runs_again_in_what_came_back(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, answers], POLICY) as t:
        await has(t, SETUP, "echo set up >>../count")
        await t.say("one")
        await t.final(1)
        count = t.box().cwd.with_name("count")
        await put_away(t)
        await t.say("go on", addressed=False)
        await t.final(2)
        assert count.read_text() == "set up\nset up\n"


async def test_a_file_of_what_was_put_away_is_not_there_until_the_next_turn(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits], POLICY) as t:
        await t.say("one")
        await t.final(1)
        await put_away(t)
        await t.say("", verb=Verb.GET, options={"path": "a.txt"})
        await t.until(lambda: any("put away" in note for note in t.slack.notes()))


# pull requests that people are done with


async def closed(t: Town, *pulls: PullRequest, open: bool = False) -> None:
    repositories = {"acme/web": 1, "acme/api": API.id}
    for pull in pulls:
        id = f"{pull.repository}-{pull.number}-{open}"
        closing = Closing(repositories[pull.repository], pull.number, open)
        t.github.told_closed[id] = [closing]
        await t.core.intake.handle(Delivery("github", id, "pull_request", b"", t.clock.now()))


async def test_it_goes_soon_when_its_pull_request_is_done_with_and_comes_back(tmp_path: Path) -> None:
    looks = does("git status --porcelain >../seen; cat loose >>../seen", "true")
    async with town(tmp_path, [makes_two_commits, looks], POLICY) as t:
        await t.say("one")
        first = await t.final(1)
        tree = t.box().cwd
        await shell("echo loose >loose", cwd=tree)
        said = len(t.slack.said)
        assert first.pull_request is not None
        await closed(t, first.pull_request)
        await put_away(t, SOON - 1)
        assert tree.exists(), "people may go on"
        await put_away(t, 2)
        assert not tree.exists() and await away(t)
        assert len(t.slack.said) == said and len(t.slack.finals()) == 1
        await t.say("go on", addressed=False)
        await t.final(2)
        assert tree.with_name("seen").read_text() == "?? loose\nloose\n"


async def test_one_that_is_opened_again_is_needed_again(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits], POLICY) as t:
        await t.say("one")
        pull = (await t.final(1)).pull_request
        assert pull is not None
        await closed(t, pull)
        await closed(t, pull, open=True)
        await put_away(t, SOON + 1)
        assert t.box().cwd.exists()


async def test_closed_while_a_turn_runs_it_goes_soon_after_that(tmp_path: Path) -> None:
    async with town(tmp_path, [makes_two_commits, obeys_stop], POLICY) as t:
        await t.say("one")
        pull = (await t.final(1)).pull_request
        await t.say("two")
        await t.until(lambda: is_running(t))
        assert pull is not None
        await closed(t, pull)
        await put_away(t, SOON + 1)
        assert t.box().cwd.exists()
        await t.say("", verb=Verb.STOP)
        await t.final(2)
        await put_away(t, SOON - 1)
        assert t.box().cwd.exists()
        await put_away(t, 2)
        assert not t.box().cwd.exists()


async def test_a_new_pull_request_needs_it_though_the_last_was_merged(tmp_path: Path) -> None:
    async with town(
        tmp_path, [makes_two_commits, does("echo c >c.txt; git add .; git commit -qm C")], POLICY
    ) as t:
        await t.say("one")
        first = (await t.final(1)).pull_request
        assert first is not None
        await closed(t, first)
        t.forge.states[first.number] = "merged"
        t.forge.pull_requests["merged"] = t.forge.pull_requests.pop(first.head)
        await t.say("two", addressed=False)
        second = (await t.final(2)).pull_request
        assert second is not None and second.number != first.number
        await closed(t, first)  # told late, or again
        await put_away(t, SOON + 1)
        assert t.box().cwd.exists()


async def test_all_of_several_pull_requests_have_to_be_done_with(tmp_path: Path) -> None:
    async with town(tmp_path, [changes_both], POLICY) as t:
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        web, api = (await t.final()).pull_requests
        await closed(t, web)
        await put_away(t, SOON + 1)
        assert t.box().cwd.exists()
        await closed(t, api)
        await put_away(t, SOON + 1)
        assert not t.box().cwd.exists()


async def test_one_of_several_worktrees_that_stays_is_tried_again(tmp_path: Path) -> None:
    async with town(tmp_path, [changes_both], POLICY) as t:
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        await t.final()
        web, api = (t.box().cwd.parent / tree for tree in ("code", "api"))
        await shell("mkdir inner; cd inner; git init -q", cwd=web)
        await put_away(t)
        assert web.exists() and not api.exists()
        await shell("rm -r inner", cwd=web)
        await put_away(t, AGAIN - 1)
        assert web.exists()
        await put_away(t, 2)
        assert not web.exists()


def _bare(t: Town) -> Path:
    return Path(next(iter(t.provider.boxes.values())).repositories, "1.git")


async def away(t: Town) -> str:
    return await shell("git for-each-ref refs/sandpiper/away", cwd=_bare(t))
