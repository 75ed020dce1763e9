"""An agent's questions and requests as Slack messages, while they are open and after. Pure.

What is approved is shown whole and as it is: preformatted rich text is plain, so nothing in it comes alive
or is drawn over. What is longer than a message goes on over several; the buttons come with its end.
"""

from __future__ import annotations

from bot.approvals import outcome
from bot.models import Ask, AskKind, AskState
from handlers.slack.blocks import SECTION_LIMIT, Block, actions, context, section, size
from handlers.slack.ids import ANSWER_ACTION, APPROVE_ACTION, DENY_ACTION
from handlers.slack.render import Drawn
from handlers.slack.text import clipped, escaped, escaped_within, mention

BUTTON_TEXT = 75  # docs.slack.dev, "Button element"
PART = 8_000  # characters of JSON in one message, beside a title: some 11,000 were refused (bolt-js#2867)


def before(asked: Ask) -> tuple[Drawn, ...]:
    """The messages that come before the one with the buttons, where all does not go into that one."""
    parts = _parts(asked.detail)
    return tuple(
        Drawn(words, (section(words), _preformatted(part)), whole=True)
        for number, part in enumerate(parts[:-1], 1)
        if (words := f"{_words(asked)} · part {number} of {len(parts)}")
    )


def ask(asked: Ask, to: str = "") -> Drawn:
    """The message with its buttons while it is open, with what came of it afterwards."""
    parts = _parts(asked.detail)
    words = _words(asked) + (f" · part {len(parts)} of {len(parts)}" if len(parts) > 1 else "")
    called = f"{mention(to)} {words}" if to and asked.state is AskState.OPEN else words
    blocks = [section(called), *map(_preformatted, parts[-1:])]
    if asked.state is AskState.OPEN:
        buttons = _buttons(asked)
        blocks += [*([actions(*buttons)] if buttons else []), context([_until(asked)])]
        return Drawn(called, tuple(blocks), whole=bool(parts))
    blocks.append(context([escaped_within(outcome(asked), SECTION_LIMIT)]))
    return Drawn(f"{words} · {escaped_within(outcome(asked), 300)}", tuple(blocks))


def _words(asked: Ask) -> str:
    title = escaped_within(asked.title, SECTION_LIMIT - 200).strip() or "…"
    return title if asked.kind is AskKind.QUESTION else f"May I? *{title}*"


def _parts(detail: str) -> list[str]:
    """All of it, in pieces that end where lines do, as far as they can."""
    parts: list[str] = []
    while detail:
        end = len(detail)
        while (much := size(detail[:end])) > PART:
            end = min(end - 1, end * PART // much)
        if end < len(detail):
            end = detail.rfind("\n", end // 2, end) + 1 or end
        parts.append(detail[:end])
        detail = detail[end:]
    return parts


def _preformatted(text: str) -> Block:
    element = {"type": "text", "text": text}
    return {"type": "rich_text", "elements": [{"type": "rich_text_preformatted", "elements": [element]}]}


def _buttons(asked: Ask) -> list[Block]:
    number = str(asked.id)
    if asked.kind is AskKind.APPROVAL:
        return [
            _button(APPROVE_ACTION, "Approve", number, "primary"),
            _button(DENY_ACTION, "Deny", number, "danger"),
        ]
    return [_button(f"{ANSWER_ACTION}_{index}", option, number) for index, option in enumerate(asked.options)]


def _button(action: str, text: str, value: str, style: str = "") -> Block:
    shape: Block = {
        "type": "button",
        "action_id": action,
        "text": {"type": "plain_text", "text": clipped(text, BUTTON_TEXT) or "…"},
        "value": value,
    }
    return {**shape, "style": style} if style else shape


def _until(asked: Ask) -> str:
    at = int(asked.deadline)
    by = f"<!date^{at}^{{time}}|the deadline>"
    who = escaped(asked.asked.name)
    if asked.kind is AskKind.QUESTION:
        return f"A reply in the thread answers it ({who}, or who owns the session), until {by}."
    return f"For {who}, or who owns the session, until {by}; no answer is a no. Also: `approve {asked.id}`"
