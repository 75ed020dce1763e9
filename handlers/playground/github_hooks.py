"""The App's webhooks: signed deliveries to one URL, their log, and redelivery on request only.

As GitHub does: 10 s for an answer, no redirects, no retries by itself, three days of log. Unlike GitHub,
deliveries go out one after the other, so that a test sees them in order; a real receiver may not rely on it.
Source: docs.github.com, "Handling webhook deliveries" and "Validating webhook deliveries".
"""

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import httpx

from handlers.playground.changes import Changes
from handlers.playground.github_shapes import Json, Shapes
from handlers.playground.github_state import GitHubState, Installation, Repository, User, node_id, timestamp

ANSWER_WITHIN = 10.0
LOG_KEPT = timedelta(days=3)
LARGEST_PAYLOAD = 25 * 1024 * 1024
_UNSUBSCRIBED = ("installation", "installation_repositories", "ping")


@dataclass(slots=True, eq=False)
class Delivery:
    """One attempt to deliver one event. `guid` names the event and is the same for its redeliveries.

    `status` is "OK" for an answer of 2xx; `status_code` is 0 when there was no answer.
    """

    id: int
    guid: str
    event: str
    action: str | None
    url: str
    body: bytes
    headers: dict[str, str]
    installation_id: int | None
    repository_id: int | None
    redelivery: bool = False
    delivered_at: float = 0.0
    duration: float = 0.0
    status: str = "pending"
    status_code: int = 0
    response_headers: dict[str, str] = field(default_factory=dict)
    response_body: str = ""

    @property
    def payload(self) -> Json:
        decoded: Json = json.loads(self.body)
        return decoded


class Hooks:
    """Announces events to the App and delivers them; `run` is the one that sends."""

    def __init__(
        self, state: GitHubState, shapes: Shapes, changes: Changes, *, secret: str, clock: Callable[[], float]
    ) -> None:
        self._state = state
        self._shapes = shapes
        self._changes = changes
        self._clock = clock
        self._waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self.secret = secret
        self.url: str | None = None
        self.answer_within = ANSWER_WITHIN
        self.deliveries: list[Delivery] = []

    def announce(
        self,
        event: str,
        payload: Json,
        *,
        by: User,
        repository: Repository | None = None,
        installation: Installation | None = None,
    ) -> None:
        """Tell the App of an event, if it is installed there and subscribed to it.

        `payload` is the part that is the event's own; `action`, if the event has one, comes first in it.
        """
        number = (payload.get("issue") or payload.get("pull_request") or {}).get("number")
        action = payload.get("action")
        what = event if action is None else f"{event}.{action}"
        self._changes.note(what, repository.full_name if repository else "", str(number or ""))
        if repository is not None:
            installation = self._state.installation_of(repository)
            payload = payload | self._surroundings(repository, installation, payload)
        known = event in self._state.app.events or event in _UNSUBSCRIBED
        if self.url is None or installation is None or not known:
            return
        body = json.dumps(payload | {"sender": self._shapes.user(by)}, separators=(",", ":")).encode()
        if len(body) > LARGEST_PAYLOAD:
            return
        guid = str(uuid.uuid4())
        self._waiting.put_nowait(
            Delivery(
                id=self._state.next_id(),
                guid=guid,
                event=event,
                action=action,
                url=self.url,
                body=body,
                headers=self.signed_headers(event, guid, body),
                installation_id=installation.id,
                repository_id=repository.id if repository else None,
            )
        )

    def _surroundings(self, repository: Repository, installation: Installation | None, payload: Json) -> Json:
        around: Json = {"repository": payload.get("repository") or self._shapes.repository(repository)}
        if repository.owner.kind == "Organization":
            around["organization"] = self._shapes.organization(repository.owner)
        if installation is not None:
            around["installation"] = {"id": installation.id, "node_id": node_id("IN", installation.id)}
        return around

    def signed_headers(self, event: str, guid: str, body: bytes) -> dict[str, str]:
        """What GitHub sends along; also for tests that post a delivery of their own."""
        secret = self.secret.encode()
        return {
            "Accept": "*/*",
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/playground",
            "X-GitHub-Delivery": guid,
            "X-GitHub-Event": event,
            "X-GitHub-Hook-ID": str(self._state.app.id + 1_000_000),
            "X-GitHub-Hook-Installation-Target-ID": str(self._state.app.id),
            "X-GitHub-Hook-Installation-Target-Type": "integration",
            "X-Hub-Signature": f"sha1={hmac.new(secret, body, hashlib.sha1).hexdigest()}",
            "X-Hub-Signature-256": f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}",
        }

    def redeliver(self, delivery: Delivery) -> None:
        """Try again, with the same guid and the same bytes."""
        self._waiting.put_nowait(
            Delivery(
                id=self._state.next_id(),
                guid=delivery.guid,
                event=delivery.event,
                action=delivery.action,
                url=self.url or delivery.url,
                body=delivery.body,
                headers=delivery.headers,
                installation_id=delivery.installation_id,
                repository_id=delivery.repository_id,
                redelivery=True,
            )
        )

    def log(self) -> list[Delivery]:
        """The attempts that GitHub still remembers, newest first."""
        oldest = self._clock() - LOG_KEPT.total_seconds()
        return [delivery for delivery in reversed(self.deliveries) if delivery.delivered_at >= oldest]

    async def run(self) -> None:
        """Deliver what is announced, for as long as the server runs."""
        # Receivers are on loopback and speak plain HTTP; loading certificates would only cost time.
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:  # noqa: S501
            while True:
                delivery = await self._waiting.get()
                await self._attempt(client, delivery)
                self.deliveries.append(delivery)
                self._changes.note("delivered", delivery.event, delivery.guid)

    async def _attempt(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        delivery.delivered_at = self._clock()
        began = time.monotonic()
        try:
            # The deadline is on the whole exchange; httpx's own would start again with every byte.
            async with asyncio.timeout(self.answer_within):
                answer = await client.post(
                    delivery.url, content=delivery.body, headers=delivery.headers, timeout=None
                )
        except TimeoutError:
            delivery.status = "timed out"
        except (httpx.TransportError, httpx.InvalidURL):
            delivery.status = "failed to connect to host"
        else:
            delivery.status_code = answer.status_code
            delivery.status = "OK" if answer.is_success else f"Invalid HTTP Response: {answer.status_code}"
            delivery.response_headers = dict(answer.headers)
            delivery.response_body = answer.text
        delivery.duration = round(time.monotonic() - began, 3)

    def item(self, delivery: Delivery) -> Json:
        """A delivery as GET /app/hook/deliveries lists it."""
        return {
            "id": delivery.id,
            "guid": delivery.guid,
            "delivered_at": timestamp(self._state.moment(delivery.delivered_at)),
            "redelivery": delivery.redelivery,
            "duration": delivery.duration,
            "status": delivery.status,
            "status_code": delivery.status_code,
            "event": delivery.event,
            "action": delivery.action,
            "installation_id": delivery.installation_id,
            "repository_id": delivery.repository_id,
            "throttled_at": None,
        }

    def whole(self, delivery: Delivery) -> Json:
        """A delivery as GET /app/hook/deliveries/{id} gives it."""
        return self.item(delivery) | {
            "url": delivery.url,
            "request": {"headers": delivery.headers, "payload": delivery.payload},
            "response": {"headers": delivery.response_headers, "payload": delivery.response_body},
        }
