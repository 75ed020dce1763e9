"""Forms of ACP elicitations as questions to people, field by field, and their answers as JSON values.

ACP's forms are flat JSON Schemas: strings (free, or one of some), numbers, booleans, and lists of choices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bot.agents.wire import Frame, frames, items, part, string

# A form with more fields than that is not for a chat; the rest are left out.
MOST_FIELDS = 8
MOST_CHOICES = 20
LONGEST = 600

YES, NO = "Yes", "No"

# The field in which claude-agent-acp takes an answer of one's own, beside that with the options.
_OWN_WORDS = "_custom"


def fields_of(schema: Frame) -> list[Frame]:
    """The fields to ask for: the required ones, else all. Each has its `name` in it."""
    properties = part(schema, "properties")
    required = [name for name in items(schema, "required") if isinstance(name, str)]
    asked: list[Frame] = []
    for name in properties:
        field = part(properties, name)
        beside = name.removesuffix(_OWN_WORDS)
        if (required and name not in required) or (beside != name and beside in properties):
            continue
        choices = [{"label": label, "value": value} for label, value in _choices(field)]
        shape = ("type", "title", "description", "pattern", "format")
        asked.append(
            {
                **{key: string(field, key)[:LONGEST] for key in shape if string(field, key)},
                "name": name,
                "own_words": name + _OWN_WORDS if name + _OWN_WORDS in properties else "",
                "choices": choices[:MOST_CHOICES],
            }
        )
    return asked[:MOST_FIELDS]


def question_of(field: Frame, message: str, *, alone: bool) -> str:
    about = string(field, "description") or string(field, "title") or string(field, "name")
    if alone:
        return message or about
    return about


def options_of(field: Frame) -> tuple[str, ...]:
    if field.get("type") == "boolean":
        return (YES, NO)
    return tuple(string(choice, "label") for choice in frames(field, "choices"))


def answer_to(field: Frame, text: str) -> Mapping[str, object] | None:
    """What goes into the form for these words; None when they are no answer that it takes."""
    name, choices = string(field, "name"), frames(field, "choices")
    match field.get("type"):
        case "boolean":
            value: object = {"yes": True, "true": True, "no": False, "false": False}.get(text.strip().lower())
        case "integer" | "number":
            value = _number(text, whole=field.get("type") == "integer")
        case "array":
            picked = [_chosen(choices, word) for word in text.split(",")]
            value = [one for one in picked if one is not None] if None not in picked else None
        case _:
            value = _chosen(choices, text) if choices else text
    if value is None and (own := string(field, "own_words")):
        return {own: text}
    return None if value is None else {name: value}


def takes_words(field: Frame) -> bool:
    """Can anything be written into it?"""
    bound = frames(field, "choices") or field.get("pattern") or field.get("format")
    return bool(string(field, "own_words")) or (field.get("type") == "string" and not bound)


def _choices(field: Frame) -> Sequence[tuple[str, str]]:
    """Label and value of each, from the schema."""
    of = part(field, "items") if field.get("type") == "array" else field
    titled = [*frames(of, "oneOf"), *frames(of, "anyOf")]
    if titled:
        return [(string(one, "title") or string(one, "const"), string(one, "const")) for one in titled]
    return [(value, value) for value in items(of, "enum") if isinstance(value, str)]


def _chosen(choices: Sequence[Frame], text: str) -> str | None:
    word = text.strip().lower()
    named = ((string(one, "value"), string(one, "label")) for one in choices)
    return next((value for value, label in named if word in (label.lower(), value.lower())), None)


def _number(text: str, *, whole: bool) -> object:
    try:
        return int(text.strip()) if whole else float(text.strip())
    except ValueError:
        return None
