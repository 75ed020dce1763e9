"""Response URLs: where the app answers a command or a click (docs.slack.dev, "Handling user interaction")."""

import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from handlers.playground.slack_actions import Actions
from handlers.playground.slack_content import flag, read_content
from handlers.playground.slack_limits import RESPONSE_URL_SECONDS, RESPONSE_URL_USES
from handlers.playground.slack_state import Json, Message, SlackError, Workspace


@dataclass(slots=True)
class _Ticket:
    user: str
    channel: str
    message_ts: str | None
    expires_at: float
    uses: int = 0


class Responses:
    """Gives out response URLs and does what is sent to them. Good for five uses within thirty minutes."""

    def __init__(
        self,
        workspace: Workspace,
        actions: Actions,
        *,
        url: Callable[[], str],
        unsupported_blocks: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workspace = workspace
        self._actions = actions
        self._url = url
        self._unsupported_blocks = unsupported_blocks
        self._clock = clock
        self._tickets: dict[str, _Ticket] = {}

    def new_url(self, user: str, channel: str, message_ts: str | None = None) -> str:
        ticket_id = secrets.token_hex(8)
        self._tickets[ticket_id] = _Ticket(user, channel, message_ts, self._clock() + RESPONSE_URL_SECONDS)
        return f"{self._url()}/responses/{ticket_id}"

    def use(self, ticket_id: str, body: Json) -> None:
        """Do what a POST to a response URL says.

        Raises SlackError `expired_url`, `used_url`, or what is wrong with the message.
        """
        ticket = self._tickets.get(ticket_id)
        if ticket is None or self._clock() > ticket.expires_at:
            raise SlackError("expired_url")
        if ticket.uses >= RESPONSE_URL_USES:
            raise SlackError("used_url")
        self.respond(ticket.user, ticket.channel, ticket.message_ts, body)
        ticket.uses += 1

    def respond(self, user: str, channel: str, message_ts: str | None, body: Json) -> None:
        """Post, replace or delete as `body` says; what is posted is ephemeral unless it says `in_channel`."""
        if message_ts is not None and flag(body.get("delete_original")):
            self._actions.delete(self._workspace.any_message(channel, message_ts))
            return
        content = read_content(body, unsupported=self._unsupported_blocks)
        if message_ts is not None and flag(body.get("replace_original")):
            self._actions.edit(
                self._workspace.any_message(channel, message_ts),
                self._workspace.bot.id,
                text=content.text or "",
                blocks=content.blocks or [],
            )
            return
        self._actions.post(
            Message(
                channel,
                self._workspace.new_ts(),
                self._workspace.bot.id,
                content.text or "",
                thread_ts=body.get("thread_ts"),
                blocks=content.blocks or [],
                attachments=content.attachments or [],
                bot_id=self._workspace.bot_id,
                visible_to=None if body.get("response_type") == "in_channel" else user,
            )
        )
