"""What GitHub tells of our App's installations: where we may not work any more, or may again. Pure.

Payloads: docs.github.com, "Webhook events and payloads" (`installation`, `installation_repositories`), which
every App is sent without subscribing.
"""

from __future__ import annotations

from collections.abc import Mapping

from bot.models import Standing

SURFACE = "github"
EVENTS = frozenset({"installation", "installation_repositories"})

UNINSTALLED = "the GitHub App was removed from this account"
SUSPENDED = "the GitHub App is suspended for this account"
WITHDRAWN = "the GitHub App may not work on this repository any more"

_WHY = {"deleted": UNINSTALLED, "suspend": SUSPENDED, "unsuspend": "", "created": ""}


def standings(event: str, payload: object) -> tuple[Standing, ...]:
    """Nothing for other events, and for what is not of the shape that GitHub sends."""
    if event not in EVENTS or not isinstance(payload, Mapping):
        return ()
    action, installation = payload.get("action"), _id(payload.get("installation"))
    if not installation:
        return ()
    if event == "installation":
        if not isinstance(action, str) or action not in _WHY:
            return ()
        return (of_installation(installation, _WHY[action]),)
    gone = payload.get("repositories_removed") if action == "removed" else ()
    ids = [_id(one) for one in gone] if isinstance(gone, list) else []
    return tuple(Standing(repository=id, why=WITHDRAWN) for id in ids if id)


def of_installation(id: int, why: str) -> Standing:
    return Standing(f"{SURFACE}:{id}", installation=id, why=why)


def _id(holder: object) -> int:
    value = holder.get("id") if isinstance(holder, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else 0
