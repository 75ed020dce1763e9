"""People who leave, and tenants that do: whose turns end, and what becomes of their sandboxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bot.core import Policy
from bot.departures import Departures
from bot.models import Identity, Outcome, Standing, Verb
from bot.sandboxes import Ages
from bot.sessions import Defaults
from tests.integration.test_reconcile import Listing, answers, row_of
from tests.integration.test_several_repositories import API
from tests.integration.test_turns import is_running, obeys_stop
from tests.town import ANA, BEN, OPEN, Town, town

RETENTION = 30 * 86_400.0
POLICY = Policy(
    defaults=Defaults("acme/web", "lines"), allowlist=OPEN, ages=Ages(1800.0, retention=RETENTION)
)
WHY = "the account of this session's owner is deactivated"
GONE = Standing(ANA.tenant, ANA.user, why=WHY)
BACK = Standing(ANA.tenant, ANA.user)
REMOVED = Standing(ANA.tenant, why="the app was removed from this Slack workspace")


async def worked(t: Town, *people: Identity) -> None:
    """Everybody has a sandbox."""
    for number, who in enumerate(people, 1):
        await t.say("hello", by=who, thread=f"of {who.user}")
        await t.final(number)


async def test_the_turns_of_somebody_who_leaves_are_stopped_and_their_threads_told_why(
    tmp_path: Path,
) -> None:
    async with town(tmp_path, [obeys_stop, obeys_stop], POLICY) as t:
        await t.say("one", by=ANA, thread="a")
        await t.say("two", by=BEN, thread="b")
        await t.until(lambda: is_running(t, "a"))
        await t.until(lambda: is_running(t, "b"))
        assert await t.core.departures.note([GONE]) == "noted, 1 turns stopped"
        final = await t.final()
        assert final.outcome is Outcome.STOPPED and WHY in final.reason
        assert t.slack.finals()[0].saying.thread.id == "a" and await is_running(t, "b")
        assert await t.core.departures.note([GONE]) == "noted, 0 turns stopped"
        await t.say("", by=BEN, thread="b", verb=Verb.STOP)
        await t.final(2)


async def test_a_workspace_that_removes_the_app_stops_all_that_runs_there(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop, obeys_stop], POLICY) as t:
        await t.say("one", by=ANA, thread="a")
        await t.say("two", by=BEN, thread="b")
        await t.until(lambda: is_running(t, "a"))
        await t.until(lambda: is_running(t, "b"))
        assert await t.core.departures.note([REMOVED]) == "noted, 2 turns stopped"
        for number in (1, 2):
            assert "removed from this Slack workspace" in (await t.final(number)).reason


async def test_a_repository_that_is_taken_away_ends_the_work_on_it_wherever_it_was_asked_for(
    tmp_path: Path,
) -> None:
    async with town(tmp_path, [obeys_stop], POLICY) as t:
        await t.say("one", thread="a")
        await t.until(lambda: is_running(t, "a"))
        session = await t.store.session_of("slack:T1/C1:a")
        assert session is not None and session.repository is not None
        other = Standing(repository=session.repository.id + 1, why="withdrawn")
        assert await t.core.departures.note([other]) == "noted, 0 turns stopped"
        whole = Standing("github:7", installation=session.repository.installation, why="uninstalled")
        assert await t.core.departures.note([whole]) == "noted, 1 turns stopped"
        assert "uninstalled" in (await t.final()).reason


async def test_one_repository_of_several_that_is_taken_away_ends_the_work_too(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop], POLICY) as t:
        await t.forge.add(replace(API, installation=12))
        await t.say("one", thread="a", options={"repo": "acme/web,acme/api"})
        await t.until(lambda: is_running(t, "a"))
        assert await t.core.departures.note([Standing(repository=API.id, why="withdrawn")]) == (
            "noted, 1 turns stopped"
        )
        assert "withdrawn" in (await t.final()).reason


async def test_the_sandbox_of_somebody_who_left_is_deleted_after_the_retention(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, answers], POLICY, provider=Listing) as t:
        await worked(t, ANA, BEN)
        row = await t.store.sandbox(t.core.sandboxes.key(await t.store.person(ANA)))
        assert row is not None
        await t.store.pin_sandbox(row.id, True)
        t.slack.gone.add(ANA.user)
        await t.core.departures.note([GONE])
        t.clock.advance(RETENTION - 60)
        await t.core.departures.note([GONE])  # told again, it does not begin anew
        await t.core.departures.delete_due()
        assert await row_of(t, ANA) == "box-0"
        t.clock.advance(120)
        await t.core.departures.delete_due()
        assert (await row_of(t, ANA), await row_of(t, BEN)) == ("", "box-1")
        assert list(t.provider.boxes) == ["box-1"]


async def test_who_comes_back_keeps_their_sandbox_also_when_nobody_told_us(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, answers], POLICY, provider=Listing) as t:
        await worked(t, ANA, BEN)
        await t.core.departures.note([GONE, replace(GONE, account=BEN.user)])
        await t.core.departures.note([BACK])
        t.clock.advance(2 * RETENTION)
        await t.core.departures.delete_due()  # of Ben the surface is asked
        assert (await row_of(t, ANA), await row_of(t, BEN)) == ("box-0", "box-1")
        assert not await t.store.departed_sandboxes(t.clock.now() + 1)


async def test_as_long_as_it_cannot_be_asked_nothing_is_deleted(tmp_path: Path) -> None:
    async with town(tmp_path, [answers], POLICY, provider=Listing) as t:
        await worked(t, ANA)
        t.slack.gone.add(ANA.user)
        await t.core.departures.note([GONE])
        t.clock.advance(2 * RETENTION)
        t.slack.busy = 1
        await t.core.departures.delete_due()
        assert await row_of(t, ANA) == "box-0"
        await t.core.departures.delete_due()
        assert await row_of(t, ANA) == ""


async def test_where_its_surface_is_not_set_up_nothing_is_deleted(tmp_path: Path) -> None:
    async with town(tmp_path, [answers], POLICY, provider=Listing) as t:
        await worked(t, ANA)
        await t.core.departures.note([GONE])
        t.clock.advance(2 * RETENTION)
        await Departures(t.store, {}, t.core.sandboxes, t.clock).delete_due()
        assert await row_of(t, ANA) == "box-0"


async def test_no_departure_deletes_a_sandbox_with_an_open_turn(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, obeys_stop], POLICY, provider=Listing) as t:
        await worked(t, ANA)
        await t.core.departures.note([GONE])
        due = await t.store.departed_sandboxes(t.clock.now() + 1)
        assert [row.provider_id for row in due] == ["box-0"]
        await t.say("once more", thread="b")
        await t.until(lambda: is_running(t, "b"))
        assert not await t.store.departed_sandboxes(t.clock.now() + 1)
        assert await t.core.sandboxes.delete(due[0], "its owner has left", "sandpiper"), "it came in between"
        assert await row_of(t, ANA) == "box-0"
        await t.say("", thread="b", verb=Verb.STOP)
        await t.final(2)


async def test_without_a_retention_nothing_is_deleted(tmp_path: Path) -> None:
    policy = replace(POLICY, ages=Ages(1800.0))
    async with town(tmp_path, [answers], policy, provider=Listing) as t:
        await worked(t, ANA)
        t.slack.gone.add(ANA.user)
        await t.core.departures.note([GONE])
        t.clock.advance(100 * RETENTION)
        await t.core.departures.delete_due()
        assert await row_of(t, ANA) == "box-0"


async def test_who_left_while_the_bot_was_down_is_found_out(tmp_path: Path) -> None:
    async with town(tmp_path, [answers, obeys_stop], POLICY, provider=Listing) as t:
        await worked(t, ANA)
        await t.say("go on", thread="b")
        await t.until(lambda: is_running(t, "b"))
        t.slack.gone.add(ANA.user)
        await t.core.departures.ask_around()
        assert (await t.final(2)).outcome is Outcome.STOPPED
        t.clock.advance(RETENTION + 1)
        await t.core.departures.delete_due()
        assert await row_of(t, ANA) == ""
