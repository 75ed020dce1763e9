"""Turns over a real store and real git: what people see when they talk to the bot."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from bot.access import Allowlist
from bot.core import Policy
from bot.driver import Deadlines
from bot.errors import PushRefused
from bot.models import Caps, Mark, Mode, Outcome, SayingKind, TurnState, Verb
from bot.ports import Store, Watch
from bot.programs import Program
from bot.sessions import Defaults
from tests.town import ANA, BEN, EVE, OPEN, Town, town
from tests.world import MODEL_KEY, LineCodec, ScriptedProcess

POLICY = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN)


async def writes_a_file(agent: ScriptedProcess) -> None:
    await agent.take()
    await agent.write_file("hello.txt", "hello\n", commit="Say hello")
    agent.say(done="I added hello.txt.")


async def waits_for_words(agent: ScriptedProcess) -> None:
    """Works until it hears a second message, and puts it into the file."""
    await agent.take()
    words = await agent.take()
    await agent.write_file("hello.txt", words["prompt"], commit="Say it")
    agent.say(done="Done as told.")


async def never_ends(agent: ScriptedProcess) -> None:
    await agent.take()
    await asyncio.Event().wait()


async def obeys_stop(agent: ScriptedProcess) -> None:
    await agent.take()
    await agent.write_file("half.txt", "half\n", commit="First half")
    await agent.write_file("rest.txt", "uncommitted\n")
    while "interrupt" not in await agent.heard():
        pass
    agent.say(cancelled=True)


async def test_a_mention_becomes_a_pull_request(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file]) as t:
        assert await t.say("add hello") == "started"
        final = await t.final()
        assert final.outcome is Outcome.PUBLISHED
        assert final.text == "I added hello.txt."
        assert final.pull_request is not None and final.pull_request.commits == 1
        assert await t.forge.file(final.branch, "hello.txt") == "hello"
        assert final.branch.startswith("sandpiper/slack-add-hello-")
        assert "https://chat.example/t1" in t.forge.bodies[final.branch]
        kinds = [item.saying.kind for item in t.slack.said]
        assert kinds.count(SayingKind.TIMELINE) == 1 and kinds.count(SayingKind.FINAL) == 1


async def test_the_agent_hears_who_says_what_and_what_becomes_of_its_commits(tmp_path: Path) -> None:
    heard: list[str] = []

    async def listens(agent: ScriptedProcess) -> None:
        heard.append((await agent.take())["prompt"])
        agent.say(done="ok")

    async with town(tmp_path, [listens]) as t:
        await t.say("add hello")
        await t.final()
    assert "Ana: add hello" in heard[0]
    assert "acme/web" in heard[0] and "Do not push" in heard[0]


async def test_nothing_changed_is_an_answer_and_no_pull_request(tmp_path: Path) -> None:
    async def answers(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(done="It is 42.")

    async with town(tmp_path, [answers]) as t:
        await t.say("what is it?")
        final = await t.final()
        assert (final.outcome, final.text) == (Outcome.ANSWERED, "It is 42.")
        assert not t.forge.pull_requests


async def test_a_reply_steers_the_running_turn_and_its_receipt_changes_when_consumed(tmp_path: Path) -> None:
    async with town(tmp_path, [waits_for_words]) as t:
        await t.say("add something")
        await t.until(lambda: is_running(t))
        assert await t.say("make it blue", by=BEN, addressed=False) == "steered"
        final = await t.final()
        assert await t.forge.file(final.branch, "hello.txt") == "Ben: make it blue"
        marks = [(i.saying.ref.id, i.saying.mark) for i in t.slack.said if i.saying.ref and i.saying.mark]
        assert marks.index(("000002", Mark.SEEN)) < marks.index(("000002", Mark.CONSUMED))


async def is_running(t: Town, thread: str = "t1") -> bool:
    session = await t.store.session_of(f"slack:T1/C1:{thread}")
    turn = await t.store.open_turn(session.id) if session else None
    return turn is not None and turn.state is TurnState.RUNNING


async def test_a_message_that_is_deleted_while_we_prepare_starts_nothing(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file]) as t:
        t.provider.stuck = asyncio.Event()
        await t.say("add hello", key="said")
        assert await t.say("", addressed=False, revises="said", withdrawn=True) == "withdrawn"
        t.provider.stuck.set()
        final = await t.final()
        assert final.outcome is Outcome.STOPPED and not t.forge.pull_requests


async def test_a_queued_message_waits_for_the_next_turn(tmp_path: Path) -> None:
    told: list[str] = []

    async def first(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(token="tok-1")
        await go.wait()
        agent.say(done="first done")

    async def second(agent: ScriptedProcess) -> None:
        hello = await agent.take()
        told.append(hello["prompt"] + "|" + hello["resume"])
        agent.say(done="second done")

    go = asyncio.Event()
    async with town(tmp_path, [first, second]) as t:
        await t.say("one")
        await t.until(lambda: is_running(t))
        assert await t.say("two", mode=Mode.QUEUE, addressed=False) == "queued"
        go.set()
        assert (await t.final(2)).text == "second done"
        assert told == ["Ana: two|tok-1"]


async def test_an_interrupting_message_stops_the_turn_and_starts_the_next_with_it(tmp_path: Path) -> None:
    async def second(agent: ScriptedProcess) -> None:
        hello = await agent.take()
        agent.say(done=hello["prompt"])
        await agent.take()  # the stopped turn left a file uncommitted
        await agent.write_file("rest.txt", "all\n", commit="The rest")
        agent.say(done=hello["prompt"])

    async with town(tmp_path, [obeys_stop, second]) as t:
        await t.say("one")
        await t.until(lambda: is_running(t))
        await t.say("no, this", mode=Mode.INTERRUPT, addressed=False)
        assert (await t.final(1)).outcome is Outcome.STOPPED
        assert "Ana: no, this" in (await t.final(2)).text


async def test_stop_keeps_the_work_and_publish_publishes_it_without_a_new_run(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop]) as t:
        await t.say("one")
        await t.until(lambda: is_running(t))
        await t.until(lambda: (t.box().cwd / "rest.txt").exists())
        await t.say("", verb=Verb.STOP)
        stopped = await t.final(1)
        assert stopped.outcome is Outcome.STOPPED
        assert any("publish" in note for note in stopped.notes)
        assert not t.forge.pull_requests
        assert await t.say("", verb=Verb.PUBLISH) == "started"
        published = await t.final(2)
        assert published.outcome is Outcome.PUBLISHED
        assert await t.forge.file(published.branch, "half.txt") == "half"
        assert await t.forge.file(published.branch, "rest.txt") == "uncommitted"
        assert len(t.provider.boxes) == 1 and len(next(iter(t.provider.boxes.values())).processes) == 1


async def test_an_agent_that_ignores_stop_is_killed_after_its_grace(tmp_path: Path) -> None:
    async with town(tmp_path, [never_ends]) as t:
        await t.say("one")
        await t.until(lambda: is_running(t))
        process = t.box()
        await t.say("", verb=Verb.STOP)
        final = await t.after_time(1)
        assert final.outcome is Outcome.STOPPED and "Ana" in final.reason
        assert process.exit_code is not None


async def test_messages_after_a_stop_are_held_and_go_in_with_the_next_one(tmp_path: Path) -> None:
    told: list[str] = []

    async def deaf(agent: ScriptedProcess) -> None:
        await agent.take()
        await agent.heard()
        while "interrupt" not in await agent.heard():
            pass
        agent.say(cancelled=True)

    async def second(agent: ScriptedProcess) -> None:
        told.append((await agent.take())["prompt"])
        agent.say(done="ok")

    async with town(tmp_path, [deaf, second]) as t:
        await t.say("one")
        await t.until(lambda: is_running(t))
        await t.say("never heard", addressed=False)
        await t.until(lambda: t.box().stdin.count(b"\n") >= 2)
        await t.say("", verb=Verb.STOP)
        await t.final(1)
        await t.until(lambda: any("held" in note for note in t.slack.notes()))
        await t.say("go on", addressed=False)
        await t.final(2)
        assert "Ana: never heard" in told[0] and "Ana: go on" in told[0]


async def test_left_over_changes_are_asked_for_once_then_committed_by_the_bot(tmp_path: Path) -> None:
    asked: list[str] = []

    async def sloppy(agent: ScriptedProcess) -> None:
        await agent.take()
        await agent.write_file("left.txt", "left\n")
        agent.say(done="done, I think")
        asked.append((await agent.heard())["prompt"])
        agent.say(done="no.")

    async with town(tmp_path, [sloppy]) as t:
        await t.say("one")
        final = await t.final()
        assert "left.txt" in asked[0]
        assert final.outcome is Outcome.PUBLISHED
        assert any("left.txt" in note for note in final.notes)
        assert await t.forge.file(final.branch, "left.txt") == "left"


async def test_a_refused_push_is_work_ready_and_publish_mends_it(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file]) as t:
        t.forge.trouble.append(PushRefused("GitHub refused the push: protected.", "Unprotect it."))
        await t.say("one")
        final = await t.final()
        assert final.outcome is Outcome.UNPUBLISHED
        assert "protected" in final.reason and "Unprotect" in final.mend and "publish" in final.mend
        await t.say("", verb=Verb.PUBLISH)
        again = await t.final(2)
        assert again.outcome is Outcome.PUBLISHED
        assert await t.forge.file(again.branch, "hello.txt") == "hello"


async def test_a_dead_agent_is_resumed_in_the_same_worktree(tmp_path: Path) -> None:
    async def dies(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(token="tok-9")
        await agent.write_file("begun.txt", "begun\n")
        agent.exit(137)

    async def goes_on(agent: ScriptedProcess) -> None:
        hello = await agent.take()
        assert hello["resume"] == "tok-9" and "interrupted" in hello["prompt"]
        await agent.write_file("ended.txt", "ended\n", commit="All of it")
        agent.say(done="went on")

    async with town(tmp_path, [dies, goes_on]) as t:
        await t.say("one")
        final = await t.after_time(step=1.0)
        assert final.outcome is Outcome.PUBLISHED and final.text == "went on"
        assert any("ran out of memory" in str(picture.rows) for picture in t.slack.pictures)
        assert await t.forge.file(final.branch, "begun.txt") == "begun"


class DeafStore:
    """A real store behind it, whose turns ring no bell: what an agent says is heard before a stop is."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def watch(self, topic: str) -> Watch:
        return self._store.watch("nothing" if topic.startswith("turn:") else topic)


