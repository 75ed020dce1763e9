"""Slack end to end through the real Bolt and SDK: what comes in is kept before it is acknowledged, and
what goes out stands in the workspace."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from slack_sdk.signature import SignatureVerifier
from starlette.applications import Starlette

from bot.errors import Denied, SurfaceBusy, SurfaceError
from bot.models import (
    Ask,
    AskKind,
    Delivery,
    Final,
    Identity,
    Mark,
    Message,
    MessageRef,
    OutboxItem,
    Outcome,
    PullRequest,
    Saying,
    SayingKind,
    SharedFile,
    Standing,
    ThreadKey,
    Verb,
)
from bot.shared_files import LARGEST_FILE
from bot.timeline import Timeline
from handlers.playground.server import LoopbackServer
from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_app import SCOPES
from handlers.playground.slack_limits import NO_RATES
from handlers.playground.slack_state import DEFAULT_CHANNELS, DEFAULT_USERS, Channel, SlackError, User
from handlers.slack.install import Slack, connect

TEAM = "T_ACME"
GUEST = User("U_GIL", "gil", "Gil Guest", is_guest=True)
STRANGER = User("U_ZOE", "zoe", "Zoe Zorn", team_id="T_OTHER")
ROBOT = User("U_ROB", "rob", "Rob Robot", is_bot=True)
SHARED = Channel("C_SHARED", "shared", ["U_ANA", "U_ZOE", "U_BOT"], is_ext_shared=True)
PRIVATE = Channel("C_SECRET", "secret", ["U_ANA"], kind="group")
FINAL = Final(
    Outcome.PUBLISHED,
    "Stops the loop.",
    pull_request=PullRequest(482, "https://github.test/p/482", "Fix loop", "a1", "main", "acme/web"),
)


@dataclass
class Inbox:
    """What the core's store would have taken."""

    kept: list[Delivery] = field(default_factory=list)
    failures_to_come: int = 0

    async def accept(self, delivery: Delivery) -> bool:
        if self.failures_to_come:
            self.failures_to_come -= 1
            raise OSError("the disk is full")
        known = any(delivery.id == other.id for other in self.kept)
        if not known:
            self.kept.append(delivery)
        return not known


@dataclass
class Town:
    slack: SlackPlayground
    bot: Slack
    inbox: Inbox

    async def heard(self, count: int = 1) -> list[Message]:
        """The messages in what was kept, in the order they were written (Slack delivers in any order), as
        soon as everything has been acknowledged."""
        await self.slack.wait_for(lambda: self.slack.deliveries and not self.slack.undelivered)
        assert len(self.inbox.kept) == count, self.slack.describe()
        messages = [message for kept in self.inbox.kept for message in await self.bot.surface.parse(kept)]
        return sorted(messages, key=lambda message: float(message.sent))

    def said(self, thread: ThreadKey) -> list[str]:
        posts = self.slack.messages(thread.scope.partition("/")[2], thread.id)
        return [post.shown for post in posts if post.user == self.slack.bot_user_id]


def playground(**options: Any) -> SlackPlayground:
    return SlackPlayground(
        users=(*DEFAULT_USERS, GUEST, STRANGER, ROBOT),
        channels=(*DEFAULT_CHANNELS, SHARED, PRIVATE),
        rates=NO_RATES,
        retry_delays=(0.0, 0.0, 0.0),
        **options,
    )


@contextlib.asynccontextmanager
async def socket_mode(**options: Any) -> AsyncIterator[Town]:
    async with playground(**options).served() as slack:
        inbox = Inbox()
        bot = await connect(
            bot_token=slack.bot_token,
            app_token=slack.app_token,
            base_url=slack.api_url,
            accept=inbox.accept,
        )
        try:
            await bot.start()
            yield Town(slack, bot, inbox)
        finally:
            await bot.stop()


@pytest.fixture
async def town() -> AsyncIterator[Town]:
    async with socket_mode() as town:
        yield town


