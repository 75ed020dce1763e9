"""A scripted model on loopback, behind the APIs that real agents ask: one module per API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from handlers.playground.server import LoopbackServer
from tests.agents.model import anthropic, chat, responses
from tests.agents.model.script import Body, Refusal, Reply, Script, Scripts

SCRIPTS: dict[str, Script] = {
    "hello": [Reply("Hello from the scripted model.")],
    "error": [Refusal(400, "the scripted model refuses")],
}

LONG_ANSWER = 5  # pieces

Api = Callable[[Body, Scripts], Response]

APIS: Mapping[str, Api] = {
    "/v1/messages": anthropic.messages,
    "/v1/chat/completions": chat.completions,
    "/v1/responses": responses.responses,
}


@dataclass
class ModelServer:
    """Use as `async with ModelServer(scripts) as model:`; agents are pointed at `model.url`. What it was
    asked is kept in `requests`."""

    scripts: Mapping[str, Script] = field(default_factory=lambda: SCRIPTS)
    requests: list[Body] = field(default_factory=list)
    refusals: int = 0
    speaking: int = 0  # long answers that are under way

    def __post_init__(self) -> None:
        self._scripts = Scripts(self.scripts)
        routes = [
            *(Route(path, self._endpoint(api), methods=["POST"]) for path, api in APIS.items()),
            Route("/v1/messages/count_tokens", anthropic.count_tokens, methods=["POST"]),
            Route("/{rest:path}", _nothing, methods=["GET", "HEAD", "POST"]),
        ]
        self._server = LoopbackServer(Starlette(routes=routes))

    async def __aenter__(self) -> Self:
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.stop()

    @property
    def url(self) -> str:
        return self._server.url

    def was_told(self, *words: str) -> bool:
        """Did these words reach the model, all in one request?"""
        conversations = (json.dumps(_conversation(request)) for request in self.requests)
        return any(all(word in conversation for word in words) for conversation in conversations)

    def _endpoint(self, api: Api) -> Callable[[Request], object]:
        async def answer(request: Request) -> Response:
            body = await request.json()
            self.requests.append(body)
            response = api(body, self._scripts)
            self.refusals += response.status_code >= 400
            if isinstance(response, StreamingResponse):
                response.body_iterator = self._counted(response.body_iterator)
            return response

        return answer

    async def _counted(self, pieces: AsyncIterable[Any]) -> AsyncIterator[Any]:
        said = 0
        try:
            async for piece in pieces:
                said += 1
                self.speaking += said == LONG_ANSWER
                yield piece
        finally:
            self.speaking -= said >= LONG_ANSWER


def _conversation(request: Body) -> object:
    return request.get("messages") or request.get("input")


async def _nothing(request: Request) -> Response:
    return JSONResponse({"type": "error", "error": {"type": "not_found_error"}}, status_code=404)