@pytest.mark.parametrize("how", [{"cancelled": True}, {"failed": "interrupted"}, {"done": "Done."}, {}])
async def test_a_stop_that_is_not_heard_of_yet_is_one_all_the_same(
    tmp_path: Path, how: dict[str, object]
) -> None:
    """As after a restart, when the agent has obeyed while nobody was there."""
    stopped = asyncio.Event()

    async def obeys(agent: ScriptedProcess) -> None:
        await agent.take()
        await stopped.wait()
        agent.say(**how) if how else agent.exit(130)

    async with town(tmp_path, [obeys], seen=lambda store: cast("Store", DeafStore(store))) as t:
        await t.say("one")
        await t.until(lambda: is_running(t))
        await t.say("", verb=Verb.STOP, addressed=False)
        stopped.set()
        final = await t.final()
        assert (final.outcome, final.reason) == (Outcome.STOPPED, "Stopped by Ana.")


async def test_an_agent_that_is_killed_for_memory_ends_with_what_to_do(tmp_path: Path) -> None:
    async def eats(agent: ScriptedProcess) -> None:
        await agent.take()
        next(iter(t.provider.boxes.values())).starved[agent.key] += 1
        agent.exit(137)

    async with town(tmp_path, [eats, eats, eats]) as t:
        await t.say("one")
        final = await t.after_time(step=1.0)
        assert final.outcome is Outcome.FAILED and "out of memory" in final.reason
        assert "SANDPIPER_SANDBOX_MEMORY" in final.mend


