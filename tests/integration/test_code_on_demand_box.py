"""Code on demand in a real box: a partial clone of its owner's, fed by the Lender, and its commits out."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

from bot.agents.apart import GIT, apart
from bot.errors import ProviderUnavailable
from bot.models import ExecResult, Launch, Person, Place, Repository, Session, ThreadKey
from bot.ports import Forge, Sandbox, Store
from bot.workspace import Workspaces
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider
from tests.boxes import cannot_be_tested
from tests.contracts.forge.workshop import ENVIRONMENT
from tests.github_stage import WEB, Stage, github_stage
from tests.local_boxes import make

MISSING = "git rev-list --objects --all --missing=print | grep -c '^?'"
BIG = 300_000  # bytes of a file that does not pack


class RememberingStore:
    """What Workspaces tell the store."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}

    async def set_workspace(
        self, session: str, branch: str, base: str, base_sha: str, repository: int
    ) -> None:
        known = self.sessions[session]
        self.sessions[session] = replace(known, branch=branch, base=base, base_sha=base_sha)


@dataclass
class Work:
    """A stage, one person's box that reaches it, and the sessions there."""

    stage: Stage
    sandbox: Sandbox
    workspaces: Workspaces
    making: Callable[[Forge], Workspaces]
    store: RememberingStore

    async def session(self) -> str:
        owner = Person(1, "github:1", self.stage.identity("ada"))
        repository = await self.stage.forge.repository(WEB)
        id = uuid.uuid4().hex
        thread = ThreadKey("slack", "T1/C1", id)
        session = Session(id, owner.tenant, owner, thread, repository, "scripted", "", "Work")
        self.store.sessions[id] = session
        return id

    async def open(self, session: str, turn: int) -> Place:
        """The session's workspace, for a turn that is open from now on."""
        self.stage.open.add(turn)
        return await self.workspaces.open(self.store.sessions[session], self.sandbox, turn)

    async def does(self, session: str, script: str) -> ExecResult:
        """What the session's agent does in its worktree, with git as it comes."""
        place = await self.workspaces.place(self.store.sessions[session], self.sandbox)
        launch = Launch(
            ("/bin/sh", "-ec", script),
            place.directory,
            env={name: ENVIRONMENT[name] for name in ENVIRONMENT if name.startswith("GIT_")},
            visible=place.visible,
        )
        return await self.sandbox.run(launch, timeout=120)

    async def said(self, session: str, script: str) -> str:
        result = await self.does(session, script)
        assert result.code == 0, result.err.decode()
        return result.out.decode().strip()

    async def publish(self, session: str) -> str:
        """The session's commits out of the box and onto the forge. Returns the published commit."""
        known = self.store.sessions[session]
        outgoing = await self.workspaces.outgoing(known, self.sandbox)
        assert outgoing is not None
        bundle = await self.workspaces.bundle(known, self.sandbox, outgoing)
        try:
            await self.stage.forge.publish_branch(
                repository_of(known), bundle, outgoing.work, known.published
            )
        finally:
            bundle.unlink()
        self.store.sessions[session] = replace(known, published=outgoing.work.head)
        return outgoing.work.head

    def becomes(self, on_demand_from: int) -> None:
        """From here on, code comes on demand from so many bytes."""
        self.workspaces = self.making(self.stage.lending_from(on_demand_from))

    def bytes_inside(self) -> int:
        """What the clones of the box take on the disk."""
        root = Path(self.stage.data.parent / "sandboxes")
        return sum(
            path.stat().st_size for path in root.glob("*/repositories/**/objects/**/*") if path.is_file()
        )


def repository_of(session: Session) -> Repository:
    assert session.repository is not None
    return session.repository


@asynccontextmanager
async def work(tmp_path: Path, *, on_demand_from: int = 1) -> AsyncIterator[Work]:
    async with github_stage(tmp_path, on_demand_from=on_demand_from) as stage:
        for number in range(4):
            big = f"{number}\n" + noise(number)
            await stage.github.push_commit(WEB, "main", {"big.txt": big, f"{number}.txt": "x\n"}, "ada")
        provider = LocalProvider(tmp_path / "sandboxes", Bubblewrap(Options(bot=stage.lending), allow=()))
        (tmp_path / "scratch").mkdir()
        store = RememberingStore()

        def making(forge: Forge) -> Workspaces:
            return Workspaces(cast(Store, store), forge, tmp_path / "scratch", "bot", "bot@x.test")

        sandbox = await provider.create({})
        try:
            yield Work(stage, sandbox, making(stage.forge), making, store)
        finally:
            await sandbox.delete()
            await provider.close()


