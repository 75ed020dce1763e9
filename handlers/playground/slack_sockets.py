"""Socket Mode, Slack's side of it (docs.slack.dev, "Using Socket Mode")."""

import asyncio
import contextlib
import json
import uuid
from collections import deque
from dataclasses import dataclass, field

from starlette.websockets import WebSocket, WebSocketDisconnect

from handlers.playground.changes import Changes
from handlers.playground.server import drop_connection
from handlers.playground.slack_envelopes import Delivery, Outcomes
from handlers.playground.slack_limits import SOCKETS_PER_APP
from handlers.playground.slack_state import Json


@dataclass(eq=False, slots=True)
class _Socket:
    """An open socket of the app. A retiring one has been told to go and gets nothing more."""

    websocket: WebSocket
    outgoing: asyncio.Queue[Json] = field(default_factory=asyncio.Queue)
    retiring: bool = False


@dataclass(eq=False, slots=True)
class _Flight:
    delivery: Delivery
    socket: _Socket
    deadline: asyncio.TimerHandle


class Sockets:
    """The app's open sockets, any one of which gets each delivery. Without one, deliveries wait for it."""

    def __init__(self, changes: Changes, outcomes: Outcomes, ack_timeout: float) -> None:
        self._changes = changes
        self._outcomes = outcomes
        self._ack_timeout = ack_timeout
        self._waiting: deque[Delivery] = deque()
        self._sockets: list[_Socket] = []
        self._flights: dict[str, _Flight] = {}
        self.lose_acks = 0

    @property
    def open(self) -> int:
        """How many sockets can be given something."""
        return sum(not socket.retiring for socket in self._sockets)

    def send(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._pump()

    def rotate(self) -> None:
        """Tell every socket to go, as Slack does every few hours; the app opens others."""
        for socket in self._sockets:
            socket.retiring = True
            socket.outgoing.put_nowait({"type": "disconnect", "reason": "refresh_requested"})
        self._changes.note("sockets")

    def cut(self) -> None:
        """Break every socket without a word."""
        for socket in self._sockets:
            drop_connection(socket.websocket.scope)

    def close(self) -> None:
        """Stop waiting for acknowledgements."""
        for flight in self._flights.values():
            flight.deadline.cancel()

    async def serve(self, websocket: WebSocket, app_id: str) -> None:
        """Be one socket's other end until it closes."""
        await websocket.accept()
        if len(self._sockets) >= SOCKETS_PER_APP:
            await websocket.send_json({"type": "disconnect", "reason": "too_many_websockets"})
            await websocket.close()
            return
        socket = _Socket(websocket)
        self._sockets.append(socket)
        socket.outgoing.put_nowait(
            {
                "type": "hello",
                "num_connections": self.open,
                "connection_info": {"app_id": app_id},
                "debug_info": {"approximate_connection_time": 18060},
            }
        )
        sender = asyncio.create_task(_send_all(socket))
        self._changes.note("sockets")
        self._pump()
        try:
            async for text in websocket.iter_text():
                self._take_ack(text)
        finally:
            sender.cancel()
            self._sockets.remove(socket)
            self._take_back_from(socket)
            self._changes.note("sockets")

    def _pump(self) -> None:
        """Give what waits to the open sockets, turn by turn."""
        while self._waiting:
            socket = next((one for one in self._sockets if not one.retiring), None)
            if socket is None:
                for delivery in self._waiting:
                    delivery.missed = True
                return
            self._sockets.remove(socket)
            self._sockets.append(socket)
            self._send(self._waiting.popleft(), socket)

    def _send(self, delivery: Delivery, socket: _Socket) -> None:
        if delivery.missed:
            delivery.missed = False
            delivery.attempt += 1
            delivery.reason = "connection_failed"
        envelope_id = str(uuid.uuid4())
        envelope: Json = {
            "envelope_id": envelope_id,
            "type": delivery.kind,
            "payload": delivery.payload,
            "accepts_response_payload": delivery.kind != "events_api",
        }
        if delivery.kind == "events_api":
            envelope |= {"retry_attempt": delivery.attempt, "retry_reason": delivery.reason}
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(self._ack_timeout, self._expire, envelope_id)
        self._flights[envelope_id] = _Flight(delivery, socket, deadline)
        delivery.state = "sent"
        socket.outgoing.put_nowait(envelope)
        self._changes.note("sent")

    def _take_ack(self, text: str) -> None:
        try:
            ack = json.loads(text)
        except ValueError:
            return
        envelope_id = ack.get("envelope_id") if isinstance(ack, dict) else None
        if envelope_id in self._flights and self.lose_acks:
            self.lose_acks -= 1
            return
        # The client may acknowledge on the socket that replaced the one it was asked on.
        flight = self._flights.pop(envelope_id, None) if isinstance(envelope_id, str) else None
        if flight is not None:
            flight.deadline.cancel()
            payload = ack.get("payload")
            self._outcomes.acknowledged(flight.delivery, payload if isinstance(payload, dict) else {})

    def _expire(self, envelope_id: str) -> None:
        self._outcomes.failed(self._flights.pop(envelope_id).delivery, "timeout")

    def _take_back_from(self, closed: _Socket) -> None:
        for envelope_id, flight in list(self._flights.items()):
            if flight.socket is not closed:
                continue
            flight.deadline.cancel()
            del self._flights[envelope_id]
            if flight.delivery.kind == "events_api":
                flight.delivery.missed = True
                flight.delivery.state = "waiting"
                self.send(flight.delivery)
            else:
                self._outcomes.failed(flight.delivery, "connection_failed")


async def _send_all(socket: _Socket) -> None:
    # A socket that breaks here is seen by its reader, who takes back what was not acknowledged.
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.websocket.send_json(await socket.outgoing.get())
