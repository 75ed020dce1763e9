"""The surface contract over Slack: the real SDK, against the playground's workspace."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest
from slack_sdk.web.async_client import AsyncWebClient

from bot.models import Identity, Mark, MessageRef, ThreadKey
from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_limits import NO_RATES
from handlers.playground.slack_state import ACME, DEFAULT_USERS, User
from handlers.slack.surface import EMOJI, SlackSurface
from handlers.slack.web import installed
from tests.contracts.surface.suite import SurfaceContract

STRANGER = User("U_ZOE", "zoe", "Zoe Zorn", team_id="T_OTHER")


def person(user: User) -> Identity:
    return Identity("slack", f"slack:{ACME.id}", user.id, user.name)


class SlackRig:
    member = person(DEFAULT_USERS[0])
    outsider = person(STRANGER)
    takes_files = True
    largest = 100_000
    alive = ("<!channel>", "@channel", "@here", "<@U_BEN>", "<https://evil.test|safe>")

    def __init__(self, slack: SlackPlayground, surface: SlackSurface) -> None:
        self.surface = surface
        self._slack = slack

    async def open(self, text: str) -> tuple[ThreadKey, MessageRef]:
        ts = self._slack.post(self.member.user, "C_DEV", text)
        return ThreadKey("slack", f"{ACME.id}/C_DEV", ts), MessageRef("slack", "C_DEV", ts)

    async def reply(self, thread: ThreadKey, text: str) -> tuple[MessageRef, str]:
        ts = self._slack.post(self.member.user, "C_DEV", text, thread.id)
        return MessageRef("slack", "C_DEV", ts), ts

    async def posts(self, thread: ThreadKey) -> Sequence[str]:
        return [
            f"{message.text}\n{json.dumps(message.blocks, ensure_ascii=False)}"
            for message in self._slack.messages("C_DEV", thread.id)
            if message.user == self._slack.bot_user_id
        ]

    async def marks(self, ref: MessageRef) -> Sequence[Mark]:
        signs = {emoji: mark for mark, emoji in EMOJI.items()}
        return [signs[emoji] for emoji in self._slack.reactions(ref.place, ref.id)]

    async def delete(self, ref: MessageRef) -> None:
        self._slack.delete(self._slack.bot_user_id, ref.place, ref.id)

    async def readable(self, thread: ThreadKey) -> Sequence[bytes]:
        shown = [one["id"] for message in self._slack.messages("C_DEV", thread.id) for one in message.files]
        return [file.data for id in shown if (file := self._slack.file(id)) is not None and file.data]

    def called(self, person: Identity) -> str:
        return f"<@{person.user}>"

    def lose_next_answer(self) -> None:
        self._slack.lose_answer_next("chat.postMessage")

    def lose_next_file_answer(self) -> None:
        self._slack.lose_answer_next("files.completeUploadExternal")

    def limit_next(self, seconds: int) -> None:
        self._slack.fail_next("chat.postMessage", "ratelimited", retry_after=seconds)

    def break_next(self) -> None:
        self._slack.fail_next("chat.postMessage", "internal_error", status=500)


class TestSlackSurface(SurfaceContract):
    @pytest.fixture
    async def rig(self) -> AsyncIterator[SlackRig]:
        slack = SlackPlayground(
            users=(*DEFAULT_USERS, STRANGER), rates=NO_RATES, largest_file=SlackRig.largest
        )
        async with slack.served(), aiohttp.ClientSession() as session:
            client = AsyncWebClient(
                slack.bot_token, base_url=slack.api_url, session=session, retry_handlers=[]
            )
            yield SlackRig(slack, SlackSurface(client, await installed(client)))
