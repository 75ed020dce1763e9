"""Inputs: each session's ordered log of what people said to the agent, every row with a fate."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bot.models import Choice, Fate, Identity, Input, Mark, Mode, NewInput, Saying, SayingKind, ThreadKey
from storage import outbox, sessions
from storage.database import Row, Tx
from storage.encoding import ATTACHMENTS, CHOICE, REF, dump, dump_optional, load, load_optional


def add(
    tx: Tx, session: str, new: NewInput, mode: Mode, thread: ThreadKey, turn: int | None, opening: bool
) -> Input:
    """A pending row. `turn` None: it waits for the next one. `opening`: in before the agent ran."""
    return _input(
        tx.single(
            "INSERT INTO inputs (session, message_key, surface, tenant, account, name, sent, text, ref,"
            " background, mode, fate, turn, opening, thread, choice, attached, at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?) RETURNING *",
            session,
            new.message_key,
            new.author.surface,
            new.author.tenant,
            new.author.user,
            new.author.name,
            new.sent,
            new.text,
            dump_optional(REF, new.ref),
            new.background,
            mode,
            turn,
            int(opening),
            str(thread),
            dump(CHOICE, new.choice) if new.choice else "",
            dump(ATTACHMENTS, new.attachments) if new.attachments else "",
            tx.now,
        )
    )


def of_message(tx: Tx, key: str) -> tuple[str, Input] | None:
    """The input that a message became, and its session."""
    row = tx.one("SELECT * FROM inputs WHERE message_key = ?", key)
    return None if row is None else (row["session"], _input(row))


def of_turn(tx: Tx, turn: int) -> Sequence[Input]:
    return [_input(row) for row in tx.all("SELECT * FROM inputs WHERE turn = ? ORDER BY sent, id", turn)]


def opening(tx: Tx, turn: int) -> Sequence[Input]:
    """What the turn was opened with, and was not taken back."""
    rows = tx.all(
        "SELECT * FROM inputs WHERE turn = ? AND opening = 1 AND fate <> 'dropped' ORDER BY sent, id", turn
    )
    return [_input(row) for row in rows]


def authors(tx: Tx, session: str) -> Sequence[Identity]:
    rows = tx.all(
        "SELECT * FROM inputs WHERE session = ? AND fate IN ('written', 'consumed') ORDER BY sent, id",
        session,
    )
    said = [_input(row).author for row in rows]
    return list({(one.surface, one.tenant, one.user): one for one in said}.values())


def given_beside(tx: Tx, person: int, session: str) -> Sequence[Input]:
    rows = tx.all(
        "SELECT inputs.* FROM inputs JOIN turns ON turns.id = inputs.turn"
        " WHERE turns.person = ? AND turns.session <> ?"
        " AND turns.state IN ('queued', 'preparing', 'running', 'finishing')"
        " AND (inputs.fate IN ('written', 'consumed', 'deferred')"
        " OR (inputs.fate = 'pending' AND turns.attempt > 1)) ORDER BY inputs.id",
        person,
        session,
    )
    return [_input(row) for row in rows]


def pending(tx: Tx, turn: int) -> tuple[Input, ...]:
    rows = tx.all("SELECT * FROM inputs WHERE turn = ? AND fate = 'pending' ORDER BY sent, id", turn)
    return tuple(_input(row) for row in rows)


def left_over(tx: Tx, session: str) -> Sequence[Input]:
    """What no turn has consumed, without what is held."""
    rows = tx.all(
        "SELECT * FROM inputs WHERE session = ? AND fate IN ('pending', 'written', 'deferred')"
        " ORDER BY sent, id",
        session,
    )
    return [_input(row) for row in rows]


def choices_waiting(tx: Tx, session: str) -> Sequence[Choice]:
    """Of what opens the next turn, in order."""
    rows = tx.all(
        "SELECT * FROM inputs WHERE session = ? AND turn IS NULL AND choice <> ''"
        " AND fate IN ('pending', 'deferred', 'held') ORDER BY sent, id",
        session,
    )
    return [_input(row).choice for row in rows]


def hand_over(tx: Tx, session: str, turn: int) -> int:
    """Everything unsettled of the session, held or not, opens this turn. Returns how many."""
    handed = tx.run(
        "UPDATE inputs SET fate = 'pending', turn = ?, opening = 1 WHERE session = ?"
        " AND fate IN ('pending', 'written', 'deferred', 'held')",
        turn,
        session,
    )
    for one in of_turn(tx, turn):
        choose_for(tx, session, turn, one.choice)
    return handed


def choose_for(tx: Tx, session: str, turn: int, choice: Choice) -> None:
    """What words that open this turn choose."""
    if choice:
        before = json.dumps(sessions.worked_with(tx, session))
        tx.run("UPDATE turns SET chosen_from = ? WHERE id = ? AND chosen_from = ''", before, turn)
        sessions.choose(tx, session, choice)


def choose_without(tx: Tx, turn: Row, refused: Input) -> None:
    """As if words that no agent was given had chosen nothing, but that the care stays."""
    if refused.choice and turn["chosen_from"] and turn["attempt"] == 1:
        sessions.work_with(tx, turn["session"], json.loads(turn["chosen_from"]))
        for one in opening(tx, turn["id"]):
            sessions.choose(tx, turn["session"], one.choice)


def hold(tx: Tx, session: str) -> None:
    """Keep what is left over for the next message to start."""
    tx.run(
        "UPDATE inputs SET fate = 'held', turn = NULL WHERE session = ?"
        " AND fate IN ('pending', 'written', 'deferred')",
        session,
    )


def hold_opening(tx: Tx, turn: int) -> int:
    """Keep what this turn was opened with and did not consume. Returns how many."""
    return tx.run(
        "UPDATE inputs SET fate = 'held', turn = NULL WHERE turn = ? AND opening = 1"
        " AND fate IN ('pending', 'written', 'deferred')",
        turn,
    )


def hold_handed_back(tx: Tx, turn: int) -> int:
    """Keep what this turn was opened with, was given to its agent, and came back. Returns how many."""
    return tx.run(
        "UPDATE inputs SET fate = 'held', turn = NULL WHERE turn = ? AND opening = 1"
        " AND fate IN ('written', 'deferred')",
        turn,
    )


def write_again(tx: Tx, turn: int) -> None:
    tx.run("UPDATE inputs SET fate = 'pending' WHERE turn = ? AND fate = 'written'", turn)


def unchanged(tx: Tx, given: Sequence[Input]) -> bool:
    """Are they as they were read?"""
    return all(one == _input(tx.single("SELECT * FROM inputs WHERE id = ?", one.id)) for one in given)


def settle(
    tx: Tx, turn: int, written: Sequence[int], consumed: Sequence[int], deferred: Sequence[int]
) -> None:
    """What a step did to the turn's inputs. A fate never goes back."""
    for id in written:
        tx.run("UPDATE inputs SET fate = 'written' WHERE id = ? AND turn = ? AND fate = 'pending'", id, turn)
    for id in consumed:
        row = tx.one(
            "UPDATE inputs SET fate = 'consumed' WHERE id = ? AND turn = ?"
            " AND fate IN ('pending', 'written', 'deferred') RETURNING *",
            id,
            turn,
        )
        if row is not None:
            acknowledge(tx, _input(row), Mark.CONSUMED)
    for id in deferred:
        row = tx.one(
            "UPDATE inputs SET fate = 'deferred' WHERE id = ? AND turn = ?"
            " AND fate IN ('pending', 'written') RETURNING *",
            id,
            turn,
        )
        if row is not None:
            acknowledge(tx, _input(row), Mark.QUEUED)


