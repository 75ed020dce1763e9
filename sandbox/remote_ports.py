"""Ports of a remote box that people may look at. One way per provider: links that it signs, which end; or
listeners of this machine as for local boxes, with the supervisor's door as the way in; or, where an operator
opened all ports of boxes to everybody, their own addresses."""

from __future__ import annotations

import asyncio
import functools
import logging
from dataclasses import dataclass
from typing import Protocol

from bot.errors import SandboxError, SandboxUnreachable
from bot.ports import Guard, Link
from sandbox.box import Box, Signed, Signer
from sandbox.port_gate import OpenGate
from sandbox.port_tunnel import Connector, Tunnels
from sandbox.port_ways import NOT_CONFIGURED, Connection, Way, shown
from sandbox.remote_supervisor import KNOCKS, RemoteSupervisor, persistently

log = logging.getLogger(__name__)

AT_ONCE = 20  # ways and links of one turn
SHARED_SECONDS = 3600.0  # that a signed link to a port holds which an agent shares
ASK_EVERY = 300.0  # seconds; whether who asked for a signed link may still have it

IN_PUBLIC = (
    "Anybody can read this thread, and a link to a port at this provider asks nobody who they are.",
    "Ask in Slack, or share a file.",
)

# $1 port. Many servers listen on one of the two loopbacks only.
LISTENS = """
import socket, sys
for host in ("127.0.0.1", "::1"):
    try:
        socket.create_connection((host, int(sys.argv[1])), 5).close()
    except OSError:
        continue
    print("listens")
    break
"""


class _Shown(Protocol):
    async def end(self) -> None: ...


class RemotePorts:
    """host: the address of this machine on which people reach ports; "": they don't. Kept by a provider, for
    all its boxes."""

    def __init__(
        self, host: str = "", connector: Connector | None = None, *, ask_every: float = ASK_EVERY
    ) -> None:
        self._host = host
        self._tunnels = Tunnels(connector)
        self._ask_every = ask_every
        self._shown: dict[tuple[str, str], list[_Shown]] = {}

    async def expose(
        self, box: Box, supervisor: RemoteSupervisor, port: int, key: str, guard: Guard | None
    ) -> Link:
        """key: what `conceal` takes it back by. Raises SandboxError."""
        if box.signer is not None:
            return await self._lend(box, box.signer, supervisor, port, key, guard)
        reach = functools.partial(self._reach, supervisor, port)
        if self._host and guard is not None:
            way, link = await shown(self._host, reach, guard)
            await self._keep(box.id, key, _Opened(way))
            return link
        if self._host:
            way = Way(reach, OpenGate())
            await self.conceal(box.id, key)
            await self._keep(box.id, key, opened := _Opened(way))
            at = await way.open(self._host)
            if opened not in self._shown.get((box.id, key), ()):  # concealed meanwhile
                way.close()
            return Link(f"{at}/")
        address = await persistently(lambda: box.door(port)) if guard is None else None
        if address is None or address.headers:
            raise SandboxError(*NOT_CONFIGURED)
        return Link(address.url)

    async def _lend(
        self,
        box: Box,
        signer: Signer,
        supervisor: RemoteSupervisor,
        port: int,
        key: str,
        guard: Guard | None,
    ) -> Link:
        """An agent that shares a port has looked whether anything listens."""
        if guard is not None and "listens" not in await _listens(supervisor, port):
            raise SandboxError(
                f"Nothing listens on port {port} there.", "Ask the agent to start its server, and try again."
            )
        seconds = SHARED_SECONDS if guard is None else guard.seconds
        signed = await persistently(lambda: signer.sign(port, seconds))
        lent = _Lent(box.id, signer, signed, seconds, guard, self._ask_every)
        await self._keep(box.id, key, lent)
        return Link(signed.url, bearer=seconds)

    async def conceal(self, id: str, key: str) -> None:
        await asyncio.gather(*(one.end() for one in self._shown.pop((id, key), ())))

    async def close(self) -> None:
        """Signed links outlive us, and end with their time."""
        for one in [one for some in self._shown.values() for one in some]:
            if isinstance(one, _Opened):
                await one.end()
            elif isinstance(one, _Lent):
                one.forget()
        self._shown.clear()
        await self._tunnels.close()

    async def _keep(self, id: str, key: str, one: _Shown) -> None:
        shown = self._shown.setdefault((id, key), [])
        shown.append(one)
        while len(shown) > AT_ONCE:
            await shown.pop(0).end()

    async def _reach(self, supervisor: RemoteSupervisor, port: int) -> Connection:
        for _ in range(KNOCKS):
            door = await supervisor.door()
            if door is None:
                break
            connection = await self._tunnels.enter(door, port)
            if connection is not None:
                return connection
            supervisor.shut(door)
        raise SandboxUnreachable("The way to the sandbox's ports does not answer.")


@dataclass(frozen=True, slots=True)
class _Opened:
    way: Way

    async def end(self) -> None:
        self.way.close()


class _Lent:
    """A link that its provider signed. Whether who asked for it may still have it is asked while it holds."""

    def __init__(
        self, id: str, signer: Signer, signed: Signed, seconds: float, guard: Guard | None, every: float
    ) -> None:
        self._id = id
        self._signer = signer
        self._signed = signed
        self._until = asyncio.get_running_loop().time() + seconds
        self._minding = asyncio.ensure_future(self._mind(guard, every)) if guard else None

    async def end(self) -> None:
        self.forget()
        await self._revoke()

    def forget(self) -> None:
        if self._minding is not None:
            self._minding.cancel()

    async def _mind(self, guard: Guard, every: float) -> None:
        while (left := self._until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(min(every, left))
            try:
                refused = bool(await guard.refusal())
            except Exception:  # nobody awaits this, and nobody would guard the link from now on
                log.exception("sandbox %s: a link to its port %d ends", self._id, self._signed.port)
                refused = True
            if refused and await self._revoke():
                return

    async def _revoke(self) -> bool:
        """False: it holds on, and can be tried again."""
        if asyncio.get_running_loop().time() >= self._until:
            return True
        held = ("sandbox %s: a link to its port %d holds on: %s", self._id, self._signed.port)
        try:
            await persistently(lambda: self._signer.revoke(self._signed))
        except SandboxError as error:
            log.warning(*held, error)
        except Exception as error:  # whoever conceals several ends the others all the same
            log.exception(*held, error)
        else:
            return True
        return False


async def _listens(supervisor: RemoteSupervisor, port: int) -> str:
    return await supervisor.shell("python3", "-I", "-S", "-c", LISTENS, str(port))
