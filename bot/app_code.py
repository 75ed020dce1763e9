"""Code on demand as the settings say it: who lends it, and where sandboxes find that."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bot.errors import SandpiperError, SettingsError, StoreUnavailable
from bot.ports import Store
from bot.settings import Settings
from handlers.github.forge import OnDemand
from handlers.github.grants import Grants, kept_key
from handlers.github.lender import Lender
from handlers.github.mirrors import Mirrors
from handlers.web.server import WebServer
from sandbox.whole import write_whole

log = logging.getLogger(__name__)

HERE = "127.0.0.1"
SETTING = "SANDPIPER_CODE"


@dataclass(frozen=True, slots=True)
class Lending:
    """on_demand: what the forge has to know; None: all code comes in bundles. port: of this machine's
    loopback, for sandboxes on this machine; 0: none."""

    on_demand: OnDemand | None = None
    port: int = 0


@asynccontextmanager
async def lending(
    settings: Settings, store: Store, mirrors: Mirrors, patience: float
) -> AsyncIterator[Lending]:
    """Code is lent, where sandboxes can reach the bot. Raises SettingsError.

    patience: seconds for one answer. The port is the same in the bot's next life, since agents that outlive
    this one go on asking there.
    """
    code, here = settings.code, settings.sandbox.provider in ("local", "docker")
    if not code.on_demand_from or not (here or code.url):
        yield Lending()
        return

    async def is_open(turn: int) -> bool:
        try:
            return (await store.turn(turn)).state.open
        except StoreUnavailable:
            raise
        except SandpiperError:  # of a store that was there before this one
            return False

    grants = Grants(kept_key(settings.data_dir / "code.key"))
    lender = Lender(mirrors, grants, is_open, patience)
    server = await _started(lender, HERE if here else code.host, code.port, settings.data_dir / "code.port")
    try:
        url = f"http://{HERE}:{server.port}" if here else code.url
        yield Lending(OnDemand(grants, url, code.on_demand_from), server.port if here else 0)
    finally:
        await server.stop()


async def _started(lender: Lender, host: str, port: int, kept: Path) -> WebServer:
    before = port or _kept_port(kept)
    server = WebServer(lender, host, before, setting=SETTING)
    try:
        await server.start()
    except SettingsError:
        if before == port:
            raise
        log.warning("port %d is another program's now: agents that run since before fetch no code", before)
        server = WebServer(lender, host, 0, setting=SETTING)
        await server.start()
    if not port:
        write_whole(kept, str(server.port))
    return server


def _kept_port(kept: Path) -> int:
    """0: none is kept, or a disk that was full has left less than a port of it."""
    said = kept.read_bytes() if kept.exists() else b""
    return int(said) if said.isdigit() and int(said) < 1 << 16 else 0
