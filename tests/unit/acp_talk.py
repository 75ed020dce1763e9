"""A conversation with the ACP codec, frame by frame, for its tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bot.agents.acp.codec import AcpCodec
from bot.agents.acp.known import GENERIC
from bot.agents.codec import (
    Answered,
    Decided,
    Interrupt,
    Lines,
    Prompt,
    State,
    Steer,
    Steering,
    Step,
    Task,
)
from bot.events import (
    Event,
)

Frame = Mapping[str, Any]

KEY = "a-key-of-no-known-form-0123456789"
CODEC = AcpCodec("gemini", ["gemini", "--acp"], secrets={"GEMINI_API_KEY": KEY, "EMPTY": ""})
QUEUEING = AcpCodec("kimi", ["kimi", "acp"], capabilities=replace(GENERIC, steering=Steering.QUEUE))

MODES = {
    "currentModeId": "default",
    "availableModes": [{"id": id} for id in ("default", "autoEdit", "yolo", "plan")],
}


def task(**options: Any) -> Task:
    return Task(Prompt("p-1", "Ana: fix it", (1,)), "/home/agent/work", "/home/agent", **options)


class Talk:
    """A conversation with the codec, frame by frame. The agent's side answers our requests in order."""

    def __init__(self, codec: AcpCodec = CODEC, **options: Any) -> None:
        self.codec = codec
        self.state: State = {}
        self.steps: list[Step] = []
        self.sent: list[dict[str, Any]] = []
        self.take(codec.begin(task(**options)))

    def take(self, step: Step) -> Step:
        self.state = json.loads(json.dumps(step.state))
        self.steps.append(step)
        self.sent += [json.loads(line) for line in step.write.splitlines()]
        return step

    def hears(self, *frames: Frame) -> Step:
        lines = tuple(json.dumps({"jsonrpc": "2.0", **frame}).encode() for frame in frames)
        return self.take(self.codec.on(self.state, Lines(lines)))

    def updates(self, name: str, **fields: Any) -> Step:
        return self.hears(update(name, **fields))

    def answers(self, method: str, result: Frame | None = None, error: Frame | None = None) -> Step:
        """The answer to the newest request of this method."""
        id = next(one["id"] for one in reversed(self.sent) if one.get("method") == method)
        return self.hears({"id": id, **({"error": error} if error else {"result": result or {}})})

    def steers(self, key: str = "p-2", text: str = "Ben: also this", input: int = 2) -> Step:
        return self.take(self.codec.on(self.state, Steer(Prompt(key, text, (input,)))))

    def stops(self) -> Step:
        return self.take(self.codec.on(self.state, Interrupt()))

    def decides(self, id: str, allowed: bool, reason: str = "") -> Step:
        return self.take(self.codec.on(self.state, Decided(id, allowed, reason)))

    def is_answered(self, id: str, text: str, reason: str = "") -> Step:
        return self.take(self.codec.on(self.state, Answered(id, text, reason)))

    def methods(self) -> list[str]:
        return [one["method"] for one in self.sent if "method" in one]

    @property
    def last(self) -> dict[str, Any]:
        return self.sent[-1]

    @property
    def events(self) -> list[Event]:
        return [event for step in self.steps for event in step.events]


def update(name: str, session: str = "s-1", **fields: Any) -> Frame:
    params = {"sessionId": session, "update": {"sessionUpdate": name, **fields}}
    return {"method": "session/update", "params": params}


def says(text: str, message: str = "") -> Frame:
    named = {"messageId": message} if message else {}
    return update("agent_message_chunk", content={"type": "text", "text": text}, **named)


def hello(*, steering: bool = False, **capabilities: Any) -> Frame:
    meta = {"_meta": {"steering": {"supported": True}}} if steering else {}
    return {
        "protocolVersion": 1,
        "agentInfo": {"name": "gemini-cli", "title": "Gemini CLI", "version": "0.61.0"},
        "agentCapabilities": {"loadSession": True, **capabilities},
        **meta,
    }


def opened(
    codec: AcpCodec = CODEC, *, steering: bool = False, session: Frame | None = None, **options: Any
) -> Talk:
    """In the middle of its first prompt, of which nothing is heard yet."""
    talk = Talk(codec, **options)
    talk.answers("initialize", hello(steering=steering))
    talk.answers("session/new", {"sessionId": "s-1", **(session or {})})
    return talk


def ends(stop: str = "end_turn", **more: Any) -> Frame:
    return {"stopReason": stop, **more}


def asks(id: object = 7, *, kind: str = "execute", **call: Any) -> Frame:
    """As Gemini CLI does: the call was never announced."""
    options = [
        {"optionId": "proceed_always", "name": "Allow for this session", "kind": "allow_always"},
        {"optionId": "proceed_once", "name": "Allow", "kind": "allow_once"},
        {"optionId": "cancel", "name": "Reject", "kind": "reject_once"},
    ]
    known = {"toolCallId": "c-1", "status": "pending", "title": "make test", "kind": kind, **call}
    params = {"sessionId": "s-1", "options": options, "toolCall": known}
    return {"id": id, "method": "session/request_permission", "params": params}


def chosen(talk: Talk) -> object:
    return talk.last["result"]["outcome"]
