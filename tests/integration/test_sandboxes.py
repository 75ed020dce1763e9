"""Sandboxes over a real store: who is stopped when idle, and what is told when one is gone."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bot.core import Policy
from bot.errors import LeaseLost, ProviderAway, SandboxError, SandboxUnreachable
from bot.models import Identity, Outcome, Person, SandboxKey, SandboxState, Session, ThreadKey, Verb
from bot.reconcile import Reconcile
from bot.sandbox_holds import HOLD
from bot.sandboxes import Ages, Sandboxes
from bot.sessions import Defaults
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.fakes import FakeClock
from tests.integration.test_turns import is_running, obeys_stop, writes_a_file
from tests.integration.test_workspace import answers
from tests.moody import moody
from tests.town import OPEN, town
from tests.world import HostProvider, HostSandbox, ScriptedProcess

ANA = Identity("slack", "slack:T1", "U_ANA", "Ana")
BEN = Identity("slack", "slack:T1", "U_BEN", "Ben")
IDLE = 1800.0
BUSY = 86400.0


class Box(HostSandbox):
    """A sandbox that can really be stopped; a stop waits for `gate` where there is one."""

    now = SandboxState.RUNNING
    gate: asyncio.Event | None = None
    late: asyncio.Event | None = None  # the next word of its state comes as late as that
    stays_down = False
    broken = False  # in a way that no provider has words for
    stopping = 0
    full = False  # the disk beside it, at the next touch
    refused = 0.0
    busy = 0.0  # seconds before which its provider wants no further call, at the next touch

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.touched: list[float] = []
        self.troubles: list[SandboxError] = []  # of who enters it

    async def touch(self, idle_stop: float) -> None:
        if self.full:
            self.full = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.busy:
            self.refused, self.busy = self.busy, 0.0
            raise SandboxUnreachable("too many calls", retry_after=self.refused)
        self.touched.append(idle_stop)

    async def enter(self) -> None:
        if self.troubles:
            raise self.troubles.pop(0)

    async def state(self) -> SandboxState:
        now = self.now
        if self.late is not None:
            late, self.late = self.late, None
            await late.wait()
        return now

    async def start(self) -> None:
        if self.stays_down:
            raise SandboxUnreachable("It does not come up.")
        self.now = SandboxState.RUNNING

    async def stop(self) -> None:
        self.stopping += 1
        self._try()
        if self.gate is not None:
            await self.gate.wait()
        self.now = SandboxState.STOPPED

    async def delete(self) -> None:
        self._try()
        await super().delete()

    def _try(self) -> None:
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class Boxes(HostProvider):
    creating = 0
    asked = 0

    async def get(self, id: str) -> HostSandbox:
        self.asked += 1
        return await super().get(id)

    async def create(self, labels: Mapping[str, str]) -> HostSandbox:
        self.creating += 1
        made = await super().create(labels)
        box = self.boxes[made.id] = Box(Path(made.home).parent, [])
        return box


class House:
    def __init__(self, store: SqliteStore, clock: FakeClock, provider: Boxes) -> None:
        self.store = store
        self.clock = clock
        self.provider = provider
        self.moods, seen = moody(store)
        self.sandboxes = Sandboxes(seen, provider, clock, "here", Ages(IDLE, busy_stop=BUSY))

    async def person(self, who: Identity) -> Person:
        return await self.store.person(who)

    def session(self, owner: Person) -> Session:
        return Session("s1", owner.tenant, owner, ThreadKey("slack", "T1/C1", "t1"), None, "agent", "", "")

    async def box(self, who: Identity) -> Box:
        box = (await self.sandboxes.ready(await self.person(who))).sandbox
        assert isinstance(box, Box)
        return box

    async def used_now(self, who: Identity) -> bool:
        row = await self.store.sandbox(self.sandboxes.key(await self.person(who)))
        return row is not None and row.last_used == self.clock.now()

    def another_bot(self) -> Sandboxes:
        return Sandboxes(self.store, self.provider, self.clock, "here", Ages(IDLE, busy_stop=BUSY))

    async def until_held(self, times: int) -> None:
        await self.until(lambda: self.moods.done["hold_sandbox"] == times)

    async def until_done(self, *tasks: asyncio.Task[Any]) -> None:
        async def done() -> bool:
            self.clock.advance(1)
            return all(task.done() for task in tasks)

        await self.until(done)

    async def until(self, true: Callable[[], Awaitable[bool] | bool]) -> None:
        async with asyncio.timeout(20):
            while True:
                answer = true()
                if await answer if isinstance(answer, Awaitable) else answer:
                    return
                await asyncio.sleep(0.002)


@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = FakeClock()
    store = await SqliteStore.open(tmp_path / "data", clock, QueueDispatcher())
    provider = Boxes(tmp_path / "boxes")
    try:
        yield House(store, clock, provider)
    finally:
        await provider.close()
        await store.close()


async def test_a_sandbox_that_nobody_uses_is_stopped(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        box = await it.box(ANA)
        it.clock.advance(IDLE - 1)
        await it.sandboxes.stop_idle()
        assert box.stopping == 0
        it.clock.advance(2)
        await it.sandboxes.stop_idle()
        assert box.now is SandboxState.STOPPED


async def test_a_sandbox_that_was_started_without_a_turn_runs_for_the_idle_time(tmp_path: Path) -> None:
    """By an operator, or to see what a reset would cost."""
    async with house(tmp_path) as it:
        box = await it.box(ANA)
        it.clock.advance(IDLE + 1)
        await it.sandboxes.stop_idle()
        (row,) = await it.sandboxes.rows()
        await it.sandboxes.start(row)
        it.clock.advance(IDLE - 1)
        await it.sandboxes.stop_idle()
        assert box.now is SandboxState.RUNNING
        it.clock.advance(2)
        await it.sandboxes.stop_idle()
        assert box.stopping == 2


async def test_a_provider_is_not_asked_about_what_is_stopped(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        boxes = [await it.box(ANA), await it.box(BEN)]
        it.clock.advance(IDLE + 1)
        await it.sandboxes.stop_idle()
        assert [box.now for box in boxes] == [SandboxState.STOPPED] * 2
        asked = it.provider.asked
        it.clock.advance(60)
        await it.sandboxes.stop_idle()
        assert it.provider.asked == asked
        assert await it.box(ANA) is boxes[0]
        it.clock.advance(IDLE + 1)
        await it.sandboxes.stop_idle()
        assert [box.stopping for box in boxes] == [2, 1]


async def test_whatever_one_idle_sandbox_fails_with_the_next_one_is_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as it:
        broken, other = await it.box(ANA), await it.box(BEN)
        broken.broken = True
        it.clock.advance(IDLE + 1)
        await it.sandboxes.stop_idle()
        assert (broken.now, other.now) == (SandboxState.RUNNING, SandboxState.STOPPED)
        assert "could not stop idle sandbox" in caplog.text


async def test_whatever_one_expired_sandbox_fails_with_the_next_one_is_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path) as it:
        sandboxes = Sandboxes(it.store, it.provider, it.clock, "here", Ages(IDLE, ttl=10 * IDLE))
        (await it.box(ANA)).broken = True
        await it.box(BEN)
        it.clock.advance(10 * IDLE + 1)
        await sandboxes.delete_expired()
        rows = [await it.store.sandbox(it.sandboxes.key(await it.person(who))) for who in (ANA, BEN)]
        assert [row.provider_id for row in rows if row] == ["box-0", ""]
        assert "could not delete expired sandbox" in caplog.text


async def test_a_sandbox_taken_while_others_are_being_stopped_is_left_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        slow, taken = await it.box(ANA), await it.box(BEN)
        slow.gate = asyncio.Event()
        it.clock.advance(IDLE + 1)
        stopping = asyncio.create_task(it.sandboxes.stop_idle())
        await it.until(lambda: slow.stopping == 1)
        assert await it.box(BEN) is taken
        slow.gate.set()
        await stopping
        assert (slow.now, taken.now) == (SandboxState.STOPPED, SandboxState.RUNNING)


async def test_a_sandbox_taken_while_it_is_being_stopped_is_started_again(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        box = await it.box(ANA)
        box.gate = asyncio.Event()
        it.clock.advance(IDLE + 1)
        stopping = asyncio.create_task(it.sandboxes.stop_idle())
        await it.until(lambda: box.stopping == 1)
        taking = asyncio.create_task(it.box(ANA))
        box.gate.set()
        await stopping
        assert await taking is box and box.now is SandboxState.RUNNING


async def test_two_bots_make_one_sandbox_for_one_person(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        other = it.another_bot()
        ana = await it.person(ANA)
        it.provider.stuck = asyncio.Event()
        first = asyncio.create_task(it.sandboxes.ready(ana))
        await it.until(lambda: it.provider.creating == 1)
        both = [first, asyncio.create_task(other.ready(ana))]
        for renewed in range(2, 8):  # who makes it holds it for longer than was asked for at first
            it.clock.advance(HOLD / 3)
            await it.until_held(renewed)
        it.provider.stuck.set()
        await it.until_done(*both)
        assert it.provider.made == it.provider.creating == 1
        assert len({(await ready).sandbox.id for ready in both}) == 1


async def test_a_bot_that_died_while_it_made_a_sandbox_stands_in_the_way_for_a_while(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        ana = await it.person(ANA)
        assert await it.store.hold_sandbox(it.sandboxes.key(ana), "a bot that was killed", HOLD)
        taking = asyncio.create_task(it.sandboxes.ready(ana))
        before = it.clock.now()
        await it.until_done(taking)
        assert it.provider.made == 1 and it.clock.now() - before >= HOLD


async def test_a_store_that_fails_keeps_nobody_out_of_a_sandbox_for_good(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        it.moods.away = {"release_sandbox"}
        box = await it.box(ANA)
        assert it.moods.turned_away == ["release_sandbox"]
        it.moods.away = set()
        taking = asyncio.create_task(it.another_bot().ready(await it.person(ANA)))
        await it.until_done(taking)
        assert (await taking).sandbox is box


async def test_a_sandbox_counts_as_used_as_long_as_it_is_kept_alive(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        box = await it.box(ANA)
        it.moods.away = {"touch_sandbox"}
        alive = asyncio.create_task(it.sandboxes.keep_alive(await it.person(ANA), box))
        await it.until(lambda: bool(it.moods.turned_away))
        it.moods.away = set()
        it.clock.advance(IDLE + 1)
        await it.until(lambda: it.used_now(ANA))
        alive.cancel()
        await it.sandboxes.stop_idle()
        assert box.now is SandboxState.RUNNING


async def test_a_provider_that_is_busy_hears_of_use_no_sooner_than_it_wants(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        box, ana = await it.box(ANA), await it.person(ANA)
        assert isinstance(box, Box)
        box.busy = 300.0
        alive = asyncio.create_task(it.sandboxes.keep_alive(ana, box))
        await it.until(lambda: box.refused == 300.0)
        it.clock.advance(299.0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not box.touched
        it.clock.advance(1.0)
        await it.until(lambda: bool(box.touched))
        alive.cancel()


async def test_a_provider_is_told_to_be_patient_as_long_as_a_turn_runs(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        box, ana = await it.box(ANA), await it.person(ANA)
        async with it.sandboxes.in_use(it.session(ana), box):
            await it.until(lambda: box.touched == [BUSY])
        assert box.touched == [BUSY, IDLE]
        with pytest.raises(SandboxError):
            async with it.sandboxes.in_use(it.session(ana), box):
                raise SandboxError("the turn ends badly")
        assert box.touched[-1] == IDLE


async def test_a_provider_stays_patient_until_the_last_of_a_persons_turns_has_ended(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        box, ana = await it.box(ANA), await it.person(ANA)
        async with it.sandboxes.in_use(it.session(ana), box):
            async with it.sandboxes.in_use(it.session(ana), box):
                await it.until(lambda: box.touched == [BUSY, BUSY])
            assert box.touched == [BUSY, BUSY]
        assert box.touched == [BUSY, BUSY, IDLE]


async def test_a_disk_that_is_full_for_a_while_does_not_end_what_keeps_a_sandbox_alive(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as it:
        box, ana = await it.box(ANA), await it.person(ANA)
        box.full = True
        async with it.sandboxes.in_use(it.session(ana), box):
            await it.until(lambda: not box.full)
            it.clock.advance(60)
            await it.until(lambda: box.touched == [BUSY])


async def test_a_provider_stays_patient_when_another_turn_of_its_owner_runs(tmp_path: Path) -> None:
    """Were the bot to die just then, the other turn's box would end under it."""

    async def answers(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(done="Here.")

    ages = Ages(IDLE, busy_stop=BUSY)
    policy = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN, ages=ages)
    async with town(tmp_path, [obeys_stop, answers], policy) as t:
        t.provider.make = Box
        await t.say("add it")
        await t.until(lambda: is_running(t))
        await t.say("and you?", thread="t2")
        assert (await t.final()).text == "Here."
        (box,) = t.provider.boxes.values()
        assert isinstance(box, Box) and BUSY in box.touched and IDLE not in box.touched
        await t.say("", verb=Verb.STOP)
        await t.final(2)
        assert box.touched[-1] == IDLE


