"""The bot's own bare copies of repositories: where bundles come from, and what outgoing commits rest on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from bot.errors import ForgeError, RepositoryUnknown
from bot.models import Repository
from handlers.github.git import TIMEOUT, GitFailed, git, with_token

log = logging.getLogger(__name__)

QUARANTINE = "quarantine-"

_HEADS = "refs/heads/"
# What was on a branch once is what a sandbox with code on demand may still come for.
_KEPT = {"gc.pruneExpire": "never", "gc.cruftPacks": "true"}
_DAMAGE = ("corrupt", "bad object", "not a git repository", "missing blob", "missing tree", "invalid sha1")


class Mirrors:
    """A bare repository per repository id under `directory`, made and fetched when it is needed.

    git_url: what "/owner/name.git" is appended to. patience: seconds for a fetch, and for a bundle.
    Whoever works with a mirror holds its lock, since a fetch prunes. One process works in the directory at a
    time; what an earlier one left there half done is cleared away.
    """

    def __init__(self, directory: Path, git_url: str, patience: float = TIMEOUT) -> None:
        self._patience = patience
        self._directory = directory
        self.git_url = git_url.rstrip("/")
        self._locks: dict[int, asyncio.Lock] = {}
        for left in directory.glob(f"{QUARANTINE}*"):
            shutil.rmtree(left, ignore_errors=True)
        for lock in directory.glob("*.git/**/*.lock"):
            lock.unlink(missing_ok=True)

    def url(self, repository: Repository) -> str:
        return f"{self.git_url}/{repository.full_name}.git"

    def path(self, repository: int) -> Path:
        """Where the mirror of a repository is, or would be."""
        return self._directory / f"{repository}.git"

    def auth(self, token: str) -> dict[str, str]:
        """The git configuration that shows a token to the forge."""
        return with_token(self.git_url, token)

    @contextlib.asynccontextmanager
    async def fresh(self, repository: Repository, token: str) -> AsyncIterator[Mirror]:
        """The mirror as the forge is now, to oneself. Raises ForgeError."""
        async with self._locks.setdefault(repository.id, asyncio.Lock()):
            path = self.path(repository.id)
            try:
                await self._fetch(path, repository, token)
            except GitFailed as failed:
                if not any(sign in " ".join(failed.lines).lower() for sign in _DAMAGE):
                    raise unreachable(repository, failed) from failed
                log.warning("the mirror of %s is damaged and made anew: %s", repository.full_name, failed)
                await asyncio.to_thread(shutil.rmtree, path)
                try:
                    await self._fetch(path, repository, token)
                except GitFailed as again:
                    raise unreachable(repository, again) from again
            yield Mirror(path, self._patience)

    async def _fetch(self, path: Path, repository: Repository, token: str) -> None:
        if not path.exists():
            path.mkdir(parents=True)
            await git("init", "--quiet", "--bare", "--template=", ".", cwd=path)
        await git(
            *("fetch", "--quiet", "--prune", "--no-tags", "--force", "--no-write-fetch-head"),
            *("--no-auto-gc", "--", self.url(repository), f"+{_HEADS}*:{_HEADS}*"),
            cwd=path,
            config=self.auth(token),
            timeout=self._patience,
        )
        try:
            await git("gc", "--quiet", "--auto", cwd=path, config=_KEPT)
        except GitFailed as failed:
            log.warning("the mirror of %s could not be tidied: %s", repository.full_name, failed)

    async def remote_head(self, repository: Repository, branch: str, token: str) -> str:
        """A branch's commit on the forge, asked for now; "" when there is none. Raises ForgeError."""
        ref = f"{_HEADS}{branch}"
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            found = await git(
                "ls-remote", "--", self.url(repository), ref, cwd=self._directory, config=self.auth(token)
            )
        except GitFailed as failed:
            raise unreachable(repository, failed) from failed
        for line in found.lines:  # it also lists refs that merely end like this one
            sha, _, name = line.partition("\t")
            if name == ref:
                return sha
        return ""


class Mirror:
    """One bare copy, while its lock is held."""

    def __init__(self, path: Path, patience: float = TIMEOUT) -> None:
        self.path = path
        self._patience = patience

    async def size(self) -> int:
        """Bytes of its objects, as they lie on the disk."""
        counted = await git("count-objects", "-v", cwd=self.path)
        kibibytes = dict(line.split(": ", 1) for line in counted.lines)
        return 1024 * (int(kibibytes["size"]) + int(kibibytes["size-pack"]))

    async def heads(self) -> Mapping[str, str]:
        """Branch name → commit."""
        listed = await git("for-each-ref", "--format=%(objectname) %(refname)", _HEADS, cwd=self.path)
        pairs = (line.split(" ", 1) for line in listed.lines)
        return {ref.removeprefix(_HEADS): sha for sha, ref in pairs}

    async def known(self, shas: Sequence[str]) -> Sequence[str]:
        """Those of the commits that are here."""
        asked = "".join(f"{sha}\n" for sha in dict.fromkeys(shas) if _is_sha(sha))
        found = await git("cat-file", "--batch-check", cwd=self.path, stdin=asked.encode())
        return [line.split(" ")[0] for line in found.lines if line.split(" ")[1:2] == ["commit"]]

    async def bundle(self, known: Sequence[str], to: Path) -> bool:
        """Write what all branches have beyond the `known` commits. False: nothing, so no file."""
        without = "".join(f"^{sha}\n" for sha in known).encode()
        new = await git("rev-list", "--max-count=1", "--branches", "--stdin", cwd=self.path, stdin=without)
        if not new.lines:
            return False
        try:
            await git(
                *("bundle", "create", "--quiet", str(to.absolute()), "--branches", "--stdin"),
                cwd=self.path,
                stdin=without,
                timeout=self._patience,
            )
        except BaseException:
            to.unlink(missing_ok=True)
            raise
        return True


class TokenRefused(ForgeError):
    """git's token was not taken: it has ended early, or is too new for all of GitHub to know it."""


def unreachable(repository: Repository, failed: GitFailed) -> ForgeError:
    """What a failed fetch, push or look means: a matter of rights, or worth another try."""
    last = " / ".join(failed.lines[-3:]) or failed.what
    said = " ".join(failed.lines).lower()
    if "could not read username" in said or "authentication failed" in said or "error: 401" in said:
        return TokenRefused(f"GitHub did not take our token: {last}", retryable=True)
    if "error: 403" in said:
        return ForgeError(
            f"GitHub lets us not into {repository.full_name}: {last}",
            "The App needs the permission 'contents: write' and must be installed on it.",
        )
    if "not found" in said:
        return RepositoryUnknown(
            f"GitHub has no code of {repository.full_name} for us: {last}",
            "Check that it still exists and that the App is installed on it.",
        )
    if "no space left" in said:
        return ForgeError(
            "The bot's disk is full.",
            "An operator can make room in the bot's data directory.",
            retryable=True,
        )
    return ForgeError(f"git could not talk with GitHub: {last}", retryable=True)


def _is_sha(text: str) -> bool:
    return len(text) in (40, 64) and all(c in "0123456789abcdef" for c in text)
