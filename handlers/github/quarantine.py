"""Commits from a sandbox, looked at where they can do no harm, and pushed from there.

A bundle is a stranger's bytes. It is unpacked in a bare repository of its own, which borrows the
mirror's objects and is deleted afterwards; nothing in it is ever checked out, and no hook runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from bot.errors import BundleRefused, ForgeError, PushRefused
from bot.models import Repository, Work
from bot.redact import redact
from handlers.github.git import GitFailed, git
from handlers.github.mirrors import QUARANTINE, Mirror, unreachable

LARGEST_BUNDLE = 512 * 1024 * 1024
MOST_MEMORY = 2 * 1024 * 1024 * 1024  # a few bytes of a pack can stand for an object of any size
MOST_COMMITS = 10_000
WORKFLOWS = ".github/workflows"

_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_IN_THE_WAY = re.compile(r"'refs/heads/([^']+)' exists; cannot create")
_HEAD = "refs/quarantine/head"
_BASE = "refs/quarantine/base"
_FORGE = "refs/forge/"
# What GitHub itself lets pass, since old repositories are full of it.
_TOLERATED = "zeroPaddedFilemode=ignore,badTimezone=ignore,missingSpaceBeforeDate=ignore"


class Quarantine:
    """One bundle's commits, unpacked beside a mirror."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    @contextlib.asynccontextmanager
    async def around(cls, mirror: Mirror) -> AsyncIterator[Quarantine]:
        """Empty, with the mirror's objects and branches within reach; gone afterwards."""
        path = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=QUARANTINE, dir=mirror.path.parent))
        try:
            await git("init", "--quiet", "--bare", "--template=", ".", cwd=path)
            (path / "objects" / "info").mkdir(exist_ok=True)
            (path / "objects" / "info" / "alternates").write_text(f"{mirror.path.absolute()}/objects\n")
            lines = "".join(f"create {_FORGE}{name} {sha}\n" for name, sha in (await mirror.heads()).items())
            await git("update-ref", "--stdin", cwd=path, stdin=lines.encode())
            yield cls(path)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))

    async def take_in(self, bundle: Path, work: Work) -> None:
        """Unpack the bundle and check that it is what `work` says. Raises BundleRefused."""
        size = bundle.stat().st_size
        if size > LARGEST_BUNDLE:
            raise BundleRefused(
                f"The work is {size // 2**20} MB, more than the {LARGEST_BUNDLE // 2**20} MB that I push.",
                "Large files belong in Git LFS or outside of the repository.",
            )
        await self._names(work)
        await self._unpacked(bundle, work)
        await self._rests_on_base(work)
        await self._leaves_workflows(work)

    async def push(
        self, repository: Repository, url: str, work: Work, expected: str, auth: Mapping[str, str]
    ) -> None:
        """Put work.head on work.branch, unless that would lose what others pushed there.

        expected: the commit on it that may be replaced ("" = none). Raises PushRefused, ForgeError.
        """
        ref = f"refs/heads/{work.branch}"
        theirs = await self._replaceable(work, expected)
        try:
            pushed = await git(
                *("push", "--porcelain", "--no-verify", "--no-signed", "--no-follow-tags"),
                *(f"--force-with-lease={ref}:{theirs}", "--", url, f"{_HEAD}:{ref}"),
                cwd=self._path,
                config=auth,
                fails_with=[1],
            )
        except GitFailed as failed:
            raise unreachable(repository, failed) from failed
        if pushed.code == 0:
            return
        refusal = push_refusal(pushed.lines, pushed.err.splitlines(), work)
        raise refusal or unreachable(repository, GitFailed("push", pushed.code, pushed.err))

    async def _replaceable(self, work: Work, expected: str) -> str:
        """Where the branch is on the forge ("" = nowhere), when nothing is lost if it moves to work.head.

        What a sandbox says about the forge is not asked: agents can write there. Raises PushRefused.
        """
        ref = f"{_FORGE}{work.branch}"
        found = await git("rev-parse", "--quiet", "--verify", ref, cwd=self._path, fails_with=[1])
        theirs = found.out.strip()
        if theirs not in ("", expected):
            held = await git("merge-base", "--is-ancestor", theirs, _HEAD, cwd=self._path, fails_with=[1])
            if held.code != 0:
                raise _changed(work)
        return theirs

    async def _names(self, work: Work) -> None:
        for sha in (work.head, work.base_sha):
            if not _SHA.fullmatch(sha):
                raise BundleRefused(f"'{sha[:80]}' is not a commit's name.")
        ref = f"refs/heads/{work.branch}"
        checked = await git("check-ref-format", ref, cwd=self._path, fails_with=[1])
        if checked.code != 0 or work.branch.startswith("-") or work.branch == work.base:
            raise BundleRefused(f"'{work.branch[:80]}' is not a branch that I may push to.")

    async def _unpacked(self, bundle: Path, work: Work) -> None:
        path = str(bundle.absolute())
        known = await git("cat-file", "-t", work.base_sha, cwd=self._path, fails_with=[128])
        if known.out.strip() != "commit":
            raise _foreign_base(work)
        # A base that was force-pushed away on the forge is still a base that the forge once had.
        await git("update-ref", _BASE, work.base_sha, cwd=self._path)
        try:
            await git("bundle", "verify", "--quiet", path, cwd=self._path)
            heads = await git("bundle", "list-heads", path, cwd=self._path)
        except GitFailed as failed:
            if "lacks these prerequisite commits" in " ".join(failed.lines):
                raise _foreign_base(work) from failed
            raise _broken(failed) from failed
        listed = (line.split(" ", 1) for line in heads.lines)
        ref = next((name for sha, name in listed if sha == work.head), None)
        if ref is None:
            raise BundleRefused(f"The bundle from the sandbox does not hold the commit {work.head[:12]}.")
        try:
            await git(
                *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc"),
                *(path, f"+{ref}:{_HEAD}"),
                cwd=self._path,
                memory=MOST_MEMORY,
            )
            # git before 2.46 does not apply fetch.fsckObjects to bundles, so the pack is checked by itself.
            for pack in sorted((self._path / "objects" / "pack").glob("*.pack")):
                index = str(self._path / "checked.idx")
                await git(
                    "index-pack",
                    f"--strict={_TOLERATED}",
                    "-o",
                    index,
                    str(pack),
                    cwd=self._path,
                    memory=MOST_MEMORY,
                )
        except GitFailed as failed:
            raise _broken(failed) from failed
        if (await git("rev-parse", f"{_HEAD}^{{commit}}", cwd=self._path)).out.strip() != work.head:
            raise BundleRefused(f"{work.head[:12]} in the bundle from the sandbox is not a commit.")

    async def _rests_on_base(self, work: Work) -> None:
        related = await git("merge-base", "--is-ancestor", _BASE, _HEAD, cwd=self._path, fails_with=[1])
        if related.code != 0:
            raise _foreign_base(work)

    async def _leaves_workflows(self, work: Work) -> None:
        """No commit that the forge does not have yet touches a workflow.

        Merges of somebody else's workflow changes pass: they equal one of their parents there.
        """
        bound = f"--max-count={MOST_COMMITS + 1}"
        new = await git("rev-list", bound, _HEAD, "--not", _BASE, f"--glob={_FORGE}*", cwd=self._path)
        if len(new.lines) > MOST_COMMITS:
            raise BundleRefused(
                f"The work has more than {MOST_COMMITS} commits, and I never push that many.",
                "Tell me to squash them.",
            )
        listed = await git(
            *("diff-tree", "--stdin", "-r", "-c", "--root", "--no-renames", "--name-only"),
            *("--", f":(icase){WORKFLOWS}"),
            cwd=self._path,
            stdin=new.out.encode(),
        )
        commit = ""
        for line in listed.lines:  # a commit, then the paths that differ from all of its parents
            if _SHA.fullmatch(line):
                commit = line
            elif line:
                raise BundleRefused(
                    f"Commit {commit[:12]} changes {line}, and I never push changes under {WORKFLOWS}.",
                    "Tell me to leave them alone (also in earlier commits of this branch), or push this "
                    "one change yourself.",
                )


