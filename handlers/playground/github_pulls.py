"""Pull requests and pushes: opening, following the branch, merging, and closing what a merge fixes."""

import asyncio
import re
from collections.abc import Sequence

from handlers.playground.git_records import NOTHING, RefUpdate, Signature
from handlers.playground.git_repository import GitRepository
from handlers.playground.github_errors import Refusal, invalid
from handlers.playground.github_git_shapes import GitShapes
from handlers.playground.github_hooks import Hooks
from handlers.playground.github_issues import Issues, check_texts
from handlers.playground.github_state import GitHubState, Issue, PullRequest, Repository, User

_BRANCH = "refs/heads/"
_MOST_COMMITS_IN_A_PUSH = 2048
# docs.github.com, "Linking a pull request to an issue"
_FIXES = re.compile(r"\b(?:close[sd]?|fix(?:e[sd])?|resolve[sd]?):?\s+#(\d+)\b", re.IGNORECASE)


class Pulls:
    """Pull requests within a repository; there are no forks."""

    def __init__(self, state: GitHubState, git_shapes: GitShapes, hooks: Hooks, issues: Issues) -> None:
        self._state = state
        self._git_shapes = git_shapes
        self._hooks = hooks
        self._issues = issues

    async def open(
        self,
        repository: Repository,
        by: User,
        *,
        title: str | None,
        body: str | None,
        head: str,
        base: str,
        draft: bool = False,
    ) -> Issue:
        """Open a pull request; `head` is `branch` or `owner:branch`. Raises Refusal (422) as GitHub does."""
        git = GitRepository(repository.path)
        owner, colon, branch = head.rpartition(":")
        if colon and owner.lower() != repository.owner.login.lower():
            raise invalid("PullRequest", "invalid", "head")
        head_sha = await git.resolve_ref(f"{_BRANCH}{branch}")
        base_sha = await git.resolve_ref(f"{_BRANCH}{base}")
        for name, sha in (("head", head_sha), ("base", base_sha)):
            if sha is None:
                raise invalid("PullRequest", "invalid", name)
        assert head_sha is not None and base_sha is not None  # noqa: S101 - for the type checker
        check_texts("PullRequest", title, body)
        if await git.merge_base(base_sha, head_sha) is None:
            message = f"The {branch} branch has no history in common with {base}"
            raise invalid("PullRequest", "custom", message=message)
        if await git.count(f"{base_sha}..{head_sha}") == 0:
            message = f"No commits between {base} and {branch}"
            raise invalid("PullRequest", "custom", message=message)
        pull = PullRequest(self._state.next_id(), branch, base, head_sha, base_sha, draft)
        await self._measure(git, pull)
        # Nothing may be awaited between this check and the pull request being there.
        if any(p.head == branch and p.base == base for _, p in self._opened(repository)):
            message = f"A pull request already exists for {repository.owner.login}:{branch}."
            raise invalid("PullRequest", "custom", message=message)
        issue = self._issues.add(repository, by, title or "", body)
        issue.pull = pull
        await git.update_ref(f"refs/pull/{issue.number}/head", head_sha)
        self._issues.announce(repository, issue, "opened", by)
        return issue

    async def retarget(self, repository: Repository, issue: Issue, by: User, base: str) -> None:
        """Change the base branch of an open pull request."""
        git = GitRepository(repository.path)
        sha = await git.resolve_ref(f"{_BRANCH}{base}")
        if sha is None or issue.pull is None:
            raise invalid("PullRequest", "invalid", "base")
        if base == issue.pull.base:
            return
        was, before = issue.pull.base, issue.pull.base_sha
        issue.pull.base, issue.pull.base_sha = base, sha
        await self._measure(git, issue.pull)
        changed = {"base": {"ref": {"from": was}, "sha": {"from": before}}}
        self._issues.announce(repository, issue, "edited", by, {"changes": changed})

    def set_draft(self, repository: Repository, issue: Issue, by: User, draft: bool) -> None:
        if issue.pull is not None and issue.pull.draft != draft:
            issue.pull.draft = draft
            self._issues.announce(
                repository, issue, "converted_to_draft" if draft else "ready_for_review", by
            )

    def request_review(self, repository: Repository, issue: Issue, by: User, logins: Sequence[str]) -> None:
        """Ask collaborators for a review. Raises Refusal (422) for anybody else, and for the author."""
        if issue.pull is None:
            raise invalid("PullRequest", "invalid", "number")
        reviewers = [self._state.users.get(login.lower()) for login in logins]
        if any(user is None or user.login.lower() not in repository.roles for user in reviewers):
            raise Refusal(
                422,
                "Reviews may only be requested from collaborators. One or more of the users or teams "
                f"you specified is not a collaborator of the {repository.full_name} repository.",
            )
        if issue.user in reviewers:
            raise Refusal(422, "Review cannot be requested from pull request author.")
        for user in reviewers:
            if user is not None and user not in issue.pull.requested_reviewers:
                issue.pull.requested_reviewers.append(user)
                asked = {"requested_reviewer": self._git_shapes.account(user)}
                self._issues.announce(repository, issue, "review_requested", by, asked)

    async def mergeable(self, repository: Repository, issue: Issue) -> bool | None:
        """Whether an open pull request merges without conflict; None when it is closed."""
        if issue.pull is None or issue.state == "closed":
            return None
        git = GitRepository(repository.path)
        base = await git.resolve_ref(f"{_BRANCH}{issue.pull.base}")
        return base is not None and await git.merges_cleanly(base, issue.pull.head_sha)

    async def merge(self, repository: Repository, issue: Issue, by: User) -> str:
        """Merge for real, with a merge commit; returns it. Raises Refusal (405) or MergeConflict."""
        pull = issue.pull
        if pull is None or issue.state == "closed" or pull.draft:
            raise Refusal(405, "Pull Request is not mergeable")
        git = GitRepository(repository.path)
        message = (
            f"Merge pull request #{issue.number} from {repository.owner.login}/{pull.head}\n\n{issue.title}\n"
        )
        update = await git.merge(pull.base, pull.head_sha, message, self.signature(by))
        pull.merged_at, pull.merged_by, pull.merge_commit_sha = self._state.now(), by, update.after
        pull.base_sha = update.before
        self._issues.set_state(repository, issue, by, "closed")
        if pull.base == repository.default_branch:
            self._close_fixed(repository, issue.body or "", by)
        await self.pushed(repository, [update], by)
        return update.after

    async def pushed(self, repository: Repository, updates: Sequence[RefUpdate], by: User) -> None:
        """Refs have moved: announce it, and bring the pull requests of those branches up to date."""
        git = GitRepository(repository.path)
        for update in updates:
            repository.pushed_at = self._state.now()
            await self._announce_push(repository, git, update, by)
            if not update.ref.startswith(_BRANCH):
                continue
            branch = update.ref.removeprefix(_BRANCH)
            for issue, pull in self._opened(repository):
                if pull.head == branch and update.after == NOTHING:
                    self._issues.set_state(repository, issue, by, "closed")
                elif pull.head == branch:
                    pull.head_sha = update.after
                    pull.base_sha = await git.resolve_ref(f"{_BRANCH}{pull.base}") or pull.base_sha
                    await self._measure(git, pull)
                    await git.update_ref(f"refs/pull/{issue.number}/head", update.after)
                    issue.updated_at = self._state.now()
                    moved = {"before": update.before, "after": update.after}
                    self._issues.announce(repository, issue, "synchronize", by, moved)

    async def _announce_push(
        self, repository: Repository, git: GitRepository, update: RefUpdate, by: User
    ) -> None:
        commits, forced = [], False
        if update.after != NOTHING:
            if update.before != NOTHING:
                forced = not await git.is_ancestor(update.before, update.after)
                since = [f"^{update.before}"]
            else:
                others = (await git.refs(_BRANCH)).items()
                since = [f"^{sha}" for ref, sha in others if ref != update.ref]
            commits = await git.commits(update.after, *since, limit=_MOST_COMMITS_IN_A_PUSH)
        commits.reverse()
        touched = await git.touched([commit.sha for commit in commits])
        payload = self._git_shapes.push(repository, update, forced, commits, touched, by)
        self._hooks.announce("push", payload, by=by, repository=repository)
        if update.ref == f"{_BRANCH}{repository.default_branch}":
            for commit in commits:
                self._close_fixed(repository, commit.message, by)

    def signature(self, by: User) -> Signature:
        return Signature(by.login, by.email, self._state.now())

    def _close_fixed(self, repository: Repository, text: str, by: User) -> None:
        for number in _FIXES.findall(text):
            fixed = repository.issues.get(int(number))
            if fixed is not None and fixed.pull is None:
                self._issues.set_state(repository, fixed, by, "closed")

    def _opened(self, repository: Repository) -> list[tuple[Issue, PullRequest]]:
        return [(i, i.pull) for i in repository.issues.values() if i.pull is not None and i.state == "open"]

    async def _measure(self, git: GitRepository, pull: PullRequest) -> None:
        count, changes = await asyncio.gather(
            git.count(f"{pull.base_sha}..{pull.head_sha}"), git.changed_files(pull.base_sha, pull.head_sha)
        )
        pull.commits = count
        pull.changed_files = len(changes)
        pull.additions = sum(change.additions for change in changes)
        pull.deletions = sum(change.deletions for change in changes)
