"""A hostile agent against the bot's git, in the box and outside of it: each attack as it would be made.

The real bubblewrap, git and PyGithub; the forge is the playground's. What gets out is the session's own
branch at the checked commit, or nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import resource
import secrets
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from bot.clock import SystemClock
from bot.errors import BundleRefused, ProviderUnavailable, PushRefused, SandpiperError
from bot.models import (
    Final,
    Identity,
    Launch,
    OutboxItem,
    Outcome,
    Person,
    Place,
    PullRequest,
    Saying,
    SayingKind,
    Session,
    ThreadKey,
)
from bot.ports import Store
from bot.pull_requests import PullRequests
from bot.workspace import Workspaces
from handlers.github.git import git
from handlers.github.render import marker
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider, LocalSandbox
from tests.boxes import cannot_be_tested
from tests.contracts.forge.workshop import Workshop
from tests.github_stage import WEB, Stage, github_stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANA = Person(1, "slack:T1", Identity("slack", "slack:T1", "U_ANA", "Ana"))


class NoStore:
    """Workspaces only tell the store where they are."""

    async def set_workspace(
        self, session: str, branch: str, base: str, base_sha: str, repository: int
    ) -> None:
        pass


class Work:
    """A session: the agent that works in it, and the bot that brings its commits out."""

    def __init__(self, stage: Stage, sandbox: LocalSandbox, scratch: Path, session: Session) -> None:
        self.stage = stage
        self.sandbox = sandbox
        self.session = session
        self.place: Place | None = None
        self.turn = 0
        self.workspaces = Workspaces(
            cast(Store, NoStore()), stage.forge, scratch, "sandpiper[bot]", "sandpiper@example.com"
        )
        self.pull_requests = PullRequests(stage.forge, self.workspaces, SystemClock())

    @property
    def branch(self) -> str:
        return self.session.branch

    async def open(self) -> Place:
        self.turn += 1
        self.place = place = await self.workspaces.open(self.session, self.sandbox, self.turn)
        self.session = replace(self.session, branch=place.branch, base=place.base, base_sha=place.base_sha)
        return place

    async def agent(self, script: str, *args: str) -> str:
        """What the agent does, in its worktree. Returns what its programs print."""
        assert self.place is not None
        launch = Launch(
            ("/bin/bash", "-ec", script, "agent", *args),
            cwd=self.place.directory,
            visible=self.place.visible,
        )
        result = await self.sandbox.run(launch)
        assert result.code == 0, result.err.decode()
        return result.out.decode().strip()

    async def commit(self, name: str = "a.txt") -> str:
        script = 'echo "$1" >"$1"; git add -A; git commit -qm "Add $1"; git rev-parse HEAD'
        return await self.agent(script, name)

    async def publish(self) -> PullRequest | None:
        """The end of a turn, as the bot does it."""
        workspaces, session, sandbox = self.workspaces, self.session, self.sandbox
        if await workspaces.settle(session, sandbox, self.turn):
            await workspaces.commit_all(session, sandbox, "Commit what was left over")
        await workspaces.changed(session, sandbox, self.turn)
        await workspaces.keep(session, sandbox, self.turn)
        outgoing = await workspaces.outgoing(session, sandbox)
        if outgoing is None:
            return None
        pull = await self.pull_requests.publish(session, sandbox, outgoing, "Done.", [], [])
        self.session = replace(session, published=outgoing.work.head)
        return pull

    async def heads(self) -> dict[str, str]:
        return dict(await self.stage.github.branches(WEB))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """One GitHub for all of these tests; each has branches of its own."""
    try:
        await LocalProvider(tmp_path_factory.mktemp("check"), Bubblewrap(Options(), ())).check()
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))
    async with github_stage(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def sandbox(stage: Stage, tmp_path: Path) -> AsyncIterator[LocalSandbox]:
    made = await LocalProvider(tmp_path / "sandboxes", Bubblewrap(Options(), ())).create({})
    yield made
    await made.delete()


async def new_session(stage: Stage, sandbox: LocalSandbox, scratch: Path) -> Work:
    repository = await stage.forge.repository(WEB)
    id = secrets.token_hex(16)
    thread = ThreadKey("slack", "T1/C1", id)
    session = Session(id, "slack:T1", ANA, thread, repository, "scripted", "", "Add a file")
    work = Work(stage, sandbox, scratch, session)
    await work.open()
    return work


@pytest_asyncio.fixture(loop_scope="module")
async def work(stage: Stage, sandbox: LocalSandbox, tmp_path: Path) -> Work:
    return await new_session(stage, sandbox, tmp_path)


# What an agent leaves in the home is there for all sessions of its person


# $1 a file for git's configuration: everything in it that runs a program, runs one that tells of it
SET_TRAPS = """
printf '#!/bin/sh\\necho "$0 $*" >>~/sprung\\ncat\\n' >~/trap
chmod +x ~/trap
mkdir -p ~/hooks ~/.config/git
for hook in post-checkout pre-commit commit-msg post-commit reference-transaction post-index-change; do
  cp ~/trap ~/hooks/$hook
