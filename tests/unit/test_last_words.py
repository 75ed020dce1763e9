"""What people are shown of a dead program's last words: whole lines, and no piece of a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.failures import not_started
from bot.last_words import KEPT_BYTES, SHOWN_CHARS, LastWords

TOKEN = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
BODY = "\n".join(["MIIEpAIBAAKCAQEA1234567890abcdefMIIEpAIBAAKCAQEA1234567890abcdef"] * 24 + ["ab3d=="])
KEY = f"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----"
GIVEN = "of-no-known-form"


def last(said: str, **how: bool) -> str:
    words = LastWords((GIVEN,), **how)
    words.hear(said.encode())
    return words.text()


def test_the_end_is_shown_from_a_whole_line_on() -> None:
    text = last("".join(f"line {number}\n" for number in range(100_000)))
    assert text.endswith("line 99999") and len(text) <= SHOWN_CHARS
    assert all(line.startswith("line ") for line in text.splitlines())


def test_a_long_line_shows_its_end() -> None:
    assert last("x" * 5000 + " because of this").endswith(" because of this")


@given(st.integers(0, len(TOKEN) + len(KEY) + 200))
def test_what_is_left_of_a_secret_whose_beginning_is_lost_is_not_shown(lost: int) -> None:
    """Whatever comes behind shrinks to nothing, being a secret itself."""
    said = f"using {GIVEN} and {TOKEN} with\n{KEY}\nthe end\n"[lost:]
    hides = "-----BEGIN PRIVATE KEY-----\n" + "x" * (KEPT_BYTES - len(said) - 28)
    words = LastWords((GIVEN,), cut=lost > 0)
    words.hear((said + hides).encode())
    text = words.text()
    assert not any(piece in text for piece in (TOKEN[-6:], "MIIE", "cdef", "ab3d", GIVEN[-6:]))


def test_words_of_another_output_are_lines_of_their_own() -> None:
    words = LastWords()
    words.hear(b"half")
    words.hear_line(b"whole")
    words.hear(b"end")
    assert words.text() == "half\nwhole\nend"


@pytest.mark.parametrize(
    "tail", ["", "sandpiper: claude cannot be started: [Errno 2] No such file or directory: 'claude'"]
)
def test_a_program_that_is_not_there_is_named_with_its_setting(tail: str) -> None:
    error = not_started("claude", tail)
    assert "'claude' is not installed" in error.what and "SANDPIPER_AGENT_CLAUDE" in error.mend


@pytest.mark.parametrize(
    "tail",
    [
        "env: 'node': No such file or directory",
        "/opt/bin/claude: 3: exec: node: not found",
        "sandpiper: claude is there, but not the interpreter or loader that it names",
    ],
)
def test_a_program_that_lacks_something_says_what(tail: str) -> None:
    error = not_started("claude", tail)
    assert tail in error.what and "not installed" not in error.what
