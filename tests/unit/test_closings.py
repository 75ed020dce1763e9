"""Which of our pull requests people are done with, out of what GitHub tells."""

from __future__ import annotations

from typing import Any

import pytest

from bot.models import Closing
from handlers.github.closings import closings


def told(action: object = "closed", **more: Any) -> dict[str, Any]:
    head = {"ref": "sandpiper/5-add-it-12345678"}
    return {"action": action, "repository": {"id": 1}, "pull_request": {"number": 6, "head": head}, **more}


@pytest.mark.parametrize(("action", "open"), [("closed", False), ("reopened", True)])
def test_one_that_was_closed_or_opened_again(action: str, open: bool) -> None:
    assert closings("pull_request", told(action)) == (Closing(1, 6, open),)


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("issues", told()),
        ("pull_request", told("opened")),
        ("pull_request", told("synchronize")),
        ("pull_request", told(repository={"id": "1"})),
        ("pull_request", told(repository=None)),
        ("pull_request", told(pull_request={"number": 6, "head": {"ref": "feature"}})),
        ("pull_request", told(pull_request={"number": 6, "head": None})),
        ("pull_request", told(pull_request={"number": True, "head": {"ref": "sandpiper/x"}})),
        ("pull_request", told(action=["closed"])),
        ("pull_request", []),
    ],
)
def test_what_says_nothing_of_that_or_has_another_shape(event: str, payload: Any) -> None:
    assert closings(event, payload) == ()
