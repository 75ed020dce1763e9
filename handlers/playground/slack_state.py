"""What a Slack workspace holds: people, channels and messages. No events, no HTTP."""

import re
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Json = dict[str, Any]
ChannelKind = Literal["channel", "group", "im"]


class SlackError(Exception):
    """Slack says no. `code` is the `error` of the Web API's answer, `details` its reasons."""

    def __init__(self, code: str, *details: str) -> None:
        super().__init__(": ".join([code, "; ".join(details)]) if details else code)
        self.code = code
        self.details = details


@dataclass(frozen=True, slots=True)
class Team:
    id: str
    name: str
    domain: str


@dataclass(frozen=True, slots=True)
class User:
    """A person or a bot. `team_id` is set for people of another workspace (Slack Connect)."""

    id: str
    name: str
    real_name: str
    is_bot: bool = False
    is_guest: bool = False
    team_id: str = ""
    deleted: bool = False


@dataclass(slots=True)
class Channel:
    """A conversation. An "im" is the direct channel of the bot with its one other member."""

    id: str
    name: str
    members: list[str]
    kind: ChannelKind = "channel"
    is_ext_shared: bool = False
    is_archived: bool = False


@dataclass(slots=True)
class Message:
    """One message. `thread_ts` is set on replies only; `visible_to` makes it ephemeral."""

    channel: str
    ts: str
    user: str
    text: str
    thread_ts: str | None = None
    blocks: list[Json] = field(default_factory=list)
    attachments: list[Json] = field(default_factory=list)
    files: list[Json] = field(default_factory=list)
    metadata: Json | None = None
    bot_id: str | None = None
    subtype: str | None = None
    client_msg_id: str | None = None
    edited_by: str | None = None
    edited_ts: str | None = None
    visible_to: str | None = None
    reactions: dict[str, list[str]] = field(default_factory=dict)

    @property
    def root_ts(self) -> str:
        """The ts of the thread that the message is in or would begin."""
        return self.thread_ts or self.ts

    @property
    def shown(self) -> str:
        """All the text that a reader sees, one piece a line: the blocks' if there are any."""
        if self.bot_id is None or not self.blocks:
            return self.text
        return "\n".join(_texts(self.blocks))


ACME = Team("T_ACME", "Acme", "acme")
SANDPIPER = User("U_BOT", "sandpiper", "Sandpiper", is_bot=True)
DEFAULT_USERS = (
    User("U_ANA", "ana", "Ana Alba"),
    User("U_BEN", "ben", "Ben Bosch"),
    User("U_EVE", "eve", "Eve Ek"),
)
DEFAULT_CHANNELS = (
    Channel("C_DEV", "dev", ["U_ANA", "U_BEN", "U_EVE", "U_BOT"]),
    Channel("C_RANDOM", "random", ["U_ANA", "U_BEN", "U_EVE", "U_BOT"]),
)


