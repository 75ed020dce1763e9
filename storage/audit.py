"""The trail of who did what. Rows are only ever added."""

from __future__ import annotations

from storage.database import Tx


def add(tx: Tx, actor: str, action: str, target: str, detail: str) -> None:
    tx.run(
        "INSERT INTO audit (at, actor, action, target, detail) VALUES (?, ?, ?, ?, ?)",
        tx.now,
        actor,
        action,
        target,
        detail,
    )
