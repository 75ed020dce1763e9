"""A user id of this machine for each local sandbox, where the bot is root.

Programs of a box, bubblewrap itself and the egress proxy then run as that user: who gets out of a box has no
right on another sandbox, on what the bot has, or on anybody's processes, and the kernel counts its processes
apart. A sandbox's box.json says which id is its own, and nobody has it until the sandbox is deleted. One more
is whose agents' programs are, and who installs them; everybody reads them. Ids are drawn from the range by
lot, so that two bots on one machine hardly ever draw the same.

Why so, and what else there was: docs/decisions/0021-a-user-for-each-sandbox.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import itertools
import logging
import os
import pwd
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bot.errors import ProviderUnavailable, SandboxFull, SettingsError
from sandbox.local_files import give, read_about, told, write_about
from sandbox.process import run_helper

log = logging.getLogger(__name__)

SETTING = "SANDPIPER_SANDBOX_UIDS"
# systemd gives ids below these to containers and keeps those above for foreign files; shadow's useradd hands
# out none as high (https://systemd.io/UIDS-GIDS/, login.defs(5)).
USUAL = "2000000000-2099999999"
ELSEWHERE = f"Set {SETTING} to ids that nobody has."
NEEDED = ("setpriv", "prlimit", "chown", "chmod")


def id_range(text: str) -> range:
    """Raises SettingsError that names the variable."""
    found = re.fullmatch(r"(\d{1,10})-(\d{1,10})", text.replace(" ", ""))
    ids = range(int(found[1]), int(found[2]) + 1) if found else range(0)
    if len(ids) < 2 or ids[0] < 1000 or ids[-1] >= 1 << 31:
        raise SettingsError(
            f"{SETTING}: '{text}' is no range of user ids.",
            f"Write it as {USUAL}: two or more, from 1000 on.",
        )
    return ids


class Users:
    """Of all sandboxes in one directory.

    wanted: the range; "": the usual one, and where that cannot be had, sandboxes run as root as they did
    before there were ids. reads: directories of this machine that every box shows; None: there are no boxes,
    and so no ids. data_dir: the bot's own, above `directory`; these users are let pass through it.
    """

    def __init__(
        self,
        directory: Path,
        wanted: str = "",
        *,
        reads: Sequence[Path] | None = (),
        data_dir: Path | None = None,
    ) -> None:
        self._directory = directory
        self._ids = id_range(wanted or USUAL)
        self._required = bool(wanted)
        self._reads = reads or ()
        self._data_dir = data_dir
        self._lock = asyncio.Lock()
        self._installer = 0
        # None: not known yet
        self._used: bool | None = None if os.geteuid() == 0 and reads is not None else False

    @property
    def installer(self) -> int:
        """Who installs agents' programs; 0: the bot's own user, as for everything."""
        return self._installer

    async def ready(self) -> None:
        """Find out once whether it works here, as far as files say. Raises ProviderUnavailable where ids were
        asked for and cannot be had."""
        async with self._lock:
            if self._used is not None:
                return
            try:
                await asyncio.to_thread(self._look)
                self._used = True
            except ProviderUnavailable as error:
                self._give_up(error)
            await asyncio.to_thread(self._share_agents)

    async def do_without(self, error: ProviderUnavailable) -> None:
        """A box could not be made as such a user. Raises that error where ids were asked for."""
        async with self._lock:
            self._give_up(error)
            await asyncio.to_thread(self._share_agents)

    def settle(self, root: Path, about: Mapping[str, Any]) -> int:
        """Write down whose a sandbox's programs are, with what else its box.json says. Returns that id; 0:
        the bot's own user. Raises SandboxFull when all are given away."""
        if not self._used:
            write_about(root, {**about, "uid": 0})
            return 0
        with self._alone():
            uid = int(about.get("uid", 0))
            if not self.fits(uid):
                uid = self._draw()
            write_about(root, {**about, "uid": uid})
        return uid

    def fits(self, uid: int) -> bool:
        """Whether this is an id that a sandbox can have here."""
        return uid in self._ids if self._used else uid == 0

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else gives ids of this directory away, in this process or another."""
        lock = os.open(self._directory / "uids.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _draw(self) -> int:
        """One that nobody in this directory has, also of what is being made or deleted."""
        taken = {(self._directory / "agents").stat().st_uid}
        for path in self._directory.glob("*/box.json"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                # Where one does not say whose its files are, they do.
                taken.add((path.parent / "home").stat().st_uid)
            with told(path.parent):
                taken.add(read_about(path.parent)["uid"])
        start = secrets.randbelow(len(self._ids))
        for id in itertools.chain(self._ids[start:], self._ids[:start]):
            if id not in taken:
                return id
        raise SandboxFull(
            f"All user ids for sandboxes are given away ({SETTING}).",
            "Set a wider range, or delete sandboxes that nobody needs.",
        )

    def _give_up(self, error: ProviderUnavailable) -> None:
        if self._required:
            raise error
        self._used = False
        log.warning(
            "The bot runs as root, and so do its local sandboxes, without user ids of their own: %s %s",
            error.what,
            error.mend,
        )

    def _share_agents(self) -> None:
        """Agents' programs are whose installations are, and everybody may read them."""
        agents = self._directory / "agents"
        agents.mkdir(mode=0o700, exist_ok=True)
        with self._alone():
            owner = agents.stat().st_uid
            if not self.fits(owner):
                owner = self._draw() if self._used else 0
                give("chmod", "-R", "u=rwX,go=rX", "--", str(agents))
                give("chown", "-hR", "--", f"{owner}:{owner}", str(agents))
        self._installer = owner

    def _look(self) -> None:
        """Raises ProviderUnavailable with what stands against it."""
        for program in NEEDED:
            if shutil.which(program, path=os.defpath) is None:
                raise ProviderUnavailable(f"There is no {program}.", "Install it (util-linux, coreutils).")
        for kind in ("uid", "gid"):
            if not _within(self._ids, Path(f"/proc/self/{kind}_map").read_text(encoding="ascii")):
                raise ProviderUnavailable(f"This container has not the {kind}s of {SETTING}.", ELSEWHERE)
        for name in _others(self._ids):
            raise ProviderUnavailable(f"'{name}' has ids out of {SETTING}.", ELSEWHERE)
        if self._data_dir is not None:
            _let_pass(self._data_dir)
        self._directory.chmod(0o711)
        for path in (self._directory, *self._reads):
            for above in reversed(path.resolve().parents):
                if not above.stat().st_mode & stat.S_IXOTH:
                    raise ProviderUnavailable(
                        f"Other users than root cannot reach {path}.",
                        f"Move it, or let them pass: chmod o+x {above}.",
                    )
        for path in self._reads:
            if path.stat().st_mode & 0o005 != 0o005:
                raise ProviderUnavailable(
                    f"Other users than root cannot read {path}.", f"Let them: chmod -R o+rX {path}."
                )


