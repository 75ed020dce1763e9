"""Slack's signed HTTP requests to an app (docs.slack.dev, "Verifying requests from Slack")."""

import asyncio
import hashlib
import hmac
import json
import time
import urllib.parse
import uuid

import httpx

from handlers.playground.slack_envelopes import Delivery, Outcomes
from handlers.playground.slack_state import Json

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


class Requests:
    """Posts deliveries to the app's one request URL."""

    def __init__(self, outcomes: Outcomes, signing_secret: str, ack_timeout: float) -> None:
        self._outcomes = outcomes
        self._signing_secret = signing_secret
        self._ack_timeout = ack_timeout
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, delivery: Delivery, url: str) -> None:
        task = asyncio.create_task(self._send(delivery, url))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def verify(self, url: str) -> bool:
        """Does the app answer the challenge by which Slack checks a request URL?"""
        challenge = uuid.uuid4().hex
        body = json.dumps({"type": "url_verification", "token": "not-verified", "challenge": challenge})
        response = await self._post(url, body, _JSON, {})
        return response.is_success and challenge in response.text

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _send(self, delivery: Delivery, url: str) -> None:
        if delivery.kind == "events_api":
            body, content_type = json.dumps(delivery.payload), _JSON
        elif delivery.kind == "interactive":
            body, content_type = urllib.parse.urlencode({"payload": json.dumps(delivery.payload)}), _FORM
        else:
            body, content_type = urllib.parse.urlencode(delivery.payload), _FORM
        retry: dict[str, str] = {}
        if delivery.attempt:
            retry = {"x-slack-retry-num": str(delivery.attempt), "x-slack-retry-reason": delivery.reason}
        delivery.state = "sent"
        try:
            response = await self._post(url, body, content_type, retry)
        except TimeoutError:
            self._outcomes.failed(delivery, "http_timeout")
        except httpx.TransportError:
            self._outcomes.failed(delivery, "connection_failed")
        else:
            if response.is_success:
                self._outcomes.acknowledged(delivery, _object(response))
            elif response.headers.get("x-slack-no-retry") == "1":
                self._outcomes.abandoned(delivery, "http_error")
            else:
                self._outcomes.failed(delivery, "http_error")

    async def _post(self, url: str, body: str, content_type: str, more: dict[str, str]) -> httpx.Response:
        timestamp = str(int(time.time()))
        signed = hmac.new(self._signing_secret.encode(), f"v0:{timestamp}:{body}".encode(), hashlib.sha256)
        headers = {
            "content-type": content_type,
            "x-slack-request-timestamp": timestamp,
            "x-slack-signature": f"v0={signed.hexdigest()}",
        }
        # trust_env=False: a proxy of the environment has no business with loopback.
        async with asyncio.timeout(self._ack_timeout), httpx.AsyncClient(trust_env=False) as client:
            return await client.post(url, content=body, headers=headers | more)


def _object(response: httpx.Response) -> Json:
    try:
        value = response.json()
    except ValueError:
        return {"text": response.text} if response.text else {}
    return value if isinstance(value, dict) else {}
