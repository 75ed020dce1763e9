"""A machine without bubblewrap: what needs it is skipped there, but fails where it is required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ISOLATION = "tests/integration/test_local_isolation.py"
A_TEST_OF_A_BOX = f"{ISOLATION}::test_a_stopped_sandbox_that_is_touched_gets_no_proxy"


def without_bubblewrap(programs: Path, **environment: str) -> str:
    """pytest's last line."""
    settled = {name: value for name, value in os.environ.items() if not name.startswith("SANDPIPER_TEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", A_TEST_OF_A_BOX],
        cwd=ROOT,
        env={**settled, "PATH": str(programs), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()[-1]


def test_a_sandbox_that_cannot_be_tested_is_a_skip_and_where_it_is_required_a_failure(tmp_path: Path) -> None:
    assert without_bubblewrap(tmp_path).startswith("1 skipped")
    assert without_bubblewrap(tmp_path, SANDPIPER_TEST_SANDBOX="required").startswith("1 error")
