"""Pictures and sayings as Slack messages. Pure.

Each is drawn rich (plan and card blocks) or, for workspaces that refuse these, plain. The words of others
are escaped throughout: nobody's name, channel or link comes alive in what we post.
"""

from __future__ import annotations

from dataclasses import dataclass

from bot.events import PlanStatus
from bot.models import Final, Outcome, PullRequest
from bot.redact import redact
from bot.timeline import Row, RowStatus, Timeline, duration, fold_repeats
from handlers.slack.blocks import (
    BLOCKS_BUDGET,
    BUTTON_URL,
    CONTEXT_ELEMENTS,
    PLAN_TASKS,
    SECTION_LIMIT,
    TEXT_ADVISED,
    TEXT_LIMIT,
    Block,
    actions,
    card,
    clipped_mrkdwn,
    context,
    open_button,
    pieces,
    plan,
    reset_button,
    section,
    size,
    stop_button,
    task,
)
from handlers.slack.text import escaped, escaped_within, from_markdown, inert, link, mention

TITLE = 160
DETAIL = 120
SUMMARY = 1_500  # the pull request has the whole text
NOTICE = 300
READ_ALOUD = 3_000  # beside blocks, `text` is what notifications show and screen readers read

_STATUS = {
    RowStatus.PENDING: "pending",
    RowStatus.IN_PROGRESS: "in_progress",
    RowStatus.COMPLETED: "complete",
    RowStatus.FAILED: "error",
}
_SIGN = {RowStatus.PENDING: "○", RowStatus.IN_PROGRESS: "◐", RowStatus.COMPLETED: "✓", RowStatus.FAILED: "✗"}


@dataclass(frozen=True, slots=True)
class Drawn:
    """A message: `text` for notifications and old clients, and for everybody where there are no blocks.
    whole: it is to be shown with all its blocks, or not at all."""

    text: str
    blocks: tuple[Block, ...] = ()
    whole: bool = False


# The picture of a turn


def timeline(picture: Timeline, *, rich: bool = True) -> Drawn:
    below: list[Block] = []
    if picture.stoppable and picture.final is None:
        below.append(actions(stop_button(picture.turn)))
    if facts := _facts(picture):
        below.append(context([facts]))
    if rich:
        empty = plan(_headline(picture), [])
        top = {**empty, "tasks": _tasks(picture, BLOCKS_BUDGET - size([empty, *below]))}
    else:
        top = section(_lines(picture))
    return Drawn(escaped_within(_headline(picture), NOTICE), (top, *below))


def _headline(picture: Timeline) -> str:
    return inert(picture.headline, TITLE) or "Working"


def _tasks(picture: Timeline, room: int) -> list[Block]:
    """As many steps as there is room for: those under way, then the newest. The others are counted."""
    steps = _steps(picture)
    if not steps:
        return [task("s0", _headline(picture), _overall(picture))]
    earlier = task("earlier", f"{picture.dropped + len(picture.rows)} earlier steps", "complete")
    room -= size(earlier) + 1
    kept: list[tuple[int, Row, Block]] = []
    for number, row in sorted(steps, key=lambda step: (not _under_way(step[1]), -step[0])):
        drawn = _task(number, row)
        room -= size(drawn) + 1
        if room < 0 or len(kept) == PLAN_TASKS - 1:
            break
        kept.append((number, row, drawn))
    kept.sort(key=lambda item: item[0])
    hidden = _count(steps) + picture.dropped - sum(row.count for _, row, _ in kept)
    tasks = [drawn for _, _, drawn in kept]
    return [{**earlier, "title": _earlier(hidden)}, *tasks] if hidden else tasks


def _steps(picture: Timeline) -> list[tuple[int, Row]]:
    """The rows to draw, each with its number in the turn, which stays the same while rows are added."""
    number = picture.dropped
    steps: list[tuple[int, Row]] = []
    for row in fold_repeats(picture.rows):
        steps.append((number, row))
        number += row.count
    return steps


def _task(number: int, row: Row) -> Block:
    # Agents run into failing tools all the time and go on: only our own steps are shown in red.
    routine = row.kind is not None and row.status is RowStatus.FAILED
    return task(
        f"s{number}",
        _title(row, "✗ " if routine else ""),
        "complete" if routine else _STATUS[row.status],
        details="" if row.subject in row.title else inert(row.subject, DETAIL),
        output=inert(row.result, DETAIL),
    )


def _title(row: Row, sign: str) -> str:
    return inert(f"{'↳ ' if row.parent else ''}{sign}{row.title}", TITLE) or "…"


def _lines(picture: Timeline) -> str:
    """The same, as lines of one section."""
    lines: list[str] = []
    heading = f"*{escaped_within(_headline(picture), NOTICE)}*"
    room = SECTION_LIMIT - len(heading) - 40
    steps = _steps(picture)
    shown = 0
    for _, row in reversed(steps):
        subject = inert(row.subject, DETAIL)
        words = _title(row, "") + (f" · {subject}" if subject else "")
        line = f"{_SIGN[row.status]} {escaped(words)}"
        room -= len(line) + 1
        if room < 0 or len(lines) == PLAN_TASKS - 1:
            break
        lines.append(line)
        shown += row.count
    hidden = _count(steps) + picture.dropped - shown
    first = [f"✓ {_earlier(hidden)}"] if hidden else []
    return "\n".join([heading, *first, *reversed(lines)])


def _count(steps: list[tuple[int, Row]]) -> int:
    return sum(row.count for _, row in steps)


def _earlier(count: int) -> str:
    return f"{count} earlier step{'' if count == 1 else 's'}"


