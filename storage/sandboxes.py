"""Which sandbox belongs to whom, when it was last used, and what becomes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from bot.models import Repository, Reset, SandboxKey, SandboxRow, SandboxState, Saying, SayingKind, ThreadKey
from storage import outbox, repositories
from storage.database import Row, Tx

GONE = "the sandbox that it was in no longer exists"


def get(tx: Tx, key: SandboxKey) -> SandboxRow | None:
    row = tx.one(
        "SELECT * FROM sandboxes WHERE installation = ? AND tenant = ? AND person = ? AND provider = ?",
        key.installation,
        key.tenant,
        key.person,
        key.provider,
    )
    return None if row is None else from_row(row)


def kept(tx: Tx, person: int, provider_id: str) -> SandboxRow | None:
    row = tx.one("SELECT * FROM sandboxes WHERE person = ? AND provider_id = ?", person, provider_id)
    return None if row is None else from_row(row)


def all_of(tx: Tx, installation: str, provider: str) -> Sequence[SandboxRow]:
    rows = tx.all(
        "SELECT * FROM sandboxes WHERE installation = ? AND ? IN ('', provider) AND provider_id <> ''"
        " ORDER BY id",
        installation,
        provider,
    )
    return [from_row(row) for row in rows]


def save(tx: Tx, key: SandboxKey, provider_id: str, host: str) -> SandboxRow:
    known = get(tx, key)
    if known is not None and known.provider_id not in ("", provider_id):
        _forget_what_was_in(tx, key.person, known.provider_id, GONE)
    row = tx.single(
        "INSERT INTO sandboxes (installation, tenant, person, provider, provider_id, host, created_at,"
        " last_used, state, state_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'running', ?)"
        " ON CONFLICT (installation, tenant, person, provider)"
        " DO UPDATE SET provider_id = excluded.provider_id, host = excluded.host,"
        " created_at = excluded.created_at, last_used = excluded.last_used, state = excluded.state,"
        " state_at = excluded.state_at, lost = '',"
        " pinned = CASE WHEN sandboxes.provider_id = excluded.provider_id THEN sandboxes.pinned ELSE 0 END"
        " RETURNING *",
        key.installation,
        key.tenant,
        key.person,
        key.provider,
        provider_id,
        host,
        tx.now,
        tx.now,
        tx.now,
    )
    return from_row(row)


def note_host(tx: Tx, id: int, provider_id: str, host: str) -> None:
    tx.run(
        "UPDATE sandboxes SET host = ? WHERE id = ? AND provider_id = ? AND host = ''", host, id, provider_id
    )


def forget(tx: Tx, id: int, provider_id: str, why: str) -> None:
    changed = tx.one(
        "UPDATE sandboxes SET provider_id = '', lost = ? WHERE id = ? AND provider_id = ? RETURNING person",
        why,
        id,
        provider_id,
    )
    if changed is not None:
        _forget_what_was_in(tx, changed["person"], provider_id, why)


def _forget_what_was_in(tx: Tx, person: int, gone: str, why: str) -> None:
    """Agents' memories and kept commits are lost with their sandbox. Every thread whose work was waiting
    to be published is told, not only the one that found out; but for those that worked in another one last,
    as of another provider."""
    lost = tx.all(
        "SELECT id, thread FROM sessions WHERE owner = ? AND opened_in IN ('', ?) AND (ready <> '' OR EXISTS"
        " (SELECT 1 FROM further_repositories WHERE session = sessions.id AND ready <> '')) ORDER BY id",
        person,
        gone,
    )
    tx.run(
        "UPDATE sessions SET resume_token = '', ready = '' WHERE owner = ? AND opened_in IN ('', ?)",
        person,
        gone,
    )
    tx.run(
        "UPDATE further_repositories SET ready = ''"
        " WHERE session IN (SELECT id FROM sessions WHERE owner = ? AND opened_in IN ('', ?))",
        person,
        gone,
    )
    for session in lost:
        note = Saying(
            key=f"lost:{session['id']}:{gone}",
            kind=SayingKind.NOTE,
            thread=ThreadKey.parse(session["thread"]),
            text=f"The work of this thread that was not published is lost: {why}."
            " Write here to have it done again.",
        )
        outbox.put(tx, note)


def checked_out(tx: Tx, key: SandboxKey) -> Sequence[Repository]:
    sandbox = get(tx, key)
    rows = tx.all(
        "WITH worked AS (SELECT id, repository FROM sessions WHERE owner = ? AND EXISTS (SELECT 1 FROM turns"
        " WHERE turns.session = sessions.id"
        " AND (turns.ended_at = 0 OR (turns.code_came = 1 AND turns.ended_at >= ?))))"
        " SELECT repository AS id FROM worked WHERE repository IS NOT NULL UNION"
        " SELECT further_repositories.repository AS id FROM further_repositories"
        " JOIN worked ON worked.id = further_repositories.session ORDER BY id",
        key.person,
        math.inf if sandbox is None else sandbox.created_at,
    )
    return [repositories.get(tx, row["id"]) for row in rows]


def touch(tx: Tx, id: int) -> None:
    tx.run("UPDATE sandboxes SET last_used = ? WHERE id = ?", tx.now, id)
    seen(tx, id, SandboxState.RUNNING)


def seen(tx: Tx, id: int, state: SandboxState) -> None:
    tx.run(
        "UPDATE sandboxes SET state = ?, state_at = ? WHERE id = ? AND state <> ?", state, tx.now, id, state
    )


def pin(tx: Tx, id: int, pinned: bool) -> None:
    tx.run("UPDATE sandboxes SET pinned = ?, last_used = ? WHERE id = ?", int(pinned), tx.now, id)


def idle(tx: Tx, before: float) -> Sequence[SandboxRow]:
    unused = _unused(tx, before, queued_is_use=False)
    return [row for row in unused if row.state not in (SandboxState.STOPPED, SandboxState.ARCHIVED)]


def expired(tx: Tx, before: float) -> Sequence[SandboxRow]:
    return _unused(tx, before, queued_is_use=True)


def spare(tx: Tx, tenant: str) -> Sequence[SandboxRow]:
    rows = tx.all(
        "SELECT * FROM sandboxes WHERE tenant = ? AND state = 'running' AND provider_id <> '' AND NOT EXISTS"
        " (SELECT 1 FROM turns WHERE turns.tenant = sandboxes.tenant AND turns.person = sandboxes.person"
        " AND turns.state IN ('preparing', 'running', 'finishing')) ORDER BY pinned, last_used, id",
        tenant,
    )
    return [from_row(row) for row in rows]


def _unused(tx: Tx, before: float, *, queued_is_use: bool) -> Sequence[SandboxRow]:
    rows = tx.all(
        "SELECT * FROM sandboxes WHERE last_used < ? AND pinned = 0 AND provider_id <> '' AND NOT EXISTS"
        " (SELECT 1 FROM turns WHERE turns.tenant = sandboxes.tenant AND turns.person = sandboxes.person"
        " AND (turns.state IN ('preparing', 'running', 'finishing') OR (turns.state = 'queued' AND ? = 1)))"
        " ORDER BY last_used, id",
        before,
        int(queued_is_use),
    )
    return [from_row(row) for row in rows]


def new_reset(
    tx: Tx, message_key: str, sandbox: SandboxRow, thread: ThreadKey, told: Sequence[str], deadline: float
) -> Reset:
    tx.run(
        "INSERT INTO resets (message_key, sandbox, provider_id, thread, told, deadline)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (message_key) DO NOTHING",
        message_key,
        sandbox.id,
        sandbox.provider_id,
        str(thread),
        json.dumps(list(told)),
        deadline,
    )
    row = tx.single("SELECT id FROM resets WHERE message_key = ?", message_key)
    made = reset(tx, row["id"])
    assert made is not None  # noqa: S101
    return made


def reset(tx: Tx, number: int) -> Reset | None:
    row = tx.one("SELECT * FROM resets WHERE id = ?", number)
    if row is None:
        return None
    sandbox = tx.single("SELECT * FROM sandboxes WHERE id = ?", row["sandbox"])
    return Reset(
        number=row["id"],
        sandbox=from_row(sandbox),
        provider_id=row["provider_id"],
        thread=ThreadKey.parse(row["thread"]),
        told=tuple(json.loads(row["told"])),
        deadline=row["deadline"],
    )


def from_row(row: Row) -> SandboxRow:
    return SandboxRow(
        id=row["id"],
        key=SandboxKey(row["installation"], row["tenant"], row["person"], row["provider"]),
        provider_id=row["provider_id"],
        host=row["host"],
        created_at=row["created_at"],
        last_used=row["last_used"],
        pinned=bool(row["pinned"]),
        state=SandboxState(row["state"]) if row["state"] else None,
        state_at=row["state_at"],
        lost=row["lost"],
    )
