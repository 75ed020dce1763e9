"""People, and the identities that they have on surfaces."""

from __future__ import annotations

from bot.models import Identity, Person
from storage.database import Tx


def person(tx: Tx, identity: Identity) -> Person:
    row = tx.one(
        "SELECT identities.person, identities.name, people.tenant FROM identities"
        " JOIN people ON people.id = identities.person"
        " WHERE identities.surface = ? AND identities.tenant = ? AND identities.account = ?",
        identity.surface,
        identity.tenant,
        identity.user,
    )
    if row is None:
        return _new(tx, identity)
    if row["name"] != identity.name:
        tx.run(
            "UPDATE identities SET name = ? WHERE surface = ? AND tenant = ? AND account = ?",
            identity.name,
            identity.surface,
            identity.tenant,
            identity.user,
        )
    return Person(row["person"], row["tenant"], identity)


def _new(tx: Tx, identity: Identity) -> Person:
    made = tx.single(
        "INSERT INTO people (tenant, created_at) VALUES (?, ?) RETURNING id", identity.tenant, tx.now
    )
    tx.run(
        "INSERT INTO identities (surface, tenant, account, name, person) VALUES (?, ?, ?, ?, ?)",
        identity.surface,
        identity.tenant,
        identity.user,
        identity.name,
        made["id"],
    )
    return Person(made["id"], identity.tenant, identity)


def by_id(tx: Tx, id: int) -> Person | None:
    there = tx.one("SELECT id FROM people WHERE id = ?", id)
    return None if there is None else known(tx, id, "")


def known(tx: Tx, id: int, surface: str) -> Person:
    """A person by id, as they are called on `surface` if they are there, else by their first name."""
    row = tx.single(
        "SELECT people.tenant AS home, identities.* FROM people"
        " JOIN identities ON identities.person = people.id WHERE people.id = ?"
        " ORDER BY CASE WHEN identities.surface = ? THEN 0 ELSE 1 END, identities.id LIMIT 1",
        id,
        surface,
    )
    return Person(id, row["home"], Identity(row["surface"], row["tenant"], row["account"], row["name"]))
