"""Whole turns of the bot as its own process."""

import pytest

# What they assert is shown with its values, as in a test itself.
pytest.register_assert_rewrite("tests.e2e.rig", "tests.e2e.witness")
