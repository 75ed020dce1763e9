"""What an agent asks people: an approval, bound to who may give it, to the exact arguments and to a
deadline (no answer = no), or a question, which a reply in the thread answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from bot.agents.codec import Answered, Decided
from bot.events import ApprovalAsked, Event, Question, Settled, Withdrawn
from bot.models import Ask, AskKind, AskState, Identity, NewAsk, Person
from bot.timeline import duration

# What is approved is what was read: more than a surface shows whole is not asked for at all.
# GitHub takes 65,536 characters in a comment, Slack as many as it is given messages.
LONGEST_DETAIL = 40_000  # characters
TOO_LONG = (
    "That is too long to be shown to people whole, so it cannot be approved."
    " Make a plan shorter; put a command into a script in the repository and ask to run that, or do it in"
    " smaller steps."
)
MOST_OPTIONS = 10


def asked(events: Iterable[Event], deadline: float) -> tuple[NewAsk, ...]:
    """What these events ask of people, until `deadline` (Unix seconds)."""
    asks: list[NewAsk] = []
    for event in events:
        match event:
            case ApprovalAsked(id=id, title=title, detail=detail):
                refused = TOO_LONG if len(detail) > LONGEST_DETAIL else ""
                asks.append(NewAsk(id, AskKind.APPROVAL, title, detail, (), deadline, refused))
            case Question(id=id, text=text, options=options, open=True):
                asks.append(NewAsk(id, AskKind.QUESTION, text, "", options[:MOST_OPTIONS], deadline))
    return tuple(asks)


def withdrawn(events: Iterable[Event]) -> tuple[str, ...]:
    return tuple(event.id for event in events if isinstance(event, Withdrawn))


def answer_of(ask: Ask, waited: float) -> Decided | Answered:
    """What the agent is told. waited: the seconds that people had."""
    reason = ask.text
    if ask.state is AskState.EXPIRED and not reason:
        reason = f"Nobody answered within {duration(waited)}, which counts as a no."
    if ask.kind is AskKind.QUESTION:
        if ask.state is AskState.EXPIRED:
            return Answered(
                ask.name, "", f"{reason} Decide yourself, and say in your final text what you chose."
            )
        return Answered(ask.name, ask.text)
    return Decided(ask.name, ask.allowed, "" if ask.allowed else reason or f"{ask.by} said no.")


def settled(ask: Ask) -> Settled:
    """What the timeline says about it."""
    return Settled(ask.name, outcome(ask), ask.allowed or ask.kind is AskKind.QUESTION)


def outcome(ask: Ask) -> str:
    """What came of it, in a few words for people."""
    match ask.state:
        case AskState.OPEN:
            return ""
        case AskState.EXPIRED:
            return ask.text or "Nobody answered in time"
        case AskState.WITHDRAWN:
            return "Not needed any more"
    if ask.kind is AskKind.QUESTION:
        return f"{ask.by}: {ask.text}"
    if ask.allowed:
        return f"{ask.by} approved"
    return f"{ask.by} denied" + (f": {ask.text}" if ask.text else "")


def may_answer(identity: Identity, ask: Ask, owner: Person) -> bool:
    """Only who is asked, and the owner of the sandbox it happens in."""
    return any(_same(identity, one) for one in (ask.asked, owner.identity))


def _same(one: Identity, other: Identity) -> bool:
    return (one.surface, one.tenant, one.user) == (other.surface, other.tenant, other.user)
