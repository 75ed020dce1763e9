"""A small bot made with the real Bolt, to talk to the Slack of the playground."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from handlers.playground.slack import SlackPlayground


def web_client(slack: SlackPlayground) -> AsyncWebClient:
    """The SDK's client as the bot uses it, without the SDK's own retries."""
    client = AsyncWebClient(token=slack.bot_token, base_url=slack.api_url)
    client.retry_handlers.clear()
    return client


class Bot:
    """Notes every event that reaches it, answers mentions with "on it", clicks with ✅ and `/sandpiper`."""

    def __init__(self, slack: SlackPlayground) -> None:
        self.slack = slack
        self.bodies: list[dict[str, Any]] = []
        self.retries: list[tuple[str, str]] = []
        self.reached = asyncio.Event()
        self.failures_to_come = 0
        self.clicks: list[dict[str, Any]] = []
        self.commands: list[dict[str, Any]] = []
        # An error of a listener is part of some tests; its traceback is not wanted in their output.
        quiet = logging.getLogger("tests.playground_bot")
        quiet.setLevel(logging.CRITICAL)
        self.app = AsyncApp(
            client=web_client(slack),
            signing_secret=slack.signing_secret,
            process_before_response=True,
            logger=quiet,
        )
        self.app.event("app_mention")(self.mentioned)
        self.app.event("message")(self.told)
        self.app.action("stop")(self.clicked)
        self.app.command("/sandpiper")(self.commanded)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [body["event"] for body in self.bodies if body["event"]["type"] == kind]

    def texts(self, kind: str = "message") -> list[str]:
        return [event["text"] for event in self.events(kind) if "text" in event]

    async def mentioned(self, body: dict[str, Any], say: Any, request: Any) -> None:
        self.note(body, request)
        event = body["event"]
        await say(text="on it", thread_ts=event.get("thread_ts", event["ts"]))

    async def told(self, body: dict[str, Any], request: Any) -> None:
        self.note(body, request)

    async def clicked(self, ack: Any, body: dict[str, Any], respond: Any) -> None:
        await ack()
        self.clicks.append(body)
        await respond(text="stopped", replace_original=True)

    async def commanded(self, ack: Any, body: dict[str, Any], respond: Any) -> None:
        self.commands.append(body)
        await ack(f"heard {body['text']}")
        await respond(text="and done", response_type="in_channel")

    def note(self, body: dict[str, Any], request: Any) -> None:
        headers = request.headers
        self.retries.append(
            (headers.get("x-slack-retry-num", ["0"])[0], headers.get("x-slack-retry-reason", [""])[0])
        )
        self.reached.set()
        if self.failures_to_come:
            self.failures_to_come -= 1
            raise RuntimeError("the disk is full")
        self.bodies.append(body)

    @contextlib.asynccontextmanager
    async def connected(self, sockets: int = 1) -> AsyncIterator["Bot"]:
        """Hold this many sockets open while inside."""
        handlers = [
            AsyncSocketModeHandler(self.app, self.slack.app_token, ping_interval=0.2) for _ in range(sockets)
        ]
        try:
            for handler in handlers:
                await handler.connect_async()  # type: ignore[no-untyped-call]
            await self.slack.wait_for(lambda: self.slack.connections == sockets)
            yield self
        finally:
            for handler in handlers:
                await handler.close_async()  # type: ignore[no-untyped-call]
