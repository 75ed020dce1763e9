"""The Web API: each method does what docs.slack.dev says of it, and refuses by Slack's own error names."""

import base64
import binascii
import re
from collections.abc import Callable, Collection
from decimal import Decimal, InvalidOperation
from typing import Any

from handlers.playground.slack_actions import Actions
from handlers.playground.slack_content import Content, flag, read_content
from handlers.playground.slack_files import Files
from handlers.playground.slack_limits import FILE_BYTES
from handlers.playground.slack_shapes import channel_json, message_json, user_json
from handlers.playground.slack_state import Channel, Json, Message, SlackError, Workspace

_EMOJI = re.compile(r"[a-z0-9_+'-]+(::skin-tone-[2-6])?")
_PAGE_SIZE = 100
_LARGEST_PAGE = 999


class WebApi:
    """Answers the methods of a bot token. An answer lacks only its `ok`."""

    def __init__(
        self,
        workspace: Workspace,
        actions: Actions,
        *,
        permalink: Callable[[Message], str],
        url: Callable[[], str],
        unsupported_blocks: Collection[str] = (),
        edit_window: float | None = None,
        largest_file: int = FILE_BYTES,
    ) -> None:
        self._workspace = workspace
        self._actions = actions
        self._permalink = permalink
        self._url = url
        self._unsupported_blocks = unsupported_blocks
        self._edit_window = edit_window
        self.files = Files(
            workspace,
            actions,
            joined=self._joined_channel,
            url=url,
            largest=largest_file,
            unsupported_blocks=unsupported_blocks,
        )
        self.methods: dict[str, Callable[[Json], Json]] = {
            **self.files.methods,
            "auth.test": self._auth_test,
            "chat.delete": self._chat_delete,
            "chat.getPermalink": self._chat_get_permalink,
            "chat.postEphemeral": self._chat_post_ephemeral,
            "chat.postMessage": self._chat_post_message,
            "chat.update": self._chat_update,
            "conversations.history": self._conversations_history,
            "conversations.info": self._conversations_info,
            "conversations.open": self._conversations_open,
            "conversations.replies": self._conversations_replies,
            "reactions.add": self._reactions_add,
            "reactions.remove": self._reactions_remove,
            "team.info": self._team_info,
            "users.info": self._users_info,
        }

    def _auth_test(self, arguments: Json) -> Json:
        team, bot = self._workspace.team, self._workspace.bot
        return {
            "url": f"{self._url()}/",
            "team": team.name,
            "user": bot.name,
            "team_id": team.id,
            "user_id": bot.id,
            "bot_id": self._workspace.bot_id,
            "is_enterprise_install": False,
        }

    def _chat_post_message(self, arguments: Json) -> Json:
        channel = self._joined_channel(arguments)
        content = self._content(arguments)
        thread_ts = arguments.get("thread_ts") or None
        broadcast = thread_ts is not None and flag(arguments.get("reply_broadcast"))
        message = self._new_message(channel, content, thread_ts)
        message.subtype = "thread_broadcast" if broadcast else None
        self._actions.post(message)
        shape = message_json(self._workspace, message, metadata=True)
        return _warned({"channel": channel.id, "ts": message.ts, "message": shape}, content)

    def _chat_post_ephemeral(self, arguments: Json) -> Json:
        channel = self._joined_channel(arguments)
        reader = str(arguments.get("user") or "")
        if reader not in channel.members:
            raise SlackError("user_not_in_channel")
        content = self._content(arguments)
        message = self._new_message(channel, content, arguments.get("thread_ts") or None)
        message.visible_to = reader
        self._actions.post(message)
        return _warned({"message_ts": message.ts}, content)

    def _chat_update(self, arguments: Json) -> Json:
        message = self._own_message(arguments, "ts", "cant_update_message")
        age = float(self._workspace.new_ts()) - float(message.ts)
        if self._edit_window is not None and age > self._edit_window:
            raise SlackError("edit_window_closed")
        content = read_content(arguments, unsupported=self._unsupported_blocks, updating=True)
        self._actions.edit(
            message,
            self._workspace.bot.id,
            text=content.text,
            blocks=content.blocks,
            attachments=content.attachments,
            metadata=content.metadata,
        )
        shape = message_json(self._workspace, message, metadata=True)
        return _warned(
            {"channel": message.channel, "ts": message.ts, "text": message.text, "message": shape}, content
        )

    def _chat_delete(self, arguments: Json) -> Json:
        message = self._own_message(arguments, "ts", "cant_delete_message")
        self._actions.delete(message)
        return {"channel": message.channel, "ts": message.ts}

    def _chat_get_permalink(self, arguments: Json) -> Json:
        channel = self._known_channel(arguments)
        message = self._workspace.message(channel.id, str(arguments.get("message_ts") or ""))
        return {"channel": message.channel, "permalink": self._permalink(message)}

    def _reactions_add(self, arguments: Json) -> Json:
        message = self._message(arguments, "timestamp")
        self._actions.react(message, _emoji(arguments), self._workspace.bot.id)
        return {}

    def _reactions_remove(self, arguments: Json) -> Json:
        message = self._message(arguments, "timestamp")
        self._actions.unreact(message, _emoji(arguments), self._workspace.bot.id)
        return {}

    def _conversations_info(self, arguments: Json) -> Json:
        channel = self._known_channel(arguments)
        return {"channel": channel_json(self._workspace, channel)}

    def _conversations_open(self, arguments: Json) -> Json:
        if arguments.get("channel"):
            channel = self._known_channel(arguments)
        else:
            users = [user for user in str(arguments.get("users") or "").split(",") if user]
            if len(users) != 1:
                raise SlackError("users_list_not_supplied" if not users else "not_enough_users")
            channel = self._workspace.direct_channel(users[0])
        if flag(arguments.get("return_im")):
            return {"channel": channel_json(self._workspace, channel)}
        return {"channel": {"id": channel.id}}

    def _conversations_history(self, arguments: Json) -> Json:
        channel = self._joined_channel(arguments)
        newest_first = self._workspace.roots(channel.id)[::-1]
        return self._page(_between(newest_first, arguments), arguments)

    def _conversations_replies(self, arguments: Json) -> Json:
        channel = self._joined_channel(arguments)
        ts = str(arguments.get("ts") or "")
        try:
            root_ts = self._workspace.message(channel.id, ts).root_ts
        except SlackError:
            raise SlackError("thread_not_found") from None
        root, *replies = self._workspace.thread(channel.id, root_ts)
        return self._page([root, *_between(replies, arguments)], arguments)

    def _users_info(self, arguments: Json) -> Json:
        user = self._workspace.user(str(arguments.get("user") or ""))
        return {"user": user_json(self._workspace, user)}

    def _team_info(self, arguments: Json) -> Json:
        team = self._workspace.team
        return {"team": {"id": team.id, "name": team.name, "domain": team.domain, "email_domain": ""}}

    def _content(self, arguments: Json) -> Content:
        return read_content(arguments, unsupported=self._unsupported_blocks)

    def _new_message(self, channel: Channel, content: Content, thread_ts: str | None) -> Message:
        return Message(
            channel.id,
            self._workspace.new_ts(),
            self._workspace.bot.id,
            content.text or "",
            thread_ts=thread_ts,
            blocks=content.blocks or [],
            attachments=content.attachments or [],
            metadata=content.metadata or None,
            bot_id=self._workspace.bot_id,
        )

    def _known_channel(self, arguments: Json) -> Channel:
        """A channel that the bot may know of: all but the private ones that it is not in."""
        channel = self._workspace.channel(str(arguments.get("channel") or ""))
        if channel.kind != "channel" and self._workspace.bot.id not in channel.members:
            raise SlackError("channel_not_found")
        return channel

    def _joined_channel(self, arguments: Json) -> Channel:
        target = str(arguments.get("channel") or "")
        if target in self._workspace.users:
            return self._workspace.direct_channel(target)
        channel = self._known_channel(arguments)
        if self._workspace.bot.id not in channel.members:
            raise SlackError("not_in_channel")
        if channel.is_archived:
            raise SlackError("is_archived")
        return channel

    def _message(self, arguments: Json, name: str) -> Message:
        channel = self._joined_channel(arguments)
        return self._workspace.message(channel.id, str(arguments.get(name) or ""))

    def _own_message(self, arguments: Json, name: str, refusal: str) -> Message:
        message = self._message(arguments, name)
        if message.user != self._workspace.bot.id:
            raise SlackError(refusal)
        return message

    def _page(self, messages: list[Message], arguments: Json) -> Json:
        size = _size(arguments.get("limit"))
        start = _offset(arguments.get("cursor"))
        shown = messages[start : start + size]
        metadata = flag(arguments.get("include_all_metadata"))
        answer: Json = {
            "messages": [message_json(self._workspace, message, metadata=metadata) for message in shown],
            "has_more": start + size < len(messages),
        }
        if answer["has_more"]:
            cursor = base64.b64encode(f"offset:{start + size}".encode()).decode()
            answer["response_metadata"] = {"next_cursor": cursor}
        return answer


