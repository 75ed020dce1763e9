"""Endpoints of issues: themselves, their comments, labels and reactions. Pull requests are issues, too."""

from datetime import UTC, datetime
from typing import Literal, cast

from handlers.playground.github_errors import invalid, not_found
from handlers.playground.github_issues import Issues
from handlers.playground.github_rest import Answer, Call, Endpoint, page
from handlers.playground.github_shapes import Json, Shapes
from handlers.playground.github_state import Comment, Issue, Label, Reaction

_READ = {"issues": "read", "pull_requests": "read"}
_WRITE = {"issues": "write", "pull_requests": "write"}


class IssueEndpoints:
    def __init__(self, shapes: Shapes, issues: Issues) -> None:
        self._shapes = shapes
        self._issues = issues

    def endpoints(self) -> list[Endpoint]:
        issue, comment = "issues/{number:int}", "issues/comments/{comment_id:int}"
        return [
            Endpoint("GET", "issues", self._list, _READ),
            Endpoint("POST", "issues", self._open, {"issues": "write"}, creates_content=True),
            Endpoint("GET", issue, self._get, _READ),
            Endpoint("PATCH", issue, self._edit, _WRITE),
            Endpoint("GET", "issues/comments", self._all_comments, _READ),
            Endpoint("GET", f"{issue}/comments", self._comments, _READ),
            Endpoint("POST", f"{issue}/comments", self._comment, _WRITE, creates_content=True),
            Endpoint("GET", comment, self._get_comment, _READ),
            Endpoint("PATCH", comment, self._edit_comment, _WRITE),
            Endpoint("DELETE", comment, self._delete_comment, _WRITE),
            Endpoint("GET", f"{issue}/labels", self._labels, _READ),
            Endpoint("POST", f"{issue}/labels", self._label, _WRITE),
            Endpoint("DELETE", f"{issue}/labels/{{name:path}}", self._unlabel, _WRITE),
            Endpoint("GET", "labels", self._repository_labels, _READ),
            Endpoint("POST", "labels", self._make_label, _WRITE),
            Endpoint("GET", "labels/{name:path}", self._repository_label, _READ),
            Endpoint("GET", f"{issue}/reactions", self._reactions, _READ),
            Endpoint("POST", f"{issue}/reactions", self._react, _WRITE),
            Endpoint("DELETE", f"{issue}/reactions/{{reaction_id:int}}", self._unreact, _WRITE),
            Endpoint("GET", f"{comment}/reactions", self._reactions, _READ),
            Endpoint("POST", f"{comment}/reactions", self._react, _WRITE),
            Endpoint("DELETE", f"{comment}/reactions/{{reaction_id:int}}", self._unreact, _WRITE),
        ]

    async def _list(self, call: Call) -> Answer:
        since, state = _since(call), call.query("state", "open")
        wanted = {name.strip().lower() for name in call.query("labels").split(",") if name.strip()}
        creator = call.query("creator").lower()
        found = [
            issue
            for issue in call.repository.issues.values()
            if state in ("all", issue.state)
            and wanted <= {label.name.lower() for label in issue.labels}
            and creator in ("", issue.user.login.lower())
            and (since is None or issue.updated_at >= since)
        ]
        by_update = call.query("sort") == "updated"
        found.sort(
            key=lambda issue: (issue.updated_at if by_update else issue.created_at, issue.number),
            reverse=call.query("direction", "desc") == "desc",
        )
        return page(call, found, lambda issue: self._shapes.issue(call.repository, issue))

    async def _open(self, call: Call) -> Answer:
        title, body = call.field("title", str, "Issue"), call.field("body", str, "Issue")
        labels = call.strings("labels", "Issue") or []
        issue = self._issues.open(call.repository, call.bot, title or "", body, labels)
        return Answer(self._shapes.issue(call.repository, issue), 201)

    async def _get(self, call: Call) -> Answer:
        return Answer(self._shapes.issue(call.repository, call.issue()))

    async def _edit(self, call: Call) -> Answer:
        issue = call.issue()
        title, body = call.field("title", str, "Issue"), call.field("body", str, "Issue")
        state = call.field("state", str, "Issue")
        if state not in (None, "open", "closed"):
            raise invalid("Issue", "invalid", "state")
        self._issues.edit(call.repository, issue, call.bot, title=title, body=body)
        if state is not None:
            reason = call.field("state_reason", str, "Issue")
            wanted = cast(Literal["open", "closed"], state)
            self._issues.set_state(call.repository, issue, call.bot, wanted, reason)
        labels = call.strings("labels", "Issue")
        if labels is not None:
            names = {name.lower() for name in labels}
            for label in [label for label in issue.labels if label.name.lower() not in names]:
                self._issues.unlabel(call.repository, issue, call.bot, label.name)
            self._issues.label(call.repository, issue, call.bot, labels)
        return Answer(self._shapes.issue(call.repository, issue))

    async def _comments(self, call: Call) -> Answer:
        return self._page_of_comments(call, call.repository.comments_of(call.issue().number))

    async def _all_comments(self, call: Call) -> Answer:
        return self._page_of_comments(call, list(call.repository.comments.values()))

    def _page_of_comments(self, call: Call, comments: list[Comment]) -> Answer:
        since = _since(call)
        found = [comment for comment in comments if since is None or comment.updated_at >= since]
        if call.query("sort") == "updated":
            found.sort(key=lambda comment: (comment.updated_at, comment.id))
        if call.query("direction") == "desc":
            found.reverse()
        return page(call, found, lambda comment: self._shapes.comment(call.repository, comment))

    async def _comment(self, call: Call) -> Answer:
        body = call.field("body", str, "IssueComment")
        comment = self._issues.comment(call.repository, call.issue(), call.bot, body)
        return Answer(self._shapes.comment(call.repository, comment), 201)

    async def _get_comment(self, call: Call) -> Answer:
        return Answer(self._shapes.comment(call.repository, call.comment()))

    async def _edit_comment(self, call: Call) -> Answer:
        comment, body = call.comment(), call.field("body", str, "IssueComment")
        self._issues.edit_comment(call.repository, comment, call.bot, body)
        return Answer(self._shapes.comment(call.repository, comment))

    async def _delete_comment(self, call: Call) -> Answer:
        self._issues.delete_comment(call.repository, call.comment(), call.bot)
        return Answer(status=204)

    async def _labels(self, call: Call) -> Answer:
        return page(call, call.issue().labels, lambda label: self._label_shape(call, label))

    async def _label(self, call: Call) -> Answer:
        names = call.body if isinstance(call.body, list) else call.strings("labels", "Label")
        if not names or not all(isinstance(name, str) and name for name in names):
            raise invalid("Label", "invalid", "name")
        issue = call.issue()
        self._issues.label(call.repository, issue, call.bot, names)
        return Answer([self._label_shape(call, label) for label in issue.labels])

    async def _unlabel(self, call: Call) -> Answer:
        issue = call.issue()
        self._issues.unlabel(call.repository, issue, call.bot, call.path("name"))
        return Answer([self._label_shape(call, label) for label in issue.labels])

    async def _repository_labels(self, call: Call) -> Answer:
        return page(call, list(call.repository.labels.values()), lambda label: self._label_shape(call, label))

    async def _repository_label(self, call: Call) -> Answer:
        found = call.repository.labels.get(call.path("name").lower())
        if found is None:
            raise not_found()
        return Answer(self._label_shape(call, found))

    async def _make_label(self, call: Call) -> Answer:
        name, color = call.field("name", str, "Label"), call.field("color", str, "Label")
        description = call.field("description", str, "Label")
        label = self._issues.make_label(call.repository, name or "", color or "ededed", description)
        return Answer(self._label_shape(call, label), 201)

    async def _reactions(self, call: Call) -> Answer:
        wanted = call.query("content")
        found = [reaction for reaction in _target(call).reactions if wanted in ("", reaction.content)]
        return page(call, found, self._shapes.reaction)

    async def _react(self, call: Call) -> Answer:
        content = call.field("content", str, "Reaction")
        reaction, new = self._issues.react(_target(call).reactions, call.bot, content or "")
        return Answer(self._shapes.reaction(reaction), 201 if new else 200)

    async def _unreact(self, call: Call) -> Answer:
        reactions, wanted = _target(call).reactions, call.number("reaction_id")
        found: Reaction | None = next((r for r in reactions if r.id == wanted), None)
        if found is None:
            raise not_found()
        reactions.remove(found)
        return Answer(status=204)

    def _label_shape(self, call: Call, label: Label) -> Json:
        return self._shapes.label(call.repository, label)


def _target(call: Call) -> Issue | Comment:
    return call.comment() if "comment_id" in call.request.path_params else call.issue()


def _since(call: Call) -> datetime | None:
    if not (text := call.query("since")):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise invalid("Issue", "invalid", "since") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
