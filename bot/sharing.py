"""What an agent offers people while it works, files and servers of its box, brought into the thread."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from bot.driver import Driver
from bot.errors import SandboxError
from bot.events import FileOffered, PortOffered, Shared
from bot.models import Launch, Saying, SayingKind, Session, SharedFile, ThreadKey, Turn
from bot.patience import patiently
from bot.ports import Clock, Sandbox, Store
from bot.shared_files import LARGEST_FILE, SharedFiles
from bot.timeline import Timeline, span
from bot.workspace import own_directory, visible_to

_NAME = re.compile(r"[0-9a-f]{16}")
# An agent that an earlier release started leaves them in the home.
ELSEWHERE = "If the bot was updated while the agent worked, it can share from its next turn on."

MOST_WAITING = 100 * 1024 * 1024  # bytes of a turn's files that are not shown yet

Offer = FileOffered | PortOffered


@dataclass(frozen=True, slots=True)
class ShareOutcome:
    """What became of an offer, in words for people (`text`) and for the agent (`told`). done: people have
    it, or will."""

    offer: Offer
    done: bool
    text: str
    told: str


class Sharing:
    """files: where they wait until they are said."""

    def __init__(self, store: Store, clock: Clock, files: SharedFiles) -> None:
        self._store = store
        self._clock = clock
        self._files = files

    async def share(self, driver: Driver, sandbox: Sandbox, offer: Offer) -> ShareOutcome:
        """Doing it again, after a restart, shares it no second time."""
        try:
            if isinstance(offer, PortOffered):
                return await self._port(driver, sandbox, offer)
            return await self._file(driver, sandbox, offer)
        except (SandboxError, OSError) as error:
            why = error.what if isinstance(error, SandboxError) else f"{error.strerror or error}."
            return ShareOutcome(offer, False, why, f"Not shared: {why}")

    async def _file(self, driver: Driver, sandbox: Sandbox, offer: FileOffered) -> ShareOutcome:
        turn = driver.turn
        if not _is_ours(sandbox, turn, offer.path):
            raise SandboxError("What was offered is none of the copies that are made for it.", ELSEWHERE)
        name = f"{turn.id}-{turn.attempt}-{PurePosixPath(offer.path).name}"
        copy = self._files.directory / name
        if not copy.exists():  # else it waits to be said, and may be read at this moment
            waiting = sum(path.stat().st_size for path in self._files.directory.glob(f"{turn.id}-*"))
            if waiting > MOST_WAITING:
                raise SandboxError("Too much waits to be shown in the thread. Share less, or later.")
            part = copy.with_name(f"{name}.part")
            await patiently(self._clock, lambda: sandbox.download(offer.path, part, limit=LARGEST_FILE))
            part.replace(copy)
        saying = Saying(
            key=f"file:{name}",
            kind=SayingKind.FILE,
            thread=turn.thread,
            turn=turn.id,
            file=SharedFile(str(copy), offer.name, offer.title, offer.size),
        )
        if not await self._store.say(saying):  # before a restart, and perhaps it was shown and dropped since
            paths = await self._store.shared_files()
            if str(copy) not in paths:
                copy.unlink(missing_ok=True)
        told = "It is on its way into the thread. If it cannot be shown there, people are told so."
        return ShareOutcome(offer, True, "Handed over", told)

    async def _port(self, driver: Driver, sandbox: Sandbox, offer: PortOffered) -> ShareOutcome:
        turn = driver.turn
        if not _is_ours(sandbox, turn, offer.path):
            raise SandboxError("What was offered is none of the ways that are made for it.", ELSEWHERE)
        strangers = anybody_reads(turn.thread, driver.session)
        where = entrance(sandbox, turn)
        link = await sandbox.expose(offer.port, offer.path, entrance=where, strangers=strangers)
        url = link.url
        ends = ""
        if link.bearer:
            ends = f", and for {span(link.bearer)} at most: whoever has the link may open it"
        what = offer.title or f"Port {offer.port} of the sandbox"
        saying = Saying(
            key=f"port:{turn.id}:{turn.attempt}:{offer.id}:{url}",
            kind=SayingKind.NOTE,
            thread=turn.thread,
            turn=turn.id,
            text=f"{what}: {url} (for as long as this turn runs{ends})",
        )
        await self._store.say(saying)
        return ShareOutcome(offer, True, url, f"People reach it at {url} until this turn ends{ends}.")

    async def end(self, driver: Driver, sandbox: Sandbox) -> None:
        """Nothing of the turn's is to be reached any more."""
        left = (*driver.timeline.ports, *driver.timeline.offers)
        for offer in left:
            if isinstance(offer, PortOffered):
                with contextlib.suppress(SandboxError):
                    await sandbox.conceal(offer.path)
        with contextlib.suppress(SandboxError):
            await sandbox.conceal(entrance(sandbox, driver.turn))
        await self.tidy(driver, sandbox, *left)

    async def tidy(self, driver: Driver, sandbox: Sandbox, *offers: Offer) -> None:
        """Drop what lay in the box for offers, once it is of no use any more."""
        paths = [offer.path for offer in offers if _is_ours(sandbox, driver.turn, offer.path)]
        if paths:
            seen = visible_to(driver.session, sandbox)
            with contextlib.suppress(SandboxError):  # it is no secret there, and its owner's
                await sandbox.run(Launch(("rm", "-f", "--", *paths), sandbox.home, visible=seen, ours=True))


def anybody_reads(thread: ThreadKey, session: Session) -> bool:
    """Whether strangers read what is said there: a link that asks nobody who they are is not for them."""
    known = session.repositories
    return thread.surface == "github" and not (known and all(one.private for one in known))


def copies(sandbox: Sandbox, session: str) -> str:
    """Where a session's side tools leave copies of files and sockets of ports."""
    return f"{own_directory(sandbox, session)}/shared"


def entrance(sandbox: Sandbox, turn: Turn) -> str:
    """Where what an attempt at a turn serves is reached (Launch.entrance)."""
    return f"{copies(sandbox, turn.session)}/at-{turn.id}-{turn.attempt}"


def nobody_waits(timeline: Timeline) -> tuple[Shared, ...]:
    """Of an agent that has ended: what it offered is nobody's any more."""
    left = {offer.id: offer for offer in (*timeline.offers, *timeline.ports)}
    return tuple(Shared(id, "The agent ended before", done=False) for id in left)


def _is_ours(sandbox: Sandbox, turn: Turn, path: str) -> bool:
    """A path is what the agent's side says: nothing else of the box is fetched or deleted."""
    directory, _, name = path.rpartition("/")
    return directory == copies(sandbox, turn.session) and _NAME.fullmatch(name) is not None
