"""How a turn ends: published, answered, or broken off with its work kept."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bot.agents.wire import one_line, plain
from bot.driver import Deadlines, Driver, TurnStopped
from bot.errors import LeaseLost, ProcessGone, SandboxError, SandpiperError, StoreUnavailable, WorkspaceError
from bot.events import BrokenOff, LeftOver
from bot.models import TREE, Final, Outcome, PullRequest, Repository, Session, TurnKind
from bot.patience import patiently
from bot.ports import Clock, Process, Sandbox, Store, Surface
from bot.pull_requests import PullRequests
from bot.refusals import tell_denied
from bot.sandboxes import Sandboxes
from bot.workspace import Kept, Outgoing, Unfinished, Workspaces, kept_ref, repository_of

log = logging.getLogger(__name__)

EXIT_GRACE = 5.0
EARLIER = "There is unpublished work of an earlier turn: say `publish` to publish it."
Failed = list[tuple[str, SandpiperError]]  # with the repositories where it happened


@dataclass(frozen=True, slots=True)
class Leaving:
    """What is to be published in one of a session's repositories."""

    session: Session
    outgoing: Outgoing

    @property
    def repository(self) -> Repository:
        return repository_of(self.session)


class Endings:
    """The last part of each turn's story. Every step can be repeated after a crash."""

    def __init__(
        self,
        store: Store,
        surfaces: Mapping[str, Surface],
        sandboxes: Sandboxes,
        workspaces: Workspaces,
        pull_requests: PullRequests,
        clock: Clock,
        deadlines: Deadlines,
    ) -> None:
        self._store = store
        self._surfaces = surfaces
        self._sandboxes = sandboxes
        self._workspaces = workspaces
        self._pull_requests = pull_requests
        self._clock = clock
        self._deadlines = deadlines

    async def publish(self, driver: Driver, sandbox: Sandbox) -> Final:
        """Left-overs committed, then commits out, or an answer when nothing changed."""
        session = driver.session
        try:
            leaving, failed = await driver.within(
                "publish", self._deadlines.publish, self._gather(driver, sandbox), stoppable=True
            )
        except (LeaseLost, StoreUnavailable, TurnStopped):
            raise
        except SandpiperError as error:
            return self._unpublished(driver, [("", error)], ready=session.any_ready)
        if not leaving:
            ready = driver.session.any_ready
            return self._unpublished(driver, failed, ready=ready) if failed else self._answer(driver)
        for one in leaving:
            await self._store.set_ready(
                driver.turn.id, driver.fence, one.outgoing.work.head, one.repository.id
            )
        if not await self._store.begin_push(driver.turn.id, driver.fence):
            raise TurnStopped((await self._store.turn(driver.turn.id)).stop_by)
        await driver.phase("publish", "Opening the pull request")
        published: list[tuple[Repository, PullRequest]] = []
        for one in leaving:
            try:
                done = await self._published(driver, sandbox, one, published)
                published.append((one.repository, done))
            except (LeaseLost, StoreUnavailable):
                raise
            except SandpiperError as error:
                failed.append((one.repository.full_name if session.further else "", error))
        still_ready = (await self._store.session(session.id)).any_ready
        if failed:
            final = self._unpublished(driver, failed, ready=still_ready)
        else:
            text = driver.timeline.text
            notes = (*_notes(driver), EARLIER) if still_ready else _notes(driver)
            final = Final(Outcome.PUBLISHED, text, notes=notes, branch=session.branch)
        opened = [pull_request for _, pull_request in published]
        return replace(final, pull_request=opened[0] if opened else None, further=tuple(opened[1:]))

    async def _published(
        self, driver: Driver, sandbox: Sandbox, one: Leaving, before: Sequence[tuple[Repository, PullRequest]]
    ) -> PullRequest:
        pull_request = await driver.within(
            "publish", self._deadlines.publish, self._push(driver, sandbox, one, before), stoppable=False
        )
        # An earlier try at this turn may have opened it: the session did not know it before.
        created = pull_request.created or not one.session.pull_request
        pull_request = replace(pull_request, created=created)
        turn, head = driver.turn.id, one.outgoing.work.head
        await self._store.set_published(turn, driver.fence, head, pull_request, one.repository.id)
        return pull_request

    async def _gather(self, driver: Driver, sandbox: Sandbox) -> tuple[Sequence[Leaving], Failed]:
        """The agent's process ended, its left-overs settled, and what is to be published (nothing: an
        answer), and what keeps it from that in others of several repositories."""
        session, turn, clock = driver.session, driver.turn, driver.clock
        await patiently(clock, lambda: self.end_agent(driver, sandbox))
        if turn.kind is not TurnKind.PUBLISH:
            leaving: list[Leaving] = []
            failed: Failed = []
            for one in session.each():
                try:
                    outgoing = await self._fresh(driver, sandbox, one)
                except WorkspaceError as error:
                    if not session.further:
                        raise
                    failed.append((repository_of(one).full_name, error))
                    continue
                if outgoing is not None:
                    leaving.append(Leaving(one, outgoing))
            return leaving, failed
        await self._store.close_intake(turn.id, driver.fence)
        # What this turn has published before a crash is named with the rest: it is published again.
        kept = [
            (one, one.ready or one.published)
            for one in session.each()
            if one.ready or one.published_in == turn.id
        ]
        kept = kept or [(one, one.published) for one in session.each() if one.published]
        if not kept and (left := [one for one in session.left_out if one.ready]):
            names = ", ".join(one.repository.full_name for one in left)
            raise WorkspaceError(f"The work to publish is in {names}, which this thread cannot use now.")
        if not kept:
            raise WorkspaceError(
                "The work to publish is lost: the sandbox that it was in no longer exists.",
                repeatable=False,
            )
        found = [(one, await self._kept(driver, sandbox, one, commit)) for one, commit in kept]
        return [Leaving(one, outgoing) for one, outgoing in found if outgoing is not None], []

    async def _kept(self, driver: Driver, sandbox: Sandbox, session: Session, commit: str) -> Outgoing | None:
        """What an earlier turn left to publish."""
        await patiently(driver.clock, lambda: self._workspaces.adopt(session, sandbox, commit))
        return await patiently(driver.clock, lambda: self._workspaces.outgoing(session, sandbox, commit))

    async def _fresh(self, driver: Driver, sandbox: Sandbox, session: Session) -> Outgoing | None:
        """What this turn has done in one of the session's repositories."""
        turn, clock = driver.turn, driver.clock
        await self._settle(driver, sandbox, session)
        changed = await patiently(clock, lambda: self._workspaces.changed(session, sandbox, turn.id))
        outgoing = await patiently(clock, lambda: self._workspaces.outgoing(session, sandbox))
        if outgoing is None and changed and session.pull_request:
            taken_back = (
                "The branch has no commits of its own any more. The pull request still shows the old ones: "
            )
            await driver.tell(LeftOver((), (taken_back + "close it if it is not wanted.",)))
        if outgoing is not None and not changed:
            # Of an earlier turn that was broken off. Nobody has asked this one to publish it.
            if not session.ready:
                await self._store.set_ready(turn.id, driver.fence, outgoing.work.head, _id_of(session))
                driver.session = await self._store.session(session.id)
            return None
        return outgoing

    def _unpublished(
        self, driver: Driver, errors: Sequence[tuple[str, SandpiperError]], *, ready: bool
    ) -> Final:
        """The agent has done its part: what it said is told, and how its work gets out. errors: with the
        repositories where they happened, where there are several."""
        reason = " ".join(f"{where}: {error.what}" if where else error.what for where, error in errors)
        mends = " ".join(dict.fromkeys(error.mend for _, error in errors if error.mend))
        if not any(error.repeatable for _, error in errors):
            then = "Write here what to change, and I work on it."
        else:
            then = "say `publish` here: it needs no new run." if ready else "write here to go on."
            then = f"Then {then}" if mends else then.capitalize()
        return Final(
            Outcome.UNPUBLISHED,
            driver.timeline.text,
            reason=reason,
            mend=f"{mends} {then}".strip(),
            notes=_notes(driver),
            branch=driver.session.branch,
        )

    def _answer(self, driver: Driver) -> Final:
        """Nothing to publish: the agent's words, and the pull request if there is one."""
        session, notes = driver.session, _notes(driver)
        if session.any_ready:
            notes = (*notes, EARLIER)
        known = [pull_request for one in session.each() if (pull_request := _known(one)) is not None]
        return Final(
            Outcome.ANSWERED,
            driver.timeline.text,
            notes=notes,
            pull_request=known[0] if known else None,
            branch=session.branch,
            further=tuple(known[1:]),
        )

    async def _push(
        self, driver: Driver, sandbox: Sandbox, one: Leaving, before: Sequence[tuple[Repository, PullRequest]]
    ) -> PullRequest:
        now = await self._store.session(driver.session.id)  # its agent may have named the work since
        session = next(each for each in now.each() if _id_of(each) == one.repository.id)
        outgoing, answer = one.outgoing, driver.timeline.text
        threads = [
            (key, self._surfaces[key.surface].link(key) if key.surface in self._surfaces else "")
            for key in await self._store.threads(session.id)
        ]
        people = await self._store.authors(session.id)
        summary = (
            session.description or answer or "\n".join(f"- {subject}" for subject in outgoing.work.subjects)
        )
        return await self._pull_requests.publish(session, sandbox, outgoing, summary, threads, people, before)

    async def _settle(self, driver: Driver, sandbox: Sandbox, session: Session) -> None:
        """The agent was asked once; what is still not committed, the bot commits under its own name, and
        what is not on the branch it puts aside. Told before it is done, for a bot that restarts in it."""
        turn, workspaces = driver.turn.id, self._workspaces
        left = await patiently(driver.clock, lambda: workspaces.unfinished(session, sandbox, turn))
        notes = _in_tree(session, _left(left, session.branch, kept_ref(turn)))
        if notes:
            await driver.tell(LeftOver((), notes))
        files = await patiently(driver.clock, lambda: workspaces.settle(session, sandbox, turn))
        if files:
            await driver.tell(LeftOver(_of_tree(session, files)))
            message = leftover_message(files)
            await patiently(driver.clock, lambda: workspaces.commit_all(session, sandbox, message))

    async def broken_off(self, driver: Driver, outcome: Outcome, error: SandpiperError) -> Final:
        """A turn that did not reach its end: its process is ended and its work kept on a ref."""
        if outcome is Outcome.FAILED and driver.timeline.broken_off is None:
            await driver.tell(BrokenOff(error.what, error.mend))
        await self._store.close_intake(driver.turn.id, driver.fence)
        notes: tuple[str, ...] = ()
        try:
            notes = await driver.within(
                "publish", self._deadlines.publish, self._salvage(driver), stoppable=False
            )
        except (LeaseLost, StoreUnavailable):
            raise
        except SandpiperError as trouble:
            notes = (f"What was done so far could not be put on a ref: {trouble.what}",)
        except Exception:  # or the turn would be taken up again, and fail again, without an end
            log.exception("the work of turn %s could not be kept", driver.turn.id)
            notes = ("What was done so far could not be put on a ref. It is where the agent left it.",)
        mend = error.mend or ("" if outcome is Outcome.STOPPED else "Write here to try again.")
        return Final(
            outcome, driver.timeline.text, error.what, mend, notes=notes, branch=driver.session.branch
        )

    async def _salvage(self, driver: Driver) -> tuple[str, ...]:
        session, turn = driver.session, driver.turn
        sandbox = await self._sandboxes.existing(session.owner)
        if sandbox is None or not session.branch or turn.kind is TurnKind.PUBLISH:
            return ()
        await self.end_agent(driver, sandbox)
        await sandbox.enter()
        await tell_denied(driver, sandbox)  # what was met since it was last looked, as by a hook that hung
        notes: tuple[str, ...] = ()
        for one in session.each():
            if not one.base:  # it was not opened yet
                continue
            try:
                kept = await self._salvaged(driver, sandbox, one)
            except WorkspaceError as trouble:  # of this one; the others are kept all the same
                kept = (f"What was done so far could not be put on a ref: {trouble.what}",)
            notes += _in_tree(one, kept)
        return notes

    async def _salvaged(self, driver: Driver, sandbox: Sandbox, session: Session) -> tuple[str, ...]:
        turn, clock = driver.turn, driver.clock
        left = await patiently(clock, lambda: self._workspaces.unfinished(session, sandbox, turn.id))
        kept = await patiently(clock, lambda: self._workspaces.keep(session, sandbox, turn.id))
        notes = _kept(left, kept, session.branch)
        outgoing = await patiently(clock, lambda: self._workspaces.outgoing(session, sandbox, kept.commit))
        if outgoing is None or kept.commit == session.published:
            return notes
        await self._store.set_ready(turn.id, driver.fence, kept.commit, _id_of(session))
        commits = "1 commit" if outgoing.work.commits == 1 else f"{outgoing.work.commits} commits"
        where = f"on its branch `{session.branch}`" if left.astray else f"in the sandbox as `{kept.ref}`"
        say = f"The work so far is kept {where} ({commits}). Say `publish` to publish it without a new run."
        return (*notes, say)

    async def end_agent(self, driver: Driver, sandbox: Sandbox) -> None:
        """End the agent's process of this attempt, if it is still there."""
        with contextlib.suppress(ProcessGone):
            key = f"turn-{driver.turn.id}-{driver.turn.attempt}"
            await self.end_process(driver, await sandbox.attach(key, fence=driver.fence))

    async def end_process(self, driver: Driver, process: Process) -> None:
        """Close stdin, wait, then kill the whole group. A sandbox that is away ends it itself."""
        try:
            await process.write(driver.turn.in_offset, b"", eof=True)
        except SandboxError as error:
            log.debug("stdin of %s: %s", process.key, error)
        try:
            for name, grace in (("", EXIT_GRACE), ("TERM", EXIT_GRACE), ("KILL", EXIT_GRACE)):
                if name:
                    await process.signal(name)
                if await self._exits(process, grace):
                    break
            await process.forget()
        except SandboxError as error:
            log.info("could not end process %s: %s", process.key, error)

    async def _exits(self, process: Process, grace: float) -> bool:
        deadline = self._clock.now() + grace
        while (await process.status()).running:
            if self._clock.now() >= deadline:
                return False
            await self._clock.sleep(0.05)
        return True


