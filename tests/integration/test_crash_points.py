"""A turn whose bot dies after each single step of it, and is started again: what people see is the same.

A step is a write to the store, or a call that changes something outside. What the dead bot would have
done after it never happens. Only the bot dies: the agent, the forge and the threads go on.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from bot.agents.codec import Codec
from bot.core import Core, Policy
from bot.driver import Deadlines
from bot.events import Completed, Event, Notice, Text
from bot.models import (
    Attachment,
    Delivery,
    Final,
    Identity,
    Mark,
    Message,
    MessageRef,
    Outcome,
    ThreadKey,
    TurnState,
    Verb,
)
from bot.ports import Forge, Provider, Store, Surface
from bot.preparation import MOVED
from bot.sessions import Defaults
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.fakes import FakeClock
from tests.integration.test_hooks import contains
from tests.town import ANA, BEN, OPEN
from tests.world import (
    DirectoryForge,
    HostProvider,
    HostSandbox,
    LineCodec,
    MemorySurface,
    Script,
    ScriptedProcess,
    shell,
)

THREAD = ThreadKey("slack", "T1/C1", "t1")
POLICY = Policy(
    defaults=Defaults("acme/web", "lines"),
    allowlist=OPEN,
    # A turn that hangs after a crash shall be seen soon.
    # Out of reach: time flies here, also while a slow machine is at work.
    deadlines=Deadlines(prepare=9e5, silence=6e5, publish=9e5),
)
WRITES = frozenset(
    {
        *("accept", "settle", "park", "person", "admit", "request_stop", "say", "set_workspace", "opened_in"),
        *("boot", "claim", "advance", "new_attempt", "record", "begin_finishing", "close_intake"),
        *(
            "bring_code",
            "hooked_in",
            "set_ready",
            "begin_push",
            "set_published",
            "finish",
            "sending",
            "sent",
            "save_sandbox",
        ),
    }
)
STEPS = {
    "store": WRITES,
    "surface": frozenset({"send", "show"}),
    "forge": frozenset({"bundle", "publish_branch", "pull_request"}),
    "provider": frozenset({"create"}),
    "sandbox": frozenset({"spawn", "run", "upload", "download"}),
    "process": frozenset({"write", "signal", "forget"}),
}


AT_ONCE = 4  # worlds side by side


@dataclass
class Fuse:
    """Counts the steps of a life, and blows after one of them: the bot is dead then."""

    at: int
    after: str = ""
    steps: list[str] = field(default_factory=list)
    blown: asyncio.Event = field(default_factory=asyncio.Event)

    def step(self, name: str) -> None:
        self.check()
        self.steps.append(name)
        if len(self.steps) == self.at or name == self.after:
            self.blown.set()
            self.check()

    def check(self) -> None:
        if self.blown.is_set():
            raise asyncio.CancelledError("the bot is dead")


class Guarded:
    """Something that the bot calls, with a fuse in between."""

    def __init__(self, inner: Any, fuse: Fuse, name: str) -> None:
        self._inner = inner
        self._fuse = fuse
        self._name = name

    def __getattr__(self, verb: str) -> Any:
        found = getattr(self._inner, verb)
        if not inspect.iscoroutinefunction(found):
            return found

        async def guarded(*args: Any, **named: Any) -> Any:
            self._fuse.check()
            result = await found(*args, **named)
            self._fuse.check()
            if verb in STEPS[self._name]:
                self._fuse.step(f"{self._name}.{verb}")
            return self._guard(result)

        return guarded

    def _guard(self, result: Any) -> Any:
        if isinstance(result, HostSandbox):
            return Guarded(result, self._fuse, "sandbox")
        if isinstance(result, ScriptedProcess):
            return Guarded(result, self._fuse, "process")
        if isinstance(result, list) and result and isinstance(result[0], HostSandbox):
            return [self._guard(one) for one in result]
        return result


class Told(MemorySurface):
    """A surface whose deliveries stand for messages."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: dict[str, Message] = {}

    async def parse(self, delivery: Delivery) -> Sequence[Message]:
        return [self.messages[delivery.id]]


class Boxes(HostProvider):
    """All sandboxes are Ana's."""

    async def find(self, labels: Mapping[str, str]) -> Sequence[HostSandbox]:
        return list(self.boxes.values())


