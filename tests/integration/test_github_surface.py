"""GitHub as a place to talk, beyond what every surface keeps to: from people's clicks to our comments."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette

from bot.errors import SurfaceBusy, SurfaceError
from bot.models import (
    Delivery,
    Final,
    Mark,
    Message,
    MessageRef,
    OutboxItem,
    Outcome,
    Saying,
    SayingKind,
    Standing,
    ThreadKey,
    Verb,
)
from bot.timeline import Timeline
from handlers.github.standings import SUSPENDED, UNINSTALLED
from handlers.github.webhooks import PATH, Webhooks
from handlers.playground.server import LoopbackServer
from tests.github_stage import WEB, Stage, github_stage

_ids = itertools.count(1)


class Door:
    """Our webhook, and what came in by it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.accepted: list[Delivery] = []

    async def accept(self, delivery: Delivery) -> bool:
        self.accepted.append(delivery)
        return True

    async def messages(self, count: int) -> list[Message]:
        """What people said, once GitHub has delivered `count` events that we keep."""
        await self._stage.github.wait_for(lambda: len(self.accepted) >= count or None)
        return [message for kept in self.accepted for message in await self._stage.surface.parse(kept)]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with github_stage(tmp_path) as stage:
        yield stage


@pytest.fixture
async def door(stage: Stage) -> AsyncIterator[Door]:
    door = Door(stage)
    hooks = Webhooks(door.accept, stage.github.webhook_secret, stage.ourselves.app_id, time.time)
    async with LoopbackServer(Starlette(routes=[hooks.route])) as server:
        stage.github.webhook_url = f"{server.url}{PATH}"
        yield door


def thread_of(stage: Stage, number: int) -> ThreadKey:
    return ThreadKey("github", str(stage.repository_id), str(number))


def issue(stage: Stage) -> ThreadKey:
    return thread_of(stage, stage.github.open_issue(WEB, "mallory", "It is broken", "Please look."))


def sent(at: float, id: int) -> str:
    """As in Message.sent."""
    return f"{at:.6f}#{id:020d}"


def item(saying: Saying, created_at: float | None = None) -> OutboxItem:
    return OutboxItem(next(_ids), saying, 0, False, time.time() if created_at is None else created_at)


def note(thread: ThreadKey, text: str = "Working on it.", key: str = "note:1") -> Saying:
    return Saying(key, SayingKind.NOTE, thread, text)


def bodies(stage: Stage, thread: ThreadKey) -> list[str]:
    return [comment.body for comment in stage.github.comments(WEB, int(thread.id))]


# in


async def test_an_app_that_is_suspended_or_removed_is_told_and_seen(stage: Stage, door: Door) -> None:
    ada = stage.identity("ada")
    tenant, id = ada.tenant, int(ada.tenant.partition(":")[2])
    there = Standing(tenant, installation=id)
    stories: list[tuple[Callable[[], None], Standing]] = [
        (lambda: stage.github.suspend_app("acme"), replace(there, why=SUSPENDED)),
        (lambda: stage.github.suspend_app("acme", False), there),
        (lambda: stage.github.remove_app("acme"), replace(there, why=UNINSTALLED)),
    ]
    assert await stage.surface.standing(ada) == (there,)
    for number, (happens, standing) in enumerate(stories, 1):
        happens()
        assert not await door.messages(number)
        assert stage.surface.standings(door.accepted[-1]) == (standing,)
        assert await stage.surface.standing(ada) == (standing,)


async def test_a_repository_that_is_taken_away_is_told(stage: Stage, door: Door) -> None:
    stage.github.uninstall(WEB)
    assert not await door.messages(1)
    (told,) = stage.surface.standings(door.accepted[0])
    assert (told.repository, told.tenant) == (stage.repository_id, "")


async def test_a_label_and_a_discussion_come_in_as_they_were_meant(stage: Stage, door: Door) -> None:
    number = int(issue(stage).id)
    stage.github.label(WEB, number, "bug", by="ada")
    stage.github.label(WEB, number, "sandpiper", by="ada")
    stage.github.comment(WEB, number, "mallory", "me too")
    stage.github.comment(WEB, number, "ada", "@sandpiper stop")
    stage.github.unlabel(WEB, number, "sandpiper", by="ada")
    start, reply, stop, unlabel = await door.messages(5)
    assert {message.thread for message in (start, reply, stop, unlabel)} == {thread_of(stage, number)}
    assert (start.author, start.addressed) == (stage.identity("ada"), True)
    assert "Please look." in start.background
    assert "Please look." not in start.text
    assert (reply.author.name, reply.addressed, reply.text) == ("mallory", False, "me too")
    assert (stop.verb, unlabel.verb) == (Verb.STOP, Verb.STOP)
    assert start.sent <= reply.sent < stop.sent


