"""The code host: repositories, roles, code in as bundles, checked commits out, pull requests."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from github import Github
from github.PullRequest import PullRequest as GitHubPull

from bot.errors import BundleRefused, ForgeError, RepositoryUnknown
from bot.models import CodeBundle, Lent, PullRequest, Repository, Work
from bot.ports import Clock
from bot.redact import redact
from handlers.github.accounts import Accounts
from handlers.github.auth import (
    READ_CODE,
    READ_METADATA,
    READ_PULLS,
    WRITE_CODE,
    WRITE_PULLS,
    GitHubApp,
    Permissions,
    Scope,
)
from handlers.github.closing_words import closing_only
from handlers.github.failures import CallFailed, NoToken
from handlers.github.grants import Grant, Grants
from handlers.github.mirrors import Mirrors, TokenRefused
from handlers.github.quarantine import Quarantine
from handlers.github.repositories import Repositories
from handlers.github.text import LIMIT, clip, one_line, tame_within

T = TypeVar("T")

TOKEN_TRIES = 3
TITLE_LIMIT = 250  # GitHub takes 256 characters
UPDATE_ROOM = 3_000  # a description with less room than this left does not grow any more
# docs.github.com, "Get repository permissions for a user"; an organisation's own roles have other names
_ROLES = frozenset({"admin", "maintain", "write", "triage", "read", "none"})
_LOGIN = re.compile(r"[A-Za-z0-9_-]{1,100}(?:\[bot\])?")


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Code on demand for repositories whose mirror has `size` bytes or more. url: where sandboxes find the
    Lender."""

    grants: Grants
    url: str
    size: int

    def lent(self, grant: Grant) -> Lent:
        """The token is in no URL: git hands these on in arguments, which all users of a machine can read."""
        return Lent(f"{self.url.rstrip('/')}/{grant.repository}.git", self.grants.written(grant))


class GitHubForge:
    """`bot.ports.Forge` on GitHub. on_demand: None where all code comes in bundles."""

    def __init__(
        self,
        app: GitHubApp,
        repositories: Repositories,
        accounts: Accounts,
        mirrors: Mirrors,
        clock: Clock,
        on_demand: OnDemand | None = None,
    ) -> None:
        self._on_demand = on_demand
        self._app = app
        self._accounts = accounts
        self._repositories = repositories
        self._mirrors = mirrors
        self._clock = clock

    async def repository(self, name: str) -> Repository:
        return await self._repositories.find(name)

    async def permission(self, repository: Repository, account: str) -> str:
        scope = await self._scope(repository, READ_METADATA)
        for _ in range(2):  # a login that we remember may be another's by now
            login = await self._reaching(repository, self._accounts.login(account, scope))
            if not _LOGIN.fullmatch(login):
                return "none"
            holder, role = await self._reaching(repository, self._role(repository, login, scope))
            if holder == account:
                return role
            self._accounts.forget(account)
        return "none"

    async def _role(self, repository: Repository, login: str, scope: Scope) -> tuple[str, str]:
        """The account that has the login now ("" = none), and its role."""
        path = f"/repositories/{repository.id}/collaborators/{quote(login)}/permission"
        try:
            _, found = await self._app.read(
                scope, lambda github: github.requester.requestJsonAndCheck("GET", path)
            )
        except CallFailed as failed:
            if failed.status == 404:
                return "", "none"
            raise
        role = str(found.get("role_name", ""))
        holder = found.get("user") or {}
        return str(holder.get("id", "")), role if role in _ROLES else str(found["permission"])

    async def bundle(
        self, repository: Repository, have: Sequence[str], to: Path, *, turn: int = 0
    ) -> CodeBundle:
        repository = await self._repositories.current(repository)

        async def bundled(token: str) -> CodeBundle:
            async with self._mirrors.fresh(repository, token) as mirror:
                heads = await mirror.heads()
                if not heads:
                    raise ForgeError(
                        f"{repository.full_name} has no commits yet.", "Push a first commit, then try again."
                    )
                demand = self._on_demand
                if turn and demand and await mirror.size() >= demand.size:
                    lent = demand.lent(Grant(repository.id, turn))
                    return CodeBundle(repository.default_branch, heads, empty=True, lent=lent)
                written = await mirror.bundle(await mirror.known(have), to)
                return CodeBundle(repository.default_branch, heads, empty=not written)

        return await self._with_token(repository, READ_CODE, bundled)

    async def publish_branch(self, repository: Repository, bundle: Path, work: Work, expected: str) -> None:
        repository = await self._repositories.current(repository)
        if work.branch == repository.default_branch:
            raise BundleRefused(f"I never push to {work.branch}, the default branch.")

        async def published(token: str) -> None:
            async with self._mirrors.fresh(repository, token) as mirror:
                if (await mirror.heads()).get(work.branch) == work.head:
                    return  # an earlier try got through, though its answer was lost
                async with Quarantine.around(mirror) as quarantine:
                    await quarantine.take_in(bundle, work)
                    url, auth = self._mirrors.url(repository), self._mirrors.auth(token)
                    await quarantine.push(repository, url, work, expected, auth)

        await self._with_token(repository, WRITE_CODE, published)

    async def branch_head(self, repository: Repository, branch: str) -> str:
        repository = await self._repositories.current(repository)
        return await self._with_token(
            repository, READ_CODE, lambda token: self._mirrors.remote_head(repository, branch, token)
        )

    async def pull_request(
        self,
        repository: Repository,
        work: Work,
        title: str,
        body: str,
        marker: str,
        update: str = "",
        issue: str = "",
    ) -> PullRequest:
        repository = await self._repositories.current(repository)
        scope = Scope(repository.installation, repository.id, WRITE_PULLS)
        hidden, told = f"<!-- {marker} -->", f"<!-- sandpiper:head={work.head} -->"
        closing = partial(closing_only, repository=repository.full_name, issue=issue)
        title = clip(closing(one_line(redact(title), TITLE_LIMIT)), TITLE_LIMIT) or work.branch
        below = f"\n\n{hidden}\n{told}"
        body = _safe(redact(body), LIMIT - len(below), closing) + below
        number = await self._app.read(scope, lambda github: _opened(github, repository, work))
        if number is None:
            try:
                made = await self._app.write(
                    scope, lambda github: _create(github, repository, work, title, body)
                )
                return _told(made, repository, created=True)
            except CallFailed as failed:
                if not any("already exists" in error for error in failed.errors):
                    raise _mended(failed, work) from failed
            # Somebody was faster, or an earlier try was, and the list did not show it yet.
            number = await self._app.read(scope, lambda github: _opened(github, repository, work))
            if number is None:
                raise ForgeError(f"GitHub hides the pull request of {work.branch} from us.", retryable=True)
        pull = await self._app.read(
            scope, lambda github: github.get_repo(repository.id).get_pull(number).complete()
        )
        written = pull.body or ""
        grown = _grown(written, redact(update), told, closing)
        if update and hidden in written and told not in written and grown != written:
            pull = await self._app.write(scope, lambda github: _edit(github, repository, number, grown))
        return _told(pull, repository, created=False)

    async def pull_request_state(self, repository: Repository, number: int) -> str:
        scope = await self._scope(repository, READ_PULLS)
        path = f"/repositories/{repository.id}/pulls/{number}"
        try:
            _, found = await self._reaching(
                repository,
                self._app.read(scope, lambda github: github.requester.requestJsonAndCheck("GET", path)),
            )
        except CallFailed as failed:
            if failed.status == 404:
                return "closed"
            raise
        return "merged" if found.get("merged") else str(found["state"])

    async def _scope(self, repository: Repository, permissions: Permissions) -> Scope:
        return Scope(await self._repositories.installation(repository.id), repository.id, permissions)

    async def _with_token(
        self, repository: Repository, permissions: Permissions, use: Callable[[str], Awaitable[T]]
    ) -> T:
        """Use a token with git. A fresh one can be unknown to some of GitHub's machines for seconds."""
        scope = Scope(repository.installation, repository.id, permissions)
        for attempt in range(TOKEN_TRIES):
            token = await self._reaching(repository, self._app.token(scope))
            try:
                return await use(token)
            except TokenRefused:
                self._app.forget_token(scope)
                if attempt == TOKEN_TRIES - 1:
                    raise
            await self._clock.sleep(2.0**attempt)
        raise AssertionError("unreachable")

    async def _reaching(self, repository: Repository, call: Awaitable[T]) -> T:
        try:
            return await call
        except NoToken as refused:
            self._repositories.forget(repository.id)
            raise RepositoryUnknown(
                f"The App does not reach {repository.full_name} any more: {refused.what}", refused.mend
            ) from refused