class Workspace:
    """The state of one workspace with one app installed. Refusals are SlackError."""

    def __init__(
        self,
        team: Team = ACME,
        users: Iterable[User] = DEFAULT_USERS,
        channels: Iterable[Channel] = DEFAULT_CHANNELS,
        bot: User = SANDPIPER,
    ) -> None:
        self.team = team
        self.bot = bot
        self.bot_id = "B" + bot.id.removeprefix("U")
        self.app_id = "A" + bot.id.removeprefix("U")
        self.users = {user.id: user for user in (*users, bot)}
        self.channels = {channel.id: replace(channel, members=list(channel.members)) for channel in channels}
        self._messages: dict[str, dict[str, Message]] = {}
        self._last_microsecond = 0

    def user(self, user_id: str) -> User:
        try:
            return self.users[user_id]
        except KeyError:
            raise SlackError("user_not_found") from None

    def channel(self, channel_id: str) -> Channel:
        try:
            return self.channels[channel_id]
        except KeyError:
            raise SlackError("channel_not_found") from None

    def direct_channel(self, user_id: str) -> Channel:
        """The direct channel of a person with the bot, opened if need be."""
        user = self.user(user_id)
        if user.is_bot:
            raise SlackError("cannot_dm_bot")
        channel_id = "D" + user_id.removeprefix("U")
        if channel_id not in self.channels:
            self.channels[channel_id] = Channel(channel_id, user.name, [user_id, self.bot.id], kind="im")
        return self.channels[channel_id]

    def new_ts(self) -> str:
        """A timestamp like Slack's, seconds with six digits, never the same twice."""
        self._last_microsecond = max(time.time_ns() // 1000, self._last_microsecond + 1)
        return f"{self._last_microsecond // 1_000_000}.{self._last_microsecond % 1_000_000:06d}"

    def message(self, channel_id: str, ts: str) -> Message:
        """A message that everybody sees; ephemeral ones can't be looked up."""
        found = self._messages.get(self.channel(channel_id).id, {}).get(ts)
        if found is None or found.visible_to is not None:
            raise SlackError("message_not_found")
        return found

    def any_message(self, channel_id: str, ts: str) -> Message:
        """A message, be it ephemeral."""
        try:
            return self._messages[self.channel(channel_id).id][ts]
        except KeyError:
            raise SlackError("message_not_found") from None

    def in_channel(self, channel_id: str) -> Iterator[Message]:
        """Everything in a channel, oldest first: roots, replies and ephemeral messages."""
        yield from self._messages.get(self.channel(channel_id).id, {}).values()

    def everything(self) -> Iterator[Message]:
        """All messages, oldest first in each channel."""
        for channel in self.channels:
            yield from self.in_channel(channel)

    def describe(self) -> list[str]:
        """Channels and messages in words, one a line."""
        lines: list[str] = []
        for channel in self.channels.values():
            lines.append(f"#{channel.name} ({channel.id})")
            for message in self.in_channel(channel.id):
                indent = "    " if message.thread_ts else "  "
                only = f" (only to {message.visible_to})" if message.visible_to else ""
                lines.append(f"{indent}{message.ts} {message.user}{only}: {message.shown[:200]!r}")
        return lines

    def roots(self, channel_id: str) -> list[Message]:
        """What stands in the channel itself, oldest first."""
        return [
            message
            for message in self.in_channel(channel_id)
            if message.visible_to is None
            and (message.thread_ts is None or message.subtype == "thread_broadcast")
        ]

    def thread(self, channel_id: str, root_ts: str) -> list[Message]:
        """The root and its replies, oldest first; empty if there is no such thread."""
        return [
            message
            for message in self.in_channel(channel_id)
            if message.visible_to is None and message.root_ts == root_ts
        ]

    def add(self, message: Message) -> Message:
        self._messages.setdefault(message.channel, {})[message.ts] = message
        return message

    def remove(self, message: Message) -> None:
        del self._messages[message.channel][message.ts]

    def typed(self, text: str) -> str:
        """A text as a person types it, as Slack's clients send it.

        `@name` of somebody we know becomes a mention, links are put in angle brackets, and `&`, `<` and
        `>` are escaped; what is already written as `<@U…>`, `<#C…>` or `<https://…>` stays.
        """
        names = {user.name: user.id for user in self.users.values()}

        def written(match: re.Match[str]) -> str:
            piece = match.group()
            if match["name"]:
                return f"<@{names[match['name']]}>" if match["name"] in names else piece
            if match["link"]:
                return f"<{_escaped(piece)}>"
            return piece if match["token"] else _escaped(piece)

        return _TYPED.sub(written, text)


def new_client_msg_id() -> str:
    return str(uuid.uuid4())


def rich_text_of(text: str) -> list[Json]:
    """The `blocks` that Slack's clients send beside a person's text."""
    elements: list[Json] = []
    for piece in re.split(r"(<@\w+>|<https?://[^<>\s]+>)", text):
        if piece.startswith("<@"):
            elements.append({"type": "user", "user_id": piece[2:-1]})
        elif piece.startswith("<http"):
            elements.append({"type": "link", "url": _unescaped(piece[1:-1])})
        elif piece:
            elements.append({"type": "text", "text": _unescaped(piece)})
    section = {"type": "rich_text_section", "elements": elements}
    return [{"type": "rich_text", "block_id": uuid.uuid4().hex[:5], "elements": [section]}]


_TYPED = re.compile(
    r"(?P<token><(?:[@#!][^<>\s]+|https?://[^<>\s]+)>)"
    r"|(?P<link>https?://[^\s<>]*[^\s<>.,;:!?'\")\]])"
    r"|(?<![\w@./])@(?P<name>[\w-]+)"
    r"|[&<>]"
)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        if value.get("type") == "user":
            yield f"<@{value.get('user_id')}>"
        for key in ("title", "subtitle", "body", "text", "tasks", "details", "output", "fields", "elements"):
            inner = value.get(key)
            if isinstance(inner, str):
                yield inner
            elif inner is not None:
                yield from _texts(inner)
        for key in ("accessory", "actions", "positive_button", "negative_button"):
            yield from _texts(value.get(key))