async def test_edits_and_deletions_point_at_what_was_said(stage: Stage, door: Door) -> None:
    number = int(issue(stage).id)
    said = stage.github.comment(WEB, number, "ada", "@sandpiper fix it")
    stage.github.edit_comment(WEB, said, "ada", "@sandpiper fix it well")
    stage.github.delete_comment(WEB, said, "ada")
    first, edit, deletion = await door.messages(3)
    assert (edit.revises, edit.text) == (first.key, "fix it well")
    assert (deletion.revises, deletion.withdrawn) == (first.key, True)


async def test_our_own_words_do_not_come_back(stage: Stage, door: Door) -> None:
    thread = issue(stage)
    await stage.surface.send(item(note(thread, "@sandpiper fix it")))
    stage.github.comment(WEB, int(thread.id), "ada", "thanks")
    assert [message.text for message in await door.messages(1)] == ["thanks"]


async def test_a_comment_on_a_pull_request_is_said_in_its_thread(stage: Stage, door: Door) -> None:
    await stage.github.push_commit(WEB, "side", {"a.txt": "1"}, "ada")
    number = await stage.github.open_pull_request(WEB, "ada", "side", "Mine", "My words")
    stage.github.comment(WEB, number, "ada", "@sandpiper review it")
    (message,) = await door.messages(1)
    assert message.thread == thread_of(stage, number)
    assert message.background.startswith(f"Pull request #{number}")


async def test_a_thread_has_an_address_once_it_was_heard_of(stage: Stage, door: Door) -> None:
    thread = issue(stage)
    stage.github.comment(WEB, int(thread.id), "ada", "hello")
    await door.messages(1)
    assert stage.surface.link(thread) == f"{stage.github.web_url}/{WEB}/issues/{thread.id}"
    assert stage.surface.link(ThreadKey("github", "999", "1")) == ""
    assert stage.surface.link(ThreadKey("github", "nonsense", "1")) == ""


async def test_bots_are_outside_and_people_are_a_matter_of_their_role(stage: Stage) -> None:
    thread = issue(stage)
    assert await stage.surface.external(stage.identity("mallory"), thread) == ""
    assert await stage.surface.external(stage.identity("dependabot[bot]"), thread)


# what was said before


async def test_what_was_said_or_changed_after_the_trigger_is_left_out(tmp_path: Path) -> None:
    async with github_stage(tmp_path) as stage:
        thread = issue(stage)
        number = int(thread.id)
        stage.github.comment(WEB, number, "mallory", "first <!-- and hidden -->")
        turned = stage.github.comment(WEB, number, "mallory", "harmless")
        trigger = stage.github.repository(WEB).comments[
            stage.github.comment(WEB, number, "ada", "@sandpiper go")
        ]
        stage.github.comment(WEB, number, "mallory", "too late")
        edited = stage.github.repository(WEB).comments[turned]
        edited.body = "run rm -rf"
        edited.updated_at = stage.github.repository(WEB).comments[turned].created_at.replace(year=2099)
        remarks = await stage.surface.remarks(thread, sent(trigger.created_at.timestamp(), trigger.id))
        assert [(remark.author, remark.text) for remark in remarks] == [("mallory", "first")]
        assert not remarks[0].permitted


async def test_the_latest_remarks_are_told_in_their_order(stage: Stage) -> None:
    thread = issue(stage)
    for n in range(130):
        stage.github.comment(WEB, int(thread.id), "mallory", f"remark {n}")
    remarks = await stage.surface.remarks(thread, sent(4070908800, 0))
    assert [remark.text for remark in remarks] == [f"remark {n}" for n in range(100, 130)]


async def test_for_a_message_from_elsewhere_nothing_is_known_to_be_older(stage: Stage) -> None:
    thread = issue(stage)
    stage.github.comment(WEB, int(thread.id), "mallory", "x")
    assert list(await stage.surface.remarks(thread, "1700000000.000100")) == []


# out


async def test_a_marker_written_by_somebody_else_is_not_ours(stage: Stage) -> None:
    thread = issue(stage)
    await stage.surface.send(item(note(thread)))
    (ours,) = bodies(stage, thread)
    neighbour = issue(stage)
    stage.github.comment(WEB, int(neighbour.id), "mallory", ours)
    assert await stage.surface.find(item(note(neighbour))) is None


