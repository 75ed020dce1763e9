"""The contract of the local provider for a bot that is not root, in a run of root's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.boxes import passed_by_nobody


@pytest.mark.timeout(320)  # it is the whole suite
@pytest.mark.skipif(os.geteuid() != 0, reason="this run is unprivileged already")
def test_the_contract_holds_for_an_unprivileged_bot() -> None:
    assert passed_by_nobody(Path(__file__).parent, "-k", "local and not unsafe", within=300)
