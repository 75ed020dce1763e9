"""Reading what a program of others writes: JSON that may be anything, text that may hold anything.

Nothing here raises. What `plain`, `token` and `spelt_out` give can be stored: no lone surrogates, no
control characters. What the others give is as it came.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TypeGuard

# What an event may carry, in bytes of UTF-8.
TEXT_BYTES = 64_000
THOUGHT_BYTES = 4_000
RESULT_BYTES = 800
RAW_BYTES = 2_000
TITLE_CHARS = 80
SUBJECT_CHARS = 200
TOKEN_CHARS = 200

# A JSON number can be as large as its sender likes; a database column cannot.
LARGEST = 2**53

Frame = Mapping[str, object]
NOTHING: Frame = {}

# CSI sequences, OSC sequences up to their terminator, and two-character escapes.
_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -~]?)"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_CONTROL_OR_RETURN = re.compile(rf"{_CONTROL.pattern}|\r")
# Characters that are drawn as nothing, or turn the order of others around: nobody has read them.
UNSEEN = re.compile(
    r"[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_OVERWRITTEN = re.compile(r"^[^\n]*\r(?!\n|$)", re.MULTILINE)  # anchored: else its time is quadratic


def frame(line: bytes) -> Frame | None:
    """The JSON object in a line, or None when there is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if is_frame(value) else None


def is_frame(value: object) -> TypeGuard[Frame]:
    return isinstance(value, dict)


def frame_of(value: object) -> Frame:
    return value if is_frame(value) else NOTHING


def part(of: Frame, *names: str) -> Frame:
    """The object at this path, or an empty one."""
    for name in names:
        value = of.get(name)
        if not is_frame(value):
            return NOTHING
        of = value
    return of


def items(of: Frame, name: str) -> Sequence[object]:
    value = of.get(name)
    return value if isinstance(value, list) else ()


def frames(of: Frame, name: str) -> Sequence[Frame]:
    return [value for value in items(of, name) if is_frame(value)]


def string(of: Frame, name: str) -> str:
    value = of.get(name)
    return value if isinstance(value, str) else ""


def strings(of: Frame, name: str) -> list[str]:
    return [value for value in items(of, name) if isinstance(value, str)]


def numbers(of: Frame, name: str) -> list[int]:
    return [value for value in items(of, name) if isinstance(value, int)]


def each(of: Frame, name: str) -> list[tuple[str, Frame]]:
    """The objects in the object of this name, by their keys."""
    return [(key, value) for key, value in part(of, name).items() if is_frame(value)]


def token(of: Frame, name: str) -> str:
    """An id of theirs, fit to be a key of ours."""
    return plain(string(of, name))[:TOKEN_CHARS]


def number(of: Frame, name: str) -> int:
    """A count: not negative, not too large, 0 when it is not a number."""
    value = of.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return min(max(value, 0), LARGEST)


def money(of: Frame, name: str) -> int | None:
    """US dollars as millionths of a dollar; None when it is not an amount."""
    value = of.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LARGEST / 1e6:
        return None
    return round(value * 1_000_000)


def plain(text: str) -> str:
    """Text for people: without terminal sequences, control characters and overwritten progress lines."""
    text = text.encode("utf-8", "replace").decode()
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "\r" in text:
        text = _OVERWRITTEN.sub("", text).replace("\r", "")
    return _CONTROL.sub("", text)


def spelt_out(text: str) -> str:
    """Text that people approve: nothing in it is left out, so what is drawn as nothing, or draws over the
    rest, is spelt out."""
    text = text.encode("utf-8", "replace").decode().replace("\r\n", "\n")
    return UNSEEN.sub(_escape, _CONTROL_OR_RETURN.sub(_escape, text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def clip(text: str, limit: int) -> str:
    """At most about `limit` bytes: the head and the tail, with a note of how much is missing."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return text
    head, tail = data[: limit * 2 // 3], data[-(limit // 3) :]
    note = f"\n… {len(data) - len(head) - len(tail)} bytes left out …\n"
    return head.decode(errors="ignore") + note + tail.decode(errors="ignore")


def one_line(text: str, chars: int) -> str:
    """The text on one line, cut at its end."""
    line = " ".join(text.split())
    return line if len(line) <= chars else line[: chars - 1].rstrip() + "…"


def shorten(path: str, cwd: str) -> str:
    """A path as people read it: from the workspace on."""
    return path.removeprefix(cwd.rstrip("/") + "/") if cwd else path


def to_line(message: Frame) -> bytes:
    """A message of ours as the one line that agents read."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