async def test_a_model_that_the_api_does_not_have_ends_with_those_that_are_known(tmp_path: Path) -> None:
    async def has_not(agent: ScriptedProcess) -> None:
        agent.say(models=["small", "large"])
        await agent.take()
        agent.say(failed="404 no such model", cause="no_model")

    async with town(tmp_path, [has_not]) as t:
        await t.say("one", options={"model": "lrge"})
        final = await t.final()
        assert final.reason == "404 no such model"
        assert "`model=`. Did you mean `large`? There is: small, large." in final.mend


async def test_a_login_that_failed_ends_with_the_setting_that_holds_it(tmp_path: Path) -> None:
    async def is_refused(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(failed="401 invalid key", cause="login")

    mine = LineCodec(capabilities=replace(LineCodec().capabilities, credential="api_key of 'lines'"))
    async with town(tmp_path, [is_refused], agents={"lines": mine}) as t:
        await t.say("one")
        final = await t.final()
        assert final.reason == "401 invalid key" and "(api_key of 'lines')" in final.mend


async def test_an_agent_that_dies_three_times_ends_the_turn_with_its_exit_code(tmp_path: Path) -> None:
    async def dies(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.exit(3)

    async with town(tmp_path, [dies, dies, dies, writes_a_file]) as t:
        began = t.clock.now()
        await t.say("one")
        final = await t.after_time(step=1.0)
        assert final.outcome is Outcome.FAILED and "exit code 3" in final.reason
        assert t.clock.now() - began >= 17


async def test_an_agent_that_is_not_installed_is_named(tmp_path: Path) -> None:
    async def missing(agent: ScriptedProcess) -> None:
        agent.exit(127)

    async with town(tmp_path, [missing]) as t:
        await t.say("one")
        final = await t.final()
        assert final.outcome is Outcome.FAILED
        assert "not installed" in final.reason and "SANDPIPER_AGENTS" in final.mend


async def test_an_agent_that_lacks_something_itself_is_not_called_missing(tmp_path: Path) -> None:
    async def lacks_node(agent: ScriptedProcess) -> None:
        agent.complain("env: 'node': No such file or directory\n")
        agent.exit(127)

    async with town(tmp_path, [lacks_node]) as t:
        await t.say("one")
        final = await t.final()
        assert final.outcome is Outcome.FAILED and "not installed" not in final.reason
        assert "env: 'node': No such file or directory" in final.reason


async def test_an_agent_that_ends_with_that_code_after_it_has_spoken_has_died(tmp_path: Path) -> None:
    async def breaks(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.complain("sh: 7: helper: not found\n")
        agent.exit(127)

    async with town(tmp_path, [breaks, breaks, breaks]) as t:
        await t.say("one")
        final = await t.after_time(step=1.0)
        assert "exit code 127" in final.reason and "helper: not found" in final.reason


TOKEN = "ghp_" + "a1B2c3D4" * 5
KEY_BODY = "\n".join(["MIIEpAIBAAKCAQEA1234567890abcdefMIIEpAIBAAKCAQEA1234567890abcdef"] * 40)
LEAKS = {
    "the key it was given": (f"no access with {MODEL_KEY}\n", MODEL_KEY[4:]),
    "a token at the cut": (f"log in with {TOKEN}\n" + "x" * (4096 - 30) + "\nend\n", TOKEN[-25:]),
    "a private key at the cut": (
        f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_BODY}\n-----END RSA PRIVATE KEY-----\n" + "x\n" * 1000,
        "MIIEpAIB",
    ),
}


@pytest.mark.parametrize("what", LEAKS)
async def test_the_last_lines_of_a_dead_agent_have_no_piece_of_a_secret(tmp_path: Path, what: str) -> None:
    said, secret = LEAKS[what]

    async def dies(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.complain(f"{said}Goodbye.\n")
        agent.exit(3)

    async with town(tmp_path, [dies, dies, dies]) as t:
        await t.say("one")
        final = await t.after_time(step=1.0)
        assert "exit code 3" in final.reason and "Goodbye." in final.reason
        assert secret not in final.reason


@pytest.mark.parametrize("phase", ["silence", "turn"])
async def test_a_deadline_ends_the_turn_with_its_message(tmp_path: Path, phase: str) -> None:
    deadlines = Deadlines(silence=1800, turn=0) if phase == "silence" else Deadlines(silence=0, turn=3600)
    async with town(tmp_path, [never_ends], replace(POLICY, deadlines=deadlines)) as t:
        await t.say("one")
        await t.until(lambda: is_running(t))
        process = t.box()
        final = await t.after_time(1)
        assert final.outcome is Outcome.FAILED
        assert f"'{phase}' deadline" in final.reason and f"SANDPIPER_DEADLINE_{phase.upper()}" in final.mend
        assert process.exit_code is not None


async def test_the_prepare_deadline_ends_the_turn_with_its_message(tmp_path: Path) -> None:
    async with town(tmp_path, []) as t:
        t.provider.stuck = asyncio.Event()
        await t.say("one")
        final = await t.after_time(1)
        assert final.outcome is Outcome.FAILED and "'prepare' deadline" in final.reason


async def test_the_publish_deadline_leaves_the_work_ready(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file]) as t:
        t.forge.stuck = asyncio.Event()
        await t.say("one")
        await asyncio.wait_for(t.forge.pushing.wait(), 20)
        final = await t.after_time(1)
        assert final.outcome is Outcome.UNPUBLISHED and "'publish' deadline" in final.reason


async def test_which_repository_is_asked_and_the_answer_resumes_the_message(tmp_path: Path) -> None:
    policy = replace(POLICY, defaults=Defaults("", "lines"))
    async with town(tmp_path, [writes_a_file], policy) as t:
        assert await t.say("add hello") == "asked"
        await t.until(lambda: any(i.saying.kind is SayingKind.QUESTION for i in t.slack.said))
        assert await t.say("acme/nowhere", addressed=False) == "refused"
        assert await t.say("acme/web", addressed=False) == "started"
        assert (await t.final()).outcome is Outcome.PUBLISHED


async def test_the_answer_which_repository_may_have_more_words(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file], replace(POLICY, defaults=Defaults("", "lines"))) as t:
        assert await t.say("add hello") == "asked"
        options = {"repo": "acme/web"}
        said = await t.say("and only touch the css", addressed=False, options=options)
        assert said == "started"
        await t.final()
        prompt = bytes(t.box().stdin).decode()
        assert "add hello" in prompt and "and only touch the css" in prompt


async def test_an_edit_that_names_the_repository_answers_too(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file], replace(POLICY, defaults=Defaults("", "lines"))) as t:
        await t.say("add hello", key="root")
        options = {"repo": "acme/web"}
        assert await t.say("add hello", key="root~2", revises="root", options=options) == "started"
        assert (await t.final()).outcome is Outcome.PUBLISHED


