"""The Anthropic Messages API, as far as Claude Code asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tests.agents.model.script import (
    TOKENS_CACHED,
    TOKENS_IN,
    TOKENS_OUT,
    Body,
    Position,
    Refusal,
    Reply,
    Scripts,
    Tool,
    Turn,
    pieces,
)


def bash(command: str) -> Tool:
    return Tool("Bash", {"command": command, "description": f"Run {command.split()[0]}"})


async def count_tokens(request: Request) -> Response:
    return JSONResponse({"input_tokens": TOKENS_IN})


def messages(body: Body, scripts: Scripts) -> Response:
    position = _position(body["messages"])
    reply = scripts.reply(position)
    if isinstance(reply, Refusal):
        error = {"type": reply.type, "message": reply.message}
        return JSONResponse(
            {"type": "error", "error": error}, status_code=reply.status, headers=reply.headers
        )
    message = _message(body, Turn(position, body["messages"]), reply)
    if not body.get("stream"):
        return JSONResponse(message)
    return StreamingResponse(_stream(message, reply), media_type="text/event-stream")


def _position(messages: Sequence[Mapping[str, Any]]) -> Position:
    position = Position()
    for message in messages:
        for block in _blocks(message):
            if message["role"] == "user" and block.get("type") == "text":
                position.words(block["text"])
            elif block.get("type") == "tool_use":
                position.called(block.get("id"))
    return position


def _blocks(message: Mapping[str, Any]) -> list[Body]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _message(body: Body, turn: Turn, reply: Reply) -> Body:
    content: list[Body] = []
    if reply.thinking:
        content.append({"type": "thinking", "thinking": reply.thinking, "signature": "c2lnbmVk"})
    content.append({"type": "text", "text": reply.text})
    for index, tool in enumerate(reply.tools):
        call = {"id": turn.tool_id(index), "name": tool.name, "input": tool.given(turn.conversation)}
        content.append({"type": "tool_use", **call})
    return {
        "id": f"msg_{turn.nonce}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "scripted"),
        "content": content,
        "stop_reason": "tool_use" if reply.tools else "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": TOKENS_IN,
            "cache_read_input_tokens": TOKENS_CACHED,
            "cache_creation_input_tokens": 0,
            "output_tokens": TOKENS_OUT,
        },
    }


async def _stream(message: Mapping[str, Any], reply: Reply) -> AsyncIterator[bytes]:
    usage = message["usage"]
    start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield _event("message_start", message=start)
    hold = reply.hold
    for index, block in enumerate(message["content"]):
        for event in _block_events(index, block):
            if event[0] == "content_block_delta":
                await asyncio.sleep(reply.pause)
            yield _event(event[0], **event[1])
            if event[0] == "content_block_delta" and hold is not None:
                await hold.passes()
                hold = None
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage=usage)
    yield _event("message_stop")


def _block_events(index: int, block: Mapping[str, Any]) -> list[tuple[str, Body]]:
    kind = block["type"]
    if kind == "tool_use":
        empty: Body = {**block, "input": {}}
        text, delta_type, key = json.dumps(block["input"]), "input_json_delta", "partial_json"
    elif kind == "thinking":
        empty = {"type": "thinking", "thinking": "", "signature": ""}
        text, delta_type, key = block["thinking"], "thinking_delta", "thinking"
    else:
        empty = {"type": "text", "text": ""}
        text, delta_type, key = block["text"], "text_delta", "text"
    deltas: list[Body] = [{"type": delta_type, key: piece} for piece in pieces(text)]
    if kind == "thinking":
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    return [
        ("content_block_start", {"index": index, "content_block": empty}),
        *(("content_block_delta", {"index": index, "delta": delta}) for delta in deltas),
        ("content_block_stop", {"index": index}),
    ]


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
