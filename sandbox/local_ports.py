"""Ports of a local sandbox that people may look at: a unix socket among its workspaces leads to a server in
it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from bot.errors import SandboxError
from bot.ports import Guard, Link
from sandbox.port_gate import LARGEST_HEAD, Answer, OpenGate
from sandbox.port_ways import NOT_CONFIGURED, REACHED_WITHIN, Connection, Way, shown

PREVIEWS = 20  # of one entrance at once


class LocalPorts:
    """host: the address of this machine on which people reach shared ports; "": they don't."""

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._open: dict[Path, Way] = {}
        self._previews: dict[Path, list[Way]] = {}

    async def expose(self, base: Path, path: str) -> Link:
        """Where the socket at `path` leads, from a directory that is ours. Raises SandboxError."""
        if not self._host:
            raise SandboxError(*NOT_CONFIGURED)
        with _socket(base, path):  # a way to nothing is refused now, not at the first click
            pass
        way = Way(functools.partial(_reach, base, path, 0), OpenGate())
        # In its place before it is awaited, so that whoever comes next closes it.
        await self.conceal(base / path)
        self._open[base / path] = way
        at = await way.open(self._host)
        if self._open.get(base / path) is not way:
            way.close()
        return Link(f"{at}/")

    async def preview(self, base: Path, path: str, port: int, guard: Guard) -> Link:
        """For one person, to a port behind the entrance at `path`. Raises SandboxError."""
        if not self._host:
            raise SandboxError(*NOT_CONFIGURED)
        way, link = await shown(self._host, functools.partial(_reach, base, path, port), guard)
        previews = self._previews.setdefault(base / path, [])
        previews.append(way)
        while len(previews) > PREVIEWS:
            previews.pop(0).close()
        return link

    async def conceal(self, key: Path) -> None:
        way = self._open.pop(key, None)
        for one in (*((way,) if way else ()), *self._previews.pop(key, ())):
            one.close()

    async def close(self) -> None:
        for key in [*self._open, *self._previews]:
            await self.conceal(key)


async def _reach(base: Path, path: str, port: int) -> Connection:
    """port: of an entrance, which leads to more than one; 0: the socket is the way itself."""
    with _socket(base, path) as way:
        far_in, far_out = await asyncio.open_unix_connection(way, limit=LARGEST_HEAD)
    if port:
        far_out.write(b"%d\n" % port)
        try:
            async with asyncio.timeout(REACHED_WITHIN):
                there = await far_in.read(1)
        except (OSError, TimeoutError):
            there = b""
        if there != b"+":
            far_out.close()
            raise Answer(502, f"Nothing listens on port {port} there.")
    return far_in, far_out


@contextlib.contextmanager
def _socket(base: Path, path: str) -> Iterator[str]:
    """A name of the socket that no link can lead elsewhere: the agent can put anything below, and a link
    there must not become a way to a socket of this machine's. Raises SandboxError."""
    fds = [os.open(base, os.O_PATH | os.O_DIRECTORY)]
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