def in_dev(ts: str) -> ThreadKey:
    return ThreadKey("slack", f"{TEAM}/C_DEV", ts)


def item(saying: Saying, created_at: float | None = None) -> OutboxItem:
    return OutboxItem(1, saying, 0, False, created_at or time.time())


# In


async def test_who_leaves_is_told_and_whether_somebody_is_there_can_be_asked(town: Town) -> None:
    ana, home = Identity("slack", f"slack:{TEAM}", "U_ANA", "Ana"), Standing(f"slack:{TEAM}")
    there = replace(home, account="U_ANA")
    assert await town.bot.surface.standing(ana) == (home, there)
    town.slack.deactivate("U_ANA")
    assert not await town.heard(1)
    (told,) = town.bot.surface.standings(town.inbox.kept[0])
    assert told == replace(there, why="the account of this session's owner is deactivated")
    assert await town.bot.surface.standing(ana) == (home, told)
    town.slack.deactivate("U_ANA", False)  # as any other change of a profile: not kept, but asked about
    assert not await town.heard(1)
    assert await town.bot.surface.standing(ana) == (home, there)
    assert await town.bot.surface.standing(replace(ana, user="U_NOBODY")) == ()
    assert await town.bot.surface.standing(replace(ana, tenant="slack:T_OTHER")) == ()


async def test_a_workspace_that_removes_the_app_is_told_and_seen(town: Town) -> None:
    ana = Identity("slack", f"slack:{TEAM}", "U_ANA", "Ana")
    town.slack.uninstall()
    assert not await town.heard(2)
    removed = Standing(f"slack:{TEAM}", why="the app was removed from this Slack workspace")
    for kept in town.inbox.kept:
        assert town.bot.surface.standings(kept) == (removed,)
    assert await town.bot.surface.standing(ana) == (removed,)


async def test_a_mention_is_kept_and_understood(town: Town) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper ask @ben & fix <b> repo=acme/web")
    message, same = await town.heard(2)  # Slack tells of a mention by two events
    assert message == same
    assert message.thread == in_dev(ts)
    assert message.text == "ask @ben & fix <b>"
    assert message.options == {"repo": "acme/web"}
    assert message.author == Identity("slack", f"slack:{TEAM}", "U_ANA", "ana")
    assert {kept.lane for kept in town.inbox.kept} == {f"{TEAM}/C_DEV/{ts}"}
    assert {kept.kind for kept in town.inbox.kept} == {"event"}


async def test_replies_edits_and_deletions_come_after_their_thread(town: Town) -> None:
    root = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
    reply = town.slack.post("U_BEN", "C_DEV", "only on Safri", root)
    town.slack.edit("U_BEN", "C_DEV", reply, "only on Safari")
    town.slack.delete("U_BEN", "C_DEV", reply)
    *_, said, edited, gone = await town.heard(5)
    assert {said.thread, edited.thread, gone.thread} == {in_dev(root)}
    assert (edited.revises, edited.text) == (said.key, "only on Safari")
    assert (gone.revises, gone.withdrawn) == (said.key, True)


async def test_chatter_is_acknowledged_and_not_kept(town: Town) -> None:
    town.slack.post("U_ANA", "C_DEV", "lunch?")
    town.slack.post("U_BEN", "C_DEV", "ask @ana")
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
    await town.bot.surface.send(item(Saying("n", SayingKind.NOTE, in_dev(ts), "On it.")))
    assert len(await town.heard(2)) == 2


async def test_a_direct_message_needs_no_mention(town: Town) -> None:
    channel = town.slack.direct_channel("U_ANA")
    town.slack.post("U_ANA", channel, "fix it")
    (message,) = await town.heard()
    assert message.addressed
    assert await town.bot.surface.external(message.author, message.thread) == ""


async def test_what_cannot_be_kept_is_not_acknowledged_and_comes_again() -> None:
    async with socket_mode(ack_timeout=0.5) as town:
        town.inbox.failures_to_come = 1
        town.slack.post("U_ANA", town.slack.direct_channel("U_ANA"), "fix it")
        assert len(await town.heard()) == 1
        (delivery,) = town.slack.deliveries
        assert delivery.attempt >= 1


