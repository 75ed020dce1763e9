"""How turns look on GitHub: within its limits, and harmless whatever was written into them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.events import PlanEntry, PlanStatus, ToolKind
from bot.models import Final, Outcome, PullRequest, SharedFile
from bot.timeline import Row, RowStatus, Timeline
from handlers.github.render import (
    SHOWN_ROWS,
    file_comment,
    final_comment,
    marker,
    starting_comment,
    timeline_comment,
    words,
)
from handlers.github.text import LIMIT, code, plain, tame, tame_within, visible

PULL = PullRequest(
    12, "https://github.com/acme/web/pull/12", "Fix it", "sandpiper/7", "main", "acme/web", 2, 5, 10, 1
)
PINGS = re.compile(r"(?<![A-Za-z0-9])@[A-Za-z0-9_]")


def ran(n: int, **more: object) -> Row:
    return Row(f"call-{n}", f"Ran step {n}", RowStatus.COMPLETED, ToolKind.EXECUTE, **more)  # type: ignore[arg-type]


def rows_shown(comment: str) -> list[str]:
    return [line for line in comment.split("<details>")[0].splitlines() if line.lstrip().startswith("- ")]


# the timeline


def test_a_running_turn_shows_its_step_its_last_rows_and_how_to_stop() -> None:
    rows = tuple(ran(n) for n in range(20))
    shown = timeline_comment(Timeline(5, "acme/web@main · claude", "Running pytest", rows), "sandpiper")
    assert shown.startswith("**⏳ Running pytest** · acme/web@main · claude")
    assert len(rows_shown(shown)) == SHOWN_ROWS
    assert "Ran step 19" in rows_shown(shown)[-1]
    assert "<summary>5 steps</summary>" in shown
    assert "`@sandpiper stop` stops" in shown
    assert shown.endswith("<!-- sandpiper:turn:5 -->")


def test_a_finished_turn_folds_its_rows_away_and_links_the_pull_request() -> None:
    ended = Timeline(5, rows=(ran(1),)).ended(Final(Outcome.PUBLISHED, "", pull_request=PULL, seconds=62))
    shown = timeline_comment(ended, "sandpiper")
    assert shown.startswith("**✅ Worked for 1m 2s**")
    assert "[#12 Fix it](https://github.com/acme/web/pull/12) (2 commits, 5 files, +10 −1)" in shown
    assert rows_shown(shown) == []
    assert "⏳" not in shown
    assert "stop" not in shown


def test_a_failed_step_says_why() -> None:
    failed = Row("a", "Ran pytest", RowStatus.FAILED, ToolKind.EXECUTE, "pytest -q", "1 failed\nE  assert 0")
    shown = timeline_comment(Timeline(1, rows=(failed,)), "sandpiper")
    assert "- ❌ Ran pytest `pytest -q` → `1 failed E assert 0`" in shown


def test_repeated_reads_are_one_row_and_a_subagents_rows_are_nested() -> None:
    reads = tuple(Row(str(n), "Read", RowStatus.COMPLETED, ToolKind.READ, f"{n}.py") for n in range(3))
    child = ran(9, parent="call-1")
    shown = rows_shown(timeline_comment(Timeline(1, rows=(*reads, child)), "sandpiper"))
    assert shown[0].startswith("- ✅ Read 3 files")
    assert shown[1].startswith("  - ✅ Ran step 9")


def test_the_plan_is_a_list_of_tasks() -> None:
    plan = (PlanEntry("Look", PlanStatus.COMPLETED), PlanEntry("Fix", PlanStatus.IN_PROGRESS))
    shown = timeline_comment(Timeline(1, plan=plan), "sandpiper")
    assert "- [x] Look\n- [ ] ⏳ Fix" in shown


# last words


def test_the_final_calls_the_person_and_links_the_pull_request() -> None:
    final = Final(Outcome.PUBLISHED, "Fixed the *typo*.", pull_request=PULL, notes=("I committed a.py",))
    assert final_comment(final, "ada") == (
        "@ada Opened [#12 Fix it](https://github.com/acme/web/pull/12) (2 commits, 5 files, +10 −1)\n\n"
        "Fixed the *typo*.\n\n- I committed a.py"
    )


def test_an_answer_is_the_agents_own_markdown() -> None:
    text = "It is `x < 1`:\n\n```python\n@property\ndef x(self): ...\n```"
    assert text.replace("`x < 1`", "`x < 1`") in final_comment(Final(Outcome.ANSWERED, text), "")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_words_and_tells_the_mend(outcome: Outcome) -> None:
    said = final_comment(Final(outcome, "", reason="It broke.", mend="Say `publish`."), "ada")
    assert said.startswith("@ada ")
    assert "It broke. Say `publish`." in said


def test_a_mention_that_is_no_login_calls_nobody() -> None:
    assert words("hello", "U 1> <script>") == "hello"


# disarmed


FOREIGN = [
    "@octocat look",
    "cc @acme/core",
    "_@octocat_ and **@octocat**",
    "&#64;octocat &commat;octocat",
    "\\@octocat",
    "a\u200b@octocat",
    "</details> <!-- --> <b>",
    "--> <!-- sandpiper:x -->",
    "![x](https://evil.example/?secret)",
    "line\nbreak @octocat\n\n# heading",
]


@pytest.mark.parametrize("text", FOREIGN)
@pytest.mark.parametrize("way", [tame, lambda text: plain(text, 200), lambda text: code(text, 200)])
def test_foreign_text_calls_nobody_and_opens_nothing(text: str, way: object) -> None:
    shown = way(text)  # type: ignore[operator]
    assert not PINGS.search(shown)
    assert not re.search(r"<[A-Za-z/!?]", shown)
    assert not re.search(r"&(#|commat)", shown)
    assert "![" not in shown


def test_a_number_sign_in_a_row_is_no_reference() -> None:
    assert "#12" not in plain("see #12 and o/r#12", 99)


@pytest.mark.parametrize(
    "trick",
    [
        "~~~\n```\n~~~\n@octocat\n```",
        " ~~~\n```\n ~~~\n@octocat\n```",
        "- a\n\n  ```\n@octocat\n  ```",
        "> ```\n@octocat\n> ```",
        "````\n```\n````\n@octocat",
        "```\n ```\n@octocat",
        "``` `x`\n@octocat\n```",
    ],
)
def test_tricks_with_fences_do_not_let_a_mention_through(trick: str) -> None:
    assert not PINGS.search(outside_fences(tame(trick)))


def test_code_in_a_fence_can_be_copied_as_it_is() -> None:
    block = "```python\n@app.get('/')\ndef f() -> list[int]: ...  # <!-- x -->\n```"
    assert tame(f"Look:\n\n{block}\n\nDone, @octocat") == f"Look:\n\n{block}\n\nDone, @\u200boctocat"


def test_an_open_fence_is_closed_so_that_what_follows_is_seen() -> None:
    assert tame("~~~~\nx") == "~~~~\nx\n~~~~"
    assert len(tame_within("```\n" + "x" * 500, 100)) <= 100
    assert tame_within("`" * 5000, 100)


def test_a_secret_does_not_get_out_by_being_cut_or_split() -> None:
    secret = "ghs_" + "a1B2" * 12
    split = secret[:9] + "\u200b" + secret[9:]
    for shown in (plain(secret, 30), code(secret, 30), tame_within(f"{split} {'x' * 99}", 60)):
        assert secret[:12] not in shown.replace("\\", "")


def test_a_marker_stays_one_comment_whatever_the_key() -> None:
    assert marker("a-->b--c d") == "<!-- sandpiper:a-__b-_c_d -->"


def test_visible_text_keeps_code_and_words() -> None:
    assert visible("a\r\n\tb <b>c</b> <!-- d --> e") == "a\n\tb <b>c</b>  e"


# any turn at all


NASTY = (
    st.text(max_size=300) | st.sampled_from(FOREIGN) | st.builds(lambda n: "@a &<`" * n, st.integers(0, 400))
)
ROWS = st.builds(
    Row,
    id=NASTY,
    title=NASTY,
    status=st.sampled_from(RowStatus),
    kind=st.none() | st.sampled_from(ToolKind),
    subject=NASTY,
    result=NASTY,
    parent=st.sampled_from(["", "x"]),
)
PULLS = st.builds(
    PullRequest,
    number=st.integers(1, 10**6),
    url=NASTY,
    title=NASTY,
    head=NASTY,
    base=NASTY,
    repository=NASTY,
    commits=st.integers(0, 9),
)
FINALS = st.builds(
    Final,
    outcome=st.sampled_from(Outcome),
    text=NASTY,
    reason=NASTY,
    mend=NASTY,
    pull_request=st.none() | PULLS,
    further=st.lists(PULLS, max_size=7).map(tuple),
    notes=st.lists(NASTY, max_size=3).map(tuple),
    seconds=st.floats(0, 1e6),
    branch=NASTY,
)
TIMELINES = st.builds(
    Timeline,
    turn=st.integers(1, 10**9),
    label=NASTY,
    headline=NASTY,
    rows=st.lists(ROWS, max_size=5).map(tuple),
    dropped=st.integers(0, 99),
    plan=st.lists(st.builds(PlanEntry, NASTY, st.sampled_from(PlanStatus)), max_size=3).map(tuple),
    text=NASTY,
    tokens=st.integers(0, 10**9),
    micro_usd=st.none() | st.integers(0, 10**9),
    final=st.none() | FINALS,
)


def grown(row: Row, times: int) -> Row:
    return replace(row, title=row.title * times, subject=row.subject * times, result=row.result * times)


@settings(max_examples=30, deadline=None)
@given(TIMELINES, st.sampled_from([1, 60]))
def test_any_picture_fits_and_is_harmless(timeline: Timeline, times: int) -> None:
    large = replace(
        timeline,
        headline=timeline.headline * times,
        rows=tuple(grown(row, times) for row in timeline.rows) * times,
        plan=timeline.plan * times,
        text=timeline.text * times,
    )
    shown = timeline_comment(large, "sandpiper")
    assert len(shown) <= LIMIT
    assert shown.encode()
    assert not PINGS.search(shown.replace("`@sandpiper stop`", ""))
    assert shown.count("<!--") == 1
    assert shown.endswith(f"\n\n{marker(f'turn:{timeline.turn}')}")
    assert shown.count("<details>") == shown.count("</details>") <= 1


@settings(max_examples=30, deadline=None)
@given(FINALS, st.sampled_from([1, 300]))
def test_any_last_words_fit_and_call_only_whom_they_should(final: Final, times: int) -> None:
    large = replace(final, text=final.text * times, reason=final.reason * times, notes=final.notes * times)
    said = final_comment(large, "ada")
    assert len(said) <= LIMIT - 500
    assert said.startswith("@ada ")
    assert not PINGS.search(outside_fences(said.removeprefix("@ada ")))
    assert len(starting_comment(large.text)) < LIMIT


def outside_fences(markdown: str) -> str:
    kept, fence = [], ""
    for line in markdown.split("\n"):
        if fence:
            fence = (
                ""
                if line.strip() and set(line.strip()) == {fence[0]} and len(line.strip()) >= len(fence)
                else fence
            )
        elif opened := re.match(r"(`{3,}|~{3,})[^`]*$", line):
            fence = opened[1]
        else:
            kept.append(line)
    return "\n".join(kept)


FILE = SharedFile("/data/shared/1", "notes.md", "", 0)


@given(st.text(st.sampled_from("`~ \n>-\tab@<"), max_size=200))
@settings(max_examples=200)
def test_a_shared_text_stays_in_its_fence(text: str) -> None:
    comment = file_comment(FILE, f"# {text}".encode(), "")
    opened, _, rest = comment.partition("</summary>\n\n")[2].partition("\n")
    body, _, end = rest.rpartition(f"\n{opened}\n")
    assert set(opened) == {"`"} and end == "\n</details>"
    assert body == f"# {text}".removesuffix("\n")
    assert opened not in body, "no line of it can close the fence"


def test_a_shared_text_is_whole_or_said_in_words() -> None:
    shown = file_comment(FILE, b"x\r\ny\n" * 10_000, "ana")
    assert shown.startswith("@ana `notes.md`, 50 KB\n\n<details>") and shown.count("x\ny\n") == 10_000
    assert len(shown) <= LIMIT
    for data in (b"x" * LIMIT, b"\x00\x01", b"\xff\xfe", b"a\x1b[31m"):
        words = file_comment(FILE, data, "")
        assert "ask the agent to commit it" in words and "<details>" not in words


def test_a_shared_text_has_no_secrets_and_nothing_that_nobody_sees() -> None:
    text = f"token ghp_{'a1' * 18}\n-----BEGIN PRIVATE KEY-----\nabc\u202e\u200b"
    comment = file_comment(replace(FILE, name=f"ghp_{'a1' * 18}.txt"), text.encode(), "")
    assert "a1a1" not in comment and "abc" not in comment
    assert comment.endswith("\n</details>") and not re.search("[\u202e\u200b]", comment)