def push_refusal(porcelain: Sequence[str], said: Sequence[str], work: Work) -> PushRefused | None:
    """Why the forge declined, in its own words; None when the push broke off without an answer."""
    rejected = next((line for line in porcelain if line.startswith("!") and "rejected]" in line), "")
    if not rejected:
        return None
    remote = [line.removeprefix("remote:").strip() for line in said if line.startswith("remote:")]
    reasons = [redact(line.removeprefix("error:").strip()) for line in remote if line]
    in_the_way = _IN_THE_WAY.search("\n".join([rejected, *reasons]))
    if in_the_way or "directory file conflict" in rejected:
        other = in_the_way[1] if in_the_way else work.branch.partition("/")[0]
        return PushRefused(
            f"The branch {other} on GitHub stands in the way of {work.branch}.",
            f"Somebody who may write there can rename or delete {other}.",
        )
    if any(word in rejected for word in ("stale info", "fetch first", "cannot lock ref")):
        return _changed(work)
    reason = " / ".join(reasons[:8]) or rejected.rpartition("\t")[2]
    mend, repeatable = _mend(reason.lower())
    return PushRefused(f"GitHub declined the push to {work.branch}: {reason}", mend, repeatable=repeatable)


def _changed(work: Work) -> PushRefused:
    return PushRefused(
        f"The branch {work.branch} on GitHub has changed since I looked.",
        "Look at what was pushed there.",
        repeatable=False,
    )


def _mend(reason: str) -> tuple[str, bool]:
    """What mends a refusal, and whether the same commits can be pushed then."""
    if "secret" in reason and ("push protection" in reason or "gh013" in reason):
        return "Tell me which secret to take out of the commits.", False
    if "gh001" in reason or "file size limit" in reason:
        return "Tell me which large file to take out of the commits.", False
    if "workflow" in reason:
        return f"Tell me to leave {WORKFLOWS} alone, or push this one change yourself.", False
    if "gh013" in reason or "gh006" in reason or "rule" in reason or "protected" in reason:
        return "Let the App pass this rule in the repository's settings.", True
    return "Somebody who administers the repository can mend that.", True


def _foreign_base(work: Work) -> BundleRefused:
    return BundleRefused(
        f"The commits do not rest on {work.base_sha[:12]} of {work.base} as GitHub has it.",
        f"Tell me to rebase the work on origin/{work.base}.",
    )


def _broken(failed: GitFailed) -> ForgeError:
    if failed.code is None:
        return failed
    return BundleRefused(
        f"The bundle from the sandbox is damaged or holds invalid objects: {' / '.join(failed.lines[-3:])}",
        "The work itself is still in the sandbox.",
    )