async def test_nothing_is_lost_while_sockets_come_and_go(town: Town) -> None:
    town.slack.rotate_connections()
    for number in range(5):
        town.slack.post("U_ANA", town.slack.direct_channel("U_ANA"), f"fix {number}")
    assert {message.text for message in await town.heard(5)} == {f"fix {number}" for number in range(5)}


async def test_a_slash_command_opens_a_thread_once(town: Town) -> None:
    await town.slack.slash("U_ANA", "C_DEV", "/sandpiper", "fix <this> & tell @ben")
    (message,) = await town.heard()
    assert message.text == "fix <this> & tell @ben"
    thread = await town.bot.surface.open_thread(message)
    assert await town.bot.surface.open_thread(message) == thread
    (root,) = town.slack.messages("C_DEV")
    assert (root.ts, root.text) == (thread.id, "<@U_ANA>: fix &lt;this&gt; &amp; tell @ben")
    assert await town.bot.surface.open_thread(replace(message, thread=thread)) == thread


async def test_a_lost_answer_does_not_open_a_second_thread(town: Town) -> None:
    await town.slack.slash("U_ANA", "C_DEV", "/sandpiper", "fix it")
    (message,) = await town.heard()
    town.slack.lose_answer_next("chat.postMessage")
    with pytest.raises(SurfaceBusy):
        await town.bot.surface.open_thread(message)
    thread = await town.bot.surface.open_thread(message)
    assert [root.ts for root in town.slack.messages("C_DEV")] == [thread.id]


async def test_a_command_is_answered_to_its_author_alone(town: Town) -> None:
    await town.slack.slash("U_ANA", "C_DEV", "/sandpiper", "status")
    (message,) = await town.heard()
    assert message.verb is Verb.STATUS
    answer = Saying("a", SayingKind.NOTE, message.thread, "Nothing runs.", private=message.private)
    for _ in range(5):
        assert await town.bot.surface.send(item(answer)) is None
    assert {post.text for post in town.slack.ephemerals("U_ANA")} == {"Nothing runs."}
    assert town.slack.messages("C_DEV") == []
    with pytest.raises(SurfaceError, match="used_url"):
        await town.bot.surface.send(item(answer))


async def test_the_stop_button_stops_its_turn(town: Town) -> None:
    root = town.slack.post("U_ANA", town.slack.direct_channel("U_ANA"), "fix it")
    (start,) = await town.heard()
    picture = Saying("timeline:7", SayingKind.TIMELINE, start.thread, turn=7)
    ref = await town.bot.surface.send(item(picture))
    assert ref is not None
    await town.slack.click("U_ANA", ref.place, ref.id, "sandpiper_stop")
    _, stop = await town.heard(2)
    assert (stop.verb, stop.thread.id, stop.options) == (Verb.STOP, root, {"turn": "7"})
    assert stop.author == start.author
    refusal = Saying("a", SayingKind.NOTE, stop.thread, "You may not.", private=stop.private)
    await town.bot.surface.send(item(refusal))
    (whispered,) = town.slack.ephemerals("U_ANA")
    assert (whispered.text, whispered.thread_ts) == ("You may not.", root)


async def test_opening_the_pull_request_is_acknowledged_and_says_nothing(town: Town) -> None:
    ts = town.slack.post("U_ANA", "C_RANDOM", "lunch?")
    thread = ThreadKey("slack", f"{TEAM}/C_RANDOM", ts)
    ref = await town.bot.surface.send(item(Saying("f", SayingKind.FINAL, thread, final=FINAL)))
    assert ref is not None
    await town.slack.click("U_ANA", "C_RANDOM", ref.id, "sandpiper_open")
    assert await town.heard(0) == []


