"""How a turn ends: its state, its last words, and what becomes of inputs that it did not consume."""

from __future__ import annotations

from bot.models import Final, Mode, Outcome, Saying, SayingKind, ThreadKey, TurnKind, TurnState
from storage import inputs, leases, outbox, sessions, turns
from storage.database import Row, Tx
from storage.intake import called

ELSEWHERE = {
    Outcome.PUBLISHED: "Work that was asked for in another thread is published",
    Outcome.ANSWERED: "Work that was asked for in another thread ended with an answer there",
    Outcome.UNPUBLISHED: "Work that was asked for in another thread is ready, but not published",
    Outcome.FAILED: "Work that was asked for in another thread ended with an error",
    Outcome.STOPPED: "Work that was asked for in another thread was stopped",
}


def finish(tx: Tx, id: int, fence: int, state: TurnState, final: Final) -> int | None:
    if state.open:
        raise ValueError(f"turn {id} cannot end as {state}")
    turn = turns.hold(tx, id, fence)
    turns.end(tx, id, fence, state, final)
    outbox.put(
        tx,
        Saying(
            key=f"final:{id}",
            kind=SayingKind.FINAL,
            thread=ThreadKey.parse(turn["thread"]),
            text=final.text,
            mention=turn["opened_by"],
            final=final,
            turn=id,
        ),
    )
    _tell_elsewhere(tx, turn, final)
    follow_up = _carry_on(tx, turn, state)
    leases.wake_next(tx, ended=turn)
    tx.ring(turns.topic(id))
    return follow_up


def _tell_elsewhere(tx: Tx, turn: Row, final: Final) -> None:
    """One line in each other thread of the session, but for the pull request that the turn has just
    opened, which tells its own story."""
    session = sessions.get(tx, turn["session"])
    told = {turn["thread"]}
    ids = {repository.full_name: repository.id for repository in session.repositories}
    for opened in final.pull_requests:
        if opened.created and session.repository is not None:
            where = ids.get(opened.repository, session.repository.id)
            told.add(str(sessions.pull_request_thread(where, opened.number)))
    url = " ".join(one.url for one in final.pull_requests) or session.pull_request_url
    text = f"{ELSEWHERE[final.outcome]}: {url}" if url else f"{ELSEWHERE[final.outcome]}."
    for thread in sessions.threads(tx, session.id):
        if str(thread) not in told:
            key = f"note:{turn['id']}:{thread}"
            outbox.put(tx, Saying(key, SayingKind.NOTE, thread, text=text, turn=turn["id"]))


def _carry_on(tx: Tx, turn: Row, state: TurnState) -> int | None:
    """The follow-up turn for what is left over, or nothing and a word about what is held.

    After Stop all of it is held, unless an interrupting message asked for the stop. No turn starts
    itself again, or it would do so for ever: what a failed turn was opened with is held, and what
    opened a turn whose agent handed it back unread; what came later starts the next.
    """
    session = sessions.lock(tx, turn["session"])
    held = 0
    left = inputs.left_over(tx, session["id"])
    interrupting = [one for one in left if one.turn is None and one.mode is Mode.INTERRUPT]
    if state is TurnState.STOPPED and not interrupting:
        inputs.hold(tx, session["id"])
        held, left = len(left), []
    elif state is not TurnState.STOPPED:
        hold = inputs.hold_opening if state is TurnState.FAILED else inputs.hold_handed_back
        held = hold(tx, turn["id"])
        left = inputs.left_over(tx, session["id"])
    if left:
        opener = (interrupting or left)[0]
        author = called(opener.author, opener.thread)
        follow_up = turns.start(tx, session, opener.thread, TurnKind.AGENT, author)
        inputs.hand_over(tx, session["id"], follow_up)
        return follow_up
    if held:
        _tell_held(tx, turn, state, held)
    return None


def _tell_held(tx: Tx, turn: Row, state: TurnState, held: int) -> None:
    if state is TurnState.DONE:
        messages = "1 message: it goes" if held == 1 else f"{held} messages: they go"
        text = f"The agent did not take in {messages} in with the next one."
    else:
        messages = "1 message is held and goes" if held == 1 else f"{held} messages are held and go"
        text = f"{messages} in with the next one."
    outbox.put(
        tx,
        Saying(
            key=f"held:{turn['id']}",
            kind=SayingKind.NOTE,
            thread=ThreadKey.parse(turn["thread"]),
            text=text,
            turn=turn["id"],
        ),
    )
