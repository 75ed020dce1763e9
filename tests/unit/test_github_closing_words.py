"""What a program writes into a pull request closes no issue but the one that it is about."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from handlers.github.closing_words import closing_only
from handlers.github.text import tame_within

GAP = "\u200b"
# docs.github.com, "Linking a pull request to an issue using a keyword": these, in any case.
KEYWORDS = ("close", "closes", "closed", "fix", "fixes", "fixed", "resolve", "resolves", "resolved")
CLOSING = re.compile(
    r"\b(?:" + "|".join(KEYWORDS) + r")\b\W*"
    r"(?:(?:\[[^\]]*\]\()?(?:https?://)?github\.test/(?P<a>[\w.-]+/[\w.-]+)/(?:issues|pull)/(?P<x>\d+)"
    r"|(?P<b>[\w.-]+/[\w.-]+)?#(?P<y>\d+)|gh-(?P<z>\d+))",
    re.IGNORECASE,
)

repositories = st.sampled_from(["", "acme/web", "Acme/Web", "acme/api", "a-b/c.d_e"])
numbers = st.sampled_from(["5", "6", "55"])
short = st.builds(lambda repository, number: f"{repository}#{number}", repositories, numbers)
whole = st.builds(
    lambda repository, kind, number: f"https://github.test/{repository or 'acme/web'}/{kind}/{number}",
    repositories,
    st.sampled_from(["issues", "pull"]),
    numbers,
)
references = short | whole | numbers.map("GH-{}".format) | whole.map("[the crash]({})".format)
keywords = st.sampled_from(KEYWORDS).flatmap(
    lambda word: st.sampled_from([word, word.title(), word.upper(), f"**{word}**", f"_{word}_", f"({word}"])
)
betweens = st.sampled_from([" ", ": ", ":", "  ", "\n", "\t", " **", " `", " (", " <", "\u200b "])
claims = st.builds(lambda *parts: "".join(parts), keywords, betweens, references)
texts = st.lists(claims | st.text("fix #5:\n`[]()", max_size=9), max_size=5).map(" and ".join)


def closed(text: str) -> set[tuple[str, str]]:
    """What a merge closes: (repository, number), "" being its own."""
    return {
        ((found["a"] or found["b"] or "").lower(), found["x"] or found["y"] or found["z"])
        for found in CLOSING.finditer(text)
    }


@given(texts, st.sampled_from(["", "5"]))
def test_no_other_issue_is_closed(text: str, issue: str) -> None:
    def closing(words: str) -> str:
        return closing_only(words, "acme/web", issue)

    own = {("", "5"), ("acme/web", "5")} if issue else set()
    assert closed(closing(text)) <= own
    assert "](" in text or closed(text) & own <= closed(closing(text))  # where a link leads is not asked
    assert closing(text).replace(GAP, "") == text.replace(GAP, "")
    assert closed(tame_within(text, 60_000, closing)) <= own
    assert len(tame_within(text, 40, closing)) <= 40


@given(st.sampled_from(KEYWORDS), st.sampled_from(["the login", "5 tests", "it", "in app.py#L5"]))
def test_words_that_close_nothing_stay_as_they_are(keyword: str, what: str) -> None:
    assert closing_only(f"{keyword} {what}, see #5", "acme/web", "") == f"{keyword} {what}, see #5"


def test_what_is_fenced_closes_nothing_either() -> None:
    """A squashed commit can have the description as its message, where a fence means nothing."""
    kept = tame_within("```\nFixes #6\n```", 100, lambda text: closing_only(text, "acme/web", ""))
    assert not closed(kept)
