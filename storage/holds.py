"""Who is alone with a person's sandbox, among all tasks of all bots on these data."""

from __future__ import annotations

from bot.models import SandboxKey
from storage.database import Tx


def hold(tx: Tx, key: SandboxKey, holder: str, seconds: float) -> bool:
    taken = tx.one(
        "INSERT INTO sandbox_holds (installation, tenant, person, provider, holder, held_until)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (installation, tenant, person, provider)"
        " DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until"
        " WHERE sandbox_holds.holder = excluded.holder OR sandbox_holds.held_until <= ? RETURNING holder",
        *_columns(key),
        holder,
        tx.now + seconds,
        tx.now,
    )
    return taken is not None


def release(tx: Tx, key: SandboxKey, holder: str) -> None:
    tx.run(
        "DELETE FROM sandbox_holds"
        " WHERE installation = ? AND tenant = ? AND person = ? AND provider = ? AND holder = ?",
        *_columns(key),
        holder,
    )


def end_all(tx: Tx) -> None:
    tx.run("DELETE FROM sandbox_holds")


def _columns(key: SandboxKey) -> tuple[str, str, int, str]:
    return key.installation, key.tenant, key.person, key.provider
