"""What the tests of several providers stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.docker_engine import DockerEngine


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[DockerEngine]:
    engine = DockerEngine(tmp_path / "engine")
    await engine.start()
    yield engine
    await engine.close()
