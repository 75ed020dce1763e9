"""The session's own git worktree in the sandbox: code in as a bundle, commits out as a bundle.

git runs on the sandbox's repository only inside the box, since the agent can write its config and
hooks (workspace_scripts.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bot import hook_scripts
from bot import workspace_scripts as scripts
from bot.errors import WorkspaceError
from bot.last_words import LastWords
from bot.models import TREE, Beside, CodeBundle, Launch, Place, Repository, Session, Work, branch_alias
from bot.ports import Forge, Sandbox, Store
from bot.workspace_here import SURROUNDINGS
from bot.workspace_notes import TOLD_ONCE, note_of

LARGEST_BUNDLE = 512 * 1024 * 1024  # bytes
GIT_SECONDS = 300.0
BRANCHES = "sandpiper/"  # of sessions


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What stands between a worktree and the publishing of its branch.

    files: changed or untracked (ignored ones excepted). nested: repositories inside of the worktree,
    whose files git does not take in. operation: a rebase, merge … in progress. elsewhere: the branch
    or commit that is checked out instead of the session's branch. gone: there is no worktree.
    """

    files: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    operation: str = ""
    elsewhere: str = ""
    gone: bool = False

    @property
    def astray(self) -> bool:
        """Is what lies in the worktree no part of the branch?"""
        return bool(self.gone or self.operation or self.elsewhere)

    @property
    def askable(self) -> bool:
        """Could the agent mend it?"""
        return bool(self.files or self.nested or self.operation or self.elsewhere)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A session's work, and the commits that the forge has already, for the bundle to leave out."""

    work: Work
    known: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """commit: what can be published. ref: where all that lay in the worktree is, part of that or not."""

    commit: str
    ref: str


def branch_name(session: Session) -> str:
    """sandpiper/<issue or slack>-<slug>-<session8>: made once, unique, never renamed."""
    origin = session.thread.id if session.thread.surface == "github" else session.thread.surface
    words = unicodedata.normalize("NFKD", session.title).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:32].strip("-")
    return BRANCHES + "-".join(part for part in (origin, slug, session.id[:8]) if part)


