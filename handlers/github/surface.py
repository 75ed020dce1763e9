"""GitHub's issues and pull requests as a place where people talk to us."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar

from github import Github
from github.Issue import Issue
from github.IssueComment import IssueComment
from github.NamedUser import NamedUser
from github.Organization import Organization

from bot.errors import FileRefused, ForgeError, SurfaceBusy, SurfaceError
from bot.models import (
    Attachment,
    Closing,
    Delivery,
    Identity,
    Mark,
    Message,
    MessageRef,
    OutboxItem,
    Remark,
    Saying,
    SayingKind,
    Standing,
    ThreadKey,
)
from bot.redact import redact
from bot.shared_files import content
from bot.timeline import Timeline
from handlers.github import closings, standings
from handlers.github.accounts import Accounts
from handlers.github.auth import TALK, GitHubApp, Scope
from handlers.github.failures import CallFailed, NoToken
from handlers.github.parse import SURFACE, Ourselves, decoded, parse
from handlers.github.render import (
    ask_comment,
    file_comment,
    final_comment,
    marker,
    starting_comment,
    timeline_comment,
    words,
)
from handlers.github.repositories import Repositories
from handlers.github.text import clip, visible

T = TypeVar("T")

SHORTEST_REDRAW = 5.0
REDRAW_PER_TURN = 2.0  # a write a second is all that an installation has, and finals need some of them
LOOK_BACK = timedelta(minutes=2)  # our clock and GitHub's may differ
PAUSE = 5.0
MOST_REMARKS = 30
REMARK_CHARS = 4_000
DRAWN_KEPT = 1_000

# What GitHub offers: +1 -1 laugh confused heart hooray rocket eyes
_SEEN = "eyes"
_REACTIONS = {
    Mark.SEEN: _SEEN,
    Mark.QUEUED: _SEEN,
    Mark.CONSUMED: "rocket",
    Mark.REFUSED: "confused",
    Mark.DROPPED: "confused",
}
_SENT = re.compile(r"(\d{10})\.000000#(\d{20})")


class GitHubSurface:
    """`bot.ports.Surface` on GitHub: a comment that is redrawn, comments that are new, reactions."""

    name = SURFACE

    def __init__(
        self, app: GitHubApp, repositories: Repositories, accounts: Accounts, ourselves: Ourselves
    ) -> None:
        self._app = app
        self._repositories = repositories
        self._accounts = accounts
        self._ourselves = ourselves
        self._drawn: dict[str, str] = {}

    # in

    async def parse(self, delivery: Delivery) -> Sequence[Message]:
        messages = parse(delivery, self._ourselves)
        for message in messages:
            installation = int(message.author.tenant.rpartition(":")[2])
            self._repositories.learn(int(message.thread.scope), message.repository, installation)
            self._accounts.learn(message.author.user, message.author.name)
        return messages

    def standings(self, delivery: Delivery) -> Sequence[Standing]:
        if delivery.kind not in standings.EVENTS:
            return ()
        return standings.standings(delivery.kind, decoded(delivery.body))

    def closings(self, delivery: Delivery) -> Sequence[Closing]:
        if delivery.kind not in closings.EVENTS:
            return ()
        return closings.closings(delivery.kind, decoded(delivery.body))

    async def standing(self, identity: Identity) -> Sequence[Standing]:
        """Of the installation only: what an account may is asked of each repository."""
        installation = int(identity.tenant.rpartition(":")[2])
        try:
            suspended = await self._app.as_app(lambda github: _suspended(github, installation))
        except ForgeError as error:
            if isinstance(error, NoToken) or not isinstance(error, CallFailed) or error.status != 404:
                raise _translated(error) from error
            return (standings.of_installation(installation, standings.UNINSTALLED),)
        return (standings.of_installation(installation, standings.SUSPENDED if suspended else ""),)

    async def open_thread(self, message: Message) -> ThreadKey:
        """Every message on GitHub has its thread already."""
        return message.thread

    async def remarks(self, thread: ThreadKey, before: str) -> Sequence[Remark]:
        """Comments made before, as they were then: whatever was written or edited since is left out.

        The issue itself is not among them: it comes with the message, as it was when that was sent.
        """
        asked = _SENT.fullmatch(before)
        if asked is None:  # said elsewhere, so nothing here is known to be older
            return ()
        when, id = datetime.fromtimestamp(int(asked[1]), UTC), int(asked[2])

        def listed(github: Github) -> list[Remark]:
            comments = reversed(_issue_of(github, thread).get_comments())
            older = (comment for comment in comments if _was_there(comment, when, id))
            remarks = (_remark(comment) for comment in older if not self._by_us(comment.user))
            return list(islice((remark for remark in remarks if remark.text), MOST_REMARKS))

        found = await self._read(int(thread.scope), listed)
        return found[::-1]

    async def external(self, identity: Identity, thread: ThreadKey) -> str:
        """Who may is a matter of the repository's permissions, but a bot never may."""
        return "bots don't start work" if identity.name.endswith("[bot]") else ""

    def direct(self, thread: ThreadKey) -> bool:
        return False

    # out

    async def send(self, item: OutboxItem) -> MessageRef | None:
        saying = item.saying
        if saying.kind is SayingKind.RECEIPT:
            await self._react(saying)
            return saying.ref
        mention = await self._mentioned(saying)
        if saying.file is not None:
            body = file_comment(saying.file, await content(saying.file), mention)
        else:
            body = self._body(saying, mention)
        # What is approved is shown as it is, but for tokens (StepBuilder.exact); all else is redacted there.
        body = body if saying.ask is not None else redact(body)
        body = f"{body}\n\n{_marker_of(saying)}"
        thread = saying.thread
        if saying.kind is SayingKind.ASKED:
            return await self._redraw(saying.ref, int(thread.scope), body)
        made = await self._write(
            int(thread.scope), lambda github: _issue_of(github, thread).create_comment(body)
        )
        return self._ref(thread, made)

    async def fetch(self, file: Attachment, to: Path) -> None:
        """On GitHub pictures are links in the text."""
        raise FileRefused("GitHub's messages carry no files.")

    async def find(self, item: OutboxItem) -> MessageRef | None:
        if item.saying.kind in (SayingKind.RECEIPT, SayingKind.ASKED):
            return None  # they can be put again without harm
        since = datetime.fromtimestamp(item.created_at, UTC) - LOOK_BACK
        wanted, thread = _marker_of(item.saying), item.saying.thread

        def searched(github: Github) -> IssueComment | None:
            for comment in _issue_of(github, thread).get_comments(since=since):
                # It stands at the end; what an agent wrote may hold it too, in a block of code.
                if (comment.body or "").rstrip().endswith(wanted) and self._by_us(comment.user):
                    return comment
            return None

        try:
            found = await self._read(int(thread.scope), searched)
        except SurfaceError:
            return None  # the thread is gone; sending says so
        return self._ref(thread, found) if found else None

    async def show(self, ref: MessageRef, picture: Timeline) -> None:
        body = redact(timeline_comment(picture, self._ourselves.slug))
        digest = hashlib.sha256(body.encode(errors="replace")).hexdigest()
        if self._drawn.get(ref.id) == digest:
            return
        repository = await self._repository_at(ref)
        await self._write(repository, lambda github: _comment_of(github, repository, ref).edit(body))
        self._drawn.pop(ref.id, None)
        if not picture.final:
            self._drawn[ref.id] = digest
        if len(self._drawn) > DRAWN_KEPT:
            del self._drawn[next(iter(self._drawn))]

    def spoken(self, words: str) -> str:
        """A comment that does not name us is for the agent."""
        return f"@{self._ourselves.slug} {words}"

    def redraw_interval(self, running: int) -> float:
        return max(SHORTEST_REDRAW, REDRAW_PER_TURN * running)

    def link(self, thread: ThreadKey) -> str:
        name = self._repositories.name_of(thread.scope)
        return f"{self._app.web_url}/{name}/issues/{thread.id}" if name else ""

    # the parts

    async def _redraw(self, ref: MessageRef | None, repository: int, body: str) -> MessageRef | None:
        """What came of something that was asked, in its place."""
        if ref is not None:
            await self._write(repository, lambda github: _comment_of(github, repository, ref).edit(body))
        return ref

    async def _mentioned(self, saying: Saying) -> str:
        """The present login of whom it calls, or ""."""
        if not saying.mention:
            return ""
        repository = int(saying.thread.scope)
        try:
            return await self._accounts.login(saying.mention, await self._scope(repository))
        except ForgeError as error:
            raise self._noted(error, repository) from error

    def _body(self, saying: Saying, mention: str) -> str:
        if saying.kind is SayingKind.TIMELINE:
            return starting_comment(saying.text)
        if saying.final is not None:
            return final_comment(saying.final, mention)
        if saying.ask is not None:
            return ask_comment(saying.ask, mention, self._ourselves.slug)
        return words(saying.text, mention)

    async def _react(self, saying: Saying) -> None:
        """Put the mark's reaction on the message, in place of the one that said "seen"."""
        ref, mark = saying.ref, saying.mark
        if ref is None or mark is None:
            return
        repository, content = int(saying.thread.scope), _REACTIONS[mark]
        await self._write(
            repository, lambda github: _message_at(github, repository, ref).create_reaction(content)
        )
        if content != _SEEN:
            await self._write(repository, lambda github: self._unsee(_message_at(github, repository, ref)))

    def _unsee(self, message: Issue | IssueComment) -> None:
        for reaction in message.get_reactions():
            if reaction.content == _SEEN and self._by_us(reaction.user):
                message.delete_reaction(reaction.id)

    def _by_us(self, user: NamedUser | Organization | None) -> bool:
        return user is not None and user.login.lower() == self._ourselves.login.lower()

    def _ref(self, thread: ThreadKey, comment: IssueComment) -> MessageRef:
        place = self._repositories.name_of(thread.scope)
        return MessageRef(SURFACE, place, str(comment.id), "comment", comment.html_url)

    async def _repository_at(self, ref: MessageRef) -> int:
        try:
            return await self._repositories.id_of(ref.place)
        except ForgeError as error:
            raise _translated(error) from error

    async def _read(self, repository: int, work: Callable[[Github], T]) -> T:
        try:
            return await self._app.read(await self._scope(repository), work)
        except ForgeError as error:
            raise self._noted(error, repository) from error

    async def _write(self, repository: int, work: Callable[[Github], T]) -> T:
        try:
            return await self._app.write(await self._scope(repository), work)
        except ForgeError as error:
            raise self._noted(error, repository) from error

    async def _scope(self, repository: int) -> Scope:
        return Scope(await self._repositories.installation(repository), repository, TALK)

    def _noted(self, error: ForgeError, repository: int) -> SurfaceBusy | SurfaceError:
        if isinstance(error, NoToken):
            # Perhaps it is installed anew; where it is not, the next look says so for good.
            self._repositories.forget(repository)
            return SurfaceBusy(str(error), PAUSE)
        return _translated(error)


