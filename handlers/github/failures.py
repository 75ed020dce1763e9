"""What GitHub's answers mean to us: PyGithub's and requests' exceptions under our own names."""

from __future__ import annotations

import time
from collections.abc import Mapping
from json import JSONDecodeError

import requests
from github import GithubException

from bot.errors import ForgeError
from bot.redact import redact

RATE_LIMIT_PAUSE = 60.0  # what the documentation asks for when an answer doesn't say how long
LOST_PAUSE = 5.0


class CallFailed(ForgeError):
    """A call to GitHub failed. `status` is 0 when there was no answer: then it may have had its effect.

    retry_after: seconds to leave GitHub alone, when `retryable`. limited: a rate limit was hit, so
    every further call makes it worse. errors: what GitHub found wrong in the request (422).
    """

    def __init__(
        self,
        what: str,
        mend: str = "",
        *,
        status: int = 0,
        retryable: bool = False,
        retry_after: float = 0.0,
        limited: bool = False,
        errors: tuple[str, ...] = (),
    ) -> None:
        super().__init__(what, mend, retryable=retryable)
        self.status = status
        self.retry_after = retry_after
        self.limited = limited
        self.errors = errors


class NoToken(CallFailed):
    """GitHub mints no token for this: the App is gone from there, suspended, or lacks a permission."""


class MintFailed(GithubException):
    """An exception of PyGithub's, out of a request for a token rather than out of the call itself."""


def explained(
    error: GithubException | requests.RequestException | JSONDecodeError, *, as_app: bool
) -> CallFailed:
    """Our name for it. A JSONDecodeError is an answer that breaks off in the middle.

    as_app: the call showed the App's own JWT, so a 401 is about the App's id or key.
    """
    if not isinstance(error, GithubException):
        return CallFailed(
            f"GitHub did not answer ({type(error).__name__}).", retryable=True, retry_after=LOST_PAUSE
        )
    status = error.status
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    message, errors = _words(error.data)
    said = redact("; ".join([message, *errors])) or "no reason given"
    pause = _limit(status, message, headers)
    if pause is not None:
        return CallFailed(
            f"GitHub's rate limit is reached: {said}",
            status=status,
            retryable=True,
            retry_after=pause,
            limited=True,
        )
    what = f"GitHub answered {status}: {said}"
    if status >= 500:
        return CallFailed(what, status=status, retryable=True, retry_after=LOST_PAUSE)
    stranger = as_app and (status == 401 or message == "Integration not found")
    if isinstance(error, MintFailed) or stranger:
        return NoToken(what, _mend_of_mint(401 if stranger else status), status=status, errors=errors)
    if status == 401:  # a minted token that ended before its time; the next call brings a new one
        return CallFailed(what, status=status, retryable=True, retry_after=1.0)
    mend = ""
    needs = str(headers.get("x-accepted-github-permissions", ""))
    if status == 403 and needs:
        mend = f"The App needs one of these permissions: {needs}."
    return CallFailed(what, mend, status=status, errors=errors)


def _words(data: object) -> tuple[str, tuple[str, ...]]:
    """The message of an error's body, and the messages (or codes) of its single errors."""
    if not isinstance(data, Mapping):
        return "", ()
    message, listed = data.get("message"), data.get("errors")
    found = []
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, Mapping):
            parts = (str(item.get(key, "")) for key in ("resource", "field", "code"))
            item = item.get("message") or " ".join(parts)
        found.append(str(item)[:500])
    return (message[:1000] if isinstance(message, str) else ""), tuple(found)


def _limit(status: int, message: str, headers: Mapping[str, object]) -> float | None:
    """Seconds to wait when this answer is a rate limit, else None.

    Source: docs.github.com, "Rate limits for the REST API": 403 or 429, told by `retry-after`, by
    `x-ratelimit-remaining: 0`, or by the message alone.
    """
    if status not in (403, 429):
        return None
    after = str(headers.get("retry-after", ""))
    if after.isdecimal():
        return float(after)
    spent = str(headers.get("x-ratelimit-remaining", "")) == "0"
    reset = str(headers.get("x-ratelimit-reset", ""))
    if spent and reset.isdecimal():
        return max(1.0, float(reset) - time.time())
    if status == 429 or spent or "rate limit" in message.lower():
        return RATE_LIMIT_PAUSE
    return None


def _mend_of_mint(status: int) -> str:
    match status:
        case 401:
            return "Check SANDPIPER_GITHUB_APP_ID, SANDPIPER_GITHUB_PRIVATE_KEY and this host's clock."
        case 403:
            return "The App's installation may be suspended: see the owner's settings under GitHub Apps."
        case 422:
            return "Accept the App's permissions (contents, issues and pull requests: write) for this owner."
        case _:
            return "Install the App for this repository's owner again."
