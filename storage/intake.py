"""What people's messages do to a session: start, join, steer, wait, revise, stop.

Each verb has its effect once per message key, and writes the key only beside an effect.
"""

from __future__ import annotations

from collections.abc import Sequence

from bot.models import (
    Admitted,
    Choice,
    Disposition,
    Fate,
    Identity,
    Input,
    Mark,
    Mode,
    NewInput,
    NewSession,
    Repository,
    Saying,
    StopOutcome,
    ThreadKey,
    TurnKind,
    TurnState,
)
from storage import inputs, messages, outbox, repositories, sessions, turns
from storage.database import Row, Tx

UNREAD = (Fate.PENDING, Fate.DEFERRED, Fate.HELD)  # no agent has been given the words yet


def admit(tx: Tx, start: NewSession | str, new: NewInput, thread: ThreadKey) -> Admitted:
    session = _locked(tx, start)
    seen = messages.seen(tx, new.message_key)
    if seen is not None:
        return Admitted(Disposition.DUPLICATE, seen.session, seen.turn)
    row = sessions.create(tx, session) if isinstance(session, NewSession) else session
    open_turn = turns.open_of(tx, row["id"])
    if row["repository"] is None:
        admitted = _keep(tx, row, new, thread)
    elif open_turn is None:
        admitted = _start(tx, row, new, thread)
    else:
        admitted = _add(tx, row, open_turn, new, thread)
    messages.remember(tx, new.message_key, admitted.disposition, admitted.session, admitted.turn)
    return admitted


def _locked(tx: Tx, start: NewSession | str) -> Row | NewSession:
    """The session's row, or the session that is still to be made: its thread has none."""
    if isinstance(start, str):
        return sessions.lock(tx, start)
    known = sessions.of_alias(tx, str(start.thread))
    return start if known is None else sessions.lock(tx, known)


def _keep(tx: Tx, session: Row, new: NewInput, thread: ThreadKey) -> Admitted:
    """Nobody has said yet which repository is meant."""
    kept = inputs.add(tx, session["id"], new, new.mode, thread, turn=None, opening=False)
    inputs.acknowledge(tx, kept, Mark.SEEN)
    return Admitted(Disposition.ASKED, session["id"], None)


def _start(tx: Tx, session: Row, new: NewInput, thread: ThreadKey) -> Admitted:
    first = inputs.add(tx, session["id"], new, new.mode, thread, turn=None, opening=False)
    inputs.acknowledge(tx, first, Mark.SEEN)
    turn = turns.start(tx, session, thread, TurnKind.AGENT, called(new.author, thread))
    inputs.hand_over(tx, session["id"], turn)
    return Admitted(Disposition.STARTED, session["id"], turn)


def _add(tx: Tx, session: Row, turn: Row, new: NewInput, thread: ThreadKey) -> Admitted:
    """A turn is open: the message goes into it, or waits for the next."""
    stopping = bool(turn["stop_by"])
    running = turn["state"] == TurnState.RUNNING
    takes = (
        turn["kind"] == TurnKind.AGENT
        and turn["state"] != TurnState.FINISHING
        and not stopping
        and not turn["pushing"]
    )
    if takes and not new.choice and (not running or new.mode is Mode.STEER):
        added = inputs.add(tx, session["id"], new, new.mode, thread, turn["id"], opening=not running)
        inputs.acknowledge(tx, added, Mark.SEEN)
        tx.ring(turns.topic(turn["id"]))
        disposition = Disposition.STEERED if running else Disposition.JOINED
        return Admitted(disposition, session["id"], turn["id"])
    # Who writes after Stop means what comes next: it starts as soon as the stopped turn has ended.
    # Another agent or model is for the next turn too: a running one cannot change them.
    mode = Mode.INTERRUPT if stopping else new.mode
    added = inputs.add(tx, session["id"], new, mode, thread, turn=None, opening=False)
    inputs.acknowledge(tx, added, Mark.QUEUED)
    if takes and mode is Mode.INTERRUPT:
        turns.stop(tx, turn, new.author.name or new.author.user)
    return Admitted(Disposition.QUEUED, session["id"], turn["id"])


