"""The bot in this process: real store, core, local provider, bubblewrap, supervisor and scripted agent.

GitHub is the playground's over HTTP, with the real PyGithub and git. Slack is in memory: a person's post
is a stored delivery, and what the surface is asked for is noted with its time. All times are seconds of
the machine's monotonic clock.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bot.access import Allowlist
from bot.agents.codec import Step, Task
from bot.agents.inside import program
from bot.agents.scripted import ScriptedCodec
from bot.clock import SystemClock
from bot.core import Core, Policy
from bot.models import Delivery, Identity, Message, MessageRef, OutboxItem, SayingKind, ThreadKey
from bot.sessions import Defaults
from bot.timeline import Timeline
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.bench import relay
from tests.github_stage import WEB, github_stage
from tests.world import MemorySurface

ANA = Identity("slack", "slack:T1", "U_ANA", "Ana")
PATIENCE = 20.0
NOTES = "~/notes"
RELAY = Path(relay.__file__).read_text()
AGENT = program("scripted_agent")


class Slack(MemorySurface):
    """Remembers when it was asked to draw and to post."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[float, Timeline]] = []
        self.posted: list[tuple[float, OutboxItem]] = []

    async def parse(self, delivery: Delivery) -> Sequence[Message]:
        said = json.loads(delivery.body)
        thread = ThreadKey("slack", "T1/C1", said["thread"])
        ref = MessageRef("slack", "C1", delivery.id)
        return [Message(delivery.id, thread, ANA, delivery.id, said["text"], ref, addressed=True)]

    async def show(self, ref: MessageRef, picture: Timeline) -> None:
        self.drawn.append((time.monotonic(), picture))
        await super().show(ref, picture)

    async def send(self, item: OutboxItem) -> MessageRef | None:
        self.posted.append((time.monotonic(), item))
        return await super().send(item)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self.changed:
            await self.changed.wait_for(true)

    async def shows_row(self, title: str) -> None:
        await self.until(lambda: any(row.title == title for row in self._newest.rows))

    async def shows_text(self, text: str) -> float:
        """When it was first asked to draw these words of the agent's."""
        await self.until(lambda: text in self._newest.text)
        return next(at for at, picture in self.drawn if text in picture.text)

    @property
    def _newest(self) -> Timeline:
        return self.drawn[-1][1] if self.drawn else Timeline(0)

    def finals_at(self) -> list[float]:
        return [at for at, item in self.posted if item.saying.kind is SayingKind.FINAL]


class Agent(ScriptedCodec):
    """The scripted agent behind the relay; remembers when each of its processes was there."""

    def __init__(self) -> None:
        super().__init__(("python3", "-c", RELAY, NOTES, *AGENT), pace=0)
        self.spawned: list[float] = []

    def begin(self, task: Task) -> Step:
        self.spawned.append(time.monotonic())
        return super().begin(task)


@dataclass
class Stage:
    store: SqliteStore
    slack: Slack
    agent: Agent
    boxes: Path
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def say(self, thread: str, text: str) -> float:
        """Ana writes in a thread. When the bot was told."""
        id = f"{next(self._numbers):06}"
        body = json.dumps({"thread": thread, "text": text}).encode()
        at = time.monotonic()
        await self.store.accept(Delivery("slack", id, "message", body, time.time(), lane=thread))
        return at

    async def turn(self, thread: str, text: str) -> tuple[float, float]:
        """A whole turn: when it was asked for, and when its last words were posted."""
        before = len(self.slack.finals_at())
        at = await self.say(thread, text)
        await self.slack.until(lambda: len(self.slack.finals_at()) > before)
        return at, self.slack.finals_at()[before]

    def passed(self, way: str, words: str) -> list[float]:
        """When lines with these words went in to the agents, or out of them."""
        (notes,) = self.boxes.glob("*/home/notes")
        return relay.passed(notes, way, words)


@asynccontextmanager
async def stage(directory: Path) -> AsyncIterator[Stage]:
    """Raises ProviderUnavailable where there can be no local sandbox."""
    provider = LocalProvider(directory / "sandboxes", Bubblewrap(Options(), allow=()))
    await provider.check()
    clock, dispatcher = SystemClock(), QueueDispatcher()
    slack, agent = Slack(), Agent()
    scratch = directory / "scratch"
    scratch.mkdir()
    async with AsyncExitStack() as closing:
        store = await SqliteStore.open(directory / "data", clock, dispatcher)
        closing.push_async_callback(store.close)
        closing.push_async_callback(_delete_all, provider)
        github = await closing.enter_async_context(github_stage(directory))
        core = Core(
            store=store,
            dispatcher=dispatcher,
            surfaces={"slack": slack},
            forge=github.forge,
            provider=provider,
            agents={agent.name: agent},
            clock=clock,
            scratch=scratch,
            shared=directory / "shared",
            owner="bench",
            policy=Policy(defaults=Defaults(WEB, agent.name), allowlist=Allowlist(("*",), ("*",), ("*",))),
        )
        running = asyncio.create_task(core.run())
        try:
            yield Stage(store, slack, agent, directory / "sandboxes")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _delete_all(provider: LocalProvider) -> None:
    for sandbox in await provider.find({}):
        await sandbox.delete()
