"""Which repository is meant: the message's own word, the channel's, the settings', or a question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from bot.access import Access
from bot.answers import Answers
from bot.errors import RepositoryUnknown
from bot.models import Mark, Message, NewInput, Repository, SayingKind, Session
from bot.ports import Forge, Store

NAMES = re.compile(r"[\w.-]+/[\w.-]+(?:\s*,\s*[\w.-]+/[\w.-]+)*")


class WhichRepository:
    """default: the settings' repository, "" = none."""

    def __init__(
        self, store: Store, forge: Forge, access: Access, answers: Answers, default: str = ""
    ) -> None:
        self._store = store
        self._forge = forge
        self._access = access
        self._answers = answers
        self._default = default

    async def meant(self, message: Message) -> Sequence[Repository]:
        """The first is what the work is named after; none: nobody has said. Raises Denied, RepositoryUnknown,
        ForgeError."""
        return await self._all_allowed(message, _named(message) or _split(await self._of_channel(message)))

    async def beside(self, message: Message, here: Repository) -> Sequence[Repository]:
        """In a thread of a repository's own: it, and what is named besides. Raises as `meant`."""
        others = [name for name in _named(message) if name.lower() != here.full_name.lower()]
        return [here, *await self._all_allowed(message, others)]

    async def allowed(self, message: Message, name: str) -> Repository:
        """The repository of this name, if its author may work on it. Raises as `meant`."""
        repository = await self._forge.repository(name)
        await self._access.may_work(message.author, message.thread, repository)
        return repository

    async def _all_allowed(self, message: Message, names: Sequence[str]) -> Sequence[Repository]:
        found = [await self.allowed(message, name) for name in names]
        return list({repository.id: repository for repository in found}.values())

    async def ask(self, message: Message) -> None:
        text = "Which repository is meant? Answer here with `owner/name`, and I start."
        await self._answers.ask(message, "which-repository", text)

    async def answered(self, message: Message, session: Session, said: NewInput) -> str:
        """A reply where we have asked: a name, or `repo=` and perhaps more words, or only more words.

        said: its words, which are kept for the agent where they are more than the name.
        """
        words = message.text.strip()
        bare = words.strip("`")
        named = message.options.get("repo") or (bare if NAMES.fullmatch(bare) else "")
        if words and bare != named:
            admitted = await self._store.admit(session.id, said, message.thread)
            if not named:
                await self.ask(message)
                return admitted.disposition.value
            message = replace(message, ref=None)  # its mark is that of its words
        if not named:
            await self.ask(message)
            return "asked"
        return await self.choose(message, session, named)

    async def choose(self, message: Message, session: Session, names: str) -> str:
        """The kept words start their turn on this repository, or on several."""
        try:
            repository, *further = await self._all_allowed(message, _split(names))
        except RepositoryUnknown as error:
            return await self._answers.note(message, "refused", f"{error} Which repository is meant?")
        key = f"{message.key}#repository"  # its words may have had their own effect
        admitted = await self._store.choose_repository(key, session.id, repository, message.thread, further)
        await self._answers.mark(message, "chosen", Mark.CONSUMED)
        return admitted.disposition.value

    async def set_channel(self, message: Message, session: Session | None) -> str:
        """`channel repo=owner/name`, or only `channel` to hear which it is."""
        if message.repository:
            return await self._answers.note(message, "refused", "In an issue, its own repository is meant.")
        name = message.options.get("repo", "")
        if not name:
            current = await self._of_channel(message)
            text = (
                f"This channel's repository is {current}." if current else "This channel has no repository."
            )
            return await self._answers.note(message, "channel", text)
        if "," in name:
            text = "A channel means one repository. Name several with `repo=` in the message that starts."
            return await self._answers.note(message, "refused", text)
        repository = await self.allowed(message, name)
        text = f"From now on, this channel means {repository.full_name}."
        saying = self._answers.saying(message, "channel", SayingKind.NOTE, text)
        scope = _scope(message)
        await self._store.set_repository_default(
            message.key, scope, repository.full_name, message.author, saying
        )
        if session is not None and session.repository is None:  # which is what we had asked for
            await self.choose(replace(message, ref=None), session, name)
        return "channel"

    async def _of_channel(self, message: Message) -> str:
        return await self._store.repository_default(_scope(message)) or self._default


def elsewhere(message: Message, here: Sequence[str]) -> str:
    """What to say to somebody who names other repositories than the thread's."""
    known = {name.lower() for name in here}
    strange = [name for name in _named(message) if name.lower() not in known]
    if not here or not strange:
        return ""
    return f"This thread works on {', '.join(here)}. Start another thread for {', '.join(strange)}."


def without(message: Message) -> str:
    """What to say to somebody who begins in a repository's own thread and leaves that out."""
    here, named = message.repository, _named(message)
    if not here or not named or here.lower() in (name.lower() for name in named):
        return ""
    others = ",".join(named)
    return (
        f"This thread works on {here}. Start another thread for {', '.join(named)}, or name all of them: "
        f"`repo={here},{others}`."
    )


def _named(message: Message) -> list[str]:
    return _split(message.options.get("repo", ""))


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _scope(message: Message) -> str:
    return f"{message.thread.surface}:{message.thread.scope}"
