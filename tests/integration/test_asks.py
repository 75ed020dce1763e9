"""What an agent asks people, over a real store: who hears of it, whose word counts, and time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from bot.core import Policy
from bot.driver import Deadlines
from bot.models import Ask, AskState, MessageRef, Outcome, SayingKind, Verb
from bot.sessions import Defaults
from tests.town import ANA, BEN, OPEN, Town, town
from tests.world import ScriptedProcess

POLICY = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN)


async def asks(agent: ScriptedProcess) -> None:
    await agent.take()
    agent.say(may="a1", title="Run rm", detail="rm -rf build")
    answer = await agent.heard()
    agent.say(done=f"{answer['allowed']}: {answer['reason']}")


async def asks_a_question(agent: ScriptedProcess) -> None:
    await agent.take()
    agent.say(question="q1", title="Which colour?")
    answer = await agent.heard()
    agent.say(done=f"{answer['text']}|{answer['reason']}")


async def asked(t: Town) -> Ask:
    """What is asked, once it stands in the thread."""

    def said() -> list[Ask]:
        return [item.saying.ask for item in t.slack.said if item.saying.ask is not None]

    await t.until(lambda: bool(said()))
    return said()[0]


def outcomes(t: Town) -> list[AskState]:
    return [item.saying.ask.state for item in t.slack.said if item.saying.ask is not None]


async def test_whose_word_counts_is_who_opened_the_turn_or_owns_the_session(tmp_path: Path) -> None:
    async with town(tmp_path, [asks, asks]) as t:
        await t.say("clean up")
        ask = await asked(t)
        assert (ask.title, ask.detail, ask.asked) == ("Run rm", "rm -rf build", ANA)
        number = {"ask": str(ask.id)}
        refused = await t.say("", BEN, verb=Verb.APPROVE, options=number)
        assert refused == "denied: Only Ana may answer this."
        assert await t.say("", verb=Verb.APPROVE, options=number) == "settled"
        assert await t.say("", verb=Verb.DENY, options=number) == "nothing"
        assert (await t.final()).text == "True: "
        await t.say("again", BEN)
        await t.until(lambda: len([state for state in outcomes(t) if state is AskState.OPEN]) == 2)
        second = [item.saying.ask for item in t.slack.said if item.saying.ask is not None][-1]
        assert second is not None and second.asked == BEN
        await t.say("", ANA, verb=Verb.DENY, options={"ask": str(second.id)})  # hers is the sandbox
        assert (await t.final(2)).text == "False: Ana said no."


async def test_no_answer_in_time_is_a_no_and_waiting_for_people_is_no_silence(tmp_path: Path) -> None:
    deadlines = Deadlines(silence=600, approval=3600)
    async with town(tmp_path, [asks], replace(POLICY, deadlines=deadlines)) as t:
        began = t.clock.now()
        await t.say("clean up")
        ask = await asked(t)
        final = await t.after_time(step=30.0)
        assert final.outcome is Outcome.ANSWERED
        assert "False: Nobody answered within 1h 0m, which counts as a no." in final.text
        assert t.clock.now() - began >= 3600
        await t.until(lambda: outcomes(t) == [AskState.OPEN, AskState.EXPIRED])
        assert await t.say("", verb=Verb.APPROVE, options={"ask": str(ask.id)}) == "nothing"


async def test_silence_counts_again_once_it_was_answered(tmp_path: Path) -> None:
    async def asks_and_hangs(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(may="a1", title="Run rm", detail="rm -rf build")
        await asyncio.Event().wait()

    deadlines = Deadlines(silence=600, approval=3600)
    async with town(tmp_path, [asks_and_hangs], replace(POLICY, deadlines=deadlines)) as t:
        await t.say("clean up")
        ask = await asked(t)
        await t.say("", verb=Verb.APPROVE, options={"ask": str(ask.id)})
        final = await t.after_time(step=30.0)
        assert final.outcome is Outcome.FAILED and "'silence' deadline" in final.reason


async def test_silence_is_counted_from_the_answer_on(tmp_path: Path) -> None:
    answered = asyncio.Event()

    async def asks_and_thinks(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(may="a1", title="Run rm", detail="rm -rf build")
        await agent.heard()
        answered.set()

    deadlines = Deadlines(silence=600, approval=3600)
    async with town(tmp_path, [asks_and_thinks], replace(POLICY, deadlines=deadlines)) as t:
        await t.say("clean up")
        ask = await asked(t)
        t.clock.advance(590)
        await t.say("", verb=Verb.APPROVE, options={"ask": str(ask.id)})
        await answered.wait()
        said = t.clock.now()
        final = await t.after_time(step=10.0)
        assert "'silence' deadline" in final.reason
        assert t.clock.now() - said >= 600


async def test_an_answer_can_be_what_ends_the_turn(tmp_path: Path) -> None:
    async def plans(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(may="plan", title="Go on with this plan", detail="1. Delete it")
        await asyncio.Event().wait()

    async with town(tmp_path, [plans]) as t:
        await t.say("clean up")
        ask = await asked(t)
        await t.say("", verb=Verb.DENY, options={"ask": str(ask.id)})
        final = await t.final()
        assert (final.outcome, final.text) == (Outcome.ANSWERED, "Nothing was changed.")


async def test_a_reply_answers_a_question_but_only_of_whose_word_counts(tmp_path: Path) -> None:
    async def asks_and_hears(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(question="q1", title="Which colour?")
        steer = await agent.take()
        answer = await agent.heard()
        agent.say(done=f"{answer['text']} / {steer['prompt']}")

    async with town(tmp_path, [asks_and_hears]) as t:
        await t.say("paint it")
        await asked(t)
        assert await t.say("mauve", BEN, addressed=False) == "steered"
        await t.until(lambda: b"mauve" in t.box().stdin)
        assert await t.say("teal", addressed=False) == "answered"
        assert "teal / Ben: mauve" in (await t.final()).text


async def test_who_chooses_something_answers_no_question(tmp_path: Path) -> None:
    """A choice counts from the next turn on: it is not lost in an answer to this one."""

    async def tells_its_permissions(agent: ScriptedProcess) -> None:
        agent.say(done=f"now {(await agent.take())['permissions']}")

    async with town(tmp_path, [asks_a_question, tells_its_permissions], POLICY) as t:
        await t.say("paint it")
        await asked(t)
        careful = await t.say("and carefully", addressed=False, options={"permissions": "ask"})
        assert careful == "queued"
        assert await t.say("teal", addressed=False) == "answered"
        assert "teal" in (await t.final()).text
        assert "now ask" in (await t.final(2)).text


async def test_what_is_asked_under_one_name_twice_is_answered_twice(tmp_path: Path) -> None:
    async def asks_again(agent: ScriptedProcess) -> None:
        await agent.take()
        told = []
        for command in ("rm -rf build", "rm -rf ."):
            agent.say(may="a1", title="Run rm", detail=command)
            told.append((await agent.heard())["allowed"])
        agent.say(done=str(told))

    async with town(tmp_path, [asks_again]) as t:
        await t.say("clean up")
        first = await asked(t)
        await t.say("", verb=Verb.APPROVE, options={"ask": str(first.id)})
        await t.until(lambda: outcomes(t).count(AskState.OPEN) == 2)
        second = [item.saying.ask for item in t.slack.said if item.saying.ask is not None][-1]
        assert second is not None and second.detail == "rm -rf ."
        assert await t.say("", verb=Verb.APPROVE, options={"ask": str(first.id)}) == "nothing"
        assert await t.say("", verb=Verb.DENY, options={"ask": str(second.id)}) == "settled"
        assert (await t.final()).text == "[True, False]"


async def test_a_question_that_nobody_answers_is_the_agents_to_decide(tmp_path: Path) -> None:
    async with town(tmp_path, [asks_a_question]) as t:
        await t.say("paint it")
        await asked(t)
        final = await t.after_time()
        assert final.text.startswith("|Nobody answered within 1h 0m") and "Decide yourself" in final.text


async def test_stop_withdraws_what_was_asked(tmp_path: Path) -> None:
    async def asks_and_obeys(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(may="a1", title="Run rm", detail="rm -rf build")
        while "interrupt" not in await agent.heard():
            pass
        agent.say(cancelled=True)

    async with town(tmp_path, [asks_and_obeys]) as t:
        await t.say("clean up")
        await asked(t)
        await t.say("", verb=Verb.STOP)
        assert (await t.final()).outcome is Outcome.STOPPED
        await t.until(lambda: outcomes(t) == [AskState.OPEN, AskState.WITHDRAWN])


async def test_an_agent_that_died_asks_again_in_its_next_attempt(tmp_path: Path) -> None:
    async def asks_and_dies(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(may="a1", title="Run rm", detail="rm -rf build")
        await asyncio.sleep(0)
        agent.exit(9)

    async with town(tmp_path, [asks_and_dies, asks]) as t:
        await t.say("clean up")

        def asked_again() -> bool:
            t.clock.advance(0.5)  # the pause before the next attempt
            return outcomes(t) == [AskState.OPEN, AskState.WITHDRAWN, AskState.OPEN]

        await t.until(asked_again)
        old, _, new = (item.saying.ask for item in t.slack.said if item.saying.ask is not None)
        assert old is not None and new is not None
        assert await t.say("", verb=Verb.APPROVE, options={"ask": str(old.id)}) == "nothing"
        assert await t.say("", verb=Verb.APPROVE, options={"ask": str(new.id)}) == "settled"
        assert (await t.final()).text == "True: "


async def test_what_is_asked_calls_who_is_asked_by_name_and_is_redrawn_in_its_place(tmp_path: Path) -> None:
    async with town(tmp_path, [asks]) as t:
        await t.say("clean up")
        ask = await asked(t)
        await t.say("", verb=Verb.APPROVE, options={"ask": str(ask.id)})
        await t.final()
        await t.until(lambda: len(outcomes(t)) == 2)
        first, second = (item.saying for item in t.slack.said if item.saying.ask is not None)
        place = next(index for index, item in enumerate(t.slack.said, 1) if item.saying is first)
        assert first.kind is SayingKind.ASK and first.mention == "U_ANA"
        assert second.kind is SayingKind.ASKED and second.ref == MessageRef("slack", "T1/C1", f"post-{place}")
        assert second.ask is not None and second.ask.by == "Ana"
