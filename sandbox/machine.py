"""This machine, by a name that sandboxes on it are found by."""

from __future__ import annotations

import secrets
from pathlib import Path

HOST = "host"


def host_of(directory: Path) -> str:
    """A name for this directory's machine that survives a new host name (containers change theirs)."""
    path = directory / HOST
    if not path.exists():
        path.write_text(f"local-{secrets.token_hex(6)}", encoding="utf-8")
    return path.read_text(encoding="utf-8")
