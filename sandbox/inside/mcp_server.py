"""The MCP server of an agent's side tools. Standard library only, Python 3.9+.

    mcp_server.py SOCKET TOOL,…

The agent starts it on stdio; what is called goes to `side_tools.py`, which listens on the socket:
{"id": 7, "tool": "set_title", "arguments": {…}} and {"id": 7, "gone": true}, answered by
{"id": 7, "text": "…", "error": false}.

The protocol: Model Context Protocol, 2025-06-18 (modelcontextprotocol.io), tools only.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from typing import Any

PROTOCOL = "2025-06-18"
OLDER = ("2025-03-26", "2024-11-05")
LONGEST = (1 << 20) - (1 << 12)  # bytes of a call; side_tools.py, which adds to it, takes a megabyte
PROGRESS = 15.0  # seconds between two signs of life to a client that waits for an answer


def text(description: str) -> dict[str, str]:
    return {"type": "string", "description": description}


def tool(description: str, required: list[str], **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    # Claude Code would have the model search for them first.
    return {"description": description, "inputSchema": schema, "_meta": {"anthropic/alwaysLoad": True}}


TOOLS = {
    "share_file": tool(
        "Put a file from this sandbox into the thread where people follow your work: a picture, a report, a "
        "log. 20 MB at most. Not for changes of code, which are published with your commits.",
        ["path"],
        path=text("The file, absolute or from your working directory."),
        title=text("What it shows, in a few words."),
    ),
    "share_port": tool(
        "Give people a link to a server that you run in this sandbox, for as long as this turn lasts.",
        ["port"],
        port={"type": "integer", "description": "The TCP port on loopback that it listens on."},
        title=text("What is to be seen there, in a few words."),
    ),
    "ask_person": tool(
        "Ask the people in the thread, and wait for their answer. They may take hours, or not answer at all: "
        "ask only what you cannot go on without.",
        ["question"],
        question=text("One question, with what they need to know to answer it."),
        options={"type": "array", "items": {"type": "string"}, "description": "Answers to choose from."},
    ),
    "set_title": tool(
        "Say in a few words what this work is. It becomes the title of the pull request.",
        ["title"],
        title=text("A line, as a good commit's subject."),
    ),
    "note_progress": tool(
        "Tell the people who follow your work where you are, in one line. For what your steps do not show.",
        ["text"],
        text=text("One line."),
    ),
    "open_pr": tool(
        "Say with which title and description your commits are to be published. The pull request is opened "
        "when you finish, not now; without this call your last message is its description.",
        ["title", "body"],
        title=text("A line, as a good commit's subject."),
        body=text("What was changed and why, in Markdown."),
    ),
}


class Serving:
    """MCP on stdio. Requests are answered as they come; calls wait for their answers beside them."""

    def __init__(self, connection: socket.socket, tools: list[str]) -> None:
        self.connection = connection
        self.tools = tools
        self.lock = threading.Lock()
        self.open: dict[Any, Any] = {}  # the ids of calls → their progress tokens

    def say(self, **frame: Any) -> None:
        data = json.dumps({"jsonrpc": "2.0", **frame}, separators=(",", ":")).encode() + b"\n"
        with self.lock:
            try:
                while data:
                    data = data[os.write(1, data) :]
            except OSError:
                pass

    def on(self, told: dict[str, Any]) -> None:
        id, method = told.get("id"), told.get("method")
        given = told.get("params")
        params: dict[str, Any] = given if isinstance(given, dict) else {}
        if method == "initialize":
            asked = params.get("protocolVersion")
            self.say(
                id=id,
                result={
                    "protocolVersion": asked if asked in OLDER else PROTOCOL,
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "sandpiper", "version": "1"},
                },
            )
        elif method == "tools/list":
            self.say(id=id, result={"tools": [{"name": name, **TOOLS[name]} for name in self.tools]})
        elif method == "tools/call":
            arguments = params.get("arguments")
            if not isinstance(id, (str, int)):
                self.say(id=None, error={"code": -32600, "message": "Invalid request: id"})
                return
            frame = {
                "id": id,
                "tool": params.get("name"),
                "arguments": arguments if isinstance(arguments, dict) else {},
            }
            size = len(json.dumps(frame))
            if size >= LONGEST:
                words = f"Not called: it has {size} bytes, and {LONGEST} is the most. Say it shorter."
                self.say(id=id, result={"content": [{"type": "text", "text": words}], "isError": True})
                return
            meta = params.get("_meta")
            self.open[id] = meta.get("progressToken") if isinstance(meta, dict) else None
            self.send(**frame)
        elif method == "notifications/cancelled":
            asked = params.get("requestId")
            if isinstance(asked, (str, int)) and self.open.pop(asked, self) is not self:
                self.send(id=params["requestId"], gone=True)
        elif method == "ping":
            self.say(id=id, result={})
        elif id is not None and method is not None:
            self.say(id=id, error={"code": -32601, "message": f"Method not found: {method}"})

    def send(self, **frame: Any) -> None:
        self.connection.sendall(json.dumps(frame).encode() + b"\n")

    def answers(self) -> None:
        with self.connection.makefile("rb") as lines:
            for line in lines:
                told = json.loads(line)
                if self.open.pop(told["id"], self) is self:
                    continue
                content = [{"type": "text", "text": told["text"]}]
                self.say(id=told["id"], result={"content": content, "isError": told["error"]})
        os._exit(0)  # the program that we speak for has ended

    def signs_of_life(self) -> None:
        """Some clients give up on a call after a minute of silence."""
        count = 0
        while True:
            threading.Event().wait(PROGRESS)
            count += 1
            for token in [token for token in list(self.open.values()) if token is not None]:
                self.say(method="notifications/progress", params={"progressToken": token, "progress": count})


def main() -> None:
    try:
        path, listed = sys.argv[1:]
    except ValueError:
        raise SystemExit(__doc__) from None
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    serving = Serving(connection, [name for name in listed.split(",") if name in TOOLS])
    threading.Thread(target=serving.answers, daemon=True).start()
    threading.Thread(target=serving.signs_of_life, daemon=True).start()
    for line in sys.stdin.buffer:
        try:
            told = json.loads(line)
        except ValueError:
            serving.say(id=None, error={"code": -32700, "message": "Parse error"})
            continue
        for one in told if isinstance(told, list) else [told]:  # a batch, in older versions
            if isinstance(one, dict):
                serving.on(one)
    os._exit(0)


if __name__ == "__main__":
    main()
