"""What a codec's step says, as what the store records of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bot.agents.codec import Codec, Step
from bot.events import AgentStarted, Event
from bot.models import Input, Memory, Offers, Record
from bot.ports import Sandbox


def memory_of(step: Step, codec: Codec, sandbox: Sandbox) -> Memory | None:
    """What a step tells of the agent's memory; None: nothing new."""
    if not step.resume_token:
        return None
    started = [event for event in step.events if isinstance(event, AgentStarted)]
    version = started[-1].version if started else ""
    return Memory(step.resume_token, codec.name, version, sandbox.id)


def offers_of(step: Step, codec: Codec) -> Offers | None:
    """What a step tells of what can be chosen; None: nothing."""
    if step.offered is None:
        return None
    return Offers(codec.name, codec.capabilities.version, step.offered)


def record_of(
    step: Step,
    *,
    given: Sequence[Input] = (),
    events: tuple[Event, ...] = (),
    out_offset: int | None = None,
    asked_to_commit: bool | None = None,
) -> Record:
    """A codec's step as one transaction's worth of changes."""
    said = (step.completed,) if step.completed is not None and step.completed not in step.events else ()
    return Record(
        events=(*events, *step.events, *said),
        out_offset=out_offset,
        codec_state=step.state,
        stdin=step.write,
        given=tuple(given),
        written=step.written,
        consumed=step.consumed,
        deferred=step.deferred,
        asked_to_commit=asked_to_commit,
    )
