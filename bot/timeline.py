"""The picture of a turn, folded from its events. Pure: surfaces draw it, nobody else keeps it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

from bot.events import (
    ApprovalAsked,
    BrokenOff,
    Completed,
    Event,
    FileOffered,
    LeftOver,
    Named,
    Notice,
    Phase,
    Plan,
    PlanEntry,
    PlanStatus,
    PortOffered,
    Progress,
    Question,
    Settled,
    Shared,
    Steered,
    Text,
    Thought,
    ToolCall,
    ToolKind,
    Usage,
    Withdrawn,
)
from bot.models import Final, Outcome

KEPT_ROWS = 400
ASKED_CHARS = 1_000  # of what is asked; the question itself shows it whole
KEPT_USAGE = 500
KEPT_PLAN = 100


THINKING = "Thinking"
WAITING = "Waiting for an answer"
SHARING = "Sharing"
ASK = "ask:"  # how the id of a row begins that shows what people are asked
HOOK = "hook:"  # ... and what the repository wants run before an agent starts


class RowStatus(StrEnum):
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


RUNNING = (RowStatus.PENDING, RowStatus.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the picture: a tool call, a phase of ours, a steer or a notice."""

    id: str
    title: str
    status: RowStatus
    kind: ToolKind | None = None  # None: not a tool call
    subject: str = ""
    result: str = ""
    parent: str = ""
    count: int = 1  # "Read 6 files": how many calls of the same kind are folded in


