"""An agent's questions and requests as Slack messages, while they are open and after. Pure.

What is approved is shown whole and as it is: preformatted rich text is plain, so nothing in it comes alive
or is drawn over.
"""

from __future__ import annotations

from bot.approvals import outcome
from bot.models import Ask, AskKind, AskState
from handlers.slack.blocks import SECTION_LIMIT, Block, actions, context, section
from handlers.slack.ids import ANSWER_ACTION, APPROVE_ACTION, DENY_ACTION
from handlers.slack.render import Drawn
from handlers.slack.text import clipped, escaped, escaped_within, mention

BUTTON_TEXT = 75  # docs.slack.dev, "Button element"


def ask(asked: Ask, to: str = "") -> Drawn:
    """With its buttons while it is open, with what came of it afterwards."""
    words = _words(asked)
    called = f"{mention(to)} {words}" if to and asked.state is AskState.OPEN else words
    blocks = [section(called), *_detail(asked)]
    if asked.state is AskState.OPEN:
        buttons = _buttons(asked)
        blocks += [*([actions(*buttons)] if buttons else []), context([_until(asked)])]
        return Drawn(called, tuple(blocks))
    blocks.append(context([escaped_within(outcome(asked), SECTION_LIMIT)]))
    return Drawn(f"{words} · {escaped_within(outcome(asked), 300)}", tuple(blocks))


def _words(asked: Ask) -> str:
    title = escaped_within(asked.title, SECTION_LIMIT - 200).strip() or "…"
    return title if asked.kind is AskKind.QUESTION else f"May I? *{title}*"


def _detail(asked: Ask) -> list[Block]:
    if not asked.detail:
        return []
    text = {"type": "text", "text": asked.detail}
    return [{"type": "rich_text", "elements": [{"type": "rich_text_preformatted", "elements": [text]}]}]


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
