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
    more = more.replace("\r\n", "\n")
    for number, line in enumerate(more.split("\n"), 1):
        if re.search(r"[\0\r\v\f]", line):
            raise _unusable(number, "a control character in it may be an end of a line to some builder")
    for number, line in _instructions(more):
        word = line.split(maxsplit=1)[0].upper()
        if word in UNUSABLE:
            raise _unusable(number, UNUSABLE[word])
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
    here-documents. Raises SettingsError where builders could read it otherwise, and where what comes after
    the text would still be a part of it."""
    found: list[tuple[int, str]] = []
    lines = enumerate(text.split("\n"), 1)
    begun, joined = 0, ""
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue  # also between lines that go on
        begun = begun or number
        bare = line.rstrip(" \t")
        if bare.endswith("\\\\"):
            raise _unusable(number, "it ends in two backslashes, which not all builders take for the same")
        if bare.endswith("\\"):
            joined += bare[:-1]
            continue
        joined = (joined + line).strip()
        found.append((begun, joined))
        for end, tabs in _here_documents(begun, joined):
            if not any((body.lstrip("\t") if tabs else body) == end for _, body in lines):
                raise _unusable(begun, f"its here-document has no line that is just {end}")
        begun, joined = 0, ""
    if begun:
        raise _unusable(begun, "it goes on after your last line, which ends in a backslash")
    return found


def _here_documents(number: int, line: str) -> list[tuple[str, bool]]:
    """The last line of each that an instruction has, and whether tabs may stand before that. Raises
    SettingsError where that is not plain: builders know a here-document by a word that begins with <<."""
    if line.split(maxsplit=1)[0].upper() not in ("RUN", "ONBUILD"):
        return []
    found = []
    for one in re.finditer(r"(?<!\S)\d*<<(?!<)(-?)(\S*)", line):
        word = re.fullmatch(r"([\"']?)(\w+)\1", one[2])
        before = re.sub(r"\\.|\"(?:\\.|[^\"\\])*\"|'[^']*'", "", line[: one.start()])
        if one[2] and (word is None or "'" in before or '"' in before):
            raise _unusable(number, f"whether {one[0]} begins a here-document is not plain")
        if word is not None:
            found.append((word[2], bool(one[1])))
    return found


def _unusable(number: int, why: str) -> SettingsError:
    return SettingsError(f"Line {number} of your Dockerfile cannot be used: {why}.")
