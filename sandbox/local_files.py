"""The files of a local sandbox on this machine: laid out, given to whom they belong, removed."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bot.errors import SandboxError, SandboxFull, SandboxGone
from bot.models import ExecResult
from sandbox.bubblewrap import Place
from sandbox.whole import write_whole

log = logging.getLogger(__name__)

SCRAP = ".scrap-"

# $1 path; stdin: the content. Moved into place whole.
STORE = """
mkdir -p -- "$(dirname -- "$1")" && rm -rf -- "$1.part" && cat >"$1.part" &&
{ ! test -d "$1" || rm -rf -- "$1"; } && mv -f -- "$1.part" "$1"
"""
# $1 path, $2 bytes. A link is not followed.
FETCH = 'test -f "$1" && ! test -L "$1" || { echo "not a regular file" >&2; exit 66; }; head -c "$2" -- "$1"'


def scrap(directory: Path) -> Path:
    """A name for what is being made or deleted; whatever has such a name for long goes at a check."""
    return directory / f"{SCRAP}{secrets.token_hex(6)}"


def since_named(path: Path) -> float:
    """Seconds since it got its name, or since it was made; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_ctime
    except FileNotFoundError:
        return 0.0


def lay_out(place: Place) -> None:
    kept = (place.home, place.workspaces, place.repositories, place.sessions, place.spool, place.run)
    for directory in (*kept, place.agents):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    open_up(place.home)
    own(place)


def open_up(directory: Path) -> None:
    """Have its owner pass, whatever an agent has made of its mode. A link is not followed: raises OSError."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        open_up_at(fd)
    finally:
        os.close(fd)


def open_up_at(fd: int) -> None:
    here = Path(f"/proc/self/fd/{fd}")
    if here.stat().st_mode & stat.S_IRWXU != stat.S_IRWXU:
        here.chmod(stat.S_IRWXU)


def remove_tree(root: Path) -> None:
    """Delete a tree of any depth, also where its owner took the rights to its own directories away. Raises
    OSError."""
    root.chmod(stat.S_IRWXU)
    for command in (("chmod", "-R", "u+rwX"), ("rm", "-rf")):
        done = _run(*command, "--", str(root))
    if done.returncode != 0:
        raise OSError(errno.EIO, _said(done), str(root))


# What is known of it


def read_about(root: Path) -> dict[str, Any]:
    """A sandbox's box.json. Raises SandboxGone, and SandboxError where it says nothing."""
    file = root / "box.json"
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        return {**about, "labels": dict(about["labels"]), "uid": int(about.get("uid", 0))}
    except FileNotFoundError as error:
        raise SandboxGone(f"The sandbox {root.name} was deleted.") from error
    except (ValueError, KeyError, TypeError, AttributeError, NotADirectoryError) as error:
        raise SandboxError(
            f"{file} says nothing of its sandbox: a full disk or a power cut may have cut it off.",
            f"Bring it back from a backup; or delete {root}, with all work in it, for a new sandbox.",
        ) from error


@contextlib.contextmanager
def told(root: Path) -> Iterator[None]:
    """While many are looked at: one that says nothing, or was deleted just now, is left out."""
    try:
        yield
    except SandboxGone:
        pass
    except SandboxError as error:
        log.warning("sandbox %s is left out: %s", root.name, error)


def write_about(root: Path, about: Mapping[str, Any]) -> None:
    write_whole(root / "box.json", json.dumps(about))


# Whose they are


def own(place: Place) -> None:
    """Have a sandbox's directories belong to whom they are to: what its programs write to is its user's own;
    what stands beside the box is the bot's, with a way through where bubblewrap has to pass. Whoever has not
    the sandbox's group sees nothing of it."""
    if os.geteuid() != 0:
        return
    for path in (place.root, place.home):
        os.chown(path, 0 if path == place.root else place.uid, place.uid)
    place.root.chmod(0o710 if place.uid else 0o700)
    if place.uid:
        place.egress.mkdir(mode=0o700, exist_ok=True)
        for path in (place.workspaces, place.repositories, place.sessions, place.run, place.egress):
            os.chown(path, 0, 0)
            path.chmod(0o711)
        if place.agents.stat().st_uid != place.installer:  # made just now
            os.chown(place.agents, place.installer, place.installer)
            place.agents.chmod(0o755)


def hand_over(place: Place) -> None:
    """Give a stopped sandbox's files to the user that its programs run as now. Links in it are not followed,
    and can be of an agent's making. Raises SandboxError."""
    kept = (place.home, place.workspaces, place.repositories, place.sessions)
    give("chown", "-hR", "--", f"{place.uid}:{place.uid}", *map(str, kept))


def give(*argv: str) -> None:
    """Run chown or chmod. Raises SandboxError."""
    done = _run(*argv)
    if done.returncode != 0:
        raise SandboxError(f"A sandbox's files cannot be given to its user: {_said(done)}.")


def _run(*argv: str) -> subprocess.CompletedProcess[bytes]:
    """A program of the system that goes through trees: it follows no links and goes down any depth."""
    return subprocess.run(argv, env={"PATH": os.defpath}, capture_output=True, check=False)


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    return (done.stderr.decode(errors="replace").splitlines() or [f"exit code {done.returncode}"])[-1]


# In and out


def transfer_failed(path: str, result: ExecResult) -> SandboxError:
    said = result.err.decode(errors="replace").strip()
    if "No space left" in said or "quota" in said.lower():
        return SandboxFull(f"There is no space left for {path}.", "Delete files in the sandbox's home.")
    return SandboxError(f"{path} in the sandbox: {said or f'exit code {result.code}'}.")
