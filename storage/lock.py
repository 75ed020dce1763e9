"""One process per data directory: an advisory lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from bot.errors import SettingsError

LOCK_FILE = "lock"


class DirectoryLock:
    """Held from construction to `release`. Raises SettingsError, naming the process that has it."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file: TextIO = (directory / LOCK_FILE).open("a+")
            self._take(directory)
        except OSError as exc:
            raise SettingsError(
                f"The data directory {directory} cannot be used: {exc.strerror}.",
                "Give the bot a directory that it may write to, with room on its disk.",
            ) from exc

    def _take(self, directory: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._file.seek(0)
            holder = self._file.read().strip() or "a process that has just started"
            self._file.close()
            raise SettingsError(
                f"The data directory {directory} is in use by {holder}.",
                "Stop that process, or give this one a data directory of its own.",
            ) from exc
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._file.flush()

    def release(self) -> None:
        self._file.close()