async def end_all(uid: int) -> None:
    """What still runs as a sandbox's user after its last program is nothing of ours: end it."""
    words = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", "--")
    await run_helper([*words, "/bin/sh", "-c", "kill -KILL -1"], b"")  # fails where nothing is left


def _within(ids: range, mapping: str) -> bool:
    """Whether a user namespace has all of them."""
    for line in mapping.splitlines():
        inside, _, count = map(int, line.split())
        if inside <= ids[0] and ids[-1] < inside + count:
            return True
    return False


def _others(ids: range) -> Iterator[str]:
    """Who else has ids out of the range, or may give them away."""
    yield from (user.pw_name for user in pwd.getpwall() if user.pw_uid in ids)
    yield from (group.gr_name for group in grp.getgrall() if group.gr_gid in ids)
    for file in (Path("/etc/subuid"), Path("/etc/subgid")):
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
            name, _, rest = line.partition(":")
            first, _, count = rest.partition(":")
            if first.isdecimal() and count.isdecimal():
                given = range(int(first), int(first) + int(count))
                if given and given[0] <= ids[-1] and ids[0] <= given[-1]:
                    yield name


def _let_pass(data_dir: Path) -> None:
    """Where others may not pass a directory of ours they may from now on, and get no right on what is in it,
    which they could not reach until now."""
    mode = stat.S_IMODE(data_dir.stat().st_mode)
    if mode & stat.S_IXOTH:
        return
    for path in data_dir.iterdir():
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o007)
    data_dir.chmod(mode & ~0o006 | stat.S_IXOTH)
