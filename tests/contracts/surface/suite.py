"""What every surface keeps to (bot.ports.Surface). Subclass it as Test…, with a fixture `rig`."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest

from bot.errors import SurfaceBusy, SurfaceError
from bot.events import Phase, ToolCall, ToolKind, ToolStatus
from bot.models import (
    Final,
    Mark,
    MessageRef,
    OutboxItem,
    Outcome,
    PullRequest,
    Saying,
    SayingKind,
    ThreadKey,
)
from bot.timeline import Timeline
from tests.contracts.surface.rig import SurfaceRig

PULL = PullRequest(
    number=482,
    url="https://github.example/acme/web/pull/482",
    title="Fix login redirect loop",
    head="a1b2",
    base="main",
    repository="acme/web",
    commits=2,
    files=3,
    added=48,
    removed=12,
)
WORKING = Timeline(7, label="acme/web@main · claude").apply(
    [
        Phase("agent", "Starting the agent"),
        ToolCall("t1", ToolKind.EDIT, "Edited login.py", ToolStatus.COMPLETED, "src/login.py"),
        ToolCall("t2", ToolKind.EXECUTE, "Running pytest", ToolStatus.IN_PROGRESS, "pytest tests/auth"),
    ]
)

_ids = itertools.count(1)


def item(saying: Saying, *, tried: bool = False) -> OutboxItem:
    return OutboxItem(next(_ids), saying, attempts=int(tried), tried=tried, created_at=time.time())


def note(thread: ThreadKey, text: str = "Working on it.", key: str = "note:1", mention: str = "") -> Saying:
    return Saying(key, SayingKind.NOTE, thread, text, mention)


def receipt(thread: ThreadKey, ref: MessageRef, mark: Mark) -> Saying:
    return Saying(f"receipt:{ref.id}:{mark}", SayingKind.RECEIPT, thread, ref=ref, mark=mark)


def first_picture(thread: ThreadKey) -> Saying:
    return Saying("timeline:7", SayingKind.TIMELINE, thread, turn=7)


class SurfaceContract:
    # Said once

    async def test_a_saying_is_posted_and_found_again(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        saying = item(note(thread))
        assert await rig.surface.find(saying) is None
        ref = await rig.surface.send(saying)
        assert ref is not None
        assert await rig.surface.find(saying) == ref
        (post,) = await rig.posts(thread)
        assert "Working on it." in post

    async def test_a_lost_answer_is_found_and_not_said_twice(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        saying = item(note(thread))
        rig.lose_next_answer()
        with pytest.raises(SurfaceBusy):
            await rig.surface.send(saying)
        assert await rig.surface.find(replace(saying, tried=True)) is not None
        assert len(await rig.posts(thread)) == 1

    async def test_sayings_are_told_apart_by_their_keys(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        one, other = item(note(thread, key="note:1")), item(note(thread, key="note:12"))
        ref = await rig.surface.send(other)
        assert await rig.surface.find(one) is None
        assert await rig.surface.find(other) == ref

    async def test_threads_are_told_apart(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        neighbour, _ = await rig.open("fix the logout loop")
        await rig.surface.send(item(note(thread)))
        assert await rig.surface.find(item(note(neighbour))) is None
        assert await rig.posts(neighbour) == []

    async def test_a_person_is_called_by_name(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        await rig.surface.send(item(note(thread, mention=rig.member.user)))
        (post,) = await rig.posts(thread)
        assert rig.called(rig.member) in post

    async def test_a_question_is_posted(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        await rig.surface.send(item(Saying("q:1", SayingKind.QUESTION, thread, "Which repository?")))
        (post,) = await rig.posts(thread)
        assert "Which repository?" in post

    async def test_a_long_text_is_taken(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("explain the whole code")
        ending = Final(Outcome.ANSWERED, "\n".join(f"{n}. a line & <more>" for n in range(1_000)))
        await rig.surface.send(item(Saying("final:7", SayingKind.FINAL, thread, final=ending)))
        (post,) = await rig.posts(thread)
        assert "999." in post

    # Endings

    async def test_a_published_turn_ends_with_its_pull_request(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        ending = Final(
            Outcome.PUBLISHED, "Stops the loop.", pull_request=PULL, notes=("I committed what was left.",)
        )
        saying = Saying("final:7", SayingKind.FINAL, thread, mention=rig.member.user, final=ending)
        await rig.surface.send(item(saying))
        (post,) = await rig.posts(thread)
        for words in (PULL.url, PULL.title, "Stops the loop.", "I committed what was left."):
            assert words in post
        assert rig.called(rig.member) in post

    @pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.UNPUBLISHED, Outcome.STOPPED])
    async def test_every_other_ending_says_why_and_what_mends_it(
        self, rig: SurfaceRig, outcome: Outcome
    ) -> None:
        thread, _ = await rig.open("fix the login loop")
        ending = Final(outcome, "", reason="The door was shut.", mend="Open the door.")
        await rig.surface.send(item(Saying("final:7", SayingKind.FINAL, thread, final=ending)))
        (post,) = await rig.posts(thread)
        assert "The door was shut." in post
        assert "Open the door." in post

    # Receipts

    async def test_a_receipt_given_twice_is_one(self, rig: SurfaceRig) -> None:
        thread, ref = await rig.open("fix the login loop")
        for _ in range(2):
            await rig.surface.send(item(receipt(thread, ref, Mark.SEEN)))
        assert list(await rig.marks(ref)) == [Mark.SEEN]

    async def test_the_receipt_changes_when_the_agent_has_read_it(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        ref, _ = await rig.reply(thread, "also keep ?next=")
        await rig.surface.send(item(receipt(thread, ref, Mark.SEEN)))
        await rig.surface.send(item(receipt(thread, ref, Mark.CONSUMED)))
        assert list(await rig.marks(ref)) == [Mark.CONSUMED]

    # The picture

    async def test_the_picture_is_redrawn_in_place(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        saying = item(first_picture(thread))
        ref = await rig.surface.send(saying)
        assert ref is not None
        await rig.surface.show(ref, WORKING)
        (post,) = await rig.posts(thread)
        for words in ("Running pytest", "Edited login.py", "src/login.py", "acme/web@main"):
            assert words in post

        await rig.surface.show(ref, WORKING.ended(Final(Outcome.PUBLISHED, "Done.", seconds=372.0)))
        (post,) = await rig.posts(thread)
        assert "Worked for 6m 12s" in post
        assert await rig.surface.find(saying) == ref

    async def test_a_deleted_picture_is_given_up(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        ref = await rig.surface.send(item(first_picture(thread)))
        assert ref is not None
        await rig.delete(ref)
        with pytest.raises(SurfaceError):
            await rig.surface.show(ref, WORKING)

    async def test_pictures_are_paced(self, rig: SurfaceRig) -> None:
        assert 0 < rig.surface.redraw_interval(1) <= rig.surface.redraw_interval(50)

    # When the service is busy

    async def test_a_rate_limit_says_when_to_come_back(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        rig.limit_next(17)
        with pytest.raises(SurfaceBusy) as busy:
            await rig.surface.send(item(note(thread)))
        assert busy.value.retry_after >= 17
        assert await rig.posts(thread) == []
        assert await rig.surface.send(item(note(thread), tried=True)) is not None

    async def test_an_internal_error_is_worth_another_try(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        rig.break_next()
        with pytest.raises(SurfaceBusy) as busy:
            await rig.surface.send(item(note(thread)))
        assert busy.value.retry_after > 0

    # What is there

    async def test_what_was_said_before_is_told_and_our_own_words_are_not(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("the login page loops")
        await rig.reply(thread, "only with ?next= & a <session>")
        await rig.surface.send(item(note(thread, "Our own words.")))
        _, now = await rig.reply(thread, "please fix it")
        await rig.reply(thread, "too late")
        remarks = await rig.surface.remarks(thread, now)
        assert [remark.text for remark in remarks][-1:] == ["only with ?next= & a <session>"]
        assert {remark.author for remark in remarks} == {rig.member.name}
        words = " ".join(remark.text for remark in remarks)
        assert "please fix it" not in words
        assert "too late" not in words
        assert "Our own words" not in words

    async def test_a_thread_has_an_address(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        assert rig.surface.link(thread).startswith(("http://", "https://"))

    async def test_members_belong_and_outsiders_do_not(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        assert await rig.surface.external(rig.member, thread) == ""
        if rig.outsider is not None:
            assert await rig.surface.external(rig.outsider, thread) != ""
