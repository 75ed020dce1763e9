"""Files that are there whole, or as they were before, after a full disk or a power cut too; and what is said
of a disk that does not take them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from bot.errors import SandboxError, SandboxFull


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write it beside and move it into place, so that who has the old one open or mounted keeps that. One
    that says the same already is left alone. Raises OSError."""
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)
        return
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_names(path.parent)


def sync_names(directory: Path) -> None:
    """Have what was moved into a directory stay there over a power cut. Raises OSError."""
    names = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(names)
    finally:
        os.close(names)


@contextlib.contextmanager
def in_words(what: str) -> Iterator[None]:
    """What this machine's disk does not take. Raises SandboxFull, SandboxError."""
    try:
        yield
    except OSError as error:
        kind = SandboxFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else SandboxError
        mend = "Is there room where SANDPIPER_DATA_DIR is?"
        raise kind(f"{what}: {error.strerror or error}.", mend) from error
