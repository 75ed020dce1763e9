"""Ports of a local sandbox that people may look at: each a TCP listener of this machine that leads, by a unix
socket in the sandbox's home, to a server in the box."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bot.errors import SandboxError
from bot.ports import Guard
from sandbox.port_gate import LARGEST_HEAD, Answer, Gate, OpenGate, last_on_its_connection

CHUNK = 1 << 16
CONNECTIONS = 64  # of one port at once; a browser takes six
PREVIEWS = 20  # of one entrance at once
REACHED_WITHIN = 15.0  # seconds
LAST_WORDS = 10.0  # seconds for one end of a connection when the other has ended

NOT_CONFIGURED = (
    "The ports of this sandbox cannot be reached from outside.",
    "An operator can set SANDPIPER_SANDBOX_PORTS_HOST. Until then, share a file: a picture, a log.",
)


class _Way:
    """A listener, and the connections that it leads through."""

    def __init__(self, home: Path, path: str, port: int, gate: OpenGate) -> None:
        """port: of an entrance, which leads to more than one; 0: the socket is the way itself."""
        self._home = home
        self._path = path
        self._port = port
        self._gate = gate
        self._leading: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, host: str) -> int:
        """The port that it listens on. Raises OSError."""
        self._server = await asyncio.start_server(self._connected, host, 0, limit=LARGEST_HEAD)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._leading:
            task.cancel()

    def _connected(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        if len(self._leading) >= CONNECTIONS:
            near_out.close()
            return
        task = asyncio.ensure_future(self._lead(near_in, near_out))
        self._leading.add(task)
        task.add_done_callback(self._leading.discard)

    async def reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the server in the box. Raises OSError, SandboxError, Answer (nothing listens)."""
        with _socket(self._home, self._path) as way:
            far_in, far_out = await asyncio.open_unix_connection(way, limit=LARGEST_HEAD)
        if self._port:
            far_out.write(b"%d\n" % self._port)
            try:
                async with asyncio.timeout(REACHED_WITHIN):
                    there = await far_in.read(1)
            except (OSError, TimeoutError):
                there = b""
            if there != b"+":
                far_out.close()
                raise Answer(502, f"Nothing listens on port {self._port} there.")
        return far_in, far_out

    async def _lead(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        far_out: asyncio.StreamWriter | None = None
        both: list[asyncio.Task[None]] = []
        try:
            request = await self._gate.pass_on(near_in)
            far_in, far_out = await self.reach()
            far_out.write(request.head)
            there = _splice(near_in, far_out) if request.upgrade else _body(near_in, far_out, request.length)
            both = [asyncio.ensure_future(work) for work in (there, _answer(far_in, near_out))]
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


class LocalPorts:
    """host: the address of this machine on which people reach shared ports; "": they don't."""

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._open: dict[Path, _Way] = {}
        self._previews: dict[Path, list[_Way]] = {}

    async def expose(self, home: Path, path: str) -> str:
        """A URL that leads to the socket at `path`, which is relative to the home. Raises SandboxError."""
        if not self._host:
            raise SandboxError(*NOT_CONFIGURED)
        with _socket(home, path):  # a way to nothing is refused now, not at the first click
            pass
        way = _Way(home, path, 0, OpenGate())
        # In its place before it is awaited, so that whoever comes next closes it.
        await self.conceal(home / path)
        self._open[home / path] = way
        try:
            port = await way.open(self._host)
        except OSError as error:
            raise _no_port(self._host, error) from error
        if self._open.get(home / path) is not way:
            way.close()
        return f"{_url(self._host, port)}/"

    async def preview(self, home: Path, path: str, port: int, guard: Guard) -> str:
        """A link for one person to a port behind the entrance at `path`. Raises SandboxError."""
        if not self._host:
            raise SandboxError(*NOT_CONFIGURED)
        gate = Gate(guard)
        way = _Way(home, path, port, gate)
        try:
            _, out = await way.reach()
            out.close()
            at = await way.open(self._host)
        except Answer as nothing:
            raise SandboxError(f"{nothing}", "Ask the agent to start its server, and try again.") from None
        except OSError as error:
            raise _no_port(self._host, error) from error
        shown = self._previews.setdefault(home / path, [])
        shown.append(way)
        while len(shown) > PREVIEWS:
            shown.pop(0).close()
        asyncio.get_running_loop().call_later(guard.seconds, way.close)
        return f"{_url(self._host, at)}{gate.link}"

    async def conceal(self, key: Path) -> None:
        way = self._open.pop(key, None)
        for one in (*((way,) if way else ()), *self._previews.pop(key, ())):
            one.close()

    async def close(self) -> None:
        for key in [*self._open, *self._previews]:
            await self.conceal(key)


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _no_port(host: str, error: OSError) -> SandboxError:
    return SandboxError(
        f"No port can be shared on {host}: {error.strerror or error}.",
        "SANDPIPER_SANDBOX_PORTS_HOST must be an address of this machine.",
    )


async def _body(source: asyncio.StreamReader, target: asyncio.StreamWriter, length: int) -> None:
    """A request's body; what comes after it is dropped, until the one who sent it goes away."""
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            target.write(data[:length])
            await target.drain()
            length -= min(length, len(data))


async def _answer(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """What the server says. That nothing follows on this connection is said whether it says so or not: who
    sends the next request on it would lose that one."""
    with contextlib.suppress(OSError):
        try:
            while True:
                head = await source.readuntil(b"\r\n\r\n")
                status = head.split(b" ", 2)[1:2]
                if not (status and status[0].startswith(b"1")):  # the answer itself, after those on the way
                    target.write(last_on_its_connection(head))
                    break
                target.write(head)
                if status[0] == b"101":
                    break
        except asyncio.IncompleteReadError as all_of_it:
            target.write(all_of_it.partial)
        except asyncio.LimitOverrunError:
            return
    await _splice(source, target)


async def _splice(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()
        target.write_eof()


@contextlib.contextmanager
def _socket(home: Path, path: str) -> Iterator[str]:
    """A name of the socket that no link can lead elsewhere: the agent can put anything in its home, and a
    link there must not become a way to a socket of this machine's. Raises SandboxError."""
    fds = [os.open(home, os.O_PATH | os.O_DIRECTORY)]
    try:
        *above, name = Path(path).parts
        for part in above:
            fds.append(os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=fds[-1]))
        fds.append(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=fds[-1]))
        if not stat.S_ISSOCK(os.fstat(fds[-1]).st_mode):
            raise SandboxError("There is no server behind the port that was to be shared.")
        yield f"/proc/self/fd/{fds[-1]}"
    except OSError as error:
        raise SandboxError("There is no server behind the port that was to be shared.") from error
    finally:
        for fd in fds:
            os.close(fd)