done
cat >"$1" <<'END'
[core]
  fsmonitor = ~/trap
  hooksPath = ~/hooks
  sshCommand = ~/trap
  editor = ~/trap
  pager = ~/trap
  alternateRefsCommand = ~/trap
  attributesFile = ~/attributes
  worktree = /home/agent
[diff]
  external = ~/trap
[diff "trap"]
  textconv = ~/trap
  command = ~/trap
[filter "trap"]
  clean = ~/trap
  smudge = ~/trap
[commit]
  gpgSign = true
[gpg]
  program = ~/trap
[log]
  showSignature = true
[alias]
  status = !~/trap
  bundle = !~/trap
[uploadpack]
  packObjectsHook = ~/trap
[protocol "ext"]
  allow = always
[url "ext::~/trap %S "]
  insteadOf = /workspace
[user]
  name = Linus
  email = linus@example.com
END
echo '* filter=trap diff=trap' >~/attributes
cp ~/attributes ~/.config/git/attributes
echo '*.txt' >~/.config/git/ignore
"""


async def a_turn_that_leaves_a_file(work: Work) -> str:
    """After somebody pushed to main; the bot has to commit the agent's file. Returns what it published."""
    await work.stage.github.push_commit(WEB, "main", {"more.txt": "more\n"}, "ada")
    await work.open()
    await work.agent("echo left >left.txt")
    assert await work.publish() is not None
    return (await work.heads())[work.branch]


@pytest.mark.parametrize("file", ["/home/agent/.gitconfig", "/home/agent/.config/git/config"])
async def test_git_is_not_configured_by_the_home(work: Work, file: str) -> None:
    await work.agent(SET_TRAPS, file)
    published = await a_turn_that_leaves_a_file(work)
    assert await work.agent("cat ~/sprung 2>/dev/null || true") == ""
    assert await work.stage.github.read_file(WEB, work.branch, "left.txt") == "left\n"
    await work.agent("rm -f ~/.gitconfig ~/.config/git/config")
    written = await work.agent(f"git log -1 --format=%an,%cn {published}")
    assert written == "sandpiper[bot],sandpiper[bot]"


async def test_programs_in_the_home_do_not_stand_in_for_the_systems(work: Work) -> None:
    await work.agent(
        """
        mkdir -p ~/bin ~/.local/bin
        for name in git sh env cat head mv rm mkdir dirname mktemp sort sed cut comm grep flock; do
          printf '#!/bin/sh\\necho %s >>~/sprung\\nexec /usr/bin/%s "$@"\\n' $name $name >~/.local/bin/$name
        done
        chmod +x ~/.local/bin/*
        cp ~/.local/bin/* ~/bin
        """
    )
    await work.stage.github.push_commit(WEB, "main", {"more.txt": "more\n"}, "ada")
    await work.agent("/bin/rm -f ~/sprung")
    await work.open()
    await work.agent("echo left >left.txt")
    assert await work.publish() is not None
    assert "sprung" not in await work.agent("/bin/ls ~")


