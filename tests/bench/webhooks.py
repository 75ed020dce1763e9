"""Signed webhooks, stored with an fsync before they are acknowledged, from 50 connections at once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp

from bot.clock import SystemClock
from handlers.github.webhooks import PATH, Webhooks
from handlers.web.server import WebServer, application
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.bench.floor import BareWebhook
from tests.bench.table import Row, spread

PAYLOAD = Path(__file__).parents[1] / "data" / "github" / "issues.labeled.json"
SECRET = "bench"
CONNECTIONS = 50
MEANS = "A webhook: a bare ASGI app on uvicorn that stores the body, with an fsync per group of requests."
WARM_UP = 1.0
SECONDS = 3.5


@dataclass(frozen=True, slots=True)
class Load:
    per_second: float
    latencies: list[float]


async def measure(directory: Path) -> Sequence[Row]:
    bare = BareWebhook(directory)
    floor = await _loaded(bare)
    bare.close()
    clock = SystemClock()
    store = await SqliteStore.open(directory / "ours", clock, QueueDispatcher())
    try:
        webhooks = Webhooks(store.accept, SECRET, 1, clock.now)
        ours = await _loaded(application([webhooks.route], _health))
    finally:
        await store.close()
    return [
        Row("webhooks accepted", "1/s", ours.per_second, floor.per_second, MEANS),
        *spread("a webhook, sent → acknowledged", ours.latencies, floor.latencies, MEANS),
    ]


async def _health() -> Mapping[str, object]:
    return {}


async def _loaded(app: ASGIApp) -> Load:
    server = WebServer(app, "127.0.0.1", 0)
    await server.start()
    try:
        return await _load(server.port)
    finally:
        await server.stop()


async def _load(port: int) -> Load:
    body = PAYLOAD.read_text()
    asked = {
        "headers": {
            "Content-Type": "application/json",
            "X-GitHub-Event": "issues",
            "X-Hub-Signature-256": "sha256="
            + hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest(),
        },
        "body": body,
        "connections": CONNECTIONS,
        "warm_up": WARM_UP,
        "seconds": SECONDS,
    }
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load", str(port), PATH),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await client.communicate(json.dumps(asked).encode())
    said = json.loads(out)
    if said["failed"]:
        raise RuntimeError(f"{said['failed']} requests were not accepted")
    return Load(len(said["latencies"]) / said["seconds"], said["latencies"])
