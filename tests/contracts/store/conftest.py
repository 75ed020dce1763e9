"""Every store keeps the same contract: a new one joins by its name here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.store import SqliteStore
from tests.contracts.store.stage import Opening, Stage

OPENINGS: dict[str, Opening] = {"sqlite": SqliteStore.open}


@pytest.fixture(params=sorted(OPENINGS))
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path / "data", OPENINGS[request.param])
    await stage.open()
    yield stage
    await stage.store.close()
