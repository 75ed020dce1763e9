"""What a session of a local sandbox has for itself of the home. bubblewrap shows it in its place; here it is
made ready on this machine, where agents may have put anything into the home meanwhile."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from pathlib import Path

from bot.errors import SandboxError
from bot.models import Launch
from sandbox.bubblewrap import Place, private
from sandbox.local_files import open_up, open_up_at

log = logging.getLogger(__name__)

EARLIER = ".earlier"  # no session is called so


def make_private(place: Place, launch: Launch) -> None:
    """Before each program. Raises SandboxError."""
    try:
        open_up(place.home)
        for path, own in private(place, launch).items():
            _make(place, own)
            _clear(place, path)
    except OSError as error:
        raise SandboxError(f"A session's part of the home cannot be made: {error.strerror}.") from error


def _make(place: Place, own: Path) -> None:
    """What is above belongs to the bot: bubblewrap follows links on its way to what it binds."""
    below = own.relative_to(place.root)
    for directory in (*reversed(below.parents[:-1]), below):
        path = place.root / directory
        path.mkdir(mode=0o700, exist_ok=True)
        if not place.uid:
            continue
        if path != own:
            path.chmod(0o711)
        elif path.lstat().st_uid != place.uid:
            os.chown(path, place.uid, place.uid, follow_symlinks=False)


def _clear(place: Place, path: str) -> None:
    """Have nothing in its place in the home that all sessions read, as earlier releases left it there, and
    nothing that keeps bubblewrap from getting there."""
    fds, part = [os.open(place.home, os.O_PATH | os.O_DIRECTORY)], ""
    try:
        for part in Path(path).parts:
            fds.append(os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fds[-1]))
            open_up_at(fds[-1])
        if any(Path(f"/proc/self/fd/{fds[-1]}").iterdir()):
            earlier = place.sessions / EARLIER
            earlier.mkdir(mode=0o700, exist_ok=True)
            os.rename(part, earlier / secrets.token_hex(8), src_dir_fd=fds[-2])
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        log.warning("sandbox %s: %s is no directory in the home, and moved aside", place.root.name, part)
        with contextlib.suppress(FileNotFoundError):
            os.rename(part, f"{part}.aside-{secrets.token_hex(4)}", src_dir_fd=fds[-1], dst_dir_fd=fds[-1])
    finally:
        for fd in fds:
            os.close(fd)
