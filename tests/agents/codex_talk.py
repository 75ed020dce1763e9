"""A conversation with the Codex codec, frame by frame: what Codex says, and what is answered."""

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
from bot.agents.codex.codec import CodexCodec
from bot.events import ToolCall

Frame = Mapping[str, Any]

FIRST, SECOND, THIRD = (f"11111111-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))
SECRET = "a-key-of-no-known-form-0123456789"
CODEC = CodexCodec(api_key=SECRET, base_url="http://127.0.0.1:8791/v1", model="gpt-6-sol")
TASK = Task(Prompt(FIRST, "Ana: fix it", (1,)), "/home/agent/work", "/home/agent")
ASK = Task(TASK.prompt, TASK.cwd, TASK.home, permissions=Permissions.ASK, answerable=True)
UNATTENDED = Task(TASK.prompt, TASK.cwd, TASK.home, permissions=Permissions.ASK)
PLAN = Task(TASK.prompt, TASK.cwd, TASK.home, permissions=Permissions.PLAN, answerable=True)
RESUMED = Task(TASK.prompt, TASK.cwd, TASK.home, resume_token="t-1")


class Talk:
    """A conversation with the codec, frame by frame."""

    def __init__(self, task: Task = TASK, codec: CodexCodec = CODEC) -> None:
        self.codec = codec
        self.state: State = {}
        self.steps: list[Step] = []
        self.take(codec.begin(task))

    def take(self, step: Step) -> Step:
        self.state = json.loads(json.dumps(step.state))
        self.steps.append(step)
        return step

    def hears(self, *frames: Frame) -> Step:
        lines = tuple(json.dumps(frame).encode() for frame in frames)
        return self.take(self.codec.on(self.state, Lines(lines)))

    def steer(self, text: str = "Ben: also this", key: str = SECOND, input: int = 2) -> Step:
        return self.take(self.codec.on(self.state, Steer(Prompt(key, text, (input,)))))

    def interrupt(self) -> Step:
        return self.take(self.codec.on(self.state, Interrupt()))

    def decide(self, id: str, allowed: bool, reason: str = "") -> Step:
        return self.take(self.codec.on(self.state, Decided(id, allowed, reason)))

    def answer(self, id: str, text: str, reason: str = "") -> Step:
        return self.take(self.codec.on(self.state, Answered(id, text, reason)))

    def answered(self, result: Frame | None = None, error: str = "") -> Step:
        """Codex answers the newest request of ours that has to do with the turn."""
        sent = [frame for step in self.steps for frame in said(step) if "method" in frame and "id" in frame]
        sent = [frame for frame in sent if frame["method"] != "model/list"]
        told: Frame = {"error": {"code": -32600, "message": error}} if error else {"result": result or {}}
        return self.hears({"id": sent[-1]["id"], **told})


def said(step: Step) -> list[dict[str, Any]]:
    return [json.loads(line) for line in step.write.splitlines()]


def methods(step: Step) -> list[str]:
    """Of what is asked of Codex for the turn."""
    asked = [frame["method"] for frame in said(step) if "method" in frame]
    return [method for method in asked if method != "model/list"]


def reply(step: Step) -> Any:
    """Our answer to a request of Codex."""
    [told] = [frame for frame in said(step) if "method" not in frame]
    return told.get("result", told.get("error"))


def joined(task: Task = TASK) -> Talk:
    """The conversation exists, and the first turn was asked for."""
    talk = Talk(task)
    talk.answered({"thread": {"id": "t-1", "cliVersion": "0.169.0"}, "model": "gpt-6-sol"})
    return talk


def started(task: Task = TASK) -> Talk:
    """The first turn runs, with the first prompt in it."""
    talk = joined(task)
    talk.answered({"turn": {"id": "u-1"}})
    talk.hears(tell("turn/started", turn={"id": "u-1"}), took(FIRST))
    return talk


def tell(method: str, thread: str = "t-1", **params: Any) -> Frame:
    return {"method": method, "params": {"threadId": thread, "turnId": "u-1", **params}}


def took(key: str) -> Frame:
    return tell("item/started", item={"type": "userMessage", "id": "i", "clientId": key})


def begun(type: str, thread: str = "t-1", id: str = "call-1", **item: Any) -> Frame:
    return tell("item/started", thread, item={"type": type, "id": id, "status": "inProgress", **item})


def over(type: str, thread: str = "t-1", id: str = "call-1", status: str = "completed", **item: Any) -> Frame:
    return tell("item/completed", thread, item={"type": type, "id": id, "status": status, **item})


def ended(turn: str = "u-1", status: str = "completed", text: str = "Done.", **more: Any) -> Frame:
    items = [{"type": "agentMessage", "text": text}] if text else []
    return tell("turn/completed", turn={"id": turn, "status": status, "items": items, **more})


def asks(method: str, id: int = 0, **params: Any) -> Frame:
    return {"id": id, "method": method, "params": {"threadId": "t-1", "itemId": "call-1", **params}}


def asks_command(command: str, **params: Any) -> Frame:
    actions = [{"type": "unknown", "command": command}]
    return asks(
        "item/commandExecution/requestApproval",
        **{"command": f"/bin/bash -lc '{command}'", "commandActions": actions, **params},
    )


def running(command: str) -> Frame:
    return begun("commandExecution", command=f"/bin/bash -lc '{command}'")


def calls(step: Step) -> list[ToolCall]:
    return [event for event in step.events if isinstance(event, ToolCall)]