def choose_repository(
    tx: Tx,
    message_key: str,
    session: str,
    repository: Repository,
    thread: ThreadKey,
    further: Sequence[Repository],
) -> Admitted:
    row = sessions.lock(tx, session)
    seen = messages.seen(tx, message_key)
    if seen is not None or row["repository"] is not None:
        return Admitted(Disposition.DUPLICATE, session, seen.turn if seen else None)
    sessions.set_repository(tx, session, repository, further)
    kept = inputs.left_over(tx, session)
    turn = None
    if kept:  # all of them may have been withdrawn since
        turn = turns.start(tx, row, thread, TurnKind.AGENT, called(kept[0].author, thread))
        inputs.hand_over(tx, session, turn)
    disposition = Disposition.STARTED if kept else Disposition.QUEUED
    messages.remember(tx, message_key, disposition, session, turn)
    return Admitted(disposition, session, turn)


def revise(
    tx: Tx, message_key: str, revises: str, text: str | None, by: Identity | None, choice: Choice | None
) -> Input | None:
    found = inputs.of_message(tx, revises)
    if found is None:
        return None
    session, _ = found
    sessions.lock(tx, session)
    _, before = inputs.of_message(tx, revises) or found
    if messages.seen(tx, message_key) is not None or before.fate not in UNREAD:
        return before
    if text is None:
        inputs.drop(tx, before)
        if choice is not None:  # by somebody else than the owner: the care stays
            sessions.choose(tx, session, Choice(permissions=choice.permissions))
    else:
        inputs.replace_text(tx, before.id, text, by or before.author)
        if choice is not None:
            _choose_otherwise(tx, session, before, choice)
    messages.remember(tx, message_key, "revised", session, before.turn)
    return before


def _choose_otherwise(tx: Tx, session: str, waiting: Input, choice: Choice) -> None:
    """Of what waits for the next turn, and of a turn that nobody has begun to prepare."""
    turn = turns.open_of(tx, session)
    if waiting.turn is None or waiting.fate is not Fate.PENDING:
        inputs.choose(tx, waiting, choice)
    elif turn is not None and turn["id"] == waiting.turn and turn["state"] == TurnState.QUEUED:
        if choice:
            inputs.choose(tx, waiting, choice)
        inputs.choose_for(tx, session, turn["id"], choice)


def request_stop(tx: Tx, message_key: str, session: str, by: str) -> StopOutcome:
    sessions.lock(tx, session)
    if messages.seen(tx, message_key) is not None:
        return StopOutcome.DUPLICATE
    row = turns.open_of(tx, session)
    if row is None:
        return StopOutcome.NOTHING
    if row["pushing"]:
        return StopOutcome.PUBLISHED
    turns.stop(tx, row, by)
    messages.remember(tx, message_key, "stopping", session, row["id"])
    return StopOutcome.STOPPING


def start_publish(tx: Tx, message_key: str, session: str, thread: ThreadKey, by: Identity) -> Admitted:
    row = sessions.lock(tx, session)
    seen = messages.seen(tx, message_key)
    if seen is not None:
        return Admitted(Disposition.DUPLICATE, session, seen.turn)
    open_turn = turns.open_of(tx, session)
    if open_turn is not None:
        return Admitted(Disposition.QUEUED, session, open_turn["id"])
    turn = turns.start(tx, row, thread, TurnKind.PUBLISH, called(by, thread))
    messages.remember(tx, message_key, Disposition.STARTED, session, turn)
    return Admitted(Disposition.STARTED, session, turn)


def set_repository_default(
    tx: Tx, message_key: str, scope: str, repository: str, by: Identity, saying: Saying
) -> bool:
    if messages.seen(tx, message_key) is not None:
        return False
    repositories.set_default(tx, scope, repository, by)
    outbox.put(tx, saying)
    messages.remember(tx, message_key, "default set")
    return True


def called(author: Identity, thread: ThreadKey) -> str:
    """How to call somebody by name in a thread: only where their account is of that surface."""
    return author.user if author.surface == thread.surface else ""