def _id_of(session: Session) -> int:
    return repository_of(session).id


def _in_tree(session: Session, notes: Sequence[str]) -> tuple[str, ...]:
    """What is said of a further repository names it."""
    name = "" if session.tree == TREE else f"{repository_of(session).full_name}: "
    return tuple(f"{name}{note}" for note in notes)


def _of_tree(session: Session, files: Sequence[str]) -> tuple[str, ...]:
    below = "" if session.tree == TREE else f"{session.tree}/"
    return tuple(f"{below}{file}" for file in files)


LEFTOVER_SUBJECT = "Commit what the agent left over"


def leftover_message(files: Sequence[str]) -> str:
    listed = "\n".join(f"- {_named(name)}" for name in files[:100])
    return f"{LEFTOVER_SUBJECT}\n\nThese changes were not committed when the turn ended:\n{listed}"


def _notes(driver: Driver) -> tuple[str, ...]:
    """What became of the things that the agent left unfinished."""
    picture = driver.timeline
    if not picture.left_over:
        return picture.left_notes
    committed = f"The agent left changes uncommitted, so I committed them: {_some(picture.left_over)}."
    return (*picture.left_notes, committed)


def _left(left: Unfinished, branch: str, ref: str) -> tuple[str, ...]:
    """What is not on the branch, in words."""
    notes = []
    kept = f"I left that out; what lay there is kept in the sandbox as `{ref}`."
    if left.gone:
        notes.append("The worktree was deleted or replaced. What was committed on its branch is not lost.")
    if left.operation:
        notes.append(f"A {left.operation} was still in progress. {kept}")
    if left.elsewhere:
        notes.append(f"The agent ended at `{left.elsewhere}` and not on `{branch}`. {kept}")
    if left.nested:
        notes.append(f"Not taken in, being git repositories of their own: {_some(left.nested)}.")
    return tuple(notes)


def _kept(left: Unfinished, kept: Kept, branch: str) -> tuple[str, ...]:
    """What was not committed at a turn that was broken off, in words; and what is not kept with the rest."""
    notes = _left(left, branch, kept.ref)
    if left.files:
        how = "Not committed there" if left.astray else "Not committed yet, but kept, in a commit of my own"
        notes = (*notes, f"{how}: {_some(left.files)}.")
    return notes


def _named(file: str) -> str:
    """A file's name cannot end its line or its code span, nor a commit message its subject."""
    return one_line(plain(file), 200).replace("`", "'")


def _some(files: Sequence[str]) -> str:
    shown = ", ".join(f"`{_named(name)}`" for name in files[:8])
    return shown + (f" and {len(files) - 8} more" if len(files) > 8 else "")


def _known(session: Session) -> PullRequest | None:
    """The session's earlier pull request, for an answer that changed nothing."""
    if not session.pull_request or session.repository is None:
        return None
    return PullRequest(
        session.pull_request,
        session.pull_request_url,
        session.title,
        session.branch,
        session.base,
        session.repository.full_name,
        created=False,
    )
