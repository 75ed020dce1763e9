"""What every surface keeps to (bot.ports.Surface). Subclass it as Test…, with a fixture `rig`."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bot.errors import SurfaceBusy, SurfaceError
from bot.events import Phase, ToolCall, ToolKind, ToolStatus
from bot.models import (
    Ask,
    AskKind,
    AskState,
    Final,
    Identity,
    Mark,
    MessageRef,
    OutboxItem,
    Outcome,
    PullRequest,
    Saying,
    SayingKind,
    SharedFile,
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


STEPS = 1_000
WISH = Ask(
    12,
    3,
    "plan-1",
    AskKind.APPROVAL,
    "Carry out this plan",
    "\n".join(f'step {number}: change a table & its "index"' for number in range(STEPS)),
    (),
    Identity("nowhere", "", "", "Ana"),
    1_800_000_000.0,
)


def wish(thread: ThreadKey, person: Identity) -> Saying:
    ask = replace(WISH, asked=person)
    return Saying("ask:12", SayingKind.ASK, thread, mention=person.user, turn=3, ask=ask)


def sharing(
    thread: ThreadKey,
    directory: Path,
    data: bytes,
    name: str = "timings.txt",
    *,
    title: str = "",
    key: str = "file:1",
) -> Saying:
    path = directory / key.replace(":", "-")
    path.write_bytes(data)
    return Saying(key, SayingKind.FILE, thread, file=SharedFile(str(path), name, title, len(data)))


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

    async def test_a_reset_is_offered_and_what_came_of_it_stands_in_its_place(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("fix the login loop")
        offer = Saying("reset:7", SayingKind.NOTE, thread, "Delete it, with `build & run`?", reset=7)
        ref = await rig.surface.send(item(offer))
        assert ref is not None and await rig.surface.find(item(offer, tried=True)) == ref
        (post,) = await rig.posts(thread)
        assert "Delete it" in post
        over = Saying("reset:7:over", SayingKind.ASKED, thread, "Ana reset it.", amends="reset:7", ref=ref)
        for _ in range(2):
            await rig.surface.send(item(over))
        (post,) = await rig.posts(thread)
        assert "Ana reset it." in post and "Delete" not in post

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

    # What is asked

    async def test_what_is_approved_is_shown_whole_before_people_can_say_so(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("migrate the database")
        await rig.surface.send(item(wish(thread, rig.member)))
        posts = await rig.posts(thread)
        words = "".join(posts)
        assert all(f"step {number}:" in words for number in range(STEPS))
        places = [index for index, post in enumerate(posts) if "approve 12" in post]
        assert places == [len(posts) - 1]
        assert f"step {STEPS - 1}:" in posts[-1]

    async def test_what_has_the_form_of_a_secret_hides_nothing_that_is_approved(
        self, rig: SurfaceRig
    ) -> None:
        """Between the lines of a key, or where a URL has its password, a shell finds commands."""
        thread, _ = await rig.open("migrate the database")
        between = ": '-----BEGIN RSA PRIVATE KEY-----'; touch hidden-one; : '-----END RSA PRIVATE KEY-----'"
        detail = f"{between}\ncurl http://a:`touch${{IFS}}hidden-two`@b\nMY_TOKEN=x;touch<hidden-three>y make"
        saying = wish(thread, rig.member)
        shown = replace(WISH, asked=rig.member, detail=detail)
        ref = await rig.surface.send(item(replace(saying, ask=shown)))
        over = replace(shown, state=AskState.SETTLED, allowed=True, by="Ben")
        before = "".join(await rig.posts(thread))
        await rig.surface.send(item(Saying("ask:12:over", SayingKind.ASKED, thread, ref=ref, ask=over)))
        after = "".join(await rig.posts(thread))
        for words in (before, after):
            assert all(f"hidden-{number}" in words for number in ("one", "two", "three"))

    async def test_a_long_wish_that_was_interrupted_goes_on_where_it_was(self, rig: SurfaceRig) -> None:
        thread, _ = await rig.open("migrate the database")
        saying = item(wish(thread, rig.member))
        rig.lose_next_answer()
        with pytest.raises(SurfaceBusy):
            await rig.surface.send(saying)
        again = replace(saying, tried=True)
        ref = await rig.surface.find(again) or await rig.surface.send(again)
        assert ref is not None
        assert "".join(await rig.posts(thread)).count("step 7:") == 1
        over = replace(WISH, state=AskState.SETTLED, allowed=True, by="Ben")
        await rig.surface.send(item(Saying("ask:12:over", SayingKind.ASKED, thread, ref=ref, ask=over)))
        last = (await rig.posts(thread))[-1]
        assert "Ben approved" in last and "approve 12" not in last

    # Files

    async def test_a_text_file_is_shared_with_its_name_and_the_line_about_it(
        self, rig: SurfaceRig, tmp_path: Path
    ) -> None:
        thread, _ = await rig.open("measure the login page")
        saying = item(sharing(thread, tmp_path, b"p50 12 ms\np99 80 ms\n", title="Timings & more"))
        assert await rig.surface.find(saying) is None
        ref = await rig.surface.send(saying)
        assert ref is not None and await rig.surface.find(replace(saying, tried=True)) == ref
        (post,) = await rig.posts(thread)
        assert "timings.txt" in post and "Timings &amp; more" in post and "20 bytes" in post
        (data,) = await rig.readable(thread)
        assert b"p99 80 ms" in data

    async def test_a_file_of_bytes_is_shared_or_told_in_words(self, rig: SurfaceRig, tmp_path: Path) -> None:
        thread, _ = await rig.open("draw it")
        data = b"\x89PNG\r\n\x1a\n\x00\xff" * 100
        assert await rig.surface.send(item(sharing(thread, tmp_path, data, "shot.png"))) is not None
        (post,) = await rig.posts(thread)
        assert "shot.png" in post and "1 KB" in post
        if rig.takes_files:
            assert list(await rig.readable(thread)) == [data]
        else:
            assert "ask the agent to commit it" in post

    async def test_a_shared_file_whose_answer_was_lost_is_found_and_not_shared_twice(
        self, rig: SurfaceRig, tmp_path: Path
    ) -> None:
        thread, _ = await rig.open("measure it")
        saying = item(sharing(thread, tmp_path, b"12 ms"))
        rig.lose_next_file_answer()
        with pytest.raises(SurfaceBusy):
            await rig.surface.send(saying)
        assert await rig.surface.find(replace(saying, tried=True)) is not None
        assert len(await rig.posts(thread)) == 1

    async def test_files_that_look_alike_are_told_apart(self, rig: SurfaceRig, tmp_path: Path) -> None:
        thread, _ = await rig.open("measure it twice")
        one = item(sharing(thread, tmp_path, b"12 ms", key="file:1"))
        other = item(sharing(thread, tmp_path, b"12 ms", key="file:12"))
        ref = await rig.surface.send(other)
        assert await rig.surface.find(one) is None
        assert await rig.surface.find(other) == ref

    async def test_an_empty_file_is_said_to_be_empty(self, rig: SurfaceRig, tmp_path: Path) -> None:
        thread, _ = await rig.open("measure it")
        saying = item(sharing(thread, tmp_path, b""))
        ref = await rig.surface.send(saying)
        assert ref is not None and await rig.surface.find(saying) == ref
        (post,) = await rig.posts(thread)
        assert "timings.txt" in post and "it is empty" in post

    async def test_a_file_that_is_too_large_is_refused_or_told_in_words(
        self, rig: SurfaceRig, tmp_path: Path
    ) -> None:
        thread, _ = await rig.open("show the log")
        saying = item(sharing(thread, tmp_path, b"x" * rig.largest, "fits.log", key="file:1"))
        await rig.surface.send(saying)
        assert b"xxx" in (await rig.readable(thread))[0]
        saying = item(sharing(thread, tmp_path, b"x" * (rig.largest + 2_000), "large.log", key="file:2"))
        try:
            await rig.surface.send(saying)
            told = (await rig.posts(thread))[-1]
        except SurfaceError as error:
            told = str(error)
        assert "large" in told

    async def test_a_copy_that_is_lost_is_refused(self, rig: SurfaceRig, tmp_path: Path) -> None:
        thread, _ = await rig.open("measure it")
        saying = sharing(thread, tmp_path, b"12 ms")
        (tmp_path / "file-1").unlink()
        with pytest.raises(SurfaceError, match="cannot be read"):
            await rig.surface.send(item(saying))
        assert await rig.posts(thread) == []

    @pytest.mark.parametrize(
        ("name", "shown"),
        [
            ("the whole report.txt", "the whole report.txt"),
            ("отчёт-報告-😀.txt", "отчёт-報告-😀.txt"),
            ("../../etc/passwd", "`passwd`"),
            ("C:\\secrets\\keys.txt", "`keys.txt`"),
            ("/", "`file`"),
            ("..", "`file`"),
            ("", "`file`"),
            ("gpj\u202etxt.exe\u200b\r\n\x1b[31m.txt", "`gpjtxt.exe .txt`"),
            ("`rm -rf`.txt", "`ˋrm -rfˋ.txt`"),
            ("x" * 500 + ".tar.gz", "….gz`"),
        ],
    )
    async def test_a_name_is_a_name_and_nothing_else(
        self, rig: SurfaceRig, tmp_path: Path, name: str, shown: str
    ) -> None:
        thread, _ = await rig.open("measure it")
        await rig.surface.send(item(sharing(thread, tmp_path, b"12 ms", name)))
        (post,) = await rig.posts(thread)
        assert shown in post
        assert not any(character in post for character in "\u202e\u200b\r\x1b")
        assert "etc" not in post and "secrets" not in post

    async def test_a_file_calls_nobody(self, rig: SurfaceRig, tmp_path: Path) -> None:
        for number, words in enumerate(rig.alive):
            thread, _ = await rig.open("measure it")
            saying = sharing(
                thread, tmp_path, b"12 ms", f"{words}.txt", title=f"see {words}", key=f"file:{number}"
            )
            await rig.surface.send(item(saying))
            (post,) = await rig.posts(thread)
            assert words not in post

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
