"""Leases and caps: who drives which turn, and whose turn it is to start."""

from __future__ import annotations

from collections.abc import Sequence

from bot.models import Caps, Claim, TurnState, Waiting
from storage import sessions, turns
from storage.database import Row, Tx

SHOWN_PLACES = 10  # each place that changes is a picture to redraw


def boot(tx: Tx) -> Sequence[int]:
    """End all leases. Returns the open turns, oldest first."""
    tx.run(
        "UPDATE turns SET owner = '', lease_until = 0"
        " WHERE state IN ('queued', 'preparing', 'running', 'finishing')"
    )
    rows = tx.all(
        "SELECT id FROM turns WHERE state IN ('queued', 'preparing', 'running', 'finishing') ORDER BY id"
    )
    return [row["id"] for row in rows]


def claim(tx: Tx, id: int, owner: str, lease: float, caps: Caps) -> Claim | Waiting | None:
    sessions.lock(tx, turns.get(tx, id).session)
    row = tx.single("SELECT * FROM turns WHERE id = ?", id)
    state = TurnState(row["state"])
    if not state.open or (row["lease_until"] > tx.now and row["owner"] != owner):
        return None
    # A stopped turn starts nothing that caps are there to limit; it only has to be ended.
    if state is TurnState.QUEUED and not row["stop_by"]:
        waiting = _waiting(tx, row, caps)
        if waiting is not None:
            tx.run(
                "UPDATE turns SET capped = 1, cap_total = ?, cap_tenant = ?, cap_person = ?,"
                " cap_sandboxes = ? WHERE id = ?",
                caps.total,
                caps.tenant,
                caps.person,
                caps.sandboxes,
                id,
            )
            return waiting
    claimed = tx.single(
        "UPDATE turns SET fence = fence + 1, owner = ?, lease_until = ?,"
        " started_at = CASE WHEN state = 'queued' THEN ? ELSE started_at END,"
        " code_came = CASE WHEN state = 'queued' THEN 0 ELSE code_came END,"
        " state = CASE WHEN state = 'queued' THEN 'preparing' ELSE state END WHERE id = ? RETURNING *",
        owner,
        tx.now + lease,
        tx.now,
        id,
    )
    turn = turns.from_row(claimed)
    return Claim(turn, sessions.get(tx, turn.session), turn.fence)


def wake_next(tx: Tx, ended: Row | None = None) -> None:
    """A place is free: wake the waiting turns that may start now, the oldest first. ended: the turn that
    has left it; the first of those who waited behind that one are woken too, to show their new place."""
    shown = 0
    places = _Places(tx)
    for row in tx.all(
        "SELECT * FROM turns WHERE state = 'queued' AND capped = 1 AND stop_by = '' ORDER BY id"
    ):
        cap = places.full(row, _caps_of(row))
        if cap is None:
            places.take(row)
            tx.wake(row["id"])
        elif (
            ended is not None
            and shown < SHOWN_PLACES
            and (cap == "total" or row[_OF[cap]] == ended[_OF[cap]])
        ):
            shown += 1
            tx.wake(row["id"])


def wake_forgotten(tx: Tx) -> None:
    """Wake the open turns that nobody drives: their wake was lost, or their driver's lease ran out."""
    for row in tx.all(
        "SELECT id FROM turns WHERE state IN ('queued', 'preparing', 'running', 'finishing')"
        " AND lease_until <= ? AND NOT (state = 'queued' AND capped = 1 AND stop_by = '') ORDER BY id",
        tx.now,
    ):
        tx.wake(row["id"])
    wake_next(tx)


# The column by which a cap counts.
_OF = {"person": "person", "tenant": "tenant", "sandboxes": "tenant"}


def _caps_of(row: Row) -> Caps:
    return Caps(row["cap_total"], row["cap_tenant"], row["cap_person"], row["cap_sandboxes"])


class _Places:
    """The places that are taken, counted once. Who holds a place has a sandbox that runs, or soon will."""

    def __init__(self, tx: Tx) -> None:
        tx.lock("SELECT name FROM locks WHERE name = 'caps'")
        self._total = 0
        self._tenants: dict[str, int] = {}
        self._people: dict[int, int] = {}
        self._owners: dict[str, set[int]] = {}
        self._without: set[str] = set()  # tenants in which somebody waits for a sandbox
        for row in tx.all(
            "SELECT tenant, person FROM turns WHERE state IN ('preparing', 'running', 'finishing')"
        ):
            self.take(row)

    def take(self, turn: Row) -> None:
        self._total += 1
        self._tenants[turn["tenant"]] = self._tenants.get(turn["tenant"], 0) + 1
        self._people[turn["person"]] = self._people.get(turn["person"], 0) + 1
        self._owners.setdefault(turn["tenant"], set()).add(turn["person"])

    def full(self, turn: Row, caps: Caps) -> str | None:
        """The cap that keeps this turn from starting, the narrowest first. Asked for those who wait in their
        order: whoever has a sandbox does not pass one who waits for it, who else might wait for ever."""
        if caps.person and self._people.get(turn["person"], 0) >= caps.person:
            return "person"
        owners = self._owners.get(turn["tenant"], set())
        if caps.sandboxes and len(owners) >= caps.sandboxes:
            if turn["person"] not in owners:
                self._without.add(turn["tenant"])
                return "sandboxes"
            if turn["tenant"] in self._without or len(owners) > caps.sandboxes:
                return "sandboxes"
        if caps.tenant and self._tenants.get(turn["tenant"], 0) >= caps.tenant:
            return "tenant"
        if caps.total and self._total >= caps.total:
            return "total"
        return None


_BEFORE = {
    "person": "SELECT COUNT(*) AS turns FROM turns WHERE state = 'queued' AND id < ? AND person = ?",
    "tenant": "SELECT COUNT(*) AS turns FROM turns WHERE state = 'queued' AND id < ? AND tenant = ?",
    "sandboxes": "SELECT COUNT(*) AS turns FROM turns WHERE state = 'queued' AND id < ? AND tenant = ?",
    "total": "SELECT COUNT(*) AS turns FROM turns WHERE state = 'queued' AND id < ?",
}


def _waiting(tx: Tx, turn: Row, caps: Caps) -> Waiting | None:
    places = _Places(tx)
    if caps.sandboxes:  # who comes now, stands behind those who wait
        for row in tx.all(
            "SELECT * FROM turns WHERE state = 'queued' AND capped = 1 AND stop_by = ''"
            " AND tenant = ? AND id < ? ORDER BY id",
            turn["tenant"],
            turn["id"],
        ):
            if places.full(row, caps) is None:
                places.take(row)  # it was woken before this one came
    cap = places.full(turn, caps)
    if cap is None:
        return None
    scope = () if cap == "total" else (turn[_OF[cap]],)
    return Waiting(place=tx.single(_BEFORE[cap], turn["id"], *scope)["turns"] + 1, cap=cap)
