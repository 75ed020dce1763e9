"""How what an agent asks looks: shown whole and as it is, with nothing in it that comes alive."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.agents.steps import MOST_APPROVED, StepBuilder
from bot.approvals import LONGEST_DETAIL, asked, outcome
from bot.events import ApprovalAsked, Question
from bot.models import Ask, AskKind, AskState, Identity, Verb
from handlers.commands import parse_words
from handlers.github.parse import understood
from handlers.github.render import ask_comment
from handlers.github.text import LIMIT
from handlers.playground.slack_blocks import check_blocks
from handlers.slack import asks
from handlers.slack.blocks import BLOCKS_BUDGET, size
from handlers.slack.ids import ANSWER_ACTION, APPROVE_ACTION, DENY_ACTION

ANA = Identity("slack", "slack:T1", "U_ANA", "Ana")
APPROVAL = Ask(12, 3, "tool-1", AskKind.APPROVAL, "Run rm", "rm -rf build", (), ANA, 1_800_000_000.0)
QUESTION = replace(APPROVAL, kind=AskKind.QUESTION, title="Which?", detail="", options=("Red", "Blue"))
LONG = replace(APPROVAL, detail="\n" * 3_990 + "x" * 10, title="t" * 5_000)
EVIL = "echo `whoami`\n```\n@everyone <!channel> <@U1> *bold* <https://evil.test|safe>\n````\n~~~"


@pytest.mark.parametrize("ask", [APPROVAL, QUESTION, replace(APPROVAL, detail=EVIL), LONG])
def test_slack_takes_the_blocks(ask: Ask) -> None:
    for state in AskState:
        drawn = asks.ask(replace(ask, state=state, by="Ana", text="no"), "U_ANA")
        check_blocks(list(drawn.blocks))


def test_slack_shows_what_is_approved_as_plain_text() -> None:
    drawn = asks.ask(replace(APPROVAL, detail=EVIL, title="<!channel> *x*"), "U_ANA")
    (block,) = (block for block in drawn.blocks if block["type"] == "rich_text")
    assert block["elements"][0]["type"] == "rich_text_preformatted"
    assert block["elements"][0]["elements"] == [{"type": "text", "text": EVIL}]
    assert "<!channel>" not in drawn.text


def test_buttons_are_there_only_while_it_is_open() -> None:
    shown = str(asks.ask(APPROVAL, "U_ANA").blocks)
    assert APPROVE_ACTION in shown and DENY_ACTION in shown and "'value': '12'" in shown
    assert f"{ANSWER_ACTION}_1" in str(asks.ask(QUESTION).blocks)
    over = replace(APPROVAL, state=AskState.SETTLED, allowed=True, by="Ana")
    shown = str(asks.ask(over).blocks)
    assert "sandpiper_" not in shown and "Ana approved" in shown


def test_a_fence_on_github_cannot_be_closed_from_within() -> None:
    comment = ask_comment(replace(APPROVAL, detail=EVIL), "ana", "sandpiper")
    assert comment.startswith("@ana May I? **Run rm**")
    assert f"\n`````\n{EVIL}\n`````\n" in comment
    assert "`approve 12`" in comment


def test_what_came_of_it_in_words() -> None:
    assert outcome(replace(APPROVAL, state=AskState.EXPIRED)) == "Nobody answered in time"
    assert outcome(replace(QUESTION, state=AskState.SETTLED, by="Ana", text="Blue")) == "Ana: Blue"
    comment = ask_comment(replace(APPROVAL, state=AskState.SETTLED, by="Ana", text=""), "ana", "sandpiper")
    assert "_Ana denied_" in comment and "approve 12" not in comment and "@ana" not in comment


@pytest.mark.parametrize(
    ("said", "verb", "number"),
    [
        ("approve 12", Verb.APPROVE, "12"),
        ("Deny #12", Verb.DENY, "12"),
        ("approve", Verb.APPROVE, None),
        ("approve 12 please", None, None),
        ("approve twelve", None, None),
        ("deny access to guests", None, None),
        ("answer", None, None),
    ],
)
def test_words_that_settle_it(said: str, verb: Verb | None, number: str | None) -> None:
    words = parse_words(said)
    assert words.verb is verb and words.options.get("ask") == number


def test_a_whole_comment_on_github_settles_it_without_a_mention() -> None:
    addressed, words = understood("approve 12\n", "sandpiper")
    assert not addressed and words.verb is Verb.APPROVE and words.options == {"ask": "12"}
    for other in ("I approve 12 of these", "> approve 12", "approve 12\nand more", "approve"):
        assert understood(other, "sandpiper")[1].verb is None


def test_nothing_that_cannot_be_seen_is_approved() -> None:
    detail = StepBuilder(("s3cret-token",)).exact("rm -rf /\recho hi\x1b[2K\u202e s3cret-token")
    assert detail.startswith("rm -rf /\\u000decho hi\\u001b[2K\\u202e ") and "s3cret-token" not in detail
    (ask,) = asked([ApprovalAsked("a", "Run it", "x" * (LONGEST_DETAIL + 1))], 0.0)
    assert ask.refused
    assert asked([Question("q", "Answered by the codec itself")], 0.0) == ()


@given(st.text(st.sampled_from('ab\n"\\é😀`<&'), max_size=300), st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_slack_shows_all_of_what_is_approved_in_messages_that_it_takes(words: str, times: int) -> None:
    detail = (words * times)[:LONGEST_DETAIL]
    asked = replace(APPROVAL, detail=detail, title="&" * 3_000)
    messages = [*asks.before(asked), asks.ask(asked, "U_ANA")]
    shown = [
        block["elements"][0]["elements"][0]["text"]
        for drawn in messages
        for block in drawn.blocks
        if block["type"] == "rich_text"
    ]
    assert "".join(shown) == detail
    for drawn in messages:
        check_blocks(list(drawn.blocks))
        assert size(drawn.blocks) <= BLOCKS_BUDGET
    assert [APPROVE_ACTION in str(drawn.blocks) for drawn in messages] == [False] * len(shown[1:]) + [True]


def test_what_codecs_cut_is_too_long_to_be_approved() -> None:
    detail = StepBuilder().exact("x" * (MOST_APPROVED + 1))
    (ask,) = asked([ApprovalAsked("a", "Run it", detail)], 0.0)
    assert ask.refused


def test_the_longest_wish_goes_into_a_comment() -> None:
    longest = replace(APPROVAL, detail="`\n" * (LONGEST_DETAIL // 2), title="&" * 3_000)
    assert len(ask_comment(longest, "ana", "sandpiper")) <= LIMIT
