"""A conversation with the Claude codec, frame by frame, for its unit tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bot.agents.claude.codec import ClaudeCodec
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
from bot.events import ToolCall

Frame = Mapping[str, Any]

FIRST, SECOND = "11111111-0000-4000-8000-000000000001", "11111111-0000-4000-8000-000000000002"
KEY = "a-key-of-no-known-form-0123456789"
CODEC = ClaudeCodec(api_key=KEY, base_url="http://127.0.0.1:8791", model="sonnet")
TASK = Task(Prompt(FIRST, "Ana: fix it", (1,)), "/home/agent/work", "/home/agent")


class Talk:
    """A conversation with the codec, frame by frame."""

    def __init__(self, task: Task | None = None) -> None:
        self.state: State = {}
        self.steps: list[Step] = []
        self.take(CODEC.begin(task or TASK))

    def take(self, step: Step) -> Step:
        self.state = json.loads(json.dumps(step.state))
        self.steps.append(step)
        return step

    def hears(self, *frames: Frame) -> Step:
        lines = tuple(json.dumps(frame).encode() for frame in frames)
        return self.take(CODEC.on(self.state, Lines(lines)))

    def steer(self, text: str = "Ben: also this") -> Step:
        return self.take(CODEC.on(self.state, Steer(Prompt(SECOND, text, (2,)))))

    def decide(self, id: str, allowed: bool, reason: str = "") -> Step:
        return self.take(CODEC.on(self.state, Decided(id, allowed, reason)))

    def answer(self, id: str, text: str, reason: str = "") -> Step:
        return self.take(CODEC.on(self.state, Answered(id, text, reason)))

    def interrupt(self) -> Step:
        return self.take(CODEC.on(self.state, Interrupt()))


def started(permissions: Permissions = Permissions.AUTO, *, answerable: bool = False) -> Talk:
    talk = Talk(replace(TASK, permissions=permissions, answerable=answerable))
    talk.hears(lifecycle(FIRST, "queued"), lifecycle(FIRST, "started"), INIT)
    return talk


def lifecycle(uuid: str, state: str) -> Frame:
    return {"type": "command_lifecycle", "command_uuid": uuid, "state": state}


INIT: Frame = {
    "type": "system",
    "subtype": "init",
    "session_id": "s-1",
    "claude_code_version": "2.1.329",
    "model": "sonnet",
}


def result(text: str = "Done.", **more: Any) -> Frame:
    return {
        "type": "result",
        "subtype": "success",
        "is_error": False,
        "terminal_reason": "completed",
        "result": text,
        **more,
    }


def says(*blocks: Frame, parent: str | None = None, id: str = "msg_1", usage: Frame | None = None) -> Frame:
    message = {"id": id, "model": "sonnet", "content": list(blocks), "usage": usage or {}}
    return {"type": "assistant", "message": message, "parent_tool_use_id": parent}


def synthetic(text: str, error: str) -> Frame:
    message = {"model": "<synthetic>", "content": [{"type": "text", "text": text}]}
    return {"type": "assistant", "message": message, "error": error}


def uses(id: str, name: str, **given: Any) -> Frame:
    return {"type": "tool_use", "id": id, "name": name, "input": given}


def gave(id: str, content: object, *, failed: bool = False, details: Frame | None = None) -> Frame:
    block = {"type": "tool_result", "tool_use_id": id, "content": content, "is_error": failed}
    return {"type": "user", "message": {"role": "user", "content": [block]}, "tool_use_result": details or {}}


def asks(subtype: str, **request: Any) -> Frame:
    return {"type": "control_request", "request_id": "r-1", "request": {"subtype": subtype, **request}}


def answer(step: Step) -> dict[str, Any]:
    told = json.loads(step.write)
    assert told["type"] == "control_response"
    response: dict[str, Any] = told["response"]
    assert response["request_id"] == "r-1"
    return response


def calls(step: Step) -> list[ToolCall]:
    return [event for event in step.events if isinstance(event, ToolCall)]
