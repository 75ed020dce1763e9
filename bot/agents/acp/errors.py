"""JSON-RPC errors of an ACP agent, in words and with what they mean.

ACP itself has codes only for a missing login and a missing session; what a model's API said comes as text.
"""

from __future__ import annotations

import json
import re

from bot.agents.causes import NO_MODEL
from bot.agents.wire import Frame, part, string
from bot.events import Cause

AUTH_REQUIRED = -32000
NOT_FOUND = -32002
METHOD_NOT_FOUND = -32601
CANCELLED = -32800

_LOGIN = re.compile(
    r"\b401\b|\b403\b|authenticat|unauthori[sz]ed|\bapi[ _-]?key\b|\blog ?in\b|/login\b|logged out|"
    r"oauth_org_not_allowed|ProviderAuthError",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"\b429\b|\b402\b|rate.?limit|usage.?limit|quota|billing_error|account_on_hold|credit balance|"
    r"insufficient (?:credit|fund|balance)|too many requests",
    re.IGNORECASE,
)


def words_of(error: Frame) -> str:
    """What went wrong, without the protocol's own word for it."""
    message = string(error, "message").removeprefix("Internal error: ")
    data = error.get("data")
    details = data if isinstance(data, str) else string(part(error, "data"), "details")
    if details and details not in message:
        message = f"{message}: {details}" if message and message != "Internal error" else details
    return message or "an error without a message"


def cause_of(error: Frame) -> Cause:
    """Why a prompt failed. What is left when it is not the account is the model's API: an agent's own
    mistakes look the same."""
    if error.get("code") == AUTH_REQUIRED:
        return Cause.LOGIN
    said = f"{string(error, 'message')} {json.dumps(error.get('data', ''))[:2_000]}"
    # A spent account is often told with the words for a wrong key around it, hence this order.
    if _LIMIT.search(said):
        return Cause.LIMIT
    if _LOGIN.search(said):
        return Cause.LOGIN
    return Cause.NO_MODEL if NO_MODEL.search(said) else Cause.MODEL
