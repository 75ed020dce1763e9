"""The outbox: what is to be said exactly once, in order per thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bot.models import MessageRef, OutboxItem, Saying, SayingKind, TurnState
from storage.database import Tx
from storage.encoding import REF, SAYING, dump, dump_optional, load, load_optional


def put(tx: Tx, saying: Saying) -> bool:
    """False: its key is there already."""
    added = tx.run(
        "INSERT INTO outbox (key, lane, kind, turn, body, due_at, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
        saying.key,
        str(saying.thread),
        saying.kind,
        saying.turn,
        dump(SAYING, saying),
        tx.now,
        tx.now,
    )
    if added:
        tx.ring("outbox")
    return bool(added)


def due(tx: Tx, now: float, limit: int) -> Sequence[OutboxItem]:
    """Lanes wait for their head: while it is postponed, nothing behind it is said."""
    rows = tx.all(
        "SELECT * FROM outbox WHERE due_at <= ? AND id IN (SELECT MIN(id) FROM outbox"
        " WHERE state IN ('pending', 'sending') GROUP BY lane) ORDER BY id LIMIT ?",
        now,
        limit,
    )
    return [
        OutboxItem(
            id=row["id"],
            saying=_amending(tx, load(SAYING, row["body"])),
            attempts=row["attempts"],
            tried=row["attempts"] > 0,
            created_at=row["created_at"],
        )
        for row in rows
    ]


def _amending(tx: Tx, saying: Saying) -> Saying:
    if not saying.amends:
        return saying
    row = tx.one("SELECT ref FROM outbox WHERE key = ?", saying.amends)
    return replace(saying, ref=None if row is None else load_optional(REF, row["ref"]))


def sending(tx: Tx, item: int) -> None:
    tx.run(
        "UPDATE outbox SET state = 'sending', attempts = attempts + 1"
        " WHERE id = ? AND state IN ('pending', 'sending')",
        item,
    )


def sent(tx: Tx, item: int, ref: MessageRef | None) -> None:
    row = tx.one(
        "UPDATE outbox SET state = 'sent', ref = ?, error = '', settled_at = ?"
        " WHERE id = ? AND state IN ('pending', 'sending') RETURNING kind, turn",
        dump_optional(REF, ref),
        tx.now,
        item,
    )
    if row is None:
        return
    if row["kind"] == SayingKind.TIMELINE and ref is not None:
        set_timeline(tx, row["turn"], ref)
    tx.ring("outbox")


def postpone(tx: Tx, item: int, until: float, error: str) -> None:
    tx.run(
        "UPDATE outbox SET state = 'pending', due_at = ?, error = ?"
        " WHERE id = ? AND state IN ('pending', 'sending')",
        until,
        error,
        item,
    )
    tx.ring("outbox")


def refused(tx: Tx, item: int, error: str) -> Saying | None:
    """What will not be said; None: it was settled before."""
    row = tx.one(
        "UPDATE outbox SET state = 'refused', error = ?, settled_at = ?"
        " WHERE id = ? AND state IN ('pending', 'sending') RETURNING body",
        error,
        tx.now,
        item,
    )
    tx.ring("outbox")
    return None if row is None else load(SAYING, row["body"])


def shared_files(tx: Tx) -> Sequence[str]:
    """The paths of the files that are still to be said."""
    rows = tx.all(
        "SELECT body FROM outbox WHERE kind = ? AND state IN ('pending', 'sending')", SayingKind.FILE
    )
    sayings = (load(SAYING, row["body"]) for row in rows)
    return [saying.file.path for saying in sayings if saying.file is not None]


def set_timeline(tx: Tx, turn: int, ref: MessageRef) -> None:
    row = tx.one("UPDATE turns SET timeline = ? WHERE id = ? RETURNING state", dump(REF, ref), turn)
    if row is not None and row["state"] == TurnState.QUEUED:
        tx.wake(turn)  # it may be waiting for a place: there is a picture now to show that in
    tx.ring(f"turn:{turn}")
