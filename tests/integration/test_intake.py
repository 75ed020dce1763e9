"""The intake's loop: the order of a thread's messages, waiting for the world, and a store that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bot.access import Access
from bot.choosing import Choosing
from bot.departures import Departures
from bot.errors import ForgeError
from bot.file_verb import FileVerb
from bot.intake import BATCH, SEEN_AFTER, Intake
from bot.losses import Losses
from bot.models import Delivery, Identity, Mark, Message, MessageRef, Repository, SayingKind, ThreadKey, Verb
from bot.sandbox_verbs import SandboxVerbs
from bot.sandboxes import Ages, Sandboxes
from bot.sessions import Defaults, Sessions
from bot.shared_files import SharedFiles
from bot.workspace import Workspaces
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.fakes import FakeClock
from tests.moody import MoodyStore, moody
from tests.town import OPEN
from tests.world import DirectoryForge, HostProvider, LineCodec, MemorySurface

STARTED = FakeClock().now()
ANA = Identity("github", "github:11", "ana", "ana")
BEN = Identity("slack", "T1", "U_BEN", "Ben")


class Posts(MemorySurface):
    """A surface whose deliveries are known by their ids."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.posts: dict[str, Message] = {}
        self.broken: set[str] = set()

    async def parse(self, delivery: Delivery) -> Sequence[Message]:
        if delivery.id in self.broken:
            raise ZeroDivisionError("a mistake of ours")
        return [self.posts[delivery.id]]


class MoodyForge(DirectoryForge):
    """GitHub that cannot be asked about people while it is `away`: for that many questions, or longer."""

    away: int = 0
    asked: int = 0
    slow: asyncio.Event | None = None  # nothing is answered about repositories before it is set

    async def repository(self, full_name: str) -> Repository:
        if self.slow is not None:
            self.asked += 1
            await self.slow.wait()
        return await super().repository(full_name)

    async def permission(self, repository: Repository, login: str) -> str:
        self.asked += 1
        if self.away:
            self.away -= 1
            raise ForgeError("GitHub does not answer.", retryable=True)
        return await super().permission(repository, login)


class Desk:
    """An intake at work over a real store, with a forge and a store that can be away."""

    def __init__(self, store: SqliteStore, clock: FakeClock, forge: MoodyForge, scratch: Path) -> None:
        self.store = store
        self.clock = clock
        self.forge = forge
        self.github = Posts("github")
        self.slack = Posts("slack")
        surfaces = {"github": self.github, "slack": self.slack}
        self.moods: MoodyStore
        self.moods, seen = moody(store)
        access = Access(forge, surfaces, OPEN)
        choosing = Choosing(seen, {"lines": LineCodec()})
        sandboxes = Sandboxes(seen, HostProvider(scratch / "boxes"), clock, "here", Ages(1800.0))
        workspaces = Workspaces(seen, forge, scratch, "bot", "bot@example.com")
        losses = Losses(seen, sandboxes, workspaces)
        files = FileVerb(seen, sandboxes, workspaces, SharedFiles(scratch / "shared"))
        boxes = SandboxVerbs(seen, surfaces, sandboxes, losses, clock)
        defaults = Defaults("acme/web", "lines")
        sessions = Sessions(seen, surfaces, forge, access, clock, choosing, boxes, files, defaults)
        departures = Departures(seen, surfaces, sandboxes, clock)
        self.intake = Intake(seen, surfaces, sessions, departures, clock)
        self._posted = 0

    async def post(
        self,
        text: str,
        *,
        issue: str = "5",
        addressed: bool = True,
        broken: bool = False,
        verb: Verb | None = None,
    ) -> None:
        self._posted += 1
        id = f"d{self._posted}"
        if broken:
            self.github.broken.add(id)
        thread = ThreadKey("github", "1", issue)
        sent = f"{self._posted:06}"
        ref = MessageRef("github", "1", sent)
        self.github.posts[id] = Message(
            f"k{id}", thread, ANA, sent, text, ref, addressed, verb, repository="acme/web"
        )
        await self.store.accept(Delivery("github", id, "comment", b"{}", self.clock.now(), f"1/{issue}"))

    async def mention(self, text: str, ts: str, author: Identity = BEN) -> None:
        thread = ThreadKey("slack", "T1/C1", ts)
        ref = MessageRef("slack", "C1", ts)
        self.slack.posts[ts] = Message(f"k{ts}", thread, author, ts, text, ref, addressed=True)
        await self.store.accept(Delivery("slack", ts, "event", b"{}", self.clock.now(), "C1"))

    async def marks(self) -> list[Mark | None]:
        items = await self.store.due(self.clock.now(), 100)
        return [item.saying.mark for item in items if item.saying.kind is SayingKind.RECEIPT]

    async def texts(self, issue: str = "5") -> list[str]:
        """What has come in for an issue, the one that started it first."""
        session = await self.store.session_of(f"github:1:{issue}")
        if session is None:
            return []
        turn = await self.store.open_turn(session.id)
        assert turn is not None
        return [session.title, *[item.text for item in await self.store.prompt_inputs(turn.id)][1:]]

    async def notes(self) -> list[str]:
        items = await self.store.due(self.clock.now(), 100)
        return [item.saying.text for item in items if item.saying.kind is SayingKind.NOTE]

    async def until(self, true: Callable[[], Awaitable[bool] | bool], pace: float = 1.0) -> None:
        """Wait for something, while the clock goes on."""
        async with asyncio.timeout(20):
            while True:
                answer = true()
                if await answer if isinstance(answer, Awaitable) else answer:
                    return
                self.clock.advance(pace)
                await asyncio.sleep(0.005)

    async def came_in(self, *texts: str, issue: str = "5", pace: float = 1.0) -> None:
        async def there() -> bool:
            return await self.texts(issue) == list(texts)

        await self.until(there, pace)


