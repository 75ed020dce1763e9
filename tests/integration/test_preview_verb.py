"""`preview 3000` in a thread: who gets a link to what, and what it stands for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bot.core import Policy
from bot.models import Further, Identity, Person, Repository, Session, ThreadKey, TurnState, Verb
from bot.sessions import Defaults
from bot.sharing import anybody_reads
from tests.integration.test_reconcile import answers
from tests.integration.test_turns import is_running, obeys_stop
from tests.town import ANA, BEN, EVE, OPEN, Town, town
from tests.world import HostSandbox

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
        assert turn is not None
        assert path == f"{box.workspaces}/{turn.session[:8]}/.sandpiper/shared/at-{turn.id}-1"
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


async def bearer(t: Town, thread: str = "slack:T1/C1:t1") -> HostSandbox:
    """The sandbox, whose provider makes links that ask nobody."""

    async def runs() -> bool:
        session = await t.store.session_of(thread)
        turn = await t.store.open_turn(session.id) if session else None
        return turn is not None and turn.state is TurnState.RUNNING

    await t.until(runs)
    (box,) = t.provider.boxes.values()
    box.bearer = 3600.0
    return box


async def test_a_link_that_asks_nobody_is_told_as_such(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop], POLICY) as t:
        await t.say("serve it", by=ANA)
        box = await bearer(t)
        assert await ask(t, by=BEN) == "preview"
        note = await told(t, "Port 3000, for Ben")
        assert "Whoever has this link may open it" in note and "ends with the turn, or after 1h 0m" in note
        assert "opens once" not in note
        await t.say("", verb=Verb.STOP)
        await t.final()
        assert not box.exposed, "it ends with the turn"


@pytest.mark.parametrize("private", [True, False])
def test_strangers_read_what_is_public_on_github(private: bool) -> None:
    session = Session(
        "s", "T1", Person(1, "slack:T1", ANA), ThreadKey("slack", "T1/C1", "t1"), None, "lines", "", ""
    )
    here = replace(session, repository=Repository(1, "acme/web", "main", private, 1))
    there = Repository(2, "acme/api", "main", private=True, installation=1)
    both = replace(here, further=(Further(there, "api"),))
    github = ThreadKey("github", "1", "7")
    assert not anybody_reads(session.thread, here)
    assert anybody_reads(github, session)
    assert anybody_reads(github, here) is anybody_reads(github, both) is not private


async def test_in_public_no_link_that_asks_nobody_is_given(tmp_path: Path) -> None:
    here = {"surface": "github", "thread": "5"}
    async with town(tmp_path, [obeys_stop], POLICY) as t:
        ana = Identity("github", "github:11", "7", "ana")
        await t.say("serve it", ana, repository="acme/web", **here)  # type: ignore[arg-type]
        box = await bearer(t, "github:1:5")
        assert await ask(t, by=ana, **here) == "not shown"
        assert not box.exposed
        await t.until(lambda: any("Strangers read here" in note for note in t.github.notes()))
        await t.say("", ana, verb=Verb.STOP, **here)  # type: ignore[arg-type]
        await t.until(lambda: bool(t.github.finals()))
