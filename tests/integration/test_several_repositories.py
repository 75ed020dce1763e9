"""A session that works on several repositories: a worktree, a branch and a pull request in each."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from bot.access import Allowlist
from bot.core import Policy
from bot.errors import PushRefused, StoreUnavailable, WorkspaceError
from bot.models import Launch, Outcome, Repository, TurnState, Verb
from bot.ports import Store
from bot.sandboxes import Ages
from bot.sessions import Defaults
from bot.workspace_scripts import WORK
from storage.dispatch import QueueDispatcher
from tests.integration.test_workspace import before_each_run
from tests.town import ANA, OPEN, town
from tests.world import HostSandbox, ScriptedProcess, shell

API = Repository(2, "acme/api", "main", False, 11)
ODD = Repository(4, "acme/.code.opened", "main", False, 11)
DOCS = Repository(3, "acme/code", "main", True, 11)  # as the first worktree's directory is called
BOTH = {"repo": "acme/web,acme/api"}


async def commit(agent: ScriptedProcess, tree: str, text: str) -> None:
    script = 'echo "$1" >hello.txt && git add -A && git commit -qm "Say $1"'
    await shell(script, text, cwd=agent.cwd.parent / tree)


async def changes_both(agent: ScriptedProcess) -> None:
    await agent.take()
    await commit(agent, "code", "web")
    await commit(agent, "api", "api")
    agent.say(done="Both say it.")


async def changes_only_the_second(agent: ScriptedProcess) -> None:
    await agent.take()
    await commit(agent, "api", "once more")
    agent.say(done="Done.")


async def waits(agent: ScriptedProcess) -> None:
    await agent.take()
    await asyncio.Event().wait()


async def test_each_repository_gets_its_own_pull_request(tmp_path: Path) -> None:
    heard: list[str] = []

    async def hears(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["prompt"])
        await commit(agent, "code", "web")
        await commit(agent, "api", "api")
        agent.say(done="Both say it.")

    async with town(tmp_path, [hears]) as t:
        await t.forge.add(API)
        assert await t.say("say hello everywhere", options=BOTH) == "started"
        final = await t.final()
        assert final.outcome is Outcome.PUBLISHED
        assert [one.repository for one in final.pull_requests] == ["acme/web", "acme/api"]
        assert await t.forge.file(final.branch, "hello.txt") == "web"
        assert await t.forge.file(final.branch, "hello.txt", API) == "api"
        web, api = final.pull_requests
        assert f"Goes with {web.url}" in t.forge.bodies[f"acme/api:{final.branch}"]
        session = await t.store.session_of("github:2:" + str(api.number))
        assert session is not None and session == await t.store.session_of("github:1:" + str(web.number))
        assert [one.published != "" for one in session.each()] == [True, True]
    assert "acme/web" in heard[0] and "- acme/api in " in heard[0]


async def test_only_what_changed_is_published_and_later_turns_go_on(tmp_path: Path) -> None:
    async with town(tmp_path, [changes_both, changes_only_the_second]) as t:
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        first = await t.final()
        await t.say("once more", addressed=False)
        second = await t.final(2)
        assert [one.repository for one in second.pull_requests] == ["acme/api"]
        assert second.pull_requests[0].number == first.pull_requests[1].number
        assert not second.pull_requests[0].created
        assert await t.forge.file(second.branch, "hello.txt", API) == "once more"
        assert await t.forge.file(second.branch, "hello.txt") == "web"


async def test_what_is_refused_in_one_does_not_hold_up_the_other(tmp_path: Path) -> None:
    async with town(tmp_path, [changes_both]) as t:
        await t.forge.add(API)
        t.forge.trouble = [PushRefused("The branch is protected.", "Unprotect it.")]
        await t.say("say hello everywhere", options=BOTH)
        final = await t.final()
        assert final.outcome is Outcome.UNPUBLISHED
        assert "acme/web: The branch is protected." in final.reason and "publish" in final.mend
        assert [one.repository for one in final.pull_requests] == ["acme/api"]
        assert await t.say("", verb=Verb.PUBLISH) == "started"
        again = await t.final(2)
        assert again.outcome is Outcome.PUBLISHED
        assert [one.repository for one in again.pull_requests] == ["acme/web"]


async def loses_the_history_of_the_second(agent: ScriptedProcess) -> None:
    await agent.take()
    await commit(agent, "code", "web")
    orphan = "git checkout -q --orphan other && git commit -qm new && git branch -M other $1"
    tree = agent.cwd.parent / "api"
    branch = await shell("git symbolic-ref --short HEAD", cwd=tree)
    await shell(orphan, branch, cwd=tree)
    agent.say(done="Done.")


async def test_what_cannot_be_published_in_one_does_not_hold_up_the_other(tmp_path: Path) -> None:
    async with town(tmp_path, [loses_the_history_of_the_second]) as t:
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        final = await t.final()
        assert final.outcome is Outcome.UNPUBLISHED
        assert "acme/api: The work has no common history" in final.reason
        assert [one.repository for one in final.pull_requests] == ["acme/web"]


async def test_what_is_still_to_be_published_in_another_is_said(tmp_path: Path) -> None:
    async with town(tmp_path, [changes_both, changes_only_the_second]) as t:
        await t.forge.add(API)
        t.forge.trouble = [PushRefused("The branch is protected.", "Unprotect it.")]
        await t.say("say hello everywhere", options=BOTH)
        await t.final()
        await t.say("once more", addressed=False)
        second = await t.final(2)
        assert [one.repository for one in second.pull_requests] == ["acme/api"]
        assert any("say `publish`" in note for note in second.notes)


class _FailsBetween:
    """A store that is away for a moment after the first of two pushes is noted."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._noted = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def set_published(self, *args: Any) -> None:
        self._noted += 1
        if self._noted == 2:
            raise StoreUnavailable("The database could not be used: disk I/O error.")
        await self._store.set_published(*args)


