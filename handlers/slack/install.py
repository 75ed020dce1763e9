"""Slack put together: the app that listens, the surface that speaks, and their connection."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable

import aiohttp
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.adapter.starlette.async_handler import AsyncSlackRequestHandler
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.signature import SignatureVerifier
from slack_sdk.web.async_client import AsyncWebClient
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bot.errors import SurfaceBusy, SurfaceError
from handlers.slack.listeners import Accept, listen
from handlers.slack.surface import SlackSurface
from handlers.slack.web import (
    MEND_APP,
    RETRY_AFTER,
    TIMEOUT,
    WRONG_TOKEN,
    SlackRefused,
    answered,
    installed,
    on_loopback,
)

log = logging.getLogger(__name__)

API = "https://slack.com/api/"
PATH = "/slack/events"  # of HTTP mode
SOCKETS = 2  # Slack asks sockets to reconnect now and then, one at a time: the other one goes on
CONNECT_SECONDS = 30.0


class Slack:
    """A workspace that the app is installed to. Made by `connect`."""

    def __init__(
        self,
        app: AsyncApp,
        surface: SlackSurface,
        session: aiohttp.ClientSession,
        app_token: str,
        signing_secret: str,
    ) -> None:
        self.surface = surface
        self._app = app
        self._session = session
        self._app_token = app_token
        self._signing_secret = signing_secret
        self._handlers: list[AsyncSocketModeHandler] = []

    async def start(self) -> None:
        """Open the sockets, in Socket Mode. Raises SurfaceBusy, SurfaceError (a wrong app token).

        What is open stays open until `stop`: called again, it opens the sockets that are missing, for
        Slack grants few of them a minute.
        """
        while self._app_token and len(self._handlers) < SOCKETS:
            await self._open_socket()

    async def stop(self) -> None:
        """Hear nothing more, and say nothing more."""
        await self._close_sockets()
        await self._session.close()

    def route(self) -> Route:
        """Where Slack sends everything in HTTP mode. Raises SurfaceError without a signing secret."""
        if not self._signing_secret:
            raise SurfaceError("Slack's requests cannot be verified.", "Set the app's signing secret.")
        verifier = SignatureVerifier(self._signing_secret)
        handler = AsyncSlackRequestHandler(self._app)

        async def receive(request: Request) -> Response:
            # Bolt verifies too, but it parses first: what is not from Slack shall not get that far.
            if not _is_signed(verifier, await request.body(), request):
                return PlainTextResponse("invalid request signature", 401)
            if not _is_readable(await request.body(), request):
                return PlainTextResponse("the body is neither a form nor a JSON object of Slack's", 400)
            return await handler.handle(request)

        return Route(PATH, receive, methods=["POST"])

    async def _open_socket(self) -> None:
        client = self._app.client
        # Asked here and not by the SDK, which would repeat a wrong token's call for ever.
        try:
            opened = await answered(client.apps_connections_open(app_token=self._app_token))
        except SlackRefused as refused:
            if refused.code in WRONG_TOKEN:
                raise SlackRefused(refused.code, MEND_APP) from refused
            raise
        handler = AsyncSocketModeHandler(self._app, self._app_token, logger=log, web_client=client)
        handler.client.wss_uri = opened["url"]
        handler.client.proxy = client.proxy
        try:
            await asyncio.wait_for(handler.connect_async(), CONNECT_SECONDS)  # type: ignore[no-untyped-call]
        except BaseException as error:
            await handler.close_async()  # type: ignore[no-untyped-call]
            if isinstance(error, TimeoutError):
                raise SurfaceBusy("Slack's socket cannot be opened.", RETRY_AFTER) from None
            raise
        self._handlers.append(handler)

    async def _close_sockets(self) -> None:
        while self._handlers:
            await self._handlers.pop().close_async()  # type: ignore[no-untyped-call]


async def connect(
    *,
    bot_token: str,
    accept: Accept,
    app_token: str = "",
    signing_secret: str = "",
    base_url: str = API,
    now: Callable[[], float] = time.time,
) -> Slack:
    """Find out who we are in the workspace of `bot_token`, and make its surface and its listeners.

    With `app_token` (xapp-…) `start` opens Socket Mode; with `signing_secret` `route` serves HTTP.
    `accept` stores a delivery durably before it is acknowledged. Raises SurfaceBusy, SurfaceError.
    """
    if not (app_token or signing_secret):
        raise SurfaceError(
            "Slack has no way to reach the bot.",
            "Set the app-level token for Socket Mode (xapp-…), or the signing secret for HTTP.",
        )
    # aiohttp's own was made when it was imported, before anybody could say what to trust.
    trusting = aiohttp.TCPConnector(ssl=ssl.create_default_context())
    session = aiohttp.ClientSession(connector=trusting, timeout=aiohttp.ClientTimeout(total=TIMEOUT))
    try:
        client = _client(base_url, session, bot_token)
        workspace = await installed(client)
    except BaseException:
        await session.close()
        raise

    async def authorize() -> AuthorizeResult:
        """One workspace, asked about once: Bolt would call auth.test for each event."""
        return AuthorizeResult(
            enterprise_id=workspace.enterprise or None,
            team_id=workspace.team,
            bot_user_id=workspace.bot_user,
            bot_id=workspace.bot_id,
            bot_token=bot_token,
        )

    app = AsyncApp(
        name="sandpiper",
        logger=log,
        client=_client(base_url, session),
        authorize=authorize,
        signing_secret=signing_secret,
        request_verification_enabled=bool(signing_secret),
        process_before_response=True,
    )
    listen(app, accept, workspace.bot_user, now)
    return Slack(app, SlackSurface(client, workspace), session, app_token, signing_secret)


def _client(base_url: str, session: aiohttp.ClientSession, token: str | None = None) -> AsyncWebClient:
    # No retry handlers: the SDK's own repeats a call whose answer was lost, and posts twice.
    client = AsyncWebClient(token, base_url=base_url, session=session, retry_handlers=[], logger=log)
    if on_loopback(base_url):
        client.proxy = None
    return client


def _is_signed(verifier: SignatureVerifier, body: bytes, request: Request) -> bool:
    try:
        return verifier.is_valid_request(body, dict(request.headers))
    except (ValueError, TypeError):  # a timestamp that is no number, a body or signature that is no text
        return False


def _is_readable(body: bytes, request: Request) -> bool:
    """Can Bolt take it apart? Of what it did not expect it says nothing, it falls over it."""
    try:
        AsyncBoltRequest(body=body.decode(), headers=dict(request.headers))
    except (ValueError, TypeError, AttributeError, LookupError):
        return False
    return True
