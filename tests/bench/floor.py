"""The barest webhook that keeps its word: the body read, and in SQLite with an fsync, before the 202.

No signature, no parsing, no router; group commit in one thread, since one commit per request would be
an unfair floor.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.types import Receive, Scope, Send

Waiting = list[tuple[bytes, bytes, "asyncio.Future[None]"]]


class BareWebhook:
    def __init__(self, directory: Path) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._database = sqlite3.connect(
            directory / "floor.db", check_same_thread=False, isolation_level=None
        )
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("CREATE TABLE deliveries (id BLOB PRIMARY KEY, body BLOB) WITHOUT ROWID")
        self._waiting: Waiting = []
        self._committing: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        id = next(value for name, value in scope["headers"] if name == b"x-github-delivery")
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await self._insert(id, body)
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    def close(self) -> None:
        self._thread.shutdown()
        self._database.close()

    async def _insert(self, id: bytes, body: bytes) -> None:
        committed = asyncio.get_running_loop().create_future()
        self._waiting.append((id, body, committed))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit())
        await committed

    async def _commit(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            await loop.run_in_executor(self._thread, self._write, group)
            for _, _, committed in group:
                committed.set_result(None)
        self._committing = None

    def _write(self, group: Waiting) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        rows = [(id, body) for id, body, _ in group]
        self._database.executemany("INSERT OR IGNORE INTO deliveries VALUES (?, ?)", rows)
        self._database.execute("COMMIT")
