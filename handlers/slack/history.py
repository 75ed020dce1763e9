"""What stands in Slack already: our own posts, found again by their marker, and what people said."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.models import Remark, ThreadKey
from handlers.slack.directory import Directory
from handlers.slack.ids import MARKER, channel_of
from handlers.slack.text import clipped, escaped, mentions, plain
from handlers.slack.web import Json, SlackRefused, Workspace, answered

PAGE = 200
PAGES = 10
REMARKS = 50
REMARK_CHARS = 2_000
CLOCK_SKEW = 300.0  # seconds that Slack's clock and ours may differ by


class History:
    """conversations.replies and conversations.history, each read for a bounded number of pages."""

    def __init__(self, client: AsyncWebClient, workspace: Workspace) -> None:
        self._client = client
        self._us = workspace.bot_user

    async def marked(self, thread: ThreadKey, key: str, since: float) -> str:
        """The ts of our post with this key in a thread, or "". Raises SurfaceBusy, SlackRefused."""
        return await self.ours(thread, since, lambda post: key_of(post) == key)

    async def marked_root(self, channel: str, key: str, since: float) -> str:
        """The same, at the top of a channel."""
        posts = self._roots(channel, oldest=since - CLOCK_SKEW)
        return await self._first(posts, lambda post: key_of(post) == key)

    async def ours(self, thread: ThreadKey, since: float, wanted: Callable[[Json], bool]) -> str:
        """The ts of our first post in a thread that is `wanted`, or "". Raises SurfaceBusy, SlackRefused."""
        oldest = since - CLOCK_SKEW
        if not thread.id:
            return await self._first(self._roots(channel_of(thread), oldest), wanted)
        return await self._first(self._replies(thread, oldest=oldest), wanted)

    async def remarks(self, thread: ThreadKey, before: str, directory: Directory) -> Sequence[Remark]:
        """The thread's root and the newest of what followed it before the ts `before`, but for our posts."""
        if not thread.id:
            return ()
        root: list[Json] = []
        newest: deque[Json] = deque(maxlen=REMARKS - 1)
        async for message in self._replies(thread, latest=before):
            if message.get("user") == self._us or not _earlier(message, before):
                continue
            if message.get("ts") == thread.id:
                root = [message]
            else:
                newest.append(message)
        said = [(message, _words(message)) for message in (*root, *newest)]
        speakers = {str(message.get("user") or "") for message, _ in said}
        mentioned = {user for _, words in said for user in mentions(words)}
        names = await directory.names(sorted((speakers | mentioned) - {"", self._us}))
        return [
            Remark(_speaker(message, names), clipped(plain(words, names), REMARK_CHARS))
            for message, words in said
            if words
        ]

    async def _first(self, posts: AsyncIterator[Json], wanted: Callable[[Json], bool]) -> str:
        async for post in posts:
            # Any app can write what marks a post, so only our own count.
            if post.get("user") == self._us and wanted(post):
                return str(post["ts"])
        return ""

    async def _replies(
        self, thread: ThreadKey, *, oldest: float = 0.0, latest: str = ""
    ) -> AsyncIterator[Json]:
        """The root, then replies from the oldest on; nothing where the root is gone."""

        async def page(cursor: str) -> AsyncSlackResponse:
            return await self._client.conversations_replies(
                channel=channel_of(thread),
                ts=thread.id,
                oldest=f"{oldest:.6f}",
                latest=latest or None,
                cursor=cursor or None,
                limit=PAGE,
                include_all_metadata=True,
            )

        try:
            async for message in _paged(page):
                yield message
        except SlackRefused as refused:
            if refused.code != "thread_not_found":
                raise

    async def _roots(self, channel: str, oldest: float) -> AsyncIterator[Json]:
        async def page(cursor: str) -> AsyncSlackResponse:
            return await self._client.conversations_history(
                channel=channel,
                oldest=f"{oldest:.6f}",
                cursor=cursor or None,
                limit=PAGE,
                include_all_metadata=True,
            )

        async for message in _paged(page):
            yield message


async def _paged(page: Callable[[str], Awaitable[AsyncSlackResponse]]) -> AsyncIterator[Json]:
    cursor = ""
    for _ in range(PAGES):
        answer = await answered(page(cursor))
        for message in answer.get("messages") or ():
            yield message
        cursor = str((answer.get("response_metadata") or {}).get("next_cursor") or "")
        if not cursor:
            return


def key_of(post: Json) -> str:
    """The key of the saying that a post of ours is, or ""."""
    metadata = post.get("metadata") or {}
    if metadata.get("event_type") != MARKER:
        return ""
    return str((metadata.get("event_payload") or {}).get("key") or "")


def _earlier(message: Json, before: str) -> bool:
    return not before or float(message["ts"]) < float(before)


def _words(message: Json) -> str:
    """What a message says, in Slack's markup; alerts of other bots keep it in attachments or blocks."""
    said = [str(message.get("text") or "")]
    for attachment in message.get("attachments") or ():
        said.append(str(attachment.get("text") or attachment.get("fallback") or ""))
    if not any(said):
        said = _texts(message.get("blocks"))
    if names := [escaped(str(file.get("name") or "a file")) for file in message.get("files") or ()]:
        said.append(f"(attached there, and not brought here: {', '.join(names[:10])})")
    return "\n".join(part for part in said if part)


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    if not isinstance(value, dict):
        return []
    text = value.get("text")
    inner = [text] if isinstance(text, str) else _texts(text)
    return [*inner, *_texts(value.get("fields")), *_texts(value.get("elements"))]


def _speaker(message: Json, names: dict[str, str]) -> str:
    user = str(message.get("user") or "")
    bot = (message.get("bot_profile") or {}).get("name")
    return names.get(user) or str(message.get("username") or bot or user or "somebody")
