"""HTTP to the supervisor's door where that is a unix socket in a directory which a box can write to.

The box's programs may put anything in the socket's place. A link is not followed, so that nobody can have
the bot speak to a socket of this machine: what is opened is looked at, and the connection goes to just that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import httpx

from sandbox.box import Address

MAX_HEAD = 64 << 10
PIECE = 1 << 16


class UnixDoors(httpx.AsyncBaseTransport):
    """place: a host's name in a URL → the socket's path; None: there is no such host. One request per
    connection, as the door has it; how long one may take, its caller limits."""

    def __init__(self, place: Callable[[str], Path | None]) -> None:
        self._place = place

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        path = self._place(request.url.host)
        if path is None:
            raise httpx.ConnectError(f"there is no box {request.url.host}", request=request)
        try:
            reader, writer = await connect(path)
        except OSError as error:
            raise httpx.ConnectError(f"{path}: {error.strerror or error}", request=request) from error
        try:
            lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
            lines += [b"%s: %s" % pair for pair in request.headers.raw]
            writer.write(b"\r\n".join([*lines, b"", b""]) + body)
            status, headers = _head(await reader.readuntil(b"\r\n\r\n"))
            length = int(dict(headers).get(b"content-length", b"0"))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            writer.close()
            raise httpx.ReadError(str(error) or type(error).__name__, request=request) from error
        except BaseException:
            writer.close()
            raise
        return httpx.Response(status, headers=headers, stream=_Body(reader, writer, length))


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Raises OSError, also for what is no socket."""
    with held(path) as name:
        return await asyncio.open_unix_connection(name, limit=MAX_HEAD)


@contextlib.contextmanager
def held(path: Path) -> Iterator[str]:
    """A name of the socket that is there now, and of nothing that comes into its place. Raises OSError."""
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(place).st_mode):
            raise FileNotFoundError("it is not a socket")
        yield f"/proc/self/fd/{place}"
    finally:
        os.close(place)


def connector(
    place: Callable[[str], Path | None],
) -> Callable[[Address], contextlib.AbstractContextManager[aiohttp.BaseConnector]]:
    """For connections that stay: place as above. Raises OSError."""

    @contextlib.contextmanager
    def by_socket(address: Address) -> Iterator[aiohttp.BaseConnector]:
        path = place(httpx.URL(address.url).host)
        if path is None:
            raise FileNotFoundError(f"there is no box at {address.url}")
        with held(path) as name:
            yield aiohttp.UnixConnector(name)

    return by_socket


def _head(data: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    first, *lines = data[:-4].split(b"\r\n")
    version, status, _ = (first + b" ").split(b" ", 2)
    if not version.startswith(b"HTTP/1."):
        raise ValueError("that is not HTTP")
    pairs = (line.partition(b":") for line in lines)
    return int(status), [(name.strip().lower(), value.strip()) for name, _, value in pairs]


class _Body(httpx.AsyncByteStream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int) -> None:
        self._reader, self._writer, self._left = reader, writer, length

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._left > 0:
            try:
                piece = await self._reader.read(min(PIECE, self._left))
            except OSError as error:
                raise httpx.ReadError(str(error)) from error
            if not piece:
                raise httpx.ReadError(f"{self._left} bytes are missing")
            self._left -= len(piece)
            yield piece

    async def aclose(self) -> None:
        self._writer.close()
