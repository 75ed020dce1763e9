"""Deliveries: what the surfaces handed to us, raw, until each has an outcome."""

from __future__ import annotations

from collections.abc import Sequence

from bot.models import Delivery, ThreadKey
from storage.database import Tx

PARKED_SECONDS = 600.0
# Settled deliveries are kept as long as a surface may hand them over again: GitHub redelivers by
# hand for three days (docs.github.com, "Redelivering webhooks"); Slack gives up within hours.
SETTLED_SECONDS = 7 * 86400.0


def accept(tx: Tx, delivery: Delivery) -> bool:
    added = tx.run(
        "INSERT INTO deliveries (surface, id, kind, body, received_at, lane) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (surface, id) DO NOTHING",
        delivery.surface,
        delivery.id,
        delivery.kind,
        delivery.body,
        delivery.received_at,
        delivery.lane,
    )
    if added:
        tx.ring("deliveries")
    return bool(added)


def received(tx: Tx, limit: int) -> Sequence[Delivery]:
    rows = tx.all("SELECT * FROM deliveries WHERE state = 'received' ORDER BY seq LIMIT ?", limit)
    return [
        Delivery(
            surface=row["surface"],
            id=row["id"],
            kind=row["kind"],
            body=row["body"],
            received_at=row["received_at"],
            lane=row["lane"],
        )
        for row in rows
    ]


def settle(tx: Tx, surface: str, id: str, outcome: str) -> None:
    tx.run(
        "UPDATE deliveries SET state = 'settled', outcome = ?, settled_at = ? WHERE surface = ? AND id = ?",
        outcome,
        tx.now,
        surface,
        id,
    )


def park(tx: Tx, surface: str, id: str, thread: ThreadKey) -> None:
    if tx.one("SELECT session FROM aliases WHERE alias = ?", str(thread)) is not None:
        tx.ring("deliveries")  # its session was made while it was being read: it can go on at once
        return
    tx.run(
        "UPDATE deliveries SET state = 'parked', thread = ?"
        " WHERE surface = ? AND id = ? AND state = 'received'",
        str(thread),
        surface,
        id,
    )


def unpark(tx: Tx, alias: str) -> None:
    """A session has this alias now: what was parked for it can be worked on."""
    if tx.run(
        "UPDATE deliveries SET state = 'received', thread = '' WHERE state = 'parked' AND thread = ?", alias
    ):
        tx.ring("deliveries")


def sweep(tx: Tx, now: float) -> None:
    # A root that still waits (its forge is away) may yet make the session of what is parked in its lane.
    tx.run(
        "DELETE FROM deliveries WHERE state = 'parked' AND received_at < ? AND NOT EXISTS"
        " (SELECT 1 FROM deliveries AS root WHERE root.state = 'received' AND root.lane <> ''"
        " AND root.surface = deliveries.surface AND root.lane = deliveries.lane)",
        now - PARKED_SECONDS,
    )
    tx.run("DELETE FROM deliveries WHERE state = 'settled' AND settled_at < ?", now - SETTLED_SECONDS)
