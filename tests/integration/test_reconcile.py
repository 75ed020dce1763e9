"""Sandboxes of the provider beside those of the store, and what age does to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bot.core import Policy
from bot.errors import SandboxUnreachable
from bot.models import Identity, Outcome, SandboxState, Verb
from bot.sandboxes import Ages
from bot.sessions import Defaults
from tests.integration.test_sandboxes import Box
from tests.integration.test_turns import is_running, obeys_stop
from tests.town import ANA, BEN, OPEN, Town, town
from tests.world import HostProvider, HostSandbox, ScriptedProcess

TTL = 30 * 86_400.0
POLICY = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN, ages=Ages(1800.0, TTL))


async def answers(agent: ScriptedProcess) -> None:
    await agent.take()
    agent.say(done="that is all")


class Listing(HostProvider):
    """Finds its sandboxes by their labels; `away`: it cannot be asked."""

    away = False

    async def find(self, labels: Mapping[str, str]) -> Sequence[HostSandbox]:
        self._asked()
        return [box for box in self.boxes.values() if labels.items() <= box.labels.items()]

    async def get(self, id: str) -> HostSandbox:
        self._asked()
        return await super().get(id)

    def _asked(self) -> None:
        if self.away:
            raise SandboxUnreachable("the provider does not answer")


def listing(t: Town) -> Listing:
    assert isinstance(t.provider, Listing)
    return t.provider


async def labels(t: Town, who: Identity) -> dict[str, str]:
    return t.core.sandboxes.key(await t.store.person(who)).labels()


async def row_of(t: Town, who: Identity = ANA) -> str | None:
    row = await t.store.sandbox(t.core.sandboxes.key(await t.store.person(who)))
    return None if row is None else row.provider_id


async def test_a_sandbox_that_the_store_does_not_know_is_adopted(tmp_path: Path) -> None:
    async with town(tmp_path, provider=Listing) as t:
        made = await t.provider.create(await labels(t, ANA))
        await t.core.reconcile.run()
        assert await row_of(t) == made.id
        again = await t.core.sandboxes.ready(await t.store.person(ANA))
        assert (again.sandbox.id, again.lost) == (made.id, "")


async def test_a_bot_that_died_over_a_replacement_makes_no_second_one(tmp_path: Path) -> None:
    async with town(tmp_path, provider=Listing) as t:
        ana = await t.store.person(ANA)
        gone = (await t.core.sandboxes.ready(ana)).sandbox
        await gone.delete()
        t.provider.boxes.pop(gone.id, None)
        made = await t.provider.create(
            await labels(t, ANA)
        )  # and the bot was killed before it wrote that down
        again = await t.core.sandboxes.ready(ana)
        assert again.sandbox.id == made.id == await row_of(t) and "no longer exists" in again.lost
        assert list(t.provider.boxes) == [made.id]


async def test_what_is_nobodys_is_listed_once_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with town(tmp_path, provider=Listing) as t:
        mine = await labels(t, ANA)
        strange = [
            await t.provider.create({**mine, "sandpiper.person": "99"}),
            await t.provider.create({**mine, "sandpiper.person": "one"}),
            await t.provider.create({**mine, "sandpiper.tenant": "slack:T2"}),
            await t.provider.create({**mine, "sandpiper.purpose": "another"}),
        ]
        await t.provider.create({**mine, "sandpiper.installation": "another"})
        with caplog.at_level(logging.WARNING, "bot.reconcile"):
            for _ in range(2):
                await t.core.reconcile.run()
        assert len(caplog.records) == len(strange)
        assert [one.id for one in await t.core.reconcile.strangers()] == [one.id for one in strange]
        assert await row_of(t) is None and len(t.provider.boxes) == 5


async def test_a_second_sandbox_of_somebody_is_a_stranger(tmp_path: Path) -> None:
    async with town(tmp_path, provider=Listing) as t:
        first = (await t.core.sandboxes.ready(await t.store.person(ANA))).sandbox
        second = await t.provider.create(await labels(t, ANA))
        await t.core.reconcile.run()
        assert await row_of(t) == first.id
        assert [one.id for one in await t.core.reconcile.strangers()] == [second.id]


async def test_a_sandbox_that_no_longer_exists_is_forgotten_and_only_then(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, answers], provider=Listing) as t:
        await t.say("hello")
        await t.final()
        listing(t).away = True
        t.provider.boxes.clear()
        await t.core.reconcile.run()
        assert await row_of(t) == "box-0", "unreachable is not gone"
        listing(t).away = False
        await t.core.reconcile.run()
        assert await row_of(t) == ""
        await t.say("again")
        await t.final(2)
        assert any("Your earlier sandbox was deleted (its provider" in title for title in titles(t))


async def test_a_key_of_another_account_makes_no_sandbox_gone(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, answers, answers], POLICY, provider=Listing) as t:
        await t.say("hello")
        await t.say("hello", BEN, thread="t2")
        await t.final(2)
        elsewhere, t.provider.boxes = t.provider.boxes, {}
        await t.core.reconcile.run()
        t.clock.advance(TTL + 60)
        await t.core.sandboxes.delete_expired()
        await t.say("again", addressed=False)
        final = await t.after_time(3, step=1.0)
        assert final.outcome is Outcome.FAILED and "None of the 2 sandboxes" in final.reason
        assert "API_KEY" in final.mend and not t.provider.boxes
        t.provider.boxes = elsewhere
        assert [await row_of(t), await row_of(t, BEN)] == list(elsewhere)
        await t.say("again", addressed=False)
        assert (await t.final(4)).text == "that is all"
        assert not any("no longer" in title or "was deleted" in title for title in titles(t))


async def test_when_all_sandboxes_are_gone_a_reset_is_the_way_on(tmp_path: Path) -> None:
    async with town(tmp_path, provider=Listing) as t:
        sandboxes = t.core.sandboxes
        ana, ben = await t.store.person(ANA), await t.store.person(BEN)
        for owner in (ana, ben):
            await sandboxes.ready(owner)
        t.provider.boxes.clear()
        with pytest.raises(SandboxUnreachable):
            await sandboxes.ready(ana)
        row = await t.store.sandbox(sandboxes.key(ana))
        assert row is not None
        await sandboxes.delete(row, "its owner deleted it", "Ana")
        assert "was deleted" in (await sandboxes.ready(ana)).lost
        assert "no longer exists" in (await sandboxes.ready(ben)).lost


def titles(t: Town) -> list[str]:
    return [row.title for picture in t.slack.pictures for row in picture.rows]


async def test_reconciling_never_touches_a_sandbox_with_an_open_turn(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop], provider=Listing) as t:
        await t.say("add it")
        await t.until(lambda: is_running(t))
        await t.core.reconcile.run()
        box = t.provider.boxes.pop("box-0")  # its provider says so, and the turn will find out
        await t.core.reconcile.run()
        assert await row_of(t) == "box-0"
        t.provider.boxes["box-0"] = box
        await t.say("", verb=Verb.STOP)
        await t.final()


async def test_how_a_sandbox_is_is_noted(tmp_path: Path) -> None:
    async with town(tmp_path, provider=Listing) as t:
        t.provider.make = Box
        box = (await t.core.sandboxes.ready(await t.store.person(ANA))).sandbox
        await box.stop()  # not by us
        await t.core.reconcile.run()
        row = await t.store.sandbox(t.core.sandboxes.key(await t.store.person(ANA)))
        assert row is not None and row.state is SandboxState.STOPPED


async def test_one_that_nobody_has_written_down_runs_only_when_it_was_started(tmp_path: Path) -> None:
    async with town(tmp_path, provider=Listing) as t:
        t.provider.make = Box
        box = await t.provider.create(await labels(t, ANA))
        assert isinstance(box, Box)
        box.now, box.stays_down = SandboxState.STOPPED, True
        with pytest.raises(SandboxUnreachable):
            await t.core.sandboxes.ready(await t.store.person(ANA))
        assert not await t.core.sandboxes.rows()
        box.stays_down = False
        assert (await t.core.sandboxes.ready(await t.store.person(ANA))).sandbox is box
        (row,) = await t.core.sandboxes.rows()
        assert row.state is box.now is SandboxState.RUNNING


async def test_whatever_one_sandbox_fails_with_the_others_are_looked_at(tmp_path: Path) -> None:
    class Odd(Listing):
        odd = ""

        async def get(self, id: str) -> HostSandbox:
            if id == self.odd:
                raise KeyError("an answer that nobody has words for")
            return await super().get(id)

    async with town(tmp_path, provider=Odd) as t:
        t.provider.make = Box
        first, second = [
            (await t.core.sandboxes.ready(await t.store.person(who))).sandbox for who in (ANA, BEN)
        ]
        assert isinstance(t.provider, Odd)
        t.provider.odd = first.id
        await second.stop()
        await t.core.reconcile.run()
        row = await t.store.sandbox(t.core.sandboxes.key(await t.store.person(BEN)))
        assert row is not None and row.state is SandboxState.STOPPED


async def test_a_sandbox_that_nobody_uses_for_its_time_to_live_is_deleted(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, answers], POLICY, provider=Listing) as t:
        await t.say("hello")
        await t.final()
        t.clock.advance(TTL - 60)
        await t.core.sandboxes.delete_expired()
        assert list(t.provider.boxes) == ["box-0"]
        t.clock.advance(120)
        await t.core.sandboxes.delete_expired()
        assert not t.provider.boxes
        assert (await t.store.session_of("slack:T1/C1:t1")).memory.token == ""  # type: ignore[union-attr]
        await t.say("again")
        await t.final(2)
        assert any("(nobody had used it for 30 days)" in title for title in titles(t))


async def test_no_age_ends_a_sandbox_with_an_open_turn(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop], POLICY, provider=Listing) as t:
        await t.say("add it")
        await t.until(lambda: is_running(t))
        t.clock.advance(10 * TTL)
        await t.core.sandboxes.delete_expired()
        await t.core.sandboxes.stop_idle()
        assert list(t.provider.boxes) == ["box-0"]
        await t.say("", verb=Verb.STOP)
        await t.after_time(step=1)  # who was at a step of its own when the clock jumped waits a moment


async def test_a_turn_that_takes_a_sandbox_while_others_are_deleted_keeps_it(tmp_path: Path) -> None:
    async with town(tmp_path, policy=POLICY, provider=Listing) as t:
        ana, ben = [await t.store.person(who) for who in (ANA, BEN)]
        first = (await t.core.sandboxes.ready(ana)).sandbox
        second = (await t.core.sandboxes.ready(ben)).sandbox
        assert isinstance(first, HostSandbox)
        t.clock.advance(TTL + 1)
        expired = await t.store.expired_sandboxes(t.clock.now() - TTL)
        assert [row.provider_id for row in expired] == [first.id, second.id]
        async with t.core.sandboxes.alone(t.core.sandboxes.key(ana)):
            deleting = asyncio.create_task(t.core.sandboxes.delete_expired())
            await t.core.sandboxes.ready(ben)
        await deleting
        assert list(t.provider.boxes) == [second.id]


async def test_without_a_time_to_live_nothing_is_deleted(tmp_path: Path) -> None:
    async with town(tmp_path, policy=replace(POLICY, ages=Ages(1800.0)), provider=Listing) as t:
        await t.core.sandboxes.ready(await t.store.person(ANA))
        t.clock.advance(100 * TTL)
        await t.core.sandboxes.delete_expired()
        assert list(t.provider.boxes) == ["box-0"]
