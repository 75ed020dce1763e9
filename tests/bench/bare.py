"""The barest means to do what a turn does: one bubblewrap that hides nothing, pipes, and a table."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.bench.relay import passed
from tests.bench.stage import RELAY

BOX = ("bwrap", "--unshare-all", "--bind", "/", "/", "--proc", "/proc", "--dev", "/dev")


async def run_true() -> int:
    process = await asyncio.create_subprocess_exec(*BOX, "true")
    return await process.wait()


class BareAgent:
    """`cat` in a bare box behind the relay. What it is told and what it says is in SQLite, with an fsync
    each, before it goes on."""

    def __init__(self, directory: Path, process: asyncio.subprocess.Process) -> None:
        self._directory = directory
        self._process = process
        self._database = sqlite3.connect(directory / "bare.db", check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("CREATE TABLE lines (line TEXT)")

    async def echo(self, words: str) -> tuple[float, float]:
        """When it was told, and when its answer had arrived."""
        assert self._process.stdin and self._process.stdout
        at = time.monotonic()
        await self._insert(words)
        self._process.stdin.write(f"{words}\n".encode())
        await self._insert((await self._process.stdout.readline()).decode())
        return at, time.monotonic()

    def passed(self, way: str, words: str) -> float:
        (at,) = passed(self._directory / "notes", way, words)
        return at

    async def _insert(self, line: str) -> None:
        await asyncio.to_thread(self._database.execute, "INSERT INTO lines VALUES (?)", [line])

    def close(self) -> None:
        self._database.close()


@asynccontextmanager
async def bare_agent(directory: Path) -> AsyncIterator[BareAgent]:
    process = await asyncio.create_subprocess_exec(
        *(*BOX, "python3", "-c", RELAY, str(directory / "notes"), "cat"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    agent = BareAgent(directory, process)
    try:
        yield agent
    finally:
        agent.close()
        assert process.stdin
        process.stdin.close()
        await process.wait()