# What an agent writes into its repository stays among its own sessions


async def test_the_clones_configuration_runs_nothing_and_signs_nothing_of_the_bots(work: Work) -> None:
    await work.agent(SET_TRAPS, "/tmp/config")
    await work.agent(
        """
        bare=$(git rev-parse --git-common-dir)
        printf '#!/bin/sh\\necho "$0 $*" >>~/sprung\\nexit 1\\n' >~/trap
        cp -r ~/hooks/. $bare/hooks
        git config commit.gpgSign true; git config gpg.program ~/trap; git config user.name Linus
        for key in core.hooksPath core.fsmonitor core.editor core.sshCommand core.alternateRefsCommand \\
          diff.external diff.trap.command diff.trap.textconv; do git config $key ~/trap; done
        git config alias.status "!~/trap"; git config log.showSignature true
        git config protocol.ext.allow always; git config url."ext::~/trap %S ".insteadOf /workspace
        echo '* diff=trap' >$bare/info/attributes
        rm -rf ~/.config ~/.gitconfig; rm -f ~/sprung
        """
    )
    published = await a_turn_that_leaves_a_file(work)
    assert await work.agent("cat ~/sprung 2>/dev/null || true") == ""
    assert await work.agent(f"git cat-file commit {published} | grep -c '^author sandpiper.bot. '") == "1"


async def test_a_worktree_that_points_elsewhere_publishes_only_the_sessions_branch(work: Work) -> None:
    before = await work.heads()
    await work.agent(
        """
        git init -q -b main ~/own
        git -C ~/own fetch -q "$PWD" 'refs/remotes/origin/*:refs/remotes/origin/*'
        cd ~/own; git config user.name x; git config user.email x; git reset -q --hard origin/main
        echo evil >evil.txt; git add -A; git commit -qm Evil
        """
    )
    await work.agent("echo gitdir: /home/agent/own/.git >.git")
    await work.publish()
    after = await work.heads()
    assert after.keys() - before.keys() <= {work.branch}
    assert {name: after[name] for name in before} == before


