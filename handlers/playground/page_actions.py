"""What a visitor of the page does, played in the simulators as one of their people."""

from collections.abc import Awaitable, Callable
from typing import Any

from handlers.playground.git_repository import MergeConflict
from handlers.playground.github import GitHubPlayground
from handlers.playground.github_errors import Refusal
from handlers.playground.page_view import BotControl, Json
from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_state import SlackError

COMMAND = "/sandpiper"
LONGEST_TEXT = 40_000

_SLACK_SAYS = {
    "dispatch_failed": "The bot cannot be reached (dispatch_failed). Slack does not try this again: do.",
    "operation_timeout": "The bot did not answer within three seconds (operation_timeout).",
    "not_in_channel": "You are not in this channel.",
    "message_not_found": "This message is not there any more.",
}


class ActionRefused(Exception):
    """It can't be done; the message is for the visitor. `status` is that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Given:
    """The fields of a request's JSON body, checked when they are asked for."""

    def __init__(self, fields: Json) -> None:
        self._fields = fields

    def text(self, name: str, default: str | None = None) -> str:
        value = self._fields.get(name, default)
        if not isinstance(value, str):
            raise ActionRefused(422, f"{name!r} is missing, or no text.")
        if len(value) > LONGEST_TEXT:
            raise ActionRefused(422, f"{name!r} is longer than {LONGEST_TEXT} characters.")
        return value

    def words(self, name: str) -> str:
        if not (text := self.text(name)).strip():
            raise ActionRefused(422, f"{name!r} is empty.")
        return text

    def number(self, name: str) -> int:
        value = self._fields.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ActionRefused(422, f"{name!r} is missing, or no number.")
        return value


class PageActions:
    """Every action by its name. `who` in its fields is the login of who does it."""

    def __init__(self, slack: SlackPlayground, github: GitHubPlayground, repository: str) -> None:
        self._slack = slack
        self._github = github
        self._repository = repository
        self._actions: dict[str, Callable[[Given, str], Awaitable[Any]]] = {
            "post": self._post,
            "click": self._click,
            "slash": self._slash,
            "open-issue": self._open_issue,
            "comment": self._comment,
            "label": self._label,
            "unlabel": self._unlabel,
            "close": self._close,
            "merge": self._merge,
        }

    async def do(self, name: str, fields: Json, bot: BotControl | None) -> Json:
        """Do it, and give what it made. Raises ActionRefused."""
        if name == "kill-bot":
            if bot is None:
                raise ActionRefused(409, "The page does not run the bot.")
            bot.kill()
            return {}
        action = self._actions.get(name)
        if action is None:
            raise ActionRefused(404, f"There is no action {name!r}.")
        given = Given(fields)
        try:
            made = await action(given, given.text("who"))
        except SlackError as error:
            raise ActionRefused(409, _SLACK_SAYS.get(error.code, str(error))) from error
        except Refusal as refusal:
            raise ActionRefused(409, refusal.message) from refusal
        except (MergeConflict, LookupError) as error:
            raise ActionRefused(409, str(error)) from error
        return made if isinstance(made, dict) else {}

    # Slack

    async def _post(self, given: Given, who: str) -> Json:
        thread = given.text("thread", "") or None
        user, channel = self._user(who), given.text("channel")
        return {"ts": self._slack.post(user, channel, given.words("text"), thread)}

    async def _click(self, given: Given, who: str) -> None:
        action, value = given.text("action"), given.text("value", "")
        user, channel, ts = self._user(who), given.text("channel"), given.text("ts")
        # The page may not have drawn yet what the bot has just changed.
        await self._slack.click(user, channel, ts, action, value or None, earlier=True)

    async def _slash(self, given: Given, who: str) -> None:
        command, _, text = given.words("text").strip().partition(" ")
        if command != COMMAND:
            raise ActionRefused(409, f"{command} is not a command here. Try {COMMAND} help.")
        await self._slack.slash(self._user(who), given.text("channel"), command, text.strip())

    def _user(self, login: str) -> str:
        people = self._slack.workspace.users.values()
        found = next((user.id for user in people if user.name == login and not user.is_bot), None)
        if found is None:
            raise ActionRefused(422, f"Nobody is called {login!r} here.")
        return found

    # GitHub

    async def _open_issue(self, given: Given, who: str) -> Json:
        title, body = given.words("title"), given.text("body", "")
        return {"number": self._github.open_issue(self._repository, who, title, body)}

    async def _comment(self, given: Given, who: str) -> None:
        self._github.comment(self._repository, given.number("number"), who, given.words("body"))

    async def _label(self, given: Given, who: str) -> None:
        self._github.label(self._repository, given.number("number"), given.words("label"), who)

    async def _unlabel(self, given: Given, who: str) -> None:
        self._github.unlabel(self._repository, given.number("number"), given.words("label"), who)

    async def _close(self, given: Given, who: str) -> None:
        self._github.close_issue(self._repository, given.number("number"), who)

    async def _merge(self, given: Given, who: str) -> None:
        await self._github.merge(self._repository, given.number("number"), who)
