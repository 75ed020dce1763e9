"""The surface contract over GitHub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contracts.surface.github_rig import GitHubRig
from tests.contracts.surface.suite import SurfaceContract
from tests.github_stage import WEB, github_stage


class TestGitHubSurface(SurfaceContract):
    @pytest.fixture
    async def rig(self, tmp_path: Path) -> AsyncIterator[GitHubRig]:
        async with github_stage(tmp_path) as stage:
            await stage.repositories.find(WEB)
            yield GitHubRig(stage)