async def test_a_command_that_cannot_be_kept_is_refused_to_its_author() -> None:
    async with socket_mode(ack_timeout=0.5) as town:
        town.inbox.failures_to_come = 1
        with pytest.raises(SlackError):
            await town.slack.slash("U_ANA", "C_DEV", "/sandpiper", "fix it")


# Who


async def test_who_and_what_is_outside(town: Town) -> None:
    for user, channel, reason in (
        ("U_ANA", "C_DEV", ""),
        ("U_GIL", "C_DEV", "guest"),
        ("U_ZOE", "C_DEV", "another organisation"),
        ("U_ROB", "C_DEV", "bot"),
        ("U_ANA", "C_SHARED", "shared with another organisation"),
        ("U_NOBODY", "C_DEV", "user_not_found"),
        ("USLACKBOT", "C_DEV", "user_not_found"),
    ):
        person = Identity("slack", f"slack:{TEAM}", user, user)
        why = await town.bot.surface.external(person, ThreadKey("slack", f"{TEAM}/{channel}", "1.0"))
        assert reason in why
        assert bool(why) == bool(reason)


async def test_in_a_private_channel_without_us_people_hear_how_to_let_us_in(town: Town) -> None:
    thread = ThreadKey("slack", f"{TEAM}/C_SECRET", "1.0")
    ana, zoe = (Identity("slack", f"slack:{TEAM}", user, user) for user in ("U_ANA", "U_ZOE"))
    with pytest.raises(Denied, match=r"not in this channel.*/invite"):
        await town.bot.surface.external(ana, thread)
    assert "another organisation" in await town.bot.surface.external(zoe, thread)


async def test_a_direct_message_is_told_from_a_channel(town: Town) -> None:
    direct = town.slack.direct_channel("U_ANA")
    assert town.bot.surface.direct(ThreadKey("slack", f"{TEAM}/{direct}", "1.0"))
    assert not town.bot.surface.direct(in_dev("1.0"))


async def test_who_is_outside_is_asked_once_in_a_while_and_never_guessed(town: Town) -> None:
    ana, thread = Identity("slack", f"slack:{TEAM}", "U_ANA", "ana"), in_dev("1.0")
    town.slack.fail_next("users.info", "ratelimited", retry_after=9)
    with pytest.raises(SurfaceBusy):
        await town.bot.surface.external(ana, thread)
    town.slack.fail_next("users.info", "missing_scope")
    assert "missing_scope" in await town.bot.surface.external(ana, thread)
    for _ in range(3):
        assert await town.bot.surface.external(ana, thread) == ""
    assert len(town.slack.calls_of("users.info")) == 3


async def test_names_are_not_worth_losing_a_message(town: Town) -> None:
    town.slack.fail_next("users.info", "internal_error", status=500)
    town.slack.post("U_ANA", town.slack.direct_channel("U_ANA"), "fix it")
    (message,) = await town.heard()
    assert message.author.name == "U_ANA"


async def test_what_alerts_and_others_said_before_is_told(town: Town) -> None:
    root = town.slack.post("U_EVE", "C_DEV", "login is down & https://acme.test too")
    now = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it", root)
    remarks = await town.bot.surface.remarks(in_dev(root), now)
    assert [(remark.author, remark.text) for remark in remarks] == [
        ("eve", "login is down & https://acme.test too")
    ]
    town.slack.post("U_EVE", "C_DEV", "", root, files={"<@U_ANA>.png": b"png"})
    then = town.slack.post("U_ANA", "C_DEV", "@sandpiper see", root)
    told = (await town.bot.surface.remarks(in_dev(root), then))[-1]
    assert told.text == "(attached there, and not brought here: <@U_ANA>.png)"
    assert await town.bot.surface.remarks(in_dev(""), now) == ()
    assert await town.bot.surface.remarks(in_dev("1600000000.000100"), now) == []


