"""Slack as a surface: what the core says and draws, by the Web API."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse
from slack_sdk.webhook.async_client import AsyncWebhookClient

from bot.errors import SurfaceBusy, SurfaceError
from bot.models import (
    Ask,
    Attachment,
    Closing,
    Delivery,
    Identity,
    Mark,
    Message,
    MessageRef,
    OutboxItem,
    Remark,
    Saying,
    SayingKind,
    SharedFile,
    Standing,
    ThreadKey,
)
from bot.shared_files import content
from bot.timeline import Timeline
from handlers.slack import asks, files, parse, render, standings
from handlers.slack.attached import Attached
from handlers.slack.directory import Directory
from handlers.slack.files import Files
from handlers.slack.history import History
from handlers.slack.ids import MARKER, SURFACE, channel_of, is_direct
from handlers.slack.render import Drawn
from handlers.slack.web import GONE, RETRY_AFTER, TIMEOUT, Json, SlackRefused, Workspace, answered, busy

log = logging.getLogger(__name__)

REDRAW_SECONDS = 3.0  # chat.update: 50 a minute for a whole workspace (tier 3), shared by all who run
REDRAW_SHARE = 1.5
NAMED = 20  # people looked up for one delivery
REMEMBERED_MARKS = 1_000
REMEMBERED_PICTURES = 200

EMOJI = {
    Mark.SEEN: "eyes",
    Mark.QUEUED: "hourglass_flowing_sand",
    Mark.CONSUMED: "white_check_mark",
    Mark.DROPPED: "wastebasket",
    Mark.REFUSED: "no_entry_sign",
}
WAITING = (Mark.SEEN, Mark.QUEUED)

_BLOCKS_UNKNOWN = ("invalid_blocks", "invalid_blocks_format")
_TOO_LONG = ("msg_blocks_too_long", "msg_too_long")


class SlackSurface:
    """One workspace's surface (see bot.ports.Surface).

    A workspace that refuses plan and card blocks gets plain ones from then on.
    """

    name = SURFACE

    def __init__(self, client: AsyncWebClient, workspace: Workspace) -> None:
        self._client = client
        self._workspace = workspace
        self._directory = Directory(client, workspace)
        self._history = History(client, workspace)
        self._files = Files(client, self._history)
        self._attached = Attached(client)
        self._rich = True
        self._marks: dict[tuple[str, str], Mark] = {}
        self._drawn: dict[tuple[str, str], Drawn] = {}

    # In

    async def parse(self, delivery: Delivery) -> Sequence[Message]:
        bot = self._workspace.bot_user
        users = [user for user in parse.people(delivery) if user != bot]
        names = await self._directory.names(users[:NAMED])
        return parse.messages(delivery, bot, names)

    def standings(self, delivery: Delivery) -> Sequence[Standing]:
        told = standings.standings(parse.read(delivery), self._workspace.bot_user)
        for standing in told:
            self._directory.forget(standing.account)
        return told

    def closings(self, delivery: Delivery) -> Sequence[Closing]:
        """Slack knows of no pull requests."""
        return ()

    async def standing(self, identity: Identity) -> Sequence[Standing]:
        home = f"{SURFACE}:{self._workspace.enterprise or self._workspace.team}"
        if identity.tenant != home:
            return ()
        try:
            gone = await self._directory.deactivated(identity.user)
        except SlackRefused as refused:
            return (Standing(home, why=standings.UNINSTALLED),) if refused.code in GONE else ()
        why = standings.DEACTIVATED if gone else ""
        return (Standing(home), Standing(home, identity.user, why=why))

    async def external(self, identity: Identity, thread: ThreadKey) -> str:
        """Raises SurfaceBusy when Slack cannot say now, Denied for a private channel that we are not in."""
        return await self._directory.why_external(identity.user, channel_of(thread))

    def direct(self, thread: ThreadKey) -> bool:
        return is_direct(channel_of(thread))

    async def remarks(self, thread: ThreadKey, before: str) -> Sequence[Remark]:
        """The root and the newest of the rest, our own posts left out. Raises SurfaceBusy, SurfaceError."""
        return await self._history.remarks(thread, before, self._directory)

    async def fetch(self, file: Attachment, to: Path) -> None:
        await self._attached.fetch(file, to)

    # Out

    async def open_thread(self, message: Message) -> ThreadKey:
        if message.thread.id:
            return message.thread
        channel, key = channel_of(message.thread), f"root:{message.key}"
        found = await self._history.marked_root(channel, key, float(message.sent))
        if not found:
            found = await self._post(
                channel, "", key, lambda rich: render.root(message.author.user, message.text)
            )
        return ThreadKey(SURFACE, message.thread.scope, found)

    async def send(self, item: OutboxItem) -> MessageRef | None:
        saying = item.saying
        if saying.private:
            await self._whisper(saying)
            return None
        if saying.kind is SayingKind.RECEIPT:
            await self._mark(saying)
            return None
        if saying.kind is SayingKind.ASKED:
            return await self._redraw(saying)
        if saying.file is not None:
            return await self._share(item, saying.file)
        channel = channel_of(saying.thread)
        if saying.ask is not None:
            await self._post_before(item, saying.ask)
        ts = await self._post(channel, saying.thread.id, saying.key, lambda rich: _draw(saying, rich))
        return MessageRef(SURFACE, channel, ts)

    async def find(self, item: OutboxItem) -> MessageRef | None:
        saying = item.saying
        # Receipts and what is redrawn can be put again without harm; what one person sees cannot be found.
        if saying.private or saying.kind in (SayingKind.RECEIPT, SayingKind.ASKED):
            return None
        if saying.file is not None:
            ts = await self._files.find(item, saying.file)
        else:
            ts = await self._history.marked(saying.thread, saying.key, item.created_at)
        return MessageRef(SURFACE, channel_of(saying.thread), ts) if ts else None

    async def show(self, ref: MessageRef, picture: Timeline) -> None:
        at = (ref.place, ref.id)
        if self._drawn.get(at) == render.timeline(picture, rich=self._rich):
            return

        await self._update(ref, lambda rich: render.timeline(picture, rich=rich))
        self._drawn.pop(at, None)
        if picture.final is None:
            self._drawn[at] = render.timeline(picture, rich=self._rich)
            _keep(self._drawn, REMEMBERED_PICTURES)

    def spoken(self, words: str) -> str:
        return words

    def redraw_interval(self, running: int) -> float:
        return max(REDRAW_SECONDS, REDRAW_SHARE * running)

    def link(self, thread: ThreadKey) -> str:
        if not (self._workspace.url and thread.id):
            return ""
        return f"{self._workspace.url}archives/{channel_of(thread)}/p{thread.id.replace('.', '')}"

    # How it is said

    async def _share(self, item: OutboxItem, file: SharedFile) -> MessageRef:
        saying, channel = item.saying, channel_of(item.saying.thread)
        if data := await content(file):
            ts = await self._files.share(item, file, data)
        else:  # Slack takes no empty file
            words = Drawn(f"{files.line(file, saying.mention)}: it is empty.")
            ts = await self._post(channel, saying.thread.id, saying.key, _always(words))
        return MessageRef(SURFACE, channel, ts)

    async def _post_before(self, item: OutboxItem, ask: Ask) -> None:
        """What does not go into the message with the buttons is there before it."""
        thread = item.saying.thread
        for number, drawn in enumerate(asks.before(ask), 1):
            key = f"{item.saying.key}/{number}"
            if not (item.tried and await self._history.marked(thread, key, item.created_at)):
                await self._post(channel_of(thread), thread.id, key, _always(drawn))

    async def _redraw(self, saying: Saying) -> MessageRef | None:
        """What came of something that was asked, in its place."""
        if saying.ref is not None:
            await self._update(saying.ref, lambda rich: _draw(saying, rich))
        return saying.ref

    async def _update(self, ref: MessageRef, draw: Callable[[bool], Drawn]) -> None:
        async def update(drawn: Drawn) -> AsyncSlackResponse:
            return await self._client.chat_update(
                channel=ref.place, ts=ref.id, text=drawn.text, blocks=list(drawn.blocks)
            )

        await self._drawing(draw, update)

    async def _post(self, channel: str, thread_ts: str, key: str, draw: Callable[[bool], Drawn]) -> str:
        async def post(drawn: Drawn) -> AsyncSlackResponse:
            return await self._client.chat_postMessage(
                channel=channel,
                thread_ts=thread_ts or None,
                text=drawn.text,
                blocks=list(drawn.blocks) or None,
                metadata={"event_type": MARKER, "event_payload": {"key": key}},
                unfurl_links=False,
                unfurl_media=False,
            )

        return str((await self._drawing(draw, post))["ts"])

    async def _drawing(
        self, draw: Callable[[bool], Drawn], call: Callable[[Drawn], Awaitable[AsyncSlackResponse]]
    ) -> Json:
        """Rich, else plain, else as text alone: what has to be said is said."""
        if self._rich:
            try:
                return await answered(call(draw(True)))
            except SlackRefused as refused:
                if refused.code not in (*_BLOCKS_UNKNOWN, *_TOO_LONG):
                    raise
                trouble = refused
            log.warning("Slack did not take a message's blocks, so it gets plain ones: %s", trouble)
        else:
            trouble = None
        drawn = draw(False)
        try:
            answer = await answered(call(drawn))
        except SlackRefused as refused:
            if refused.code not in (*_BLOCKS_UNKNOWN, *_TOO_LONG) or not drawn.blocks or drawn.whole:
                raise
            log.warning("Slack did not take plain blocks either: %s", refused)
            return await answered(call(Drawn(drawn.text)))
        if trouble is not None and trouble.code in _BLOCKS_UNKNOWN:
            self._rich = False
        return answer

    async def _whisper(self, saying: Saying) -> None:
        """Answer a command or a click, for its author alone. The URL lives half an hour, for five answers."""
        webhook = AsyncWebhookClient(saying.private, timeout=int(TIMEOUT), retry_handlers=[])
        webhook.proxy, webhook.ssl, webhook.session = (
            self._client.proxy,
            self._client.ssl,
            self._client.session,
        )
        drawn = _draw(saying, rich=False)
        body = {
            "text": drawn.text,
            **({"blocks": list(drawn.blocks)} if drawn.blocks else {}),
            "response_type": "ephemeral",
            "replace_original": False,
            **({"thread_ts": saying.thread.id} if saying.thread.id else {}),
        }
        try:
            answer = await webhook.send_dict(body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SurfaceBusy(f"Slack cannot be reached ({type(error).__name__}).", RETRY_AFTER) from error
        if answer.status_code == 429:
            raise busy(answer.headers)
        if answer.status_code >= 500:
            raise SurfaceBusy(f"Slack does not work at the moment ({answer.status_code}).", RETRY_AFTER)
        if answer.status_code != 200:
            raise SurfaceError(
                f"Slack no longer takes an answer to this command ({answer.status_code} {answer.body[:80]}).",
                "Ask again.",
            )

    async def _mark(self, saying: Saying) -> None:
        """Put a receipt's emoji on a message, and take away the one that said it was waiting."""
        if saying.ref is None or saying.mark is None:
            return
        channel, ts = at = saying.ref.place, saying.ref.id
        try:
            await answered(self._client.reactions_add(channel=channel, timestamp=ts, name=EMOJI[saying.mark]))
        except SlackRefused as refused:
            if refused.code != "already_reacted":
                raise
        # After a restart the earlier mark is not known; most messages were marked as seen.
        before = self._marks.pop(at, Mark.SEEN)
        if saying.mark in WAITING:
            self._marks[at] = saying.mark
            _keep(self._marks, REMEMBERED_MARKS)
        elif before in WAITING:
            await self._unmark(channel, ts, before)

    async def _unmark(self, channel: str, ts: str, mark: Mark) -> None:
        try:
            await answered(self._client.reactions_remove(channel=channel, timestamp=ts, name=EMOJI[mark]))
        except (SlackRefused, SurfaceBusy) as error:
            log.debug("an old mark stays beside the new one: %s", error)


def _draw(saying: Saying, rich: bool) -> Drawn:
    if saying.kind is SayingKind.TIMELINE:
        first = Timeline(
            saying.turn or 0, headline=saying.text or "Preparing…", stoppable=saying.turn is not None
        )
        return render.timeline(first, rich=rich)
    if saying.kind is SayingKind.FINAL and saying.final is not None:
        return render.final(saying.final, saying.mention, rich=rich)
    if saying.ask is not None:
        return asks.ask(saying.ask, saying.mention)
    if saying.reset or saying.kind is SayingKind.ASKED:
        return render.reset(saying.text, saying.reset)
    return render.note(saying.text, saying.mention)


def _always(drawn: Drawn) -> Callable[[bool], Drawn]:
    return lambda rich: drawn


def _keep(known: dict[Any, Any], most: int) -> None:
    while len(known) > most:
        del known[next(iter(known))]
