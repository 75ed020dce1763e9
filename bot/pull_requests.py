"""Commits out: bundle, checks, push, pull request. Each step can be repeated after a crash."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bot.errors import ForgeError
from bot.models import Identity, PullRequest, Repository, Session, ThreadKey
from bot.patience import patiently
from bot.ports import Clock, Forge, Sandbox
from bot.workspace import Outgoing, Workspaces

TITLE_LIMIT = 120

_MARKUP = re.compile(r"[\\`*_{}\[\]()<>#!|~&]")
_ENDED = re.compile("[@#]")  # a zero-width space after these makes them mere signs


class PullRequests:
    """Publishes a session's work."""

    def __init__(self, forge: Forge, workspaces: Workspaces, clock: Clock) -> None:
        self._forge = forge
        self._workspaces = workspaces
        self._clock = clock

    async def publish(
        self,
        session: Session,
        sandbox: Sandbox,
        outgoing: Outgoing,
        summary: str,
        threads: Sequence[tuple[ThreadKey, str]],
        people: Sequence[Identity],
        beside: Sequence[tuple[Repository, PullRequest]] = (),
    ) -> PullRequest:
        """Push the commits and open the session's pull request, or tell in it what is new.

        threads: the session's, with their links. people: who asked for the work, all of them. beside:
        the pull requests of the same work in other repositories; readers of this one hear of no private one.
        Raises BundleRefused, PushRefused, ForgeError, WorkspaceError: the work stays ready.
        """
        repository = session.repository
        if repository is None:
            raise ForgeError("This session has no repository.")
        bundle = await patiently(self._clock, lambda: self._workspaces.bundle(session, sandbox, outgoing))
        try:
            await patiently(
                self._clock,
                lambda: self._forge.publish_branch(repository, bundle, outgoing.work, session.published),
            )
        finally:
            bundle.unlink(missing_ok=True)
        title = _title(session, outgoing)
        credit = _credits(threads, people)
        shown = await self._shown_in(repository, beside) if beside else []
        goes_with = [f"Goes with {' and '.join(shown)}"] if shown else []
        issue = _issue(session, repository)
        body = _body(summary, issue, credit, *goes_with)
        update = _body(summary, "", credit)
        marker = f"sandpiper:session={session.id}"
        return await patiently(
            self._clock,
            lambda: self._forge.pull_request(repository, outgoing.work, title, body, marker, update, issue),
        )

    async def _shown_in(
        self, repository: Repository, beside: Sequence[tuple[Repository, PullRequest]]
    ) -> list[str]:
        """The URLs that those who can read a repository may see."""
        now = await patiently(self._clock, lambda: self._forge.repository(str(repository.id)))
        return [pull.url for where, pull in beside if now.private or not where.private]


def _title(session: Session, outgoing: Outgoing) -> str:
    subjects = outgoing.work.subjects
    usual = subjects[0] if len(subjects) == 1 else session.title or (subjects[-1] if subjects else "")
    title = session.named or usual
    title = " ".join(title.split()) or outgoing.work.branch
    return title if len(title) <= TITLE_LIMIT else title[: TITLE_LIMIT - 1] + "…"


def _issue(session: Session, repository: Repository) -> str:
    """The number of the issue that the session began in. Its other threads on the forge are pull
    requests, and a number means something else in another repository."""
    thread = session.thread
    return thread.id if (thread.surface, thread.scope) == ("github", str(repository.id)) else ""


def _body(summary: str, issue: str, credit: str, *more: str) -> str:
    fixes = [f"Fixes #{issue}"] if issue else []
    return "\n\n".join([summary.strip() or "See the commits.", *fixes, *more, credit])


def _credits(threads: Sequence[tuple[ThreadKey, str]], people: Sequence[Identity]) -> str:
    names = ", ".join(dict.fromkeys(_credit(person) for person in people))
    came_from = [url for key, url in threads if key.surface != "github" and url]
    asked = f"Asked for by {names}" if names else "Asked for"
    return asked + (f" in [this thread]({came_from[0]})." if came_from else " through Sandpiper.")


def _credit(person: Identity) -> str:
    """A GitHub login may be mentioned; a name from elsewhere is shown as it is and does nothing."""
    if person.surface == "github":
        return f"@{person.name}"
    return _ENDED.sub("\\g<0>\u200b", _MARKUP.sub(r"\\\g<0>", " ".join(person.name.split())))
