"""The outbox's loop: what is said, when it cannot be said now, and when the store is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bot.errors import SurfaceError
from bot.models import MessageRef, OutboxItem, Saying, SayingKind, SharedFile, ThreadKey
from bot.outbox import GIVE_UP_AFTER, Outbox
from bot.shared_files import LARGEST_FILE, SharedFiles, content
from bot.timeline import Timeline
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.fakes import FakeClock
from tests.moody import MoodyStore, moody
from tests.world import MemorySurface

STARTED = FakeClock().now()
SLACK = ThreadKey("slack", "T1/C1", "t1")
OUR_KEY = "our-own-signing-secret"


async def no_picture(turn: int) -> tuple[MessageRef | None, Timeline]:
    return None, Timeline(turn)


class Desk:
    """An outbox at work over a real store that can be away."""

    def __init__(self, store: SqliteStore, clock: FakeClock, shared: SharedFiles) -> None:
        self.store = store
        self.shared = shared
        self.clock = clock
        self.slack = MemorySurface()
        self.moods: MoodyStore
        self.moods, seen = moody(store)
        self.surfaces = {"slack": self.slack}
        self.outbox = Outbox(seen, self.surfaces, clock, no_picture, shared)

    async def say(self, key: str, thread: ThreadKey = SLACK) -> None:
        await self.store.say(Saying(key, SayingKind.NOTE, thread, text=key))

    async def share(self, data: bytes, name: str = "report.txt", key: str = "file:1") -> Path:
        """Say that an agent shares this, and give the path of our copy."""
        path = self.shared.directory / key.replace(":", "-")
        path.write_bytes(data)
        file = SharedFile(str(path), name, "What I found", len(data))
        await self.store.say(Saying(key, SayingKind.FILE, SLACK, file=file))
        return path

    async def until(self, true: Callable[[], Awaitable[bool] | bool], pace: float = 1.0) -> None:
        """Wait for something, while the clock goes on."""
        async with asyncio.timeout(20):
            while True:
                answer = true()
                if await answer if isinstance(answer, Awaitable) else answer:
                    return
                self.clock.advance(pace)
                await asyncio.sleep(0.005)


@asynccontextmanager
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = FakeClock()
    store = await SqliteStore.open(tmp_path, clock, QueueDispatcher())
    it = Desk(store, clock, SharedFiles(tmp_path / "shared", [OUR_KEY]))
    running = asyncio.create_task(it.outbox.run())
    try:
        yield it
        assert not running.done(), "the outbox has given up"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()


async def test_a_store_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.moods.away = {"*"}
        await it.say("hello")
        await it.until(lambda: it.moods.turned_away.count("due") > 2)
        it.moods.away = set()
        await it.until(lambda: it.slack.notes() == ["hello"])


async def test_a_saying_that_cannot_be_put_off_while_the_store_is_away_is_said_later(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.slack.busy = 1
        it.moods.away = {"postpone"}
        await it.say("hello")
        await it.until(lambda: "postpone" in it.moods.turned_away)
        it.moods.away = set()
        await it.until(lambda: it.slack.notes() == ["hello"])


async def test_what_is_to_be_said_on_a_surface_that_is_not_set_up_waits_until_it_is(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        del it.surfaces["slack"]
        await it.say("hello")
        await it.until(lambda: it.clock.now() > STARTED + 3600, pace=20.0)
        it.surfaces["slack"] = it.slack
        await it.until(lambda: it.slack.notes() == ["hello"], pace=20.0)


class FileReader(MemorySurface):
    """Reads each file at the moment that it is sent, and can refuse it."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[bytes] = []
        self.refusal: SurfaceError | None = None

    async def send(self, item: OutboxItem) -> MessageRef | None:
        if item.saying.file is not None:
            if self.refusal is not None:
                raise self.refusal
            self.read.append(await content(item.saying.file))
        return await super().send(item)


@asynccontextmanager
async def reading_desk(tmp_path: Path) -> AsyncIterator[tuple[Desk, FileReader]]:
    async with desk(tmp_path) as it:
        it.surfaces["slack"] = it.slack = reader = FileReader()
        yield it, reader


async def settled(it: Desk) -> bool:
    return not await it.store.due(it.clock.now() + 10 * GIVE_UP_AFTER, 10)


async def test_a_file_is_said_in_its_thread_s_order_and_its_copy_deleted(tmp_path: Path) -> None:
    async with reading_desk(tmp_path) as (it, reader):
        await it.say("before")
        path = await it.share(b"hello")
        await it.say("after")
        await it.until(lambda: settled(it))
        assert [item.saying.key for item in reader.said] == ["before", "file:1", "after"]
        assert reader.read == [b"hello"]
        assert not path.exists()


