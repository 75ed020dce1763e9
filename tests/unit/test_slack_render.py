"""Pictures and sayings as Slack messages: readable, within the limits, and nothing foreign comes alive."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.events import (
    Event,
    Notice,
    Phase,
    Plan,
    PlanEntry,
    PlanStatus,
    Steered,
    ToolCall,
    ToolKind,
    ToolStatus,
    Usage,
)
from bot.models import Final, Outcome, PullRequest
from bot.timeline import Timeline
from handlers.playground.slack_blocks import check_blocks
from handlers.slack import render
from handlers.slack.blocks import BLOCKS_BUDGET, TEXT_ADVISED, TEXT_LIMIT, pieces, size
from handlers.slack.render import Drawn
from handlers.slack.text import escaped_within, from_markdown

PULL = PullRequest(
    482,
    "https://github.test/acme/web/pull/482",
    "Fix login redirect loop",
    "a1",
    "main",
    "acme/web",
    2,
    3,
    48,
    12,
)
RUNNING = Timeline(7, label="acme/web@main · claude").apply(
    [
        Phase("agent", "Starting the agent"),
        *(
            ToolCall(f"r{n}", ToolKind.READ, f"Read f{n}.py", ToolStatus.COMPLETED, f"src/f{n}.py")
            for n in range(6)
        ),
        ToolCall("e1", ToolKind.EDIT, "Edited login.py", ToolStatus.COMPLETED, "src/login.py", "+12 −3"),
        Steered("ben", "also keep ?next="),
        ToolCall("x0", ToolKind.EXECUTE, "Ran ruff", ToolStatus.FAILED, "ruff check"),
        ToolCall("x1", ToolKind.EXECUTE, "Running pytest", ToolStatus.IN_PROGRESS, "pytest tests/auth"),
    ]
)


def tasks(drawn: Drawn) -> list[dict[str, Any]]:
    (plan,) = [block for block in drawn.blocks if block["type"] == "plan"]
    return list(plan["tasks"])


def strings(value: Any, kind: str = "plain") -> Iterator[tuple[str, str]]:
    """Every text in blocks, with "mrkdwn" or "plain"."""
    if isinstance(value, str):
        yield kind, value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from strings(item, kind)
    elif isinstance(value, dict):
        inside = "mrkdwn" if value.get("type") == "mrkdwn" else "plain"
        for name, item in value.items():
            yield from strings(item, inside if name == "text" else "plain")


def check(drawn: Drawn) -> None:
    """What Slack takes, and nothing that comes alive but our own mention and link."""
    blocks = list(drawn.blocks)
    check_blocks(blocks)
    assert size(blocks) <= BLOCKS_BUDGET
    assert 1 <= len(drawn.text) <= TEXT_LIMIT
    for kind, text in [("mrkdwn", drawn.text), *strings(blocks)]:
        foreign = re.sub(r"<@U1ANA>|<https://github\.test/[^<>|]*\|[^<>]*>", "", text)
        if kind == "mrkdwn":
            assert "<" not in foreign and "&" not in re.sub(r"&(?:amp|lt|gt);", "", foreign)
        assert not re.search(r"<(?:[!@#]|https?:)", foreign)


# The picture


def test_a_running_turn_shows_its_steps_and_can_be_stopped() -> None:
    drawn = render.timeline(RUNNING)
    check(drawn)
    assert drawn.blocks[0]["title"] == "Running pytest"
    assert [(task["title"], task["status"]) for task in tasks(drawn)] == [
        ("Starting the agent", "complete"),
        ("Read 6 files", "complete"),
        ("Edited login.py", "complete"),
        ("Steered by ben", "complete"),
        ("✗ Ran ruff", "complete"),
        ("Running pytest", "in_progress"),
    ]
    (button,) = drawn.blocks[1]["elements"]
    assert (button["action_id"], button["value"]) == ("sandpiper_stop", "7")
    assert drawn.blocks[2]["elements"][0]["text"] == "acme/web@main · claude"
    assert drawn.text == "Running pytest"


def test_a_step_keeps_its_id_while_others_come() -> None:
    before = {task["title"]: task["task_id"] for task in tasks(render.timeline(RUNNING))}
    grown = RUNNING.apply([ToolCall("x2", ToolKind.EXECUTE, "Ran git commit", ToolStatus.COMPLETED)])
    after = {task["title"]: task["task_id"] for task in tasks(render.timeline(grown))}
    assert before.items() <= after.items()


def test_a_list_of_code_is_a_list_and_a_dash_after_code_is_a_dash() -> None:
    assert from_markdown("- `a` gives `b`\n- `c` - see *d*\n`e`\n- f") == (
        "• `a` gives `b`\n• `c` - see *d*\n`e`\n• f"
    )


def test_what_the_title_says_is_not_said_again() -> None:
    edited = ToolCall("e", ToolKind.EDIT, "Edited a.py", ToolStatus.COMPLETED, "a.py", "+1 −0")
    (one,) = tasks(render.timeline(Timeline(7).apply([edited])))
    assert "details" not in one


def test_a_turn_that_has_not_begun_shows_that_it_is_being_prepared() -> None:
    drawn = render.timeline(Timeline(7, headline="Preparing…"))
    check(drawn)
    assert [(task["title"], task["status"]) for task in tasks(drawn)] == [("Preparing…", "in_progress")]


@pytest.mark.parametrize("rich", [True, False])
def test_nothing_spins_and_nothing_can_be_stopped_at_the_end(rich: bool) -> None:
    drawn = render.timeline(RUNNING.ended(Final(Outcome.PUBLISHED, "Done.", seconds=372.0)), rich=rich)
    check(drawn)
    assert "Worked for 6m 12s" in str(drawn.blocks[0])
    assert "in_progress" not in str(drawn.blocks) and "◐" not in str(drawn.blocks)
    assert "sandpiper_stop" not in str(drawn.blocks)


def test_a_long_turn_shows_what_is_under_way_and_the_newest_and_counts_the_rest() -> None:
    calls = [
        ToolCall(f"x{n}", ToolKind.EXECUTE, f"Ran step {n}", ToolStatus.COMPLETED, "s" * 300, "r" * 300)
        for n in range(700)
    ]
    slow = ToolCall("slow", ToolKind.EXECUTE, "Running the long test", ToolStatus.IN_PROGRESS)
    picture = Timeline(7).apply([*calls[:650], slow, *calls[650:]])
    drawn = render.timeline(picture)
    check(drawn)
    titles = [task["title"] for task in tasks(drawn)]
    shown = len(titles) - 1
    assert titles[0] == f"{701 - shown} earlier steps"
    assert titles[1] == "Running the long test"
    assert titles[-1] == "Ran step 699"
    assert shown > 10
    assert len({task["task_id"] for task in tasks(drawn)}) == len(titles)


def test_plan_tokens_and_cost_stand_below() -> None:
    entries = (PlanEntry("a", PlanStatus.COMPLETED), PlanEntry("b", PlanStatus.PENDING))
    picture = RUNNING.apply([Plan(entries), Usage("u", 12_000, 345, micro_usd=1_230_000)])
    text = render.timeline(picture).blocks[-1]["elements"][0]["text"]
    assert text == "acme/web@main · claude · plan: 1 of 2 done · 12.3k tokens · $1.23"


def test_the_plain_picture_says_the_same_in_lines() -> None:
    drawn = render.timeline(RUNNING, rich=False)
    check(drawn)
    assert drawn.blocks[0]["text"]["text"].splitlines() == [
        "*Running pytest*",
        "✓ Starting the agent",
        "✓ Read 6 files · src/f0.py, src/f1.py, src/f2.py, src/f3.py, src/f4.py, src/f5.py",
        "✓ Edited login.py · src/login.py",
        "✓ Steered by ben · also keep ?next=",
        "✗ Ran ruff · ruff check",
        "◐ Running pytest · pytest tests/auth",
    ]


# Endings


def test_a_published_turn_calls_by_name_and_opens_the_pull_request() -> None:
    drawn = render.final(
        Final(
            Outcome.PUBLISHED,
            "Stops the loop, keeps `?next=`.",
            pull_request=PULL,
            notes=("I committed what the agent left behind.",),
            seconds=372,
            branch="sandpiper/slack-login-1a2b3c4d",
        ),
        "U1ANA",
    )
    check(drawn)
    assert drawn.text == "<@U1ANA> The pull request is ready.\nStops the loop, keeps `?next=`."
    words, card, small = drawn.blocks
    assert words["text"]["text"] == drawn.text
    assert card["title"]["text"] == "#482 Fix login redirect loop"
    assert card["subtitle"]["text"] == "acme/web"
    assert card["body"]["text"] == "3 files · +48 −12 · 2 commits"
    assert card["actions"][0]["url"] == PULL.url
    assert [element["text"] for element in small["elements"]] == [
        "I committed what the agent left behind.",
        "`sandpiper/slack-login-1a2b3c4d` · 6m 12s",
    ]


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        (Final(Outcome.ANSWERED, "It is in auth.py."), "<@U1ANA> It is in auth.py."),
        (
            Final(Outcome.FAILED, "", reason="The agent is not installed.", mend="Install it."),
            "<@U1ANA> *This did not work.* The agent is not installed. Install it.",
        ),
        (
            Final(Outcome.UNPUBLISHED, "", reason="The push was refused.", mend="Say `publish`."),
            "<@U1ANA> *The work is ready, but it is not published.* The push was refused. Say `publish`.",
        ),
        (Final(Outcome.STOPPED, "", reason="Stopped by Ben."), "<@U1ANA> *Stopped.* Stopped by Ben."),
    ],
)
def test_each_ending_says_what_happened_and_what_mends_it(ending: Final, says: str) -> None:
    drawn = render.final(ending, "U1ANA")
    check(drawn)
    assert drawn.text == says


def test_an_answer_too_long_for_blocks_is_said_whole() -> None:
    answer = "\n".join(f"{n}. a line of the answer & more" for n in range(800))
    drawn = render.final(Final(Outcome.ANSWERED, answer), "U1ANA")
    check(drawn)
    assert drawn.blocks == ()
    assert "799. a line of the answer &amp; more" in drawn.text


def test_the_plain_ending_still_opens_the_pull_request() -> None:
    drawn = render.final(Final(Outcome.PUBLISHED, "Done.", pull_request=PULL), "U1ANA", rich=False)
    check(drawn)
    assert "card" not in [block["type"] for block in drawn.blocks]
    assert "#482 Fix login redirect loop" in str(drawn.blocks)
    assert PULL.url in str(drawn.blocks)


# Words of others


def test_markdown_becomes_slack_markup() -> None:
    said = (
        "## Result\n\n**Fixed** the ~~old~~ loop in `a < b`, see [the docs](https://acme.test/d?a=1&b=2).\n"
        '* one\n  - two\n```python\nif a < b and "**x**":\n```\n__done__ 2 * 3 * 4'
    )
    assert from_markdown(said) == (
        "*Result*\n\n*Fixed* the ~old~ loop in `a &lt; b`, see the docs (https://acme.test/d?a=1&amp;b=2).\n"
        '• one\n  • two\n```\nif a &lt; b and "**x**":\n```\n*done* 2 * 3 * 4'
    )


def test_no_secret_is_shown() -> None:
    secret = "ghp_" + "a1B2c3D4" * 5
    picture = Timeline(7).apply(
        [ToolCall("x", ToolKind.EXECUTE, f"Ran curl {secret}", ToolStatus.COMPLETED, secret, secret)]
    )
    ending = Final(Outcome.FAILED, secret, reason=secret, mend=secret, notes=(secret,))
    drawn = [
        *(render.timeline(picture, rich=rich) for rich in (True, False)),
        *(render.final(ending, "U1ANA", rich=rich) for rich in (True, False)),
        render.note(secret),
        render.root("U1ANA", secret),
    ]
    assert secret not in str(drawn)


def test_a_code_block_that_is_cut_is_closed_and_opened_again() -> None:
    text = from_markdown("before\n```\n" + "\n".join(f"line {n} <&>" for n in range(100)) + "\n```\nafter")
    cut = pieces(text, 300)
    assert all(len(piece) <= 300 and piece.count("```") % 2 == 0 for piece in cut)
    assert "line 99 &lt;&amp;&gt;" in cut[-1] and cut[-1].endswith("after")


@given(st.text(alphabet="&<>a\n`", min_size=1), st.integers(20, 60))
def test_no_cut_goes_through_an_escape(text: str, limit: int) -> None:
    for piece in [escaped_within(text, limit), *pieces(from_markdown(text), limit)]:
        assert len(piece) <= limit
        assert "&" not in re.sub(r"&(?:amp|lt|gt);", "", piece)


nasty = st.lists(
    st.sampled_from(
        [
            "<!channel>",
            "<@U1ANA|x>",
            "<https://evil.test|Open PR>",
            "[Open](https://evil.test)",
            "<",
            ">",
            "&",
        ]
    )
    | st.sampled_from(["\n", "```", "`", "**", "# ", "- ", "x" * 500, "&lt;", "é", " "])
    | st.text(max_size=5),
    max_size=12,
).map("".join)
statuses = st.sampled_from(list(ToolStatus))
calls = st.builds(
    ToolCall,
    id=st.text(max_size=3),
    kind=st.sampled_from(list(ToolKind)),
    title=nasty,
    status=statuses,
    subject=nasty,
    result=nasty,
    parent=st.sampled_from(["", "x"]),
)
events: st.SearchStrategy[Event] = st.one_of(
    calls,
    st.builds(Phase, name=st.sampled_from(["sandbox", "code", "publish"]), text=nasty),
    st.builds(Steered, by=nasty, text=nasty),
    st.builds(Notice, text=nasty),
    st.builds(Plan, st.lists(st.builds(PlanEntry, nasty, st.sampled_from(list(PlanStatus)))).map(tuple)),
    st.builds(
        Usage, key=st.text(max_size=2), tokens_in=st.integers(0, 10**9), micro_usd=st.integers(0, 10**9)
    ),
)
pulls = st.builds(
    PullRequest,
    number=st.integers(1, 10**6),
    url=st.sampled_from([PULL.url, "javascript:alert(1)", "https://github.test/" + "x" * 4000, ""]),
    title=nasty,
    head=st.just("a1"),
    base=st.just("main"),
    repository=nasty,
    files=st.integers(0, 9),
    created=st.booleans(),
)
finals = st.builds(
    Final,
    outcome=st.sampled_from(list(Outcome)),
    text=nasty | st.integers(1, 60_000).map(lambda length: "<word> " * (length // 7)),
    reason=nasty,
    mend=nasty,
    pull_request=st.none() | pulls,
    notes=st.lists(nasty, max_size=20).map(tuple),
    seconds=st.floats(0, 10**6),
    branch=nasty,
    further=st.lists(pulls, max_size=7).map(tuple),
)
to = st.sampled_from(["", "U1ANA", "!channel", "<!here>"])


@given(st.lists(events, max_size=80), nasty, st.none() | finals, st.booleans())
def test_any_picture_is_within_the_limits(
    happened: list[Event], label: str, ending: Final | None, rich: bool
) -> None:
    picture = Timeline(7, label=label).apply(happened)
    drawn = render.timeline(picture if ending is None else picture.ended(ending), rich=rich)
    check(drawn)
    assert len(drawn.text) <= TEXT_ADVISED


@given(finals, to, st.booleans())
@example(Final(Outcome.ANSWERED, "", notes=("\x1b",)), "", False)
@example(Final(Outcome.PUBLISHED, "", pull_request=replace(PULL, repository="\x1f")), "", True)
def test_any_ending_is_within_the_limits(ending: Final, to: str, rich: bool) -> None:
    check(render.final(ending, to, rich=rich))


@given(nasty | st.integers(1, 20_000).map(lambda length: "<&> " * length), to)
def test_any_note_is_within_the_limits(text: str, to: str) -> None:
    check(render.note(text, to))
    assert len(render.root(to or "U1ANA", text).text) <= TEXT_ADVISED
