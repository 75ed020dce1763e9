"""One bot for the tests of a module, each in threads of its own, and its log beside a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.rig import Rig, rig

LOG_SHOWN = 12_000  # characters


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(tmp_path_factory.mktemp("rig"), SANDPIPER_AGENT_CLAUDE="no-such-program") as running:
        yield running


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    report = (yield).get_result()
    running = getattr(item, "funcargs", {}).get("shared")
    if report.failed and isinstance(running, Rig):
        report.sections.append(("the bot's log", running.log[-LOG_SHOWN:]))
