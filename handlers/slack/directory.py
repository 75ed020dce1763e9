"""Who people are and what channels are, as Slack tells; remembered for a few minutes."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast

from slack_sdk.web.async_client import AsyncWebClient

from bot.errors import Denied, SurfaceBusy
from handlers.slack.web import INVITE, Json, SlackRefused, Workspace, answered

log = logging.getLogger(__name__)

REMEMBERED = 300.0  # seconds: how long somebody who was made a guest may go on
KEPT = 2_000
NAME_LIMIT = 80


class Directory:
    """users.info and conversations.info. Refusals are asked again each time, answers are kept."""

    def __init__(
        self, client: AsyncWebClient, workspace: Workspace, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._workspace = workspace
        self._now = now
        self._known: dict[str, tuple[float, Json]] = {}

    async def names(self, users: Iterable[str]) -> dict[str, str]:
        """What people call themselves. Who cannot be looked up is left out."""
        found: dict[str, str] = {}
        for user in users:
            try:
                found[user] = _name(await self._user(user))
            except (SurfaceBusy, SlackRefused) as error:
                log.info("the name of %s is not known: %s", user, error)
        return found

    async def why_external(self, user: str, channel: str) -> str:
        """Why this person or this channel is not of our organisation alone, or "".

        What Slack will not tell counts as a reason. Raises SurfaceBusy when it may be asked again, and
        Denied, with the mend, for a private channel that we are not in.
        """
        try:
            return self._why_foreign(await self._user(user)) or _why_shared(await self._channel(channel))
        except SlackRefused as refused:
            if refused.code == "channel_not_found":  # Slack's word for a private one without us
                raise Denied("I am not in this channel.", INVITE) from refused
            return f"Slack does not say who may be here: {refused.code}"

    async def deactivated(self, user: str) -> bool:
        """Asked anew. Raises SurfaceBusy, SlackRefused."""
        self.forget(user)
        return (await self._user(user)).get("deleted") is True

    def forget(self, user: str) -> None:
        self._known.pop(f"user {user}", None)

    def _why_foreign(self, user: Json) -> str:
        home = self._workspace
        organisation = _object(user.get("enterprise_user")).get("enterprise_id")
        same = user.get("team_id") == home.team or (
            home.enterprise != "" and home.enterprise in (organisation, user.get("team_id"))
        )
        if user.get("is_bot") is not False or user.get("id") == "USLACKBOT":
            return "you are a bot"
        if user.get("is_stranger") or not same:
            return "you are from another organisation"
        if user.get("is_restricted") is not False or user.get("is_ultra_restricted") is not False:
            return "you are a guest here"
        return "your account is deactivated" if user.get("deleted") else ""

    async def _user(self, user: str) -> Json:
        return await self._remembered(f"user {user}", lambda: self._ask_user(user))

    async def _channel(self, channel: str) -> Json:
        return await self._remembered(f"channel {channel}", lambda: self._ask_channel(channel))

    async def _ask_user(self, user: str) -> Json:
        return _object((await answered(self._client.users_info(user=user))).get("user"))

    async def _ask_channel(self, channel: str) -> Json:
        return _object((await answered(self._client.conversations_info(channel=channel))).get("channel"))

    async def _remembered(self, key: str, ask: Callable[[], Awaitable[Json]]) -> Json:
        known = self._known.get(key)
        if known is not None and self._now() - known[0] < REMEMBERED:
            return known[1]
        answer = await ask()
        self._known.pop(key, None)
        self._known[key] = (self._now(), answer)
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        return answer


def _why_shared(channel: Json) -> str:
    # A direct channel may lack the field: nobody is in it but its person, who is asked about anyway.
    shared = channel.get("is_ext_shared", False if channel.get("is_im") else None)
    return "" if shared is False else "this channel is shared with another organisation"


def _name(user: Json) -> str:
    profile = _object(user.get("profile"))
    names = (profile.get("display_name"), profile.get("real_name"), user.get("real_name"), user.get("name"))
    known_as = next((name for name in names if isinstance(name, str) and name.strip()), str(user.get("id")))
    return " ".join(known_as.split())[:NAME_LIMIT]


def _object(value: Any) -> Json:
    return cast(Json, value) if isinstance(value, dict) else {}
