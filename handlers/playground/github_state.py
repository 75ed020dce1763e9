"""What the loopback GitHub remembers: accounts, repositories, issues, pull requests, the App. Data only."""

import base64
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

Role = Literal["admin", "maintain", "write", "triage", "read", "none"]
ROLES: tuple[Role, ...] = ("none", "read", "triage", "write", "maintain", "admin")

DEFAULT_PERMISSIONS = {"contents": "write", "issues": "write", "metadata": "read", "pull_requests": "write"}
DEFAULT_EVENTS = ("issues", "issue_comment", "pull_request", "push")


@dataclass(slots=True, eq=False)
class User:
    """A person, a bot or an organization."""

    id: int
    login: str
    kind: Literal["User", "Bot", "Organization"]
    created_at: datetime

    @property
    def email(self) -> str:
        """The address that GitHub puts on web commits, by which a commit is traced back to its account."""
        return f"{self.id}+{self.login}@users.noreply.github.com"


@dataclass(slots=True, eq=False)
class Label:
    id: int
    name: str
    color: str = "ededed"
    description: str | None = None


@dataclass(slots=True, eq=False)
class Reaction:
    id: int
    user: User
    content: str
    created_at: datetime


@dataclass(slots=True, eq=False)
class Comment:
    """A comment on an issue or a pull request (not a review comment)."""

    id: int
    number: int
    user: User
    body: str
    created_at: datetime
    updated_at: datetime
    reactions: list[Reaction] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class PullRequest:
    """What a pull request has beyond the issue of the same number. Its numbers are those of the last push."""

    id: int
    head: str
    base: str
    head_sha: str
    base_sha: str
    draft: bool
    commits: int = 0
    additions: int = 0
    deletions: int = 0
    changed_files: int = 0
    requested_reviewers: list[User] = field(default_factory=list)
    merged_at: datetime | None = None
    merged_by: User | None = None
    merge_commit_sha: str | None = None


@dataclass(slots=True, eq=False)
class Issue:
    """An issue, or a pull request when `pull` is set: they share numbers, comments and labels."""

    id: int
    number: int
    title: str
    body: str | None
    user: User
    created_at: datetime
    updated_at: datetime
    pull: PullRequest | None = None
    state: Literal["open", "closed"] = "open"
    state_reason: str | None = None
    closed_at: datetime | None = None
    closed_by: User | None = None
    labels: list[Label] = field(default_factory=list)
    reactions: list[Reaction] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Repository:
    id: int
    owner: User
    name: str
    private: bool
    default_branch: str
    path: Path
    created_at: datetime
    pushed_at: datetime
    roles: dict[str, Role] = field(default_factory=dict)
    issues: dict[int, Issue] = field(default_factory=dict)
    comments: dict[int, Comment] = field(default_factory=dict)
    labels: dict[str, Label] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        return f"{self.owner.login}/{self.name}"

    def role_of(self, login: str) -> Role:
        """Everybody may read a public repository; that is what GitHub answers for strangers, too."""
        return self.roles.get(login.lower(), "none" if self.private else "read")

    def allows(self, login: str, least: Role) -> bool:
        return ROLES.index(self.role_of(login)) >= ROLES.index(least)

    def comments_of(self, number: int) -> list[Comment]:
        return [comment for comment in self.comments.values() if comment.number == number]


@dataclass(slots=True, eq=False)
class Installation:
    """The App on one account, for selected repositories."""

    id: int
    account: User
    permissions: dict[str, str]
    created_at: datetime
    repository_ids: set[int] = field(default_factory=set)
    suspended_at: datetime | None = None


@dataclass(slots=True, eq=False)
class App:
    id: int
    slug: str
    owner: User
    bot: User
    client_id: str
    permissions: dict[str, str]
    events: tuple[str, ...]
    created_at: datetime


class GitHubState:
    """Everything, with the look-ups. Names are compared without case, as GitHub does."""

    def __init__(
        self,
        slug: str,
        clock: Callable[[], float],
        permissions: dict[str, str] | None = None,
        events: tuple[str, ...] = DEFAULT_EVENTS,
    ) -> None:
        # Ids of different things never coincide, so that mixing up two kinds of id is noticed.
        self._ids = itertools.count(120_001)
        self.clock = clock
        self.base_url = ""
        self.web_url = ""
        self.users: dict[str, User] = {}
        self.repositories: dict[int, Repository] = {}
        self.installations: dict[int, Installation] = {}
        self.app = App(
            id=self.next_id(),
            slug=slug,
            owner=self.add_user("playground", "Organization"),
            bot=self.add_user(f"{slug}[bot]", "Bot"),
            client_id=f"Iv23liPlayground{slug}",
            permissions=dict(permissions or DEFAULT_PERMISSIONS),
            events=events,
            created_at=self.now(),
        )

    def next_id(self) -> int:
        return next(self._ids)

    def now(self) -> datetime:
        return self.moment(self.clock())

    @staticmethod
    def moment(seconds: float) -> datetime:
        """A time of the clock, cut to whole seconds: GitHub's timestamps have no fractions."""
        return datetime.fromtimestamp(int(seconds), UTC)

    def add_user(self, login: str, kind: Literal["User", "Bot", "Organization"] = "User") -> User:
        """The account of that login, made if there is none."""
        found = self.users.get(login.lower())
        if found is None:
            found = self.users[login.lower()] = User(self.next_id(), login, kind, self.now())
        return found

    def rename_user(self, login: str, to: str) -> None:
        user = self.users.pop(login.lower())
        user.login = to
        self.users[to.lower()] = user
        for repository in self.repositories.values():
            if login.lower() in repository.roles:
                repository.roles[to.lower()] = repository.roles.pop(login.lower())

    def repository_named(self, full_name: str) -> Repository | None:
        wanted = full_name.lower()
        return next((r for r in self.repositories.values() if r.full_name.lower() == wanted), None)

    def installation_of(self, repository: Repository) -> Installation | None:
        return next((i for i in self.installations.values() if repository.id in i.repository_ids), None)

    def user_by_email(self, email: str) -> User | None:
        return next((user for user in self.users.values() if user.email.lower() == email.lower()), None)

    def pull_by_node_id(self, wanted: str) -> tuple[Repository, Issue] | None:
        for repository in self.repositories.values():
            for issue in repository.issues.values():
                if issue.pull is not None and node_id("PR", issue.pull.id) == wanted:
                    return repository, issue
        return None


def node_id(kind: str, number: int) -> str:
    """An opaque global id in the form of GitHub's, such as `PR_kwDO…`."""
    return f"{kind}_kwDO{base64.urlsafe_b64encode(number.to_bytes(8, 'big')).decode().rstrip('=')}"


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
