"""A file that an agent shares, uploaded to Slack and shown in the thread.

Three calls (docs.slack.dev, files.getUploadURLExternal and files.completeUploadExternal). The last one
carries no metadata, and answers before the file stands in the thread; now and then it never does
(paradigmxyz/centaur#311). So the post is marked by the id of its block, and looked for until it is there.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import SurfaceBusy, SurfaceError
from bot.models import OutboxItem, SharedFile
from bot.shared_files import shown_name, size_words
from handlers.slack.blocks import Block, section
from handlers.slack.history import History, key_of
from handlers.slack.ids import MARKER, channel_of
from handlers.slack.text import escaped, inert, mention
from handlers.slack.web import RETRY_AFTER, Json, SlackRefused, answered, busy

TITLE = 250
LOOKS = (0.0, 0.5, 1.0, 2.0)  # seconds before each look whether the file stands in the thread
UPLOAD = aiohttp.ClientTimeout(total=300.0)  # seconds: 20 MB at less than a megabit a second
TRIES = 3  # uploads that Slack takes and does not show


class Files:
    def __init__(self, client: AsyncWebClient, history: History) -> None:
        self._client = client
        self._history = history

    async def share(self, item: OutboxItem, file: SharedFile, data: bytes) -> str:
        """The ts of the post. `data` is not empty: Slack takes no empty file.

        Raises SurfaceBusy, SlackRefused, SurfaceError when Slack keeps taking the file and showing nothing.
        """
        saying = item.saying
        name, title = _name(file), _title(file)
        client = self._client
        ticket = await answered(client.files_getUploadURLExternal(filename=name, length=len(data)))
        await self._upload(str(ticket["upload_url"]), data)
        await answered(
            client.files_completeUploadExternal(
                files=[{"id": str(ticket["file_id"]), "title": title}],
                channel_id=channel_of(saying.thread),
                thread_ts=saying.thread.id or None,
                blocks=json.dumps([_about(item, file)], ensure_ascii=False),
            )
        )
        for pause in LOOKS:
            await asyncio.sleep(pause)
            if ts := await self.find(item, file):
                return ts
        if item.attempts + 1 < TRIES:
            raise SurfaceBusy("Slack took the file, but does not show it yet.", RETRY_AFTER)
        raise SurfaceError("Slack took the file and does not show it.", "Ask the agent to share it again.")

    async def find(self, item: OutboxItem, file: SharedFile) -> str:
        """The ts of the post that shows the file, or "". Raises SurfaceBusy, SlackRefused."""
        marker, name, title = _marker(item.saying.key), _name(file), _title(file)

        def shows_it(post: Json) -> bool:
            if key_of(post):  # the words that stand for an empty file
                return key_of(post) == item.saying.key
            ids = [str(block.get("block_id") or "") for block in post.get("blocks") or ()]
            if any(id.startswith(MARKER) for id in ids):
                return marker in ids
            # That Slack keeps the ids of such blocks is not documented.
            return any(
                (one.get("name"), one.get("title")) == (name, title) for one in post.get("files") or ()
            )

        return await self._history.ours(item.saying.thread, item.created_at, shows_it)

    async def _upload(self, url: str, data: bytes) -> None:
        """Raw bytes to the address that Slack gave, which is all the authority it needs."""
        session, client = self._client.session, self._client
        assert session is not None  # noqa: S101  # ours, from the start
        try:
            async with session.post(
                url, data=io.BytesIO(data), proxy=client.proxy, ssl=client.ssl or True, timeout=UPLOAD
            ) as answer:
                status, headers = answer.status, answer.headers
                await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SurfaceBusy(f"Slack cannot be reached ({type(error).__name__}).", RETRY_AFTER) from error
        if status == 429:
            raise busy(headers)
        if status >= 500:
            raise SurfaceBusy(f"Slack does not take files at the moment (status {status}).", RETRY_AFTER)
        if status != 200:
            raise SlackRefused("upload_failed", detail=f"status {status}")


def line(file: SharedFile, to: str) -> str:
    """What is said beside the file, in mrkdwn: whom it is for, the line about it, its name and size."""
    title = escaped(inert(file.title, TITLE)).replace("*", "∗")
    name = escaped(_name(file)).replace("`", "ˋ")
    words = [mention(to), f"*{title}*" if title else "", f"`{name}`"]
    return f"{' '.join(word for word in words if word)} · {size_words(file.size)}"


def _about(item: OutboxItem, file: SharedFile) -> Block:
    return {**section(line(file, item.saying.mention)), "block_id": _marker(item.saying.key)}


def _marker(key: str) -> str:
    # Ids of blocks take 255 characters (docs.slack.dev, "Block Kit reference").
    return f"{MARKER}:{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def _name(file: SharedFile) -> str:
    return inert(shown_name(file), TITLE)


def _title(file: SharedFile) -> str:
    return inert(file.title, TITLE) or _name(file)