async def test_what_was_pushed_before_a_crash_is_named_at_the_end_too(tmp_path: Path) -> None:
    def seen(store: Store) -> Store:
        return cast("Store", _FailsBetween(store))

    async with town(tmp_path, [changes_both], dispatcher=QueueDispatcher(0.0), seen=seen) as t:
        await t.forge.add(API)
        t.forge.trouble = [PushRefused("The branch is protected.", "Unprotect it.") for _ in range(2)]
        await t.say("say hello everywhere", options=BOTH)
        await t.final()
        await t.say("", verb=Verb.PUBLISH)
        final = await t.final(2)
        assert final.outcome is Outcome.PUBLISHED
        assert [one.repository for one in final.pull_requests] == ["acme/web", "acme/api"]
        assert t.forge.pushes == 2


async def test_a_private_repositorys_pull_request_is_not_named_in_a_public_one(tmp_path: Path) -> None:
    async def changes(agent: ScriptedProcess) -> None:
        await agent.take()
        await commit(agent, "code", "code")
        await commit(agent, "web", "web")
        agent.say(done="Both say it.")

    async with town(tmp_path, [changes]) as t:
        await t.forge.add(DOCS)
        await t.say("say hello everywhere", options={"repo": "acme/code,acme/web"})
        final = await t.final()
        assert [one.repository for one in final.pull_requests] == ["acme/code", "acme/web"]
        assert "Goes with" not in t.forge.bodies[final.branch]
        assert "acme/code" not in t.forge.bodies[final.branch]


