"""The whole core over a real SQLite store, with the small world around it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from bot.access import Allowlist
from bot.agents.codec import Capabilities, Codec
from bot.core import Core, Policy
from bot.models import Final, Identity, Message, MessageRef, Mode, ThreadKey, Verb
from bot.ports import Store
from bot.programs import Program
from bot.sessions import Defaults
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.fakes import FakeClock
from tests.world import (
    RUNNING,
    DirectoryForge,
    HostProvider,
    LineCodec,
    MemorySurface,
    Script,
    ScriptedProcess,
)

ANA = Identity("slack", "slack:T1", "U_ANA", "Ana")
BEN = Identity("slack", "slack:T1", "U_BEN", "Ben")
EVE = Identity("slack", "slack:T1", "U_EVE", "Eve")

OPEN = Allowlist(("U_ANA", "U_BEN"), ("*",), ("acme/*",))


class Town:
    """People talk, the bot works, and one can look at what was said."""

    def __init__(
        self,
        core: Core,
        store: SqliteStore,
        surfaces: Mapping[str, MemorySurface],
        forge: DirectoryForge,
        provider: HostProvider,
        clock: FakeClock,
    ) -> None:
        self.core = core
        self.store = store
        self.slack = surfaces["slack"]
        self.github = surfaces["github"]
        self.forge = forge
        self.provider = provider
        self.clock = clock
        self._ts = itertools.count(1)

    async def say(
        self,
        text: str,
        by: Identity = ANA,
        *,
        thread: str = "t1",
        surface: str = "slack",
        scope: str = "",
        verb: Verb | None = None,
        mode: Mode = Mode.STEER,
        key: str = "",
        **more: object,
    ) -> str:
        number = next(self._ts)
        message = Message(
            key=key or f"m{number}",
            thread=ThreadKey(surface, scope or ("T1/C1" if surface == "slack" else "1"), thread),
            author=by,
            sent=f"{number:06}",
            text=text,
            ref=more.pop("ref", MessageRef(surface, "C1", f"{number:06}")),  # type: ignore[arg-type]
            addressed=bool(more.pop("addressed", True)),
            verb=verb,
            mode=mode,
            **more,  # type: ignore[arg-type]
        )
        return await self.core.sessions.receive(message)

    async def final(self, number: int = 1) -> Final:
        """The n-th final reply, waited for."""

        async def seen() -> Final:
            async with self.slack.changed:
                await self.slack.changed.wait_for(lambda: len(self.slack.finals()) >= number)
            final = self.slack.finals()[number - 1].saying.final
            assert final is not None
            return final

        return await asyncio.wait_for(seen(), 20)

    async def until(self, true: Callable[[], Awaitable[bool] | bool]) -> None:
        """Wait for a condition that has no bell of its own."""
        async with asyncio.timeout(20):
            while True:
                answer = true()
                if await answer if isinstance(answer, Awaitable) else answer:
                    return
                await asyncio.sleep(0.005)

    async def after_time(self, number: int = 1, step: float = 60.0) -> Final:
        """The n-th final reply, with the clock running until it is there: never while a program works or
        a write is under way, for then it would run ahead of them, and a deadline or a lease pass."""
        waiting = asyncio.ensure_future(self.final(number))
        while not waiting.done():
            self.clock.advance(step)
            await asyncio.sleep(0.002)
            while RUNNING:
                await next(iter(RUNNING)).wait()
                await asyncio.sleep(0.001)
            await self.store.audit("test", "a write behind those of this moment", "", "")
        return waiting.result()

    def box(self) -> ScriptedProcess:
        """The newest agent process."""
        processes = [p for box in self.provider.boxes.values() for p in box.processes.values()]
        return processes[-1]


@asynccontextmanager
async def town(
    tmp_path: Path,
    scripts: Sequence[Script] = (),
    policy: Policy | None = None,
    dispatcher: QueueDispatcher | None = None,
    seen: Callable[[Store], Store] = lambda store: store,
    agents: Mapping[str, Codec] | None = None,
    programs: Mapping[str, Program] = MappingProxyType({}),
    provider: type[HostProvider] = HostProvider,
    certificates: bytes = b"",
) -> AsyncIterator[Town]:
    """A running core. `scripts` are what the agents do, in the order of their starts. `seen`: what the
    core sees of the store."""
    clock = FakeClock()
    dispatcher = dispatcher or QueueDispatcher()
    store = await SqliteStore.open(tmp_path / "data", clock, dispatcher)
    surfaces = {"slack": MemorySurface(), "github": MemorySurface("github")}
    forge = DirectoryForge(tmp_path / "forge", permissions={"7": "write"})
    await forge.prepare()
    boxes = provider(tmp_path / "boxes", scripts)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    core = Core(
        store=seen(store),
        dispatcher=dispatcher,
        surfaces=surfaces,
        forge=forge,
        provider=boxes,
        agents=agents
        or {
            "lines": LineCodec(capabilities=Capabilities(approvals=True, version="1")),
            "other": LineCodec("other"),
        },
        programs=programs,
        clock=clock,
        scratch=scratch,
        shared=tmp_path / "shared",
        owner="test",
        certificates=certificates,
        policy=policy or Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN),
    )
    running = asyncio.create_task(core.run())
    try:
        yield Town(core, store, surfaces, forge, boxes, clock)
        if running.done():
            running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await boxes.close()
        await store.close()