async def test_a_channels_repository_resumes_what_waited_for_it(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file], replace(POLICY, defaults=Defaults("", "lines"))) as t:
        await t.say("add hello")
        assert await t.say("", verb=Verb.CHANNEL, options={"repo": "acme/web"}) == "channel"
        assert (await t.final()).outcome is Outcome.PUBLISHED


async def test_outside_of_threads_status_and_stop_are_about_what_one_has_running(tmp_path: Path) -> None:
    async with town(tmp_path, [obeys_stop, obeys_stop]) as t:
        await t.say("first thing", thread="t1")
        await t.until(lambda: is_running(t))
        await t.say("", thread="", verb=Verb.STATUS, ref=None, private="url")
        assert "“first thing” (https://chat.example/t1): Turn 1 is running" in await said_last(t)
        assert await t.say("", BEN, thread="", verb=Verb.STOP, ref=None, private="url") == "nothing"
        assert await t.say("", thread="", verb=Verb.STOP, ref=None, private="url") == "stopping"
        assert (await t.final()).outcome is Outcome.STOPPED


async def said_last(t: Town) -> str:
    """The newest note, when everything that was to be said is said."""

    async def quiet() -> bool:
        return not await t.store.due(t.clock.now(), 1)

    await t.until(quiet)
    return t.slack.notes()[-1]


