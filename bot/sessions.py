"""A message comes in: who may? what is meant? Then start, steer, queue, interrupt, a command or an answer."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bot.access import Access
from bot.answers import Answers
from bot.approvals import may_answer
from bot.choosing import Choosing
from bot.errors import AgentUnknown, Denied, ForgeError, RepositoryUnknown, SandpiperError
from bot.file_verb import FileVerb
from bot.models import (
    Admitted,
    AskKind,
    AskOutcome,
    Choice,
    Disposition,
    Fate,
    Mark,
    Message,
    Mode,
    NewInput,
    NewSession,
    Repository,
    Session,
    TurnState,
    Verb,
)
from bot.ports import Clock, Forge, Store, Surface
from bot.preview_verb import PreviewVerb
from bot.prompts import edited
from bot.sandbox_verbs import SandboxVerbs
from bot.verbs import Verbs
from bot.which_repository import WhichRepository, elsewhere, without

PARKED = "parked"
INTO_THE_TURN = (Verb.GET, Verb.PREVIEW, Verb.APPROVE, Verb.DENY, Verb.ANSWER)

NOT_OURS = (
    "I work on issues, and on pull requests that I opened myself. "
    "Open an issue that says what to do, and mention me there."
)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds when a message does not say: see the settings of the same names."""

    repository: str = ""
    agent: str = "claude"
    model: str = ""
    effort: str = ""


ALREADY_BEGUN = (
    "This turn has begun already, so who works on it stays. Say `agent=`, `model=`, `effort=` or "
    "`permissions=` with your next message."
)
ALREADY_READ = (
    "The agent has read this message already, so the edit does not change who works. Say `agent=`, `model=`, "
    "`effort=` or `permissions=` with your next message."
)


