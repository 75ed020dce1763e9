"""What GitHub tells of our pull requests: that people merged, closed or reopened them. Pure.

Payload: docs.github.com, "Webhook events and payloads" (`pull_request`), to which the App has to subscribe.
"""

from __future__ import annotations

from collections.abc import Mapping

from bot.models import Closing
from bot.workspace import BRANCHES

EVENTS = frozenset({"pull_request"})


def closings(event: str, payload: object) -> tuple[Closing, ...]:
    """Nothing for other events, for pull requests of branches that cannot be ours, and for what is not of the
    shape that GitHub sends."""
    if event not in EVENTS or not isinstance(payload, Mapping):
        return ()
    action, pull, repository = (payload.get(key) for key in ("action", "pull_request", "repository"))
    if action not in ("closed", "reopened") or not isinstance(pull, Mapping):
        return ()
    head = pull.get("head")
    branch = head.get("ref") if isinstance(head, Mapping) else None
    id, number = _number(repository, "id"), _number(pull, "number")
    if not (id and number and isinstance(branch, str) and branch.startswith(BRANCHES)):
        return ()
    return (Closing(id, number, open=action == "reopened"),)


def _number(holder: object, key: str) -> int:
    value = holder.get(key) if isinstance(holder, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else 0
