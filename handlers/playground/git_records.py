"""What git says, as values: commits, changed files, moved refs, tree entries, and how to read them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, NamedTuple

NOTHING: Final = "0" * 40
"""Stands for "no commit" in a moved ref."""

COMMIT_FORMAT: Final = "%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B%x00"
_FIELDS = 10

FileStatus = Literal["added", "removed", "modified", "renamed"]


@dataclass(frozen=True, slots=True)
class Signature:
    name: str
    email: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Commit:
    sha: str
    tree: str
    parents: tuple[str, ...]
    author: Signature
    committer: Signature
    message: str


@dataclass(frozen=True, slots=True)
class FileChange:
    path: str
    previous: str | None
    status: FileStatus
    blob: str
    additions: int
    deletions: int
    patch: str | None


@dataclass(slots=True)
class Touched:
    """The paths that one commit touched."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    modified: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """A ref before and after a push; NOTHING (forty zeros) stands for "not there"."""

    ref: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class TreeEntry:
    kind: str
    sha: str
    size: int
    path: str


def read_commits(log: str) -> list[Commit]:
    """Commits from `git log --format=COMMIT_FORMAT`."""
    parts = log.split("\x00")
    return [_commit(parts[i : i + _FIELDS]) for i in range(0, len(parts) - _FIELDS, _FIELDS)]


def read_changes(raw: str, numstat: str, patches: str) -> list[FileChange]:
    """File changes from `git diff` with --raw -z, --numstat -z and plain: three views in the same order."""
    hunks = [_hunks(piece) for piece in ("\n" + patches).split("\ndiff --git ")[1:]]
    return [
        FileChange(entry.path, entry.previous, entry.status, entry.blob, added, removed, patch)
        for entry, (added, removed), patch in zip(_entries(raw), _counts(numstat), hunks, strict=True)
    ]


def read_touched(diff_tree: str) -> dict[str, Touched]:
    """The paths by commit from `git diff-tree --stdin --name-status`."""
    found: dict[str, Touched] = {}
    current = Touched()
    for line in diff_tree.splitlines():
        letter, tab, path = line.partition("\t")
        if not tab:
            current = found.setdefault(line, Touched())
        else:
            {"A": current.added, "D": current.removed}.get(letter, current.modified).append(path)
    return found


def read_tree(ls_tree: str) -> list[TreeEntry]:
    """Entries from `git ls-tree --long -z`."""
    found = []
    for line in filter(None, ls_tree.split("\x00")):
        about, _, path = line.partition("\t")
        _, kind, sha, size = about.split()
        found.append(TreeEntry(kind, sha, 0 if size == "-" else int(size), path))
    return found


class _Entry(NamedTuple):
    path: str
    previous: str | None
    status: FileStatus
    blob: str


def _commit(parts: list[str]) -> Commit:
    sha, tree, parents, name, email, at, committer, committer_email, committed_at, message = parts
    return Commit(
        # Each record but the first begins with the newline that ended the one before it.
        sha=sha.strip(),
        tree=tree,
        parents=tuple(parents.split()),
        author=Signature(name, email, datetime.fromisoformat(at)),
        committer=Signature(committer, committer_email, datetime.fromisoformat(committed_at)),
        message=message.rstrip("\n"),
    )


def _hunks(piece: str) -> str | None:
    start = piece.find("\n@@ ")
    return None if start < 0 else piece[start + 1 :].rstrip("\n")


def _entries(raw: str) -> list[_Entry]:
    parts = iter(raw.split("\x00"))
    found = []
    for about in filter(None, parts):
        _, _, old_blob, new_blob, letter = about.split()
        path = next(parts)
        if letter.startswith("R"):
            found.append(_Entry(next(parts), path, "renamed", new_blob))
        elif letter == "A":
            found.append(_Entry(path, None, "added", new_blob))
        elif letter == "D":
            found.append(_Entry(path, None, "removed", old_blob))
        else:
            found.append(_Entry(path, None, "modified", new_blob))
    return found


def _counts(numstat: str) -> list[tuple[int, int]]:
    parts = iter(numstat.split("\x00"))
    found = []
    for about in filter(None, parts):
        added, removed, path = about.split("\t")
        if not path:  # a rename: the two paths follow on their own
            next(parts)
            next(parts)
        # A dash stands for a binary file.
        found.append((0 if added == "-" else int(added), 0 if removed == "-" else int(removed)))
    return found