async def test_the_same_message_twice_is_one_turn(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file]) as t:
        await t.say("add hello", key="same")
        assert await t.say("add hello", key="same") == "duplicate"
        await t.final()
        assert len(t.slack.finals()) == 1


async def test_who_may_is_asked_every_time(tmp_path: Path) -> None:
    async with town(tmp_path, [never_ends]) as t:
        assert (await t.say("one", by=EVE, thread="eve")).startswith("denied")
        await t.until(lambda: any("SANDPIPER_ALLOW_PEOPLE" in note for note in t.slack.notes()))
        await t.say("one")
        await t.until(lambda: is_running(t))
        assert (await t.say("drop all tables", by=EVE, addressed=False)).startswith("denied")
        assert (await t.say("", by=EVE, verb=Verb.STOP)).startswith("denied")
        assert await is_running(t)


async def test_closed_by_default(tmp_path: Path) -> None:
    async with town(tmp_path, [], replace(POLICY, allowlist=Allowlist())) as t:
        assert (await t.say("one")).startswith("denied")


async def test_caps_queue_turns_and_stop_reaches_a_queued_one(tmp_path: Path) -> None:
    async with town(tmp_path, [never_ends, writes_a_file], replace(POLICY, caps=Caps(person=1))) as t:
        await t.say("one", thread="a")
        await t.until(lambda: is_running(t, "a"))
        await t.say("two", thread="b")
        await t.say("three", thread="c")
        await t.say("", thread="b", verb=Verb.STOP)
        assert (await t.final(1)).outcome is Outcome.STOPPED
        await t.say("", thread="a", verb=Verb.STOP)
        await t.after_time(3)
        assert {item.saying.thread.id for item in t.slack.finals()} == {"a", "b", "c"}