class Sessions:
    """What messages mean. Every effect is one store transaction that knows the message's key."""

    def __init__(
        self,
        store: Store,
        surfaces: Mapping[str, Surface],
        forge: Forge,
        access: Access,
        clock: Clock,
        choosing: Choosing,
        boxes: SandboxVerbs,
        files: FileVerb,
        defaults: Defaults,
        warning: str = "",
    ) -> None:
        self._store = store
        self._surfaces = surfaces
        self._access = access
        self._choosing = choosing
        self._defaults = defaults
        self._answers = Answers(store)
        previews = PreviewVerb(store, boxes.sandboxes, access)
        self._verbs = Verbs(store, surfaces, self._answers, choosing, boxes, files, previews, clock, warning)
        self._repositories = WhichRepository(store, forge, access, self._answers, defaults.repository)

    async def receive(self, message: Message) -> str:
        """Give the message its effect; returns what became of it, for the delivery's record.

        PARKED: a reply in a thread that we don't know (yet). Raises SurfaceBusy and a retryable
        ForgeError when the world could not be asked: the delivery is then tried again.
        """
        session = await self._store.session_of(str(message.thread)) if message.thread.id else None
        if not message.addressed:
            if session is None:
                return PARKED
            if message.sent <= session.since:  # to others, before anybody named us: context at most
                return "ignored: said before the session"
        try:
            return await self._take(message, session)
        except Denied as denied:
            return await self._answers.refuse(message, denied)
        except (ForgeError, AgentUnknown) as error:
            if isinstance(error, ForgeError) and error.retryable:
                raise
            return await self._answers.note(message, "refused", str(error))

    async def tell_seen(self, message: Message) -> None:
        """Show a permitted author that their task is here, while GitHub is still asked about it."""
        if message.verb is not None or message.thread.surface == "github":  # there it is GitHub that is slow
            return
        try:
            await self._access.may_work(message.author, message.thread, None)
        except Denied:
            return
        await self._answers.mark(message, "seen", Mark.SEEN)
        if message.private:
            await self._answers.note(message, "seen", "I ask GitHub about the repository, then I start.")

    async def tell_waiting(self, message: Message, error: SandpiperError) -> None:
        """Tell the author of a message, once, that it is not lost though nothing happens yet."""
        text = f"{error} Your message waits until then; there is no need to write it again."
        await self._answers.note(message, "waiting", text)

    async def apologise(self, message: Message, error: Exception) -> None:
        """Tell the author of a message that had no effect, and why."""
        text = str(error) if isinstance(error, SandpiperError) else "Something went wrong on my side."
        text = f"{text} Your message had no effect; please write it again."
        await self._answers.note(message, "failed", text)

    async def _take(self, message: Message, session: Session | None) -> str:
        repository = None
        if session is not None:
            message = await self._permitted(message, session)
        elif message.repository:
            repository = await self._repositories.allowed(message, message.repository)
        else:
            await self._access.may_work(message.author, message.thread, None)
        if message.options.get("error") and message.verb is not Verb.HELP:
            return await self._answers.note(message, "unclear", message.options["error"])
        if message.verb is Verb.CHANNEL:
            return await self._repositories.set_channel(message, session)
        if message.verb is not None:
            return await self._verbs.obey(message, session)
        if message.revises:
            return await self._revise(message, session)
        if session is not None:
            return await self._reply(message, session)
        return await self._start(message, repository)

    async def _permitted(self, message: Message, session: Session) -> Message:
        """The message, if its author may write here. Where one of several repositories is not there any more,
        or not for the session's owner, the next turn leaves it out and the thread goes on: nothing is then
        said into a turn that still has it. Raises Denied, ForgeError."""
        first, *further = session.repositories or (None,)
        await self._access.may_steer(message.author, message.thread, first, session.owner)
        for one in further:
            try:
                await self._access.may_steer(message.author, message.thread, one, session.owner)
            except (Denied, RepositoryUnknown) as error:
                gone = isinstance(error, RepositoryUnknown) or await self._lent(message, session) is None
                if not gone or message.verb in INTO_THE_TURN:
                    raise
                if message.mode is Mode.STEER:
                    message = replace(message, mode=Mode.QUEUE)
        return message

    # a new session

    async def _start(self, message: Message, repository: Repository | None) -> str:
        if not message.text.strip():
            text = f"What shall I do?\n{self._verbs.help(message)}"
            return await self._answers.note(message, "empty", text)
        if refusal := without(message):
            return await self._answers.note(message, "refused", refusal)
        if repository is None:
            repositories = await self._repositories.meant(message)
        else:
            repositories = await self._repositories.beside(message, repository)
        repository, further = (repositories[0], repositories[1:]) if repositories else (None, ())
        if message.pull_request:  # one of ours has a session
            return await self._answers.note(message, "refused", NOT_OURS)
        owner = await self._store.person(message.author)
        chosen = await self._choosing.chosen(self._choice(message), self._usual(), owner.id, repository)
        choice = chosen.choice
        since = message.sent if message.thread.id else ""
        message = await self._rooted(message)
        new = NewSession(
            id=uuid.uuid5(uuid.NAMESPACE_URL, f"sandpiper:{message.thread}:{message.key}").hex,
            tenant=message.author.tenant,
            owner=owner.id,
            thread=message.thread,
            repository=repository,
            agent=choice.agent,
            model=choice.model,
            title=message.title or _title(message.text),
            effort=choice.effort,
            since=since or message.thread.id,
            permissions=choice.permissions,
            further=tuple(further),
        )
        admitted = await self._store.admit(new, _input(message), message.thread)
        await self._tell(message, chosen.doubt)
        if admitted.disposition is Disposition.ASKED:
            await self._repositories.ask(message)
        return admitted.disposition.value

    async def _rooted(self, message: Message) -> Message:
        """A slash command has no thread: its root is posted first, and the work is under it."""
        if message.thread.id:
            return message
        thread = await self._surfaces[message.thread.surface].open_thread(message)
        return replace(message, thread=thread, private="", sent=message.sent or thread.id)

    def _usual(self) -> Choice:
        return Choice(self._defaults.agent, self._defaults.model, self._defaults.effort)

    def _choice(self, message: Message) -> Choice:
        return Choice(
            *(message.options.get(name, "") for name in ("agent", "model", "effort", "permissions"))
        )

    async def _tell(self, message: Message, doubt: str) -> None:
        if doubt:
            await self._answers.note(message, "doubt", doubt)

    # in a known thread

    async def _reply(self, message: Message, session: Session) -> str:
        before = Choice(session.agent, session.model, session.effort, session.permissions)
        wanted = self._choice(message)
        lent = await self._lent(message, session)
        chosen = await self._choosing.chosen(wanted, before, session.owner.id, session.repository, lent=lent)
        choice = Choice() if chosen.choice == before else chosen.choice
        said = replace(_input(message), choice=choice)
        if session.repository is None:
            return await self._repositories.answered(message, session, said)
        if refusal := elsewhere(message, [one.full_name for one in session.repositories]):
            return await self._answers.note(message, "refused", refusal)
        if not message.text.strip():
            text = await self._verbs.status(message, session)
            return await self._answers.note(message, "empty", text)
        # Who chooses something means the next turn: as an answer, that choice would be lost.
        answers = message.mode is Mode.STEER and not choice
        if answers and (answered := await self._answered(message, session)):
            return answered
        admitted = await self._store.admit(session.id, said, message.thread)
        await self._tell(message, chosen.doubt)
        return admitted.disposition.value

    async def _lent(self, message: Message, session: Session) -> Session | None:
        """The session, when it is another's than the message's author."""
        return None if (await self._store.person(message.author)).id == session.owner.id else session

    async def _answered(self, message: Message, session: Session) -> str:
        """A reply of somebody whose word counts answers the oldest question that is open; else ""."""
        for ask in await self._store.open_asks(session.id):
            if ask.kind is AskKind.QUESTION and may_answer(message.author, ask, session.owner):
                outcome = await self._store.answer(
                    message.key, session.id, ask.id, message.author, text=message.text, ref=message.ref
                )
                if outcome in (AskOutcome.SETTLED, AskOutcome.DUPLICATE):
                    return "answered" if outcome is AskOutcome.SETTLED else outcome.value
        return ""

    async def _revise(self, message: Message, session: Session | None) -> str:
        """An edit or deletion: of a message that still waits it changes the message, else it is told."""
        if session is None:
            return "ignored: an edit outside of a session"
        text = None if message.withdrawn else message.text
        choice = await self._chosen_again(message, session)
        turn = await self._store.open_turn(session.id)
        before = await self._store.revise(message.key, message.revises, text, message.author, choice)
        if before is None:
            return "ignored: the edited message was not for us"
        if before.fate.value in ("pending", "deferred", "held"):
            if session.repository is None and (name := message.options.get("repo", "")):
                return await self._repositories.choose(replace(message, ref=None), session, name)
            begun = turn is not None and turn.id == before.turn and turn.state is not TurnState.QUEUED
            if choice and begun and before.fate is Fate.PENDING and not message.withdrawn:
                await self._answers.note(message, "too late", ALREADY_BEGUN)
            return "withdrawn" if message.withdrawn else "revised"
        if not message.withdrawn and choice and choice != before.choice:
            # Once for the message, however often it is edited.
            await self._answers.note(replace(message, key=message.revises), "too late", ALREADY_READ)
        if message.withdrawn or await self._store.open_turn(session.id) is None:
            return "ignored: the agent has it already"
        correction = replace(_input(message), text=edited(message.text), attachments=())
        admitted: Admitted = await self._store.admit(session.id, correction, message.thread)
        return admitted.disposition.value

    async def _chosen_again(self, message: Message, session: Session) -> Choice | None:
        """What an edit chooses, or keeps of what is deleted; what cannot be had is told, and the edited words
        hold all the same."""
        before = Choice(session.agent, session.model, session.effort, session.permissions)
        wanted, lent = self._choice(message), await self._lent(message, session)
        if lent is not None and not wanted.permissions:  # they don't take the owner's word back
            wanted = replace(wanted, permissions=await self._choosing.least(lent))
        try:
            chosen = await self._choosing.chosen(
                wanted, before, session.owner.id, session.repository, lent=lent
            )
        except AgentUnknown as error:
            await self._answers.note(message, "refused", str(error))
            return None
        await self._tell(message, chosen.doubt)
        return Choice() if chosen.choice == before else chosen.choice


def _input(message: Message) -> NewInput:
    return NewInput(
        message_key=message.key,
        author=message.author,
        sent=message.sent,
        text=message.text,
        ref=message.ref,
        background=message.background,
        mode=message.mode,
        attachments=message.attachments,
    )


def _title(text: str) -> str:
    first = text.strip().splitlines()[0] if text.strip() else ""
    return first if len(first) <= 80 else first[:79].rstrip() + "…"
