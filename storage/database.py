"""The one door to the database, and the only file that knows which database it is.

Every verb of the store is a plain function of a `Tx`, run as a whole in the connection's own thread:
one hop per transaction, not one per statement, and nothing can come between two of its statements.
Writers are grouped: whoever asks while a commit is under way goes into the next one together, a
savepoint each, so that one fsync serves them all and a failing caller is rolled back alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import aiosqlite

from bot.errors import SettingsError, StoreUnavailable
from bot.ports import Clock
from storage.lock import DirectoryLock

logger = logging.getLogger(__name__)

T = TypeVar("T")

DATABASE_FILE = "sandpiper.db"
MIGRATIONS = Path(__file__).parent / "migrations"
READERS = 2
LARGEST_GROUP = 256  # callers per commit: bounds how long the last one of a burst waits for the first
BUSY_SECONDS = 10.0  # only an operator's own tool on the same file can make us wait

Value = str | bytes | int | float | None


class Row(Protocol):
    def __getitem__(self, column: str, /) -> Any: ...


class Tx:
    """One caller's transaction. `now` is its time; `wake` and `ring` take effect after the commit."""

    __slots__ = ("_connection", "now", "rings", "wakes")

    def __init__(self, connection: sqlite3.Connection, now: float) -> None:
        self._connection = connection
        self.now = now
        self.wakes: list[int] = []
        self.rings: set[str] = set()

    def one(self, sql: str, *values: Value) -> Row | None:
        row: Row | None = self._execute(sql, values).fetchone()
        return row

    def single(self, sql: str, *values: Value) -> Row:
        """`one` that is known to be there. Raises LookupError when it is not."""
        row = self.one(sql, *values)
        if row is None:
            raise LookupError(f"no row for: {sql}")
        return row

    def all(self, sql: str, *values: Value) -> Sequence[Row]:
        return self._execute(sql, values).fetchall()

    def run(self, sql: str, *values: Value) -> int:
        """How many rows were changed."""
        return self._execute(sql, values).rowcount

    def lock(self, sql: str, *values: Value) -> Row | None:
        """`one`, and the row stays ours until the end. SQLite has a single writer, so that is given
        already; elsewhere this is the SELECT with FOR UPDATE."""
        return self.one(sql, *values)

    def wake(self, turn: int) -> None:
        if turn not in self.wakes:
            self.wakes.append(turn)

    def ring(self, topic: str) -> None:
        self.rings.add(topic)

    def _execute(self, sql: str, values: Sequence[Value]) -> sqlite3.Cursor:
        try:
            return self._connection.execute(sql, values)
        except UnicodeEncodeError:  # half a surrogate pair: somebody cut a text in the middle of an emoji
            return self._connection.execute(sql, [_encodable(value) for value in values])


def _encodable(value: Value) -> Value:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


class _Job(Generic[T]):
    """A caller's work on its way through the writer."""

    __slots__ = ("error", "future", "now", "result", "rings", "wakes", "work")

    def __init__(self, work: Callable[[Tx], T], now: float, future: asyncio.Future[T]) -> None:
        self.work = work
        self.now = now
        self.future = future
        self.result: T
        self.error: Exception | None = None
        self.wakes: Iterable[int] = ()
        self.rings: Iterable[str] = ()

    def perform(self, connection: sqlite3.Connection) -> None:
        tx = Tx(connection, self.now)
        connection.execute("SAVEPOINT caller")
        try:
            self.result = self.work(tx)
        except Exception as error:
            if not connection.in_transaction:
                raise  # SQLite has given up the whole transaction (a full disk): nobody's work is done
            connection.execute("ROLLBACK TO caller")
            self.error = _unavailable(error) if isinstance(error, sqlite3.OperationalError) else error
        else:
            self.wakes, self.rings = tx.wakes, tx.rings
        connection.execute("RELEASE caller")

    def settle(self) -> None:
        if self.future.done():  # the caller was cancelled; its work is committed all the same
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class _Connection(aiosqlite.Connection):
    """aiosqlite's thread and connection. Its own verbs hop to the thread once per statement, which
    costs more than the statement; `run` hops once for a whole transaction."""

    stopped: asyncio.Future[Any] | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as exc:
            raise _unavailable(exc) from exc
        return result

    def stop(self) -> asyncio.Future[Any] | None:
        """Called by aiosqlite when it could not connect; it does not wait until its thread has let go."""
        self.stopped = super().stop()
        return self.stopped


