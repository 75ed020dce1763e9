"""Why GitHub declined a push, out of what git prints."""

from __future__ import annotations

import pytest

from bot.models import Work
from handlers.github.quarantine import push_refusal

WORK = Work("sandpiper/7-fix", "main", "a" * 40, "b" * 40, 1)
REF = "refs/quarantine/head:refs/heads/sandpiper/7-fix"
FAILED = "error: failed to push some refs to 'https://github.com/acme/web.git'"


def declined(reason: str, *said: str, repeatable: bool = True) -> str:
    refusal = push_refusal([f"!\t{REF}\t{reason}", "Done"], [*said, FAILED], WORK)
    assert refusal is not None
    assert refusal.mend
    assert not refusal.retryable
    assert refusal.repeatable is repeatable
    return str(refusal)


def test_a_rule_is_told_in_githubs_words() -> None:
    told = declined(
        "[remote rejected] (push declined due to repository rule violations)",
        "remote: error: GH013: Repository rule violations found for refs/heads/sandpiper/7-fix.",
        "remote: ",
        "remote: - Commits must have verified signatures.",
    )
    assert "GH013: Repository rule violations found" in told
    assert "Commits must have verified signatures." in told
    assert "Let the App pass this rule" in told


@pytest.mark.parametrize(
    ("said", "mend", "repeatable"),
    [
        (
            "GH013: Repository rule violations found / Push cannot contain secrets",
            "secret to take out",
            False,
        ),
        (
            "GH001: Large files detected. a.bin exceeds GitHub's file size limit",
            "large file to take out",
            False,
        ),
        ("GH006: Protected branch update failed", "Let the App pass this rule", True),
        (
            "refusing to allow a GitHub App to create or update workflow",
            "leave .github/workflows alone",
            False,
        ),
        ("Repository is archived so it is read-only.", "administers the repository", True),
    ],
)
def test_each_reason_has_its_mend_and_says_whether_the_same_commits_can_pass(
    said: str, mend: str, repeatable: bool
) -> None:
    reason = "[remote rejected] (pre-receive hook declined)"
    assert mend in declined(reason, f"remote: error: {said}", repeatable=repeatable)


@pytest.mark.parametrize(
    "reason",
    [
        "[rejected] (stale info)",
        "[remote rejected] (cannot lock ref 'refs/heads/sandpiper/7-fix': is at cccc but expected aaaa)",
    ],
)
def test_a_branch_that_has_moved_is_told_apart(reason: str) -> None:
    assert "has changed since I looked" in declined(reason, repeatable=False)


def test_a_reason_without_words_is_gits_own() -> None:
    assert "pre-receive hook declined" in declined("[remote rejected] (pre-receive hook declined)")


def test_a_push_that_broke_off_was_not_declined() -> None:
    assert push_refusal([], ["fatal: the remote end hung up unexpectedly", FAILED], WORK) is None
