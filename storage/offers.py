"""What agents list: the models and efforts that can be chosen of them."""

from __future__ import annotations

from dataclasses import replace

from bot.models import Offered, Offers
from storage.database import Tx
from storage.encoding import OFFERED, dump, load


def save(tx: Tx, session: str, told: Offers) -> None:
    """What its owner's sandbox offers in its repository, in place of what it offered before."""
    row = tx.single("SELECT owner, repository FROM sessions WHERE id = ?", session)
    if row["repository"] is None:
        return
    tx.run(
        "INSERT INTO offers (agent, person, repository, version, offered, at) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (agent, person, repository) DO UPDATE SET version = excluded.version,"
        " offered = excluded.offered, at = excluded.at",
        told.agent,
        row["owner"],
        row["repository"],
        told.version,
        dump(OFFERED, told.offered),
        tx.now,
    )


def last(tx: Tx, agent: str, version: str, person: int, repository: int) -> Offered | None:
    row = tx.one(
        "SELECT repository, offered FROM offers WHERE agent = ? AND version = ? AND person = ?"
        " ORDER BY CASE WHEN repository = ? THEN 0 ELSE 1 END, at DESC LIMIT 1",
        agent,
        version,
        person,
        repository,
    )
    if row is None:
        return None
    offered = load(OFFERED, row["offered"])
    return offered if row["repository"] == repository else replace(offered, complete=())