async def test_a_long_thread_is_told_by_its_root_and_its_newest(town: Town) -> None:
    root = town.slack.post("U_ANA", "C_DEV", "the beginning")
    for number in range(230):
        last = town.slack.post("U_BEN", "C_DEV", f"reply {number}", root)
    texts = [remark.text for remark in await town.bot.surface.remarks(in_dev(root), last)]
    assert texts[0] == "the beginning"
    assert texts[1:] == [f"reply {number}" for number in range(180, 229)]


# Out


async def test_a_workspace_without_plan_and_card_blocks_gets_plain_ones() -> None:
    async with socket_mode(unsupported_blocks=("plan", "card")) as town:
        ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
        picture = Saying("timeline:7", SayingKind.TIMELINE, in_dev(ts), turn=7)
        ref = await town.bot.surface.send(item(picture))
        assert ref is not None
        await town.bot.surface.show(ref, Timeline(7, headline="Running pytest"))
        await town.bot.surface.send(item(Saying("f", SayingKind.FINAL, in_dev(ts), final=FINAL)))
        shown, ending = town.said(in_dev(ts))
        assert "Running pytest" in shown
        assert "#482 Fix loop" in ending
        refused = [call for call in town.slack.calls if call.error == "invalid_blocks"]
        assert len(refused) == 1, "what the workspace refuses is learnt once"


async def test_words_are_said_even_where_no_blocks_are_taken() -> None:
    async with socket_mode(unsupported_blocks=("plan", "card", "section", "context", "actions")) as town:
        ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
        ending = Saying("f", SayingKind.FINAL, in_dev(ts), mention="U_ANA", final=FINAL)
        await town.bot.surface.send(item(ending))
        assert town.said(in_dev(ts)) == ["<@U_ANA> The pull request is ready.\nStops the loop."]


async def test_an_unchanged_picture_is_not_drawn_again(town: Town) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
    ref = await town.bot.surface.send(item(Saying("t", SayingKind.TIMELINE, in_dev(ts), turn=7)))
    assert ref is not None
    picture = Timeline(7, headline="Running pytest", tokens=1200)
    await town.bot.surface.show(ref, picture)
    await town.bot.surface.show(ref, replace(picture, tokens=1201))
    assert len(town.slack.calls_of("chat.update")) == 1
    await town.bot.surface.show(ref, picture.ended(FINAL))
    assert len(town.slack.calls_of("chat.update")) == 2


async def test_only_our_own_posts_carry_our_marker(town: Town) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
    saying = item(Saying("n", SayingKind.NOTE, in_dev(ts), "On it."))
    forged = town.slack.post("U_EVE", "C_DEV", "On it.", ts)
    town.slack.message("C_DEV", forged).metadata = {
        "event_type": "sandpiper",
        "event_payload": {"key": "n"},
    }
    assert await town.bot.surface.find(saying) is None


async def test_a_post_is_found_in_a_long_thread(town: Town) -> None:
    root = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
    for number in range(220):
        town.slack.post("U_BEN", "C_DEV", f"reply {number}", root)
    saying = item(Saying("n", SayingKind.NOTE, in_dev(root), "On it."))
    ref = await town.bot.surface.send(saying)
    assert await town.bot.surface.find(saying) == ref


async def test_a_thread_whose_root_is_gone_takes_nothing_and_holds_nothing(town: Town) -> None:
    saying = item(Saying("n", SayingKind.NOTE, in_dev("1600000000.000100"), "On it."))
    assert await town.bot.surface.find(saying) is None
    with pytest.raises(SurfaceError, match="thread_not_found"):
        await town.bot.surface.send(saying)


async def test_the_waiting_mark_gives_way_whichever_it_was(town: Town) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "queue: and this")
    ref = MessageRef("slack", "C_DEV", ts)
    for mark in (Mark.QUEUED, Mark.CONSUMED):
        await town.bot.surface.send(item(Saying(mark, SayingKind.RECEIPT, in_dev(ts), ref=ref, mark=mark)))
    assert town.slack.reactions("C_DEV", ts) == {"white_check_mark": ["U_BOT"]}


