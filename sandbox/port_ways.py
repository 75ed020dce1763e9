"""Ways to ports of sandboxes for people's browsers: each a TCP listener of this machine, a gate in it
(port_gate.py), and behind it whatever leads to a server in the box."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from bot.errors import SandboxError
from bot.ports import Guard, Link
from sandbox.port_gate import ASK_EVERY, LARGEST_HEAD, Answer, Gate, OpenGate

log = logging.getLogger(__name__)

CHUNK = 1 << 16
CONNECTIONS = 64  # of one port at once; a browser takes six
REACHED_WITHIN = 15.0  # seconds
LAST_WORDS = 10.0  # seconds for one end of a connection when the other has ended

NOT_CONFIGURED = (
    "The ports of this sandbox cannot be reached from outside.",
    "An operator can set SANDPIPER_SANDBOX_PORTS_HOST. Until then, share a file: a picture, a log.",
)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# A connection to the server in the box. Raises OSError, SandboxError, Answer (nothing listens).
Reach = Callable[[], Awaitable[Connection]]


class Way:
    """A listener, and the connections that it leads through. While there are some, the gate is asked each
    `ask_every` seconds whether they may go on: a websocket is let in once, and is used for hours."""

    def __init__(self, reach: Reach, gate: OpenGate, *, ask_every: float = ASK_EVERY) -> None:
        self._reach = reach
        self._gate = gate
        self._ask_every = ask_every
        self._leading: set[asyncio.Task[None]] = set()
        self._minding: asyncio.Task[None] | None = None
        self._server: asyncio.Server | None = None

    async def open(self, host: str) -> str:
        """The URL at which it listens, without a path. Raises SandboxError."""
        try:
            self._server = await asyncio.start_server(self._connected, host, 0, limit=LARGEST_HEAD)
        except OSError as error:
            raise SandboxError(
                f"No port can be shared on {host}: {error.strerror or error}.",
                "SANDPIPER_SANDBOX_PORTS_HOST must be an address of this machine.",
            ) from error
        port = self._server.sockets[0].getsockname()[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._minding is not None:
            self._minding.cancel()
        self._end()

    def _end(self) -> None:
        for task in self._leading:
            task.cancel()

    async def _mind(self) -> None:
        while self._leading:
            await asyncio.sleep(self._ask_every)
            if not self._leading:
                return
            try:
                may = await self._gate.goes_on()
            except Exception:  # nobody awaits this
                log.exception("the connections to a shown port end")
                may = False
            if not may:
                self._end()

    def _connected(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        if len(self._leading) >= CONNECTIONS:
            near_out.close()
            return
        task = asyncio.ensure_future(self._lead(near_in, near_out))
        self._leading.add(task)
        task.add_done_callback(self._leading.discard)
        if self._minding is None or self._minding.done():
            self._minding = asyncio.ensure_future(self._mind())

    async def _lead(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_out: asyncio.StreamWriter | None = None
        both: list[asyncio.Task[None]] = []
        try:
            request = await self._gate.pass_on(near_in)
            far_in, far_out = await self._reach()
            far_out.write(request.head)
            there = _splice(near_in, far_out) if request.upgrade else _body(near_in, far_out, request.length)
            both = [asyncio.ensure_future(work) for work in (there, _answer(far_in, near_out, self._gate))]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(both[0 if request.upgrade else 1 :], timeout=LAST_WORDS)
        except Answer as answer:
            near_out.write(answer.bytes)
        except (OSError, SandboxError):
            pass  # the server, its box or the browser went away
        finally:
            for task in both:
                task.cancel()
            for out in (near_out, far_out):
                if out is not None:
                    out.close()


async def shown(host: str, reach: Reach, guard: Guard, *, ask_every: float = ASK_EVERY) -> tuple[Way, Link]:
    """A way for one person, and the link that opens it. Raises SandboxError, also where nothing listens."""
    gate = Gate(guard)
    way = Way(reach, gate, ask_every=ask_every)
    try:
        _, out = await reach()
        out.close()
    except Answer as nothing:
        raise SandboxError(f"{nothing}", "Ask the agent to start its server, and try again.") from None
    except OSError as error:
        raise SandboxError(f"The sandbox's port cannot be reached: {error.strerror or error}.") from error
    at = await way.open(host)
    asyncio.get_running_loop().call_later(guard.seconds, way.close)
    return way, Link(f"{at}{gate.link}")


async def _body(source: asyncio.StreamReader, target: asyncio.StreamWriter, length: int) -> None:
    """A request's body; what comes after it is dropped, until the one who sent it goes away."""
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            target.write(data[:length])
            await target.drain()
            length -= min(length, len(data))


async def _answer(source: asyncio.StreamReader, target: asyncio.StreamWriter, gate: OpenGate) -> None:
    """What the server says. That nothing follows on this connection is said whether it says so or not: who
    sends the next request on it would lose that one."""
    with contextlib.suppress(OSError):
        try:
            while True:
                head = await source.readuntil(b"\r\n\r\n")
                status = head.split(b" ", 2)[1:2]
                if not (status and status[0].startswith(b"1")):  # the answer itself, after those on the way
                    target.write(gate.pass_back(head))
                    break
                target.write(head)
                if status[0] == b"101":
                    break
        except asyncio.IncompleteReadError as all_of_it:
            if all_of_it.partial:
                target.write(gate.pass_back(all_of_it.partial))
        except Answer as answer:
            target.write(answer.bytes)
            return
        except asyncio.LimitOverrunError:
            return
    await _splice(source, target)


async def _splice(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()
        target.write_eof()