async def test_a_provider_stays_patient_with_what_is_pinned(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        box, ana = await it.box(ANA), await it.person(ANA)
        row = await it.store.sandbox(it.sandboxes.key(ana))
        assert row is not None
        await it.store.pin_sandbox(row.id, True)
        async with it.sandboxes.in_use(it.session(ana), box):
            await it.until(lambda: box.touched == [BUSY])
        assert box.touched == [BUSY]
        it.clock.advance(BUSY)
        reconcile = Reconcile(it.store, it.sandboxes)
        await reconcile.run()
        assert box.touched == [BUSY, BUSY], "nobody else would tell it again"
        await it.store.pin_sandbox(row.id, False)
        await box.stop()
        await reconcile.run()
        assert box.touched == [BUSY, BUSY]


async def test_a_provider_stays_patient_when_the_bot_ends_in_mid_turn(tmp_path: Path) -> None:
    """The agent works on, and the next bot finds it."""
    async with house(tmp_path) as it:
        box, ana = await it.box(ANA), await it.person(ANA)

        async def turn() -> None:
            async with it.sandboxes.in_use(it.session(ana), box):
                await asyncio.Event().wait()

        running = asyncio.create_task(turn())
        await it.until(lambda: box.touched == [BUSY])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        with pytest.raises(LeaseLost):
            async with it.sandboxes.in_use(it.session(ana), box):
                raise LeaseLost("another has it")
        assert IDLE not in box.touched


async def test_publishing_what_was_lost_with_its_sandbox_says_so(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop]) as t:
        await t.say("add it")
        await t.until(lambda: is_running(t))
        await t.until(lambda: (t.box().cwd / "rest.txt").exists())
        await t.say("", verb=Verb.STOP)
        assert (await t.final()).outcome is Outcome.STOPPED
        t.provider.boxes.clear()
        await t.say("", verb=Verb.PUBLISH)
        final = await t.final(2)
        assert final.outcome is Outcome.UNPUBLISHED and "no longer exists" in final.reason
        await t.until(lambda: any("is lost" in note for note in t.slack.notes()))


