"""What remote sandboxes are made of: our Dockerfile, with an operator's own lines after ours."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from bot.errors import SettingsError

DOCKERFILE = Path(__file__).parent / "images" / "Dockerfile"
# What needs files beside the Dockerfile, or another beginning.
UNUSABLE = {
    "FROM": "it goes on where ours ends, so it has no FROM",
    "COPY": "there are no files beside it: fetch what you need with RUN",
    "ADD": "there are no files beside it: fetch what you need with RUN",
}
_LAST = "USER agent"


def dockerfile(more: str = "") -> str:
    """Ours, and `more` as root after it. Whoever comes last, agents are no root. Raises SettingsError, which
    names the line of `more` that cannot be used."""
    ours = DOCKERFILE.read_text(encoding="utf-8")
    if not more.strip():
        return ours
    for number, line in _instructions(more):
        word = line.split(maxsplit=1)[0].upper()
        if word in UNUSABLE:
            raise SettingsError(f"Line {number} of your Dockerfile cannot be used: {UNUSABLE[word]}.")
    begins = ours.index(_LAST)
    end = ours[begins:]
    return f"{ours[:begins]}# The operator's own.\n{more.strip()}\n\n{end}"


def named(text: str, release: str, *size: int) -> str:
    """A name for what is made of a Dockerfile, the same for the same text and size."""
    return f"sandpiper-{release}-{_digest(text, size)}"


def says_all(name: str, text: str, *size: int) -> bool:
    """Whether it is a name that `named` gives to nothing but this."""
    return name.startswith("sandpiper-") and name.endswith(f"-{_digest(text, size)}")


def _digest(text: str, size: Sequence[int]) -> str:
    return hashlib.sha256(f"{text}\0{'/'.join(map(str, size))}".encode()).hexdigest()[:10]


def _instructions(text: str) -> list[tuple[int, str]]:
    """With the numbers of their lines; lines that go on are one, comments are none, nor are the bodies of
    here-documents."""
    found: list[tuple[int, str]] = []
    going_on, here = False, ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if here:
            here = "" if bare == here else here
            continue
        if not bare or bare.startswith("#"):
            continue
        if not going_on:
            found.append((number, bare))
        if opened := re.search(r"<<-?[\"']?(\w+)[\"']?", bare):
            here = opened[1]
        going_on = bare.endswith("\\")
    return found
