"""What a message may say: the arguments that posting, updating and response URLs share."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from handlers.playground.slack_blocks import check_blocks
from handlers.playground.slack_limits import (
    ATTACHMENTS_PER_MESSAGE,
    BLOCKS_TOTAL_LIMIT,
    MARKDOWN_LIMIT,
    METADATA_BYTES,
    TEXT_TRUNCATED_AT,
    UPDATE_TEXT_LIMIT,
    json_length,
)
from handlers.playground.slack_state import Json, SlackError


@dataclass(slots=True)
class Content:
    """What was given; None is what was not mentioned. `warnings` go with the answer."""

    text: str | None = None
    blocks: list[Json] | None = None
    attachments: list[Json] | None = None
    metadata: Json | None = None
    warnings: list[str] = field(default_factory=list)


def read_content(arguments: Json, *, unsupported: Collection[str], updating: bool = False) -> Content:
    """Read a message's content.

    Raises SlackError `no_text`, `msg_too_long`, `invalid_blocks`, `msg_blocks_too_long` and their like. A new
    message's text is cut at 40,000 characters with the warning `message_truncated`; an update's is refused
    above 4,000.
    """
    content = Content(
        text=_text(arguments.get("text")),
        attachments=_attachments(arguments.get("attachments")),
        metadata=_metadata(arguments.get("metadata")),
    )
    given = structured(arguments.get("blocks"))
    if given is not None:
        content.blocks = check_blocks(given, unsupported=unsupported)
    markdown = arguments.get("markdown_text")
    if markdown is not None:
        if content.text or content.blocks:
            raise SlackError("markdown_text_conflict")
        if not isinstance(markdown, str) or len(markdown) > MARKDOWN_LIMIT:
            raise SlackError("msg_too_long")
        content.text, content.blocks = markdown, [{"type": "markdown", "text": markdown}]
    if content.blocks and json_length(content.blocks) > BLOCKS_TOTAL_LIMIT:
        raise SlackError("msg_blocks_too_long")
    if not (content.text or "").strip() and not content.blocks and not content.attachments:
        raise SlackError("no_text")
    if content.text is not None and updating and len(content.text) > UPDATE_TEXT_LIMIT:
        raise SlackError("msg_too_long")
    if content.text is not None and len(content.text) > TEXT_TRUNCATED_AT:
        content.text = content.text[:TEXT_TRUNCATED_AT]
        content.warnings.append("message_truncated")
    return content


def structured(value: object) -> Any:
    """A structured argument: itself in a JSON body, a JSON text in a form."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    try:
        return json.loads(value)
    except ValueError:
        return value


def flag(value: object) -> bool:
    """A yes or no, as JSON or as a form has it."""
    return value in (True, 1, "1", "true", "True")


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _attachments(value: object) -> list[Json] | None:
    attachments = structured(value)
    if attachments is None:
        return None
    if not isinstance(attachments, list) or not all(isinstance(one, dict) for one in attachments):
        raise SlackError("invalid_attachments")
    if len(attachments) > ATTACHMENTS_PER_MESSAGE:
        raise SlackError("too_many_attachments")
    return attachments


def _metadata(value: object) -> Json | None:
    metadata = structured(value)
    if metadata is None:
        return None
    if metadata == {}:
        return {}
    if (
        not isinstance(metadata, dict)
        or not isinstance(metadata.get("event_type"), str)
        or not isinstance(metadata.get("event_payload"), dict)
    ):
        raise SlackError("invalid_metadata_format")
    if json_length(metadata) > METADATA_BYTES:
        raise SlackError("metadata_too_large")
    return metadata