class World:
    """What outlives the bot."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.surface = Told()
        self.forge = DirectoryForge(directory / "forge")
        self.provider = Boxes(directory / "boxes")
        self.clock = FakeClock()
        self.store: SqliteStore | None = None
        self.unheard: list[Delivery] = []

    def write(
        self,
        id: str,
        text: str,
        by: Identity,
        *,
        addressed: bool = False,
        verb: Verb | None = None,
        attachments: tuple[Attachment, ...] = (),
    ) -> None:
        """A message in the thread; it reaches the bot as soon as one lives."""
        number = f"{len(self.surface.messages) + 1:06}"
        self.surface.messages[id] = Message(
            key=id,
            thread=THREAD,
            author=by,
            sent=number,
            text=text,
            ref=MessageRef("slack", "C1", number),
            addressed=addressed,
            verb=verb,
            attachments=attachments,
        )
        self.unheard.append(Delivery("slack", id, "event", b"{}", self.clock.now(), str(THREAD)))

    @asynccontextmanager
    async def life(self, fuse: Fuse) -> AsyncIterator[asyncio.Task[None]]:
        """One process of the bot."""
        dispatcher = QueueDispatcher()
        store = await SqliteStore.open(self.directory / "data", self.clock, dispatcher)
        scratch = self.directory / "scratch"
        scratch.mkdir(exist_ok=True)
        core = Core(
            store=cast(Store, Guarded(store, fuse, "store")),
            dispatcher=dispatcher,
            surfaces={
                "slack": cast(Surface, Guarded(self.surface, fuse, "surface")),
                "github": MemorySurface("github"),  # the pull request's own thread
            },
            forge=cast(Forge, Guarded(self.forge, fuse, "forge")),
            provider=cast(Provider, Guarded(self.provider, fuse, "provider")),
            agents={"lines": cast(Codec, LineCodec())},
            clock=self.clock,
            scratch=scratch,
            shared=self.directory / "shared",
            owner="test",
            policy=POLICY,
        )
        self.store = store
        running = asyncio.create_task(core.run())
        try:
            yield running
        finally:
            fuse.blown.set()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.store = None
            await store.close()

    async def lives(self, fuse: Fuse) -> None:
        """Run the bot until all is said and done, or its fuse blows."""
        async with self.life(fuse) as running:
            try:
                async with asyncio.timeout(120):
                    while not fuse.blown.is_set() and not await self._settled():
                        if running.done():
                            running.result()
                        await self._hear()
                        self.clock.advance(0.2)
                        await asyncio.sleep(0.004)
            except TimeoutError:
                raise AssertionError(f"not settled: {await self._open_ends()}") from None

    async def _hear(self) -> None:
        while self.unheard and self.store is not None:
            await self.store.accept(self.unheard.pop(0))

    async def _settled(self) -> bool:
        """The thread has a last word, and nothing more is on its way."""
        store = self.store
        if store is None or not self.surface.finals() or self.unheard:
            return False
        if await store.received(1) or await store.running():
            return False
        return not await store.due(self.clock.now() + 1e9, 1)

    async def _open_ends(self) -> str:
        store = self.store
        if store is None:
            return "no store"
        due = [item.saying.key for item in await store.due(self.clock.now() + 1e9, 5)]
        last = await store.turn(1)
        return (
            f"finals {len(self.surface.finals())}, unheard {len(self.unheard)}, "
            f"running {await store.running()}, "
            f"received {len(await store.received(5))}, due {due}, turn 1 is {last.state}"
        )

    def processes(self) -> list[ScriptedProcess]:
        return [process for box in self.provider.boxes.values() for process in box.processes.values()]

    async def record(self, steps: Sequence[str], *, died: bool) -> Record:
        store = await SqliteStore.open(self.directory / "data", self.clock, QueueDispatcher())
        try:
            turn, events = await store.turn(1), await store.events(1)
        finally:
            await store.close()
        finals = self.surface.finals()
        final = finals[-1].saying.final
        assert final is not None
        bare = self.forge.bare
        log = await shell('git log --format=%s "main..$1" -- 2>/dev/null || true', final.branch, cwd=bare)
        told = [stored.event for stored in events]
        return Record(steps, died, self, final, len(finals), turn.state, told, log.splitlines(), turn.attempt)


@dataclass(frozen=True)
class Record:
    """What there is to see in the end."""

    steps: Sequence[str]
    died: bool
    world: World
    final: Final
    finals: int
    state: TurnState
    events: Sequence[Event]
    commits: Sequence[str]
    attempts: int

    @property
    def died_after(self) -> str:
        return self.steps[-1] if self.died else ""

    def marks(self) -> dict[str, Mark]:
        """The newest receipt of each message."""
        said = [item.saying for item in self.world.surface.said]
        return {saying.ref.id: saying.mark for saying in said if saying.ref and saying.mark}

    def heard(self) -> list[str]:
        """What the agents were told, in order."""
        return [line for process in self.world.processes() for line in process.stdin.decode().splitlines()]


Check = Callable[[Record], None]
Scripts = Callable[["World"], Sequence[Script]]


# A story has some fifty steps; on a busy machine, living it that often takes minutes.
many_lives = pytest.mark.timeout(900)


async def sweep(
    tmp_path: Path, scripts: Scripts, check: Check, *, after: str = "", files: Mapping[str, str] | None = None
) -> None:
    """The same story once for each of its steps (those behind the step `after`): there the bot dies. files:
    what its repository has besides."""
    seed = DirectoryForge(tmp_path / "forge")
    await seed.prepare()
    for path, content in (files or {}).items():
        await contains(seed, path, content)
    places = asyncio.Semaphore(AT_ONCE)
    wrong: list[str] = []

    async def die_at(step: int) -> Record:
        async with places:
            directory = tmp_path / str(step)
            shutil.copytree(seed.root, directory / "forge")
            record = await crash(directory, step, scripts)
        try:
            said_once_and_settled(record)
            check(record)
        except AssertionError as failed:
            wrong.append(f"dead after step {step}, {record.died_after or 'never'}: {failed}")
        return record

    unharmed = (await die_at(0)).steps
    first = unharmed.index(after) + 1 if after else 1
    await asyncio.gather(*(die_at(step) for step in range(first, len(unharmed) + 1)))
    assert not wrong, "\n\n".join(wrong)


async def crash(directory: Path, step: int, scripts: Scripts) -> Record:
    """Ana asks for something; the bot dies once, after its n-th step (0: never), and lives on."""
    world = World(directory)
    try:
        world.write("m1", "add hello", ANA, addressed=True)
        world.provider.scripts = list(scripts(world))
        first = Fuse(step)
        await world.lives(first)
        if len(first.steps) == step:
            await world.lives(Fuse(0))
        return await world.record(first.steps, died=len(first.steps) == step)
    finally:
        await world.provider.close()


def said_once_and_settled(record: Record) -> None:
    said = Counter(item.saying.key for item in record.world.surface.said if not item.saying.mark)
    assert [key for key, times in said.items() if times > 1] == [], "said twice"
    assert record.finals == 1
    assert record.world.surface.pictures[-1].final == record.final, "a picture that is not settled"
    phases = Counter(
        row.title for row in record.world.surface.pictures[-1].rows if row.id.startswith("phase:")
    )
    assert record.attempts > 1 or not [title for title, times in phases.items() if times > 1], "told twice"
    assert all(process.exit_code is not None for process in record.world.processes()), "left running"


# The stories


def told_and_asked(world: World) -> Sequence[Script]:
    async def play(agent: ScriptedProcess) -> None:
        """Hears a second message, leaves its work lying about, commits it when it is asked to."""
        await agent.take()
        agent.say(token="tok-1")
        agent.say(text="I begin.")
        world.write("m2", "make it blue", BEN)
        words = await agent.take()
        await agent.write_file("hello.txt", words["prompt"])
        agent.say(done="done")
        await agent.take()
        await agent.write_file("more.txt", "more", commit="Say hello")
        agent.say(done="All is done.")

    return [play]


def told_once_and_published_once(record: Record) -> None:
    assert (record.state, record.final.outcome) == (TurnState.DONE, Outcome.PUBLISHED)
    assert record.final.text == "All is done."
    assert record.marks() == {"000001": Mark.CONSUMED, "000002": Mark.CONSUMED}
    assert len(record.world.processes()) == 1
    keys = [json.loads(line)["key"] for line in record.heard()]
    assert len(keys) == len(set(keys)) == 3
    assert record.events.count(Text("I begin.")) == 1
    assert [event.text for event in record.events if isinstance(event, Completed)] == [
        "done",
        "All is done.",
    ]
    assert record.world.forge.pushes == len(record.world.forge.pull_requests) == 1
    assert record.commits == ["Say hello"]


@many_lives
async def test_a_told_agent_is_told_once_and_its_work_is_published_once(tmp_path: Path) -> None:
    def check(record: Record) -> None:
        told_once_and_published_once(record)
        pull_request = record.final.pull_request
        # Two transactions follow each other there; dead in between, it says "updated" for "opened".
        assert pull_request is not None
        assert pull_request.created or record.died_after == "store.set_published"

    await sweep(tmp_path, told_and_asked, check)


async def test_a_push_that_another_thread_has_seen_still_becomes_a_pull_request(tmp_path: Path) -> None:
    """The threads of a person share a clone: what one of them brings in is there for all of them."""
    world = World(tmp_path)
    await world.forge.prepare()
    world.provider.scripts = list(told_and_asked(world))
    try:
        world.write("m1", "add hello", ANA, addressed=True)
        await world.lives(Fuse(0, after="forge.publish_branch"))
        assert world.forge.pushes == 1 and not world.forge.pull_requests
        (box,) = world.provider.boxes.values()
        (clone,) = Path(box.repositories).glob("*.git")
        fetch = 'git fetch -q "$1" "+refs/heads/*:refs/remotes/origin/*"'
        await shell(fetch, str(world.forge.bare), cwd=clone)
        await world.lives(Fuse(0))
        record = await world.record((), died=False)
    finally:
        await world.provider.close()
    told_once_and_published_once(record)


async def test_a_clone_that_was_half_made_is_made_to_its_end(tmp_path: Path) -> None:
    """`git init` writes HEAD before it makes the directory of objects."""
    world = World(tmp_path)
    await world.forge.prepare()
    world.provider.scripts = list(told_and_asked(world))
    try:
        world.write("m1", "add hello", ANA, addressed=True)
        await world.lives(Fuse(0, after="provider.create"))
        (box,) = world.provider.boxes.values()
        clone = Path(box.repositories) / "1.git"
        (clone / "refs").mkdir(parents=True)
        (clone / "HEAD").write_text("ref: refs/heads/main\n")
        (clone / "config.lock").touch()
        await world.lives(Fuse(0))
        record = await world.record((), died=False)
    finally:
        await world.provider.close()
    told_once_and_published_once(record)


@pytest.mark.parametrize("seed", range(5))
async def test_a_bot_that_dies_again_and_again_gets_there(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    world = World(tmp_path)
    await world.forge.prepare()
    world.provider.scripts = list(told_and_asked(world))
    try:
        world.write("m1", "add hello", ANA, addressed=True)
        died = True
        while died:
            fuse = Fuse(dice.randint(6, 20))
            await world.lives(fuse)
            died = len(fuse.steps) == fuse.at
        record = await world.record((), died=False)
    finally:
        await world.provider.close()
    said_once_and_settled(record)
    told_once_and_published_once(record)


def shown_files(world: World) -> Sequence[Script]:
    [opening] = world.unheard
    log = Attachment("F1", "a.log", "text/plain", 3)
    lost, shot = Attachment("F0", "lost.png", "image/png"), Attachment("F2", "b.png", "image/png", 3)
    world.surface.uploads = {"F1": b"log", "F2": b"png"}
    world.surface.messages[opening.id] = replace(world.surface.messages[opening.id], attachments=(log,))

    async def play(agent: ScriptedProcess) -> None:
        await agent.take()
        world.write("m2", "and this", BEN, attachments=(shot, lost))
        await agent.take()
        agent.say(done="Seen.")

    return [play]


@many_lives
async def test_files_lie_where_the_agent_was_told_and_what_is_missing_is_said_once(tmp_path: Path) -> None:
    def check(record: Record) -> None:
        assert record.final.text == "Seen."
        (box,) = record.world.provider.boxes.values()
        told = " ".join(json.loads(line)["prompt"] for line in record.heard())
        paths = re.findall(r"attached: (\S+),", told)
        assert [Path(path).name for path in paths] == ["1-a.log", "1-b.png"]
        assert [Path(path).read_bytes() for path in paths] == [b"log", b"png"]
        lying = [path for path in Path(box.workspaces).glob("*/.sandpiper/attached/**/*") if path.is_file()]
        assert sorted(map(str, lying)) == sorted(paths)
        rows = [row.title for row in record.world.surface.pictures[-1].rows]
        assert len([title for title in rows if "lost.png" in title]) == 1, rows

    await sweep(tmp_path, shown_files, check)


def gives_up(world: World) -> Sequence[Script]:
    async def play(agent: ScriptedProcess) -> None:
        await agent.take()
        await agent.write_file("half.txt", "half")
        agent.say(failed="The model is not to be reached.")

    return [play]


@many_lives
async def test_a_failure_stays_a_failure_and_its_work_is_kept(tmp_path: Path) -> None:
    def check(record: Record) -> None:
        assert (record.state, record.final.outcome) == (TurnState.FAILED, Outcome.FAILED)
        assert "not to be reached" in record.final.reason
        assert any("kept" in note for note in record.final.notes)
        assert not record.world.forge.pull_requests and not record.commits

    await sweep(tmp_path, gives_up, check, after="store.advance")


def is_stopped(world: World) -> Sequence[Script]:
    async def play(agent: ScriptedProcess) -> None:
        await agent.take()
        await agent.write_file("half.txt", "half")
        world.write("m2", "", ANA, verb=Verb.STOP)
        while "interrupt" not in await agent.heard():
            pass
        agent.say(cancelled=True)

    return [play]


@many_lives
async def test_a_stop_stays_a_stop(tmp_path: Path) -> None:
    def check(record: Record) -> None:
        assert (record.state, record.final.outcome) == (TurnState.STOPPED, Outcome.STOPPED), record.final
        assert record.final.reason == "Stopped by Ana."
        assert any("kept" in note for note in record.final.notes)
        assert not record.world.forge.pull_requests

    await sweep(tmp_path, is_stopped, check, after="store.advance")


def dies_once(world: World) -> Sequence[Script]:
    async def dies(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(token="tok-9")
        await agent.write_file("begun.txt", "begun")
        agent.exit(137)

    async def goes_on(agent: ScriptedProcess) -> None:
        hello = await agent.take()
        assert hello["resume"] == "tok-9"
        await agent.write_file("ended.txt", "ended", commit="All of it")
        agent.say(done="went on")

    return [dies, goes_on]


@many_lives
async def test_a_dead_agent_is_resumed_once(tmp_path: Path) -> None:
    def check(record: Record) -> None:
        assert (record.state, record.final.outcome) == (TurnState.DONE, Outcome.PUBLISHED)
        assert record.final.text == "went on"
        assert len(record.world.processes()) == 2
        assert record.commits == ["All of it"]

    await sweep(tmp_path, dies_once, check, after="store.advance")


async def test_a_bot_that_dies_on_a_new_box_opens_the_work_there_and_says_what_was_lost(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.forge.prepare()
    fuse = Fuse(0)

    async def loses_its_box(agent: ScriptedProcess) -> None:
        await agent.take()
        world.provider.boxes.clear()
        fuse.after = "store.save_sandbox"
        agent.exit(1)

    async def works(agent: ScriptedProcess) -> None:
        await agent.take()
        await agent.write_file("hello.txt", "hello", commit="Say hello")
        agent.say(done="Done.")

    try:
        world.write("m1", "add hello", ANA, addressed=True)
        world.provider.scripts = [loses_its_box, works]
        await world.lives(fuse)
        await world.lives(Fuse(0))
        record = await world.record(fuse.steps, died=True)
    finally:
        await world.provider.close()
    assert record.died_after == "store.save_sandbox"
    assert record.final.outcome is Outcome.PUBLISHED
    assert record.events.count(Notice(MOVED)) == 1


def loses_its_box(world: World) -> Sequence[Script]:
    async def loses(agent: ScriptedProcess) -> None:
        await agent.take()
        world.provider.boxes.clear()
        agent.exit(1)

    async def looks(agent: ScriptedProcess) -> None:
        await agent.take()
        made = agent.cwd.parent / "made"
        agent.say(done=made.read_text() if made.exists() else "nothing")

    return [loses, looks]


@many_lives
async def test_what_a_repository_wants_run_is_run_once_in_a_new_box(tmp_path: Path) -> None:
    def check(record: Record) -> None:
        assert record.final.outcome is Outcome.ANSWERED, record.final
        assert record.final.text == "setup\n"

    hook = {".sandpiper/setup.sh": "echo setup >>../made"}
    await sweep(tmp_path, loses_its_box, check, after="store.advance", files=hook)
