"""Turns: one prompt to its end. Writes of a turn's owner carry its fence and fail when it is stale."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NoReturn

from bot.errors import InputsChanged, LeaseLost, SandpiperError
from bot.models import (
    Fate,
    Final,
    Inbox,
    Input,
    Past,
    PullRequest,
    Record,
    Remark,
    Saying,
    SayingKind,
    ThreadKey,
    Turn,
    TurnKind,
    TurnState,
)
from storage import asks, events, inputs, offers, outbox, sessions, usage
from storage.database import Row, Tx
from storage.encoding import FINAL, REF, dump, load, load_optional


def topic(turn: int) -> str:
    return f"turn:{turn}"


# Reading


def before(tx: Tx, id: int) -> Turn | None:
    row = tx.one(
        "SELECT * FROM turns WHERE id < ? AND session = (SELECT session FROM turns WHERE id = ?)"
        " ORDER BY id DESC LIMIT 1",
        id,
        id,
    )
    return None if row is None else from_row(row)


def past(tx: Tx, id: int, limit: int) -> Sequence[Past]:
    """The ended turns of the same session before this one, the newest first."""
    rows = tx.all(
        "SELECT id, final FROM turns WHERE id < ? AND session = (SELECT session FROM turns WHERE id = ?)"
        " AND kind = 'agent' AND final IS NOT NULL ORDER BY id DESC LIMIT ?",
        id,
        id,
        limit,
    )
    found = []
    for row in rows:
        final = load(FINAL, row["final"])
        given = [one for one in inputs.of_turn(tx, row["id"]) if one.fate in (Fate.WRITTEN, Fate.CONSUMED)]
        asked = tuple(Remark(one.author.name, one.text) for one in given)
        found.append(Past(asked, final.outcome, final.text or final.reason))
    return found


def get(tx: Tx, id: int) -> Turn:
    row = tx.one("SELECT * FROM turns WHERE id = ?", id)
    if row is None:
        raise _unknown(id)
    return from_row(row)


def open_of(tx: Tx, session: str) -> Row | None:
    return tx.one(
        "SELECT * FROM turns WHERE session = ? AND state IN ('queued', 'preparing', 'running', 'finishing')",
        session,
    )


def inbox(tx: Tx, id: int) -> Inbox:
    row = tx.one("SELECT stop_by FROM turns WHERE id = ?", id)
    if row is None:
        raise _unknown(id)
    return Inbox(row["stop_by"], inputs.pending(tx, id), asks.untold(tx, id))


def newest_of(tx: Tx, person: int) -> int:
    return int(tx.single("SELECT COALESCE(MAX(id), 0) AS id FROM turns WHERE person = ?", person)["id"])


def given_beside(tx: Tx, session: str) -> Sequence[Input]:
    """Of an attempt before, what was not consumed is pending again."""
    owner = tx.single("SELECT owner FROM sessions WHERE id = ?", session)["owner"]
    _lock_person(tx, owner)
    return inputs.given_beside(tx, owner, session)


def busy(tx: Tx) -> int:
    row = tx.single(
        "SELECT COUNT(*) AS turns FROM turns WHERE state IN ('preparing', 'running', 'finishing')"
    )
    return int(row["turns"])


def from_row(row: Row) -> Turn:
    return Turn(
        id=row["id"],
        session=row["session"],
        thread=ThreadKey.parse(row["thread"]),
        kind=TurnKind(row["kind"]),
        state=TurnState(row["state"]),
        attempt=row["attempt"],
        fence=row["fence"],
        out_offset=row["out_offset"],
        err_offset=row["err_offset"],
        in_offset=row["in_offset"],
        codec_state=json.loads(row["codec_state"]),
        stop_by=row["stop_by"],
        timeline=load_optional(REF, row["timeline"]),
        queued_at=row["queued_at"],
        started_at=row["started_at"],
        asked_to_commit=bool(row["asked_to_commit"]),
    )


# Starting and stopping: whoever has the session's row may


def start(tx: Tx, session: Row, thread: ThreadKey, kind: TurnKind, opened_by: str) -> int:
    """A queued turn, its picture in the outbox, and a wake for it."""
    id = int(
        tx.single(
            "INSERT INTO turns (session, tenant, person, thread, kind, opened_by, queued_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
            session["id"],
            session["tenant"],
            session["owner"],
            str(thread),
            kind,
            opened_by,
            tx.now,
        )["id"]
    )
    outbox.put(tx, Saying(key=f"timeline:{id}", kind=SayingKind.TIMELINE, thread=thread, turn=id))
    tx.wake(id)
    return id


def stop(tx: Tx, turn: Row, by: str) -> None:
    """Ask a turn to stop; the first who asked is remembered. It must not wait for a place to do so."""
    tx.run("UPDATE turns SET stop_by = ? WHERE id = ? AND stop_by = ''", by or "somebody", turn["id"])
    if turn["state"] == TurnState.QUEUED:
        tx.wake(turn["id"])
    tx.ring(topic(turn["id"]))


# What its owner writes


def hold(tx: Tx, id: int, fence: int) -> Row:
    """Lock the turn's session, then the turn, for its owner. Raises LeaseLost."""
    row = tx.one("SELECT session FROM turns WHERE id = ?", id)
    if row is None:
        raise _unknown(id)
    sessions.lock(tx, row["session"])
    held = tx.lock("SELECT * FROM turns WHERE id = ? AND fence = ?", id, fence)
    return held if held is not None else lost(id)