def noise(seed: int) -> str:
    return "".join(f"{(number + seed) * 7919 * 104729 % 999_983:06}\n" for number in range(BIG // 7))


async def test_what_is_not_checked_out_is_fetched_when_it_is_looked_at(tmp_path: Path) -> None:
    async with work(tmp_path) as w:
        side = await w.stage.github.push_commit(WEB, "side", {"side.txt": "side\n"}, "ada")
        one = await w.session()
        place = await w.open(one, 1)
        assert any("large" in note for note in place.notes)
        assert w.bytes_inside() < 2 * BIG  # one of five contents of the large file
        assert int(await w.said(one, MISSING)) > 0
        assert await w.said(one, "git status --porcelain; head -n 1 big.txt") == "3"
        assert await w.said(one, "git show HEAD~2:big.txt | head -n 1") == "1"
        log = await w.said(one, "git log -p --format=%s -- big.txt | grep -c '^diff'")
        assert log == "4"
        assert (await w.said(one, "git blame -s 3.txt")).endswith("1) x")
        assert await w.said(one, "git checkout -q --detach origin/side; cat side.txt") == "side"
        assert await w.said(one, "git rev-parse HEAD") == side
        assert await w.said(one, "git merge-base HEAD origin/main")
        bisect = (
            "git bisect start origin/main HEAD~2 >&2; git bisect run false >&2; git bisect log | tail -n 1"
        )
        assert "first bad commit" in await w.said(one, bisect)


async def test_commits_come_out_with_nothing_else_and_without_a_way_to_the_bot(tmp_path: Path) -> None:
    """A `publish` comes after its turn, when nothing is lent any more."""
    async with work(tmp_path) as w:
        one = await w.session()
        await w.open(one, 1)
        await w.said(
            one,
            "echo more >>big.txt; git rm -q 0.txt; echo new >new.txt; git add .; git commit -qm Mine",
        )
        w.stage.open.clear()
        head = await w.publish(one)
        assert (await w.stage.github.branches(WEB))[w.store.sessions[one].branch] == head


async def test_merged_and_taken_back_work_is_published(tmp_path: Path) -> None:
    """What others made is not brought out again: the forge has it."""
    async with work(tmp_path) as w:
        for name in ("a", "b"):
            await w.stage.github.push_commit(WEB, "side", {f"{name}.txt": noise(len(name) + 9)}, "ada")
        one = await w.session()
        await w.open(one, 1)
        await w.said(one, "echo mine >mine.txt; git add .; git commit -qm Mine; git revert --no-edit HEAD~1")
        await w.said(one, "git merge -q -m Merged origin/side; git rm -q a.txt; git commit -qm 'Without a'")
        known = w.store.sessions[one]
        w.stage.open.clear()
        outgoing = await w.workspaces.outgoing(known, w.sandbox)
        assert outgoing is not None and outgoing.work.commits >= 4
        bundle = await w.workspaces.bundle(known, w.sandbox, outgoing)
        assert bundle.stat().st_size < 20_000
        head = await w.publish(one)
        assert (await w.stage.github.branches(WEB))[known.branch] == head
        w.stage.open.add(2)
        await w.stage.github.push_commit(WEB, "main", {"later.txt": noise(77)}, "ada")
        await w.open(one, 2)
        await w.said(
            one,
            "git merge -q -m Again origin/main; test -s later.txt; echo x >x; git add x; git commit -qm X",
        )
        again = await w.publish(one)
        assert again != head


async def test_sessions_have_grants_of_their_own_in_one_clone(tmp_path: Path) -> None:
    async with work(tmp_path) as w:
        one, two = await w.session(), await w.session()
        await w.open(one, 1)
        await w.open(two, 2)
        w.stage.open.discard(2)
        assert await w.said(one, "git show HEAD~2:big.txt | head -n 1") == "1"
        refused = await w.does(two, "git show HEAD~3:big.txt")
        assert refused.code != 0 and b"as long as a turn runs" in refused.err
        assert "spc_" not in await w.said(two, 'cat "$(git rev-parse --git-common-dir)/config"')


async def test_a_grant_is_in_no_argument_and_no_message(tmp_path: Path) -> None:
    """Arguments can be read by all users of the machine."""
    async with work(tmp_path) as w:
        one = await w.session()
        await w.open(one, 1)
        traced = "GIT_TRACE=1 GIT_TRACE_CURL= git show HEAD~2:big.txt 2>&1 >/dev/null; git remote -v"
        said = await w.said(one, traced)
        assert "git-remote-http" in said and "spc_" not in said
        refused = await w.does(one, "git -c remote.origin.url=$(git config remote.origin.url)x fetch")
        assert refused.code != 0 and b"spc_" not in refused.err


async def test_a_turn_that_has_ended_lends_nothing_and_the_next_one_does(tmp_path: Path) -> None:
    async with work(tmp_path) as w:
        one = await w.session()
        await w.open(one, 1)
        w.stage.open.clear()
        refused = await w.does(one, "git show HEAD~2:big.txt")
        assert refused.code != 0 and b"as long as a turn runs" in refused.err
        assert await w.said(one, "git log --format=%s | wc -l") == "5"
        await w.open(one, 2)
        assert await w.said(one, "git show HEAD~2:big.txt | head -n 1") == "1"


async def test_a_clone_goes_over_to_on_demand_and_back_and_keeps_its_work(tmp_path: Path) -> None:
    async with work(tmp_path, on_demand_from=1 << 40) as w:
        one = await w.session()
        await w.open(one, 1)
        assert await w.said(one, f"{MISSING} || true") == "0"
        await w.said(one, "echo mine >mine.txt; git add .; git commit -qm Mine; echo open >open.txt")

        w.becomes(1)
        await w.stage.github.push_commit(WEB, "side", {"side.txt": noise(50)}, "ada")
        await w.open(one, 2)
        two = await w.session()
        await w.open(two, 3)
        assert int(await w.said(one, MISSING)) > 0
        assert await w.said(one, "cat mine.txt open.txt; git status --porcelain; git log -1 --format=%s") == (
            "mine\nopen\n?? open.txt\nMine"
        )
        assert await w.said(one, "git show origin/side:side.txt | wc -c") == str(len(noise(50)))
        assert await w.said(two, "git worktree list | wc -l; git status --porcelain") == "3"
        await w.said(two, "echo two >two.txt; git add .; git commit -qm Two")

        w.becomes(1 << 40)
        await w.stage.github.push_commit(WEB, "other", {"other.txt": noise(60)}, "ada")
        await w.open(two, 4)
        w.stage.open.clear()
        assert await w.said(two, f"{MISSING} || true") == "0"
        assert await w.said(two, "git show origin/other:other.txt | wc -c") == str(len(noise(60)))
        assert await w.said(one, "cat mine.txt open.txt; git log -1 --format=%s") == "mine\nopen\nMine"
        heads = [await w.publish(one), await w.publish(two)]
        assert set(heads) <= set((await w.stage.github.branches(WEB)).values())
        await w.stage.github.push_commit(WEB, "other", {"more.txt": noise(61)}, "ada")
        await w.open(one, 5)
        assert await w.said(one, "git show origin/other:more.txt | wc -c") == str(len(noise(61)))


async def test_a_worktree_that_is_put_away_comes_back(tmp_path: Path) -> None:
    async with work(tmp_path) as w:
        one = await w.session()
        await w.open(one, 1)
        await w.said(
            one, "echo mine >mine.txt; git add .; git commit -qm Mine; echo x >>big.txt; echo u >u.txt"
        )
        w.stage.open.clear()
        assert await w.workspaces.put_away(w.store.sessions[one], w.sandbox) == ""
        assert await w.workspaces.unpublished(w.store.sessions[one], w.sandbox)
        await w.open(one, 2)
        assert await w.said(one, "git log -1 --format=%s; tail -n 1 big.txt; cat u.txt") == "Mine\nx\nu"


async def test_work_is_kept_and_adopted_after_the_turn(tmp_path: Path) -> None:
    async with work(tmp_path) as w:
        one = await w.session()
        await w.open(one, 1)
        await w.said(one, "echo x >>big.txt; git rm -q 0.txt; echo u >u.txt")
        w.stage.open.clear()
        known = w.store.sessions[one]
        assert await w.workspaces.settle(known, w.sandbox, 1)
        kept = await w.workspaces.keep(known, w.sandbox, 1)
        await w.workspaces.adopt(known, w.sandbox, kept.commit)
        assert await w.said(one, "git log -1 --format=%s; git status --porcelain") == "Keep unfinished work"
        await w.publish(one)


async def test_a_branch_that_was_taken_from_the_forge_is_still_to_be_had(tmp_path: Path) -> None:
    async with work(tmp_path) as w:
        await w.stage.github.push_commit(WEB, "side", {"side.txt": noise(50)}, "ada")
        one = await w.session()
        await w.open(one, 1)
        side = await w.said(one, "git rev-parse origin/side")
        await w.said(one, "git branch mine origin/side")
        await w.stage.github.delete_branch(WEB, "side", "ada")
        await w.open(one, 2)
        mirror = w.stage.mirrors.path(repository_of(w.store.sessions[one]).id)
        await run("git", "-C", str(mirror), *KEPT, "gc", "--quiet")
        assert await w.said(one, f"git show {side}:side.txt | wc -c") == str(len(noise(50)))


KEPT = ("-c", "gc.pruneExpire=never", "-c", "gc.cruftPacks=true")


async def run(*words: str) -> None:
    process = await asyncio.create_subprocess_exec(*words)
    assert await process.wait() == 0


@pytest.fixture(scope="module", autouse=True)
def _bubblewrap_works(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        asyncio.run(make(tmp_path_factory.mktemp("check")).check())
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))


async def test_an_agent_that_is_to_ask_fetches_apart_from_its_home(tmp_path: Path) -> None:
    async with work(tmp_path) as w:
        one = await w.session()
        place = await w.open(one, 1)
        argv = (*apart(".conversations"), "/bin/sh", "-c", "git show HEAD~2:big.txt | head -n 1")
        launch = Launch(argv, place.directory, env=GIT, visible=place.visible)
        result = await w.sandbox.run(launch, timeout=60)
        assert (result.out, result.err) == (b"1\n", b"")


async def test_without_a_grant_the_bots_port_gives_nothing_to_a_box(tmp_path: Path) -> None:
    async with work(tmp_path) as w:
        one = await w.session()
        await w.open(one, 1)
        port, path = w.stage.lending, f"/{w.stage.repository_id}.git"
        script = f"""
        for each in / /healthz /github/webhooks /slack/events {path}/info/refs?service=git-upload-pack; do
          python3 -c 'import sys, urllib.request as r, urllib.error as e
try: print(r.urlopen(sys.argv[1]).status)
except e.HTTPError as error: print(error.code)' "http://127.0.0.1:{port}$each"
        done
        """
        assert await w.said(one, script) == "403\n" * 4 + "403"


async def test_what_the_agent_makes_of_the_addresses_hurts_its_own_session_alone(tmp_path: Path) -> None:
    """A pipe in the address's place would keep the bot waiting; and it goes nowhere but by HTTP."""
    async with work(tmp_path) as w:
        one = await w.session()
        place = await w.open(one, 1)
        origin = f"{place.directory}.origin"
        await w.said(one, f"echo a >a; git add .; git commit -qm A; rm {origin}; mkfifo {origin}")
        assert await w.workspaces.changed(w.store.sessions[one], w.sandbox, 1)
        elsewhere = "ext::touch ~/ran"
        await w.said(
            one,
            f"git config --file {origin} remote.origin.url '{elsewhere}'; "
            f"git config --file {origin} 'http.{elsewhere}.extraHeader' x",
        )
        await w.publish(one)
        assert (await w.does(one, "git show HEAD~3:big.txt")).code != 0
        await w.open(one, 2)
        assert await w.said(one, "git show HEAD~3:big.txt | head -n 1; ls ~") == "1"
