"""This machine, by a name that sandboxes on it are found by."""

from __future__ import annotations

import secrets
from pathlib import Path

from sandbox.whole import write_whole

HOST = "host"


def host_of(directory: Path) -> str:
    """A name for this directory's machine that survives a new host name (containers change theirs)."""
    path = directory / HOST
    if not (path.exists() and path.stat().st_size):  # an earlier release left an empty one on a full disk
        write_whole(path, f"local-{secrets.token_hex(6)}")
    return path.read_text(encoding="utf-8")
