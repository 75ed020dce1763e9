"""Block Kit's parts, within its limits. Pure.

Limits: docs.slack.dev, the Block Kit reference. The total is measured, not documented
(slackapi/bolt-js#2509: `msg_blocks_too_long` from about 13,200 characters of JSON).
"""

from __future__ import annotations

import json
from typing import Any

from handlers.slack.ids import OPEN_ACTION, RESET_ACTION, STOP_ACTION
from handlers.slack.text import clipped, escaped_within, inert

Block = dict[str, Any]

BLOCKS_BUDGET = 12_000
SECTION_LIMIT = 3_000
CONTEXT_ELEMENTS = 10
PLAN_TASKS = 50
TASK_FIELD = 256
CARD_TITLE = 150
CARD_BODY = 200
BUTTON_URL = 3_000
TEXT_ADVISED = 4_000  # also the most that chat.update takes
TEXT_LIMIT = 40_000  # chat.postMessage cuts a longer text


def size(blocks: object) -> int:
    """Characters of JSON, as they count towards the total."""
    return len(json.dumps(blocks, ensure_ascii=False, separators=(",", ":")))


def mrkdwn(text: str) -> Block:
    return {"type": "mrkdwn", "text": text}


def section(text: str) -> Block:
    return {"type": "section", "text": mrkdwn(text)}


def context(lines: list[str]) -> Block:
    return {"type": "context", "elements": [mrkdwn(line) for line in lines[:CONTEXT_ELEMENTS]]}


def actions(*buttons: Block) -> Block:
    return {"type": "actions", "elements": list(buttons)}


def stop_button(turn: int) -> Block:
    return {
        "type": "button",
        "action_id": STOP_ACTION,
        "style": "danger",
        "text": {"type": "plain_text", "text": "Stop"},
        "value": str(turn),
    }


def reset_button(number: int) -> Block:
    return {
        "type": "button",
        "action_id": RESET_ACTION,
        "style": "danger",
        "text": {"type": "plain_text", "text": "Delete the sandbox"},
        "value": str(number),
    }


def open_button(url: str) -> Block:
    return {
        "type": "button",
        "action_id": OPEN_ACTION,
        "style": "primary",
        "text": {"type": "plain_text", "text": "Open PR"},
        "url": url,
    }


def plan(title: str, tasks: list[Block]) -> Block:
    return {"type": "plan", "title": inert(title, TASK_FIELD), "tasks": tasks}


def task(id: str, title: str, status: str, details: str = "", output: str = "") -> Block:
    """A step of a plan. A plan's tasks carry no `type`; their ids are unique in it."""
    shape: Block = {"task_id": id, "title": title, "status": status}
    if details:
        shape["details"] = _rich_text(details)
    if output:
        shape["output"] = _rich_text(output)
    return shape


def card(title: str, subtitle: str, body: str, buttons: list[Block]) -> Block:
    shape: Block = {"type": "card", "title": mrkdwn(escaped_within(title, CARD_TITLE))}
    for name, said in (
        ("subtitle", escaped_within(subtitle, CARD_TITLE)),
        ("body", escaped_within(body, CARD_BODY)),
    ):
        if said.strip():  # of invisible characters nothing is left
            shape[name] = mrkdwn(said)
    if buttons:
        shape["actions"] = buttons
    return shape


def pieces(text: str, limit: int = SECTION_LIMIT) -> list[str]:
    """Escaped mrkdwn, cut where lines end; a code block that is cut is closed and opened again."""
    found: list[str] = []
    room = limit - len("\n```")
    while len(text) > limit:
        at = text.rfind("\n", room // 2, room)
        at = at if at > 0 else _before_escape(text, room)
        piece, text = text[:at], text[at:].removeprefix("\n")
        if piece.count("```") % 2:
            piece, text = f"{piece}\n```", f"```\n{text}"
        found.append(piece)
    return [piece for piece in (*found, text) if piece.strip()]


def clipped_mrkdwn(text: str, limit: int) -> str:
    """Escaped mrkdwn in one piece; what is left out is said."""
    if len(text) <= limit:
        return text
    left_out = "\n_(shortened)_"
    return pieces(text, limit - len(left_out))[0] + left_out


def _before_escape(text: str, at: int) -> int:
    """The place to cut at, not inside `&amp;` and its like."""
    start = text.rfind("&", at - len("&amp;") + 1, at)
    return start if start > 0 and ";" not in text[start:at] else at


def _rich_text(text: str) -> Block:
    element = {"type": "text", "text": clipped(text, TASK_FIELD)}
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [element]}]}