@dataclass(frozen=True, slots=True)
class Timeline:
    """headline: what is going on right now. final: set when the turn has ended.

    last_word: the agent's, as long as nothing was said or done about it: a restarted bot starts there.
    offers: what the agent offers people and was not answered about yet. ports: what of it can be reached
    while it works. weight: about how many characters
    were folded in.
    """

    turn: int
    label: str = ""  # "acme/web@main · claude"
    headline: str = "Starting"
    rows: tuple[Row, ...] = ()
    dropped: int = 0  # rows that are no longer kept
    plan: tuple[PlanEntry, ...] = ()
    text: str = ""
    tokens: int = 0
    micro_usd: int | None = None
    final: Final | None = None
    stoppable: bool = True
    usage: tuple[Usage, ...] = ()
    left_over: tuple[str, ...] = ()
    left_notes: tuple[str, ...] = ()
    last_word: Completed | None = None
    broken_off: BrokenOff | None = None
    offers: tuple[FileOffered | PortOffered, ...] = ()
    ports: tuple[PortOffered, ...] = ()
    weight: int = field(default=0, compare=False)

    def apply(self, events: Iterable[Event]) -> Timeline:
        timeline, weight = self, self.weight
        for event in events:
            timeline = timeline._apply_one(event)
            weight += weight_of(event)
        return replace(timeline, weight=weight)

    def ended(self, final: Final) -> Timeline:
        """The picture of a finished turn: nothing spins any more."""
        settled = tuple(replace(row, status=_settle(row.status, final.outcome)) for row in self.rows)
        # What the agent never ticked off is not in progress any more; that it is done nobody said.
        plan = tuple(
            replace(entry, status=PlanStatus.PENDING) if entry.status is PlanStatus.IN_PROGRESS else entry
            for entry in self.plan
        )
        headline = _ending(final)
        return replace(self, rows=settled, plan=plan, final=final, headline=headline, stoppable=False)

    def _apply_one(self, event: Event) -> Timeline:
        match event:
            case ToolCall():
                return self._tool(event)
            case Phase(name=name, text=text):
                rows = tuple(
                    replace(row, status=RowStatus.COMPLETED)
                    if row.status is RowStatus.IN_PROGRESS and (row.kind is None or row.id.startswith(ASK))
                    else row
                    for row in _before(text, self.rows)
                )
                stoppable = name != "publish"
                row = Row(f"phase:{name}:{self._number}", text, RowStatus.IN_PROGRESS)
                told = replace(self, rows=rows, headline=text, stoppable=stoppable, last_word=None)
                return told._with(row)
            case Steered(by=by, text=text):
                row = Row(f"steer:{self._number}", f"Steered by {by}", RowStatus.COMPLETED, subject=text)
                return replace(self, last_word=None)._with(row)
            case Notice(text=text):
                return self._with(Row(f"notice:{self._number}", text, RowStatus.COMPLETED))
            case ApprovalAsked(id=id, title=title, detail=detail):
                return self._asks(id, f"May it? {title}", detail[:ASKED_CHARS])
            case Question(id=id, text=text, open=True):
                return self._asks(id, f"Asks: {text}", "")
            case Settled(id=id, text=text, allowed=allowed):
                return self._answered(id, text, RowStatus.COMPLETED if allowed else RowStatus.FAILED)
            case Withdrawn(id=id):
                return self._answered(id, "Not needed any more", RowStatus.COMPLETED)
            case Named(title=title):
                return self._with(Row(f"named:{self._number}", f"Named it: {title}", RowStatus.COMPLETED))
            case Progress(text=text):
                row = Row(f"progress:{self._number}", text, RowStatus.COMPLETED)
                return replace(self, headline=text)._with(row)
            case FileOffered(id=id, name=name):
                told = replace(self, offers=(*self.offers, event))
                return told._asks(id, f"Sharing {name}", "", SHARING)
            case PortOffered(id=id, port=port):
                told = replace(self, offers=(*self.offers, event))
                return told._asks(id, f"Sharing port {port}", "", SHARING)
            case Shared(id=id, text=text, done=done):
                of = [offer for offer in (*self.offers, *self.ports) if offer.id == id]
                told = replace(
                    self,
                    offers=tuple(offer for offer in self.offers if offer.id != id),
                    ports=(
                        *(port for port in self.ports if port.id != id),
                        *(one for one in of if done and isinstance(one, PortOffered)),
                    ),
                )
                return told._answered(id, text, RowStatus.COMPLETED if done else RowStatus.FAILED)
            case LeftOver(files=files, notes=notes):
                told = replace(
                    self,
                    left_over=tuple(dict.fromkeys((*self.left_over, *files))),
                    left_notes=tuple(dict.fromkeys((*self.left_notes, *notes))),
                )
                title = "Committed what was left over" if files else "Put the worktree onto its branch"
                return told._with(Row(f"left:{self._number}", title, RowStatus.COMPLETED))
            case BrokenOff():
                return replace(self, broken_off=event)
            case Plan(entries=entries):
                return replace(self, plan=entries[:KEPT_PLAN])
            case Text(text=text):
                return replace(self, text=text, headline="Writing")
            case Thought():
                return replace(self, headline=THINKING)
            case Usage():
                return self._usage(event)
            case Completed(text=text):
                return replace(self, text=text or self.text, last_word=event)
            case _:
                return self

    def _asks(self, id: str, title: str, subject: str, headline: str = WAITING) -> Timeline:
        row = Row(f"{ASK}{id}", title, RowStatus.IN_PROGRESS, ToolKind.OTHER, subject=subject)
        return replace(self, headline=headline)._with(row)

    def _answered(self, id: str, result: str, status: RowStatus) -> Timeline:
        rows = tuple(
            replace(row, status=status, result=result)
            if row.id == f"{ASK}{id}" and row.status in RUNNING
            else row
            for row in self.rows
        )
        waited = self.headline in (WAITING, SHARING)
        return replace(self, rows=rows, headline=THINKING if waited else self.headline)

    def _usage(self, event: Usage) -> Timeline:
        usage = (*(known for known in self.usage if known.key != event.key), event)
        if len(usage) > KEPT_USAGE:  # a report per turn of a model is normal, so that is no honest one
            return self
        costs = [known.micro_usd for known in usage if known.micro_usd is not None]
        return replace(
            self,
            usage=usage,
            tokens=sum(known.tokens_in + known.tokens_out for known in usage),
            micro_usd=sum(costs) if costs else None,
        )

    def _tool(self, call: ToolCall) -> Timeline:
        status = RowStatus(call.status.value)
        for index in range(len(self.rows) - 1, -1, -1):
            row = self.rows[index]
            if row.id == call.id:
                merged = replace(
                    row,
                    title=call.title or row.title,
                    status=status,
                    subject=call.subject or row.subject,
                    result=call.result or row.result,
                )
                rows = (*self.rows[:index], merged, *self.rows[index + 1 :])
                return replace(self, rows=rows, headline=self._headline(merged, row))
        # Its row may be gone already (KEPT_ROWS), and its title with it.
        title = call.title or call.subject or "Another step"
        row = Row(call.id, title, status, call.kind, call.subject, call.result, call.parent)
        # A phase of ours ("Starting the agent") is over as soon as the agent does something.
        rows = tuple(
            replace(known, status=RowStatus.COMPLETED)
            if known.kind is None and known.status is RowStatus.IN_PROGRESS
            else known
            for known in self.rows
        )
        return replace(self, rows=rows, headline=self._headline(row))._with(row)

    def _headline(self, row: Row, before: Row | None = None) -> str:
        """What is going on: the call that runs; when it has ended, one that still runs, or thinking."""
        if row.status in RUNNING:
            return row.title
        if before is None or before.status not in RUNNING or self.headline != before.title:
            return self.headline
        others = [other.title for other in self.rows if other.kind and other.status in RUNNING]
        return next((title for title in reversed(others) if title != before.title), THINKING)

    @property
    def _number(self) -> int:
        """How many rows there have been, so that ids stay unique when old rows go."""
        return self.dropped + len(self.rows)

    def _with(self, row: Row) -> Timeline:
        rows = (*self.rows, row)
        surplus = max(0, len(rows) - KEPT_ROWS)
        return replace(self, rows=rows[surplus:], dropped=self.dropped + surplus)