async def test_two_threads_of_one_person_work_side_by_side_in_one_sandbox(tmp_path: Path) -> None:
    async with town(tmp_path, [waits_for_words, waits_for_words]) as t:
        await t.say("one", thread="a")
        await t.say("two", thread="b")
        await t.until(lambda: is_running(t, "a"))
        await t.until(lambda: is_running(t, "b"))
        assert len(t.provider.boxes) == 1
        await t.say("for a", thread="a", addressed=False)
        await t.say("for b", thread="b", addressed=False)
        branches = {(await t.final(1)).branch, (await t.final(2)).branch}
        assert len(branches) == 2 and len(t.forge.pull_requests) == 2


async def test_a_lost_answer_of_the_surface_does_not_say_it_twice(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file]) as t:
        t.slack.deaf = 3
        await t.say("one")
        await t.after_time(1, step=5.0)
        await t.until(lambda: all_sent(t))
        keys = [item.saying.key for item in t.slack.said]
        assert len(keys) == len(set(keys))


async def all_sent(t: Town) -> bool:
    t.clock.advance(10)
    return not await t.store.due(t.clock.now() + 3600, 10)


async def test_an_owner_only_policy_refuses_other_steerers(tmp_path: Path) -> None:
    async with town(tmp_path, [never_ends], replace(POLICY, steer_policy="owner")) as t:
        await t.say("one", by=ANA)
        await t.until(lambda: is_running(t))
        assert (await t.say("me too", by=BEN, addressed=False)).startswith("denied")


async def test_the_owner_is_asked_again_at_each_turn(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file, writes_a_file]) as t:
        await t.say("one", by=ANA)
        await t.final(1)
        t.slack.outsiders.add("U_ANA")
        assert await t.say("go on", by=BEN, addressed=False) == "started"
        final = await t.final(2)
        assert final.outcome is Outcome.FAILED and "guest" in final.reason