async def test_a_sandbox_on_a_disk_that_is_away_is_not_replaced(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        it.provider.host = "disk-1"
        box = await it.box(ANA)
        it.provider.host = "disk-2"  # the bot came back with an empty directory in its place
        with pytest.raises(SandboxUnreachable, match=r"another disk or machine \(disk-1\)"):
            await it.box(ANA)
        assert list(it.provider.boxes) == [box.id]
        it.provider.host = "disk-1"
        assert await it.box(ANA) is box


async def test_a_turn_whose_sandbox_is_on_a_disk_that_is_away_says_so(tmp_path: Path) -> None:
    async def answers(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(done="Here.")

    async with town(tmp_path, [answers, answers]) as t:
        t.provider.host = "disk-1"
        await t.say("one")
        await t.final()
        t.provider.host = "disk-2"
        await t.say("two", addressed=False)
        final = await t.final(2)
        assert final.outcome is Outcome.FAILED and "another disk or machine (disk-1)" in final.reason
        assert "sandbox reset" in final.mend
        t.provider.host = "disk-1"
        await t.say("three", addressed=False)
        assert (await t.final(3)).text == "Here."
        assert len(t.provider.boxes) == 1


class Away(HostProvider):
    """A provider that is down until a time of the clock; asked at `asked`."""

    clock: FakeClock
    until = 0.0
    asked: list[float]

    async def create(self, labels: Mapping[str, str]) -> HostSandbox:
        self.asked = [*getattr(self, "asked", []), self.clock.now()]
        if self.clock.now() < self.until:
            raise ProviderAway("The cloud answers 503 just now: maintenance.", retry_after=45.0)
        return await super().create(labels)


async def test_a_provider_that_is_down_for_an_hour_ends_the_turn_in_its_words(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file], provider=Away) as t:
        assert isinstance(t.provider, Away)
        t.provider.clock, t.provider.until = t.clock, t.clock.now() + 3600.0
        began = t.clock.now()
        await t.say("add hello")
        final = await t.after_time(step=5.0)
        assert final.outcome is Outcome.FAILED
        assert "The cloud answers 503 just now: maintenance." in final.reason
        assert "Write here to try it again." in final.mend
        assert 300 < t.clock.now() - began < 700
        gaps = [after - before for before, after in itertools.pairwise(t.provider.asked)]
        assert min(gaps) >= 45.0
        assert not t.provider.boxes
        t.clock.advance(3600.0)
        await t.say("again, please")
        assert (await t.final(2)).outcome is Outcome.PUBLISHED


async def test_a_provider_that_comes_back_in_time_is_waited_for(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file], provider=Away) as t:
        assert isinstance(t.provider, Away)
        t.provider.clock, t.provider.until = t.clock, t.clock.now() + 240.0
        await t.say("add hello")
        assert (await t.after_time(step=5.0)).outcome is Outcome.PUBLISHED
        told = [row.title for row in t.slack.pictures[-1].rows if "I keep trying" in row.title]
        assert told == ["The cloud answers 503 just now: maintenance. I keep trying."]


async def test_after_a_change_of_provider_the_old_sandbox_is_said_to_be_there_still(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, answers, answers]) as t:
        await t.say("one")
        await t.final()
        session = await t.store.session_of(str(ThreadKey("slack", "T1/C1", "t1")))
        assert session is not None
        before = SandboxKey("sandpiper", session.tenant, session.owner.id, "daytona")
        await t.store.save_sandbox(before, "box-far", "")
        await t.store.opened_in(session.id, "box-far")
        await t.say("two", addressed=False)
        await t.final(2)
        told = [row.title for row in t.slack.pictures[-1].rows if "worked in" in row.title]
        assert len(told) == 1 and "still in `box-far`" in told[0] and "lost" not in told[0]
        assert "SANDPIPER_SANDBOX_PROVIDER=daytona" in told[0]
        await t.say("three", addressed=False)
        await t.final(3)
        assert not [row for row in t.slack.pictures[-1].rows if "worked in" in row.title]
