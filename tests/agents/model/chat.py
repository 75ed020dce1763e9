"""OpenAI's chat completions API, as far as OpenCode asks it, streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

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
    Turn,
    pieces,
)


def completions(body: Body, scripts: Scripts) -> Response:
    position = _position(body["messages"])
    reply = scripts.reply(position)
    if isinstance(reply, Refusal):
        error = {"message": reply.message, "type": reply.type, "code": None}
        return JSONResponse({"error": error}, status_code=reply.status, headers=reply.headers)
    turn = Turn(position, body["messages"])
    frame = {"id": f"chatcmpl-{turn.nonce}", "object": "chat.completion.chunk", "created": 0}
    frame["model"] = body.get("model", "scripted")
    return StreamingResponse(_stream(frame, turn, reply), media_type="text/event-stream")


def _position(messages: Sequence[Mapping[str, Any]]) -> Position:
    position = Position()
    for message in messages:
        if message["role"] == "user":
            for text in _texts(message["content"]):
                position.words(text)
        elif message["role"] == "assistant" and not message.get("tool_calls"):
            position.step += 1  # last words were said: what the script has after them is for the next prompt
        for call in message.get("tool_calls") or ():
            position.called(call.get("id"))
    return position


def _texts(content: str | Sequence[Mapping[str, Any]]) -> list[str]:
    if isinstance(content, str):
        return [content]
    return [part["text"] for part in content if part.get("type") == "text"]


async def _stream(frame: Mapping[str, Any], turn: Turn, reply: Reply) -> AsyncIterator[bytes]:
    yield _chunk(frame, {"role": "assistant", "content": ""})
    for piece in pieces(reply.thinking):
        await asyncio.sleep(reply.pause)
        yield _chunk(frame, {"reasoning_content": piece})
    for piece in pieces(reply.text):
        await asyncio.sleep(reply.pause)
        yield _chunk(frame, {"content": piece})
    for index, tool in enumerate(reply.tools):
        for delta in _call(turn.tool_id(index), tool.name, json.dumps(tool.input)):
            yield _chunk(frame, {"tool_calls": [{"index": index, **delta}]})
    yield _chunk(frame, {}, "tool_calls" if reply.tools else "stop")
    usage = {
        "prompt_tokens": TOKENS_IN + TOKENS_CACHED,
        "completion_tokens": TOKENS_OUT,
        "total_tokens": TOKENS_IN + TOKENS_CACHED + TOKENS_OUT,
        "prompt_tokens_details": {"cached_tokens": TOKENS_CACHED},
    }
    yield _event({**frame, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _call(id: str, name: str, arguments: str) -> list[Body]:
    first: Body = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}}
    return [first, *({"function": {"arguments": piece}} for piece in pieces(arguments))]


def _chunk(frame: Mapping[str, Any], delta: Body, finish: str | None = None) -> bytes:
    return _event({**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _event(body: Body) -> bytes:
    return f"data: {json.dumps(body)}\n\n".encode()
