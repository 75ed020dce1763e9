"""A connection to a port of a remote box, through the supervisor's door, by a WebSocket.

The way to the door has secrets in its requests' heads: the door's token, the provider's. What a browser sends
and a server in the box answers are the frames of that WebSocket, so neither sees them, and no head of a
browser's is read by the provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable, Iterator

import aiohttp

from sandbox.box import Address
from sandbox.door_client import trusted
from sandbox.port_gate import LARGEST_HEAD, Answer
from sandbox.port_ways import CHUNK, REACHED_WITHIN, Connection
from sandbox.remote_supervisor import MARK, Door

log = logging.getLogger(__name__)

# What connects to an address. It is kept until the connection is made.
Connector = Callable[[Address], contextlib.AbstractContextManager[aiohttp.BaseConnector]]


def by_network() -> Connector:
    known = functools.cache(trusted)  # it takes a while, and there is a connection for each request

    @contextlib.contextmanager
    def connect(address: Address) -> Iterator[aiohttp.BaseConnector]:
        yield aiohttp.TCPConnector(ssl=known())

    return connect


class Tunnels:
    def __init__(self, connector: Connector | None = None) -> None:
        self._connector = connector or by_network()
        self._carrying: set[asyncio.Task[None]] = set()

    async def enter(self, door: Door, port: int) -> Connection | None:
        """None: the door does not answer, or somebody on the way speaks for it. Raises Answer where it says
        that nothing listens."""
        url = f"{door.address.url.rstrip('/')}/port/{port}"
        headers = {**door.address.headers, "X-Sandpiper-Token": door.token}
        async with contextlib.AsyncExitStack() as made:
            try:
                with self._connector(door.address) as connector:
                    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
                    made.push_async_callback(session.close)
                    async with asyncio.timeout(REACHED_WITHIN):
                        far = await session.ws_connect(url, headers=headers)
            except aiohttp.WSServerHandshakeError as refused:
                if refused.status == 502 and MARK in (refused.headers or {}):
                    raise Answer(502, f"Nothing listens on port {port} there.") from None
                log.info("the door's place answers %d to who wants to see a port", refused.status)
                return None
            except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
                log.info("the door, to who wants to see a port: %s", type(error).__name__)
                return None
            made.push_async_callback(far.close)
            ours, near = await _pair()
            task = asyncio.ensure_future(_carry(near, far, made.pop_all()))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)
            return ours

    async def close(self) -> None:
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)


async def _pair() -> tuple[Connection, Connection]:
    """Two ends of one connection; none is left over when we are cancelled."""
    one, other = socket.socketpair()
    try:
        first = await asyncio.open_connection(sock=one, limit=LARGEST_HEAD)
    except BaseException:
        one.close()
        other.close()
        raise
    try:
        return first, await asyncio.open_connection(sock=other)
    except BaseException:
        other.close()
        first[1].close()
        raise


async def _carry(
    near: Connection, far: aiohttp.ClientWebSocketResponse, made: contextlib.AsyncExitStack
) -> None:
    """Both ways, until one end goes away."""
    near_in, near_out = near

    async def there() -> None:
        with contextlib.suppress(OSError, aiohttp.ClientError):
            while data := await near_in.read(CHUNK):
                await far.send_bytes(data)

    async def back() -> None:
        with contextlib.suppress(OSError):
            async for message in far:
                if message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                    near_out.write(message.data if isinstance(message.data, bytes) else message.data.encode())
                    await near_out.drain()

    both = [asyncio.ensure_future(work()) for work in (there, back)]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        near_out.close()
        for task in both:
            task.cancel()
        await made.aclose()
