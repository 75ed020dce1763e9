"""What the agent did (a row per event) and what was written to its stdin (the journal)."""

from __future__ import annotations

from collections.abc import Sequence

from bot.events import Event
from bot.models import StoredEvent
from storage.database import Tx
from storage.encoding import EVENT, dump, load


def append(tx: Tx, turn: int, events: Sequence[Event]) -> None:
    last = tx.single("SELECT COALESCE(MAX(seq), 0) AS seq FROM events WHERE turn = ?", turn)["seq"]
    for seq, event in enumerate(events, last + 1):
        tx.run(
            "INSERT INTO events (turn, seq, at, body) VALUES (?, ?, ?, ?)",
            turn,
            seq,
            tx.now,
            dump(EVENT, event),
        )


def of_turn(tx: Tx, turn: int) -> Sequence[StoredEvent]:
    rows = tx.all("SELECT id, at, body FROM events WHERE turn = ? ORDER BY seq", turn)
    return [StoredEvent(row["id"], row["at"], load(EVENT, row["body"])) for row in rows]


def journal(tx: Tx, turn: int, attempt: int, starts: int, data: bytes) -> None:
    tx.run(
        "INSERT INTO journal (turn, attempt, starts, ends, body) VALUES (?, ?, ?, ?, ?)",
        turn,
        attempt,
        starts,
        starts + len(data),
        data,
    )


def journalled(tx: Tx, turn: int, attempt: int, offset: int) -> bytes:
    rows = tx.all(
        "SELECT starts, body FROM journal WHERE turn = ? AND attempt = ? AND ends > ? ORDER BY starts",
        turn,
        attempt,
        offset,
    )
    return b"".join(bytes(row["body"])[max(0, offset - row["starts"]) :] for row in rows)


def forget_journal(tx: Tx, turn: int) -> None:
    """No process will be given these bytes any more."""
    tx.run("DELETE FROM journal WHERE turn = ?", turn)
