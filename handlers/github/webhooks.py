"""Deliveries come in here: verified on their raw bytes, stored, and only then acknowledged.

GitHub wants an answer within 10 s, sends at most 25 MB, and never resends by itself
(docs.github.com, "Handling webhook deliveries" and "Validating webhook deliveries").
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bot.models import Delivery
from handlers.github import closings, standings
from handlers.github.parse import ACTIONS, SURFACE, by_machine

log = logging.getLogger(__name__)

PATH = "/github/webhooks"
LARGEST_BODY = 25 * 1024 * 1024
_LONGEST_HEADER = 200
_AT_ONCE = 256 * 1024  # bytes that are examined without a thread: well under a millisecond's work
_EVENTS = frozenset(event for event, _ in ACTIONS) | standings.EVENTS | closings.EVENTS


class _Refused(Exception):
    """An answer of 4xx: what is wrong with the request, in one line for whoever reads GitHub's log of it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Webhooks:
    """The App's webhook: `route` goes into the web application.

    accept: stores a delivery durably, False when it is there already. secret: the App's webhook
    secret; while it is empty nothing is accepted. GitHub itself is asked nothing, so it may be away.
    """

    def __init__(
        self,
        accept: Callable[[Delivery], Awaitable[bool]],
        secret: str,
        app_id: int,
        now: Callable[[], float],
    ) -> None:
        self._accept = accept
        self._secret = secret.encode()
        self._app_id = app_id
        self._now = now
        self.route = Route(PATH, self._receive, methods=["POST"])

    async def _receive(self, request: Request) -> Response:
        try:
            return await self._take(request)
        except _Refused as refused:
            log.warning("refused a webhook delivery with %d: %s", refused.status, refused.why)
            return JSONResponse({"error": refused.why}, status_code=refused.status)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it

    async def _take(self, request: Request) -> Response:
        event = _header(request, "X-GitHub-Event")
        id = _header(request, "X-GitHub-Delivery")
        signature = _header(request, "X-Hub-Signature-256")
        body = await _body(request)
        if len(body) <= _AT_ONCE:
            lane = self._examine(event, signature, body)
        else:
            lane = await asyncio.to_thread(self._examine, event, signature, body)
        if lane is None:
            return JSONResponse({"status": "ignored"}, status_code=202)
        new = await self._accept(Delivery(SURFACE, id, event, body, self._now(), lane))
        return JSONResponse({"status": "accepted" if new else "known already"}, status_code=202)

    def _examine(self, event: str, signature: str, body: bytes) -> str | None:
        """The lane of a delivery, or None when it is nothing that we use. Raises _Refused."""
        if not self._secret:
            raise _Refused(401, "this bot has no webhook secret yet, so it accepts no delivery")
        expected = "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise _Refused(401, "the signature does not match: is the webhook's secret the one set here?")
        if event not in _EVENTS:
            return None
        try:
            payload = json.loads(body)
        except ValueError:
            raise _Refused(
                400, "the body is not JSON: set the webhook's content type to application/json"
            ) from None
        except RecursionError:
            return ""  # JSON, but not of a shape that we can look into: the parser's to report
        return self._lane(event, payload)

    def _lane(self, event: str, payload: object) -> str | None:
        """A look without trust: whatever does not have the expected shape is stored, in no lane."""
        if not isinstance(payload, Mapping):
            return ""
        if event in standings.EVENTS:  # whoever did it: what counts is that it is so
            return "" if standings.standings(event, payload) else None
        if event in closings.EVENTS:  # as well
            told = closings.closings(event, payload)
            return f"{told[0].repository}/{told[0].number}" if told else None
        action = payload.get("action")
        if isinstance(action, str) and (event, action) not in ACTIONS:
            return None
        if isinstance(payload.get("sender"), Mapping) and by_machine(payload, self._app_id):
            return None
        repository, issue = payload.get("repository"), payload.get("issue")
        if not isinstance(repository, Mapping) or not isinstance(issue, Mapping):
            return ""
        id, number = repository.get("id"), issue.get("number")
        return f"{id}/{number}" if isinstance(id, int) and isinstance(number, int) else ""


def _header(request: Request, name: str) -> str:
    value = request.headers.get(name, "")
    if not value:
        raise _Refused(400, f"the header {name} is missing: this address is for GitHub's webhooks")
    if len(value) > _LONGEST_HEADER or not value.isprintable():
        raise _Refused(400, f"the header {name} is not one that GitHub sends")
    return value


async def _body(request: Request) -> bytes:
    """The raw bytes, as they are signed. Raises _Refused when there are too many of them."""
    too_large = _Refused(413, f"the body is larger than {LARGEST_BODY} bytes, the most that GitHub sends")
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and (len(declared) > 15 or int(declared) > LARGEST_BODY):
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise too_large
    return bytes(body)
