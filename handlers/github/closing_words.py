"""Words by which GitHub closes issues when a pull request is merged: a program's words shall not."""

from __future__ import annotations

import re

_GAP = "\u200b"  # drawn as nothing, but it ends a word for GitHub's parsers

# docs.github.com, "Linking a pull request to an issue using a keyword". What may stand between a keyword and
# its issue is not written there, so it is taken widely; also any link, which may lead to an issue.
_CLOSING = re.compile(
    r"(?<![A-Za-z0-9])(?P<first>[cfr])(?P<rest>lose[sd]?|ix(?:e[sd])?|esolve[sd]?)"
    r"(?=[^A-Za-z0-9#]{0,20}(?:"
    r"(?P<repository>[\w.-]{1,100}/[\w.-]{1,100})?#(?P<number>[0-9]+)"
    r"|gh-(?P<old>[0-9]+)"
    r"|(?:https?://)?[\w.:-]{1,200}/(?P<site>[\w.-]{1,100}/[\w.-]{1,100})/(?:issues|pull)/(?P<page>[0-9]+)"
    r"|(?<=\[)"
    r"))",
    re.IGNORECASE,
)


def closing_only(text: str, repository: str, issue: str) -> str:
    """Text of which no keyword closes another issue than this one of the repository ("": none). It looks as
    before."""

    def kept(found: re.Match[str]) -> str:
        where = found["repository"] or found["site"] or repository
        number = found["number"] or found["old"] or found["page"]
        own = bool(issue) and number == issue and where.lower() == repository.lower()
        return found[0] if own else f"{found['first']}{_GAP}{found['rest']}"

    return _CLOSING.sub(kept, text)
