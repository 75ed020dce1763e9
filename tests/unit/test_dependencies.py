"""What pyproject.toml asks for is locked, and the reason for it is written down."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME = PROJECT["project"]["dependencies"]
EXTRAS = [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
DEV = PROJECT["dependency-groups"]["dev"]
BUILD = PROJECT["build-system"]["requires"]


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0]


@pytest.mark.parametrize(
    ("lock", "asked"), [("requirements.lock", [*RUNTIME, *BUILD]), ("requirements-dev.lock", DEV)]
)
def test_the_lock_has_everything_that_is_asked_for(lock: str, asked: list[str]) -> None:
    """And says that it is there because we asked; else `make lock` was forgotten."""
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text())
    ours = {entry.split("==")[0] for entry in entries if "(pyproject.toml" in entry}
    assert {name_of(requirement) for requirement in asked} == ours


@pytest.mark.parametrize("requirement", [*RUNTIME, *EXTRAS, *DEV, *BUILD])
def test_every_dependency_has_its_reason(requirement: str) -> None:
    reasons = (ROOT / "docs" / "decisions" / "0001-dependencies.md").read_text()
    rows = [line.split("|")[1] for line in reasons.splitlines() if line.startswith("| `")]
    named = {name.partition("[")[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert name_of(requirement) in named


@pytest.mark.parametrize("requirement", [*RUNTIME, *EXTRAS, *DEV, *BUILD])
def test_every_dependency_has_a_bound(requirement: str) -> None:
    assert "<" in requirement


def test_what_builds_us_is_what_was_locked() -> None:
    assert PROJECT["dependency-groups"]["build"] == BUILD


def test_no_lock_names_a_place_that_only_one_machine_has() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        assert not re.search(r"--(?:extra-)?index-url|--find-links|file:", (ROOT / lock).read_text())
