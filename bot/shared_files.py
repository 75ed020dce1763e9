"""Files that agents share, on their way from the sandbox to the thread: our copies, made fit to be shown."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

from bot.agents.wire import UNSEEN, plain
from bot.errors import FileRefused, SurfaceBusy
from bot.models import SharedFile
from bot.redact import SHORTEST_KNOWN, redact

LARGEST_FILE = 20 * 1024 * 1024  # bytes: a file is held in memory while it is sent
NAME_CHARS = 120
RETRY = 60.0  # seconds, where our own disk is the trouble
PIECE = 64_000  # characters that secrets are looked for in at once: nothing else runs meanwhile

_NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_KEY_BEGINS = "-----BEGIN "
_KEY_ENDS = "-----END "


class SharedFiles:
    """The copies, all in one directory, which is made.

    secrets: what opens our own doors; a file that holds one of them is not shown to anybody.
    """

    def __init__(self, directory: Path, secrets: Iterable[str] = ()) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self.directory = directory
        self._secrets = [secret.encode() for secret in secrets if len(secret) >= SHORTEST_KNOWN]

    async def ready(self, file: SharedFile) -> SharedFile:
        """The file as it may be said, with its true size; what has the form of a key is taken out of text.

        Raises FileRefused, and SurfaceBusy where the disk fails us.
        """
        return await asyncio.to_thread(self._ready, file)

    def drop(self, file: SharedFile) -> None:
        """Delete the copy: it was said, or never will be."""
        path = Path(file.path)
        if path.parent == self.directory:
            path.unlink(missing_ok=True)

    def sweep(self, named: Collection[str]) -> None:
        """Delete what is none of the `named` paths: a crash left it."""
        for path in self.directory.iterdir():
            if str(path) not in named:
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _ready(self, file: SharedFile) -> SharedFile:
        path = Path(file.path)
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise FileRefused(
                    f"It is too large: {size_words(path.stat().st_size)}, where at most"
                    f" {size_words(LARGEST_FILE)} can be shared."
                )
            data = path.read_bytes()
            if any(secret in data for secret in self._secrets):
                raise FileRefused(
                    "It holds a key of the bot, which nobody but an operator may see.",
                    "Have it made again without the key.",
                )
            text = text_of(data)
            if text is not None and (clean := "".join(map(redact, _pieces(text)))) != text:
                data = clean.encode()
                beside = path.with_name(f"{path.name}.clean")
                beside.write_bytes(data)
                beside.replace(path)
        except FileNotFoundError:
            raise FileRefused(
                "My copy of it was lost before I could show it.", "Ask the agent to share it again."
            ) from None
        except OSError as error:
            raise SurfaceBusy(f"The copy of a shared file cannot be used ({error}).", RETRY) from error
        return replace(file, size=len(data))


async def content(file: SharedFile) -> bytes:
    """What is in the copy. Raises FileRefused."""
    try:
        return await asyncio.to_thread(Path(file.path).read_bytes)
    except OSError as error:
        raise FileRefused(f"My copy of it cannot be read ({error.strerror}).") from error


def text_of(data: bytes) -> str | None:
    """The text that a file is, or None when it is something else."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if _NOT_TEXT.search(text) else text


def shown_name(file: SharedFile) -> str:
    """What a file is called in a thread."""
    return fit_name(file.name)


def fit_name(name: str) -> str:
    """One name and no path, all of it to be seen, on one line."""
    seen = UNSEEN.sub("", plain(name)).replace("\\", "/")
    name = " ".join(PurePosixPath(seen).name.split())
    if not name.strip("."):
        return "file"
    ending = PurePosixPath(name).suffix[:20]
    return name if len(name) <= NAME_CHARS else f"{name[: NAME_CHARS - 1 - len(ending)]}…{ending}"


def size_words(size: int) -> str:
    """A number of bytes, as people say it."""
    if size < 1_000:
        return f"{size} byte{'' if size == 1 else 's'}"
    if size < 999_500:
        return f"{size / 1_000:.0f} KB"
    return f"{size / 1_000_000:.1f} MB"


def in_words(file: SharedFile, trouble: str) -> str:
    """A line to a thread that was to see a file, in Markdown."""
    return f"`{shown_name(file).replace('`', 'ˋ')}` could not be shared. {trouble}"


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces of whole lines, as far as there are any; no key of several lines is cut in two."""
    start = 0
    while start < len(text):
        end = start + PIECE
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
            begun = text.rfind(_KEY_BEGINS, start, end)
            if begun > start and text.find(_KEY_ENDS, begun, end) < 0:
                end = begun
        yield text[start:end]
        start = end
