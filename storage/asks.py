"""What agents ask people: rows that are settled once, by a person, by time, or by the agent itself."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bot.models import (
    Ask,
    AskKind,
    AskOutcome,
    AskState,
    Identity,
    Mark,
    MessageRef,
    NewAsk,
    Saying,
    SayingKind,
    ThreadKey,
)
from storage import inputs, messages, outbox, people, sessions
from storage.audit import add as audit
from storage.database import Row, Tx

REFUSED_BY = "sandpiper"
UNSHOWN = "It could not be shown to people, so nobody was asked."


def add(tx: Tx, turn: Row, new: NewAsk) -> None:
    """Ask it in the turn's thread. What is asked again under the same name while it is open is the same; once
    that was answered, it is another thing, of which nobody has said anything."""
    asked = _asked(tx, turn)
    _free_name(tx, turn, new.id)
    row = tx.one(
        "INSERT INTO asks (turn, attempt, name, kind, title, detail, options, surface, tenant, account,"
        " caller, deadline, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (turn, attempt, name) DO NOTHING RETURNING *",
        turn["id"],
        turn["attempt"],
        new.id,
        new.kind,
        new.title,
        new.detail,
        json.dumps(new.options),
        asked.surface,
        asked.tenant,
        asked.user,
        asked.name,
        new.deadline,
        tx.now,
    )
    if row is None:
        return
    if new.refused:
        _settle(tx, row, AskState.SETTLED, allowed=False, text=new.refused, by=REFUSED_BY, tell=False)
        return
    ask, thread = _ask(row), ThreadKey.parse(turn["thread"])
    mention = asked.user if asked.surface == thread.surface else ""
    outbox.put(tx, Saying(_key(ask.id), SayingKind.ASK, thread, mention=mention, turn=ask.turn, ask=ask))


def of_session(tx: Tx, session: str) -> Sequence[Ask]:
    """What waits for an answer in the session's open turn, oldest first."""
    rows = tx.all(
        "SELECT asks.* FROM asks JOIN turns ON turns.id = asks.turn"
        " WHERE turns.session = ? AND asks.state = 'open' ORDER BY asks.id",
        session,
    )
    return [_ask(row) for row in rows]


def untold(tx: Tx, turn: int) -> tuple[Ask, ...]:
    """Settled, and the agent has not been given the answer."""
    rows = tx.all(
        "SELECT * FROM asks WHERE turn = ? AND state IN ('settled', 'expired') AND told = 0 ORDER BY id", turn
    )
    return tuple(_ask(row) for row in rows)


def tell(tx: Tx, turn: int, ids: Sequence[int]) -> None:
    for id in ids:
        tx.run("UPDATE asks SET told = 1 WHERE id = ? AND turn = ?", id, turn)


def answer(
    tx: Tx,
    message_key: str,
    session: str,
    id: int,
    by: Identity,
    allowed: bool,
    text: str,
    ref: MessageRef | None,
) -> AskOutcome:
    sessions.lock(tx, session)
    if messages.seen(tx, message_key) is not None:
        return AskOutcome.DUPLICATE
    row = tx.one(
        "SELECT asks.* FROM asks JOIN turns ON turns.id = asks.turn WHERE asks.id = ? AND turns.session = ?",
        id,
        session,
    )
    if row is None:
        return AskOutcome.UNKNOWN
    if row["state"] != AskState.OPEN or row["deadline"] <= tx.now:
        return AskOutcome.OVER
    _settle(tx, row, AskState.SETTLED, allowed=allowed, text=text, by=by.name or by.user)
    if ref is not None:
        thread = ThreadKey.parse(tx.single("SELECT thread FROM turns WHERE id = ?", row["turn"])["thread"])
        key = f"receipt:ask:{message_key}"
        outbox.put(tx, Saying(key, SayingKind.RECEIPT, thread, ref=ref, mark=Mark.CONSUMED, turn=row["turn"]))
    said = ("approved" if allowed else "denied") if row["kind"] == AskKind.APPROVAL else "answered"
    audit(tx, f"{by.tenant}/{by.user}", said, f"ask:{id}", f"{row['title']}\n{row['detail']}".strip())
    messages.remember(tx, message_key, said, session, row["turn"])
    return AskOutcome.SETTLED