async def test_a_stopped_turn_keeps_the_work_of_each(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def obeys_stop(agent: ScriptedProcess) -> None:
        await agent.take()
        await commit(agent, "api", "half")
        begun.set()
        while "interrupt" not in await agent.heard():
            pass
        agent.say(cancelled=True)

    async with town(tmp_path, [obeys_stop]) as t:
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        await begun.wait()
        await t.say("", verb=Verb.STOP)
        stopped = await t.final()
        assert stopped.outcome is Outcome.STOPPED
        assert any(note.startswith("acme/api: The work so far is kept") for note in stopped.notes)
        await t.say("", verb=Verb.PUBLISH)
        published = await t.final(2)
        assert [one.repository for one in published.pull_requests] == ["acme/api"]


async def test_what_the_agent_leaves_over_is_committed_in_each(tmp_path: Path) -> None:
    asked: list[str] = []

    async def leaves_changes(agent: ScriptedProcess) -> None:
        await agent.take()
        for tree in ("code", "api"):
            (agent.cwd.parent / tree / "left.txt").write_text(tree)
        agent.say(done="Done.")
        asked.append((await agent.take())["prompt"])
        agent.say(done="Done, really.")

    async with town(tmp_path, [leaves_changes]) as t:
        await t.forge.add(API)
        await t.say("leave something", options=BOTH)
        final = await t.final()
        assert await t.forge.file(final.branch, "left.txt") == "code"
        assert await t.forge.file(final.branch, "left.txt", API) == "api"
        assert any("`left.txt`" in note and "`api/left.txt`" in note for note in final.notes)
    assert "In code:" in asked[0] and "In api:" in asked[0]


async def test_each_must_be_allowed_at_the_start_and_for_every_word(tmp_path: Path) -> None:
    only_web = Policy(
        defaults=Defaults("acme/web", "lines"), allowlist=Allowlist(("U_ANA",), ("*",), ("acme/web",))
    )
    async with town(tmp_path, [], policy=only_web) as t:
        await t.forge.add(API)
        outcome = await t.say("say hello everywhere", options=BOTH)
        assert outcome.startswith("denied") and "acme/api" in outcome
        assert await t.store.session_of("slack:T1/C1:t1") is None


async def test_the_question_which_one_takes_several(tmp_path: Path) -> None:
    asking = Policy(defaults=Defaults("", "lines"), allowlist=Allowlist(("U_ANA",), ("*",), ("*",)))
    async with town(tmp_path, [changes_both], policy=asking) as t:
        await t.forge.add(API)
        assert await t.say("say hello everywhere") == "asked"
        assert await t.say("`acme/web, acme/api`", addressed=False) == "started"
        final = await t.final()
        assert [one.repository for one in final.pull_requests] == ["acme/web", "acme/api"]


async def test_other_repositories_need_another_thread(tmp_path: Path) -> None:
    async with town(tmp_path, [waits]) as t:
        await t.forge.add(API, DOCS)
        await t.say("say hello everywhere", options=BOTH)
        assert await t.say("and this", options={"repo": "acme/api"}) in ("steered", "joined")
        assert await t.say("and there", options={"repo": "acme/code"}) == "refused"
        await t.until(lambda: any("acme/code" in note for note in t.slack.notes()))


async def test_a_directory_is_never_shared(tmp_path: Path) -> None:
    async def looks(agent: ScriptedProcess) -> None:
        await agent.take()
        trees = sorted(path.name for path in agent.cwd.parent.iterdir() if path.is_dir())
        agent.say(done=" ".join(trees))

    async with town(tmp_path, [looks]) as t:
        await t.forge.add(API, DOCS, ODD)
        await t.say("look", options={"repo": "acme/web,acme/code,acme/api,acme/.code.opened"})
        assert (await t.final()).text == "acme-code api code code-opened"


async def test_in_an_issue_its_own_repository_comes_first(tmp_path: Path) -> None:
    ann = ANA.__class__("github", "github:11", "7", "ann")
    async with town(tmp_path, [changes_both]) as t:
        await t.forge.add(API)
        said = {"by": ann, "surface": "github", "thread": "5", "repository": "acme/web"}
        refused = await t.say("there", options={"repo": "acme/api"}, **said)  # type: ignore[arg-type]
        assert refused == "refused"
        both = {"repo": "acme/api,acme/web"}
        assert await t.say("everywhere", options=both, **said) == "started"  # type: ignore[arg-type]
        async with t.github.changed:
            await asyncio.wait_for(t.github.changed.wait_for(lambda: len(t.github.finals()) == 1), 20)
        final = t.github.finals()[0].saying.final
        assert final is not None
        assert [one.repository for one in final.pull_requests] == ["acme/web", "acme/api"]
        bodies = [t.forge.bodies[final.branch], t.forge.bodies[f"acme/api:{final.branch}"]]
        assert ["Fixes #5" in body for body in bodies] == [True, False]


async def test_files_are_found_in_each_worktree(tmp_path: Path) -> None:
    async with town(tmp_path, [changes_both]) as t:
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        await t.final()
        assert await t.say("", verb=Verb.GET, options={"path": "api/hello.txt"}) == "got"
        assert await t.say("", verb=Verb.GET, options={"path": "hello.txt"}) == "got"
        await t.until(lambda: len([i for i in t.slack.said if i.saying.file]) == 2)
        sizes = [item.saying.file.size for item in t.slack.said if item.saying.file]
        assert sizes == [len("api\n"), len("web\n")]


async def test_it_is_over_when_the_turn_says_so(tmp_path: Path) -> None:
    async with town(tmp_path, [changes_both]) as t:
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        await t.final()
        assert (await t.store.turn(1)).state is TurnState.DONE
        await t.say("", verb=Verb.STATUS)
        await t.until(lambda: any("acme/web, acme/api" in note for note in t.slack.notes()))
        status = t.slack.notes()[-1]
        assert status.count("https://forge.example/") == 2


async def test_each_repositorys_setup_is_run_in_its_own_worktree(tmp_path: Path) -> None:
    async def looks(agent: ScriptedProcess) -> None:
        await agent.take()
        made = [(agent.cwd.parent / tree / "made").exists() for tree in ("code", "api")]
        agent.say(done=str(made))

    async with town(tmp_path, [looks]) as t:
        await t.forge.add(API)
        seed = """
        git clone -q "$1" work && cd work && mkdir .sandpiper
        echo 'touch made' >.sandpiper/setup.sh
        echo made >.gitignore
        git add -A && git commit -qm "Set up" && git push -q origin HEAD:main
        """
        await shell(seed, str(t.forge.bare_of(API)), cwd=tmp_path)
        await t.say("look", options=BOTH)
        assert (await t.final()).text == "[False, True]"
        _, picture = await t.core.turns.picture(1)
        assert any("api/.sandpiper/setup.sh" in row.title for row in picture.rows)


async def test_all_worktrees_are_put_away_and_come_back(tmp_path: Path) -> None:
    policy = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN, ages=Ages(1e9, worktree=1000.0))
    async with town(tmp_path, [changes_both, changes_only_the_second], policy) as t:
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        await t.final()
        trees = [t.box().cwd.parent / tree for tree in ("code", "api")]
        t.clock.advance(1001.0)
        await t.core.worktrees.run()
        assert not any(tree.exists() for tree in trees)
        await t.say("once more", addressed=False)
        assert (await t.final(2)).outcome is Outcome.PUBLISHED
        assert all((tree / "hello.txt").exists() for tree in trees)


