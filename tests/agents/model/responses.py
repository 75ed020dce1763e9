"""The OpenAI Responses API, as far as Codex asks it: always streamed."""

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
    Seen,
    Tool,
    Turn,
    pieces,
)

FREEFORM = "*"  # the name of the only argument of a tool that is given text, not JSON


def shell(command: str, **more: object) -> Tool:
    """more: `yield_time_ms`, after which the model is answered though the command still runs."""
    return Tool("exec_command", {"cmd": command, **more})


def patch(*lines: str) -> Tool:
    """A change of files. Codex takes it from the command, and never runs one."""
    return shell("\n".join(("apply_patch <<'EOF'", "*** Begin Patch", *lines, "*** End Patch", "EOF")))


def wait(milliseconds: int) -> Tool:
    """Wait for the command that still runs."""
    return write("", yield_time_ms=milliseconds)


def write(text: str, **more: object) -> Tool:
    """Type into the command that still runs."""
    return Tool("write_stdin", {"session_id": Seen(r"(?<=session ID )\d+"), "chars": text, **more})


def wait_for_agent(milliseconds: int) -> Tool:
    """Wait for the sub-agent that was made first."""
    agent = Seen(r"(?<=agent_id\\\":\\\")[0-9a-f-]+")
    return Tool("wait_agent", {"targets": agent, "timeout_ms": milliseconds})


def code(javascript: str) -> Tool:
    """What the models that Codex knows by name call instead: one tool, that runs a script of theirs."""
    return Tool("exec", {FREEFORM: javascript})


def responses(body: Body, scripts: Scripts) -> Response:
    conversation = body["input"]
    position = _position(conversation)
    reply = scripts.reply(position)
    if isinstance(reply, Refusal):
        error = {"type": reply.type, "code": reply.type, "message": reply.message, "param": None}
        return JSONResponse({"error": error}, status_code=reply.status, headers=reply.headers)
    output = _output(Turn(position, conversation), reply, _namespaces(body))
    return StreamingResponse(_stream(output, reply.pause), media_type="text/event-stream")


def _position(conversation: Sequence[Mapping[str, Any]]) -> Position:
    position = Position()
    for item in conversation:
        if item.get("role") == "user":
            for block in item["content"]:
                position.words(block.get("text", ""))
        elif item.get("type") in ("function_call", "custom_tool_call"):
            position.called(item.get("call_id"))
        elif item.get("role") == "assistant":  # a reply of words alone is a step too
            position.called(item.get("id", "").replace("msg_", "toolu_", 1))
    return position


def _namespaces(body: Body) -> Mapping[str, str]:
    """The tools that stand in a namespace, and which."""
    offered = [tool for tool in body.get("tools", ()) if tool["type"] == "namespace"]
    return {tool["name"]: space["name"] for space in offered for tool in space["tools"]}


def _output(turn: Turn, reply: Reply, namespaces: Mapping[str, str]) -> list[Body]:
    output: list[Body] = []
    if reply.thinking:
        summary = [{"type": "summary_text", "text": reply.thinking}]
        output.append({"type": "reasoning", "id": f"rs_{turn.nonce}", "summary": summary})
    if reply.text:
        content = [{"type": "output_text", "text": reply.text, "annotations": []}]
        output.append(
            {
                "type": "message",
                "id": turn.tool_id(0).replace("toolu_", "msg_", 1),
                "role": "assistant",
                "content": content,
            }
        )
    for index, tool in enumerate(reply.tools):
        given = tool.given(turn.conversation)
        call: Body = {"id": f"fc_{turn.nonce}{index}", "call_id": turn.tool_id(index), "name": tool.name}
        if FREEFORM in given:
            output.append({"type": "custom_tool_call", **call, "input": given[FREEFORM]})
            continue
        if tool.name in namespaces:
            call["namespace"] = namespaces[tool.name]
        output.append({"type": "function_call", **call, "arguments": _arguments(given)})
    return output


def _arguments(given: Body) -> str:
    """What was seen is text; these are of other types."""
    if "session_id" in given:
        given = {**given, "session_id": int(given["session_id"] or 0)}
    if "targets" in given:
        given = {**given, "targets": [given["targets"]]}
    return json.dumps(given)


async def _stream(output: Sequence[Body], pause: float) -> AsyncIterator[bytes]:
    yield _event("response.created", response={"id": "resp_scripted"})
    for index, item in enumerate(output):
        where: Body = {"output_index": index, "item_id": item["id"]}
        yield _event("response.output_item.added", output_index=index, item=_empty(item))
        if item["type"] == "message":
            for piece in pieces(item["content"][0]["text"]):
                await asyncio.sleep(pause)
                yield _event("response.output_text.delta", **where, content_index=0, delta=piece)
        elif item["type"] == "reasoning":
            yield _event("response.reasoning_summary_part.added", **where, summary_index=0)
            for piece in pieces(item["summary"][0]["text"]):
                yield _event("response.reasoning_summary_text.delta", **where, summary_index=0, delta=piece)
        yield _event("response.output_item.done", output_index=index, item=item)
    usage = {
        "input_tokens": TOKENS_IN + TOKENS_CACHED,  # this API counts the cached ones among them
        "input_tokens_details": {"cached_tokens": TOKENS_CACHED},
        "output_tokens": TOKENS_OUT,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": TOKENS_IN + TOKENS_CACHED + TOKENS_OUT,
    }
    yield _event("response.completed", response={"id": "resp_scripted", "usage": usage})


def _empty(item: Body) -> Body:
    cut = {"content": [], "summary": [], "arguments": "", "input": ""}
    return {name: cut.get(name, value) for name, value in item.items()}


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()
