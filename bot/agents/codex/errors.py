"""Why Codex could not do it, in words that help, and as a cause where that is clear."""

from __future__ import annotations

import re

from bot.agents.causes import NO_MODEL
from bot.agents.wire import Frame, frame, part, string
from bot.events import Cause

_CAUSES = {
    "unauthorized": Cause.LOGIN,
    "usageLimitExceeded": Cause.LIMIT,
    "rateLimitExceeded": Cause.LIMIT,
    "sessionBudgetExceeded": Cause.LIMIT,
}
_STATUS = {401: Cause.LOGIN, 403: Cause.LOGIN, 402: Cause.LIMIT, 429: Cause.LIMIT}

# Codex's own words where the variable of the key is empty, and for a conversation that is not on disk.
_NO_KEY = re.compile(r"Missing environment variable|\bcodex login\b", re.IGNORECASE)
_NO_CONVERSATION = re.compile(r"no rollout found|invalid (?:session|thread) id|not found", re.IGNORECASE)

_URL = re.compile(r", url: \S+")  # of the API: people know which model they have


def describe(error: Frame, *, resuming: bool = False) -> tuple[str, Cause]:
    """The text and the cause of a TurnError, or of the error of a request."""
    message = _URL.sub("", _message(string(error, "message"))) or "Codex failed without saying why."
    if resuming and _NO_CONVERSATION.search(message):
        return message, Cause.RESUME
    cause = Cause.LOGIN if _NO_KEY.search(message) else _cause(error)
    return message, Cause.NO_MODEL if cause is Cause.MODEL and NO_MODEL.search(message) else cause


def http_status(error: Frame) -> int:
    """The status of the model's API that Codex passes on; 0 when there is none."""
    for details in part(error, "codexErrorInfo").values():
        status = details.get("httpStatusCode") if isinstance(details, dict) else None
        if isinstance(status, int) and 100 <= status < 600:
            return status
    return 0


def _cause(error: Frame) -> Cause:
    info = error.get("codexErrorInfo")
    if isinstance(info, str) and info in _CAUSES:
        return _CAUSES[info]
    if info is None:  # a refused request, not a failed call of the model
        return Cause.UNKNOWN
    return _STATUS.get(http_status(error), Cause.MODEL)


def _message(text: str) -> str:
    """Of an error of the API that Codex hands on as it came, the words."""
    told = frame(text.encode("utf-8", "replace")) if text.startswith("{") else None
    return (told and (string(part(told, "error"), "message") or string(told, "message"))) or text