@asynccontextmanager
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = FakeClock()
    store = await SqliteStore.open(tmp_path / "data", clock, QueueDispatcher())
    forge = MoodyForge(tmp_path / "forge", permissions={"ana": "write"})
    await forge.prepare()
    it = Desk(store, clock, forge, tmp_path)
    running = asyncio.create_task(it.intake.run())
    try:
        yield it
        assert not running.done(), "the intake has given up"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()


async def test_a_store_that_cannot_be_read_for_a_while_is_waited_for(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.moods.away = {"*"}
        await it.post("first")
        await it.until(lambda: it.moods.turned_away.count("received") > 2)
        it.moods.away = set()
        await it.came_in("first")


async def test_a_delivery_that_cannot_be_settled_while_the_store_is_away_is_settled_later(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path) as it:
        it.moods.away = {"settle"}
        await it.post("unreadable", broken=True)
        await it.post("second")
        await it.until(lambda: it.moods.turned_away.count("settle") > 1)
        it.moods.away = set()
        await it.came_in("second")

        async def settled() -> bool:
            return not await it.store.received(9)

        await it.until(settled)


async def test_messages_of_a_thread_wait_for_the_one_before(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.forge.away = 6
        await it.post("first")
        await it.post("second")
        await it.came_in("first", "second")


async def test_threads_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.forge.away = 1
        await it.post("first", issue="5")
        await it.until(lambda: it.forge.asked > 0, pace=0.0)
        await it.post("other", issue="6")
        await it.came_in("other", issue="6", pace=0.0)
        await it.came_in("first", issue="5")


async def test_who_has_to_wait_for_long_hears_so_once_and_is_heard_in_the_end(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.forge.away = 10_000
        await it.post("first")
        await it.until(lambda: it.forge.asked == 4)
        assert await it.notes() == []
        await it.until(lambda: it.clock.now() > STARTED + 3600, pace=5.0)
        [note] = await it.notes()
        assert "GitHub does not answer." in note and "no need to write it again" in note
        it.forge.away = 0
        await it.came_in("first")


async def test_many_that_wait_do_not_keep_others_from_coming_in(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.forge.away = BATCH + 5
        for number in range(BATCH + 5):
            await it.post("waits", issue=str(1000 + number))
        await it.until(lambda: it.forge.asked == BATCH + 5, pace=0.0)
        await it.post("other", issue="6")
        await it.came_in("other", issue="6", pace=0.0)


async def test_a_mention_is_seen_to_be_here_though_github_is_slow(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.forge.slow = asyncio.Event()
        await it.mention("Fix the footer", "1.1")

        async def seen() -> bool:
            return await it.marks() == [Mark.SEEN]

        await it.until(lambda: it.forge.asked == 1, pace=0)
        it.clock.advance(SEEN_AFTER)
        await it.until(seen, pace=0)
        assert await it.store.session_of("slack:T1/C1:1.1") is None
        it.forge.slow.set()

        async def started() -> bool:
            return await it.store.session_of("slack:T1/C1:1.1") is not None

        await it.until(started)
        assert await it.notes() == []


async def test_what_was_said_before_anybody_named_us_is_neither_command_nor_input(tmp_path: Path) -> None:
    """A label taken off and put on again; people who say "stop" to each other; their earlier talk."""
    async with desk(tmp_path) as it:
        await it.post("", addressed=False, verb=Verb.STOP)
        await it.post("we should drop the users table, or not?", addressed=False)

        async def parked() -> bool:
            return not await it.store.received(10)

        await it.until(parked, pace=0)
        await it.post("fix the login")
        await it.post("and the logout", addressed=False)
        await it.came_in("fix the login", "and the logout")
        session = await it.store.session_of("github:1:5")
        assert session is not None
        turn = await it.store.open_turn(session.id)
        assert turn is not None and turn.stop_by == ""


async def test_a_reply_that_overtakes_its_root_is_still_heard(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        it.forge.away = 3
        await it.post("root")
        await it.post("reply", addressed=False)
        await it.came_in("root", "reply")
