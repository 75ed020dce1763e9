"""A turn of a week, on a clock that the test turns: whatever would end it meanwhile is renewed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bot.core import Policy
from bot.errors import SandboxNotRunning
from bot.models import Chunk, Launch, Outcome, SandboxState, TurnState
from bot.sandboxes import Ages
from bot.sessions import Defaults
from bot.settings_sandboxes import SandboxSettings
from tests.fakes import FakeClock
from tests.town import BEN, OPEN, Town, town
from tests.world import HostSandbox, Script, ScriptedProcess

DAY = 86400.0
IDLE_STOP = 1800.0
STEP = 360.0  # longer than any of the bot's own pauses, and much shorter than what they are to prevent
POLICY = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN, ages=Ages(IDLE_STOP, ttl=3 * DAY))


class LeasedProcess(ScriptedProcess):
    """Ends when nobody has called for the time of its lease, as a keeper's program does."""

    def __init__(self, key: str, cwd: Path, clock: FakeClock, lease: float) -> None:
        super().__init__(key, cwd)
        self.clock = clock
        self.lease_of = lease
        self.expires = clock.now() + lease
        self.called = clock.now()
        self.longest = 0.0  # seconds between two calls

    async def read(self, fd: int, offset: int, *, ack: int, wait: float, limit: int = 1 << 18) -> Chunk:
        now = self.clock.now()
        if now > self.expires and self.exit_code is None:
            self.exit(-15)
        self.longest = max(self.longest, now - self.called)
        self.expires = now + self.lease_of
        self.called = now
        reading = asyncio.ensure_future(super().read(fd, offset, ack=ack, wait=wait, limit=limit))
        waiting = asyncio.ensure_future(self.clock.sleep(wait))
        try:
            await asyncio.wait((reading, waiting), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else Chunk(b"", offset, False)
        finally:
            reading.cancel()
            waiting.cancel()


class TimedSandbox(HostSandbox):
    """Stops itself, with all that runs in it, when nobody has touched it for as long as it was told."""

    def __init__(self, root: Path, agents: list[Script], clock: FakeClock) -> None:
        super().__init__(root, agents)
        self.clock = clock
        self.touched = clock.now()
        self.stops_at = clock.now() + IDLE_STOP
        self.stopped = False

    async def state(self) -> SandboxState:
        if self.clock.now() > self.stops_at:
            await self.stop()
        return SandboxState.STOPPED if self.stopped else SandboxState.RUNNING

    async def stop(self) -> None:
        self.stopped = True
        for process in self.processes.values():
            process.exit(-9)

    async def touch(self, idle_stop: float) -> None:
        self.touched = self.clock.now()
        if await self.state() is not SandboxState.RUNNING:
            raise SandboxNotRunning("It stopped itself.")
        self.stops_at = self.clock.now() + idle_stop

    async def spawn(self, key: str, launch: Launch, *, fence: int, orphan_after: float) -> ScriptedProcess:
        if key not in self.processes:
            process = LeasedProcess(key, Path(launch.cwd), self.clock, orphan_after)
            self.processes[key] = process
            self.playing.append(asyncio.create_task(self.scripts.pop(0)(process)))
        return self.processes[key]


async def works_a_week(agent: ScriptedProcess) -> None:
    """Says a word every 12 minutes: an agent that is silent for longer has a deadline of its own."""
    assert isinstance(agent, LeasedProcess)
    await agent.take()
    begun = agent.clock.now()
    while agent.clock.now() < begun + 5 * DAY:
        await agent.clock.sleep(720)
        agent.say(text=".")
    words = await agent.take()
    while agent.clock.now() < begun + 7 * DAY:
        await agent.clock.sleep(720)
        agent.say(text=".")
    await agent.write_file("hello.txt", words["prompt"], commit="Say it")
    agent.say(done="It took a week.")


async def recorded(t: Town, process: LeasedProcess) -> bool:
    """Whether all that the agent has said is, or nobody listens any more."""
    session = await t.store.session_of("slack:T1/C1:t1")
    turn = session and await t.store.open_turn(session.id)
    return not turn or turn.state is not TurnState.RUNNING or turn.out_offset == len(process.out)


async def test_a_turn_of_seven_days_keeps_its_sandbox_its_process_and_its_lease(tmp_path: Path) -> None:
    async with town(tmp_path, [works_a_week], POLICY) as t:
        t.provider.make = lambda root, scripts: TimedSandbox(root, scripts, t.clock)
        await t.say("take your time")
        await t.until(lambda: any(box.processes for box in t.provider.boxes.values()))
        (box,), process = t.provider.boxes.values(), t.box()
        assert isinstance(box, TimedSandbox) and isinstance(process, LeasedProcess)
        begun, told = t.clock.now(), False
        while process.exit_code is None and not t.slack.finals():
            t.clock.advance(STEP)
            # The clock waits for those who act by it; who was not asleep yet sleeps from now on.
            while t.clock.now() - min(box.touched, process.called) > STEP / 2 and process.exit_code is None:
                await asyncio.sleep(0.002)
                t.clock.advance(1)
            # The bot counts an agent's silence from what it has read: it reads before time goes on.
            await t.until(lambda: recorded(t, process))
            if not told and t.clock.now() > begun + 4.5 * DAY:
                told = await t.say("make it blue", by=BEN, addressed=False) == "steered"
        final = await t.after_time()
        assert (final.outcome, final.text) == (Outcome.PUBLISHED, "It took a week.")
        assert await t.forge.file(final.branch, "hello.txt") == "Ben: make it blue"
        assert final.seconds is not None and final.seconds >= 7 * DAY
        assert not box.stopped and await box.state() is SandboxState.RUNNING
        assert t.provider.made == 1 and len(box.processes) == 1, "nothing was started again"
        assert process.longest < IDLE_STOP, "an orphan's lease is never near its end"
        assert (session := await t.store.session_of("slack:T1/C1:t1")) is not None
        assert await t.store.open_turn(session.id) is None


def test_an_agent_without_its_bot_has_a_day() -> None:
    assert Policy().orphan_after >= DAY
    assert SandboxSettings().orphan >= DAY