def renew(tx: Tx, id: int, fence: int, lease: float) -> None:
    if not tx.run("UPDATE turns SET lease_until = ? WHERE id = ? AND fence = ?", tx.now + lease, id, fence):
        lost(id)


def advance(tx: Tx, id: int, fence: int, state: TurnState) -> None:
    """Entering it again (after a restart) is no error; coming from elsewhere is a mistake of ours."""
    row = hold(tx, id, fence)
    if state is not TurnState.RUNNING or row["state"] not in (TurnState.PREPARING, TurnState.RUNNING):
        raise ValueError(f"turn {id} cannot go from {row['state']} to {state}")
    _enter(tx, id, fence, state)


def new_attempt(tx: Tx, id: int, fence: int) -> Turn:
    hold(tx, id, fence)
    asks.withdraw(tx, id)
    row = tx.one(
        "UPDATE turns SET attempt = attempt + 1, out_offset = 0, err_offset = 0, in_offset = 0,"
        " codec_state = '{}' WHERE id = ? AND fence = ? RETURNING *",
        id,
        fence,
    )
    if row is None:
        lost(id)
    events.forget_journal(tx, id)
    inputs.write_again(tx, id)
    return from_row(row)


def refuse_input(tx: Tx, id: int, fence: int, refused: Input, saying: Saying) -> bool:
    row = hold(tx, id, fence)
    if refused.fate is not Fate.PENDING or not inputs.unchanged(tx, [refused]):
        return False
    inputs.drop(tx, refused)
    inputs.choose_without(tx, row, refused)
    outbox.put(tx, saying)
    return True


