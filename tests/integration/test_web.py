"""The web side, asked over real sockets: health, limits, errors, and stopping in good order."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bot.errors import SettingsError
from handlers.web.server import LARGEST_BODY, Health, Later, WebServer, application


async def healthy() -> Mapping[str, object]:
    return {"version": "1.2.3"}


async def size(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def broken(request: Request) -> Response:
    raise LookupError("a secret detail")


async def half(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        raise LookupError("after the first part")

    return StreamingResponse(parts())


@asynccontextmanager
async def served(*routes: Route, health: Health = healthy) -> AsyncIterator[httpx.AsyncClient]:
    server = WebServer(application(routes, health), "127.0.0.1", 0)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", trust_env=False) as client:
            yield client
    finally:
        await server.stop()


async def test_health_says_ok_and_what_the_bot_tells_about_itself() -> None:
    async with served() as client:
        answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "version": "1.2.3"})


async def test_health_is_503_when_the_store_does_not_answer_and_keeps_the_reason_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def full() -> Mapping[str, object]:
        raise OSError("disk full")

    async with served(health=full) as client:
        answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()["ok"]) == (503, False)
    assert "disk full" not in answer.text
    assert "disk full" in caplog.text


async def test_the_surfaces_routes_are_served_beside_it() -> None:
    async with served(Route("/size", size, methods=["POST"])) as client:
        assert (await client.post("/size", content=b"four")).text == "4"
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/size")).status_code == 405


async def test_who_is_not_there_yet_asks_senders_to_come_again() -> None:
    door = Later("/size", retry_after=7)
    async with served(door.route) as client:
        early = await client.post("/size", content=b"four")
        assert (early.status_code, early.headers["Retry-After"]) == (503, "7")
        door.becomes(Route("/size", size, methods=["POST"]))
        assert (await client.post("/size", content=b"four")).text == "4"


async def test_a_body_is_taken_up_to_the_limit() -> None:
    async with served(Route("/size", size, methods=["POST"])) as client:
        answer = await client.post("/size", content=bytes(LARGEST_BODY))
    assert answer.text == str(LARGEST_BODY)


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent() -> None:
    async with served(Route("/size", size, methods=["POST"])) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(f"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGEST_BODY + 1}\r\n\r\n".encode())
        assert b" 413 " in await asyncio.wait_for(reader.readline(), timeout=5)
        writer.close()


async def test_a_body_of_unknown_size_is_counted_while_it_comes_in() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield bytes(1 << 20)

    async with served(Route("/size", size, methods=["POST"])) as client:
        assert (await client.post("/size", content=endless())).status_code == 413
        assert (await client.get("/healthz")).status_code == 200


async def test_an_error_is_a_500_that_tells_the_log_and_not_the_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(Route("/broken", broken)) as client:
        answer = await client.get("/broken")
        assert (answer.status_code, "error" in answer.json()) == (500, True)
        assert "secret detail" not in answer.text
        assert (await client.get("/healthz")).status_code == 200
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.getMessage() == "GET /broken failed"
    assert "secret detail" in caplog.text


async def test_an_error_in_the_middle_of_an_answer_cuts_the_connection() -> None:
    async with served(Route("/half", half)) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/half")


async def test_stopping_lets_a_request_finish_and_gives_the_port_back() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        entered.set()
        await leave.wait()
        return PlainTextResponse("done")

    app = application([Route("/slow", slow)], healthy)
    server = WebServer(app, "127.0.0.1", 0)
    await server.start()
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = asyncio.create_task(client.get(f"http://127.0.0.1:{server.port}/slow"))
        await entered.wait()
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(httpx.TransportError):
            while True:  # until it takes no new connections
                await client.get(f"http://127.0.0.1:{server.port}/healthz", headers={"Connection": "close"})
        assert not stopping.done()
        leave.set()
        assert (await answer).text == "done"
        await asyncio.wait_for(stopping, timeout=5)
    await server.stop()

    again = WebServer(app, "127.0.0.1", server.port)
    await again.start()
    await again.stop()


async def test_a_taken_port_is_an_error_that_names_the_setting() -> None:
    first = WebServer(application([], healthy), "127.0.0.1", 0)
    await first.start()
    try:
        with pytest.raises(SettingsError, match="SANDPIPER_WEB_PORT"):
            await WebServer(application([], healthy), "127.0.0.1", first.port).start()
    finally:
        await first.stop()


async def test_an_address_of_another_machine_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(SettingsError, match="SANDPIPER_WEB_HOST"):
        await WebServer(application([], healthy), "192.0.2.1", 0).start()


async def test_signals_stay_with_the_program(caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with caplog.at_level(logging.INFO):
        async with served():
            assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
