"""The web side: one Starlette application on uvicorn, in the event loop that runs everything else.

The surfaces bring their own routes (webhooks, Slack over HTTP); what is here holds for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.errors import SettingsError

log = logging.getLogger(__name__)

# GitHub's webhooks are the largest thing that is sent to us: 25 MB at most (docs.github.com, "Webhook
# events and payloads"). The rest is room for a route to refuse what is just above, in its own words.
LARGEST_BODY = 26 * 1024 * 1024
HEALTH_SECONDS = 5.0  # a probe gives up after ten seconds or so; ours answers before
GRACE_SECONDS = 10.0  # for requests that are under way when we stop

Health = Callable[[], Awaitable[Mapping[str, object]]]


def application(routes: Sequence[BaseRoute], health: Health) -> Starlette:
    """The product's web application: `routes` and /healthz.

    health: asks the store a question and returns what /healthz shows besides `ok` (the version …).
    Whatever it raises, or no answer within HEALTH_SECONDS, is a 503; the reason goes to the log, for
    anybody may ask. A request body above LARGEST_BODY is refused with 413 while it comes in.
    """

    async def healthz(request: Request) -> Response:
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                details = await health()
        except Exception:  # the outermost place of the question: a bot that cannot answer it is not well
            log.exception("the store does not answer")
            return JSONResponse({"ok": False, "error": "the store does not answer"}, status_code=503)
        return JSONResponse({"ok": True, **details})

    return Starlette(
        routes=[Route("/healthz", healthz), *routes],
        middleware=[Middleware(_AnswerErrors)],
        max_body_size=LARGEST_BODY,
    )


class Later:
    """A route to who is not there yet: until it `becomes` theirs, senders are asked to come again.

    retry_after: seconds.
    """

    def __init__(self, path: str, retry_after: int = 5) -> None:
        self._retry_after = retry_after
        self._route: Route | None = None
        self.route = Route(path, self._answer, methods=["POST"])

    def becomes(self, route: Route) -> None:
        self._route = route

    async def _answer(self, request: Request) -> Response:
        if self._route is None:
            error = {"error": "The bot is still starting."}
            return JSONResponse(error, 503, headers={"Retry-After": str(self._retry_after)})
        answer: Response = await self._route.endpoint(request)
        return answer


class _AnswerErrors:
    """An error that nobody caught becomes a 500 in JSON, and a traceback in the log that names the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:  # the outermost loop of a request
            if started or scope["type"] != "http":
                raise  # too late for an answer: the server cuts the connection, and logs it
            log.exception("%s %s failed", scope["method"], scope["path"])
            answer = JSONResponse({"error": "Something went wrong on our side; the log has it."}, 500)
            await answer(scope, receive, send)


class WebServer:
    """Serves an ASGI app from `start` to `stop`. `port` 0 takes a free one; signals stay with the program.

    Raises SettingsError from `start` when the address cannot be used; setting: which ones name it.
    """

    def __init__(self, app: ASGIApp, host: str, port: int, *, setting: str = "SANDPIPER_WEB") -> None:
        self._setting = setting
        self._app = app
        self._host = host
        self._port = port
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, once started; before, the one asked for."""
        return self._port

    async def start(self) -> None:
        listening = await _listen(self._host, self._port, self._setting)
        self._port = listening.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            lifespan="off",  # what lives and dies with the program is the program's own matter
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(GRACE_SECONDS),
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]), name="web server")
        await self._server.ready.wait()
        log.info(
            "listening on http://%s:%d", f"[{self._host}]" if ":" in self._host else self._host, self._port
        )

    async def stop(self) -> None:
        """Take no new requests, let those under way finish (GRACE_SECONDS at most). Twice is harmless."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        await self._serving
        self._server = self._serving = None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def _listen(host: str, port: int, setting: str) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen()
            listening.setblocking(False)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"Nothing can be served on {host}:{port}: {error.strerror or error}.",
            f"Set {setting}_HOST and {setting}_PORT to an address of this machine and a free port.",
        ) from error
    return listening