async def test_what_lies_at_the_bundles_place_is_neither_followed_nor_in_the_way(
    work: Work, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("the bot's")
    traps = {
        "a link to the host": 'ln -s "$1" ../outgoing.bundle; ln -s "$1" ../incoming.bundle.part',
        "a link into the box": "ln -s /home/agent/secret ../outgoing.bundle; echo x >~/secret",
        "directories": "mkdir -p ../outgoing.bundle/x ../incoming.bundle/x ../incoming.bundle.part/x",
        "pipes, a lock": "mkfifo ../outgoing.bundle ../incoming.bundle.part; touch ../outgoing.bundle.lock",
    }
    for number, (what, trap) in enumerate(traps.items()):
        await work.stage.github.push_commit(WEB, "main", {"n.txt": f"{number}\n"}, "ada")
        await work.agent("rm -rf ../*.bundle*")
        await work.agent(trap, str(victim))
        async with asyncio.timeout(20):
            await work.open()
            head = await work.commit(f"{number}.txt")
            await work.agent("rm -rf ../*.bundle*")
            await work.agent(trap, str(victim))
            await work.publish()
        assert (await work.heads())[work.branch] == head, what
    assert victim.read_text() == "the bot's"
    assert await work.agent("cat ~/secret") == "x"


async def test_a_ruined_clone_is_said_in_a_few_words(work: Work) -> None:
    await work.agent(
        """
        ref=$(git rev-parse --git-common-dir)/refs/remotes/origin/main
        rm -f $ref; mkdir $ref; printf '\\33[31m%s\\a' $(seq 40) >$ref/x
        """
    )
    with pytest.raises(SandpiperError) as ruined:
        await work.open()
    assert len(str(ruined.value)) < 2_000
    assert str(ruined.value).isprintable()


# What others pushed


async def test_what_somebody_pushed_is_not_overwritten_though_another_session_has_fetched_it(
    work: Work, sandbox: LocalSandbox, tmp_path: Path
) -> None:
    await work.commit()
    await work.publish()
    await work.open()
    await work.commit("b.txt")
    theirs = await work.stage.github.push_commit(WEB, work.branch, {"ben.txt": "Ben's\n"}, "ada")
    await new_session(work.stage, sandbox, tmp_path)  # the same clone: now it knows Ben's commit
    with pytest.raises(PushRefused, match="changed"):
        await work.publish()
    assert (await work.heads())[work.branch] == theirs


async def test_the_agents_word_for_what_is_on_the_forge_does_not_count(work: Work) -> None:
    await work.commit()
    await work.publish()
    await work.open()
    theirs = await work.stage.github.push_commit(WEB, work.branch, {"ben.txt": "Ben's\n"}, "ada")
    await work.commit("b.txt")
    outgoing = await work.workspaces.outgoing(work.session, work.sandbox)
    assert outgoing is not None
    bundle = await work.workspaces.bundle(work.session, work.sandbox, outgoing)
    assert work.session.repository is not None
    for expected in (f"refs/forge/{work.branch}", theirs[:10], "HEAD", "@{-1}", ""):
        with pytest.raises((PushRefused, BundleRefused)):
            await work.stage.forge.publish_branch(work.session.repository, bundle, outgoing.work, expected)
    assert (await work.heads())[work.branch] == theirs


async def test_rewriting_its_own_published_commits_is_the_agents_right(work: Work) -> None:
    await work.commit()
    await work.publish()
    await work.open()
    amended = await work.agent("git commit -q --amend -m 'Better'; git rev-parse HEAD")
    await work.publish()
    assert (await work.heads())[work.branch] == amended


# Names of branches


async def test_branches_may_have_any_name_that_git_allows(work: Work) -> None:
    odd = {"$(touch${IFS}x)", "it's;rm", 'quo"ted', "`id`", "ünïcode-✨", "&amp;<b>", "x{y}", "|tee", "a.b"}
    bare = work.stage.github.repository(WEB).path
    main = (await work.heads())["main"]
    made = "".join(f"create refs/heads/{name} {main}\n" for name in odd | {"a-b"})
    await git("update-ref", "--stdin", cwd=bare, stdin=made.encode())
    await work.open()
    assert odd | {"a-b"} <= await brought_in(work)
    gone = "".join(f"delete refs/heads/{name}\n" for name in odd)
    await git("update-ref", "--stdin", cwd=bare, stdin=gone.encode())
    await work.open()
    assert await brought_in(work) & (odd | {"a-b"}) == {"a-b"}


async def brought_in(work: Work) -> set[str]:
    """The branches of the forge, as the clone has them."""
    listed = await work.agent("git for-each-ref --format='%(refname)%(symref)' refs/remotes/origin")
    return {line.removeprefix("refs/remotes/origin/") for line in listed.splitlines()}


async def test_a_branch_whose_name_becomes_a_directory_is_no_hindrance(work: Work) -> None:
    await work.stage.github.push_commit(WEB, "topic", {"x.txt": "x\n"}, "ada")
    await work.open()
    await work.stage.github.delete_branch(WEB, "topic", "ada")
    await work.stage.github.push_commit(WEB, "topic/one", {"x.txt": "x\n"}, "ada")
    await work.open()
    await work.stage.github.delete_branch(WEB, "topic/one", "ada")
    await work.stage.github.push_commit(WEB, "topic", {"x.txt": "y\n"}, "ada")
    await work.open()


async def test_a_branch_in_the_way_of_ours_is_named(work: Work) -> None:
    for name in [name for name in await work.heads() if name.startswith("sandpiper/")]:
        await work.stage.github.delete_branch(WEB, name, "ada")  # of other tests
    await work.stage.github.push_commit(WEB, "sandpiper", {"x.txt": "x\n"}, "ada")
    await work.commit()
    with pytest.raises(PushRefused, match="The branch sandpiper on GitHub stands in the way") as refused:
        await work.publish()
    await work.stage.github.delete_branch(WEB, "sandpiper", "ada")
    assert "rename or delete sandpiper" in refused.value.mend


async def test_an_agents_refs_under_origin_do_not_last(work: Work) -> None:
    await work.agent(
        """
        git update-ref refs/remotes/origin/evil HEAD
        git symbolic-ref refs/remotes/origin/HEAD refs/heads/none
        git update-ref --no-deref -d refs/remotes/origin/main
        git symbolic-ref refs/remotes/origin/main refs/heads/trap
        """
    )
    await work.open()
    assert await brought_in(work) == {*await work.heads()}


# What is in the bundle


TREES = {
    "a .git that differs in case": ("100644", ".GiT"),
    "a .git for Windows": ("40000", "git~1"),
    "a .git for macOS": ("40000", ".g\u200cit"),
    "two dots": ("40000", ".."),
    "a slash": ("100644", "a/b"),
    "a linked .gitmodules": ("120000", ".gitmodules"),
}


MAKE_TREE = """
git update-ref HEAD refs/remotes/origin/main
blob=$(printf '../../.git/hooks' | git hash-object -w --stdin)
tree=$(git rev-parse HEAD^{tree})
if test "$1" = 40000; then entry=$tree; else entry=$blob; fi
{ printf '%s %s\\0' "$1" "$2"; printf %s "$entry" | sed 's/../\\\\x&/g' | xargs -0 printf; } >~/tree
tree=$(git hash-object -w -t tree --literally ~/tree)
git update-ref HEAD $(git commit-tree $tree -p HEAD -m trap)
git read-tree HEAD 2>/dev/null || true
"""


async def test_trees_that_harm_who_checks_them_out_are_refused(work: Work) -> None:
    for mode, name in TREES.values():
        await work.agent(MAKE_TREE, mode, name)
        await refused_whole(work, "invalid objects")


async def test_a_submodule_that_runs_programs_is_refused(work: Work) -> None:
    await work.agent(
        """
        printf '[submodule "x"]\\n\\tpath = x\\n\\turl = -u./payload\\n' >.gitmodules
        git add -A; git commit -qm trap
        """
    )
    await refused_whole(work, "invalid objects")


async def refused_whole(work: Work, why: str) -> None:
    before = await work.heads()
    outgoing = await work.workspaces.outgoing(work.session, work.sandbox)
    assert outgoing is not None
    with pytest.raises(BundleRefused, match=why):
        await work.pull_requests.publish(work.session, work.sandbox, outgoing, "Done.", [], [])
    assert await work.heads() == before


async def test_other_refs_in_the_bundle_stay_behind(stage: Stage, tmp_path: Path) -> None:
    repository = await stage.forge.repository(WEB)
    workshop = await Workshop.made(tmp_path / "box")
    await workshop.bring_in(stage.forge, repository)
    await workshop.start("sandpiper/x-0123abcd")
    evil = await workshop.commit({"evil.txt": "x"})
    await workshop.git("update-ref", "refs/heads/main", evil)
    await workshop.git("update-ref", "refs/forge/main", evil)
    await workshop.git("tag", "v1", evil)
    await workshop.start("sandpiper/x-0123abcd")
    await workshop.commit({"good.txt": "x"})
    work = await workshop.work("sandpiper/x-0123abcd")
    before = dict(await stage.github.branches(WEB))
    bundle = tmp_path / "all.bundle"
    await workshop.git("bundle", "create", "-q", str(bundle), "--all", f"^{work.base_sha}")
    await stage.forge.publish_branch(repository, bundle, work, "")
    assert dict(await stage.github.branches(WEB)) == {**before, work.branch: work.head}
    bare = stage.github.repository(WEB).path
    assert not list(bare.glob("refs/tags/*"))


def varint(number: int) -> bytes:
    """As git writes the sizes in a delta."""
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def packed(kind: int, size: int, content: bytes, base: bytes = b"") -> bytes:
    """An object of a pack: type and size, what it builds on, and its content, deflated."""
    size, head = size >> 4, [kind << 4 | size & 0xF]
    while size:
        head[-1] |= 0x80
        head.append(size & 0x7F)
        size >>= 7
    return bytes(head) + base + zlib.compress(content)


async def test_a_few_bytes_that_become_gigabytes_are_refused(stage: Stage, tmp_path: Path) -> None:
    repository = await stage.forge.repository(WEB)
    workshop = await Workshop.made(tmp_path / "box")
    await workshop.bring_in(stage.forge, repository)
    await workshop.start("sandpiper/bomb-0123abcd")
    await workshop.commit({"x.txt": "x"})
    work = await workshop.work("sandpiper/bomb-0123abcd")
    bundle = await workshop.bundle(work.base_sha)

    block = 0xFFFFFF  # the most that one instruction can copy
    base = b"\0" * block
    name = hashlib.sha1(b"blob %d\0" % block + base).digest()
    copies = 300
    delta = varint(block) + varint(block * copies) + b"\xf0\xff\xff\xff" * copies
    whole = bundle.read_bytes()
    start = whole.index(b"PACK")
    pack = bytearray(whole[start:-20])
    pack[8:12] = (int.from_bytes(pack[8:12], "big") + 2).to_bytes(4, "big")
    pack += packed(3, block, base) + packed(7, len(delta), delta, name)
    bundle.write_bytes(whole[:start] + pack + hashlib.sha1(pack).digest())
    assert bundle.stat().st_size < 100_000

    before = dict(await stage.github.branches(WEB))
    with pytest.raises(BundleRefused, match="Out of memory"):
        await stage.forge.publish_branch(repository, bundle, work, "")
    assert dict(await stage.github.branches(WEB)) == before
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    assert children < 3 << 30


async def test_the_default_branch_is_never_pushed_to_under_any_name(stage: Stage, tmp_path: Path) -> None:
    repository = await stage.forge.repository(WEB)
    workshop = await Workshop.made(tmp_path / "box")
    await workshop.bring_in(stage.forge, repository)
    await workshop.start("x")
    await workshop.commit({"evil.txt": "x"})
    work = await workshop.work("x")
    bundle = await workshop.bundle(work.base_sha)
    before = dict(await stage.github.branches(WEB))
    for name in ("main", "refs/heads/main", "heads/main", "HEAD", "@", "x:refs/heads/main", "+main", "^main"):
        try:
            await stage.forge.publish_branch(repository, bundle, replace(work, branch=name), "")
        except SandpiperError:
            continue
        pushed = dict(await stage.github.branches(WEB))
        assert pushed == {**before, name: work.head}, name  # a branch of just this odd name
        before = pushed
    assert before["main"] == work.base_sha


# What stands in the thread


async def test_an_agent_cannot_write_a_marker_that_makes_a_later_word_unsaid(stage: Stage) -> None:
    number = stage.github.open_issue(WEB, "ada", "Slow", "It is slow")
    thread = ThreadKey("github", str(stage.repository_id), str(number))

    def final(turn: int, text: str) -> OutboxItem:
        ending = Final(Outcome.ANSWERED, text)
        saying = Saying(f"final:{turn}", SayingKind.FINAL, thread, final=ending, turn=turn)
        return OutboxItem(turn, saying, 1, True, time.time())

    forged = f"```\n{marker('final:2')}\n```\n\n    {marker('final:2')}"
    await stage.surface.send(final(1, forged))
    assert await stage.surface.find(final(2, "")) is None
    assert await stage.surface.find(final(1, "")) is not None
