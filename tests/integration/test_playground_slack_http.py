"""The playground's Slack sends events, clicks and commands by signed HTTP, and Bolt verifies them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
from slack_bolt.adapter.starlette.async_handler import AsyncSlackRequestHandler
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from handlers.playground.server import LoopbackServer
from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_state import SlackError
from tests.integration.playground_bot import Bot, web_client

BUTTON = {"type": "button", "action_id": "stop", "text": {"type": "plain_text", "text": "Stop"}}


@dataclass
class Listening:
    """A bot behind its request URL, and what it answered each request with."""

    slack: SlackPlayground
    bot: Bot
    statuses: list[int] = field(default_factory=list)
    outages_to_come: int = 0
    slow_ones_to_come: int = 0
    no_retry: bool = False

    async def handle(self, request: Request) -> Response:
        if self.slow_ones_to_come:
            self.slow_ones_to_come -= 1
            await asyncio.Event().wait()
        if self.outages_to_come:
            self.outages_to_come -= 1
            headers = {"x-slack-no-retry": "1"} if self.no_retry else {}
            response: Response = PlainTextResponse("down", 503, headers)
        else:
            response = await AsyncSlackRequestHandler(self.bot.app).handle(request)
        self.statuses.append(response.status_code)
        return response

    async def all_acknowledged(self) -> None:
        await self.slack.wait_for(lambda: self.slack.deliveries and not self.slack.undelivered)


@contextlib.asynccontextmanager
async def listening(ack_timeout: float = 3.0) -> AsyncIterator[Listening]:
    playground = SlackPlayground(ack_timeout=ack_timeout, retry_delays=(0.0, 0.0, 0.0))
    async with playground.served() as slack:
        listener = Listening(slack, Bot(slack))
        routes = [Route("/slack/events", listener.handle, methods=["POST"])]
        async with LoopbackServer(Starlette(routes=routes)) as server:
            slack.request_url = f"{server.url}/slack/events"
            yield listener


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would send even loopback through a proxy of the environment."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def listener() -> AsyncIterator[Listening]:
    async with listening() as one:
        yield one


async def test_the_request_url_answers_slacks_challenge(listener: Listening) -> None:
    assert await listener.slack.verify_request_url()


async def test_a_mention_comes_signed_and_is_answered(listener: Listening) -> None:
    slack = listener.slack
    root = slack.post("U_ANA", "C_DEV", "@sandpiper grüße")
    await slack.wait_for(lambda: len(slack.messages("C_DEV", root)) == 2)
    await listener.all_acknowledged()
    assert set(listener.statuses) == {200}
    assert listener.bot.texts("app_mention") == ["<@U_BOT> grüße"]


async def test_bolt_refuses_what_slack_did_not_sign(listener: Listening) -> None:
    forged = {"x-slack-request-timestamp": "1700000000", "x-slack-signature": "v0=00"}
    async with httpx.AsyncClient(trust_env=False) as client:
        url = listener.slack.request_url or ""
        response = await client.post(url, json={"type": "event_callback", "event": {}}, headers=forged)
    assert response.status_code == 401


async def test_an_event_comes_again_after_an_outage(listener: Listening) -> None:
    listener.outages_to_come = 2
    listener.slack.post("U_ANA", "C_DEV", "hello")
    await listener.all_acknowledged()
    assert listener.statuses == [503, 503, 200]
    assert listener.bot.retries == [("2", "http_error")]


async def test_an_event_comes_again_when_it_took_too_long() -> None:
    async with listening(ack_timeout=0.5) as listener:
        listener.slow_ones_to_come = 1
        listener.slack.post("U_ANA", "C_DEV", "hello")
        await listener.all_acknowledged()
    assert listener.bot.retries == [("1", "http_timeout")]


async def test_an_event_is_given_up_after_three_retries_or_at_once_if_asked(listener: Listening) -> None:
    slack = listener.slack
    listener.outages_to_come = 4
    slack.post("U_ANA", "C_DEV", "hello")
    await slack.wait_for(lambda: slack.deliveries[0].state == "abandoned")
    assert listener.statuses == [503] * 4
    listener.outages_to_come, listener.no_retry = 1, True
    slack.post("U_ANA", "C_DEV", "again")
    await slack.wait_for(lambda: slack.deliveries[1].state == "abandoned")
    assert listener.statuses == [503] * 5


async def test_a_click_and_a_command_come_as_forms(listener: Listening) -> None:
    slack = listener.slack
    blocks = [{"type": "actions", "elements": [BUTTON]}]
    posted = await web_client(slack).chat_postMessage(channel="C_DEV", text="?", blocks=blocks)
    await slack.click("U_ANA", "C_DEV", posted["ts"], "stop")
    await slack.slash("U_ANA", "C_DEV", "/sandpiper", "a & b")
    await slack.wait_for(lambda: len(slack.messages("C_DEV")) == 2)
    assert [click["user"]["id"] for click in listener.bot.clicks] == ["U_ANA"]
    assert [message.shown for message in slack.messages("C_DEV")] == ["stopped", "and done"]
    assert [message.text for message in slack.ephemerals("U_ANA")] == ["heard a &amp; b"]


async def test_a_command_is_not_tried_again(listener: Listening) -> None:
    listener.outages_to_come = 2
    with pytest.raises(SlackError, match="dispatch_failed"):
        await listener.slack.slash("U_ANA", "C_DEV", "/sandpiper", "status")
    assert listener.statuses == [503]
