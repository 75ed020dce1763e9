"""`preview 3000`: a link to what an agent serves, for the one who asked, as long as they may steer there."""

from __future__ import annotations

from bot.access import Access
from bot.answers import Answers
from bot.errors import Denied, ForgeError, SandboxError, SurfaceBusy, SurfaceError
from bot.models import Message, SandboxState, Session, Turn, TurnState
from bot.ports import Guard, Link, Store
from bot.sandboxes import Sandboxes
from bot.sharing import anybody_reads, entrance
from bot.timeline import span
from bot.workspace import visible_to

PREVIEW_SECONDS = 3600.0

NOT_SERVED = "Nothing is served in this thread: its sandbox does not run."
CANNOT_ASK = "Whether you may look at this cannot be asked now. Try again."


class PreviewVerb:
    def __init__(self, store: Store, sandboxes: Sandboxes, access: Access) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._access = access
        self._answers = Answers(store)

    async def obey(self, message: Message, session: Session | None) -> str:
        """Whether the author may is asked before, and again by whoever lets them in."""
        port = int(message.options["port"])
        try:
            sandbox = None if session is None else await self._sandboxes.existing(session.owner)
            if session is None or sandbox is None or await sandbox.state() is not SandboxState.RUNNING:
                return await self._answers.note(message, "not served", NOT_SERVED)
            await sandbox.enter()
            turn = await self._store.open_turn(session.id)
            running = turn is not None and turn.state is TurnState.RUNNING
            path = entrance(sandbox, turn) if turn is not None and running else ""
            guard = Guard(PREVIEW_SECONDS, lambda: self._refusal(message, session), _what(message, port))
            strangers = anybody_reads(message.thread, session)
            seen = visible_to(session, sandbox)
            link = await sandbox.expose(
                port, "", visible=seen, entrance=path, guard=guard, strangers=strangers
            )
            if turn is not None and running and not await self._goes_on(session, turn):
                await sandbox.conceal(path)
                raise SandboxError("The turn that served it has ended.")
        except SandboxError as error:
            return await self._answers.note(message, "not shown", f"I cannot show port {port}. {error}")
        text = f"Port {port}, for {message.author.name}: {link.url}\n{_terms(message, link, running)}"
        return await self._answers.note(message, "preview", text)

    async def _goes_on(self, session: Session, turn: Turn) -> bool:
        """Else nobody ends its preview any more."""
        now = await self._store.open_turn(session.id)
        return now is not None and (now.id, now.attempt) == (turn.id, turn.attempt)

    async def _refusal(self, message: Message, session: Session) -> str:
        try:
            session = await self._store.session(session.id)
            for one in session.repositories or (None,):
                await self._access.may_steer(message.author, message.thread, one, session.owner)
        except Denied as denied:
            return str(denied)
        except (SurfaceBusy, SurfaceError, ForgeError):
            return CANNOT_ASK
        return ""


def _terms(message: Message, link: Link, running: bool) -> str:
    ends = f"It ends {'with the turn, or ' if running else ''}after {span(PREVIEW_SECONDS)}"
    if link.bearer:
        return (
            "Whoever has this link may open it, and nobody is asked who they are: keep it to this thread. "
            f"{ends}."
        )
    return (
        f"It opens once, in the browser that is first, within 10 minutes. {ends}, or when "
        f"{message.author.name} may not steer here any more."
    )


def _what(message: Message, port: int) -> str:
    return f"Port {port} of a sandbox, for {message.author.name}. What it shows was made by an agent."
