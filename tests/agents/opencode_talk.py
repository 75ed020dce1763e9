"""A conversation with the OpenCode codec, frame by frame, and what it asks of the server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bot.agents.codec import (
    Answered,
    Decided,
    Interrupt,
    Lines,
    Permissions,
    Prompt,
    State,
    Steer,
    Step,
    Task,
)
from bot.agents.opencode.codec import OpenCodeCodec
from bot.events import Completed, ToolCall

Frame = Mapping[str, Any]

FIRST, SECOND = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"
SECRET = "a-key-of-no-known-form-0123456789"
SESSION, CHILD = "ses_1", "ses_2"
CODEC = OpenCodeCodec(
    ("python3", "bridge.py"), api_key=SECRET, base_url="http://127.0.0.1:8791/v1", model="lab/scripted"
)
TASK = Task(Prompt(FIRST, "Ana: fix it", (1,)), "/home/agent/work", "/home/agent")


def task(permissions: Permissions = Permissions.AUTO, *, answerable: bool = True, **more: Any) -> Task:
    return Task(TASK.prompt, TASK.cwd, TASK.home, permissions=permissions, answerable=answerable, **more)


class Talk:
    """A conversation with the codec, and what it asks of the server."""

    def __init__(self, task: Task = TASK, codec: OpenCodeCodec = CODEC) -> None:
        self.codec = codec
        self.state: State = {}
        self.steps: list[Step] = []
        self.asked: list[dict[str, Any]] = []
        self.take(codec.begin(task))

    def take(self, step: Step) -> Step:
        self.state = json.loads(json.dumps(step.state))
        self.steps.append(step)
        self.asked += [json.loads(line) for line in step.write.splitlines()]
        return step

    def hears(self, *frames: Frame) -> Step:
        return self.take(
            self.codec.on(self.state, Lines(tuple(json.dumps(frame).encode() for frame in frames)))
        )

    def steer(self, text: str = "Ben: also this", key: str = SECOND, images: tuple[str, ...] = ()) -> Step:
        return self.take(self.codec.on(self.state, Steer(Prompt(key, text, (2,), images))))

    def interrupt(self) -> Step:
        return self.take(self.codec.on(self.state, Interrupt()))

    def decide(self, id: str, *, allowed: bool, reason: str = "") -> Step:
        return self.take(self.codec.on(self.state, Decided(id, allowed, reason)))

    def answer(self, id: str, text: str, reason: str = "") -> Step:
        return self.take(self.codec.on(self.state, Answered(id, text, reason)))

    def last(self, purpose: str) -> dict[str, Any]:
        """The newest request of this purpose."""
        found = [frame for frame in self.asked if frame["id"].split("/")[1] == purpose]
        assert found, f"nothing asked for {purpose}"
        return found[-1]

    def count(self, purpose: str) -> int:
        return sum(frame["id"].split("/")[1] == purpose for frame in self.asked)

    def replied(self, purpose: str, body: object = None, status: int = 200) -> Step:
        return self.hears({"type": "reply", "id": self.last(purpose)["id"], "status": status, "body": body})

    @property
    def completions(self) -> list[Completed]:
        return [step.completed for step in self.steps if step.completed]

    def inputs(self, fate: str) -> list[int]:
        return [input for step in self.steps for input in getattr(step, fate)]


def event(kind: str, session: str = SESSION, **told: Any) -> Frame:
    return {
        "type": "event",
        "event": {"id": "evt_1", "type": kind, "properties": {"sessionID": session, **told}},
    }


def status(kind: str, session: str = SESSION, **more: Any) -> Frame:
    return event("session.status", session, status={"type": kind, **more})


BUSY, IDLE = status("busy"), event("session.idle")


def part(kind: str, message: str, id: str = "prt_1", session: str = SESSION, **more: Any) -> Frame:
    told = {"id": id, "messageID": message, "sessionID": session, "type": kind, **more}
    return event("message.part.updated", session, part=told)


def heard(key: str, message: str, text: str = "…") -> Frame:
    """Our prompt as a message."""
    return part("text", message, "prt_0", text=text, metadata={"sandpiper": key})


def speaks(message: str, parent: str, session: str = SESSION, **more: Any) -> Frame:
    info = {"id": message, "role": "assistant", "parentID": parent, "sessionID": session, **more}
    return event("message.updated", session, info=info)


def says(text: str, message: str, id: str = "prt_5", kind: str = "text") -> Frame:
    return part(kind, message, id, text=text, time={"start": 1, "end": 2})


def tool(
    name: str, now: str, id: str = "prt_t", session: str = SESSION, message: str = "msg_2", **state: Any
) -> Frame:
    return part("tool", message, id, session, tool=name, callID="call_0", state={"status": now, **state})


def failure(message: str = "the model refuses", name: str = "APIError", **data: Any) -> Frame:
    return event("session.error", error={"name": name, "data": {"message": message, **data}})


def started(task: Task = TASK) -> Talk:
    """The first prompt is posted, and its message is not there yet."""
    talk = Talk(task)
    talk.replied("new", {"id": SESSION, "version": "1.18.33"})
    talk.replied("post", None, 204)
    return talk


def running(task: Task = TASK) -> Talk:
    talk = started(task)
    talk.hears(heard(FIRST, "msg_1"), BUSY, speaks("msg_2", "msg_1"))
    return talk


def calls(step: Step) -> list[ToolCall]:
    return [event for event in step.events if isinstance(event, ToolCall)]
