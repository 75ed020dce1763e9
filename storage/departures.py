"""People who leave and tenants that do: since when, whose turns end by it, whose sandboxes are due."""

from __future__ import annotations

from collections.abc import Sequence

from bot.models import SandboxRow, Standing
from storage import sandboxes, sessions, turns
from storage.database import Tx

BY = "Sandpiper"


def note(tx: Tx, standing: Standing) -> Sequence[str]:
    if standing.tenant:
        if standing.why:
            tx.run(
                "INSERT INTO departures (tenant, account, why, at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (tenant, account) DO NOTHING",
                standing.tenant,
                standing.account,
                standing.why,
                tx.now,
            )
        else:
            tx.run(
                "DELETE FROM departures WHERE tenant = ? AND account = ?", standing.tenant, standing.account
            )
    return _stopped(tx, standing) if standing.why else ()


def _stopped(tx: Tx, standing: Standing) -> Sequence[str]:
    """The sessions whose turns are asked to stop. One whose push is under way ends by itself."""
    stopped = []
    for row in tx.all(
        "SELECT DISTINCT turns.session FROM turns JOIN sessions ON sessions.id = turns.session"
        " LEFT JOIN further_repositories AS further ON further.session = sessions.id"
        " LEFT JOIN repositories ON repositories.id IN (sessions.repository, further.repository)"
        " WHERE turns.state IN ('queued', 'preparing', 'running', 'finishing') AND ((? <> '' AND EXISTS"
        " (SELECT 1 FROM identities WHERE identities.person = turns.person AND identities.tenant = ?"
        " AND ? IN ('', identities.account)) AND turns.person NOT IN"
        # who still has an account somewhere
        " (SELECT identities.person FROM identities WHERE NOT EXISTS"
        " (SELECT 1 FROM departures WHERE departures.tenant = identities.tenant"
        " AND departures.account IN ('', identities.account))))"
        " OR repositories.id = ? OR repositories.installation = ?) ORDER BY turns.session",
        standing.tenant,
        standing.tenant,
        standing.account,
        standing.repository or -1,
        standing.installation or -1,
    ):
        sessions.lock(tx, row["session"])
        turn = turns.open_of(tx, row["session"])
        if turn is not None and not turn["pushing"] and not turn["stop_by"]:
            turns.stop(tx, turn, f"{BY}: {standing.why}")
            stopped.append(row["session"])
    return stopped


def due(tx: Tx, before: float) -> Sequence[SandboxRow]:
    """Sandboxes of people who have been gone since before then and have no open turn."""
    rows = tx.all(
        "SELECT * FROM sandboxes WHERE provider_id <> '' AND person NOT IN"
        " (SELECT identities.person FROM identities WHERE NOT EXISTS"
        " (SELECT 1 FROM departures WHERE departures.tenant = identities.tenant"
        " AND departures.account IN ('', identities.account) AND departures.at < ?)) AND NOT EXISTS"
        " (SELECT 1 FROM turns WHERE turns.person = sandboxes.person"
        " AND turns.state IN ('queued', 'preparing', 'running', 'finishing')) ORDER BY id",
        before,
    )
    return [sandboxes.from_row(row) for row in rows]
