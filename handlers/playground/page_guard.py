"""Keeps other web sites away from a server on loopback: any page in the same browser can send it requests.

A foreign page can't read answers, but it can post; and after DNS rebinding it could do both, under a
host name of its own. So the Host must be a loopback address, and whoever says where a request comes from
(browsers do for every POST and socket) must come from here.
"""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class LocalOnly:
    """Passes requests on to `app` unless another site could be behind them; those get a 403."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        trouble = _trouble(scope, Headers(scope=scope))
        if not trouble:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": trouble})
        else:
            await JSONResponse({"error": trouble}, 403)(scope, receive, send)


def is_loopback_name(host: str) -> bool:
    """Whether `host` ("127.0.0.1:8150", "localhost", "[::1]:80") can only mean this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _trouble(scope: Scope, headers: Headers) -> str:
    host = headers.get("host", "")
    if not is_loopback_name(host):
        return "This server answers to loopback addresses only."
    origin = headers.get("origin")
    reads = scope["type"] == "http" and scope["method"] in SAFE_METHODS
    if origin is not None and not reads and origin != f"http://{host}":
        return "This request comes from another site."
    return ""
