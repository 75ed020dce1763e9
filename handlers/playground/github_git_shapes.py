"""The JSON of pull requests, commits, branches, files and pushes, as api.github.com and webhooks send it."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from handlers.playground.git_records import (
    NOTHING,
    Commit,
    FileChange,
    RefUpdate,
    Signature,
    Touched,
    TreeEntry,
)
from handlers.playground.github_shapes import Json, Shapes
from handlers.playground.github_state import (
    GitHubState,
    Issue,
    PullRequest,
    Repository,
    User,
    node_id,
    timestamp,
)

_UNSIGNED = {"verified": False, "reason": "unsigned", "signature": None, "payload": None, "verified_at": None}


class GitShapes:
    """Turns commits and what hangs on them into GitHub's JSON."""

    def __init__(self, state: GitHubState, shapes: Shapes) -> None:
        self._state = state
        self._shapes = shapes

    def pull(self, repository: Repository, issue: Issue) -> Json:
        """A pull request as lists show it. `issue.pull` must be set."""
        pull = _pull_of(issue)
        shapes = self._shapes
        url = shapes.of_repository(repository, f"/pulls/{issue.number}")
        issue_url = shapes.of_repository(repository, f"/issues/{issue.number}")
        statuses = shapes.of_repository(repository, f"/statuses/{pull.head_sha}")
        page = shapes.web(f"/{repository.full_name}/pull/{issue.number}")
        links = {
            "self": url,
            "html": page,
            "issue": issue_url,
            "comments": f"{issue_url}/comments",
            "review_comments": f"{url}/comments",
            "review_comment": shapes.of_repository(repository, "/pulls/comments{/number}"),
            "commits": f"{url}/commits",
            "statuses": statuses,
        }
        same = shapes.issue(repository, issue)
        kept = (
            "number", "title", "body", "user", "author_association", "labels", "state", "locked",
            "active_lock_reason", "assignee", "assignees", "milestone",
            "created_at", "updated_at", "closed_at",
        )  # fmt: skip
        return {name: same[name] for name in kept} | {
            "id": pull.id,
            "node_id": node_id("PR", pull.id),
            "url": url,
            "html_url": page,
            "diff_url": f"{page}.diff",
            "patch_url": f"{page}.patch",
            "issue_url": issue_url,
            "commits_url": links["commits"],
            "review_comments_url": links["review_comments"],
            "review_comment_url": links["review_comment"],
            "comments_url": links["comments"],
            "statuses_url": statuses,
            "draft": pull.draft,
            "merged_at": timestamp(pull.merged_at) if pull.merged_at else None,
            "merge_commit_sha": pull.merge_commit_sha,
            "requested_reviewers": [shapes.user(user) for user in pull.requested_reviewers],
            "requested_teams": [],
            "auto_merge": None,
            "head": self._side(repository, pull.head, pull.head_sha),
            "base": self._side(repository, pull.base, pull.base_sha),
            "_links": {name: {"href": link} for name, link in links.items()},
        }

    def full_pull(self, repository: Repository, issue: Issue, mergeable: bool | None = None) -> Json:
        """A pull request as its own endpoint and webhooks show it; `mergeable` None is "not known yet"."""
        pull = _pull_of(issue)
        state = {True: "clean", False: "dirty", None: "unknown"}[mergeable]
        return self.pull(repository, issue) | {
            "merged": pull.merged_at is not None,
            "merged_by": self._shapes.user(pull.merged_by) if pull.merged_by else None,
            "mergeable": mergeable,
            "rebaseable": mergeable,
            "mergeable_state": "draft" if pull.draft and mergeable else state,
            "maintainer_can_modify": False,
            "comments": len(repository.comments_of(issue.number)),
            "review_comments": 0,
            "commits": pull.commits,
            "additions": pull.additions,
            "deletions": pull.deletions,
            "changed_files": pull.changed_files,
        }

    def account(self, user: User) -> Json:
        return self._shapes.user(user)

    def _side(self, repository: Repository, branch: str, sha: str) -> Json:
        repo = self._shapes.repository(repository) | {
            "allow_auto_merge": False,
            "allow_merge_commit": True,
            "allow_rebase_merge": True,
            "allow_squash_merge": True,
            "delete_branch_on_merge": False,
        }
        label = f"{repository.owner.login}:{branch}"
        return {"label": label, "ref": branch, "sha": sha, "user": repo["owner"], "repo": repo}

    def commit(self, repository: Repository, commit: Commit) -> Json:
        url = self._shapes.of_repository(repository, f"/commits/{commit.sha}")
        git = self._shapes.of_repository(repository, "/git")
        return {
            "sha": commit.sha,
            "node_id": f"C_kwDO{commit.sha}",
            "url": url,
            "html_url": self._commit_page(repository, commit.sha),
            "comments_url": f"{url}/comments",
            "commit": {
                "url": f"{git}/commits/{commit.sha}",
                "message": commit.message,
                "author": _signature(commit.author),
                "committer": _signature(commit.committer),
                "tree": {"sha": commit.tree, "url": f"{git}/trees/{commit.tree}"},
                "comment_count": 0,
                "verification": _UNSIGNED,
            },
            "author": self._account(commit.author),
            "committer": self._account(commit.committer),
            "parents": [
                {
                    "sha": sha,
                    "url": self._shapes.of_repository(repository, f"/commits/{sha}"),
                    "html_url": self._commit_page(repository, sha),
                }
                for sha in commit.parents
            ],
        }

    def file(self, repository: Repository, change: FileChange, at: str) -> Json:
        """A changed file; `at` is the commit in which it is to be looked up."""
        path = quote(change.path)
        shape = {
            "sha": change.blob,
            "filename": change.path,
            "status": change.status,
            "additions": change.additions,
            "deletions": change.deletions,
            "changes": change.additions + change.deletions,
            "blob_url": self._shapes.web(f"/{repository.full_name}/blob/{at}/{path}"),
            "raw_url": self._shapes.web(f"/{repository.full_name}/raw/{at}/{path}"),
            "contents_url": self._shapes.of_repository(repository, f"/contents/{path}?ref={at}"),
        }
        if change.patch is not None:
            shape["patch"] = change.patch
        if change.previous is not None:
            shape["previous_filename"] = change.previous
        return shape

    def branch(self, repository: Repository, name: str, commit: Json) -> Json:
        """A branch with `commit`, which is either a whole commit or its sha and url."""
        url = self._shapes.of_repository(repository, f"/branches/{quote(name)}")
        return {
            "name": name,
            "commit": commit,
            "_links": {"self": url, "html": self._shapes.web(f"/{repository.full_name}/tree/{quote(name)}")},
            "protected": False,
            "protection": {
                "enabled": False,
                "required_status_checks": {"enforcement_level": "off", "contexts": [], "checks": []},
            },
            "protection_url": f"{url}/protection",
        }

    def ref(self, repository: Repository, name: str, sha: str) -> Json:
        git = self._shapes.of_repository(repository, "/git")
        return {
            "ref": name,
            "node_id": f"REF_kwDO{base64.urlsafe_b64encode(name.encode()).decode().rstrip('=')}",
            "url": f"{git}/{name}",
            "object": {"type": "commit", "sha": sha, "url": f"{git}/commits/{sha}"},
        }

    def content(self, repository: Repository, entry: TreeEntry, at: str, text: bytes | None) -> Json:
        """A file or directory of the commit `at`; with `text`, the whole file."""
        path = quote(entry.path)
        url = self._shapes.of_repository(repository, f"/contents/{path}?ref={at}")
        kind = "tree" if entry.kind == "tree" else "blob"
        git_url = self._shapes.of_repository(repository, f"/git/{kind}s/{entry.sha}")
        page = self._shapes.web(f"/{repository.full_name}/{kind}/{at}/{path}")
        raw = self._shapes.web(f"/{repository.full_name}/raw/{at}/{path}")
        shape: Json = {
            "type": "dir" if kind == "tree" else "file",
            "name": entry.path.rpartition("/")[2],
            "path": entry.path,
            "sha": entry.sha,
            "size": entry.size,
            "url": url,
            "git_url": git_url,
            "html_url": page,
            "download_url": raw if kind == "blob" else None,
            "_links": {"self": url, "git": git_url, "html": page},
        }
        if text is not None:
            shape |= {"encoding": "base64", "content": base64.encodebytes(text).decode()}
        return shape

    def push(
        self,
        repository: Repository,
        update: RefUpdate,
        forced: bool,
        commits: Sequence[Commit],
        touched: Mapping[str, Touched],
        pusher: User,
    ) -> Json:
        """The `push` webhook, without sender and installation; `commits` are oldest first."""
        span = f"{update.before[:12]}...{update.after[:12]}"
        shapes = [self._pushed_commit(repository, commit, touched[commit.sha]) for commit in commits]
        shape = self._shapes.repository(repository)
        # In this one event GitHub gives the repository's times as numbers and its owner with name and email.
        shape |= {
            "created_at": int(repository.created_at.timestamp()),
            "pushed_at": int(repository.pushed_at.timestamp()),
            "owner": shape["owner"] | {"name": repository.owner.login, "email": None},
            "master_branch": repository.default_branch,
            "stargazers": 0,
        }
        return {
            "ref": update.ref,
            "before": update.before,
            "after": update.after,
            "created": update.before == NOTHING,
            "deleted": update.after == NOTHING,
            "forced": forced,
            "base_ref": None,
            "compare": self._shapes.web(f"/{repository.full_name}/compare/{span}"),
            "commits": shapes,
            "head_commit": shapes[-1] if shapes else None,
            "repository": shape,
            "pusher": {"name": pusher.login, "email": pusher.email},
        }

    def _pushed_commit(self, repository: Repository, commit: Commit, touched: Touched) -> Json:
        return {
            "id": commit.sha,
            "tree_id": commit.tree,
            "distinct": True,
            "message": commit.message,
            "timestamp": commit.committer.at.isoformat(),
            "url": self._commit_page(repository, commit.sha),
            "author": self._pushed_signature(commit.author),
            "committer": self._pushed_signature(commit.committer),
            "added": touched.added,
            "removed": touched.removed,
            "modified": touched.modified,
        }

    def _pushed_signature(self, signature: Signature) -> Json:
        account = self._state.user_by_email(signature.email)
        shape = {"name": signature.name, "email": signature.email, "date": signature.at.isoformat()}
        return shape | ({"username": account.login} if account else {})

    def _account(self, signature: Signature) -> Json | None:
        account = self._state.user_by_email(signature.email)
        return self._shapes.user(account) if account else None

    def _commit_page(self, repository: Repository, sha: str) -> str:
        return self._shapes.web(f"/{repository.full_name}/commit/{sha}")


def _pull_of(issue: Issue) -> PullRequest:
    if issue.pull is None:
        raise ValueError(f"#{issue.number} is an issue, not a pull request")
    return issue.pull


def _signature(signature: Signature) -> dict[str, Any]:
    return {"name": signature.name, "email": signature.email, "date": timestamp(signature.at)}