def _translated(error: ForgeError) -> SurfaceBusy | SurfaceError:
    if error.retryable:
        after = error.retry_after if isinstance(error, CallFailed) else 0.0
        return SurfaceBusy(str(error), after or PAUSE)
    if isinstance(error, CallFailed) and error.status in (404, 410):
        return SurfaceError("The issue or comment is not there any more, or not for us.")
    return SurfaceError(error.what, error.mend)


def _marker_of(saying: Saying) -> str:
    # The timeline's comment is rewritten by those who know the turn, not the saying.
    timeline = saying.kind is SayingKind.TIMELINE and saying.turn is not None
    return marker(f"turn:{saying.turn}" if timeline else saying.amends or saying.key)


def _suspended(github: Github, installation: int) -> bool:
    _, found = github.requester.requestJsonAndCheck("GET", f"/app/installations/{installation}")
    return bool(found.get("suspended_at"))


def _issue_of(github: Github, thread: ThreadKey) -> Issue:
    return github.get_repo(int(thread.scope)).get_issue(int(thread.id))


def _message_at(github: Github, repository: int, ref: MessageRef) -> Issue | IssueComment:
    if ref.kind == "issue":
        return github.get_repo(repository).get_issue(int(ref.id))
    return _comment_of(github, repository, ref)


def _comment_of(github: Github, repository: int, ref: MessageRef) -> IssueComment:
    # The number of the issue does not matter: comments are addressed by their own id.
    return github.get_repo(repository).get_issue(1).get_comment(int(ref.id))


def _was_there(comment: IssueComment, when: datetime, id: int) -> bool:
    """Whether a comment had its present words already when the message (when, id) was sent."""
    if (comment.created_at, comment.id) >= (when, id):
        return False
    # GitHub's times are whole seconds: an edit in the same second may have come after.
    return comment.updated_at == comment.created_at or comment.updated_at < when


def _remark(comment: IssueComment) -> Remark:
    author = comment.user.login if comment.user else "ghost"
    return Remark(author, clip(visible(comment.body or ""), REMARK_CHARS))
