"""The JSON of accounts, repositories, issues, comments and the App, as api.github.com and webhooks send it.

Shapes follow GitHub's OpenAPI description and webhook schemas (octokit/openapi, octokit/webhooks), whose
required keys are all here; clients such as PyGithub follow the `url` fields and want them on their own host.
"""

from collections.abc import Collection
from typing import Any
from urllib.parse import quote

from handlers.playground.github_auth import InstallationToken
from handlers.playground.github_state import (
    Comment,
    GitHubState,
    Installation,
    Issue,
    Label,
    Reaction,
    Repository,
    Role,
    User,
    node_id,
    timestamp,
)

Json = dict[str, Any]

REACTIONS = ("+1", "-1", "laugh", "confused", "heart", "hooray", "rocket", "eyes")

_USER_LINKS = {
    "followers_url": "/followers",
    "following_url": "/following{/other_user}",
    "gists_url": "/gists{/gist_id}",
    "starred_url": "/starred{/owner}{/repo}",
    "subscriptions_url": "/subscriptions",
    "organizations_url": "/orgs",
    "repos_url": "/repos",
    "events_url": "/events{/privacy}",
    "received_events_url": "/received_events",
}
_REPOSITORY_LINKS = {
    "archive_url": "/{archive_format}{/ref}",
    "assignees_url": "/assignees{/user}",
    "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}",
    "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}",
    "commits_url": "/commits{/sha}",
    "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}",
    "contributors_url": "/contributors",
    "deployments_url": "/deployments",
    "downloads_url": "/downloads",
    "events_url": "/events",
    "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}",
    "keys_url": "/keys{/key_id}",
    "labels_url": "/labels{/name}",
    "languages_url": "/languages",
    "merges_url": "/merges",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}",
    "stargazers_url": "/stargazers",
    "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "tags_url": "/tags",
    "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}


