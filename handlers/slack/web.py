"""Calls to Slack's Web API, with what can go wrong in our words."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.errors import SurfaceBusy, SurfaceError

Json = dict[str, Any]

TIMEOUT = 30.0  # seconds for one call
RETRY_AFTER = 5.0  # where Slack names no time

_FOR_NOW = frozenset(
    {"ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout"}
)
INVITE = "Invite me to the channel with /invite, and ask again."
_MEND_BOT = (
    "An operator has to set the Slack app's current token (OAuth & Permissions, xoxb-…)"
    " as SANDPIPER_SLACK_BOT_TOKEN."
)
MEND_APP = (
    "An operator has to set the Slack app's app-level token (Basic Information, xapp-…, with the scope"
    " connections:write) as SANDPIPER_SLACK_APP_TOKEN."
)
_MENDS = {
    "not_in_channel": INVITE,
    "channel_not_found": INVITE,
    "is_archived": "The channel is archived: ask in another one.",
    "message_not_found": "The message was deleted.",
    "thread_not_found": "The thread's first message was deleted: start a new thread.",
    "restricted_action": "The workspace's settings keep me from posting there.",
    "invalid_auth": _MEND_BOT,
    "not_authed": _MEND_BOT,
    "account_inactive": _MEND_BOT,
    "token_revoked": _MEND_BOT,
    "token_expired": _MEND_BOT,
}
WRONG_TOKEN = frozenset(code for code, mend in _MENDS.items() if mend is _MEND_BOT)


class SlackRefused(SurfaceError):
    """Slack said no. `code` is the `error` of its answer."""

    def __init__(self, code: str, mend: str = "", detail: str = "") -> None:
        super().__init__(f"Slack refused: {code}{f' ({detail})' if detail else ''}.", mend)
        self.code = code


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the app is installed, and who it is there. `url` ends with a slash."""

    team: str
    enterprise: str
    bot_user: str
    bot_id: str
    url: str


async def answered(call: Awaitable[AsyncSlackResponse]) -> Json:
    """A call's answer. Raises SurfaceBusy when it may be tried again, and SlackRefused."""
    try:
        response = await call
    except SlackApiError as error:
        raise _explained(error.response) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise SurfaceBusy(f"Slack cannot be reached ({type(error).__name__}).", RETRY_AFTER) from error
    return _object(response.data)


async def installed(client: AsyncWebClient) -> Workspace:
    """Ask once who we are. Raises SurfaceBusy, SlackRefused (with the mend for a wrong token)."""
    answer = await answered(client.auth_test())
    return Workspace(
        team=str(answer["team_id"]),
        enterprise=str(answer.get("enterprise_id") or ""),
        bot_user=str(answer["user_id"]),
        bot_id=str(answer.get("bot_id") or ""),
        url=str(answer.get("url") or ""),
    )


def busy(headers: Mapping[str, str]) -> SurfaceBusy:
    """What an answer with status 429 means."""
    seconds = headers.get("Retry-After", "")
    return SurfaceBusy("Slack limits the rate.", float(seconds) if seconds.isdigit() else RETRY_AFTER)


def on_loopback(url: str) -> bool:
    """A playground's address. The SDK would send it through a proxy of the environment, NO_PROXY or not."""
    try:
        return ipaddress.ip_address(urlsplit(url).hostname or "").is_loopback
    except ValueError:
        return False


def _explained(response: Any) -> SurfaceBusy | SlackRefused:
    # The SDK gives its own response, or aiohttp's where the body was no JSON.
    status: int = getattr(response, "status_code", 0) or getattr(response, "status", 0)
    answer = _object(getattr(response, "data", None))
    code = str(answer.get("error") or "")
    if status == 429 or code in ("ratelimited", "rate_limited"):
        return busy(response.headers)
    if status >= 500 or not code or code in _FOR_NOW:
        return SurfaceBusy(f"Slack does not work at the moment (status {status} {code}).", RETRY_AFTER)
    if code == "missing_scope":
        needed = str(answer.get("needed") or "?")
        return SlackRefused(
            code, f"An operator has to add the scope {needed} to the Slack app and install it again."
        )
    reasons = _object(answer.get("response_metadata")).get("messages")
    detail = "; ".join(str(reason) for reason in reasons[:5]) if isinstance(reasons, list) else ""
    return SlackRefused(code, _MENDS.get(code, ""), detail)


def _object(value: object) -> Json:
    return cast(Json, value) if isinstance(value, dict) else {}