async def test_what_cannot_be_kept_in_one_is_kept_in_the_others(tmp_path: Path) -> None:
    async def breaks_the_first(agent: ScriptedProcess) -> None:
        await agent.take()
        await commit(agent, "api", "half")
        bare = await shell("git rev-parse --git-common-dir", cwd=agent.cwd)
        await shell('rm -rf "$1/objects" && touch "$1/objects"', bare, cwd=agent.cwd)
        agent.say(failed="No credit.")

    async with town(tmp_path, [breaks_the_first]) as t:
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        failed = await t.final()
        assert failed.outcome is Outcome.FAILED
        assert any("could not be put on a ref" in note for note in failed.notes)
        assert any(note.startswith("acme/api: The work so far is kept") for note in failed.notes)


async def test_publish_is_not_offered_where_nothing_is_ready(tmp_path: Path) -> None:
    async def fails_in_the_second(sandbox: HostSandbox, launch: Launch) -> None:
        if launch.argv[2] == WORK and any(word.endswith("/api") for word in launch.argv):
            raise WorkspaceError("git in the sandbox failed.", "Try again.")

    async with town(tmp_path, [changes_both]) as t:
        before_each_run(t, fails_in_the_second)
        await t.forge.add(API)
        await t.say("say hello everywhere", options=BOTH)
        final = await t.final()
        assert [one.repository for one in final.pull_requests] == ["acme/web"]
        assert "git in the sandbox failed" in final.reason and "write here" in final.mend
        assert "publish" not in final.mend
