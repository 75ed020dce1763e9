"""Which repository is meant: the message's own word, the channel's, the settings', or a question."""

from __future__ import annotations

import re
from dataclasses import replace

from bot.access import Access
from bot.answers import Answers
from bot.errors import RepositoryUnknown
from bot.models import Mark, Message, NewInput, Repository, SayingKind, Session
from bot.ports import Forge, Store

NAME = re.compile(r"[\w.-]+/[\w.-]+")


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

    async def meant(self, message: Message) -> Repository | None:
        """None: nobody has said. Raises Denied, RepositoryUnknown, ForgeError."""
        name = message.options.get("repo") or await self._of_channel(message)
        return await self.allowed(message, name) if name else None

    async def allowed(self, message: Message, name: str) -> Repository:
        """The repository of this name, if its author may work on it. Raises as `meant`."""
        repository = await self._forge.repository(name)
        await self._access.may_work(message.author, message.thread, repository)
        return repository

    async def ask(self, message: Message) -> None:
        text = "Which repository is meant? Answer here with `owner/name`, and I start."
        await self._answers.ask(message, "which-repository", text)

    async def answered(self, message: Message, session: Session, said: NewInput) -> str:
        """A reply where we have asked: a name, or `repo=` and perhaps more words, or only more words.

        said: its words, which are kept for the agent where they are more than the name.
        """
        words = message.text.strip()
        bare = words.strip("`")
        named = message.options.get("repo") or (bare if NAME.fullmatch(bare) else "")
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

    async def choose(self, message: Message, session: Session, name: str) -> str:
        """The kept words start their turn on this repository."""
        try:
            repository = await self.allowed(message, name)
        except RepositoryUnknown as error:
            return await self._answers.note(message, "refused", f"{error} Which repository is meant?")
        key = f"{message.key}#repository"  # its words may have had their own effect
        admitted = await self._store.choose_repository(key, session.id, repository, message.thread)
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


def elsewhere(message: Message, here: str) -> str:
    """What to say to somebody who names another repository than the thread's."""
    named = message.options.get("repo", "")
    if not here or not named or named.lower() == here.lower():
        return ""
    return f"This thread works on {here}. Start another thread for {named}."


def _scope(message: Message) -> str:
    return f"{message.thread.surface}:{message.thread.scope}"
