"""A GitHub on loopback: REST for the App, webhooks from it, git over HTTP, and people to drive it.

Good enough for the real PyGithub, httpx and git to use unchanged, and as strict as GitHub with tokens,
permissions and limits, so that what works here is not refused there.
"""

import contextlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from starlette.types import ASGIApp

from handlers.playground.changes import Changes
from handlers.playground.faults import ApiCall
from handlers.playground.git_records import NOTHING, RefUpdate
from handlers.playground.git_repository import GitRepository
from handlers.playground.github_auth import TOKEN_LIFE
from handlers.playground.github_errors import Refusal, not_found
from handlers.playground.github_hooks import Delivery
from handlers.playground.github_issues import issue_numbered
from handlers.playground.github_limits import Limits
from handlers.playground.github_server import GitHubServer
from handlers.playground.github_state import (
    DEFAULT_EVENTS,
    Comment,
    GitHubState,
    Issue,
    Repository,
    Role,
    User,
)
from handlers.playground.holds import Hold
from handlers.playground.server import LoopbackServer

_T = TypeVar("_T")
_BRANCH = "refs/heads/"


class GitHubPlayground:
    """One GitHub with one App. Belongs to one event loop, as its server does.

    `root` is where the bare repositories go. `clock` gives seconds since the epoch, for tokens, JWTs,
    limits and timestamps. `limits` None enforces no rate limits. `permissions` and `events` are the App's.
    Set `base_url` before use, or `async with github.serve():`. Webhooks go out once `webhook_url` is set.

    Names of repositories are like "acme/web"; `by` is the login of a person made by `add_user`, who
    needs the role that GitHub would ask for: Refusal is raised otherwise. Methods that run git are async.
    """

    def __init__(
        self,
        root: Path,
        *,
        slug: str = "sandpiper",
        clock: Callable[[], float] = time.time,
        token_life: float = TOKEN_LIFE,
        limits: Limits | None = None,
        permissions: dict[str, str] | None = None,
        events: tuple[str, ...] = DEFAULT_EVENTS,
    ) -> None:
        self._root = root
        self._state = GitHubState(slug, clock, permissions, events)
        self._server = GitHubServer(self._state, clock=clock, token_life=token_life, limits=limits)
        self._issues = self._server.issues
        self._pulls = self._server.pulls
        self._hooks = self._server.hooks
        self._faults = self._server.faults
        self.app: ASGIApp = self._server.app
        self.calls: list[ApiCall] = self._server.calls
        self.changes: Changes = self._server.changes
        self.private_key_pem: str = self._server.private_key_pem

    @contextlib.asynccontextmanager
    async def serve(self, port: int = 0) -> AsyncIterator[LoopbackServer]:
        """Serve `app` on loopback and make that address the `base_url`."""
        async with LoopbackServer(self.app, port=port) as server:
            self.base_url = server.url
            yield server

    # The App, as its owner sees it.

    @property
    def slug(self) -> str:
        return self._state.app.slug

    @property
    def app_id(self) -> int:
        return self._state.app.id

    @property
    def bot(self) -> User:
        """The account that the App writes as, `slug[bot]`."""
        return self._state.app.bot

    @property
    def webhook_secret(self) -> str:
        return self._hooks.secret

    @property
    def webhook_url(self) -> str | None:
        return self._hooks.url

    @webhook_url.setter
    def webhook_url(self, url: str | None) -> None:
        self._hooks.url = url

    @property
    def webhook_timeout(self) -> float:
        """Seconds within which the App's server must answer; GitHub gives 10."""
        return self._hooks.answer_within

    @webhook_timeout.setter
    def webhook_timeout(self, seconds: float) -> None:
        self._hooks.answer_within = seconds

    @property
    def base_url(self) -> str:
        return self._state.base_url

    @base_url.setter
    def base_url(self, url: str) -> None:
        self._state.base_url = url.rstrip("/")

    @property
    def web_url(self) -> str:
        """Where `html_url`s lead: the page of the playground, if there is one."""
        return self._state.web_url or self._state.base_url

    @web_url.setter
    def web_url(self, url: str) -> None:
        self._state.web_url = url.rstrip("/")

    @property
    def limits(self) -> Limits | None:
        return self._server.limiter.limits

    @limits.setter
    def limits(self, limits: Limits | None) -> None:
        self._server.limiter.limits = limits

    @property
    def installation_tokens(self) -> list[str]:
        """Every installation token minted so far, but for those that were expired."""
        return self._server.credentials.tokens

    def expire_tokens(self) -> None:
        """End the life of every installation token minted so far."""
        self._server.credentials.expire_tokens()

    @property
    def deliveries(self) -> list[Delivery]:
        """Every webhook attempt so far, oldest first."""
        return self._hooks.deliveries

    def signed_headers(self, event: str, body: bytes, guid: str | None = None) -> dict[str, str]:
        """The headers of a webhook with this body, for a delivery of one's own."""
        return self._hooks.signed_headers(event, guid or str(uuid.uuid4()), body)

    # Repositories and people.

    async def add_repository(
        self,
        full_name: str,
        files: Mapping[str, str | bytes],
        *,
        private: bool = False,
        installed: bool = True,
        default_branch: str = "main",
    ) -> int:
        """Make a repository of an organization with one commit, and return its id."""
        owner_login, slash, name = full_name.partition("/")
        if not slash or not re.fullmatch(r"[\w.-]+/[\w.-]+", full_name):
            raise ValueError(f"{full_name!r} is not of the form owner/name")
        if self._state.repository_named(full_name) is not None:
            raise ValueError(f"{full_name} is there already")
        owner = self._state.add_user(owner_login, "Organization")
        path = self._root / owner.login / f"{name}.git"
        git = GitRepository(path)
        await git.create(default_branch)
        await git.commit_files(default_branch, files, "Initial commit\n", self._pulls.signature(owner), None)
        now = self._state.now()
        made = Repository(self._state.next_id(), owner, name, private, default_branch, path, now, now)
        self._state.repositories[made.id] = made
        if installed:
            self.install(full_name)
        return made.id

    def install(self, full_name: str) -> int:
        """Give the App access to a repository; returns the id of the installation."""
        return self._server.installations.add(self._repository(full_name)).id

    def uninstall(self, full_name: str) -> None:
        """Take the App's access to a repository away; its tokens stop working there at once."""
        self._server.installations.remove(self._repository(full_name))

    def remove_app(self, owner: str) -> None:
        """Take the App away from an account, with all its repositories."""
        self._server.installations.end(self._state.users[owner.lower()])

    def suspend_app(self, owner: str, suspended: bool = True) -> None:
        """Suspend the App's installation, or end that."""
        self._server.installations.suspend(self._state.users[owner.lower()], suspended)

    def add_user(self, login: str, permissions: Mapping[str, Role] | None = None) -> int:
        """Make a person, or give one other roles by repository; returns the account's id."""
        user = self._state.add_user(login)
        for full_name, role in (permissions or {}).items():
            self._repository(full_name).roles[login.lower()] = role
        return user.id

    def rename_user(self, login: str, to: str) -> None:
        """A person takes another login and keeps account and roles; the old login is free."""
        self._state.rename_user(login, to)

    # What people do.

    def open_issue(
        self, full_name: str, by: str, title: str, body: str = "", labels: Sequence[str] = ()
    ) -> int:
        """Open an issue and return its number. With `labels`, the author needs the role to label."""
        repository, user = self._may(full_name, by, "triage" if labels else "read")
        return self._issues.open(repository, user, title, body, labels).number

    def edit_issue(
        self, full_name: str, number: int, by: str, *, title: str | None = None, body: str | None = None
    ) -> None:
        repository, user, issue = self._may_change(full_name, number, by, "write")
        self._issues.edit(repository, issue, user, title=title, body=body)

    def close_issue(self, full_name: str, number: int, by: str) -> None:
        """Close an issue or a pull request."""
        repository, user, issue = self._may_change(full_name, number, by, "triage")
        self._issues.set_state(repository, issue, user, "closed")

    def reopen_issue(self, full_name: str, number: int, by: str) -> None:
        repository, user, issue = self._may_change(full_name, number, by, "triage")
        self._issues.set_state(repository, issue, user, "open")

    def label(self, full_name: str, number: int, label: str, by: str) -> None:
        repository, user = self._may(full_name, by, "triage")
        self._issues.label(repository, issue_numbered(repository, number), user, [label])

    def unlabel(self, full_name: str, number: int, label: str, by: str) -> None:
        repository, user = self._may(full_name, by, "triage")
        self._issues.unlabel(repository, issue_numbered(repository, number), user, label)

    def comment(self, full_name: str, number: int, by: str, body: str) -> int:
        """Comment on an issue or pull request; returns the comment's id."""
        repository, user = self._may(full_name, by, "read")
        return self._issues.comment(repository, issue_numbered(repository, number), user, body).id

    def edit_comment(self, full_name: str, comment_id: int, by: str, body: str) -> None:
        repository, user, comment = self._may_change_comment(full_name, comment_id, by)
        self._issues.edit_comment(repository, comment, user, body)

    def delete_comment(self, full_name: str, comment_id: int, by: str) -> None:
        repository, user, comment = self._may_change_comment(full_name, comment_id, by)
        self._issues.delete_comment(repository, comment, user)

    async def push_commit(
        self,
        full_name: str,
        branch: str,
        files: Mapping[str, str | bytes | None],
        by: str,
        message: str = "Change files",
    ) -> str:
        """Commit `files` (None removes one) on a branch, a new one from the default; returns the commit."""
        repository, user = self._may(full_name, by, "write")
        git = GitRepository(repository.path)
        before = await git.resolve_ref(f"{_BRANCH}{branch}")
        parent = before or await git.resolve_ref(f"{_BRANCH}{repository.default_branch}")
        after = await git.commit_files(branch, files, message, self._pulls.signature(user), parent)
        await self._pulls.pushed(
            repository, [RefUpdate(f"{_BRANCH}{branch}", before or NOTHING, after)], user
        )
        return after

    async def delete_branch(self, full_name: str, branch: str, by: str) -> None:
        repository, user = self._may(full_name, by, "write")
        git = GitRepository(repository.path)
        before = await git.resolve_ref(f"{_BRANCH}{branch}")
        if before is None:
            raise not_found()
        await git.git("update-ref", "-d", f"{_BRANCH}{branch}", before)
        await self._pulls.pushed(repository, [RefUpdate(f"{_BRANCH}{branch}", before, NOTHING)], user)

    async def open_pull_request(
        self, full_name: str, by: str, head: str, title: str, body: str = "", base: str = ""
    ) -> int:
        """Open a pull request for a branch and return its number; `base` is the default branch."""
        repository, user = self._may(full_name, by, "read")
        issue = await self._pulls.open(
            repository, user, title=title, body=body, head=head, base=base or repository.default_branch
        )
        return issue.number

    async def merge(self, full_name: str, number: int, by: str) -> str:
        """Merge a pull request for real and return the merge commit. Raises Refusal or MergeConflict."""
        repository, user = self._may(full_name, by, "write")
        return await self._pulls.merge(repository, issue_numbered(repository, number), user)

    # What there is to see.

    def repository(self, full_name: str) -> Repository:
        return self._repository(full_name)

    def issue(self, full_name: str, number: int) -> Issue:
        return issue_numbered(self._repository(full_name), number)

    def issues(self, full_name: str) -> list[Issue]:
        """Issues that are not pull requests, oldest first."""
        return [issue for issue in self._repository(full_name).issues.values() if issue.pull is None]

    def pull_requests(self, full_name: str) -> list[Issue]:
        """Pull requests, oldest first; what is theirs alone is in `.pull`."""
        return [issue for issue in self._repository(full_name).issues.values() if issue.pull is not None]

    def comments(self, full_name: str, number: int) -> list[Comment]:
        return self._repository(full_name).comments_of(number)

    async def diff(self, full_name: str, number: int) -> str:
        """What a pull request changes, as git shows it."""
        repository = self._repository(full_name)
        pull = issue_numbered(repository, number).pull
        if pull is None:
            raise not_found()
        return await GitRepository(repository.path).diff(pull.base_sha, pull.head_sha)

    async def branches(self, full_name: str) -> dict[str, str]:
        """The commit of every branch."""
        refs = await GitRepository(self._repository(full_name).path).refs(_BRANCH)
        return {ref.removeprefix(_BRANCH): sha for ref, sha in refs.items()}

    async def read_file(self, full_name: str, branch: str, path: str) -> str | None:
        """A file's text on a branch, or None when it is not there."""
        git = GitRepository(self._repository(full_name).path)
        commit = await git.resolve(branch)
        entries = await git.entries(commit, path) if commit else []
        if len(entries) != 1 or entries[0].path != path:
            return None
        return (await git.blob(entries[0].sha)).decode(errors="replace")

    # Faults, and waiting.

    def fail_next(
        self,
        method: str,
        path_regex: str,
        status: int,
        times: int = 1,
        *,
        message: str = "Server Error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next `times` requests that fit with `status`, doing nothing. Method "*" is any."""
        self._faults.fail_next(method, path_regex, status, times=times, message=message, headers=headers)

    def lose_answer_next(self, method: str, path_regex: str, times: int = 1) -> None:
        """Do what the next `times` requests that fit ask for, then cut the connection unanswered."""
        self._faults.lose_answer_next(method, path_regex, times=times)

    def hold_next(self, method: str, path_regex: str, *, acted: bool = False) -> Hold:
        """Stop the next request that fits (git's too) before it acts, or with `acted` before its answer."""
        return self._faults.hold_next(method, path_regex, acted=acted)

    def holding(self, method: str, path_regex: str) -> contextlib.AbstractContextManager[None]:
        """Inside, requests that fit (git's too) wait before they have any effect; at the end they go on."""
        return self._faults.holding(method, path_regex)

    def refuse_push_next(self, message: str) -> None:
        """Let a hook decline the next push, with `message`, as a ruleset of GitHub would."""
        self._faults.refuse_push_next(message)

    def calls_to(self, method: str, path_regex: str) -> list[ApiCall]:
        return [call for call in self.calls if call.method == method and re.search(path_regex, call.path)]

    async def wait_for(self, predicate: Callable[[], _T | None], timeout: float = 10) -> _T:
        """What `predicate` gives as soon as that is true; asked again after each change.

        Raises TimeoutError after `timeout` seconds, telling the latest calls and deliveries.
        """
        return await self.changes.wait_for(predicate, timeout, self._describe)

    def _describe(self) -> str:
        calls = [f"{call.method} {call.path} {call.status}" for call in self.calls[-15:]]
        sent = [f"{d.event}.{d.action} -> {d.status}" for d in self.deliveries[-15:]]
        return "latest calls:\n  {}\nlatest deliveries:\n  {}".format("\n  ".join(calls), "\n  ".join(sent))

    def _repository(self, full_name: str) -> Repository:
        found = self._state.repository_named(full_name)
        if found is None:
            raise not_found()
        return found

    def _may(self, full_name: str, login: str, least: Role) -> tuple[Repository, User]:
        repository = self._repository(full_name)
        user = self._state.users.get(login.lower())
        if user is None:
            raise LookupError(f"nobody is called {login!r} here; make them with add_user")
        if not repository.allows(login, "read"):
            raise not_found()
        if not repository.allows(login, least):
            raise Refusal(403, f"{login} needs the role {least!r} in {full_name} for this")
        return repository, user

    def _may_change(
        self, full_name: str, number: int, login: str, least: Role
    ) -> tuple[Repository, User, Issue]:
        """The author of an issue may change it; others need the role."""
        repository, user = self._may(full_name, login, "read")
        issue = issue_numbered(repository, number)
        if issue.user is not user:
            self._may(full_name, login, least)
        return repository, user, issue

    def _may_change_comment(
        self, full_name: str, comment_id: int, login: str
    ) -> tuple[Repository, User, Comment]:
        repository, user = self._may(full_name, login, "read")
        comment = repository.comments.get(comment_id)
        if comment is None:
            raise not_found()
        if comment.user is not user:
            self._may(full_name, login, "write")
        return repository, user, comment
