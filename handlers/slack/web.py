"""Calls to Slack's Web API, with what can go wrong in our words."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.errors import SurfaceBusy, SurfaceError

log = logging.getLogger(__name__)

Json = dict[str, Any]

# Those of manifest.yml, each with its reason in the manifest's test.
SCOPES = frozenset(
    (
        *(
            "app_mentions:read",
            "chat:write",
            "commands",
            "files:read",
            "files:write",
            "reactions:write",
            "users:read",
        ),
        *(f"{kind}:{what}" for kind in ("channels", "groups", "im", "mpim") for what in ("history", "read")),
    )
)

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
    "file_uploads_disabled": "The workspace's settings allow no uploads of files.",
    "file_uploads_except_images_disabled": "The workspace's settings allow uploads of pictures only.",
    "file_type_not_allowed": "The workspace's settings do not allow this kind of file.",
    "file_upload_size_restricted": "It is larger than the workspace allows: have it made smaller.",
    "invalid_auth": _MEND_BOT,
    "not_authed": _MEND_BOT,
    "account_inactive": _MEND_BOT,
    "token_revoked": _MEND_BOT,
    "token_expired": _MEND_BOT,
}
GONE = frozenset({"account_inactive", "token_revoked"})  # the app was removed, or the workspace was
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
    return _object((await _spoken(call)).data)


async def installed(client: AsyncWebClient) -> Workspace:
    """Ask once who we are. Raises SurfaceBusy, SlackRefused (with the mend for a wrong token).

    What the app may not do it is told when it tries; here it is logged, for the operator.
    """
    response = await _spoken(client.auth_test())
    if missing := SCOPES - _scopes(response.headers):
        log.warning(
            "The Slack app lacks the scopes %s: add them (OAuth & Permissions) and install it again.",
            ", ".join(sorted(missing)),
        )
    answer = _object(response.data)
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


async def _spoken(call: Awaitable[AsyncSlackResponse]) -> AsyncSlackResponse:
    try:
        return await call
    except SlackApiError as error:
        raise _explained(error.response) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise SurfaceBusy(f"Slack cannot be reached ({type(error).__name__}).", RETRY_AFTER) from error


def _scopes(headers: Mapping[str, str]) -> frozenset[str]:
    """Those of the token. Without the header, which is not promised, nothing is missing."""
    named = next((value for name, value in headers.items() if name.lower() == "x-oauth-scopes"), None)
    return SCOPES if named is None else frozenset(scope.strip() for scope in named.split(","))


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
