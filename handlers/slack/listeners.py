"""What Slack hands us goes to the inbox, and only then is it acknowledged.

With `process_before_response` Bolt acknowledges when a listener has returned, and not at all when it has
raised: then Slack delivers again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp

from bot.models import Delivery
from handlers.slack import parse
from handlers.slack.ids import ACTION, COMMAND, EVENT, SURFACE, means_something
from handlers.slack.standings import EVENTS, standings

Json = dict[str, Any]
Accept = Callable[[Delivery], Awaitable[bool]]

_ANY = re.compile("")


def listen(app: AsyncApp, accept: Accept, bot_user: str, now: Callable[[], float]) -> None:
    """Register the listeners. `accept` stores a delivery durably; `now` is Unix seconds."""

    async def keep(kind: str, id: object, body: Json) -> None:
        raw = json.dumps(body, separators=(",", ":")).encode()
        known_as = id if isinstance(id, str) and id else hashlib.sha256(raw).hexdigest()
        await accept(Delivery(SURFACE, known_as, kind, raw, now(), parse.lane(kind, body)))

    async def on_event(body: Json) -> None:
        if parse.worth_keeping(body, bot_user):
            await keep(EVENT, body.get("event_id"), body)

    async def on_standing(body: Json) -> None:
        if standings(body, bot_user):
            await keep(EVENT, body.get("event_id"), body)

    async def on_command(body: Json, ack: AsyncAck) -> None:
        await keep(COMMAND, body.get("trigger_id"), body)
        await ack()

    async def on_action(body: Json, ack: AsyncAck) -> None:
        """Every button wants its acknowledgement, even one that only opens a page."""
        if any(means_something(str(action.get("action_id"))) for action in body.get("actions") or ()):
            await keep(ACTION, body.get("trigger_id"), body)
        await ack()

    app.event("message")(on_event)
    app.event("app_mention")(on_event)
    for event in EVENTS:
        app.event(event)(on_standing)
    app.command(_ANY)(on_command)
    app.action(_ANY)(on_action)
