"""Between Slack's markup and plain words, both ways. Pure.

Slack's markup: docs.slack.dev "Formatting message text". `&`, `<` and `>` are escaped in it; everything
that does something (mentions, links, dates) stands in angle brackets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bot.redact import redact

_TOKEN = re.compile(r"<([^<>\s][^<>]*)>")
_MENTIONED = re.compile(r"<@([UW]\w+)(?:\|[^<>]*)?>")
_USER = re.compile(r"[UW]\w{1,40}", re.ASCII)
_URL = re.compile(r"https?://[^\s<>|]+", re.IGNORECASE)
_BARE = re.compile(r"^(?:https?://|mailto:|tel:)")
# What Slack might act on in a field that it documents as plain text.
_LIVE = re.compile(r"<(?=[!@#]|\w+:)")

# Slack's clients act on these also where they are plain words ("automatic parsing").
_ALL = re.compile(r"@(?=(?:channel|here|everyone)\b)", re.IGNORECASE)
# Bidirectional controls and what is drawn as nothing; joiners and selectors are parts of emoji.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2061-\u206f\ufeff"
    r"\U000e0000-\U000e0fff]"
)

# Markdown, as agents write it. Spans are bounded, so that odd text cannot make a pattern run for long.
_FENCED = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)
_CODE = re.compile(r"(`[^`\n]+`)")
_FENCE_LANGUAGE = re.compile(r"\A```[\w+#.-]*[ \t]*\n")
_LINK = re.compile(r"!?\[([^\[\]\n]{0,500})\]\(([^\s)]{1,1000}+)(?:[ \t]+\"[^\"\n]{0,300}\")?\)")
_BOLD = re.compile(r"\*\*(?=\S)(.{1,300}?)(?<=\S)\*\*|(?<!\w)__(?=\S)(.{1,300}?)(?<=\S)__(?!\w)")
_STRUCK = re.compile(r"~~(?=\S)(.{1,300}?)(?<=\S)~~")
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_BULLET = re.compile(r"^([ \t]*)[-*+][ \t]+(?=\S|\Z)", re.MULTILINE)


def mentions(text: str) -> tuple[str, ...]:
    """The ids of the users that a text in Slack's markup mentions, each once."""
    return tuple(dict.fromkeys(_MENTIONED.findall(text)))


def mentions_user(text: str, user: str) -> bool:
    return user != "" and user in mentions(text)


def without_mention(text: str, user: str) -> str:
    """The text without the mentions of one user, and without the comma or colon after them."""
    return re.sub(rf"[ \t]*<@{re.escape(user)}(?:\|[^<>]*)?>[:,]?[ \t]*", " ", text).strip()


def plain(text: str, names: Mapping[str, str]) -> str:
    """Slack's markup as plain words. `names`: user id → name, for mentions."""
    words: list[str] = []
    position = 0
    for token in _TOKEN.finditer(text):
        words += [_unescaped(text[position : token.start()]), _spoken(token[1], names)]
        position = token.end()
    words.append(_unescaped(text[position:]))
    return "".join(words)


def _spoken(token: str, names: Mapping[str, str]) -> str:
    target, _, label = token.partition("|")
    target, label = _unescaped(target), _unescaped(label)
    if target.startswith("@"):
        return f"@{names.get(target[1:]) or label.removeprefix('@') or target[1:]}"
    if target.startswith("#"):
        return f"#{label or target[1:]}"
    if target.startswith("!"):
        return label or f"@{target[1:].partition('^')[0]}"
    bare = _BARE.sub("", target)
    if not label or label in (target, bare, bare.rstrip("/")):
        return bare if target.startswith(("mailto:", "tel:")) else target
    return f"{label} ({target})"


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def escaped(text: str) -> str:
    """Foreign words for a mrkdwn field: nobody's name, channel or link comes alive in them."""
    return _quiet(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _quiet(text: str) -> str:
    """Calling nobody, in the order of its letters."""
    return _ALL.sub("@\u2060", _UNSEEN.sub("", text))


def escaped_within(text: str, limit: int) -> str:
    """Escaped, and clipped to `limit` characters without cutting an escape in two."""
    text = _quiet(text)
    whole = escaped(text)
    if len(whole) <= limit:
        return whole
    used, kept = 1, []
    for character in text:
        piece = escaped(character)
        used += len(piece)
        if used > limit:
            break
        kept.append(piece)
    return "".join(kept) + "…"


def inert(text: str, limit: int) -> str:
    """Foreign words for a plain-text field: on one line, without secrets, clipped to `limit` characters."""
    return clipped(_LIVE.sub("‹", " ".join(redact(_quiet(text)).split())), limit)


def clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def mention(user: str) -> str:
    """A mention that notifies, or "" where there is no such user id."""
    return f"<@{user}>" if _USER.fullmatch(user) else ""


def link(url: str, label: str) -> str:
    """A link of ours; a URL that is none is shown as words."""
    if not _URL.fullmatch(url):
        return escaped(f"{label} {url}".strip())
    return f"<{escaped(url)}|{escaped(label).replace('|', '¦')}>"


def from_markdown(text: str) -> str:
    """An agent's Markdown as Slack's mrkdwn: escaped, without secrets, links in the open."""
    parts = _FENCED.split(redact(text))
    return "".join(_fence(part) if index % 2 else _prose(part) for index, part in enumerate(parts))


def _fence(block: str) -> str:
    body = escaped(_FENCE_LANGUAGE.sub("```\n", block))
    return body if body.endswith("```") and len(body) > 3 else f"{body}\n```"


def _prose(text: str) -> str:
    pieces = _CODE.split(text)
    return "".join(
        escaped(piece) if index % 2 else _styled(piece, index == 0 or pieces[index - 1].endswith("\n"))
        for index, piece in enumerate(pieces)
    )


def _styled(text: str, starts_line: bool) -> str:
    """Words between two pieces of code, which may go on in the middle of a line."""
    text = escaped(_LINK.sub(_open_link, text))
    if starts_line:
        text = _BULLET.sub(r"\1• ", text)
    else:
        begun, newline, rest = text.partition("\n")
        text = begun + newline + _BULLET.sub(r"\1• ", rest)
    text = _HEADING.sub(lambda found: f"*{found[1].replace('**', '')}*", text)
    text = _STRUCK.sub(r"~\1~", text)
    return _BOLD.sub(lambda found: f"*{found[1] or found[2]}*", text)


def _open_link(found: re.Match[str]) -> str:
    label, url = found[1].strip(), found[2]
    return url if label in ("", url) else f"{label} ({url})"