def _warned(answer: Json, content: Content) -> Json:
    if content.warnings:
        warning = ",".join(content.warnings)
        answer |= {"warning": warning, "response_metadata": {"warnings": content.warnings}}
    return answer


def _emoji(arguments: Json) -> str:
    name = str(arguments.get("name") or "").strip(":")
    if not name:
        raise SlackError("no_item_specified")
    if not _EMOJI.fullmatch(name):
        raise SlackError("invalid_name")
    return name


def _between(messages: list[Message], arguments: Json) -> list[Message]:
    oldest = str(arguments.get("oldest") or "0")
    latest = str(arguments.get("latest") or "9999999999.999999")
    inclusive = flag(arguments.get("inclusive"))
    try:
        low, high = Decimal(oldest), Decimal(latest)
    except InvalidOperation:
        raise SlackError("invalid_ts_oldest") from None
    return [
        message
        for message in messages
        if low < Decimal(message.ts) < high or (inclusive and message.ts in (oldest, latest))
    ]


def _size(limit: Any) -> int:
    try:
        return min(max(int(limit), 1), _LARGEST_PAGE) if limit else _PAGE_SIZE
    except (TypeError, ValueError):
        raise SlackError("invalid_limit") from None


def _offset(cursor: Any) -> int:
    if not cursor:
        return 0
    try:
        return int(base64.b64decode(str(cursor)).decode().removeprefix("offset:"))
    except (binascii.Error, ValueError):
        raise SlackError("invalid_cursor") from None
