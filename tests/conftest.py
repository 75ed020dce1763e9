"""What holds for all tests."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about us.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SLOW = "acp-opencode"  # half a minute until it listens
ALL_OF_THE_AGENTS = os.environ.get("SANDPIPER_TEST_AGENTS") == "all"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the tests that drive real agents, a few run each time and all of them in `make verify`."""
    if ALL_OF_THE_AGENTS:
        return
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        smoke = item.get_closest_marker("smoke") and SLOW not in item.name
        (left_out if item.get_closest_marker("live") and not smoke else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_report_header() -> str:
    told = "all of them" if ALL_OF_THE_AGENTS else "a few of them (all: make verify)"
    return f"tests that drive real agents: {told}"


# make verify: which scenario each agent went through, for docs/agents.md.
VERIFIED = os.environ.get("SANDPIPER_VERIFIED", "")
OF_AN_AGENT = re.compile(r"tests/contracts/agent/test_(?:live|side_tools)\.py::test_(\w+)\[([\w-]+)\]")
outcomes: dict[str, dict[str, str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    told = OF_AN_AGENT.fullmatch(report.nodeid)
    if told and (report.when == "call" or report.outcome != "passed"):
        known_failure = hasattr(report, "wasxfail")
        outcomes.setdefault(told[1], {})[told[2]] = "failed" if known_failure else report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    if VERIFIED and outcomes and not hasattr(session.config, "workerinput"):
        text = json.dumps(outcomes, indent=1, sort_keys=True)
        Path(VERIFIED).write_text(f"{text}\n")
