"""How a turn looks in a comment. Pure: pictures and last words in, markdown out.

What agents, files and people wrote into them passes through `text`, so that it can neither call
anybody by name nor break out of its place.
"""

from __future__ import annotations

import re

from bot.approvals import outcome
from bot.events import PlanEntry, PlanStatus
from bot.models import Ask, AskKind, AskState, Final, Outcome, PullRequest, SharedFile
from bot.redact import redact, redact_tokens
from bot.shared_files import shown_name, size_words, text_of
from bot.timeline import Row, RowStatus, Timeline, fold_repeats
from handlers.github.text import LIMIT, code, fenced, in_html, plain, seen, tame_within

SHOWN_ROWS = 15
SHOWN_PLAN = 20
SHOWN_NOTES = 20

_ICONS = {
    RowStatus.PENDING: "◽",
    RowStatus.IN_PROGRESS: "⏳",
    RowStatus.COMPLETED: "✅",
    RowStatus.FAILED: "❌",
}
_ENDINGS = {
    Outcome.PUBLISHED: "✅",
    Outcome.ANSWERED: "✅",
    Outcome.UNPUBLISHED: "⚠️",
    Outcome.FAILED: "❌",
    Outcome.STOPPED: "⏹️",
}
_LOGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_URL = re.compile(r"https?://[^\s()<>\"'\\]{1,500}")


def marker(key: str) -> str:
    """A line that nobody sees, by which we find our own comment again."""
    name = re.sub(r"[^A-Za-z0-9:/_.=+#-]", "_", key).replace("--", "-_")
    return f"<!-- sandpiper:{name} -->"


def starting_comment(text: str) -> str:
    """The timeline comment before there is anything to draw."""
    return f"**⏳ {plain(text, 200) or 'Starting'}**"


def timeline_comment(timeline: Timeline, slug: str) -> str:
    """The timeline comment: status, current step, the last rows; earlier ones folded away."""
    icon = _ENDINGS[timeline.final.outcome] if timeline.final else "⏳"
    label = f" · {plain(timeline.label, 150)}" if timeline.label else ""
    rows = fold_repeats(timeline.rows)
    parts = [f"**{icon} {plain(timeline.headline, 200)}**{label}"]
    if timeline.final:
        parts += _links(timeline.final)
    if timeline.plan:
        parts.append(_plan(timeline.plan))
    if rows and not timeline.final:
        parts.append(_list(rows[-SHOWN_ROWS:]))
    if timeline.text and not timeline.final:
        parts.append(f"> {plain(timeline.text[-400:], 400)}")
    footer = _footer(timeline, slug)
    earlier = rows if timeline.final else rows[:-SHOWN_ROWS]
    room = LIMIT - sum(len(part) + 2 for part in parts) - len(footer) - 1000
    parts += [
        part
        for part in (_folded(earlier, timeline.dropped, room), footer, marker(f"turn:{timeline.turn}"))
        if part
    ]
    return "\n\n".join(parts)


def final_comment(final: Final, mention: str) -> str:
    """A turn's final comment: the outcome, why, what mends it, and what people must know."""
    parts = [f"{_call(mention)}{_outcome(final)}"]
    why = " ".join(part for part in (final.reason, final.mend) if part)
    if why:
        parts.append(tame_within(why, 6_000))
    if final.text:
        parts.append(tame_within(final.text, 40_000))
    if final.notes:
        parts.append(
            "\n".join(f"- {tame_within(' '.join(note.split()), 500)}" for note in final.notes[:SHOWN_NOTES])
        )
    return "\n\n".join(parts)


def words(text: str, mention: str) -> str:
    """A note or a question of ours."""
    return _call(mention) + tame_within(text, LIMIT - 1000)


def ask_comment(ask: Ask, mention: str, slug: str) -> str:
    """An agent's question, or what it wants to do, while it is open and after. What is approved is shown
    whole and as it is, in a fence that nothing in it can close."""
    title = tame_within(" ".join(ask.title.split()), 2_000)
    is_open = ask.state is AskState.OPEN
    called = _call(mention) if is_open else ""
    parts = [f"{called}{title}" if ask.kind is AskKind.QUESTION else f"{called}May I? **{title}**"]
    if ask.detail:
        parts.append(fenced(redact_tokens(ask.detail)))
    if ask.options:
        parts.append("\n".join(f"- {plain(option, 200)}" for option in ask.options))
    who = plain(ask.asked.name, 100)
    if not is_open:
        parts.append(f"_{plain(outcome(ask), 1_000)}_")
    elif ask.kind is AskKind.QUESTION:
        parts.append(f"<sub>A comment of {who}, or of the session's owner, answers it.</sub>")
    else:
        parts.append(
            f"<sub>{who}, or the session's owner: comment `approve {ask.id}` or `deny {ask.id}` and nothing"
            f" else (or `@{slug} approve {ask.id}`). No answer is a no.</sub>"
        )
    return "\n\n".join(parts)


