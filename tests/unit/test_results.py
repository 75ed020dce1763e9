"""The outcomes of commands in a few words, from the outputs of the runners themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.agents.results import Tally, change_size, line_count, patch_size, tally_of, titled, verdict

PYTEST = """\
tests/auth/test_login.py ..F..........F.. [100%]
FAILED tests/auth/test_login.py::test_a - assert 1 == 2
========================= 2 failed, 14 passed in 0.12s =========================
"""
JEST = """\
Test Suites: 1 failed, 2 passed, 3 total
Tests:       2 failed, 14 passed, 16 total
Snapshots:   0 total
Time:        1.2 s
"""
VITEST = " Test Files  1 failed | 2 passed (3)\n      Tests  2 failed | 14 passed (16)\n   Duration  1.03s\n"
MOCHA = "  14 passing (21ms)\n  2 failing\n\n  1) adds\n     AssertionError\n"
NODE = "ℹ tests 16\nℹ suites 0\nℹ pass 14\nℹ fail 2\nℹ cancelled 0\n"
UNITTEST = "FAIL: test_a\n\nRan 16 tests in 0.003s\n\nFAILED (failures=2, errors=1)\n"
CARGO = """\
test result: ok. 10 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
error: test failed, to rerun pass `--lib`
"""
GO = "--- FAIL: TestA (0.00s)\n    a_test.go:5: no\nFAIL\nFAIL\tx.org/a\t0.002s\nok  \tx.org/b\t0.001s\n"
GO_V = "--- PASS: TestA (0.00s)\n--- FAIL: TestB (0.00s)\nFAIL\nFAIL\texample.com/a\t0.002s\n"
GO_BROKEN = "# example.com/a\n./a.go:3:1: syntax error\nFAIL\texample.com/a [build failed]\n"


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (PYTEST, "2 failed, 14 passed"),
        ("14 passed in 3.20s (0:00:03)", "14 passed"),
        ("\x1b[32m===== \x1b[1m1 passed\x1b[0m, 3 warnings in 0.01s =====\x1b[0m", "1 passed"),
        ("1 failed, 2 passed, 1 skipped, 1 error in 0.1s", "1 failed, 1 error, 2 passed"),
        ("no tests ran in 0.00s", "no tests"),
        ("3 skipped in 0.01s", "3 skipped"),
        (JEST, "2 failed, 14 passed"),
        (VITEST, "2 failed, 14 passed"),
        (MOCHA, "2 failed, 14 passed"),
        (NODE, "2 failed, 14 passed"),
        (UNITTEST, "2 failed, 1 error, 13 passed"),
        ("Ran 3 tests in 0.1s\n\nOK (skipped=1)", "2 passed"),
        (CARGO, "2 failed, 14 passed"),
        (GO, "1 failed"),
        (GO_V, "1 failed, 1 passed"),
        (GO_BROKEN, "1 package failed"),
        ("ok  \texample.com/a\t0.2s\nok  \texample.com/b\t(cached)\n", "2 packages passed"),
        ("16 examples, 2 failures, 1 pending", "2 failed, 14 passed"),
    ],
)
def test_what_a_runner_says_at_its_end(output: str, said: str) -> None:
    assert str(tally_of("collecting…\n" * 500 + output)) == said


@pytest.mark.parametrize("output", ["", "ok", "FAIL", "2 failed", "Tests: none", "Ran 3 tests in the past"])
def test_what_is_no_run_of_tests(output: str) -> None:
    assert tally_of(output) is None


def test_a_summary_far_from_the_end_is_not_the_outcome() -> None:
    assert tally_of(PYTEST + "line\n" * 100) is None


@pytest.mark.parametrize(
    ("command", "output", "code", "said"),
    [
        ("pytest tests/auth", PYTEST, 1, "2 failed"),
        ("cd web && CI=1 npm test 2>&1 | tail -5", JEST, 0, "2 failed"),
        ("pytest -q", "14 passed in 3.2s", 0, "14 passed"),
        # Coverage was too low, say.
        ("pytest -q", "14 passed in 3.2s", 2, "exit code 2"),
        ("cat last-run.log", PYTEST, 0, ""),
        ("cd /tmp; tail -20 'last run.log' | grep -v x", PYTEST, None, ""),
        ("make", "cc: no input", 2, "exit code 2"),
        ("make", "", 0, ""),
        ("make", "", None, ""),
        ("echo 'it''s open", PYTEST, 1, "exit code 1"),
        ("", PYTEST, None, "2 failed"),
    ],
)
def test_the_verdict_on_a_command(command: str, output: str, code: int | None, said: str) -> None:
    assert verdict(command, output, code) == said


@given(st.text(max_size=300), st.text(max_size=300), st.none() | st.integers(-1000, 1000))
def test_nothing_raises(command: str, output: str, code: int | None) -> None:
    assert isinstance(verdict(command, output, code), str)


def test_absurd_numbers_are_cut() -> None:
    assert tally_of(f"{'9' * 50_00} passed in 1s") == Tally(passed=999_999_999)


def test_sizes() -> None:
    assert [line_count(text) for text in ("", "a", "a\nb\n", "a\n" * 2000)] == [
        "",
        "1 line",
        "2 lines",
        "2,000 lines",
    ]
    assert (change_size(12, 3), change_size(0, 1), change_size(0, 0)) == ("+12 −3", "+0 −1", "")
    diff = "--- a/x\n+++ b/x\n@@ -1,2 +1,3 @@\n a\n-b\n+c\n+d\n--- gone\n"
    assert patch_size(diff.splitlines()) == "+2 −2"


def test_a_title_with_its_outcome() -> None:
    assert titled("Ran pytest", "2 failed") == "Ran pytest · 2 failed"
    assert titled("Ran ls", "") == "Ran ls"
