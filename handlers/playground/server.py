"""Serve an ASGI app on the loopback interface, inside the event loop that is already running."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Generator, MutableMapping
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

_DROP = "sandpiper.drop_connection"


class NotLoopback(ValueError):
    """The playground has no real authentication, so it may be bound to a loopback address only."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host!r} is not a loopback address; use 127.0.0.1 or ::1")


class StartupFailed(RuntimeError):
    """The app's lifespan refused to start; uvicorn has logged its traceback."""


class LoopbackServer:
    """Run `app` with uvicorn on a loopback address; `port` 0 takes a free one.

    Use it as `async with LoopbackServer(app) as server:` or by `start` and `stop`. The app's lifespan
    is run. Signals stay with the program that owns the event loop.

    Raises NotLoopback when made, and OSError from `start` when the port is taken.
    """

    def __init__(self, app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0) -> None:
        if not _is_loopback(host):
            raise NotLoopback(host)
        self._app = app
        self._host = host
        self._wanted_port = port
        self._server: _Server | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        if self._socket is None:
            raise RuntimeError("the server has not been started")
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """For example `http://127.0.0.1:41234`, without a slash at the end."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        if self._server is not None:
            raise RuntimeError("the server runs already")
        listening = _listen(self._host, self._wanted_port)
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            ws="websockets-sansio",
            # Streams of server-sent events never end by themselves; this is how long they may hold up `stop`.
            timeout_graceful_shutdown=1,
        )
        config.load()
        server = _Server(config)
        try:
            await server.startup(sockets=[listening])
        except SystemExit as exc:
            listening.close()
            raise StartupFailed("the app did not start; see the log of uvicorn.error") from exc
        self._socket = listening
        self._server = server
        self._ticking = asyncio.create_task(server.main_loop(), name="loopback-server")

    async def stop(self) -> None:
        """Close every connection and run the app's shutdown. Stopping twice is harmless."""
        server, ticking, listening = self._server, self._ticking, self._socket
        self._server = self._ticking = self._socket = None
        if server is None or ticking is None or listening is None:
            return
        ticking.cancel()
        await asyncio.wait([ticking])
        await server.shutdown(sockets=[listening])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope.setdefault("extensions", {})[_DROP] = lambda: self._abort(scope["client"])
        await self._app(scope, receive, send)

    def _abort(self, client: tuple[str, int]) -> None:
        if self._server is None:
            return
        for connection in list(self._server.server_state.connections):
            # Not every protocol class that uvicorn names in its types knows its client.
            if getattr(connection, "client", None) == tuple(client):
                connection.transport.abort()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.lifespan = config.lifespan_class(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def drop_connection(scope: MutableMapping[str, Any]) -> None:
    """Cut the connection of a request (`request.scope`) at once, so that its client never sees an answer.

    For faults on purpose; whatever the app answers afterwards goes nowhere.
    """
    drop: Callable[[], None] | None = scope.get("extensions", {}).get(_DROP)
    if drop is None:
        raise RuntimeError("only a request served by LoopbackServer can be dropped")
    drop()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name could resolve to anything, so only literal addresses are taken.
        return False


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    return listening
