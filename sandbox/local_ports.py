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

CHUNK = 1 << 16
CONNECTIONS = 64  # of one port at once; a browser takes six

NOT_CONFIGURED = (
    "The ports of this sandbox cannot be reached from outside.",
    "An operator can set SANDPIPER_SANDBOX_PORTS_HOST. Until then, share a file: a picture, a log.",
)


class LocalPorts:
    """host: the address of this machine on which people reach shared ports; "": they don't."""

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._open: dict[Path, asyncio.Server] = {}

    async def expose(self, home: Path, path: str) -> str:
        """A URL that leads to the socket at `path`, which is relative to the home. Raises SandboxError."""
        if not self._host:
            raise SandboxError(*NOT_CONFIGURED)
        key = home / path
        await self.conceal(key)
        with _socket(home, path):  # a way to nothing is refused now, not at the first click
            pass
        free = asyncio.Semaphore(CONNECTIONS)

        async def lead(near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
            async with free:
                await _lead(home, path, near_in, near_out)

        try:
            server = await asyncio.start_server(lead, self._host, 0)
        except OSError as error:
            raise SandboxError(
                f"No port can be shared on {self._host}: {error.strerror or error}.",
                "SANDPIPER_SANDBOX_PORTS_HOST must be an address of this machine.",
            ) from error
        self._open[key] = server
        port = server.sockets[0].getsockname()[1]
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{port}/"

    async def conceal(self, key: Path) -> None:
        if server := self._open.pop(key, None):
            server.close()

    async def close(self) -> None:
        for key in list(self._open):
            await self.conceal(key)


async def _lead(home: Path, path: str, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
    far_out: asyncio.StreamWriter | None = None
    try:
        with _socket(home, path) as way:
            far_in, far_out = await asyncio.open_unix_connection(way)
        await asyncio.gather(_splice(near_in, far_out), _splice(far_in, near_out))
    except (OSError, SandboxError):
        pass  # the server, its box or the browser went away
    finally:
        for out in (near_out, far_out):
            if out is not None:
                out.close()


async def _splice(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(CHUNK):
        target.write(data)
        await target.drain()
    with contextlib.suppress(OSError):
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