class Database:
    """A data directory's database. Make it with `open`."""

    def __init__(
        self,
        clock: Clock,
        on_commit: Callable[[Iterable[int], Iterable[str]], None],
        writer: _Connection,
        readers: Sequence[_Connection],
        resources: contextlib.AsyncExitStack,
    ) -> None:
        self._clock = clock
        self._on_commit = on_commit
        self._writer = writer
        self._readers = readers
        self._resources = resources
        self._reads = 0
        self._jobs: deque[_Job[Any]] = deque()
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        directory: Path,
        clock: Clock,
        on_commit: Callable[[Iterable[int], Iterable[str]], None],
        migrations: Path = MIGRATIONS,
    ) -> Database:
        """Lock the directory, bring its schema up to date, and connect.

        `on_commit` is told which turns to wake and which topics to ring, after each commit.
        Raises SettingsError: the directory is in use, cannot be used, or is from a newer release.
        """
        resources = contextlib.AsyncExitStack()
        path = directory / DATABASE_FILE
        try:
            resources.callback(DirectoryLock(directory).release)
            writer = await _connect(path, "PRAGMA foreign_keys = ON", resources)
            await writer.run(partial(_migrate, migrations=migrations, now=clock.now()))
            readers = [await _connect(path, "PRAGMA query_only = ON", resources) for _ in range(READERS)]
        except BaseException as exc:
            await resources.aclose()
            if isinstance(exc, (sqlite3.Error, StoreUnavailable)):
                raise SettingsError(
                    f"The database {path} cannot be opened: {exc}",
                    "Check that the file is the bot's own and that the disk has room, or restore a backup.",
                ) from exc
            raise
        return cls(clock, on_commit, writer, readers, resources)

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Run `work` on one snapshot of what is committed, beside the writer."""
        self._refuse_when_closed()
        self._reads += 1
        reader = self._readers[self._reads % len(self._readers)]
        return await reader.run(partial(_on_snapshot, work=work, now=self._clock.now()))

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Run `work` as one durable transaction (fsync before this returns), or not at all."""
        self._refuse_when_closed()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append(_Job(work, self._clock.now(), future))
        if self._pump is None:
            self._pump = asyncio.create_task(self._commit_groups())
        return await future

    async def close(self) -> None:
        """Commit what was asked for, then let go of the directory."""
        self._closed = True
        if self._pump is not None:
            await self._pump
        await self._resources.aclose()

    async def _commit_groups(self) -> None:
        try:
            while self._jobs:
                size = min(len(self._jobs), LARGEST_GROUP)
                await self._commit_group([self._jobs.popleft() for _ in range(size)])
        finally:
            self._pump = None

    async def _commit_group(self, group: Sequence[_Job[Any]]) -> None:
        try:
            await self._writer.run(partial(_commit, group=group))
        except Exception as exc:  # the outermost loop of all writing: it must outlive one bad group
            logger.exception("a group of %d transactions was not committed", len(group))
            for job in group:
                job.fail(exc)
            return
        for job in group:
            self._on_commit(job.wakes, job.rings)
            job.settle()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable("The store is closed.")


def _unavailable(exc: sqlite3.Error) -> StoreUnavailable:
    return StoreUnavailable(
        f"The database could not be used: {exc}.", "Check the data directory's disk: space, rights, health."
    )


async def _connect(path: Path, pragma: str, resources: contextlib.AsyncExitStack) -> _Connection:
    def connector() -> sqlite3.Connection:
        # Transactions are begun and ended here, in words, never by the driver.
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    connection = _Connection(connector, iter_chunk_size=64)
    try:
        await connection
    except BaseException:
        if connection.stopped is not None:
            await connection.stopped
        raise
    resources.push_async_callback(connection.close)
    return connection


def _on_snapshot(connection: sqlite3.Connection, work: Callable[[Tx], T], now: float) -> T:
    connection.execute("BEGIN")
    try:
        return work(Tx(connection, now))
    finally:
        connection.execute("ROLLBACK")


def _commit(connection: sqlite3.Connection, group: Sequence[_Job[Any]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for job in group:
            job.perform(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


# Two words of the schema are not the same in every database.
_WORDS = {"{id}": "INTEGER PRIMARY KEY", "{bytes}": "BLOB"}


def _migrate(connection: sqlite3.Connection, migrations: Path, now: float) -> None:
    """Apply the numbered files that this database has not seen, in order, a transaction each."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations"
        " (number INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at DOUBLE PRECISION NOT NULL)"
    )
    known = {int(file.name.split("_", 1)[0]): file for file in sorted(migrations.glob("[0-9]*_*.sql"))}
    applied = {row["number"] for row in connection.execute("SELECT number FROM migrations")}
    newer = max(applied, default=0)
    if newer > max(known):
        raise SettingsError(
            f"The database is from a newer release (its schema is number {newer}; this release knows"
            f" up to {max(known)}).",
            "Run that release or a newer one, or restore a backup made before the upgrade.",
        )
    for number in sorted(known.keys() - applied):
        text = known[number].read_text()
        for word, ours in _WORDS.items():
            text = text.replace(word, ours)
        try:
            connection.executescript("BEGIN IMMEDIATE;\n" + text)
            connection.execute(
                "INSERT INTO migrations (number, name, applied_at) VALUES (?, ?, ?)",
                (number, known[number].stem, now),
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
