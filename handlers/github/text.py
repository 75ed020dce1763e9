"""Text on its way in and out of GitHub: what people could not see goes, what could do harm is disarmed."""

from __future__ import annotations

import re
from collections.abc import Callable

from bot.redact import redact

LIMIT = 64_000  # GitHub refuses a body of more than 65,536 characters with a 422

_LONGEST_SECRET = 1_000  # characters

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
# Control, zero-width, bidirectional and tag characters, and lone surrogates, which no store takes.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)

_GAP = "\u200b"  # drawn as nothing, but it ends a word for GitHub's parsers
_MENTION = re.compile(r"(?<![A-Za-z0-9])@(?=[A-Za-z0-9_])")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_ENTITY = re.compile(r"&(?=[#A-Za-z])")  # &#64; is an @ by the time that mentions are looked for
_IMAGE = re.compile(r"!(?=\[)")
_FENCE = re.compile(r"(`{3,}|~{3,})[^`]*")
_FENCE_END = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*")
_FENCE_ELSEWHERE = re.compile(r"(`{3,}|~{3,})")
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$>-])")
_ISSUE = re.compile(r"#(?=[0-9])")


def visible(text: str) -> str:
    """What a reader of the rendered page could see: HTML comments and unseen characters are left out."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNSEEN.sub("", _COMMENT.sub("", text)).strip()


def one_line(text: str, limit: int) -> str:
    """Foreign text as a single line of at most `limit` characters."""
    return clip(" ".join(_UNSEEN.sub(" ", text).split()), limit)


def _shown_line(text: str, limit: int) -> str:
    # The secret that a cut at `limit` would make unrecognisable is still whole here.
    return clip(redact(one_line(text, limit + _LONGEST_SECRET)), limit)


def clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: max(0, limit - 1)].rstrip() + "…"


def plain(text: str, limit: int) -> str:
    """Foreign text as one line of markdown that shows it as it is: no markup, mention, tag or reference."""
    shown = _MARKUP.sub(r"\\\1", _shown_line(text, limit)).replace("&", "&amp;").replace("<", "&lt;")
    return _ISSUE.sub(f"#{_GAP}", _MENTION.sub(f"@{_GAP}", shown))


def in_html(text: str, limit: int) -> str:
    """Foreign text as one line inside of an HTML block, where markdown is not looked for."""
    shown = _shown_line(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _ISSUE.sub(f"#{_GAP}", _MENTION.sub(f"@{_GAP}", shown))


def seen(text: str) -> str:
    """Foreign text without the characters that nobody sees."""
    return _UNSEEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def fenced(text: str) -> str:
    """Foreign text as it is, in a fence that nothing in it can close."""
    fence = "`" * max(3, *(len(run) + 1 for run in ["", *re.findall("`+", text)]))
    return f"{fence}\n{text}\n{fence}"


def code(text: str, limit: int) -> str:
    """Foreign text as a code span, or "" when there is none."""
    line = _shown_line(text, limit).replace("`", "ˋ")
    return f"`{_disarm(line)}`" if line else ""


def tame(markdown: str) -> str:
    """Foreign markdown that keeps its look and loses its teeth.

    It cannot mention anybody, open or close HTML (a comment, <details>), or load an image from
    elsewhere (GitHub fetches those, and the URL could carry something out). Fenced code at the
    start of a line stays untouched, so that it can be copied; other fences are disarmed too, since
    where they begin and end depends on lists and quotes around them.
    """
    lines: list[str] = []
    fence = ""
    for line in seen(markdown).split("\n"):
        if fence:
            lines.append(line)
            if _closes(line, fence):
                fence = ""
            continue
        opening = _FENCE.fullmatch(line)
        if opening:
            fence = opening[1]
            lines.append(line)
        else:
            lines.append(_FENCE_ELSEWHERE.sub(lambda run: _GAP.join(run[1]), _disarm(line)))
    if fence:
        lines.append(fence)
    return "\n".join(lines)


def tame_within(markdown: str, limit: int, further: Callable[[str], str] = str) -> str:
    """`tame` of as much of the markdown as leaves at most `limit` characters. further: done to that, too."""
    # Before the cut, which could leave half a secret, and without characters that could split one.
    markdown = redact(_UNSEEN.sub("", markdown))
    room = limit
    while len(tamed := further(tame(clip(markdown, room)))) > limit and room > 0:
        room -= max(1, len(tamed) - limit)
    return tamed


def _closes(line: str, fence: str) -> bool:
    closing = _FENCE_END.fullmatch(line)
    return closing is not None and closing[1].startswith(fence)


def _disarm(text: str) -> str:
    text = _MENTION.sub(f"@{_GAP}", text)
    text = _TAG.sub(f"<{_GAP}", text)
    text = _ENTITY.sub(f"&{_GAP}", text)
    return _IMAGE.sub(f"!{_GAP}", text)
