"""Endpoints of pull requests, and the two GraphQL mutations for which REST has no endpoint."""

import re
from typing import Literal, cast

from handlers.playground.git_repository import GitRepository
from handlers.playground.github_auth import check_reach
from handlers.playground.github_errors import invalid, not_found
from handlers.playground.github_git_shapes import GitShapes
from handlers.playground.github_issues import Issues
from handlers.playground.github_pulls import Pulls
from handlers.playground.github_rest import Answer, Call, Endpoint, page
from handlers.playground.github_state import Issue, PullRequest, node_id

_READ = {"pull_requests": "read"}
_WRITE = {"pull_requests": "write"}
_MOST_COMMITS = 250
_MUTATION = re.compile(r"\b(markPullRequestReadyForReview|convertPullRequestToDraft)\s*\(")


class PullEndpoints:
    def __init__(self, git_shapes: GitShapes, issues: Issues, pulls: Pulls) -> None:
        self._git_shapes = git_shapes
        self._issues = issues
        self._pulls = pulls

    def endpoints(self) -> list[Endpoint]:
        pull = "pulls/{number:int}"
        return [
            Endpoint("GET", "pulls", self._list, _READ),
            Endpoint("POST", "pulls", self._open, _WRITE, creates_content=True),
            Endpoint("GET", pull, self._get, _READ),
            Endpoint("PATCH", pull, self._edit, _WRITE),
            Endpoint("GET", f"{pull}/files", self._files, _READ),
            Endpoint("GET", f"{pull}/commits", self._commits, _READ),
            Endpoint("POST", f"{pull}/requested_reviewers", self._request_review, _WRITE),
            Endpoint("POST", "/graphql", self._graphql),
        ]

    async def _list(self, call: Call) -> Answer:
        state, base, head = call.query("state", "open"), call.query("base"), call.query("head")
        # GitHub wants `owner:branch` here, and without the colon lists everything.
        owner, colon, branch = head.partition(":")
        of_owner = owner.lower() == call.repository.owner.login.lower()
        found = [
            (issue, issue.pull)
            for issue in call.repository.issues.values()
            if issue.pull is not None and state in ("all", issue.state) and base in ("", issue.pull.base)
        ]
        if colon:
            found = [(issue, pull) for issue, pull in found if of_owner and pull.head == branch]
        # Ascending is the default for every order but that of creation.
        newest_first = call.query("direction", "desc" if call.query("sort") in ("", "created") else "asc")
        by_update = call.query("sort") == "updated"
        found.sort(
            key=lambda pair: (pair[0].updated_at if by_update else pair[0].created_at, pair[0].number),
            reverse=newest_first == "desc",
        )
        return page(call, found, lambda pair: self._git_shapes.pull(call.repository, pair[0]))

    async def _open(self, call: Call) -> Answer:
        head, base = call.field("head", str, "PullRequest"), call.field("base", str, "PullRequest")
        for name, value in (("head", head), ("base", base)):
            if not value:
                raise invalid("PullRequest", "missing_field", name)
        issue = await self._pulls.open(
            call.repository,
            call.bot,
            title=call.field("title", str, "PullRequest"),
            body=call.field("body", str, "PullRequest"),
            head=head or "",
            base=base or "",
            draft=bool(call.field("draft", bool, "PullRequest")),
        )
        return Answer(self._git_shapes.full_pull(call.repository, issue), 201)

    async def _get(self, call: Call) -> Answer:
        issue, _ = _pull(call)
        mergeable = await self._pulls.mergeable(call.repository, issue)
        return Answer(self._git_shapes.full_pull(call.repository, issue, mergeable))

    async def _edit(self, call: Call) -> Answer:
        issue, _ = _pull(call)
        title, body = call.field("title", str, "PullRequest"), call.field("body", str, "PullRequest")
        state, base = call.field("state", str, "PullRequest"), call.field("base", str, "PullRequest")
        if state not in (None, "open", "closed"):
            raise invalid("PullRequest", "invalid", "state")
        if base is not None:
            await self._pulls.retarget(call.repository, issue, call.bot, base)
        self._issues.edit(call.repository, issue, call.bot, title=title, body=body)
        if state is not None:
            wanted = cast(Literal["open", "closed"], state)
            self._issues.set_state(call.repository, issue, call.bot, wanted)
        return Answer(self._git_shapes.full_pull(call.repository, issue))

    async def _files(self, call: Call) -> Answer:
        _, pull = _pull(call)
        changes = await GitRepository(call.repository.path).changed_files(pull.base_sha, pull.head_sha)
        return page(
            call, changes, lambda change: self._git_shapes.file(call.repository, change, pull.head_sha)
        )

    async def _commits(self, call: Call) -> Answer:
        _, pull = _pull(call)
        git = GitRepository(call.repository.path)
        found = await git.commits(pull.head_sha, f"^{pull.base_sha}", limit=_MOST_COMMITS)
        found.reverse()
        return page(call, found, lambda commit: self._git_shapes.commit(call.repository, commit))

    async def _request_review(self, call: Call) -> Answer:
        issue, _ = _pull(call)
        logins = call.strings("reviewers", "PullRequest") or []
        self._pulls.request_review(call.repository, issue, call.bot, logins)
        return Answer(self._git_shapes.pull(call.repository, issue), 201)

    async def _graphql(self, call: Call) -> Answer:
        """Mark a pull request as ready or as a draft; every other document is answered with an error."""
        mutation = _MUTATION.search(call.field("query", str) or "")
        given = (call.field("variables", dict) or {}).get("input")
        given = given if isinstance(given, dict) else {}
        wanted = str(given.get("pullRequestId", ""))
        if mutation is None:
            return _graphql_error("Only the mutations of a pull request's draft state are known here")
        found = call.state.pull_by_node_id(wanted)
        if found is None:
            return _graphql_error(f"Could not resolve to a node with the global id of '{wanted}'")
        repository, issue = found
        check_reach(call.installation_token, repository, _WRITE)
        self._pulls.set_draft(repository, issue, call.bot, mutation[1] == "convertPullRequestToDraft")
        pull = cast(PullRequest, issue.pull)
        shape = {"id": node_id("PR", pull.id), "number": issue.number, "isDraft": pull.draft}
        done = {"clientMutationId": given.get("clientMutationId"), "pullRequest": shape}
        return Answer({"data": {mutation[1]: done}})


def _pull(call: Call) -> tuple[Issue, PullRequest]:
    issue = call.issue()
    if issue.pull is None:
        raise not_found()
    return issue, issue.pull


def _graphql_error(message: str) -> Answer:
    return Answer({"data": None, "errors": [{"type": "NOT_FOUND", "message": message}]})
