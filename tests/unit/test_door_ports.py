"""The supervisor's door leads to ports of its box: by real WebSockets, for those who have its token."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.remote_boxes import free_port
from tests.unit.test_supervisor import open_door


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[dict[str, object]]:
    opened = await asyncio.to_thread(open_door, tmp_path / "processes")
    yield opened
    os.kill(int(opened["pid"]), signal.SIGKILL)


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def at(door: dict[str, object], port: object) -> str:
    return f"http://127.0.0.1:{door['port']}/port/{port}"


def token(door: dict[str, object]) -> dict[str, str]:
    return {"X-Sandpiper-Token": str(door["token"])}


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_bytes_go_both_ways_unchanged(
    door: dict[str, object], client: aiohttp.ClientSession, host: str
) -> None:
    try:
        server = await asyncio.start_server(echo, host, 0)
    except OSError:
        pytest.skip(f"there is no {host} here")
    port = server.sockets[0].getsockname()[1]
    async with server, client.ws_connect(at(door, port), headers=token(door)) as ws:
        for size in (0, 1, 3, 4, 5, 125, 126, 65535, 65536, 300_000):
            sent = secrets.token_bytes(size)
            await ws.send_bytes(sent)
            heard = b""
            while len(heard) < size:
                heard += await ws.receive_bytes(timeout=30)
            assert heard == sent
        await ws.ping(b"there?")
        await ws.send_bytes(b"still")
        assert await ws.receive_bytes(timeout=30) == b"still"


async def test_a_server_that_ends_the_connection_is_heard_to_its_last_word(
    door: dict[str, object], client: aiohttp.ClientSession
) -> None:
    words = secrets.token_bytes(2_000_000)

    async def says(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        writer.close()

    server = await asyncio.start_server(says, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, client.ws_connect(at(door, port), headers=token(door)) as ws:
        assert b"".join([message.data async for message in ws]) == words
        assert ws.close_code is not None


async def test_a_visitor_that_leaves_ends_the_servers_connection(
    door: dict[str, object], client: aiohttp.ClientSession
) -> None:
    left = asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        left.set()
        writer.close()

    server = await asyncio.start_server(waits, "127.0.0.1", 0)
    async with server:
        async with client.ws_connect(at(door, server.sockets[0].getsockname()[1]), headers=token(door)):
            pass
        await asyncio.wait_for(left.wait(), 30)


async def test_without_the_token_a_websocket_or_a_server_there_is_no_way(
    door: dict[str, object], client: aiohttp.ClientSession
) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for headers in ({}, {"X-Sandpiper-Token": "guess"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(at(door, port), headers=headers)
            assert refused.value.status == 401
        async with client.get(at(door, port), headers=token(door)) as plain:
            assert plain.status == 400
    for nobody, status in ((free_port(), 502), (0, 502), (65536, 502), ("80/x", 404), ("", 404)):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(at(door, nobody), headers=token(door))
        assert refused.value.status == status and "X-Sandpiper-Door" in (refused.value.headers or {})


@pytest.mark.parametrize(
    "frame",
    [
        b"\x82\x02ab",  # not masked
        b"\x82\xff\x00\x00\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x00",  # two GB are to come
    ],
)
async def test_what_is_no_frame_ends_the_visit(door: dict[str, object], frame: bytes) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(str(door["port"])))
        asked = f"GET /port/{port} HTTP/1.1\r\nX-Sandpiper-Token: {door['token']}\r\nUpgrade: websocket\r\n"
        writer.write(f"{asked}Sec-WebSocket-Key: x\r\n\r\n".encode() + frame)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await asyncio.wait_for(reader.read(), 30)
        writer.close()