def unshown(tx: Tx, saying: Saying) -> None:
    """What people cannot be shown they are not asked, which is a no."""
    if saying.kind is not SayingKind.ASK or saying.ask is None:
        return
    row = tx.one("SELECT * FROM asks WHERE id = ? AND state = 'open'", saying.ask.id)
    if row is not None:
        _settle(tx, row, AskState.EXPIRED, allowed=False, text=UNSHOWN, by="", tell=False)


def expire(tx: Tx, turn: int) -> None:
    """What nobody answered in time is a no."""
    for row in tx.all("SELECT * FROM asks WHERE turn = ? AND state = 'open' AND deadline <= ?", turn, tx.now):
        _settle(tx, row, AskState.EXPIRED, allowed=False, text="", by="")


def withdraw(tx: Tx, turn: int, names: Sequence[str] | None = None) -> None:
    """The agent waits no more: for these, or (None) for anything of the turn."""
    if names is not None and not names:
        return
    for row in tx.all("SELECT * FROM asks WHERE turn = ? AND state = 'open' ORDER BY id", turn):
        if names is None or row["name"] in names:
            _settle(tx, row, AskState.WITHDRAWN, allowed=False, text="", by="")
    if names is None:
        tx.run("UPDATE asks SET told = 1 WHERE turn = ? AND told = 0", turn)


def _settle(
    tx: Tx, row: Row, state: AskState, *, allowed: bool, text: str, by: str, tell: bool = True
) -> None:
    settled = tx.single(
        "UPDATE asks SET state = ?, allowed = ?, answer = ?, settled_by = ?, told = ?"
        " WHERE id = ? AND state = 'open' RETURNING *",
        state,
        int(allowed),
        text,
        by,
        int(state is AskState.WITHDRAWN),
        row["id"],
    )
    tx.ring(f"turn:{row['turn']}")
    if not tell:
        return
    ask = _ask(settled)
    thread = ThreadKey.parse(tx.single("SELECT thread FROM turns WHERE id = ?", ask.turn)["thread"])
    over = Saying(
        f"{_key(ask.id)}:over", SayingKind.ASKED, thread, turn=ask.turn, ask=ask, amends=_key(ask.id)
    )
    outbox.put(tx, over)


def _free_name(tx: Tx, turn: Row, name: str) -> None:
    """An ask that is over, answer and all, gives up the agent's name for it."""
    over = tx.one(
        "SELECT id FROM asks WHERE turn = ? AND attempt = ? AND name = ? AND state <> 'open' AND told = 1",
        turn["id"],
        turn["attempt"],
        name,
    )
    if over is not None:
        tx.run("UPDATE asks SET name = ? WHERE id = ?", f"{name} (before {over['id']})", over["id"])


def _asked(tx: Tx, turn: Row) -> Identity:
    """Whose word counts: who opened the turn, else the session's owner. Not who only steers it, though the
    steer was written before and came in late."""
    opening = [one for one in inputs.opening(tx, turn["id"]) if one.author.user]
    if opening:
        return opening[0].author
    session = tx.single("SELECT owner, thread FROM sessions WHERE id = ?", turn["session"])
    return people.known(tx, session["owner"], ThreadKey.parse(session["thread"]).surface).identity


def _key(id: int) -> str:
    return f"ask:{id}"


def _ask(row: Row) -> Ask:
    return Ask(
        id=row["id"],
        turn=row["turn"],
        name=row["name"],
        kind=AskKind(row["kind"]),
        title=row["title"],
        detail=row["detail"],
        options=tuple(json.loads(row["options"])),
        asked=Identity(row["surface"], row["tenant"], row["account"], row["caller"]),
        deadline=row["deadline"],
        state=AskState(row["state"]),
        allowed=bool(row["allowed"]),
        text=row["answer"],
        by=row["settled_by"],
    )
