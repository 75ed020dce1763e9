"""Repositories that sessions work on, and the defaults of channels."""

from __future__ import annotations

from bot.models import Identity, Repository
from storage.database import Tx


def save(tx: Tx, repository: Repository) -> None:
    """Remember it as it is now: names and default branches change, ids don't."""
    tx.run(
        "INSERT INTO repositories (id, full_name, default_branch, private, installation)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET full_name = excluded.full_name,"
        " default_branch = excluded.default_branch, private = excluded.private,"
        " installation = excluded.installation",
        repository.id,
        repository.full_name,
        repository.default_branch,
        int(repository.private),
        repository.installation,
    )


def get(tx: Tx, id: int) -> Repository:
    row = tx.single("SELECT * FROM repositories WHERE id = ?", id)
    return Repository(
        id=row["id"],
        full_name=row["full_name"],
        default_branch=row["default_branch"],
        private=bool(row["private"]),
        installation=row["installation"],
    )


def default(tx: Tx, scope: str) -> str:
    row = tx.one("SELECT repository FROM repository_defaults WHERE scope = ?", scope)
    return "" if row is None else str(row["repository"])


def set_default(tx: Tx, scope: str, repository: str, by: Identity) -> None:
    tx.run(
        "INSERT INTO repository_defaults (scope, repository, set_by, set_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (scope) DO UPDATE SET repository = excluded.repository,"
        " set_by = excluded.set_by, set_at = excluded.set_at",
        scope,
        repository,
        f"{by.surface}:{by.tenant}:{by.user}",
        tx.now,
    )
