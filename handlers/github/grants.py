"""Grants: what a sandbox shows to fetch code from us. Each is good for one repository during one turn.

A grant is signed and not remembered, so it holds when the bot is started again in mid-turn; whether its turn
is still open is the store's to say, each time (handlers.github.lender).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

_FORM = re.compile(r"spc_([1-9][0-9]{0,18})_([1-9][0-9]{0,18})_([A-Za-z0-9_-]{43})")
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Grant:
    """repository: the forge's id of it. turn: ours."""

    repository: int
    turn: int


class Grants:
    """Signs grants and knows its own again. key: secret, the same in each life of the bot."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def written(self, grant: Grant) -> str:
        """As git shows it. `bot.redact` knows it by its form."""
        return f"spc_{grant.repository}_{grant.turn}_{self._signature(grant)}"

    def read(self, text: str) -> Grant | None:
        """None: it is none of ours."""
        found = _FORM.fullmatch(text)
        if found is None:
            return None
        grant = Grant(int(found[1]), int(found[2]))
        return grant if hmac.compare_digest(self._signature(grant), found[3]) else None

    def _signature(self, grant: Grant) -> str:
        said = f"code {grant.repository} {grant.turn}".encode()
        digest = hmac.new(self._key, said, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def kept_key(path: Path) -> bytes:
    """The key that is kept there, for the bot's user alone; made when there is none."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) != _KEY_BYTES:  # none, or a disk that was full left half of one
        key = secrets.token_bytes(_KEY_BYTES)
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    return key