def _opened(github: Github, repository: Repository, work: Work) -> int | None:
    """The number of the open pull request of the branch, the one to work.base before others."""
    owner = repository.full_name.partition("/")[0]
    pulls = github.get_repo(repository.id).get_pulls(state="open", head=f"{owner}:{work.branch}")
    found = [pull for pull in pulls if pull.head.ref == work.branch]
    found.sort(key=lambda pull: (pull.base.ref != work.base, pull.number))
    return found[0].number if found else None


def _create(github: Github, repository: Repository, work: Work, title: str, body: str) -> GitHubPull:
    return github.get_repo(repository.id).create_pull(work.base, work.branch, title=title, body=body)


def _edit(github: Github, repository: Repository, number: int, body: str) -> GitHubPull:
    pull = github.get_repo(repository.id).get_pull(number)
    pull.edit(body=body)
    return pull


def _told(pull: GitHubPull, repository: Repository, *, created: bool) -> PullRequest:
    return PullRequest(
        number=pull.number,
        url=pull.html_url,
        title=pull.title,
        head=pull.head.ref,
        base=pull.base.ref,
        repository=repository.full_name,
        commits=pull.commits,
        files=pull.changed_files,
        added=pull.additions,
        removed=pull.deletions,
        created=created,
    )


def _safe(body: str, limit: int, closing: Callable[[str], str]) -> str:
    """The agent's words disarmed; the last paragraph is the bot's own and may mention who asked."""
    words, _, own = body.rpartition("\n\n")
    if not words or len(own) > 2_000:
        return tame_within(body, limit, closing)
    return f"{tame_within(words, limit - len(own) - 2, closing)}\n\n{own}".strip()


def _grown(written: str, update: str, told: str, closing: Callable[[str], str]) -> str:
    """A description with what is new below it, as far as there is room."""
    above, below = f"{written}\n\n---\n\n**Since then:**\n\n", f"\n\n{told}"
    room = LIMIT - len(above) - len(below)
    return above + _safe(update, room, closing) + below if room > UPDATE_ROOM else written


def _mended(failed: CallFailed, work: Work) -> ForgeError:
    if any("no commits between" in error.lower() for error in failed.errors):
        return ForgeError(
            f"{work.branch} has nothing that {work.base} does not have, so there is no pull request.",
            "It may have been merged already.",
        )
    return failed
