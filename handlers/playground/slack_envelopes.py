"""One thing that Slack has for the app, and what can become of it."""

import asyncio
from dataclasses import dataclass
from typing import Literal, Protocol

from handlers.playground.slack_state import Json

Kind = Literal["events_api", "slash_commands", "interactive"]
State = Literal["waiting", "sent", "acknowledged", "abandoned"]


@dataclass(eq=False, slots=True)
class Delivery:
    """An event, a command or a click for the app to take.

    `attempt` counts from 0, and `reason` says why the one before failed. `missed` says that there was nobody
    to give it to. `answer` is there for commands and clicks: what the app acknowledged with.
    """

    kind: Kind
    payload: Json
    attempt: int = 0
    reason: str = ""
    state: State = "waiting"
    missed: bool = False
    answer: asyncio.Future[Json] | None = None

    @property
    def event(self) -> Json:
        """The event inside, empty for a command or a click."""
        event: Json = self.payload.get("event", {})
        return event


class Outcomes(Protocol):
    """Who is told what became of a delivery."""

    def acknowledged(self, delivery: Delivery, payload: Json) -> None:
        """The app took it, and said `payload`."""

    def failed(self, delivery: Delivery, reason: str) -> None:
        """The app did not take it; it may be tried again."""

    def abandoned(self, delivery: Delivery, reason: str) -> None:
        """The app did not take it, and it is not tried again."""
