"""One call of a tool of an MCP server on stdio, for the scripted agent. Standard library only, Python 3.9+.

    mcp_call.py TOOL ARGUMENTS PROGRAM [ARGUMENT …]

ARGUMENTS is a JSON object. The text of the answer is printed; the exit code is 1 when it is an error.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def main() -> int:
    tool, arguments, *program = sys.argv[1:]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        to: Any = server.stdin
        of: Any = server.stdout

        def say(**frame: Any) -> None:
            to.write(json.dumps({"jsonrpc": "2.0", **frame}).encode() + b"\n")
            to.flush()

        def answer(id: int) -> dict[str, Any]:
            for line in of:
                told = json.loads(line)
                if told.get("id") == id:
                    return dict(told.get("result") or {"isError": True})
            raise SystemExit("The server ended without an answer.")

        about = {"name": "scripted", "version": "1"}
        say(
            id=1,
            method="initialize",
            params={"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": about},
        )
        answer(1)
        say(method="notifications/initialized")
        say(id=2, method="tools/call", params={"name": tool, "arguments": json.loads(arguments)})
        told = answer(2)
        to.close()
        sys.stdout.write("\n".join(part["text"] for part in told.get("content", ())) + "\n")
        return 1 if told.get("isError") else 0


if __name__ == "__main__":
    raise SystemExit(main())
