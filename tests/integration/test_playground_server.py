"""The loopback server: what it refuses, and what its clients see."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from handlers.playground.server import LoopbackServer, NotLoopback, StartupFailed, drop_connection


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


async def vanish(request: Request) -> Response:
    drop_connection(request.scope)
    return PlainTextResponse("never seen")


async def endless(request: Request) -> Response:
    async def lines() -> AsyncIterator[bytes]:
        yield b"first\n"
        await asyncio.Event().wait()

    return StreamingResponse(lines())


APP = Starlette(routes=[Route("/", hello), Route("/vanish", vanish), Route("/endless", endless)])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "localhost", "example.com"])
def test_it_refuses_every_address_that_is_not_loopback(host: str) -> None:
    with pytest.raises(NotLoopback, match=r"127\.0\.0\.1"):
        LoopbackServer(APP, host=host)


async def test_it_serves_on_a_free_port_and_gives_it_back() -> None:
    async with LoopbackServer(APP) as server, httpx.AsyncClient() as client:
        url, port = server.url, server.port
        assert (await client.get(url)).text == "hello"
    async with LoopbackServer(APP, port=port) as again, httpx.AsyncClient() as client:
        assert again.url == url
        assert (await client.get(url)).text == "hello"


async def test_two_servers_run_beside_each_other() -> None:
    async with LoopbackServer(APP) as one, LoopbackServer(APP) as two, httpx.AsyncClient() as client:
        assert one.port != two.port
        assert (await client.get(one.url)).text == (await client.get(two.url)).text == "hello"


async def test_a_dropped_connection_shows_no_answer_and_harms_nobody_else() -> None:
    async with LoopbackServer(APP) as server, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{server.url}/vanish")
        assert (await client.get(server.url)).text == "hello"


async def test_it_stops_although_a_stream_is_open() -> None:
    server = LoopbackServer(APP)
    await server.start()
    async with httpx.AsyncClient() as client, client.stream("GET", f"{server.url}/endless") as answer:
        assert await anext(answer.aiter_lines()) == "first"
        await asyncio.wait_for(server.stop(), timeout=5)
    await server.stop()


async def test_an_app_that_cannot_start_is_an_error_and_does_not_end_the_program() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    with pytest.raises(StartupFailed):
        await LoopbackServer(broken).start()