async def test_an_agent_is_made_ready_while_its_code_comes(tmp_path: Path) -> None:
    program, looked_at = tmp_path / "agent", tmp_path / "looked-at"
    program.write_text(f"#!/bin/sh\ntouch '{looked_at}'\n")
    program.chmod(0o700)
    async with town(tmp_path, [waits_for_words], programs={"lines": Program((str(program),))}) as t:
        t.forge.far = asyncio.Event()
        await t.say("go")
        await t.until(looked_at.exists)
        t.forge.far.set()
        await t.until(lambda: is_running(t))


async def test_a_model_that_fails_ends_the_turn_with_its_reason(tmp_path: Path) -> None:
    async def fails(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(failed="Your credit balance is too low")

    async with town(tmp_path, [fails]) as t:
        await t.say("one")
        final = await t.final()
        assert final.outcome is Outcome.FAILED and "credit balance" in final.reason


async def test_a_steer_that_did_not_reach_stdin_is_written_again(tmp_path: Path) -> None:
    unhurried = replace(POLICY, deadlines=Deadlines(prepare=0, silence=0, publish=0))
    async with town(tmp_path, [waits_for_words], unhurried) as t:
        await t.say("add something")
        await t.until(lambda: is_running(t))
        t.box().deaf = 6
        await t.say("make it blue", addressed=False)
        final = await t.after_time(1, step=3.0)
        assert await t.forge.file(final.branch, "hello.txt") == "Ana: make it blue"


async def test_the_failed_attempt_is_ended_before_the_next_one_starts(tmp_path: Path) -> None:
    async def remembers(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(token="tok-1")
        agent.say(done="one")

    async def forgot(agent: ScriptedProcess) -> None:
        await agent.heard()
        agent.say(failed="No conversation found")

    async def looks(agent: ScriptedProcess) -> None:
        await agent.take()
        (box,) = t.provider.boxes.values()
        others = [process for process in box.processes.values() if process is not agent]
        agent.say(done=f"{[process.exit_code is not None for process in others]}")

    async with town(tmp_path, [remembers, forgot, looks]) as t:
        await t.say("one")
        await t.final(1)
        await t.say("two", addressed=False)
        assert (await t.final(2)).text == "[True, True]"


async def test_an_edit_while_we_prepare_is_what_the_agent_hears(tmp_path: Path) -> None:
    told: list[str] = []

    async def listens(agent: ScriptedProcess) -> None:
        told.append((await agent.take())["prompt"])
        agent.say(done="ok")

    async with town(tmp_path, [listens]) as t:
        t.slack.slow = asyncio.Event()
        await t.say("delete everything", key="said")
        await asyncio.wait_for(t.slack.asked.wait(), 20)
        assert await t.say("add hello", addressed=False, revises="said") == "revised"
        t.slack.slow.set()
        await t.final()
        assert "add hello" in told[0] and "delete everything" not in told[0]


async def test_words_that_are_no_frames_are_told_when_the_agent_dies(tmp_path: Path) -> None:
    async def cannot_start(agent: ScriptedProcess) -> None:
        agent.out += b"libc: GLIBC_2.38 not found\n"
        agent.exit(1)

    async with town(tmp_path, [cannot_start, cannot_start, cannot_start]) as t:
        await t.say("one")
        final = await t.after_time(step=1.0)
        assert "exit code 1" in final.reason and "GLIBC_2.38 not found" in final.reason


async def test_taking_the_label_off_when_nothing_runs_is_not_commented_on(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file]) as t:
        await t.say("add hello")
        await t.final()
        assert await t.say("", verb=Verb.STOP, addressed=False, ref=None) == "nothing"
        assert await t.say("", verb=Verb.STOP, addressed=False) == "nothing"
        await t.until(lambda: len(t.slack.notes()) == 1)