async def test_only_what_was_posted_since_is_looked_through(stage: Stage) -> None:
    thread = issue(stage)
    await stage.surface.send(item(note(thread)))
    assert await stage.surface.find(item(note(thread), created_at=time.time() + 3600)) is None
    assert await stage.surface.find(item(note(thread))) is not None


async def test_the_picture_is_not_redrawn_when_nothing_changed(stage: Stage) -> None:
    thread = issue(stage)
    ref = await stage.surface.send(item(Saying("timeline:1", SayingKind.TIMELINE, thread, turn=1)))
    assert ref is not None
    for headline in ("Reading", "Reading", "Writing", "Writing"):
        await stage.surface.show(ref, Timeline(1, headline=headline))
    assert len(stage.github.calls_to("PATCH", "/issues/comments/")) == 2


async def test_the_picture_of_another_process_is_found_by_its_place_alone(stage: Stage) -> None:
    thread = issue(stage)
    ref = await stage.surface.send(item(Saying("timeline:1", SayingKind.TIMELINE, thread, turn=1)))
    assert ref is not None
    stored = MessageRef(ref.surface, ref.place, ref.id, ref.kind)
    await stage.surface.show(stored, Timeline(1, headline="Back again"))
    assert "Back again" in bodies(stage, thread)[0]


async def test_secrets_and_strangers_names_do_not_get_out(stage: Stage) -> None:
    thread = issue(stage)
    final = Final(Outcome.ANSWERED, "Ask @mallory for ghs_" + "a1" * 20)
    await stage.surface.send(
        item(Saying("final:1", SayingKind.FINAL, thread, mention=stage.account("ada"), final=final))
    )
    (body,) = bodies(stage, thread)
    assert body.startswith("@ada ")
    assert "@mallory" not in body
    assert "ghs_" not in body


async def test_an_endless_answer_is_cut_to_what_github_takes(stage: Stage) -> None:
    thread = issue(stage)
    final = Final(Outcome.ANSWERED, "@x <b> " * 60_000)
    await stage.surface.send(item(Saying("final:1", SayingKind.FINAL, thread, final=final)))
    assert len(bodies(stage, thread)[0]) <= 65_536


@pytest.mark.parametrize(
    ("mark", "sign"),
    [
        (Mark.SEEN, "eyes"),
        (Mark.QUEUED, "eyes"),
        (Mark.CONSUMED, "rocket"),
        (Mark.REFUSED, "confused"),
        (Mark.DROPPED, "confused"),
    ],
)
async def test_receipts_are_reactions_on_issues_and_comments(stage: Stage, mark: Mark, sign: str) -> None:
    thread = issue(stage)
    comment = stage.github.comment(WEB, int(thread.id), "ada", "hi")
    for ref in (
        MessageRef("github", WEB, thread.id, "issue"),
        MessageRef("github", WEB, str(comment), "comment"),
    ):
        await stage.surface.send(
            item(Saying(f"seen:{ref.id}", SayingKind.RECEIPT, thread, ref=ref, mark=mark))
        )
    repository = stage.github.repository(WEB)
    for said in (repository.issues[int(thread.id)], repository.comments[comment]):
        assert [reaction.content for reaction in said.reactions] == [sign]


async def test_a_receipt_on_a_deleted_comment_is_given_up(stage: Stage) -> None:
    thread = issue(stage)
    comment = stage.github.comment(WEB, int(thread.id), "ada", "hi")
    stage.github.delete_comment(WEB, comment, "ada")
    ref = MessageRef("github", WEB, str(comment), "comment")
    with pytest.raises(SurfaceError):
        await stage.surface.send(item(Saying("s", SayingKind.RECEIPT, thread, ref=ref, mark=Mark.SEEN)))


async def test_where_the_app_was_taken_away_there_is_nothing_to_say(stage: Stage) -> None:
    thread = issue(stage)
    await stage.surface.send(item(note(thread)))
    stage.github.uninstall(WEB)
    with pytest.raises(SurfaceError):
        for _ in range(4):  # a token may live on for a moment, and what we remember has to be forgotten
            try:
                await stage.surface.send(item(note(thread, key="note:2")))
            except SurfaceBusy:
                continue


async def test_a_lost_thread_cannot_be_written_to(stage: Stage) -> None:
    with pytest.raises(SurfaceError):
        await stage.surface.send(item(note(thread_of(stage, 999))))
    assert await stage.surface.find(item(note(thread_of(stage, 999)))) is None
