"""What is particular to the SQLite store: its directory, its migrations, its groups, its durability."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from bot.errors import SettingsError, StoreUnavailable
from bot.events import Usage
from bot.models import Record, SandboxKey
from storage.database import DATABASE_FILE, MIGRATIONS, Database, Tx
from storage.store import SqliteStore
from tests.contracts.store.stage import ANN, WEB, Stage, delivery
from tests.fakes import FakeClock

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def opened(directory: Path, migrations: Path = MIGRATIONS) -> AsyncIterator[Database]:
    def ignore(wakes: Iterable[int], rings: Iterable[str]) -> None:
        pass

    database = await Database.open(directory, FakeClock(), ignore, migrations)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def opened_store(directory: Path) -> AsyncIterator[Stage]:
    stage = Stage(directory, SqliteStore.open)
    await stage.open()
    try:
        yield stage
    finally:
        await stage.store.close()


def rows(directory: Path, sql: str) -> list[tuple[object, ...]]:
    """What a person sees who opens the file with another tool."""
    with closing(sqlite3.connect(directory / DATABASE_FILE)) as connection:
        return connection.execute(sql).fetchall()


# The directory


async def test_a_directory_has_one_process_at_a_time(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(SettingsError, match=rf"in use by process {os.getpid()} on "):
            async with opened(tmp_path):
                pass
    async with opened(tmp_path):
        pass


async def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="file/data cannot be used"):
        async with opened(tmp_path / "file" / "data"):
            pass


async def test_a_file_that_is_no_database_is_named_and_the_directory_let_go(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(b"this is no database" * 100)
    for _ in range(2):  # the second time it is not "in use"
        with pytest.raises(SettingsError, match="cannot be opened"):
            async with opened(tmp_path):
                pass


def test_what_could_not_be_opened_leaves_no_thread_that_outlives_its_loop(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(b"this is no database" * 100)

    async def attempt() -> None:
        with pytest.raises(SettingsError, match="cannot be opened"):
            async with opened(tmp_path):
                pass

    for _ in range(50):  # such a thread raises, and pytest fails the test for it
        asyncio.run(attempt())


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        pass
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.read(lambda tx: None)
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.write(lambda tx: None)


# Migrations


def migration(directory: Path, name: str, sql: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(sql)


async def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    files = tmp_path / "migrations"
    migration(files, "0001_start.sql", "CREATE TABLE notes (id {id}, body {bytes});")
    async with opened(tmp_path / "data", files):
        pass
    migration(files, "0002_more.sql", "ALTER TABLE notes ADD COLUMN title TEXT NOT NULL DEFAULT 'none';")
    migration(files, "0010_fill.sql", "INSERT INTO notes (body) VALUES ('a'); UPDATE notes SET title = 't';")
    for _ in range(2):
        async with opened(tmp_path / "data", files):
            pass
    assert rows(tmp_path / "data", "SELECT id, title FROM notes") == [(1, "t")]
    applied = rows(tmp_path / "data", "SELECT number, name FROM migrations ORDER BY number")
    assert applied == [(1, "0001_start"), (2, "0002_more"), (10, "0010_fill")]


async def test_a_broken_migration_changes_nothing(tmp_path: Path) -> None:
    files = tmp_path / "migrations"
    migration(files, "0001_start.sql", "CREATE TABLE notes (id {id}); CREATE TABLE nonsense (;")
    with pytest.raises(SettingsError, match="syntax error"):
        async with opened(tmp_path / "data", files):
            pass
    assert rows(tmp_path / "data", "SELECT name FROM sqlite_master WHERE name = 'notes'") == []
    migration(files, "0001_start.sql", "CREATE TABLE notes (id {id});")
    async with opened(tmp_path / "data", files):
        pass


async def test_a_database_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as connection:
        connection.execute("INSERT INTO migrations VALUES (9999, '9999_future', 0)")
        connection.commit()
    with pytest.raises(SettingsError, match="newer release"):
        async with opened(tmp_path):
            pass


async def test_code_that_came_before_it_was_kept_which_did_counts_as_checked_out(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as stage:
        mine = SandboxKey("main", ANN.tenant, (await stage.store.person(ANN)).id, "local")
        await stage.store.save_sandbox(mine, "box-1", "")
        await stage.finish(await stage.running("s1"))
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as connection:  # as an earlier release left it
        connection.execute("ALTER TABLE turns DROP COLUMN code_came")
        connection.execute("DELETE FROM migrations WHERE number >= 18")
        connection.commit()
    async with opened_store(tmp_path) as stage:
        assert await stage.store.checked_out(mine) == [WEB]


async def test_code_of_a_turn_that_an_earlier_release_drives_beside_this_one_counts_as_checked_out(
    tmp_path: Path,
) -> None:
    async with opened_store(tmp_path) as stage:
        mine = SandboxKey("main", ANN.tenant, (await stage.store.person(ANN)).id, "local")
        await stage.store.save_sandbox(mine, "box-1", "")
        turn = (await stage.start("s1")).turn
        assert turn is not None
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as connection:  # as that one takes a turn up
        connection.execute("UPDATE turns SET fence = fence + 1, state = 'preparing', owner = 'earlier'")
        connection.commit()
    async with opened_store(tmp_path) as stage:
        await stage.finish(await stage.run(turn))
        assert await stage.store.checked_out(mine) == [WEB]


# Groups


async def names(database: Database) -> set[str]:
    found = await database.read(lambda tx: [row["name"] for row in tx.all("SELECT name FROM locks")])
    return set(found)


async def test_who_fails_is_rolled_back_alone(tmp_path: Path) -> None:
    def fails(tx: Tx) -> None:
        tx.run("INSERT INTO locks (name) VALUES ('half')")
        raise ValueError("changed my mind")

    def adds(name: str, tx: Tx) -> int:
        return tx.run("INSERT INTO locks (name) VALUES (?)", name)

    async with opened(tmp_path) as database:
        before, failed, twice, after = await asyncio.gather(
            database.write(lambda tx: adds("before", tx)),
            database.write(fails),
            database.write(lambda tx: adds("before", tx)),
            database.write(lambda tx: adds("after", tx)),
            return_exceptions=True,
        )
        assert (before, after) == (1, 1)
        assert isinstance(failed, ValueError) and isinstance(twice, sqlite3.IntegrityError)
        assert await names(database) >= {"before", "after"} and "half" not in await names(database)


async def test_when_the_whole_group_is_lost_everybody_in_it_is_told(tmp_path: Path) -> None:
    def adds(tx: Tx) -> int:
        return tx.run("INSERT INTO locks (name) VALUES ('lost')")

    def loses_the_transaction(tx: Tx) -> None:
        tx.run("ROLLBACK")  # as SQLite itself does when the disk is full
        tx.run("INSERT INTO locks (nonsense) VALUES (1)")

    async with opened(tmp_path) as database:
        answers = await asyncio.gather(
            database.write(adds), database.write(loses_the_transaction), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [StoreUnavailable, StoreUnavailable]
        assert "lost" not in await names(database)
        assert await database.write(adds) == 1, "and the next group is none the worse"


async def test_a_caller_that_goes_away_takes_nothing_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        leaving = asyncio.create_task(database.write(lambda tx: tx.run("INSERT INTO locks VALUES ('a')")))
        await asyncio.sleep(0)
        leaving.cancel()
        await database.write(lambda tx: tx.run("INSERT INTO locks VALUES ('b')"))
        assert await names(database) >= {"a", "b"}


async def test_close_commits_what_was_asked_for(tmp_path: Path) -> None:
    def adds(tx: Tx) -> int:
        return tx.run("INSERT INTO audit (at, actor, action, target, detail) VALUES (0, '', '', '', '')")

    async with opened(tmp_path) as database:
        writing = [asyncio.create_task(database.write(adds)) for _ in range(20)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*writing) == [1] * 20
    assert rows(tmp_path, "SELECT COUNT(*) FROM audit") == [(20,)]


async def test_readers_cannot_write(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        with pytest.raises(StoreUnavailable, match="readonly"):
            await database.read(lambda tx: tx.run("DELETE FROM locks"))


async def test_commits_are_synced_to_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        row = await database.write(lambda tx: tx.single("PRAGMA synchronous"))
        assert row["synchronous"] == 2  # FULL


# The trail that no verb reads


async def test_usage_keeps_the_newest_figures_of_each_key(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as stage:
        claim = await stage.running("s1")
        for usage in (Usage("a", 10, 1), Usage("b", 5), Usage("a", 25, 3, 4, micro_usd=120)):
            await stage.store.record(claim.turn.id, claim.fence, Record(events=(usage,)))
    figures = rows(tmp_path, "SELECT key, tokens_in, tokens_out, tokens_cached, micro_usd, tenant FROM usage")
    assert sorted(figures) == [("a", 25, 3, 4, 120, "slack:T1"), ("b", 5, 0, 0, None, "slack:T1")]


async def test_audit_rows_add_up(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as stage:
        for number in range(2):
            await stage.store.audit("ann", "denied", "thread", f"{number}")
    assert rows(tmp_path, "SELECT actor, action, target, detail FROM audit ORDER BY id") == [
        ("ann", "denied", "thread", "0"),
        ("ann", "denied", "thread", "1"),
    ]


async def test_the_schema_refuses_a_second_open_turn(tmp_path: Path) -> None:
    async with opened_store(tmp_path) as stage:
        await stage.start("s1")
    second = (
        "INSERT INTO turns (session, tenant, person, thread, kind, queued_at)"
        " VALUES ('s1', 't', 1, 'slack:a:b', 'agent', 0)"
    )
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        rows(tmp_path, second)


# Kill -9

ACCEPTING = """
import asyncio, itertools, sys
from pathlib import Path
from bot.clock import SystemClock
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.contracts.store.stage import delivery

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]), SystemClock(), QueueDispatcher())
    numbers = itertools.count()

    async def surface():
        for number in numbers:
            assert await store.accept(delivery(f"Ev{number}", body=b"x" * 900))
            print(f"Ev{number}", flush=True)

    await asyncio.gather(*(surface() for _ in range(16)))

asyncio.run(main())
"""


async def test_what_was_accepted_survives_kill_9(tmp_path: Path) -> None:
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ACCEPTING, str(tmp_path), cwd=ROOT, stdout=subprocess.PIPE
    )
    assert bot.stdout is not None
    acknowledged: list[str] = []
    async with asyncio.timeout(60):
        while len(acknowledged) < 300:
            acknowledged.append((await bot.stdout.readline()).decode().strip())
    bot.send_signal(signal.SIGKILL)
    rest = (await bot.stdout.read()).decode().split("\n")[:-1]  # the last line may be cut
    await bot.wait()
    assert bot.returncode == -signal.SIGKILL

    async with opened_store(tmp_path) as stage:
        kept = {one.id for one in await stage.store.received(1_000_000)}
        missing = set(acknowledged + rest) - kept
        assert not missing, f"{len(missing)} of {len(acknowledged) + len(rest)} acknowledged are gone"
        assert not await stage.store.accept(delivery(acknowledged[0]))