async def test_a_refusal_says_what_mends_it(town: Town) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
    for error, mend in (
        ("not_in_channel", "/invite"),
        ("token_revoked", "token"),
        ("is_archived", "archived"),
        ("some_new_error", "some_new_error"),
    ):
        town.slack.fail_next("chat.postMessage", error)
        with pytest.raises(SurfaceError, match=mend):
            await town.bot.surface.send(item(Saying("n", SayingKind.NOTE, in_dev(ts), "On it.")))


async def test_a_lost_connection_is_busy_and_never_repeated_by_itself(town: Town) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
    town.slack.lose_request_next("chat.postMessage")
    with pytest.raises(SurfaceBusy):
        await town.bot.surface.send(item(Saying("n", SayingKind.NOTE, in_dev(ts), "On it.")))
    assert town.said(in_dev(ts)) == []


async def test_an_address_leads_to_the_thread(town: Town) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
    assert town.bot.surface.link(in_dev(ts)) == town.slack.permalink("C_DEV", ts)
    assert town.bot.surface.link(in_dev("")) == ""


# Files


def sharing(thread: ThreadKey, directory: Path, data: bytes, key: str = "file:1") -> OutboxItem:
    path = directory / key.replace(":", "-")
    path.write_bytes(data)
    return item(
        Saying(
            key,
            SayingKind.FILE,
            thread,
            mention="U_ANA",
            file=SharedFile(str(path), "report.csv", "Timings", len(data)),
        )
    )


async def test_a_missing_scope_is_named_with_what_mends_it(tmp_path: Path) -> None:
    scopes = tuple(scope for scope in SCOPES if scope != "files:write")
    async with socket_mode(scopes=scopes) as town:
        ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper measure it")
        with pytest.raises(SurfaceError, match=r"add the scope files:write .* install it again"):
            await town.bot.surface.send(sharing(in_dev(ts), tmp_path, b"12 ms"))
        assert town.said(in_dev(ts)) == []


@pytest.mark.parametrize(
    ("method", "error", "mend"),
    [
        ("files.getUploadURLExternal", "file_uploads_disabled", "no uploads"),
        ("files.getUploadURLExternal", "file_type_not_allowed", "kind of file"),
        ("files.completeUploadExternal", "not_in_channel", "/invite"),
        ("upload", "broken_upload", "upload_failed"),
    ],
)
async def test_a_file_that_slack_refuses_is_refused(
    town: Town, tmp_path: Path, method: str, error: str, mend: str
) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper measure it")
    town.slack.fail_next(method, error, status=403 if method == "upload" else 200)
    with pytest.raises(SurfaceError, match=mend):
        await town.bot.surface.send(sharing(in_dev(ts), tmp_path, b"12 ms"))


@pytest.mark.parametrize("method", ["files.getUploadURLExternal", "upload", "files.completeUploadExternal"])
async def test_a_file_is_shared_once_whichever_call_is_lost(town: Town, tmp_path: Path, method: str) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper measure it")
    saying = sharing(in_dev(ts), tmp_path, b"12 ms")
    faults: list[Callable[[], None]] = [
        lambda: town.slack.lose_request_next(method),
        lambda: town.slack.fail_next(method, "ratelimited", retry_after=7),
        lambda: town.slack.fail_next(method, "internal_error", status=500),
        lambda: town.slack.lose_answer_next(method),
    ]
    for fault in faults:
        fault()
        with pytest.raises(SurfaceBusy):
            await town.bot.surface.send(saying)
        saying = replace(saying, tried=True)
        if found := await town.bot.surface.find(saying):
            break
    else:
        found = await town.bot.surface.send(saying)
    assert found is not None
    (message,) = town.slack.messages("C_DEV", ts)[1:]
    assert (message.ts, message.files[0]["name"], message.files[0]["title"]) == (
        found.id,
        "report.csv",
        "Timings",
    )
    assert message.shown == "<@U_ANA> *Timings* `report.csv` · 5 bytes"


