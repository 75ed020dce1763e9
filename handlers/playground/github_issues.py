"""What people and the App do with issues and comments: the change, its limits, and the webhook it causes.

Pull requests are issues here too, as on GitHub: they share numbers, comments, labels and reactions.
Who may do it is the caller's business; what is possible at all is checked here.
"""

from collections.abc import Sequence
from typing import Literal

from handlers.playground.github_errors import Refusal, invalid, not_found
from handlers.playground.github_git_shapes import GitShapes
from handlers.playground.github_hooks import Hooks
from handlers.playground.github_shapes import REACTIONS, Json, Shapes
from handlers.playground.github_state import Comment, GitHubState, Issue, Label, Reaction, Repository, User

LONGEST_BODY = 65_536
LONGEST_TITLE = 256


class Issues:
    """Issues, comments, labels and reactions of every repository."""

    def __init__(self, state: GitHubState, shapes: Shapes, git_shapes: GitShapes, hooks: Hooks) -> None:
        self._state = state
        self._shapes = shapes
        self._git_shapes = git_shapes
        self._hooks = hooks

    def open(
        self, repository: Repository, by: User, title: str, body: str | None, labels: Sequence[str] = ()
    ) -> Issue:
        """Open an issue. Raises Refusal (422) when the title is missing or something is too long."""
        check_texts("Issue", title, body)
        issue = self.add(repository, by, title, body)
        self.announce(repository, issue, "opened", by)
        self.label(repository, issue, by, labels)
        return issue

    def add(self, repository: Repository, by: User, title: str, body: str | None) -> Issue:
        """The next number of a repository, not announced yet; a pull request starts with it as well."""
        number = max(repository.issues, default=0) + 1
        now = self._state.now()
        issue = Issue(self._state.next_id(), number, title, body, by, now, now)
        repository.issues[number] = issue
        return issue

    def edit(
        self,
        repository: Repository,
        issue: Issue,
        by: User,
        *,
        title: str | None = None,
        body: str | None = None,
    ) -> None:
        """Change title or body; None leaves them alone."""
        check_texts("Issue" if issue.pull is None else "PullRequest", title or issue.title, body)
        changed: Json = {}
        if title is not None and title != issue.title:
            changed["title"] = {"from": issue.title}
            issue.title = title
        if body is not None and body != issue.body:
            changed["body"] = {"from": issue.body or ""}
            issue.body = body
        if changed:
            self._touch(issue)
            self.announce(repository, issue, "edited", by, {"changes": changed})

    def set_state(
        self,
        repository: Repository,
        issue: Issue,
        by: User,
        state: Literal["open", "closed"],
        reason: str | None = None,
    ) -> None:
        """Close or reopen an issue or pull request; nothing happens if it is so already."""
        if issue.state == state:
            return
        if state == "open" and issue.pull is not None and issue.pull.merged_at is not None:
            raise invalid(
                "PullRequest", "custom", "state", "state cannot be changed. The pull request is merged."
            )
        self._touch(issue)
        issue.state = state
        if state == "closed":
            issue.closed_at, issue.closed_by = issue.updated_at, by
            issue.state_reason = None if issue.pull else reason or "completed"
        else:
            issue.closed_at = issue.closed_by = None
            issue.state_reason = None if issue.pull else "reopened"
        self.announce(repository, issue, "closed" if state == "closed" else "reopened", by)

    def comment(self, repository: Repository, issue: Issue, by: User, body: str | None) -> Comment:
        """Write a comment. Raises Refusal (422) when it is empty or longer than 65,536 characters."""
        text = _comment_text(body)
        now = self._state.now()
        comment = Comment(self._state.next_id(), issue.number, by, text, now, now)
        repository.comments[comment.id] = comment
        self._touch(issue)
        self._announce_comment(repository, comment, "created", by)
        return comment

    def edit_comment(self, repository: Repository, comment: Comment, by: User, body: str | None) -> None:
        text = _comment_text(body)
        before, comment.body = comment.body, text
        comment.updated_at = self._state.now()
        self._announce_comment(repository, comment, "edited", by, {"changes": {"body": {"from": before}}})

    def delete_comment(self, repository: Repository, comment: Comment, by: User) -> None:
        # The event shows the comment as it was, and the issue as it is now.
        shape = self._shapes.comment(repository, comment)
        del repository.comments[comment.id]
        issue = repository.issues[comment.number]
        self._hooks.announce(
            "issue_comment",
            {"action": "deleted", "issue": self._shapes.issue(repository, issue), "comment": shape},
            by=by,
            repository=repository,
        )

    def make_label(
        self, repository: Repository, name: str, color: str = "ededed", description: str | None = None
    ) -> Label:
        if not name:
            raise invalid("Label", "missing_field", "name")
        if name.lower() in repository.labels:
            raise invalid("Label", "already_exists", "name")
        label = Label(self._state.next_id(), name, color, description)
        repository.labels[name.lower()] = label
        return label

    def label(self, repository: Repository, issue: Issue, by: User, names: Sequence[str]) -> None:
        """Put labels on; GitHub makes those that the repository does not have. One webhook per new label."""
        for name in names:
            label = repository.labels.get(name.lower()) or self.make_label(repository, name)
            if label not in issue.labels:
                issue.labels.append(label)
                self._touch(issue)
                self._announce_label(repository, issue, label, "labeled", by)

    def unlabel(self, repository: Repository, issue: Issue, by: User, name: str) -> None:
        """Take a label off. Raises Refusal (404) when it is not on."""
        label = next((label for label in issue.labels if label.name.lower() == name.lower()), None)
        if label is None:
            raise Refusal(404, "Label does not exist")
        issue.labels.remove(label)
        self._touch(issue)
        self._announce_label(repository, issue, label, "unlabeled", by)

    def react(self, reactions: list[Reaction], by: User, content: str) -> tuple[Reaction, bool]:
        """Add a reaction; a person's second one of the same kind is the first. GitHub has no event for it."""
        if content not in REACTIONS:
            raise invalid("Reaction", "invalid", "content")
        found = next((r for r in reactions if r.user is by and r.content == content), None)
        if found is not None:
            return found, False
        reaction = Reaction(self._state.next_id(), by, content, self._state.now())
        reactions.append(reaction)
        return reaction, True

    def announce(
        self, repository: Repository, issue: Issue, action: str, by: User, more: Json | None = None
    ) -> None:
        """The webhook for an action on an issue, or on the pull request that it is."""
        if issue.pull is None:
            event = "issues"
            about: Json = {"issue": self._shapes.issue(repository, issue)}
        else:
            event = "pull_request"
            pull = self._git_shapes.full_pull(repository, issue)
            about = {"number": issue.number, "pull_request": pull}
        self._hooks.announce(event, {"action": action} | about | (more or {}), by=by, repository=repository)

    def _announce_label(
        self, repository: Repository, issue: Issue, label: Label, action: str, by: User
    ) -> None:
        self.announce(repository, issue, action, by, {"label": self._shapes.label(repository, label)})

    def _announce_comment(
        self, repository: Repository, comment: Comment, action: str, by: User, more: Json | None = None
    ) -> None:
        about = {
            "action": action,
            "issue": self._shapes.issue(repository, repository.issues[comment.number]),
            "comment": self._shapes.comment(repository, comment),
        }
        self._hooks.announce("issue_comment", about | (more or {}), by=by, repository=repository)

    def _touch(self, issue: Issue) -> None:
        issue.updated_at = self._state.now()


def issue_numbered(repository: Repository, number: int) -> Issue:
    found = repository.issues.get(number)
    if found is None:
        raise not_found()
    return found


def check_texts(resource: str, title: str | None, body: str | None) -> None:
    """Raise Refusal (422) for a title that is missing or too long, or a body that is too long."""
    if not title or not title.strip():
        raise invalid(resource, "missing_field", "title")
    for name, text, longest in (("title", title, LONGEST_TITLE), ("body", body or "", LONGEST_BODY)):
        if len(text) > longest:
            raise invalid(resource, "custom", name, f"{name} is too long (maximum is {longest} characters)")


def _comment_text(body: str | None) -> str:
    if not body or not body.strip():
        raise invalid("IssueComment", "missing_field", "body")
    if len(body) > LONGEST_BODY:
        message = f"Body is too long (maximum is {LONGEST_BODY} characters)"
        raise invalid("IssueComment", "unprocessable", "data", message)
    return body
