"""What we answer to people, each once: a line, a refusal, a mark on their message."""

from __future__ import annotations

from dataclasses import replace

from bot.errors import Denied
from bot.models import Mark, Message, Saying, SayingKind
from bot.ports import Store


class Answers:
    """Every answer is keyed by the message that it answers, so that a message taken twice has one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def note(self, message: Message, what: str, text: str) -> str:
        """Say it; returns `what`, for the delivery's record."""
        await self._store.say(self.saying(message, what, SayingKind.NOTE, text))
        return what

    async def ask(self, message: Message, what: str, text: str) -> None:
        await self._store.say(self.saying(message, what, SayingKind.QUESTION, text))

    async def mark(self, message: Message, what: str, mark: Mark) -> None:
        if message.ref is not None:
            saying = self.saying(message, what, SayingKind.RECEIPT, "")
            await self._store.say(replace(saying, mark=mark))

    async def refuse(self, message: Message, denied: Denied) -> str:
        """A mark on every message, and words once to each person in a thread: where anybody may write,
        a stranger could have us write without end."""
        if message.addressed or message.verb is not None:
            saying = self.saying(message, "denied", SayingKind.NOTE, str(denied))
            once = f"denied:{message.thread}:{message.author.user}"
            in_private = message.private or not message.thread.id
            await self._store.say(saying if in_private else replace(saying, key=once))
        await self.mark(message, "refused", Mark.REFUSED)
        actor = f"{message.author.tenant}/{message.author.user}"
        await self._store.audit(actor, "denied", str(message.thread), denied.what)
        return f"denied: {denied.what}"

    def saying(self, message: Message, what: str, kind: SayingKind, text: str) -> Saying:
        return Saying(
            key=f"{what}:{message.key}",
            kind=kind,
            thread=message.thread,
            text=text,
            mention=message.author.user if kind is SayingKind.QUESTION else "",
            ref=message.ref,
            private=message.private,
        )
