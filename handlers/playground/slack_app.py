"""Slack's own addresses on loopback: the Web API, Socket Mode and response URLs, as one ASGI app."""

import json
import math
import time
import urllib.parse
import uuid
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from handlers.playground.changes import Changes
from handlers.playground.holds import Hold, Holds
from handlers.playground.server import drop_connection
from handlers.playground.slack_api import WebApi
from handlers.playground.slack_faults import Faults
from handlers.playground.slack_limits import RateLimiter
from handlers.playground.slack_responses import Responses
from handlers.playground.slack_sockets import Sockets
from handlers.playground.slack_state import Json, SlackError, Workspace

SCOPES = (
    *(
        "app_mentions:read",
        "chat:write",
        "commands",
        "files:read",
        "files:write",
        "reactions:write",
        "users:read",
    ),
    *("channels:history", "groups:history", "im:history", "mpim:history"),
    *("channels:read", "groups:read", "im:read", "mpim:read"),
)
UPLOAD = "upload"  # not a method of Slack's, but what the upload of a file is called here

_NEEDED = {
    "files.getUploadURLExternal": "files:write",
    "files.completeUploadExternal": "files:write",
    "files.info": "files:read",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the Web API. `at` is in seconds since 1970; `error` is empty if it went well."""

    method: str
    arguments: Json
    at: float
    error: str = ""


class _MissingScope(SlackError):
    def __init__(self, needed: str) -> None:
        super().__init__("missing_scope")
        self.needed = needed


class _RateLimited(SlackError):
    def __init__(self, retry_after: int) -> None:
        super().__init__("ratelimited")
        self.retry_after = retry_after


class SlackApp:
    """Lets calls in: who calls, how often, what goes wrong on purpose. What they do is WebApi's matter."""

    def __init__(
        self,
        workspace: Workspace,
        api: WebApi,
        sockets: Sockets,
        responses: Responses,
        *,
        limiter: RateLimiter,
        faults: Faults,
        changes: Changes,
        bot_token: str,
        app_token: str,
        url: Callable[[], str],
        scopes: Collection[str] = SCOPES,
    ) -> None:
        self._workspace = workspace
        self._api = api
        self._sockets = sockets
        self._responses = responses
        self._limiter = limiter
        self._faults = faults
        self._changes = changes
        self._bot_token = bot_token
        self._app_token = app_token
        self._url = url
        self._scopes = scopes
        self._tickets: set[str] = set()
        self.removed = False
        self._holds: Holds[Call] = Holds()
        self.calls: deque[Call] = deque(maxlen=5000)
        self.asgi = Starlette(
            routes=[
                Route("/api/{method}", self._call, methods=["GET", "POST"]),
                Route("/upload/v1/{ticket}", self._upload, methods=["POST"]),
                Route("/files-pri/{id}/{name}", self._file),
                Route("/signin", self._sign_in),
                Route("/responses/{ticket}", self._respond, methods=["POST"]),
                WebSocketRoute("/socket", self._socket),
            ]
        )

    def hold_next(self, method: str, containing: str, *, acted: bool) -> Hold:
        """Stop the next call of a method with this text in an argument, before or after it acts."""

        def fits(call: Call) -> bool:
            return call.method == method and any(
                containing in str(value) for value in call.arguments.values()
            )

        return self._holds.add(fits, acted=acted)

    async def _call(self, request: Request) -> Response:
        method = request.path_params["method"]
        arguments = await _arguments(request)
        token = _token(request, arguments)
        return await self._meet(request, method, arguments, lambda: self._answer(method, token, arguments))

    async def _upload(self, request: Request) -> Response:
        ticket, data = request.path_params["ticket"], await request.body()

        def take() -> Json:
            self._api.files.take(ticket, data)
            return {}

        return await self._meet(request, UPLOAD, {"ticket": ticket, "bytes": len(data)}, take)

    async def _file(self, request: Request) -> Response:
        """A file that a person attached, for whose token may read it; others are sent to sign in."""
        file = self._api.files.get(request.path_params["id"])
        if file is None or file.data is None:
            return PlainTextResponse("not found", 404)
        if _token(request, {}) != self._bot_token or "files:read" not in self._scopes:
            return RedirectResponse(f"{self._url()}/signin?redir={request.url.path}", 302)
        return Response(file.data, media_type=file.picture or "application/octet-stream")

    async def _sign_in(self, request: Request) -> Response:
        return HTMLResponse("<!DOCTYPE html><title>Sign in</title>")

    async def _meet(
        self, request: Request, method: str, arguments: Json, act: Callable[[], Json]
    ) -> Response:
        """Let a call act and be answered, unless something is to go wrong with it."""
        hold = self._holds.take(Call(method, arguments, time.time()))
        if hold is not None and not hold.acted and not await hold.passes():
            drop_connection(request.scope)
            return Response()
        response = self._served(request, method, arguments, act)
        if hold is not None and hold.acted and not await hold.passes():
            drop_connection(request.scope)
        return response

    def _served(self, request: Request, method: str, arguments: Json, act: Callable[[], Json]) -> Response:
        fault = self._faults.take(method)
        try:
            if fault is not None and (fault.error or not fault.acts):
                if fault.error == "ratelimited":
                    raise _RateLimited(fault.retry_after)
                raise SlackError(fault.error or "connection_lost")
            answer = act()
        except SlackError as refusal:
            self._note_call(method, arguments, refusal.code)
            status = fault.status if fault is not None else 400 if method == UPLOAD else 200
            response = _refused(refusal, status)
        else:
            self._note_call(method, arguments, "")
            response = JSONResponse({"ok": True, **answer})
        response.headers["x-slack-req-id"] = uuid.uuid4().hex
        response.headers["x-oauth-scopes"] = ",".join(self._scopes)
        if fault is not None and not fault.error:
            drop_connection(request.scope)
        return response

    def _answer(self, method: str, token: str, arguments: Json) -> Json:
        opens_socket = method == "apps.connections.open"
        if not opens_socket and method not in self._api.methods:
            raise SlackError("unknown_method")
        self._check_token(token, self._app_token if opens_socket else self._bot_token)
        if (needed := _NEEDED.get(method)) and needed not in self._scopes:
            raise _MissingScope(needed)
        wait = self._limiter.take(method, str(arguments.get("channel") or ""))
        if wait:
            raise _RateLimited(math.ceil(wait))
        if opens_socket:
            return self._open_socket()
        return self._api.methods[method](arguments)

    def _check_token(self, token: str, wanted: str) -> None:
        if not token:
            raise SlackError("not_authed")
        if self.removed and token == self._bot_token:
            raise SlackError("account_inactive")
        if token not in (self._bot_token, self._app_token):
            raise SlackError("invalid_auth")
        if token != wanted:
            raise SlackError("not_allowed_token_type")

    def _open_socket(self) -> Json:
        ticket = uuid.uuid4().hex
        self._tickets.add(ticket)
        return {"url": f"{self._url().replace('http', 'ws', 1)}/socket?ticket={ticket}"}

    async def _socket(self, websocket: WebSocket) -> None:
        ticket = websocket.query_params.get("ticket", "")
        if ticket not in self._tickets:
            await websocket.close()
            return
        self._tickets.remove(ticket)
        await self._sockets.serve(websocket, self._workspace.app_id)

    async def _respond(self, request: Request) -> Response:
        try:
            self._responses.use(request.path_params["ticket"], await _arguments(request))
        except SlackError as refusal:
            status = 404 if refusal.code in ("expired_url", "used_url") else 400
            return PlainTextResponse(refusal.code, status)
        return PlainTextResponse("ok")

    def _note_call(self, method: str, arguments: Json, error: str) -> None:
        self.calls.append(Call(method, arguments, time.time(), error))
        self._changes.note("called", method)


async def _arguments(request: Request) -> Json:
    """The arguments of the query, of a form or of a JSON object, as the SDKs send them."""
    arguments: Json = dict(request.query_params)
    body = (await request.body()).decode("utf-8", "replace")
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            given = json.loads(body or "{}")
        except ValueError:
            given = {}
        return arguments | (given if isinstance(given, dict) else {})
    return arguments | dict(urllib.parse.parse_qsl(body, keep_blank_values=True))


def _token(request: Request, arguments: Json) -> str:
    """The token, taken out of the arguments so that no log of calls holds it."""
    given = str(arguments.pop("token", ""))
    return request.headers.get("authorization", "").removeprefix("Bearer ").strip() or given


def _refused(refusal: SlackError, status: int) -> Response:
    body: Json = {"ok": False, "error": refusal.code}
    if isinstance(refusal, _RateLimited):
        return JSONResponse(body, 429, {"retry-after": str(refusal.retry_after)})
    if isinstance(refusal, _MissingScope):
        body["needed"] = refusal.needed
    if refusal.details:
        body["errors"] = list(refusal.details)
        body["response_metadata"] = {"messages": [f"[ERROR] {reason}" for reason in refusal.details]}
    return JSONResponse(body, status)