def _before(phase: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows without the phases that a restarted bot begins anew, from `phase` on."""
    for index in range(len(rows) - 1, -1, -1):
        if not rows[index].id.startswith(("phase:", HOOK)):
            break
        if rows[index].title == phase:
            return rows[:index]
    return rows


def weight_of(event: Event) -> int:
    """About how many characters an event takes where it is kept."""
    return 100 + sum(len(str(getattr(event, known.name))) for known in fields(event))


def fold_repeats(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Runs of finished reads or searches in a row, drawn as one ("Read 6 files")."""
    folded: list[Row] = []
    for row in rows:
        last = folded[-1] if folded else None
        if last is not None and _alike(last, row):
            count = last.count + row.count
            noun = "files" if row.kind is ToolKind.READ else "searches"
            verb = "Read" if row.kind is ToolKind.READ else "Ran"
            subjects = ", ".join(dict.fromkeys(s for s in (last.subject, row.subject) if s))
            folded[-1] = replace(
                last, title=f"{verb} {count} {noun}", subject=subjects[:200], result="", count=count
            )
        else:
            folded.append(row)
    return tuple(folded)


def _alike(last: Row, row: Row) -> bool:
    return (
        last.kind is row.kind
        and row.kind in (ToolKind.READ, ToolKind.SEARCH)
        and last.status is row.status is RowStatus.COMPLETED
        and last.parent == row.parent
    )


def _settle(status: RowStatus, outcome: Outcome) -> RowStatus:
    if status not in RUNNING:
        return status
    good = outcome in (Outcome.PUBLISHED, Outcome.ANSWERED, Outcome.UNPUBLISHED)
    return RowStatus.COMPLETED if good else RowStatus.FAILED


def _ending(final: Final) -> str:
    took = duration(final.seconds)
    match final.outcome:
        case Outcome.PUBLISHED | Outcome.ANSWERED:
            return f"Worked for {took}"
        case Outcome.UNPUBLISHED:
            return f"Work ready, not published · {took}"
        case Outcome.STOPPED:
            return f"Stopped after {took}"
        case Outcome.FAILED:
            return f"Failed after {took}"


def duration(seconds: float) -> str:
    """ "6m 12s": whole seconds, the two largest units."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def span(seconds: float) -> str:
    """Longer times: "30 days", below two days as `duration`."""
    days = int(max(0, seconds)) // 86_400
    return f"{days} days" if days >= 2 else duration(seconds)
