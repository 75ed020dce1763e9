"""The words that are commands, not prompts: help, status, stop, publish, approve and deny. Those about
sandboxes: sandbox_verbs.py; about files: file_verb.py; previews: preview_verb.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bot.answers import Answers
from bot.approvals import may_answer
from bot.choosing import Choosing
from bot.errors import Denied
from bot.file_verb import FileVerb
from bot.models import (
    Ask,
    AskKind,
    AskOutcome,
    Disposition,
    Message,
    Session,
    StopOutcome,
    Verb,
)
from bot.ports import Clock, Store, Surface
from bot.preview_verb import PreviewVerb
from bot.sandbox_verbs import SandboxVerbs
from bot.timeline import duration

HELP = """\
Mention me with a task and I run a coding agent on it, in your own sandbox, and open a pull request.
• Write in the thread while I work: it steers the running turn. {queue} keeps it for the next turn, \
{interrupt} stops this one and starts with it.
• When I ask before I do something, press a button or say `approve 12` or `deny 12`; a reply answers \
a question
• {stop} stops · {status} says where I am · {publish} publishes finished work that is not published yet
• {get} brings a file of the workspace into the thread · {preview} gives you a link to a server there
• {sandbox} says how your sandbox is; `sandbox restart`, `pin`, `unpin` and `reset` likewise
• `repo=owner/name` picks the repository, `repo=acme/web,acme/api` several · {channel} sets this \
channel's default
• `agent=`, `model=` and `effort=` pick who works, and how, from the next turn on; `permissions=` when it \
asks first: `plan` before it begins, `ask` before each change"""

NOTHING_RUNS = "Nothing is running here."
TOO_LATE = "That was answered before, or too late."


class Verbs:
    """warning: what every status repeats (an unsafe mode), "" = nothing."""

    def __init__(
        self,
        store: Store,
        surfaces: Mapping[str, Surface],
        answers: Answers,
        choosing: Choosing,
        boxes: SandboxVerbs,
        files: FileVerb,
        previews: PreviewVerb,
        clock: Clock,
        warning: str = "",
    ) -> None:
        self._store = store
        self._surfaces = surfaces
        self._answers = answers
        self._choosing = choosing
        self._boxes = boxes
        self._files = files
        self._previews = previews
        self._clock = clock
        self._warning = warning

    async def obey(self, message: Message, session: Session | None) -> str:
        """Raises Denied when an ask or a sandbox is not this person's to answer."""
        match message.verb:
            case Verb.HELP:
                return await self._answers.note(message, "help", self.help(message))
            case Verb.STATUS:
                return await self._answers.note(message, "status", await self.status(message, session))
            case Verb.STOP:
                return await self._stop(message, session)
            case Verb.PUBLISH:
                return await self._publish(message, session)
            case Verb.APPROVE | Verb.DENY | Verb.ANSWER:
                return await self._settle(message, session)
            case Verb.SANDBOX:
                return await self._boxes.obey(message, session)
            case Verb.GET:
                return await self._files.obey(message, session)
            case Verb.PREVIEW:
                return await self._previews.obey(message, session)
        raise ValueError(f"{message.verb} is no verb of ours")

    def help(self, message: Message) -> str:
        """How to talk to us where this message stands."""
        surface = self._surfaces[message.thread.surface]
        words = {verb: f"`{surface.spoken(verb)}`" for verb in ("stop", "status", "publish")}
        words["get"] = f"`{surface.spoken('get path/to/file')}`"
        words["preview"] = f"`{surface.spoken('preview 3000')}`"
        words["sandbox"] = f"`{surface.spoken('sandbox status')}`"
        modes = {mode: f"`{surface.spoken(f'{mode}: …')}`" for mode in ("queue", "interrupt")}
        channel = f"`{surface.spoken('channel repo=owner/name')}`"
        return HELP.format(**words, **modes, channel=channel)

    async def status(self, message: Message, session: Session | None) -> str:
        warning = f"\n⚠ {self._warning}" if self._warning else ""
        if session is not None:
            models = await self._choosing.models(session)
            listed = f"\nModels of {session.agent}: {models}" if models else ""
            return f"{await self._told(session)}{listed}{warning}"
        if message.thread.id:
            return f"I have no session in this thread.{warning}"
        running = await self._running(message)
        lines = [f"• {self._named(one)}: {await self._told(one)}" for one in running]
        return "\n".join(lines or ["Nothing of yours is running in this channel."]) + warning

    async def _told(self, session: Session) -> str:
        names = ", ".join(one.full_name for one in session.repositories) or "no repository yet"
        how = " ".join(filter(None, (session.agent, session.model, session.effort)))
        careful = f" · permissions {session.permissions}" if session.permissions else ""
        about = f"{names} · {how}{careful} · owner {session.owner.identity.name}"
        turn = await self._store.open_turn(session.id)
        if turn is None:
            ready = "\nThere is unpublished work: say `publish`." if session.any_ready else ""
            links = "".join(f"\n{url}" for url in _links(session))
            return f"{NOTHING_RUNS} {about}{ready}{links}"
        since = duration(self._clock.now() - (turn.started_at or turn.queued_at))
        asks = len(await self._store.open_asks(session.id))
        waiting = " It waits for an answer." if asks else ""
        return f"Turn {turn.id} is {turn.state.value} for {since}.{waiting} {about}"

    async def _running(self, message: Message) -> Sequence[Session]:
        """What the author has running in the place of a message that is in no thread."""
        person = await self._store.person(message.author)
        return await self._store.open_sessions(person.id, f"{message.thread.surface}:{message.thread.scope}")

    def _named(self, session: Session) -> str:
        link = self._surfaces[session.thread.surface].link(session.thread)
        return f"“{session.title}” ({link})" if link else f"“{session.title}”"

    async def _stop(self, message: Message, session: Session | None) -> str:
        if session is None and not message.thread.id:
            running = await self._running(message)
            if len(running) > 1:
                lines = "\n".join(f"• {self._named(one)}" for one in running)
                return await self._answers.note(
                    message, "which", f"Several of yours run here. Say `stop` in the thread of one:\n{lines}"
                )
            session = running[0] if running else None
        if session is None:
            return await self._answers.note(message, "nothing", NOTHING_RUNS)
        turn = await self._store.open_turn(session.id)
        clicked = message.options.get("turn", "")
        if clicked and (turn is None or str(turn.id) != clicked):  # a button of an earlier turn
            return await self._answers.note(message, "nothing", "That turn is over.")
        outcome = await self._store.request_stop(message.key, session.id, message.author.name)
        if outcome is StopOutcome.NOTHING:
            if message.ref is None and not message.private:  # a label taken off: nobody said a word
                return "nothing"
            return await self._answers.note(message, "nothing", NOTHING_RUNS)
        if outcome is StopOutcome.PUBLISHED:
            links = " ".join(_links(session))
            return await self._answers.note(
                message, "too late", f"Already published{': ' if links else '.'}{links}"
            )
        if not message.thread.id:
            await self._answers.note(message, "stopping", f"I stop {self._named(session)}.")
        return outcome.value

    async def _publish(self, message: Message, session: Session | None) -> str:
        if session is None or not session.any_ready:
            links = " ".join(_links(session)) if session else ""
            link = f" The pull request: {links}" if links else ""
            return await self._answers.note(message, "nothing", f"There is no unpublished work here.{link}")
        admitted = await self._store.start_publish(message.key, session.id, message.thread, message.author)
        if admitted.disposition is Disposition.QUEUED:
            text = "A turn is running; it publishes when it is done."
            return await self._answers.note(message, "busy", text)
        return admitted.disposition.value

    async def _settle(self, message: Message, session: Session | None) -> str:
        """Yes or no to what an agent wants to do, or one of a question's options."""
        asks = [] if session is None else await self._store.open_asks(session.id)
        number = message.options.get("ask", "")
        ask = next((one for one in asks if str(one.id) == number), None)
        if session is None or ask is None:
            return await self._answers.note(message, "nothing", _nothing_asked(message.verb, number, asks))
        if not may_answer(message.author, ask, session.owner):
            names = " or ".join(dict.fromkeys((ask.asked.name, session.owner.identity.name)))
            raise Denied(f"Only {names} may answer this.")
        option = message.options.get("option", "")
        text = ask.options[int(option)] if option.isdigit() and int(option) < len(ask.options) else ""
        if ask.kind is AskKind.QUESTION and not text:
            return await self._answers.note(message, "nothing", "Answer it with a reply in the thread.")
        outcome = await self._store.answer(
            message.key,
            session.id,
            ask.id,
            message.author,
            allowed=message.verb is Verb.APPROVE,
            text=text,
            ref=message.ref,
        )
        if outcome is AskOutcome.OVER:
            return await self._answers.note(message, "nothing", TOO_LATE)
        return outcome.value


def _nothing_asked(verb: Verb | None, number: str, asks: Sequence[Ask]) -> str:
    """Words are bound to a number, so that nobody approves what they have not read."""
    waiting = [ask for ask in asks if ask.kind is AskKind.APPROVAL]
    if number or not waiting:
        return TOO_LATE if number else "Nothing waits for an answer here."
    listed = "\n".join(f"• `{verb} {ask.id}`: {ask.title}" for ask in waiting)
    return f"Which one? Say its number too.\n{listed}"


def _links(session: Session) -> list[str]:
    """Of its pull requests."""
    return [one.pull_request_url for one in session.each() if one.pull_request_url]
