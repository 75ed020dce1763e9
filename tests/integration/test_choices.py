"""Who works and how carefully: what is taken, what is refused, and from when on it counts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from bot.agents.codec import Permissions
from bot.models import Verb
from bot.sessions import ALREADY_BEGUN, ALREADY_READ
from tests.integration.test_turns import POLICY, is_running, said_last, waits_for_words, writes_a_file
from tests.town import BEN, town
from tests.world import ScriptedProcess


async def lists_its_models(agent: ScriptedProcess) -> None:
    agent.say(models=["small", "large"])
    await writes_a_file(agent)


async def test_a_model_that_the_agent_did_not_list_is_refused_before_anything_is_woken(
    tmp_path: Path,
) -> None:
    async with town(tmp_path, [lists_its_models, writes_a_file]) as t:
        assert await t.say("first", options={"model": "lrge"}) == "started"  # nothing is known yet
        await t.final()
        assert await t.say("next", addressed=False, options={"model": "lrge"}) == "refused"
        assert "lines has no model 'lrge'. Did you mean `large`?" in await said_last(t)
        assert await t.say("mine", thread="t2", options={"model": "lrge"}) == "refused"
        assert len([p for box in t.provider.boxes.values() for p in box.processes]) == 1
        # In Ben's own sandbox there may be such a model.
        assert await t.say("his", BEN, thread="t3", options={"model": "lrge"}) == "started"
        await t.final(2)
        # … and what Ana's lists is none of his business.
        assert not any("does not list the model" in note for note in t.slack.notes())
        await t.say("", verb=Verb.STATUS, addressed=False)
        assert "Models of lines: small, large" in await said_last(t)


async def test_permissions_are_for_the_next_start_of_the_agent_and_stay(tmp_path: Path) -> None:
    heard: list[str] = []

    async def tells_its_permissions(agent: ScriptedProcess) -> None:
        first = await agent.take()
        heard.append(first["permissions"])
        agent.say(done="That is all.")

    async with town(tmp_path, [waits_for_words, tells_its_permissions, tells_its_permissions]) as t:
        await t.say("first")
        await t.until(lambda: is_running(t))
        assert await t.say("carefully", addressed=False, options={"permissions": "ask"}) == "queued"
        assert await t.say("now", addressed=False) == "steered"
        await t.final(2)
        assert await t.say("again", addressed=False) == "started"
        await t.final(3)
        assert heard == ["ask", "ask"]
        assert await t.say("you", addressed=False, options={"agent": "other"}) == "refused"
        assert "other cannot ask before it acts" in await said_last(t)
        await t.say("", verb=Verb.STATUS, addressed=False)
        assert "permissions ask" in await said_last(t)


async def test_only_the_owner_makes_a_session_less_careful(tmp_path: Path) -> None:
    async def works(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(done="ok")

    async with town(tmp_path, [works, works]) as t:
        await t.say("first", options={"permissions": "ask"})
        await t.final()
        assert await t.say("faster", BEN, addressed=False, options={"permissions": "auto"}) == "refused"
        assert "Only the session's owner" in await said_last(t)
        assert await t.say("faster", addressed=False, options={"permissions": "auto"}) == "started"
        await t.final(2)


async def test_others_do_not_take_back_care_that_waits_for_the_next_turn(tmp_path: Path) -> None:
    async with town(tmp_path, [waits_for_words, writes_a_file]) as t:
        await t.say("first")
        await t.until(lambda: is_running(t))
        ask = {"permissions": "ask"}
        assert await t.say("carefully", addressed=False, key="hers", options=ask) == "queued"
        faster = {"permissions": "auto"}
        assert await t.say("faster", BEN, addressed=False, options=faster) == "refused"
        assert "Only the session's owner" in await said_last(t)
        # Who maintains a repository on GitHub can edit the comments of others.
        assert await t.say("faster", BEN, addressed=False, revises="hers", options=faster) == "revised"
        assert await t.say("go", BEN, addressed=False, revises="hers") == "revised"
        await t.say("now", addressed=False)
        await t.final(2)
        session = await t.store.session_of("slack:T1/C1:t1")
        assert session is not None and session.permissions == "ask"


async def test_who_deletes_a_waiting_message_of_the_owners_does_not_take_back_its_care(
    tmp_path: Path,
) -> None:
    async with town(tmp_path, [waits_for_words, writes_a_file]) as t:
        await t.say("first")
        await t.until(lambda: is_running(t))
        careful = {"permissions": "ask", "model": "big"}
        assert await t.say("carefully", addressed=False, key="hers", options=careful) == "queued"
        # Who maintains a repository on GitHub can delete the comments of others.
        assert await t.say("", BEN, addressed=False, revises="hers", withdrawn=True) == "withdrawn"
        await t.say("now", addressed=False)
        await t.final(1)
        await t.say("go", BEN, addressed=False)
        await t.final(2)
        session = await t.store.session_of("slack:T1/C1:t1")
        assert session is not None and (session.permissions, session.model) == ("ask", "")


async def test_an_owner_deletes_a_waiting_message_with_its_care(tmp_path: Path) -> None:
    async with town(tmp_path, [waits_for_words, writes_a_file]) as t:
        await t.say("first")
        await t.until(lambda: is_running(t))
        ask = {"permissions": "ask"}
        assert await t.say("carefully", addressed=False, key="hers", options=ask) == "queued"
        assert await t.say("", addressed=False, revises="hers", withdrawn=True) == "withdrawn"
        await t.say("now", addressed=False)
        await t.final(1)
        session = await t.store.session_of("slack:T1/C1:t1")
        assert session is not None and session.permissions == ""


async def test_another_model_of_others_leaves_the_care_that_waits(tmp_path: Path) -> None:
    async with town(tmp_path, [waits_for_words, writes_a_file]) as t:
        await t.say("first", options={"permissions": "plan"})
        await t.until(lambda: is_running(t))
        ask = {"permissions": "ask"}
        assert await t.say("more carefully", addressed=False, options=ask) == "queued"
        assert await t.say("big", BEN, addressed=False, options={"model": "big"}) == "queued"
        await t.say("now", addressed=False)
        await t.final(2)
        session = await t.store.session_of("slack:T1/C1:t1")
        assert session is not None and (session.model, session.permissions) == ("big", "ask")


async def test_an_owner_takes_back_care_that_waits(tmp_path: Path) -> None:
    async with town(tmp_path, [waits_for_words, writes_a_file]) as t:
        await t.say("first")
        await t.until(lambda: is_running(t))
        ask = {"permissions": "ask"}
        assert await t.say("carefully", addressed=False, key="hers", options=ask) == "queued"
        assert await t.say("go", addressed=False, revises="hers") == "revised"
        await t.say("now", addressed=False)
        await t.final(2)
        session = await t.store.session_of("slack:T1/C1:t1")
        assert session is not None and session.permissions == ""


async def test_the_installations_permissions_are_the_least(tmp_path: Path) -> None:
    heard: list[str] = []

    async def tells_its_permissions(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["permissions"])
        agent.say(done="That is all.")

    policy = replace(POLICY, permissions=Permissions.PLAN)
    async with town(tmp_path, [tells_its_permissions, tells_its_permissions], policy) as t:
        assert await t.say("first", options={"permissions": "auto"}) == "refused"
        assert "SANDPIPER_PERMISSIONS, which is 'plan'" in await said_last(t)
        await t.say("first")
        await t.final()
        await t.say("second", addressed=False, options={"permissions": "ask"})
        await t.final(2)
        assert heard == ["plan", "ask"]


async def test_another_agent_is_for_the_next_turn_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    async with town(tmp_path, [waits_for_words, writes_a_file]) as t:
        await t.say("first")
        await t.until(lambda: is_running(t))
        assert await t.say("go on", addressed=False, options={"agent": "lin"}) == "refused"
        assert "no agent 'lin'" in await said_last(t) and "`lines`?" in await said_last(t)
        assert await t.say("go on", addressed=False, options={"effort": "high"}) == "refused"
        assert await t.say("next", addressed=False, options={"model": "big"}) == "queued"
        assert await t.say("now", addressed=False) == "steered"
        await t.final(2)
        session = await t.store.session_of("slack:T1/C1:t1")
        assert session is not None and session.model == "big"


async def test_an_edit_of_a_message_that_waits_chooses_anew(tmp_path: Path) -> None:
    async with town(tmp_path, [waits_for_words, writes_a_file]) as t:
        await t.say("first", key="one")
        await t.until(lambda: is_running(t))
        options = {"model": "big"}
        assert await t.say("next", addressed=False, key="two", options=options) == "queued"
        again = {"model": "small"}
        assert await t.say("next", addressed=False, revises="two", options=again) == "revised"
        bad = {"agent": "lin"}
        assert await t.say("next!", addressed=False, revises="two", options=bad) == "revised"
        assert "no agent 'lin'" in await said_last(t)
        await t.say("now", addressed=False)
        await t.final(2)
        session = await t.store.session_of("slack:T1/C1:t1")
        assert session is not None and session.model == "small"


async def test_an_edit_that_comes_too_late_to_choose_says_so(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file]) as t:
        t.slack.slow = asyncio.Event()
        await t.say("add hello", key="said")
        await asyncio.wait_for(t.slack.asked.wait(), 20)
        options = {"model": "big"}
        assert await t.say("add it", addressed=False, revises="said", options=options) == "revised"
        await t.until(lambda: ALREADY_BEGUN in t.slack.notes())
        t.slack.slow.set()
        await t.final()
        session = await t.store.session_of("slack:T1/C1:t1")
        assert session is not None and session.model == ""


async def test_an_edit_of_what_the_agent_has_read_chooses_nothing_and_says_so_once(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file]) as t:
        chosen = {"model": "small"}
        await t.say("add hello", key="said", options=chosen)
        await t.final()
        # Its words were mended, and it chooses what it chose.
        await t.say("add hello!", addressed=False, revises="said", options=chosen)
        assert ALREADY_READ not in t.slack.notes()
        for words in ("add hello", "add hello!"):
            options = {"model": "big"}
            outcome = await t.say(words, addressed=False, revises="said", options=options)
            assert outcome == "ignored: the agent has it already"
        await t.say("", verb=Verb.STATUS, addressed=False)
        assert "lines small" in await said_last(t)
        assert t.slack.notes().count(ALREADY_READ) == 1
        session = await t.store.session_of("slack:T1/C1:t1")
        assert session is not None and session.model == "small"
