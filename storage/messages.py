"""Messages that had their effect: the second key of "once", written only beside an effect."""

from __future__ import annotations

from dataclasses import dataclass

from storage.database import Tx


@dataclass(frozen=True, slots=True)
class Seen:
    """What a message did when it first came."""

    effect: str
    session: str
    turn: int | None


def seen(tx: Tx, key: str) -> Seen | None:
    row = tx.one("SELECT effect, session, turn FROM messages WHERE key = ?", key)
    return None if row is None else Seen(row["effect"], row["session"], row["turn"])


def remember(tx: Tx, key: str, effect: str, session: str = "", turn: int | None = None) -> None:
    tx.run(
        "INSERT INTO messages (key, effect, session, turn, at) VALUES (?, ?, ?, ?, ?)",
        key,
        effect,
        session,
        turn,
        tx.now,
    )