class Workspaces:
    """Opens sessions' workspaces and brings their commits out.

    patience: seconds for one script in a sandbox. largest: bytes of a bundle that is brought out.
    """

    def __init__(
        self,
        store: Store,
        forge: Forge,
        scratch: Path,
        git_name: str,
        git_email: str,
        *,
        patience: float = GIT_SECONDS,
        largest: int = LARGEST_BUNDLE,
    ) -> None:
        self._patience = patience
        self._largest = largest
        self._store = store
        self._forge = forge
        self._scratch = scratch
        self._git_name = git_name
        self._git_email = git_email
        self._author = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", git_name), ("EMAIL", git_email))
        }

    async def open(self, session: Session, sandbox: Sandbox, turn: int) -> Place:
        """Bring in what is new on the forge and put the session's worktrees on its branch."""
        first, *others = [await self._open(one, sandbox, turn) for one in session.each()]
        notes = tuple(
            f"{repository.full_name}: {note}"
            for repository, place in zip(session.repositories[1:], others, strict=True)
            for note in place.notes
        )
        return replace(self._joined(session, first, others), notes=(*first.notes, *notes))

    async def _open(self, session: Session, sandbox: Sandbox, turn: int) -> Place:
        repository = repository_of(session)
        bare, tree = self._paths(session, sandbox)
        version, *have = (await self._sh(sandbox, session, scripts.HAVE, bare)).splitlines()
        partial = have == ["partial"]
        incoming = self._scratch / f"in-{session.id}.bundle"
        lent_to = turn if _fetches_on_demand(version) else 0
        try:
            bundle = await self._forge.bundle(repository, [] if partial else have, incoming, turn=lent_to)
            inside = "" if bundle.empty else f"{sandbox.workspaces}/{session.id[:8]}/incoming.bundle"
            if inside:
                await sandbox.upload(incoming, inside)
        finally:
            incoming.unlink(missing_ok=True)
        updates = "".join(f"update refs/remotes/origin/{name} {sha}\n" for name, sha in bundle.refs.items())
        args = (inside, self._git_name, self._git_email, "whole" if partial else "")
        lent = f"{bundle.lent.url} {bundle.lent.grant}\n" if bundle.lent else "\n"
        await self._here(sandbox, session, scripts.FETCH, *args, stdin=(lent + updates).encode())
        base = await self._base(session, repository, bundle)
        branch = session.branch or branch_name(session)
        given = (base, _start_ref(turn), str(turn), session.published, _PUT_AWAY)
        out = await self._here(sandbox, session, scripts.OPEN, *given, branch=branch)
        base_sha, *said = out.rstrip("\n").split("\n")
        notes = [note_of(line, branch, base) for line in said if not (session.branch and line in TOLD_ONCE)]
        if base_sha == "-":
            notes.append(f"The branch {branch} has no common history with origin/{base}: rebase it.")
            base_sha = session.base_sha or bundle.refs[base]
        if session.base and base != session.base:
            notes.append(
                f"{repository.full_name} has no branch {session.base} any more: I go on with {base}."
            )
        notes.append(await self._fate(session, repository, base))
        await self._store.set_workspace(session.id, branch, base, base_sha, repository.id)
        return Place(
            tree,
            self._visible(session, sandbox),
            branch,
            base,
            base_sha,
            tuple(filter(None, notes)),
            hooks="hooks" in said,
        )

    async def _fate(self, session: Session, repository: Repository, base: str) -> str:
        """What people did with the session's pull request, where that changes what comes next."""
        number = session.pull_request
        state = await self._forge.pull_request_state(repository, number) if number else "open"
        if state == "open":
            return ""
        if state == "merged":
            return (
                f"Pull request #{number} has been merged, so what comes now goes into a new one. Before you "
                f"change anything, start from origin/{base}, and keep only what is not in it yet."
            )
        return f"Pull request #{number} has been closed without a merge; new work goes into a new one."

    async def _base(self, session: Session, repository: Repository, bundle: CodeBundle) -> str:
        """The branch that the work starts from; another one when it has been renamed or deleted."""
        for base in (session.base, repository.default_branch):
            if base in bundle.refs:
                return base
        base = (await self._forge.repository(str(repository.id))).default_branch
        if base in bundle.refs:
            return base
        raise WorkspaceError(
            f"{repository.full_name} has no branch '{base}'.",
            "Choose another default branch in its settings, then try again."
            if bundle.refs
            else "Push a first commit to it, then try again.",
        )

    async def place(self, session: Session, sandbox: Sandbox) -> Place:
        """Where an opened workspace is, without asking anybody."""
        first, *others = [self._place(one, sandbox) for one in session.each()]
        return self._joined(session, first, others)

    def _place(self, session: Session, sandbox: Sandbox) -> Place:
        _, tree = self._paths(session, sandbox)
        visible = self._visible(session, sandbox)
        return Place(tree, visible, session.branch, session.base, session.base_sha)

    async def hooks(self, session: Session, sandbox: Sandbox) -> Sequence[str]:
        """The lines of hook_scripts.LOOK."""
        return (await self._here(sandbox, session, hook_scripts.LOOK, session.base)).split("\n")

    def _joined(self, session: Session, first: Place, others: Sequence[Place]) -> Place:
        """One place of all of a session's worktrees. The agent begins in the first."""
        visible = dict.fromkeys(path for place in (first, *others) for path in place.visible)
        names = (repository.full_name for repository in session.repositories[1:])
        beside = tuple(
            Beside(name, place.directory, place.base) for name, place in zip(names, others, strict=True)
        )
        hooks = any(place.hooks for place in (first, *others))
        return replace(first, visible=tuple(visible), beside=beside, hooks=hooks)

    async def changed(self, session: Session, sandbox: Sandbox, turn: int) -> bool:
        """Did this turn move the branch?"""
        return bool((await self._here(sandbox, session, scripts.CHANGED, _start_ref(turn))).strip())

    async def unfinished(self, session: Session, sandbox: Sandbox, turn: int) -> Unfinished:
        """What the agent has left in the way of publishing. It may still run."""
        out = await self._here(sandbox, session, scripts.UNFINISHED, _start_ref(turn))
        if out.strip() == "gone":
            return Unfinished(gone=True)
        operation, elsewhere, status = out.split("\n", 2)
        files, nested = _uncommitted(status)
        return Unfinished(files, nested, operation, elsewhere)

    async def settle(self, session: Session, sandbox: Sandbox, turn: int) -> tuple[str, ...]:
        """Put the worktree back onto its branch; what else was in progress goes onto the kept ref.
        No process of the session's agent may run. Returns the changed and untracked files."""
        args = (_start_ref(turn), kept_ref(turn), _KEPT)
        files, _ = _uncommitted(await self._here(sandbox, session, scripts.SETTLE, *args))
        return files

    async def commit_all(self, session: Session, sandbox: Sandbox, message: str) -> None:
        await self._here(sandbox, session, scripts.COMMIT_ALL, message)

    async def keep(self, session: Session, sandbox: Sandbox, turn: int) -> Kept:
        """Put everything, committed or not, on a recovery ref, and leave the worktree as it is. Where
        that is no part of the branch (a rebase in progress …), the branch alone can be published."""
        ref = kept_ref(turn)
        out = await self._here(sandbox, session, scripts.KEEP, _start_ref(turn), ref, _KEPT)
        return Kept(out.strip(), ref)

    async def outgoing(self, session: Session, sandbox: Sandbox, commit: str = "") -> Outgoing | None:
        """The branch's commits (or those up to `commit`) to publish; None when there are none, or the
        forge has published them already. Raises WorkspaceError."""
        out = await self._here(sandbox, session, scripts.WORK, session.base, commit)
        head, base_sha, theirs, behind, *subjects = out.rstrip("\n").split("\n")
        if base_sha == "-":
            raise WorkspaceError(
                f"The work has no common history with {session.base}.",
                f"Tell me to put it onto origin/{session.base}.",
                repeatable=False,
            )
        # Pushed is not published: a crash may have come before the pull request.
        if head == base_sha or head == theirs == session.published:
            return None
        work = Work(session.branch, session.base, base_sha, head, len(subjects), tuple(subjects))
        # Commits that are taken back are bundled again: without theirs nothing would be left of them.
        new = theirs != "-" and behind == "-"
        return Outgoing(work, (f"^{base_sha}", *([f"^{theirs}"] if new else [])))

    async def unpublished(self, session: Session, sandbox: Sandbox) -> bool:
        """Is there anything of the session's that the forge does not have: changes, or commits?"""
        for one in (*session.each(), *map(session.within, session.left_out)):
            if (await self._here(sandbox, one, scripts.UNPUBLISHED, one.published)).strip():
                return True
        return False

    async def beside(self, sessions: Sequence[Session], sandbox: Sandbox) -> bool:
        """All sessions of one repository: is there anything in its clone that the forge does not have, and
        none of their branches: on a branch of an agent's own, or in a stash?"""
        known = "".join(f"{one.branch or branch_name(one)} {one.published}\n" for one in sessions)
        found = await self._here(sandbox, sessions[0], scripts.BESIDE, stdin=known.encode())
        return bool(found.strip())

    async def put_away(self, session: Session, sandbox: Sandbox) -> str:
        """Remove the worktree; what is not committed goes onto a ref, from which `open` brings it back. What
        git ignores is gone then. Returns why it stays instead, or ""."""
        return (await self._here(sandbox, session, scripts.PUT_AWAY, _PUT_AWAY)).strip()

    async def hide(self, session: Session, sandbox: Sandbox, turn: int) -> str:
        """Take the worktree away from the session's agent: put away, or moved as it is where that cannot be.
        Returns where to then, or ""."""
        stays = await self.put_away(session, sandbox)
        aside = f"{session.id[:8]}-{turn}"
        await self._here(sandbox, session, scripts.HIDE, aside)
        return f"{self._paths(session, sandbox)[0]}/aside/{aside}" if stays else ""

    async def file(self, session: Session, sandbox: Sandbox, path: str) -> tuple[str, int]:
        """Where in the sandbox a file of the worktrees is, and its bytes. `path`: from a worktree's top, or
        absolute. Raises WorkspaceError when it is no file, or leads out of the worktrees."""
        trouble: list[WorkspaceError] = []
        for one in session.each():
            try:
                return await self._file(one, sandbox, path)
            except WorkspaceError as error:
                trouble.append(error)
        raise trouble[0]

    async def _file(self, session: Session, sandbox: Sandbox, path: str) -> tuple[str, int]:
        _, tree = self._paths(session, sandbox)
        if session.tree != TREE:
            path = path.removeprefix(f"{session.tree}/")
        said = await self._sh(sandbox, session, scripts.FILE, tree, path)
        found, _, rest = said.partition("\n")
        size, _, below = rest.partition("\n")
        if found != "file" or not size.strip().isdecimal():
            raise WorkspaceError(_NO_FILE.get(found, _NO_FILE["none"]), repeatable=False)
        return f"{tree}/{below}", int(size)

    async def adopt(self, session: Session, sandbox: Sandbox, commit: str) -> None:
        """Put the session's branch onto a kept commit; files stay as they are."""
        await self._here(sandbox, session, scripts.ADOPT, commit)

    async def bundle(self, session: Session, sandbox: Sandbox, outgoing: Outgoing) -> Path:
        """The commits as a bundle file of ours. The caller deletes it. Raises WorkspaceError."""
        inside = f"{sandbox.workspaces}/{session.id[:8]}/outgoing.bundle"
        made = (inside, outgoing.work.head, *outgoing.known)
        size = int(await self._here(sandbox, session, scripts.BUNDLE, *made))
        if size > self._largest:
            raise WorkspaceError(
                f"The commits are {size / 2**20:,.0f} MB, and at most {self._largest / 2**20:,.0f} MB "
                "are published at once.",
                "Large files belong in Git LFS or outside of the repository: tell me to take them out of the "
                "commits.",
                repeatable=False,
            )
        target = self._scratch / f"out-{session.id}.bundle"
        await sandbox.download(inside, target, limit=self._largest)
        return target

    def alias(self, session: Session) -> str:
        return branch_alias(repository_of(session).id, session.branch)

    def _paths(self, session: Session, sandbox: Sandbox) -> tuple[str, str]:
        return (
            f"{sandbox.repositories}/{repository_of(session).id}.git",
            f"{sandbox.workspaces}/{session.id[:8]}/{session.tree}",
        )

    def _visible(self, session: Session, sandbox: Sandbox) -> tuple[str, ...]:
        bare, _ = self._paths(session, sandbox)
        return (f"{sandbox.workspaces}/{session.id[:8]}", bare)

    async def _here(
        self,
        sandbox: Sandbox,
        session: Session,
        script: str,
        *args: str,
        branch: str = "",
        stdin: bytes = b"",
    ) -> str:
        bare, tree = self._paths(session, sandbox)
        branch = branch or session.branch or branch_name(session)
        return await self._sh(sandbox, session, script, bare, tree, branch, *args, stdin=stdin)

    async def _sh(
        self, sandbox: Sandbox, session: Session, script: str, *args: str, stdin: bytes = b""
    ) -> str:
        launch = Launch(
            argv=("/bin/sh", "-c", script, "sandpiper", *args),
            cwd="/",
            env={**SURROUNDINGS, **self._author},
            visible=self._visible(session, sandbox),
            ours=True,
        )
        result = await sandbox.run(launch, stdin=stdin, timeout=self._patience)
        if result.code != 0:
            said = LastWords()
            said.hear(result.err)
            last = said.text().splitlines()[-5:]
            raise WorkspaceError(
                f"git in the sandbox failed: {' / '.join(last) or f'exit code {result.code}'}.",
                f"Try again; if it stays so, an operator can move this repository's clone in {sandbox.id} "
                "away, and it is made anew (docs/security.md).",
            )
        return result.out.decode(errors="replace")