def _under_way(row: Row) -> bool:
    return row.status in (RowStatus.PENDING, RowStatus.IN_PROGRESS)


def _overall(picture: Timeline) -> str:
    if picture.final is None:
        return "in_progress"
    return "error" if picture.final.outcome is Outcome.FAILED else "complete"


def _facts(picture: Timeline) -> str:
    facts = [escaped_within(redact(picture.label), 300)] if picture.label else []
    if picture.plan:
        done = sum(entry.status is PlanStatus.COMPLETED for entry in picture.plan)
        facts.append(f"plan: {done} of {len(picture.plan)} done")
    if picture.tokens:
        facts.append(f"{picture.tokens / 1000:.1f}k tokens")
    if picture.micro_usd is not None:
        facts.append(f"${picture.micro_usd / 1_000_000:.2f}")
    return " · ".join(facts)


# What is said once


def note(text: str, to: str = "") -> Drawn:
    """A line or more to a thread, or to one person who is called by name."""
    return Drawn(clipped_mrkdwn(_addressed(to, from_markdown(text)) or "…", TEXT_LIMIT))


def reset(text: str, number: int) -> Drawn:
    """What a reset costs, with the button that confirms it; afterwards (0) without one."""
    words = clipped_mrkdwn(from_markdown(text), SECTION_LIMIT * 3)
    below = (actions(reset_button(number)),) if number else ()
    return Drawn(clipped_mrkdwn(words, READ_ALOUD), (*map(section, pieces(words)), *below))


def root(author: str, text: str) -> Drawn:
    """The message that a slash command's thread hangs below."""
    return Drawn(
        clipped_mrkdwn(f"{mention(author) or escaped(author)}: {escaped(redact(text))}", TEXT_ADVISED)
    )


def final(ending: Final, to: str = "", *, rich: bool = True) -> Drawn:
    """How a turn ended: who asked is called by name, and the pull request can be opened from it."""
    body = from_markdown(ending.text.strip())
    if ending.outcome is Outcome.PUBLISHED:
        body = clipped_mrkdwn(body, SUMMARY)
    words = _addressed(to, "\n".join(part for part in (_lead(ending), body) if part))
    below = [block for pull in ending.pull_requests for block in _pull_request(pull, rich)]
    below.append(context([clipped_mrkdwn(line, SECTION_LIMIT) for line in _small_print(ending)]))
    blocks = [*map(section, pieces(words)), *below]
    if size(blocks) > BLOCKS_BUDGET:
        # A message without blocks takes far more words.
        lines = [words, *map(_address, ending.pull_requests), *_small_print(ending)]
        return Drawn(clipped_mrkdwn("\n".join(lines).strip(), TEXT_LIMIT))
    return Drawn(clipped_mrkdwn(words, READ_ALOUD) or "…", tuple(blocks))


def _addressed(to: str, words: str) -> str:
    return f"{mention(to)} {words}".strip()


def _lead(ending: Final) -> str:
    """One line that says how it went; an answer speaks for itself."""
    reason, mend = from_markdown(ending.reason.strip()), from_markdown(ending.mend.strip())
    why = clipped_mrkdwn(" ".join(part for part in (reason, mend) if part), SECTION_LIMIT - 200)
    match ending.outcome:
        case Outcome.PUBLISHED:
            updated = bool(ending.pull_requests) and not any(one.created for one in ending.pull_requests)
            what = "pull request is" if len(ending.pull_requests) < 2 else "pull requests are"
            return f"The {what} {'updated' if updated else 'ready'}.{f' {why}' if why else ''}"
        case Outcome.ANSWERED:
            return why
        case Outcome.UNPUBLISHED:
            return f"*The work is ready, but it is not published.* {why}".strip()
        case Outcome.STOPPED:
            return f"*Stopped.* {why}".strip()
        case Outcome.FAILED:
            return f"*This did not work.* {why}".strip()


def _pull_request(pull: PullRequest, rich: bool) -> list[Block]:
    title = _titled(pull)
    openable = pull.url.startswith(("https://", "http://")) and len(pull.url) <= BUTTON_URL
    buttons = [open_button(pull.url)] if openable else []
    if rich:
        return [card(title, pull.repository, _changes(pull), buttons)]
    about = " · ".join(part for part in (pull.repository, _changes(pull)) if part)
    lines = section(f"*{escaped_within(title, 300)}*\n{escaped_within(about, 300)}".strip())
    return [lines, actions(*buttons)] if buttons else [lines]


def _address(pull: PullRequest) -> str:
    return link(pull.url, _titled(pull))


def _titled(pull: PullRequest) -> str:
    return f"#{pull.number} {redact(pull.title)}".strip()


def _changes(pull: PullRequest) -> str:
    parts = [_counted(pull.files, "file")] if pull.files else []
    if pull.added or pull.removed:
        parts.append(f"+{pull.added} −{pull.removed}")
    if pull.commits:
        parts.append(_counted(pull.commits, "commit"))
    return " · ".join(parts)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _small_print(ending: Final) -> list[str]:
    """Notes, then branch and time. What does not fit side by side shares the last line but one."""
    notes = [text for note in ending.notes if (text := from_markdown(note.strip()).strip())]
    last = [f"`{escaped(ending.branch)}`"] if ending.branch else []
    last.append(duration(ending.seconds))
    most = CONTEXT_ELEMENTS - 1
    if len(notes) > most:
        notes = [*notes[: most - 1], "\n".join(notes[most - 1 :])]
    return [*notes, " · ".join(last)]
