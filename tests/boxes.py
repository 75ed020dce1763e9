"""Tests that need local sandboxes, where there can be none."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

# CI installs bubblewrap, so there it is a failure that it is missing or does not work.
REQUIRED = os.environ.get("SANDPIPER_TEST_SANDBOX") == "required"


def cannot_be_tested(reason: str) -> NoReturn:
    """Skip the test, or fail it where it is required."""
    if REQUIRED:
        pytest.fail(f"SANDPIPER_TEST_SANDBOX=required, but: {reason}")
    pytest.skip(reason)
