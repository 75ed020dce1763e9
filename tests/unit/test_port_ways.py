"""Connections to a port that somebody looks at, for as long as they may."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from bot.ports import Guard
from sandbox.port_ways import Connection, shown
from tests.port_people import Person, until

UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
STREAM = ""  # an answer that does not end


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Goes on until the other one ends it."""
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        head = await reader.readuntil(b"\r\n\r\n")
        upgrade = b"upgrade: websocket" in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n" if upgrade else b"HTTP/1.1 200 OK\r\n")
        writer.write(b"A: b\r\n\r\nhello")
        while data := await reader.read(100):
            writer.write(data)
    writer.close()


@dataclass
class Preview:
    """One that was opened, and somebody's browser before it."""

    own: str
    cookie: str
    ended: asyncio.Event

    async def connected(self, more: str) -> Connection:
        """As soon as the server has said something."""
        host, _, port = self.own.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {self.own}\r\nCookie: {self.cookie}\r\n"
        writer.write(f"{head}{more}\r\n".encode())
        await reader.readuntil(b"hello")
        return reader, writer


@contextlib.asynccontextmanager
async def preview(guard: Guard, every: float) -> AsyncIterator[Preview]:
    ended = asyncio.Event()

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await echo(reader, writer)
        ended.set()

    async with await asyncio.start_server(server, "127.0.0.1", 0) as behind:
        port = behind.sockets[0].getsockname()[1]
        way, link = await shown(
            "127.0.0.1", lambda: asyncio.open_connection("127.0.0.1", port), guard, ask_every=every
        )
        await asyncio.wait_for(ended.wait(), 30)  # it was tried whether it listens
        ended.clear()
        own, _, path = link.url.removeprefix("http://").partition("/")
        host, _, number = own.partition(":")
        reader, writer = await asyncio.open_connection(host, int(number))
        writer.write(f"POST /{path} HTTP/1.1\r\nHost: {own}\r\nOrigin: http://{own}\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        yield Preview(f"http://{own}", answer.partition("Set-Cookie: ")[2].partition(";")[0], ended)
        way.close()


@pytest.mark.parametrize("kind", [UPGRADE, STREAM])
async def test_who_may_not_steer_any_more_does_not_stay_connected_either(kind: str) -> None:
    ana = Person()
    async with preview(ana.guard(), every=0.01) as shown_to_ana, asyncio.timeout(30):
        reader, writer = await shown_to_ana.connected(kind)
        asked = ana.asked

        async def asked_again() -> bool:
            return ana.asked > asked + 2

        await until(asked_again)  # she may, and is not disturbed
        if kind == UPGRADE:
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
        ana.refusal = "not any more"
        assert await reader.read() == b""
        await shown_to_ana.ended.wait()
        writer.close()


async def test_where_it_cannot_be_asked_nobody_stays_connected(caplog: pytest.LogCaptureFixture) -> None:
    broken = [False]

    async def refusal() -> str:
        if broken[0]:
            raise LookupError("the store is gone")
        return ""

    async with preview(Guard(3600.0, refusal, "Port 3000."), every=0.01) as one, asyncio.timeout(30):
        reader, writer = await one.connected(UPGRADE)
        broken[0] = True
        assert await reader.read() == b""
        assert "connections to a shown port end" in caplog.text and "the store is gone" in caplog.text
        writer.close()
