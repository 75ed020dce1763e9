"""Everything that can happen while an agent works, merged into one stream for the one driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from bot.driver import Deadlines
from bot.errors import ProcessGone, SandboxError, SandboxGone, SandboxNotRunning, SandboxUnreachable
from bot.ports import Clock, Process, Watch
from bot.sharing import ShareOutcome
from bot.steerers import Asked

STDOUT, STDERR = 1, 2
LONG_POLL = 20.0
TICK = 3.0


@dataclass(frozen=True, slots=True)
class Output:
    fd: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The process is over; None: its exit code is not known."""

    code: int | None


@dataclass(frozen=True, slots=True)
class Rung:
    """Inputs or a stop may have come in."""


@dataclass(frozen=True, slots=True)
class Late:
    """A deadline passed: `phase` silence, turn or interrupt."""

    phase: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A few seconds went by: time for housekeeping."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The sandbox could not be reached for too long."""

    error: SandboxError


@dataclass(frozen=True, slots=True)
class Broke:
    """Work beside the driver's failed in a way that is the driver's to tell."""

    error: Exception


@dataclass(frozen=True, slots=True)
class WordsReady:
    """Words that came in were asked about, and what came with them was brought."""

    asked: Asked


Item = Output | Ended | Rung | Late | Tick | Lost | ShareOutcome | WordsReady | Broke


class Feed:
    """Reads a process from the recorded offsets on. Use as an async context manager and iterate.

    The queue is bounded: a driver that falls behind slows the reading, and with it the agent.
    """

    def __init__(
        self,
        process: Process,
        watch: Watch,
        clock: Clock,
        deadlines: Deadlines,
        *,
        offsets: tuple[int, int],
        started_at: float,
    ) -> None:
        self._process = process
        self._watch = watch
        self._clock = clock
        self._deadlines = deadlines
        self._started_at = started_at
        self._offsets = {STDOUT: offsets[0], STDERR: offsets[1]}
        self.acked = dict(self._offsets)
        self._waits_for_people = False
        self._last_output = clock.now()
        self._queue: asyncio.Queue[Item] = asyncio.Queue(maxsize=8)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Feed:
        complaints = self._start(self._read_stderr())
        for work in (self._read(complaints), self._ring(), self._tick(), self._silence()):
            self._start(work)
        if self._deadlines.turn > 0:
            self._start(self._turn_deadline())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def items(self) -> AsyncIterator[Item]:
        while True:
            yield await self._queue.get()

    def interrupt_within(self, seconds: float) -> None:
        """Have a Late("interrupt") come after so many seconds."""
        self._start(self._late("interrupt", seconds))

    def beside(self, work: Awaitable[Item]) -> None:
        """Have what comes of this work come as an item, while others go on."""

        async def put() -> None:
            await self._queue.put(await work)

        self._start(put())

    def wait_for_people(self, waits: bool) -> None:
        """An agent that waits for an answer is not silent; once it has that, its silence counts anew."""
        if self._waits_for_people and not waits:
            self._last_output = self._clock.now()
        self._waits_for_people = waits

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def told() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 the driver raises it: else it would wait for good
                await self._queue.put(Broke(error))

        task = asyncio.create_task(told())
        self._tasks.append(task)
        return task

    async def _read(self, complaints: asyncio.Task[None]) -> None:
        """stdout to its end, then the exit code: behind stderr, which says what that means."""
        try:
            await self._read_fd(STDOUT)
            status = await self._process.status()
            while status.running:  # it closed its stdout but lives on
                await self._clock.sleep(0.2)
                status = await self._process.status()
            await asyncio.wait([complaints])
            await self._queue.put(Ended(status.exit_code))
        except (ProcessGone, SandboxNotRunning, SandboxGone):
            await self._queue.put(Ended(None))
        except SandboxError as error:
            await self._queue.put(Lost(error))

    async def _read_stderr(self) -> None:
        try:
            await self._read_fd(STDERR)
        except SandboxError:
            return  # the reader of stdout tells the story

    async def _read_fd(self, fd: int) -> None:
        offset, failing_since = self._offsets[fd], 0.0
        while True:
            try:
                chunk = await self._process.read(fd, offset, ack=self.acked[fd], wait=LONG_POLL)
            except SandboxUnreachable as away:
                failing_since = failing_since or self._clock.now()
                failing_for = self._clock.now() - failing_since
                left = self._deadlines.unreachable - failing_for
                if left < 0:
                    raise
                if away.retry_after > left:  # it may not be asked again in time
                    await self._clock.sleep(left)
                    raise
                await self._clock.sleep(max(min(15.0, 0.5 + failing_for), away.retry_after))
                continue
            failing_since, offset = 0.0, chunk.next
            if chunk.data:
                self._last_output = self._clock.now()
                await self._queue.put(Output(fd, chunk.data))
            if chunk.eof:
                return

    async def _ring(self) -> None:
        while True:
            await self._queue.put(Rung())
            await self._watch.wait(5.0)

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(TICK)
            await self._queue.put(Tick())

    async def _silence(self) -> None:
        limit = self._deadlines.silence
        while limit > 0:
            if self._waits_for_people:
                self._last_output = self._clock.now()
            quiet = self._clock.now() - self._last_output
            if quiet >= limit:
                await self._queue.put(Late("silence", limit))
                return
            await self._clock.sleep(limit - quiet)

    async def _turn_deadline(self) -> None:
        limit = self._deadlines.turn
        await self._late("turn", limit, max(0.0, self._started_at + limit - self._clock.now()))

    async def _late(self, phase: str, seconds: float, wait: float | None = None) -> None:
        await self._clock.sleep(seconds if wait is None else wait)
        await self._queue.put(Late(phase, seconds))
