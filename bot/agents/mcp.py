"""The MCP server of our side tools, as codecs name it to their agents."""

from __future__ import annotations

import re

SERVER = "sandpiper"
TOOLS = ("share_file", "share_port", "ask_person", "set_title", "note_progress", "open_pr")

# A shell, since a box may mount the directory of the server's program without the right to run it.
SHELL = "/bin/sh"

# People may take long to answer; nobody else is to give up before them.
LONGEST_CALL = 86_400  # seconds

_NAMES = re.compile(rf"(?:Us(?:e|ed|ing) )?(?:mcp__)?{SERVER}(?:: |__|_|/)(?:{'|'.join(TOOLS)})")


def is_side_tool(name: str) -> bool:
    """Whether this is an agent's name for one of ours, or the title that a codec makes of it."""
    return _NAMES.fullmatch(name) is not None
