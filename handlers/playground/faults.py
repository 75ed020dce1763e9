"""Faults on purpose, and a record of every call, around an ASGI app served by LoopbackServer."""

import asyncio
import contextlib
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.playground.changes import Changes
from handlers.playground.holds import Hold, Holds
from handlers.playground.server import drop_connection

_CALL = "sandpiper.api_call"


@dataclass(slots=True, eq=False)
class ApiCall:
    """A request as it came in. `status` is None until it is answered; `body` is the JSON sent, if any."""

    method: str
    path: str
    query: str
    status: int | None = None
    caller: str = ""
    body: Any = None


@dataclass(frozen=True, slots=True)
class _Fault:
    kind: Literal["fail", "lose answer"]
    method: str
    path: re.Pattern[str]
    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def meets(self, method: str, path: str) -> bool:
        return self.method in (method, "*") and self.path.search(path) is not None


@dataclass(frozen=True, slots=True, eq=False)
class _Hold:
    method: str
    path: re.Pattern[str]
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Faults:
    """What is to go wrong next. A fault is used up by the first request that it fits."""

    def __init__(self) -> None:
        self._faults: list[_Fault] = []
        self._holds: list[_Hold] = []
        self._push_refusals: deque[str] = deque()
        self.holds: Holds[ApiCall] = Holds()

    def fail_next(
        self,
        method: str,
        path: str,
        status: int,
        *,
        times: int = 1,
        message: str = "Server Error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next `times` requests with `status`, without acting. `path` is a regular expression."""
        body = json.dumps({"message": message}).encode()
        fault = _Fault("fail", method, re.compile(path), status, body, headers or {})
        self._faults += [fault] * times

    def lose_answer_next(self, method: str, path: str, *, times: int = 1) -> None:
        """Act on the next `times` requests, then cut the connection in place of an answer."""
        self._faults += [_Fault("lose answer", method, re.compile(path))] * times

    def refuse_push_next(self, message: str) -> None:
        """Let the repository's hook decline the next push, with `message` for the one who pushes."""
        self._push_refusals.append(message)

    def hold_next(self, method: str, path: str, *, acted: bool) -> Hold:
        """Stop the next request that fits: before it acts, or with `acted` before it is answered."""
        wanted = re.compile(path)
        return self.holds.add(
            lambda call: method in (call.method, "*") and wanted.search(call.path) is not None, acted=acted
        )

    @contextlib.contextmanager
    def holding(self, method: str, path: str) -> Iterator[None]:
        """Inside, requests that fit wait before they have any effect; at the end they go on."""
        hold = _Hold(method, re.compile(path))
        self._holds.append(hold)
        try:
            yield
        finally:
            self._holds.remove(hold)
            hold.over.set()

    async def held(self, method: str, path: str) -> None:
        """Wait while such a request is held."""
        for hold in list(self._holds):
            if hold.method in (method, "*") and hold.path.search(path):
                await hold.over.wait()

    def take(self, method: str, path: str) -> _Fault | None:
        found = next((fault for fault in self._faults if fault.meets(method, path)), None)
        if found is not None:
            self._faults.remove(found)
        return found

    def take_push_refusal(self) -> str | None:
        return self._push_refusals.popleft() if self._push_refusals else None


class Recorded:
    """The ASGI app that writes down the calls to `app`, tells of them, and commits the faults."""

    def __init__(self, app: ASGIApp, faults: Faults, calls: list[ApiCall], changes: Changes) -> None:
        self._app = app
        self._faults = faults
        self._calls = calls
        self._changes = changes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = ApiCall(scope["method"], scope["path"], scope["query_string"].decode())
        self._calls.append(call)
        self._changes.note("called", call.method, call.path)
        scope[_CALL] = call
        await self._faults.held(call.method, call.path)
        hold = self._faults.holds.take(call)
        if hold is None:
            await self._serve(call, scope, receive, send)
        elif hold.acted:
            answer: list[Message] = []

            async def keep(message: Message) -> None:
                answer.append(message)

            await self._serve(call, scope, receive, keep)
            if await hold.passes():
                for message in answer:
                    await send(message)
            else:
                drop_connection(scope)
        elif await hold.passes():
            await self._serve(call, scope, receive, send)
        else:
            drop_connection(scope)

    async def _serve(self, call: ApiCall, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._faults.take(call.method, call.path)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                self._changes.note("answered", call.method, call.path)
            if fault is None or fault.kind == "fail":
                await send(message)

        if fault is not None and fault.kind == "fail":
            answer = Response(
                fault.body, fault.status, headers=fault.headers, media_type="application/json; charset=utf-8"
            )
            await answer(scope, receive, noted)
            return
        await self._app(scope, receive, noted)
        if fault is not None:
            drop_connection(scope)


def call_of(scope: Scope) -> ApiCall:
    """The record of the request with this scope, to be completed by whoever understands it."""
    call: ApiCall = scope[_CALL]
    return call
