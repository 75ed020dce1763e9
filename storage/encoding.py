"""Values of the vocabulary as JSON text, and back."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter
from pydantic_core import PydanticSerializationError

from bot.events import Event
from bot.models import Attachment, Choice, Final, MessageRef, Offered, Saying

T = TypeVar("T")

EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])
SAYING: TypeAdapter[Saying] = TypeAdapter(Saying)
FINAL: TypeAdapter[Final] = TypeAdapter(Final)
CHOICE: TypeAdapter[Choice] = TypeAdapter(Choice)
ATTACHMENTS: TypeAdapter[tuple[Attachment, ...]] = TypeAdapter(tuple[Attachment, ...])
OFFERED: TypeAdapter[Offered] = TypeAdapter(Offered)
REF: TypeAdapter[MessageRef] = TypeAdapter(MessageRef)


def dump(kind: TypeAdapter[T], value: T) -> str:
    try:
        return kind.dump_json(value).decode()
    except PydanticSerializationError:
        # Half a surrogate pair is no valid text; agents that clip their output do write it.
        plain = json.dumps(kind.dump_python(value, mode="json"), ensure_ascii=False)
        return plain.encode("utf-8", "replace").decode()


def dump_optional(kind: TypeAdapter[T], value: T | None) -> str | None:
    return None if value is None else dump(kind, value)


def load(kind: TypeAdapter[T], text: str) -> T:
    return kind.validate_json(text)


def load_optional(kind: TypeAdapter[T], text: str | None) -> T | None:
    return None if text is None else load(kind, text)
