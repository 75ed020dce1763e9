"""How many sandboxes of a tenant run at once: idle ones make room, and who finds none waits in line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from bot.core import Policy
from bot.errors import SandboxError, SandboxUnreachable
from bot.models import Caps, Identity, Outcome, SandboxState, Verb
from bot.sessions import Defaults
from tests.integration.test_reconcile import Listing, answers
from tests.integration.test_sandboxes import Box
from tests.integration.test_turns import is_running, obeys_stop, writes_a_file
from tests.town import ANA, BEN, OPEN, Town, town
from tests.world import HostSandbox

POLICY = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN, caps=Caps(sandboxes=1))
TWO = replace(POLICY, caps=Caps(sandboxes=2))
CAT = Identity("slack", "slack:T1", "U_CAT", "Cat")
OUTSIDE = Identity("slack", "slack:T2", "U_OUT", "Otto")


class Stoppable(Listing):
    """Its boxes can really be stopped; it knows how many have run at once."""

    most_running = 0

    async def create(self, labels: Mapping[str, str]) -> HostSandbox:
        self.make = _Counted
        made = await super().create(labels)
        assert isinstance(made, _Counted)
        made.provider = self
        self.count()
        return made

    def running(self) -> list[str]:
        return [id for id, box in self.boxes.items() if isinstance(box, Box) and box.now is RUNNING]

    def count(self) -> None:
        self.most_running = max(self.most_running, len(self.running()))


RUNNING = SandboxState.RUNNING


class _Counted(Box):
    provider: Stoppable
    stuck = False

    async def start(self) -> None:
        await super().start()
        self.provider.count()

    async def stop(self) -> None:
        if self.stuck:
            raise SandboxUnreachable("it does not answer")
        await super().stop()


def boxes(t: Town) -> Stoppable:
    assert isinstance(t.provider, Stoppable)
    return t.provider


async def box_of(t: Town, who: Identity) -> _Counted:
    sandbox = (await t.core.sandboxes.ready(await t.store.person(who))).sandbox
    assert isinstance(sandbox, _Counted)
    return sandbox


async def test_whoever_is_beyond_the_cap_waits_is_told_and_goes_on(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop, writes_a_file], POLICY, provider=Stoppable) as t:
        await t.say("one", by=ANA, thread="a")
        await t.until(lambda: is_running(t, "a"))
        await t.say("two", by=BEN, thread="b")
        await t.until(lambda: any("as many sandboxes run here" in p.headline for p in t.slack.pictures))
        assert len(t.provider.boxes) == 1
        await t.say("", by=ANA, thread="a", verb=Verb.STOP)
        await t.until(lambda: len(t.slack.finals()) == 2)
        ended = {item.saying.thread.id: item.saying.final for item in t.slack.finals()}
        assert ended["b"] is not None and ended["b"].outcome is Outcome.PUBLISHED
        assert boxes(t).running() == ["box-1"], "the first one is idle, and made room"
        assert boxes(t).most_running == 1


async def test_stop_reaches_who_waits_for_a_sandbox(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop], POLICY, provider=Stoppable) as t:
        await t.say("one", by=ANA, thread="a")
        await t.until(lambda: is_running(t, "a"))
        await t.say("two", by=BEN, thread="b")
        await t.say("", by=BEN, thread="b", verb=Verb.STOP)
        assert (await t.final()).outcome is Outcome.STOPPED
        assert await is_running(t, "a")
        await t.say("", by=ANA, thread="a", verb=Verb.STOP)
        await t.final(2)


async def test_the_one_that_was_not_used_for_longest_makes_room_and_a_pinned_one_last(tmp_path: Path) -> None:
    async with town(tmp_path, policy=TWO, provider=Stoppable) as t:
        pinned = await box_of(t, ANA)
        t.clock.advance(10)
        await t.store.pin_sandbox((await t.core.sandboxes.rows())[0].id, True)
        t.clock.advance(10)
        second = await box_of(t, BEN)
        t.clock.advance(10)
        third = await box_of(t, CAT)
        assert boxes(t).running() == [pinned.id, third.id]
        t.clock.advance(10)
        assert (await box_of(t, BEN)) is second
        assert boxes(t).running() == [pinned.id, second.id]
        assert boxes(t).most_running == 2


async def test_a_pinned_sandbox_does_not_lock_the_others_out(tmp_path: Path) -> None:
    async with town(tmp_path, [answers], POLICY, provider=Stoppable) as t:
        await box_of(t, ANA)
        await t.store.pin_sandbox((await t.core.sandboxes.rows())[0].id, True)
        await t.say("hello", by=BEN)
        assert (await t.final()).text == "that is all"
        assert boxes(t).running() == ["box-1"]


async def test_no_room_is_made_of_a_sandbox_with_an_open_turn(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop], POLICY, provider=Stoppable) as t:
        await t.say("one", by=ANA, thread="a")
        await t.until(lambda: is_running(t, "a"))
        other = await t.provider.create(t.core.sandboxes.key(await t.store.person(BEN)).labels())
        await other.stop()
        await t.core.reconcile.run()
        row = next(row for row in await t.core.sandboxes.rows() if row.provider_id == other.id)
        for act in (t.core.sandboxes.start, t.core.sandboxes.restart):
            with pytest.raises(SandboxError, match="all of them are at work"):
                await act(row)
        assert boxes(t).running() == ["box-0"]
        await t.say("", by=ANA, thread="a", verb=Verb.STOP)
        await t.final()
        await t.core.sandboxes.start(row)
        assert boxes(t).running() == [other.id]


async def test_many_at_once_never_run_more_than_may_and_none_waits_for_ever(tmp_path: Path) -> None:
    people = [Identity("slack", "slack:T1", f"U_{number}", f"P{number}") for number in range(6)]
    policy = replace(TWO, allowlist=replace(OPEN, people=("*",)))
    async with town(tmp_path, [answers] * 12, policy, provider=Stoppable) as t:
        for round in range(2):
            for number, who in enumerate(people):
                await t.say("hello", by=who, thread=f"{round}-{number}")
        await t.until(lambda: len(t.slack.finals()) == 12)
        assert {item.saying.final and item.saying.final.text for item in t.slack.finals()} == {"that is all"}
        assert boxes(t).most_running == 2


async def test_tenants_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with town(tmp_path, policy=POLICY, provider=Stoppable) as t:
        await box_of(t, ANA)
        await box_of(t, OUTSIDE)
        assert len(boxes(t).running()) == 2


async def test_one_that_cannot_be_stopped_holds_nobody_up(tmp_path: Path) -> None:
    async with town(tmp_path, policy=POLICY, provider=Stoppable) as t:
        stuck = await box_of(t, ANA)
        stuck.stuck = True
        await asyncio.wait_for(box_of(t, BEN), 20)
        stuck.stuck = False
        await box_of(t, BEN)
        assert boxes(t).running() == ["box-1"]


async def test_a_sandbox_that_runs_is_had_while_room_is_made_for_another(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop, answers], TWO, provider=Stoppable) as t:
        await t.say("one", by=ANA, thread="a")
        await t.until(lambda: is_running(t, "a"))
        idle = await box_of(t, BEN)
        idle.gate = asyncio.Event()
        comes = asyncio.create_task(box_of(t, CAT))
        await t.until(lambda: idle.stopping == 1)
        await t.say("two", by=ANA, thread="c")
        assert (await t.final()).text == "that is all"
        assert not comes.done()
        idle.gate.set()
        await comes
        assert boxes(t).most_running == 2
        await t.say("", by=ANA, thread="a", verb=Verb.STOP)
        await t.final(2)


async def test_a_sandbox_that_is_just_being_stopped_has_to_find_room_again(tmp_path: Path) -> None:
    async with town(tmp_path, policy=TWO, provider=Stoppable) as t:
        longest = await box_of(t, ANA)
        t.clock.advance(10)
        await box_of(t, CAT)
        longest.gate = asyncio.Event()
        comes = asyncio.create_task(box_of(t, BEN))
        await t.until(lambda: longest.stopping == 1)
        again = asyncio.create_task(box_of(t, ANA))
        longest.gate.set()
        bens, anas = await asyncio.gather(comes, again)
        assert set(boxes(t).running()) == {bens.id, anas.id}
        assert boxes(t).most_running == 2