def file_comment(file: SharedFile, data: bytes, mention: str) -> str:
    """A text that an agent shares, folded away; what GitHub has no place for, in words."""
    name, size = shown_name(file), size_words(len(data))
    about = f"{plain(file.title, 300)} · " if file.title.strip() else ""
    head = f"{_call(mention)}{about}{code(name, 200)}, {size}"
    if not data:
        return f"{head}: it is empty."
    text = text_of(data)
    why = "GitHub takes no such files from bots"
    if text is not None:
        shown = fenced(redact(seen(text)).removesuffix("\n"))
        comment = f"{head}\n\n<details><summary>{in_html(name, 200)}</summary>\n\n{shown}\n\n</details>"
        if len(comment) <= LIMIT:
            return comment
        why = "it is too large for a comment"
    return f"{head}. It cannot be shown here, {why}: ask the agent to commit it, or to share it in Slack."


def _call(mention: str) -> str:
    return f"@{mention} " if _LOGIN.fullmatch(mention) else ""


def _outcome(final: Final) -> str:
    pulls = _links(final)
    match final.outcome:
        case Outcome.PUBLISHED if pulls:
            return _published(final)
        case Outcome.PUBLISHED:
            return f"Published {code(final.branch, 200)}."
        case Outcome.ANSWERED:
            known = (
                f"pull request is {pulls[0]}" if len(pulls) == 1 else f"pull requests are {', '.join(pulls)}"
            )
            return f"Nothing new to publish; the {known}" if pulls else "Here is the answer."
        case Outcome.UNPUBLISHED:
            branch = code(final.branch, 200) or "its branch"
            if pulls:
                return f"**Some of the work is ready on {branch}, but not published.** {_published(final)}"
            return f"**The work is ready on {branch}, but not published.**"
        case Outcome.FAILED:
            return "**I could not finish.**"
        case Outcome.STOPPED:
            return "**Stopped.**"


def _published(final: Final) -> str:
    done = zip(final.pull_requests, _links(final), strict=True)
    return ", ".join(f"{'Opened' if pull.created else 'Updated'} {shown}" for pull, shown in done)


def _links(final: Final) -> list[str]:
    """Of its pull requests; where there are several, each with its repository."""
    several = bool(final.further)
    return [_link(pull, pull.repository if several else "") for pull in final.pull_requests]


def _link(pull: PullRequest, where: str = "") -> str:
    name = f"{plain(where, 150)}#{pull.number} {plain(pull.title, 200)}"
    shown = f"[{name}]({pull.url})" if _URL.fullmatch(pull.url) else name
    counts = (_count(pull.commits, "commit"), _count(pull.files, "file"), f"+{pull.added} −{pull.removed}")
    return f"{shown} ({', '.join(counts)})" if pull.commits else shown


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _plan(entries: tuple[PlanEntry, ...]) -> str:
    lines = []
    for entry in entries[:SHOWN_PLAN]:
        mark = "x" if entry.status is PlanStatus.COMPLETED else " "
        now = "⏳ " if entry.status is PlanStatus.IN_PROGRESS else ""
        lines.append(f"- [{mark}] {now}{plain(entry.text, 150)}")
    if len(entries) > SHOWN_PLAN:
        lines.append(f"- … and {len(entries) - SHOWN_PLAN} more")
    return "\n".join(lines)


def _list(rows: tuple[Row, ...]) -> str:
    lines: list[str] = []
    for row in rows:
        lines.append(_row(row, nested=bool(row.parent and lines)))
    return "\n".join(lines)


def _row(row: Row, *, nested: bool) -> str:
    title = plain(row.title, 160) or "…"
    subject = f" {code(row.subject, 160)}" if row.subject and row.subject not in row.title else ""
    failed = row.status is RowStatus.FAILED and row.result
    result = f" → {code(row.result, 200)}" if failed else ""
    return f"{'  ' if nested else ''}- {_ICONS[row.status]} {title}{subject}{result}"


def _folded(rows: tuple[Row, ...], dropped: int, room: int) -> str:
    """Rows behind a click, the newest of them where there is not room for all."""
    if not rows:
        return ""
    lines: list[str] = []
    for row in reversed(rows):
        line = _row(row, nested=False)
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    left_out = len(rows) - len(lines) + dropped
    note = [f"- … and {_count(left_out, 'step')} before"] if left_out else []
    summary = f"<details><summary>{_count(len(rows) + dropped, 'step')}</summary>"
    return "\n\n".join((summary, "\n".join([*note, *reversed(lines)]), "</details>"))


def _footer(timeline: Timeline, slug: str) -> str:
    parts = []
    if timeline.tokens:
        parts.append(f"{timeline.tokens:,} tokens")
    if timeline.micro_usd is not None:
        parts.append(f"${timeline.micro_usd / 1_000_000:.2f}")
    if not timeline.final:
        parts.append("reply here to steer")
        if timeline.stoppable:
            parts.append(f"`@{slug} stop` stops")
    return f"<sub>{' · '.join(parts)}</sub>" if parts else ""