def replace_text(tx: Tx, id: int, text: str, by: Identity) -> None:
    tx.run(
        "UPDATE inputs SET text = ?, surface = ?, tenant = ?, account = ?, name = ? WHERE id = ?",
        text,
        by.surface,
        by.tenant,
        by.user,
        by.name,
        id,
    )


def choose(tx: Tx, waiting: Input, choice: Choice) -> None:
    tx.run("UPDATE inputs SET choice = ? WHERE id = ?", dump(CHOICE, choice) if choice else "", waiting.id)


def drop(tx: Tx, dropped: Input) -> None:
    tx.run("UPDATE inputs SET fate = ? WHERE id = ?", Fate.DROPPED, dropped.id)
    acknowledge(tx, dropped, Mark.DROPPED)


def acknowledge(tx: Tx, about: Input, mark: Mark) -> None:
    """Put a receipt for the input's message into the outbox, when there is a message to mark."""
    if about.ref is None:
        return
    outbox.put(
        tx,
        Saying(
            key=f"receipt:{about.id}:{mark}",
            kind=SayingKind.RECEIPT,
            thread=about.thread,
            ref=about.ref,
            mark=mark,
            turn=about.turn,
        ),
    )


def _input(row: Row) -> Input:
    return Input(
        id=row["id"],
        message_key=row["message_key"],
        author=Identity(row["surface"], row["tenant"], row["account"], row["name"]),
        sent=row["sent"],
        text=row["text"],
        ref=load_optional(REF, row["ref"]),
        background=row["background"],
        mode=Mode(row["mode"]),
        fate=Fate(row["fate"]),
        turn=row["turn"],
        thread=ThreadKey.parse(row["thread"]),
        choice=load(CHOICE, row["choice"]) if row["choice"] else Choice(),
        attachments=load(ATTACHMENTS, row["attached"]) if row["attached"] else (),
    )
