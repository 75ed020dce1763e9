"""Reading what others write: leniently, and into text that can be stored and shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.agents.wire import clip, frame, money, number, one_line, plain, spelt_out


@given(st.text(max_size=400), st.integers(30, 300))
def test_clipping_keeps_head_and_tail_on_character_boundaries(text: str, limit: int) -> None:
    clipped = clip(text, limit)
    whole = text.encode("utf-8", "replace")
    if len(whole) <= limit:
        assert clipped == text
        return
    assert len(clipped.encode()) <= limit + len("\n… 1234 bytes left out …\n".encode())
    head, _, tail = clipped.partition("\n… ")
    assert whole.decode().startswith(head)
    assert whole.decode().endswith(tail.partition(" bytes left out …\n")[2])


def test_clipping_says_how_much_is_missing() -> None:
    assert clip("a" * 50 + "b" * 50, 30) == "a" * 20 + "\n… 70 bytes left out …\n" + "b" * 10


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m and \x1b[1;4mbold\x1b[m", "red and bold"),
        ("\x1b]8;;https://example.com\x07link\x1b]8;;\x07", "link"),
        ("10%\r50%\r100%\ndone\r\n", "100%\ndone\n"),
        ("bell\x07 nul\x00 tab\tnewline\n", "bell nul tab\tnewline\n"),
        ("half \ud800 a pair", "half ? a pair"),
        ("grün 🎉 \u2028", "grün 🎉 \u2028"),
    ],
)
def test_text_for_people_has_no_terminal_codes(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(alphabet=st.characters(codec=None), max_size=200))
def test_plain_text_can_be_stored_and_stays(text: str) -> None:
    shown = plain(text)
    shown.encode()
    assert "\x00" not in shown and "\x1b" not in shown
    assert plain(shown) == shown


def test_one_line_is_one_line() -> None:
    assert one_line("  git commit\n  -m 'x'  ", 80) == "git commit -m 'x'"
    assert one_line("a" * 100, 10) == "a" * 9 + "…"


@pytest.mark.parametrize("line", [b"", b"nonsense", b"[1]", b"null", b'{"a": ', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_no_frame(line: bytes) -> None:
    assert frame(line) is None


def test_numbers_are_counts() -> None:
    assert number({"n": 3}, "n") == 3
    odd: object
    for odd in (True, -1, 1.5, "3", None, [], float("nan")):
        assert number({"n": odd}, "n") == 0
    assert number({"n": 10**400}, "n") == 2**53


def test_money_is_in_millionths() -> None:
    assert money({"usd": 0.00381}, "usd") == 3810
    assert money({"usd": 2}, "usd") == 2_000_000
    for odd in (True, -0.1, "1", None, float("nan"), float("inf"), 10**400):
        assert money({"usd": odd}, "usd") is None


def test_what_would_hide_or_reorder_words_is_made_visible() -> None:
    assert spelt_out("make\n\ttest – naïve 日本 🙂") == "make\n\ttest – naïve 日本 🙂"
    assert spelt_out("safe\rrm\x1b[2K\u202e\u200b\u2028") == "safe\\u000drm\\u001b[2K\\u202e\\u200b\\u2028"
