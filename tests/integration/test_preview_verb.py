"""`preview 3000` in a thread: who gets a link to what, and what it stands for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bot.core import Policy
from bot.models import Verb
from bot.sessions import Defaults
from tests.integration.test_reconcile import answers
from tests.integration.test_turns import is_running, obeys_stop
from tests.town import ANA, BEN, EVE, OPEN, Town, town

POLICY = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN)
PREVIEW = {"port": "3000"}


async def ask(t: Town, **more: object) -> str:
    return await t.say("", verb=Verb.PREVIEW, options=PREVIEW, **more)  # type: ignore[arg-type]


async def told(t: Town, words: str) -> str:
    """The note with these words, as soon as it is said."""
    await t.until(lambda: any(words in note for note in t.slack.notes()))
    return next(note for note in t.slack.notes() if words in note)


async def test_who_may_steer_gets_a_link_that_stands_for_them(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop], POLICY) as t:
        await t.say("serve it", by=ANA)
        await t.until(lambda: is_running(t))
        assert await ask(t, by=BEN) == "preview"
        assert "http://box.example:3000/" in await told(t, "Port 3000, for Ben")
        (box,) = t.provider.boxes.values()
        (path,) = box.exposed
        turn = await t.store.open_turn((await t.store.session_of("slack:T1/C1:t1")).id)  # type: ignore[union-attr]
        assert turn is not None and path == f"{box.home}/.sandpiper/shared/at-{turn.id}-1"
        guard = box.guards[path]
        assert await guard.refusal() == ""
        t.slack.outsiders.add(BEN.user)
        assert "members of this organisation" in await guard.refusal()
        await t.say("", verb=Verb.STOP)
        await t.final()
        assert not box.exposed, "it ends with the turn"


async def test_who_may_not_steer_gets_none(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop, obeys_stop], replace(POLICY, steer_policy="owner")) as t:
        await t.say("serve it", by=ANA)
        await t.until(lambda: is_running(t))
        for who in (BEN, EVE):
            assert (await ask(t, by=who)).startswith("denied")
        (box,) = t.provider.boxes.values()
        assert not box.exposed
        await t.say("", verb=Verb.STOP)
        await t.final()


async def test_where_nothing_is_served_it_is_said(tmp_path: Path) -> None:
    async with town(tmp_path, [answers], POLICY) as t:
        assert await ask(t, thread="new") == "not served"
        await t.say("hello")
        await t.final()
        assert await ask(t) == "not shown"
        assert "I cannot show port 3000" in await told(t, "No turn runs")
