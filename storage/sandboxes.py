"""Which sandbox belongs to whom, and when it was last used."""

from __future__ import annotations

from collections.abc import Sequence

from bot.models import SandboxKey, SandboxRow, Saying, SayingKind, ThreadKey
from storage import outbox
from storage.database import Row, Tx


def get(tx: Tx, key: SandboxKey) -> SandboxRow | None:
    row = tx.one(
        "SELECT * FROM sandboxes WHERE installation = ? AND tenant = ? AND person = ? AND provider = ?",
        key.installation,
        key.tenant,
        key.person,
        key.provider,
    )
    return None if row is None else _sandbox(row)


def save(tx: Tx, key: SandboxKey, provider_id: str, host: str) -> SandboxRow:
    known = get(tx, key)
    if known is not None and known.provider_id != provider_id:
        _forget_what_was_in(tx, key, known.provider_id)
    row = tx.single(
        "INSERT INTO sandboxes"
        " (installation, tenant, person, provider, provider_id, host, created_at, last_used)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (installation, tenant, person, provider)"
        " DO UPDATE SET provider_id = excluded.provider_id, host = excluded.host,"
        " created_at = excluded.created_at, last_used = excluded.last_used RETURNING *",
        key.installation,
        key.tenant,
        key.person,
        key.provider,
        provider_id,
        host,
        tx.now,
        tx.now,
    )
    return _sandbox(row)


def _forget_what_was_in(tx: Tx, key: SandboxKey, gone: str) -> None:
    """Agents' memories and kept commits are lost with their sandbox. Every thread whose work was waiting
    to be published is told, not only the one that found out."""
    lost = tx.all("SELECT id, thread FROM sessions WHERE owner = ? AND ready <> '' ORDER BY id", key.person)
    tx.run("UPDATE sessions SET resume_token = '', ready = '' WHERE owner = ?", key.person)
    for session in lost:
        note = Saying(
            key=f"lost:{session['id']}:{gone}",
            kind=SayingKind.NOTE,
            thread=ThreadKey.parse(session["thread"]),
            text="The work of this thread that was not published is lost: the sandbox that it was in no"
            " longer exists. Write here to have it done again.",
        )
        outbox.put(tx, note)


def touch(tx: Tx, id: int) -> None:
    tx.run("UPDATE sandboxes SET last_used = ? WHERE id = ?", tx.now, id)


def idle(tx: Tx, before: float) -> Sequence[SandboxRow]:
    rows = tx.all(
        "SELECT * FROM sandboxes WHERE last_used < ? AND NOT EXISTS"
        " (SELECT 1 FROM turns WHERE turns.tenant = sandboxes.tenant AND turns.person = sandboxes.person"
        " AND turns.state IN ('preparing', 'running', 'finishing')) ORDER BY last_used, id",
        before,
    )
    return [_sandbox(row) for row in rows]


def _sandbox(row: Row) -> SandboxRow:
    return SandboxRow(
        id=row["id"],
        key=SandboxKey(row["installation"], row["tenant"], row["person"], row["provider"]),
        provider_id=row["provider_id"],
        host=row["host"],
        created_at=row["created_at"],
        last_used=row["last_used"],
    )