class Shapes:
    """Turns what `state` holds into GitHub's JSON; links start with the state's `base_url` and `web_url`."""

    def __init__(self, state: GitHubState) -> None:
        self._state = state

    def api(self, path: str) -> str:
        return self._state.base_url + path

    def web(self, path: str) -> str:
        return (self._state.web_url or self._state.base_url) + path

    def of_repository(self, repository: Repository, path: str = "") -> str:
        return self.api(f"/repos/{repository.full_name}{path}")

    def user(self, user: User) -> Json:
        url = self.api(f"/users/{quote(user.login)}")
        page = f"/apps/{self._state.app.slug}" if user.kind == "Bot" else f"/{user.login}"
        return {
            "login": user.login,
            "id": user.id,
            "node_id": node_id("O" if user.kind == "Organization" else "U", user.id),
            "avatar_url": self.web(f"/avatars/{user.id}"),
            "gravatar_id": "",
            "url": url,
            "html_url": self.web(page),
            "type": user.kind,
            "user_view_type": "public",
            "site_admin": False,
        } | {name: url + path for name, path in _USER_LINKS.items()}

    def public_user(self, user: User) -> Json:
        """An account as GET /users/{login} gives it."""
        nothing = dict.fromkeys(
            ("name", "company", "location", "email", "hireable", "bio", "twitter_username")
        )
        counts = dict.fromkeys(("public_repos", "public_gists", "followers", "following"), 0)
        times = dict.fromkeys(("created_at", "updated_at"), timestamp(user.created_at))
        return self.user(user) | nothing | counts | times | {"blog": ""}

    def organization(self, user: User) -> Json:
        url = self.api(f"/orgs/{user.login}")
        return {
            "login": user.login,
            "id": user.id,
            "node_id": node_id("O", user.id),
            "url": url,
            "repos_url": f"{url}/repos",
            "events_url": f"{url}/events",
            "hooks_url": f"{url}/hooks",
            "issues_url": f"{url}/issues",
            "members_url": f"{url}/members{{/member}}",
            "public_members_url": f"{url}/public_members{{/member}}",
            "avatar_url": self.web(f"/avatars/{user.id}"),
            "description": "",
        }

    def repository_lite(self, repository: Repository) -> Json:
        """A repository as the `installation` events list it."""
        return {
            "id": repository.id,
            "node_id": node_id("R", repository.id),
            "name": repository.name,
            "full_name": repository.full_name,
            "private": repository.private,
        }

    def repository(self, repository: Repository) -> Json:
        url = self.of_repository(repository)
        page = self.web(f"/{repository.full_name}")
        git = self.api(f"/{repository.full_name}.git")
        opened = sum(issue.state == "open" for issue in repository.issues.values())
        zero = ("size", "stargazers_count", "watchers_count", "forks_count", "forks", "watchers")
        yes = ("has_issues", "has_projects", "has_downloads", "has_wiki", "allow_forking")
        no = ("fork", "has_pages", "has_discussions", "archived", "disabled", "is_template")
        return (
            self.repository_lite(repository)
            | {name: url + path for name, path in _REPOSITORY_LINKS.items()}
            | dict.fromkeys(zero, 0)
            | dict.fromkeys(yes, True)
            | dict.fromkeys(no, False)
            | dict.fromkeys(("description", "homepage", "language", "mirror_url", "license"))
            | {
                "owner": self.user(repository.owner),
                "url": url,
                "html_url": page,
                "git_url": git,
                "ssh_url": git,
                "clone_url": git,
                "svn_url": page,
                "default_branch": repository.default_branch,
                "visibility": "private" if repository.private else "public",
                "open_issues": opened,
                "open_issues_count": opened,
                "topics": [],
                "custom_properties": {},
                "web_commit_signoff_required": False,
                "created_at": timestamp(repository.created_at),
                "updated_at": timestamp(repository.pushed_at),
                "pushed_at": timestamp(repository.pushed_at),
            }
        )

    def full_repository(self, repository: Repository, permissions: dict[str, bool]) -> Json:
        """A repository as GET /repos/{owner}/{repo} gives it."""
        found = self.repository(repository) | {"network_count": 0, "subscribers_count": 0}
        found["permissions"] = permissions
        if repository.owner.kind == "Organization":
            found["organization"] = self.user(repository.owner)
        return found

    def label(self, repository: Repository, label: Label) -> Json:
        return {
            "id": label.id,
            "node_id": node_id("LA", label.id),
            "url": self.of_repository(repository, f"/labels/{quote(label.name)}"),
            "name": label.name,
            "color": label.color,
            "default": False,
            "description": label.description,
        }

    def reactions(self, url: str, reactions: Collection[Reaction]) -> Json:
        counts = {name: sum(r.content == name for r in reactions) for name in REACTIONS}
        return {"url": f"{url}/reactions", "total_count": len(reactions)} | counts

    def reaction(self, reaction: Reaction) -> Json:
        return {
            "id": reaction.id,
            "node_id": node_id("REA", reaction.id),
            "user": self.user(reaction.user),
            "content": reaction.content,
            "created_at": timestamp(reaction.created_at),
        }

    def issue(self, repository: Repository, issue: Issue) -> Json:
        url = self.of_repository(repository, f"/issues/{issue.number}")
        kind = "issues" if issue.pull is None else "pull"
        page = self.web(f"/{repository.full_name}/{kind}/{issue.number}")
        shape: Json = {
            "id": issue.id,
            "node_id": node_id("I" if issue.pull is None else "PR", issue.id),
            "url": url,
            "repository_url": self.of_repository(repository),
            "labels_url": f"{url}/labels{{/name}}",
            "comments_url": f"{url}/comments",
            "events_url": f"{url}/events",
            "timeline_url": f"{url}/timeline",
            "html_url": page,
            "number": issue.number,
            "title": issue.title,
            "body": issue.body,
            "user": self.user(issue.user),
            "author_association": self.association(repository, issue.user),
            "labels": [self.label(repository, label) for label in issue.labels],
            "state": issue.state,
            "state_reason": issue.state_reason,
            "locked": False,
            "active_lock_reason": None,
            "assignee": None,
            "assignees": [],
            "milestone": None,
            "comments": len(repository.comments_of(issue.number)),
            "created_at": timestamp(issue.created_at),
            "updated_at": timestamp(issue.updated_at),
            "closed_at": timestamp(issue.closed_at) if issue.closed_at else None,
            "closed_by": self.user(issue.closed_by) if issue.closed_by else None,
            "reactions": self.reactions(url, issue.reactions),
            "performed_via_github_app": self._via_app(issue.user),
        }
        if issue.pull is not None:
            merged = issue.pull.merged_at
            shape["draft"] = issue.pull.draft
            shape["pull_request"] = {
                "url": self.of_repository(repository, f"/pulls/{issue.number}"),
                "html_url": page,
                "diff_url": f"{page}.diff",
                "patch_url": f"{page}.patch",
                "merged_at": timestamp(merged) if merged else None,
            }
        return shape

    def comment(self, repository: Repository, comment: Comment) -> Json:
        url = self.of_repository(repository, f"/issues/comments/{comment.id}")
        issue = repository.issues[comment.number]
        kind = "issues" if issue.pull is None else "pull"
        page = self.web(f"/{repository.full_name}/{kind}/{comment.number}")
        return {
            "id": comment.id,
            "node_id": node_id("IC", comment.id),
            "url": url,
            "html_url": f"{page}#issuecomment-{comment.id}",
            "issue_url": self.of_repository(repository, f"/issues/{comment.number}"),
            "user": self.user(comment.user),
            "author_association": self.association(repository, comment.user),
            "body": comment.body,
            "created_at": timestamp(comment.created_at),
            "updated_at": timestamp(comment.updated_at),
            "reactions": self.reactions(url, comment.reactions),
            "performed_via_github_app": self._via_app(comment.user),
        }

    def association(self, repository: Repository, user: User) -> str:
        if user is repository.owner:
            return "OWNER"
        return "COLLABORATOR" if user.login.lower() in repository.roles else "NONE"

    def permission(self, repository: Repository, user: User) -> Json:
        """A collaborator's permission: `permission` knows four words only, `role_name` all of them."""
        role = repository.role_of(user.login)
        coarse: dict[Role, str] = {"maintain": "write", "triage": "read"}
        about = {"permissions": role_flags(repository, user.login), "role_name": role}
        return {"permission": coarse.get(role, role), "role_name": role, "user": self.user(user) | about}

    def app(self) -> Json:
        app = self._state.app
        return {
            "id": app.id,
            "slug": app.slug,
            "node_id": node_id("A", app.id),
            "client_id": app.client_id,
            "owner": self.user(app.owner),
            "name": app.slug,
            "description": "",
            "external_url": self.web(f"/apps/{app.slug}"),
            "html_url": self.web(f"/apps/{app.slug}"),
            "created_at": timestamp(app.created_at),
            "updated_at": timestamp(app.created_at),
            "permissions": app.permissions,
            "events": list(app.events),
            "installations_count": len(self._state.installations),
        }

    def _via_app(self, user: User) -> Json | None:
        return self.app() if user is self._state.app.bot else None

    def installation(self, installation: Installation) -> Json:
        account = installation.account
        page = f"/organizations/{account.login}" if account.kind == "Organization" else ""
        return {
            "id": installation.id,
            "node_id": node_id("IN", installation.id),
            "account": self.user(account),
            "repository_selection": "selected",
            "access_tokens_url": self.api(f"/app/installations/{installation.id}/access_tokens"),
            "repositories_url": self.api("/installation/repositories"),
            "html_url": self.web(f"{page}/settings/installations/{installation.id}"),
            "app_id": self._state.app.id,
            "app_slug": self._state.app.slug,
            "client_id": self._state.app.client_id,
            "target_id": account.id,
            "target_type": account.kind,
            "permissions": installation.permissions,
            "events": list(self._state.app.events),
            "single_file_name": None,
            "has_multiple_single_files": False,
            "single_file_paths": [],
            "suspended_by": None,
            "suspended_at": timestamp(installation.suspended_at) if installation.suspended_at else None,
            "created_at": timestamp(installation.created_at),
            "updated_at": timestamp(installation.created_at),
        }

    def token(self, token: InstallationToken, expires_at: str) -> Json:
        shape: Json = {
            "token": token.token,
            "expires_at": expires_at,
            "permissions": dict(token.permissions),
            "repository_selection": "selected",
        }
        if token.repository_ids is not None:
            known = self._state.repositories
            shape["repositories"] = [self.repository(known[id]) for id in sorted(token.repository_ids)]
        return shape


def role_flags(repository: Repository, login: str) -> dict[str, bool]:
    """GitHub's `permissions` object of a person in a repository."""
    levels: dict[str, Role] = {
        "admin": "admin",
        "maintain": "maintain",
        "push": "write",
        "triage": "triage",
        "pull": "read",
    }
    return {name: repository.allows(login, least) for name, least in levels.items()}
