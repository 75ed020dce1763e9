"""Why an agent failed, and what is said about mending it."""

from __future__ import annotations

import pytest

from bot.agents.causes import NO_MODEL
from bot.agents.codec import Capabilities
from bot.events import Cause
from bot.failures import LESS_AT_ONCE, AgentDied, mend_of

HEAP = "<--- Last few GCs --->\nFATAL ERROR: Reached heap limit: JavaScript heap out of memory"


@pytest.mark.parametrize(
    ("code", "tail", "starved"),
    [
        (137, "", True),
        (-9, "working", True),
        (134, HEAP, False),
        (1, "Traceback\n  x = bytearray(n)\nMemoryError", False),
        (1, "fork: Cannot allocate memory", False),
        (2, "fatal error: runtime: out of memory", False),
    ],
)
def test_out_of_memory_is_told_apart_with_what_to_do(code: int, tail: str, starved: bool) -> None:
    error = AgentDied(code, tail, starved=starved)
    assert f"(exit code {code}, out of memory)" in error.what and error.mend == LESS_AT_ONCE


@pytest.mark.parametrize(
    ("code", "tail", "starved"),
    [
        (3, "", True),
        (1, "NoMemoryErrorHere.py is fine", False),
        (None, "", False),
        (0, "MemoryError", False),
    ],
)
def test_other_ends_are_no_matter_of_memory(code: int | None, tail: str, starved: bool) -> None:
    error = AgentDied(code, tail, starved=starved)
    assert "memory)" not in error.what and not error.mend


def test_what_was_endured_long_before_the_end_is_not_the_cause() -> None:
    error = AgentDied(1, "a test: out of memory\n" + "working\n" * 12 + "TypeError: x is undefined")
    assert "memory)" not in error.what and not error.mend


def test_a_kill_that_nobody_explains_is_a_guess() -> None:
    error = AgentDied(137, "")
    assert "killed: perhaps the sandbox ran out of memory" in error.what and not error.mend


def test_a_model_that_is_not_there_is_answered_with_those_that_are() -> None:
    mend = mend_of(Cause.NO_MODEL, Capabilities(), "gpt-5-codx", ("gpt-5", "gpt-5-codex"))
    assert mend.startswith("Choose another with `model=`. Did you mean `gpt-5-codex`?")
    assert "gpt-5, gpt-5-codex" in mend
    assert mend_of(Cause.NO_MODEL, Capabilities(), "x") == "Choose another with `model=`."


def test_a_login_is_mended_where_it_was_set() -> None:
    mine = Capabilities(credential="api_key of 'mine' in SANDPIPER_AGENTS")
    assert "api_key of 'mine' in SANDPIPER_AGENTS" in mend_of(Cause.LOGIN, mine)


@pytest.mark.parametrize(
    "said",
    [
        "The model `gpt-none` does not exist or you do not have access to it.",
        '{"type":"error","error":{"type":"not_found_error","message":"model: claude-none"}}',
        "models/gemini-none is not found for API version v1beta",
        "gpt-none is not a valid model ID",
        "The 'gpt-none' model is not supported when using Codex with a ChatGPT account.",
        "model 'qwen-none' not found, try pulling it first",
        "There's an issue with the selected model (x). model_not_found",
    ],
)
def test_the_words_of_apis_for_an_unknown_model(said: str) -> None:
    assert NO_MODEL.search(said)


@pytest.mark.parametrize(
    "said",
    ["404 Not Found", "The file does not exist", "The model is overloaded", "model refused: not allowed"],
)
def test_other_words_are_not_about_the_model(said: str) -> None:
    assert not NO_MODEL.search(said)
