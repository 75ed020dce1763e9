"""A short soak (see tests/soak.py; `make bench` has the long one)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable
from tests.boxes import cannot_be_tested
from tests.soak import STEERS, provider_in

SEED = os.environ.get("SANDPIPER_TEST_SEED", "3")
CYCLES = 15


@pytest.mark.timeout(300)
def test_nothing_is_left_of_agents_whose_bot_is_killed_over_and_over(tmp_path: Path) -> None:
    try:
        asyncio.run(provider_in(tmp_path / "check").check())
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))
    place = tmp_path / "soak"
    place.mkdir()
    command = [sys.executable, "-m", "tests.soak", str(place), "--cycles", str(CYCLES), "--seed", SEED]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["trouble"], seen["left"]) == ([], []), f"seed {SEED}: {done.stderr}"
    assert done.returncode == 0
    assert seen["kills"] > 0
    assert len(seen["spawned"]) >= CYCLES and len(seen["steered"]) >= CYCLES * STEERS