async def test_a_file_whose_answer_was_lost_is_not_said_twice(tmp_path: Path) -> None:
    async with reading_desk(tmp_path) as (it, reader):
        reader.deaf = 1
        path = await it.share(b"hello")
        await it.until(lambda: settled(it))
        assert reader.read == [b"hello"]
        assert not path.exists()


async def test_a_file_that_a_surface_refuses_is_told_and_let_go(tmp_path: Path) -> None:
    async with reading_desk(tmp_path) as (it, reader):
        reader.refusal = SurfaceError("Slack refused: missing_scope.", "Add the scope files:write.")
        path = await it.share(b"hello", "a `report`.txt")
        await it.until(lambda: settled(it))
        (note,) = reader.notes()
        assert "`a ˋreportˋ.txt` could not be shared" in note and "files:write" in note
        assert not path.exists()


async def test_a_copy_that_is_lost_ends_in_words_and_not_in_trying_for_ever(tmp_path: Path) -> None:
    async with reading_desk(tmp_path) as (it, reader):
        reader.busy = 1
        path = await it.share(b"hello")
        await it.until(lambda: reader.busy == 0)
        path.unlink(missing_ok=True)
        await it.until(lambda: settled(it))
        (note,) = reader.notes()
        assert "lost before I could show it" in note and "share it again" in note


async def test_a_file_that_cannot_be_said_for_a_day_is_given_up(tmp_path: Path) -> None:
    async with reading_desk(tmp_path) as (it, reader):
        reader.busy = 1_000_000
        path = await it.share(b"hello")
        await it.until(lambda: not path.exists(), pace=3600.0)
        reader.busy = 0
        await it.until(lambda: any("gave up" in note for note in reader.notes()), pace=60.0)


async def test_a_file_with_a_key_of_ours_is_shown_to_nobody(tmp_path: Path) -> None:
    async with reading_desk(tmp_path) as (it, reader):
        path = await it.share(b"\x00binary " + OUR_KEY.encode() + b"\xff", "core.dump")
        await it.until(lambda: settled(it))
        (note,) = reader.notes()
        assert "`core.dump`" in note and "key of the bot" in note and OUR_KEY not in note
        assert reader.read == [] and not path.exists()


async def test_what_looks_like_a_key_is_taken_out_of_a_text(tmp_path: Path) -> None:
    lines = "a line of the log\n" * 10_000
    key = "-----BEGIN PRIVATE KEY-----\n" + "x" * 64 + "\n-----END PRIVATE KEY-----\n"
    async with reading_desk(tmp_path) as (it, reader):
        await it.share(f"{lines}{key}{lines}GH=ghp_{'a' * 36}\n".encode())
        await it.until(lambda: settled(it))
        (text,) = reader.read
        assert text.decode() == f"{lines}[redacted]\n{lines}GH=[redacted]\n"
        (item,) = reader.said
        assert item.saying.file is not None and item.saying.file.size == len(text)


async def test_a_file_of_bytes_is_said_as_it_is(tmp_path: Path) -> None:
    data = b"\x89PNG\r\n\x1a\n\x00 ghp_" + b"a" * 36
    async with reading_desk(tmp_path) as (it, reader):
        await it.share(data, "shot.png")
        await it.until(lambda: settled(it))
        assert reader.read == [data]


async def test_a_file_that_is_too_large_is_told(tmp_path: Path) -> None:
    async with reading_desk(tmp_path) as (it, reader):
        await it.share(b"\xff" * (LARGEST_FILE + 1))
        await it.until(lambda: settled(it))
        assert reader.read == [] and "too large: 21.0 MB" in reader.notes()[0]


async def test_only_copies_that_are_still_to_be_said_survive_a_start(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        del it.surfaces["slack"]
        waits = await it.share(b"hello")
        left = it.shared.directory / "left-over"
        left.write_bytes(b"of a crash")
        (it.shared.directory / "beside").mkdir()
        it.shared.sweep(await it.store.shared_files())
        assert list(it.shared.directory.iterdir()) == [waits]


async def test_nothing_outside_of_its_directory_is_deleted(tmp_path: Path) -> None:
    shared = SharedFiles(tmp_path / "shared")
    other = tmp_path / "sandpiper.db"
    other.write_bytes(b"the truth")
    for path in (other, shared.directory / ".." / "sandpiper.db"):
        shared.drop(SharedFile(str(path), "x", "", 9))
    assert other.exists()
