"""What Slack tells of accounts and of our own installation: who is not there any more. Pure.

Shapes: docs.slack.dev, "user_change", "app_uninstalled" and "tokens_revoked".
"""

from __future__ import annotations

from typing import Any, cast

from bot.models import Standing
from handlers.slack.parse import tenant_of

Json = dict[str, Any]

EVENTS = ("user_change", "app_uninstalled", "tokens_revoked")
DEACTIVATED = "the account of this session's owner is deactivated"
UNINSTALLED = "the app was removed from this Slack workspace"


def standings(body: Json, bot_user: str) -> tuple[Standing, ...]:
    """Nothing for other events. That somebody is back is not told apart from any other change of a profile,
    of which there are too many. Raises Undecodable."""
    event = _object(body.get("event"))
    match event.get("type"):
        case "user_change":
            user = _object(event.get("user"))
            id = user.get("id")
            gone = user.get("deleted") is True and isinstance(id, str) and id
            return (Standing(tenant_of(body), str(id), why=DEACTIVATED),) if gone else ()
        case "app_uninstalled":
            return (Standing(tenant_of(body), why=UNINSTALLED),)
        case "tokens_revoked":
            bots = _object(event.get("tokens")).get("bot")
            ours = isinstance(bots, list) and bot_user in bots
            return (Standing(tenant_of(body), why=UNINSTALLED),) if ours else ()
    return ()


def _object(value: object) -> Json:
    return cast(Json, value) if isinstance(value, dict) else {}