def own_directory(sandbox: Sandbox, session: str) -> str:
    """What goes between people, the bot and a session's agent besides code, where the sessions beside it do
    not see it if the provider can do so. session: its id."""
    return f"{sandbox.workspaces}/{session[:8]}/.sandpiper"


def visible_to(session: Session, sandbox: Sandbox) -> tuple[str, ...]:
    """What a session's agent sees besides the home (Launch.visible)."""
    bare = (f"{sandbox.repositories}/{one.id}.git" for one in session.repositories)
    return (f"{sandbox.workspaces}/{session.id[:8]}", *bare)


_OLDEST_ON_DEMAND = (2, 36)  # it gives worktrees a configuration of their own, and fetches many files at once
_NO_FILE = {
    "none": "There is no such file in the workspace.",
    "away": "Its worktree was put away, or is not there yet. It comes with the thread's next turn.",
    "outside": "It is not in this thread's workspace.",
    "directory": "It is a directory. Name one file.",
    "special": "It is no regular file.",
}
_PUT_AWAY = "Keep what was not committed\n\nThe worktree was put away, or made anew."
_KEPT = "Keep unfinished work\n\nThe turn ended before these changes were committed."


def _fetches_on_demand(version: str) -> bool:
    """Is this a git ("git version 2.39.5") that can work with what it has not got yet?"""
    found = re.match(r"git version (\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= _OLDEST_ON_DEMAND


def kept_ref(turn: int) -> str:
    return f"refs/sandpiper/kept/turn-{turn}"


def _start_ref(turn: int) -> str:
    return f"refs/sandpiper/start/turn-{turn}"


def _uncommitted(status: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of git's status: the files, and the repositories inside of the worktree."""
    names = list(dict.fromkeys(entry[3:] for entry in status.split("\0") if len(entry) > 3))
    return (
        tuple(name for name in names if not name.endswith("/")),
        tuple(name.rstrip("/") for name in names if name.endswith("/")),
    )


def repository_of(session: Session) -> Repository:
    if session.repository is None:
        raise WorkspaceError("This session has no repository yet.")
    return session.repository
