"""What the page shows, in parts: each has a name and a JSON value, and only those that changed are sent."""

from typing import Any, Protocol

from handlers.playground.changes import Changes
from handlers.playground.github import GitHubPlayground
from handlers.playground.github_state import Comment, Issue, Reaction, timestamp
from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_state import Message

Json = dict[str, Any]


class BotControl(Protocol):
    """The bot's process, for the page. `changes` tells when `view` (ready for JSON) has changed."""

    changes: Changes

    def view(self) -> Json: ...

    def kill(self) -> None:
        """Kill the process as `kill -9` does; it is started again."""
        ...


class View:
    """Both simulators and the bot's process as parts. `permitted` are the logins that the bot works for."""

    def __init__(
        self,
        slack: SlackPlayground,
        github: GitHubPlayground,
        repository: str,
        permitted: tuple[str, ...],
    ) -> None:
        self._slack = slack
        self._github = github
        self._repository = repository
        self._permitted = permitted

    def parts(self, bot: BotControl | None) -> dict[str, Any]:
        return {
            "workspace": self._workspace(),
            "repository": self._repository_part(),
            "bot": None if bot is None else bot.view(),
            **self._messages(),
            **self._issues(),
        }

    def _workspace(self) -> Json:
        workspace = self._slack.workspace
        return {
            "name": workspace.team.name,
            "bot": workspace.bot.id,
            "users": {
                user.id: {
                    "login": user.name,
                    "name": user.real_name,
                    "is_bot": user.is_bot,
                    "permitted": user.name in self._permitted,
                }
                for user in workspace.users.values()
            },
            "channels": [
                {"id": channel.id, "name": channel.name, "kind": channel.kind, "members": channel.members}
                for channel in workspace.channels.values()
            ],
        }

    def _messages(self) -> dict[str, Json]:
        workspace = self._slack.workspace
        return {
            f"message/{message.channel}/{message.ts}": _message(message)
            for channel in workspace.channels
            for message in workspace.in_channel(channel)
        }

    def _repository_part(self) -> Json:
        repository = self._github.repository(self._repository)
        return {
            "full_name": repository.full_name,
            "default_branch": repository.default_branch,
            "app": self._github.slug,
            "roles": dict(repository.roles),
        }

    def _issues(self) -> dict[str, Json]:
        everything = [
            *self._github.issues(self._repository),
            *self._github.pull_requests(self._repository),
        ]
        return {
            f"issue/{issue.number}": _issue(issue, self._github.comments(self._repository, issue.number))
            for issue in everything
        }


def _message(message: Message) -> Json:
    return {
        "channel": message.channel,
        "ts": message.ts,
        "user": message.user,
        "text": message.text,
        "thread_ts": message.thread_ts,
        "blocks": message.blocks,
        "subtype": message.subtype,
        "files": [
            {"id": file["id"], "name": file["name"], "size": file["size"], "picture": bool(file["mimetype"])}
            for file in message.files
        ],
        "edited": message.edited_ts is not None,
        "visible_to": message.visible_to,
        "reactions": message.reactions,
    }


def _issue(issue: Issue, comments: list[Comment]) -> Json:
    pull = issue.pull
    return {
        "number": issue.number,
        "title": issue.title,
        "body": issue.body or "",
        "by": issue.user.login,
        "state": issue.state,
        "labels": [label.name for label in issue.labels],
        "created_at": timestamp(issue.created_at),
        "closed_by": issue.closed_by.login if issue.closed_by else "",
        "reactions": _reactions(issue.reactions),
        "comments": [
            {
                "id": comment.id,
                "by": comment.user.login,
                "body": comment.body,
                "created_at": timestamp(comment.created_at),
                "reactions": _reactions(comment.reactions),
            }
            for comment in comments
        ],
        "pull": None
        if pull is None
        else {
            "head": pull.head,
            "base": pull.base,
            "head_sha": pull.head_sha,
            "draft": pull.draft,
            "commits": pull.commits,
            "additions": pull.additions,
            "deletions": pull.deletions,
            "files": pull.changed_files,
            "merged_by": pull.merged_by.login if pull.merged_by else "",
        },
    }


def _reactions(reactions: list[Reaction]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for reaction in reactions:
        found.setdefault(reaction.content, []).append(reaction.user.login)
    return found