async def test_a_large_file_is_shared(town: Town, tmp_path: Path) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper measure it")
    await town.bot.surface.send(sharing(in_dev(ts), tmp_path, bytes(LARGEST_FILE)))
    (message,) = town.slack.messages("C_DEV", ts)[1:]
    file = town.slack.file(message.files[0]["id"])
    assert file is not None and file.data == bytes(LARGEST_FILE)


async def test_a_file_that_stands_there_later_is_waited_for(town: Town, tmp_path: Path) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper measure it")
    town.slack.file_delay = 0.3
    ref = await town.bot.surface.send(sharing(in_dev(ts), tmp_path, b"12 ms"))
    assert ref is not None
    assert town.slack.message("C_DEV", ref.id).files


async def test_a_file_that_slack_takes_and_never_shows_is_tried_again_and_then_told(
    town: Town, tmp_path: Path
) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper measure it")
    saying = sharing(in_dev(ts), tmp_path, b"12 ms")
    town.slack.drop_file_next(2)
    with pytest.raises(SurfaceBusy, match="does not show it yet"):
        await town.bot.surface.send(saying)
    with pytest.raises(SurfaceError, match="does not show it"):
        await town.bot.surface.send(replace(saying, tried=True, attempts=2))
    assert town.said(in_dev(ts)) == []
    assert await town.bot.surface.send(replace(saying, tried=True, attempts=1)) is not None


async def test_a_file_is_found_where_slack_gives_its_block_another_id(town: Town, tmp_path: Path) -> None:
    ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper measure it")
    saying = sharing(in_dev(ts), tmp_path, b"12 ms")
    ref = await town.bot.surface.send(saying)
    assert ref is not None
    town.slack.message("C_DEV", ref.id).blocks[0]["block_id"] = "Xy1"
    assert await town.bot.surface.find(saying) == ref


async def test_what_is_approved_is_not_asked_for_where_it_cannot_be_shown() -> None:
    async with socket_mode(unsupported_blocks=("rich_text",)) as town:
        ts = town.slack.post("U_ANA", "C_DEV", "@sandpiper fix it")
        ana = Identity("slack", f"slack:{TEAM}", "U_ANA", "Ana")
        ask = Ask(12, 3, "a", AskKind.APPROVAL, "Run rm", "rm -rf build", (), ana, 1_800_000_000.0)
        with pytest.raises(SurfaceError, match="invalid_blocks"):
            await town.bot.surface.send(item(Saying("ask:12", SayingKind.ASK, in_dev(ts), ask=ask)))
        assert town.said(in_dev(ts)) == []


# Connecting


async def test_who_we_are_is_asked_once_and_not_for_each_event(town: Town) -> None:
    for _ in range(3):
        town.slack.post("U_ANA", town.slack.direct_channel("U_ANA"), "fix it")
    await town.heard(3)
    assert len(town.slack.calls_of("auth.test")) == 1
    assert town.slack.connections == 2


async def test_a_scope_that_is_missing_is_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with socket_mode():
            assert "lacks" not in caplog.text
        async with socket_mode(scopes=[scope for scope in SCOPES if scope != "files:write"]):
            assert "lacks the scopes files:write: add them" in caplog.text


async def test_a_wrong_token_is_named_at_the_start() -> None:
    async with playground().served() as slack:
        with pytest.raises(SurfaceError, match="xoxb"):
            await connect(
                bot_token="xoxb-wrong", app_token="xapp-1", base_url=slack.api_url, accept=Inbox().accept
            )
        bot = await connect(
            bot_token=slack.bot_token, app_token="xapp-wrong", base_url=slack.api_url, accept=Inbox().accept
        )
        try:
            with pytest.raises(SurfaceError, match="invalid_auth"):
                await bot.start()
        finally:
            await bot.stop()