def record(tx: Tx, id: int, fence: int, step: Record) -> Turn:
    held = hold(tx, id, fence)
    if not inputs.unchanged(tx, step.given):
        raise InputsChanged("What people said was changed since.", "Read it again.")
    if step.newest is not None:
        _lock_person(tx, held["person"])
        if newest_of(tx, held["person"]) != step.newest:
            raise InputsChanged("Another turn of the owner's was opened since.", "Ask again who may.")
    asked = None if step.asked_to_commit is None else int(step.asked_to_commit)
    row = tx.one(
        "UPDATE turns SET out_offset = COALESCE(?, out_offset), err_offset = COALESCE(?, err_offset),"
        " in_offset = in_offset + ?, codec_state = COALESCE(?, codec_state),"
        " asked_to_commit = COALESCE(?, asked_to_commit) WHERE id = ? AND fence = ? RETURNING *",
        step.out_offset,
        step.err_offset,
        len(step.stdin),
        None if step.codec_state is None else json.dumps(dict(step.codec_state)),
        asked,
        id,
        fence,
    )
    if row is None:
        lost(id)
    if step.stdin:
        events.journal(tx, id, held["attempt"], held["in_offset"], step.stdin)
    if step.events:
        events.append(tx, id, step.events)
        sessions.name(tx, held["session"], step.events)
        usage.save_all(tx, id, held["tenant"], held["person"], step.events)
    inputs.settle(tx, id, step.written, step.consumed, step.deferred)
    asks.withdraw(tx, id, step.withdrawn)
    for new in step.asked:
        asks.add(tx, held, new)
    asks.tell(tx, id, step.told)
    if step.memory is not None:
        sessions.remember(tx, held["session"], step.memory)
    if step.offers is not None:
        offers.save(tx, held["session"], step.offers)
    return from_row(row)


def expire_asks(tx: Tx, id: int, fence: int) -> None:
    hold(tx, id, fence)
    asks.expire(tx, id)


def bring_code(tx: Tx, id: int, fence: int) -> None:
    hold(tx, id, fence)
    tx.run("UPDATE turns SET code_came = 1 WHERE id = ?", id)


def begin_finishing(tx: Tx, id: int, fence: int) -> Inbox:
    row = hold(tx, id, fence)
    if row["state"] == TurnState.FINISHING:
        return Inbox("", ())
    come_in = inbox(tx, id)
    if come_in.stop_by or come_in.inputs:
        return come_in
    asks.withdraw(tx, id)
    _enter(tx, id, fence, TurnState.FINISHING)
    return come_in


def close_intake(tx: Tx, id: int, fence: int) -> None:
    hold(tx, id, fence)
    asks.withdraw(tx, id)
    _enter(tx, id, fence, TurnState.FINISHING)


def set_ready(tx: Tx, id: int, fence: int, commit: str, repository: int) -> None:
    sessions.set_ready(tx, hold(tx, id, fence)["session"], commit, repository)


def set_published(
    tx: Tx, id: int, fence: int, commit: str, pull_request: PullRequest, repository: int
) -> None:
    sessions.set_published(tx, hold(tx, id, fence)["session"], id, commit, pull_request, repository)


def begin_push(tx: Tx, id: int, fence: int) -> bool:
    row = hold(tx, id, fence)
    if row["stop_by"] and not row["pushing"]:
        return False
    if not tx.run("UPDATE turns SET pushing = 1 WHERE id = ? AND fence = ?", id, fence):
        lost(id)
    return True


def end(tx: Tx, id: int, fence: int, state: TurnState, final: Final) -> None:
    """The fence goes up once more, so that nothing can be written to an ended turn."""
    asks.withdraw(tx, id)
    changed = tx.run(
        "UPDATE turns SET state = ?, final = ?, ended_at = ?, owner = '', lease_until = 0,"
        " fence = fence + 1 WHERE id = ? AND fence = ?",
        state,
        dump(FINAL, final),
        tx.now,
        id,
        fence,
    )
    if not changed:
        lost(id)
    events.forget_journal(tx, id)


def _lock_person(tx: Tx, person: int) -> None:
    """Who gives others' words to an agent, and who looks for that before code comes in, go one by one."""
    tx.lock("SELECT id FROM people WHERE id = ?", person)


def lost(id: int) -> NoReturn:
    raise LeaseLost(f"Turn {id} was claimed by somebody else, or has ended.")


def _enter(tx: Tx, id: int, fence: int, state: TurnState) -> None:
    if not tx.run("UPDATE turns SET state = ? WHERE id = ? AND fence = ?", state, id, fence):
        lost(id)


def _unknown(id: int) -> SandpiperError:
    return SandpiperError(f"There is no turn {id}.", "It may belong to another data directory.")
