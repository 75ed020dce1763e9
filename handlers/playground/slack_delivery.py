"""Slack hands events, commands and clicks to the app, and tries events again (docs.slack.dev, "Events API").

What is not acknowledged within three seconds has failed. An event is then tried at once, after one minute
and after five; a command or a click is not tried again, its person is told.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator, Sequence

from handlers.playground.changes import Changes
from handlers.playground.slack_envelopes import Delivery, Kind
from handlers.playground.slack_requests import Requests
from handlers.playground.slack_sockets import Sockets
from handlers.playground.slack_state import Json, SlackError


class Deliveries:
    """Everything that is or was on its way to the app.

    `request_url` chooses the way: a URL for HTTP, None for Socket Mode. Times are in seconds.
    """

    def __init__(
        self,
        changes: Changes,
        signing_secret: str,
        *,
        request_url: str | None,
        ack_timeout: float,
        retry_delays: Sequence[float],
    ) -> None:
        self.request_url = request_url
        self.double_next = 0
        self.log: deque[Delivery] = deque(maxlen=2000)
        self.sockets = Sockets(changes, self, ack_timeout)
        self._requests = Requests(self, signing_secret, ack_timeout)
        self._changes = changes
        self._retry_delays = tuple(retry_delays)
        self._timers: set[asyncio.TimerHandle] = set()
        self._held: list[Delivery] | None = None

    def send_event(self, payload: Json) -> None:
        """Hand an event to the app, now or as soon as it can be reached."""
        copies = 2 if self.double_next else 1
        self.double_next = max(0, self.double_next - 1)
        for _ in range(copies):
            delivery = Delivery("events_api", payload)
            self.log.append(delivery)
            if self._held is None:
                self._send(delivery)
            else:
                self._held.append(delivery)

    async def ask(self, kind: Kind, payload: Json) -> Json:
        """Hand a command or a click to the app and give what it acknowledged with.

        Raises SlackError with what a person would see: `dispatch_failed` where the app can't be reached,
        `operation_timeout` where it does not acknowledge in time.
        """
        if self.request_url is None and not self.sockets.open:
            raise SlackError("dispatch_failed", "the app has no open connection")
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        delivery = Delivery(kind, payload, answer=answer)
        self.log.append(delivery)
        self._send(delivery)
        return await answer

    @contextlib.contextmanager
    def newest_first(self) -> Iterator[None]:
        """Hold the events that come up inside, and hand them over at the end in reverse order."""
        held: list[Delivery] = []
        self._held = held
        try:
            yield
        finally:
            self._held = None
            for delivery in reversed(held):
                self._send(delivery)

    async def verify_request_url(self) -> bool:
        """Does the app answer Slack's challenge at its request URL?"""
        if self.request_url is None:
            raise RuntimeError("there is no request_url to verify")
        return await self._requests.verify(self.request_url)

    async def close(self) -> None:
        """Stop trying, and let nobody wait for an answer."""
        for delivery in self.log:
            if delivery.answer is not None:
                delivery.answer.cancel()
        for timer in self._timers:
            timer.cancel()
        self.sockets.close()
        await self._requests.close()

    def acknowledged(self, delivery: Delivery, payload: Json) -> None:
        delivery.state = "acknowledged"
        if delivery.answer is not None and not delivery.answer.done():
            delivery.answer.set_result(payload)
        self._changes.note("acknowledged")

    def failed(self, delivery: Delivery, reason: str) -> None:
        if delivery.kind != "events_api" or delivery.attempt >= len(self._retry_delays):
            self.abandoned(delivery, reason)
            return
        delay = self._retry_delays[delivery.attempt]
        delivery.attempt += 1
        delivery.reason = reason
        delivery.state = "waiting"
        self._changes.note("failed")

        def send_again() -> None:
            self._timers.discard(timer)
            self._send(delivery)

        timer = asyncio.get_running_loop().call_later(delay, send_again)
        self._timers.add(timer)

    def abandoned(self, delivery: Delivery, reason: str) -> None:
        delivery.state = "abandoned"
        delivery.reason = reason
        if delivery.answer is not None and not delivery.answer.done():
            code = "operation_timeout" if "timeout" in reason else "dispatch_failed"
            delivery.answer.set_exception(SlackError(code, f"the app did not answer: {reason}"))
        self._changes.note("abandoned")

    def _send(self, delivery: Delivery) -> None:
        if self.request_url is None:
            self.sockets.send(delivery)
        else:
            self._requests.send(delivery, self.request_url)