async def test_a_start_that_slack_limited_opens_only_the_socket_that_is_missing() -> None:
    """Slack grants few of them a minute: a start that took all of them anew would limit itself."""
    async with playground().served() as slack:
        slack.fail_next("apps.connections.open", "ratelimited", retry_after=30, after=1)
        bot = await connect(
            bot_token=slack.bot_token,
            app_token=slack.app_token,
            base_url=slack.api_url,
            accept=Inbox().accept,
        )
        try:
            with pytest.raises(SurfaceBusy) as limited:
                await bot.start()
            assert limited.value.retry_after == 30
            assert slack.connections == 1
            await bot.start()
            assert slack.connections == 2
            assert len(slack.calls_of("apps.connections.open")) == 3
        finally:
            await bot.stop()


async def test_a_slack_that_is_not_there_is_worth_another_try() -> None:
    async with playground().served() as slack:
        api, token = slack.api_url, slack.bot_token
    with pytest.raises(SurfaceBusy):
        await connect(bot_token=token, app_token="xapp-1", base_url=api, accept=Inbox().accept)


async def test_a_bot_that_nobody_can_reach_says_what_is_missing() -> None:
    with pytest.raises(SurfaceError, match="signing secret"):
        await connect(bot_token="xoxb-1", accept=Inbox().accept)


@contextlib.asynccontextmanager
async def by_http() -> AsyncIterator[tuple[Town, str]]:
    async with playground().served() as slack:
        inbox = Inbox()
        bot = await connect(
            bot_token=slack.bot_token,
            signing_secret=slack.signing_secret,
            base_url=slack.api_url,
            accept=inbox.accept,
        )
        await bot.start()
        try:
            async with LoopbackServer(Starlette(routes=[bot.route()])) as server:
                slack.request_url = f"{server.url}/slack/events"
                yield Town(slack, bot, inbox), slack.request_url
        finally:
            await bot.stop()


async def test_events_commands_and_clicks_come_by_http_too() -> None:
    async with by_http() as (town, _):
        assert await town.slack.verify_request_url()
        town.inbox.failures_to_come = 1
        channel = town.slack.direct_channel("U_ANA")
        ts = town.slack.post("U_ANA", channel, "fix it")
        await town.heard()
        await town.slack.slash("U_ANA", "C_DEV", "/sandpiper", "status")
        thread = ThreadKey("slack", f"{TEAM}/{channel}", ts)
        ref = await town.bot.surface.send(item(Saying("t", SayingKind.TIMELINE, thread, turn=7)))
        assert ref is not None
        await town.slack.click("U_ANA", channel, ref.id, "sandpiper_stop")
        messages = await town.heard(3)
        assert [message.verb for message in messages] == [None, Verb.STATUS, Verb.STOP]


async def test_what_is_not_signed_is_turned_away_before_it_is_read() -> None:
    unsigned: list[dict[bytes, bytes]] = [
        {},
        {b"x-slack-request-timestamp": b"soon", b"x-slack-signature": "v0=ü".encode()},
    ]
    bodies = [b"{", b"[]", b"\xff\xfe", b"payload=%7B", b"", b'{"type":"event_callback"}']
    async with by_http() as (town, url), httpx.AsyncClient(trust_env=False) as stranger:
        for body, headers in itertools.product(bodies, unsigned):
            answer = await stranger.post(url, content=body, headers=headers)
            assert answer.status_code == 401
        assert town.inbox.kept == []


async def test_an_old_request_is_turned_away_though_it_is_signed() -> None:
    async with by_http() as (town, url), httpx.AsyncClient(trust_env=False) as stranger:
        body = json.dumps({"type": "url_verification", "challenge": "c"})
        for age, status in ((0, 200), (301, 401)):
            stamp = str(int(time.time()) - age)
            signature = SignatureVerifier(town.slack.signing_secret).generate_signature(
                timestamp=stamp, body=body
            )
            answer = await stranger.post(
                url,
                content=body,
                headers={
                    "content-type": "application/json",
                    "x-slack-request-timestamp": stamp,
                    "x-slack-signature": str(signature),
                },
            )
            assert answer.status_code == status
