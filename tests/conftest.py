"""What holds for all tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

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


# Where the tests run as root, local sandboxes have users of their own, who must be able to pass through the
# directories of the tests. Pytest closes its own, also under a run beside this one.
OWN_TEMP = pytest.StashKey[Path]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if os.geteuid() == 0 and config.option.basetemp is None:
        config.stash[OWN_TEMP] = Path(tempfile.mkdtemp(prefix="sandpiper-tests-"))
        config.option.basetemp = config.stash[OWN_TEMP]


def pytest_unconfigure(config: pytest.Config) -> None:
    if OWN_TEMP in config.stash:
        shutil.rmtree(config.stash[OWN_TEMP], ignore_errors=True)


class Passable:
    """Pytest's factory of directories, with a way through each of them."""

    def __init__(self, factory: pytest.TempPathFactory, *, of_a_worker: bool) -> None:
        self._factory = factory
        base = factory.getbasetemp()
        for directory in (base, *([base.parent] if of_a_worker else [])):
            directory.chmod(0o711)

    def mktemp(self, basename: str, numbered: bool = True) -> Path:
        directory = self._factory.mktemp(basename, numbered)
        directory.chmod(0o711)
        return directory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._factory, name)


@pytest.fixture(scope="session")
def tmp_path_factory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if os.geteuid() != 0:
        return tmp_path_factory
    return Passable(tmp_path_factory, of_a_worker=hasattr(request.config, "workerinput"))


def pytest_report_header() -> str:
    told = "all of them" if ALL_OF_THE_AGENTS else "a few of them (all: make verify)"
    return f"tests that drive real agents: {told}"


# make verify: which scenario each agent went through, for docs/agents.md.
VERIFIED = os.environ.get("SANDPIPER_VERIFIED", "")
AGENT = r"(?:acp-)?(?:claude|codex|opencode)|scripted"
OF_AN_AGENT = re.compile(
    rf"tests/(?:contracts/agent/test_(?:live|side_tools)|e2e/test_agents_path)\.py::test_(\w+)\[(?:([\w-]+?)-)??({AGENT})\]"
)
OF_STREAMS = re.compile(rf"tests/contracts/agent/test_streams\.py::test_\w+\[({AGENT})\]")
outcomes: dict[str, dict[str, str]] = {}
examples: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed and (of := OF_STREAMS.fullmatch(report.nodeid)):
        examples[of[1]] += int(str(dict(report.user_properties)["examples"]))
    told = OF_AN_AGENT.fullmatch(report.nodeid)
    if told and (report.when == "call" or report.outcome != "passed"):
        known_failure = hasattr(report, "wasxfail")
        row = f"{told[1]}: {told[2]}" if told[2] else told[1]
        outcomes.setdefault(row, {})[told[3]] = "failed" if known_failure else report.outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if examples:
        of_each = ", ".join(f"{agent} {count:,}" for agent, count in sorted(examples.items()))
        terminalreporter.line(f"recorded streams, cut and broken {examples.total():,} times: {of_each}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if VERIFIED and outcomes and not hasattr(session.config, "workerinput"):
        broken = {"streams, cut and broken": {agent: f"{count:,}" for agent, count in examples.items()}}
        text = json.dumps(outcomes | broken, indent=1, sort_keys=True)
        Path(VERIFIED).write_text(f"{text}\n")
