"""What people say about their sandbox: status, restart, pin, unpin, reset. Only its owner may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bot.answers import Answers
from bot.errors import Denied, SandboxElsewhere, SandboxError, SandboxGone
from bot.losses import UNSURE, Losses, Lost, listed, named
from bot.models import Message, Person, Reset, SandboxRow, Saying, SayingKind, Session
from bot.ports import Clock, Store, Surface
from bot.sandboxes import Sandboxes
from bot.timeline import span

RESET_WITHIN = 900.0  # seconds to confirm a reset

NONE = "You have no sandbox yet: your first task makes one."
FRESH = "Your next turn gets a fresh one."
BY_OWNER = "its owner deleted the sandbox that it was in"
OVER = "That reset is over: it was done, its time has passed, or the sandbox is another one now."


class SandboxVerbs:
    def __init__(
        self,
        store: Store,
        surfaces: Mapping[str, Surface],
        sandboxes: Sandboxes,
        losses: Losses,
        clock: Clock,
    ) -> None:
        self._store = store
        self._surfaces = surfaces
        self.sandboxes = sandboxes
        self._losses = losses
        self._clock = clock
        self._answers = Answers(store)

    async def obey(self, message: Message, session: Session | None) -> str:
        """Raises Denied when the sandbox is not this person's."""
        person = await self._store.person(message.author)
        try:
            if number := message.options.get("number"):
                return await self._confirmed(message, person, int(number))
            if session is not None and session.owner.id != person.id:
                raise Denied(
                    f"The sandbox of this thread is {session.owner.identity.name}'s, so only they may.",
                    "About your own, write in a thread of yours.",
                )
            row = await self._store.sandbox(self.sandboxes.key(person))
            if row is None or not row.provider_id:
                return await self._answers.note(message, "no sandbox", NONE)
            match message.options["do"]:
                case "restart":
                    return await self._restart(message, row)
                case "pin" | "unpin" as do:
                    return await self._pin(message, row, do == "pin")
                case "reset":
                    return await self._reset(message, row)
            return await self._answers.note(message, "sandbox", await self._status(message, row))
        except SandboxGone as error:
            return await self._answers.note(message, "sandbox gone", f"{error} {FRESH}")
        except SandboxError as error:
            return await self._answers.note(message, "sandbox failed", f"That did not work. {error}")

    async def _status(self, message: Message, row: SandboxRow) -> str:
        now = self._clock.now()
        try:
            found = await (await self.sandboxes.get(row)).state()
            state = found.value
            # Whoever is alone with it may be stopping it at this moment, and writes that down: we don't.
            state += f" for {span(now - row.state_at)}" if row.state is found and row.state_at else ""
        except (SandboxGone, SandboxElsewhere):
            raise
        except SandboxError as error:
            state = f"not answering ({error})"
        turns = await self._store.open_sessions(row.key.person)
        runs = f"Open turns:\n{self._named(turns, message)}" if turns else "No turn of yours is open."
        used = f"Made {span(now - row.created_at)} ago, last used {span(now - row.last_used)} ago."
        return f"Sandbox `{row.provider_id}` ({row.key.provider}): {state}. {used} {self._kept(row)}\n{runs}"

    def _kept(self, row: SandboxRow) -> str:
        if row.pinned:
            return (
                "Pinned: I neither stop it for idleness nor delete it for age."
                " Its provider may have rules of its own."
            )
        ages = self.sandboxes.ages
        deleted = f" and deleted after {span(ages.ttl)}" if ages.ttl else ""
        return f"Not pinned: without a turn it is stopped after {span(ages.idle_stop)}{deleted}."

    async def _pin(self, message: Message, row: SandboxRow, pinned: bool) -> str:
        await self._store.pin_sandbox(row.id, pinned)
        kept = self._kept(replace(row, pinned=pinned))
        return await self._answers.note(message, "pinned" if pinned else "unpinned", kept)

    async def _restart(self, message: Message, row: SandboxRow) -> str:
        if busy := await self.sandboxes.restart(row):
            return await self._busy(message, busy)
        return await self._answers.note(message, "restarted", "Your sandbox was stopped and started again.")

    async def _reset(self, message: Message, row: SandboxRow) -> str:
        """Nothing is deleted yet: first it is said what that would cost."""
        if busy := await self._store.open_sessions(row.key.person):
            return await self._busy(message, busy)
        lost = await self._losses.of(row)
        reset = await self._store.new_reset(
            message.key, row, message.thread, lost.names, self._clock.now() + RESET_WITHIN
        )
        words = f"`{self._surfaces[message.thread.surface].spoken(f'reset {reset.number}')}`"
        text = (
            f"{self._question(row)} {self._costs(message, lost)}\n"
            f"Say {words} within {span(RESET_WITHIN)} to do it; only you can."
        )
        saying = self._answers.saying(message, "reset", SayingKind.NOTE, text)
        await self._store.say(replace(saying, key=_key(reset), reset=reset.number))
        return "reset asked"

    def _question(self, row: SandboxRow) -> str:
        where = self.sandboxes.whereabouts
        if where.reaches(row):
            return f"Delete your sandbox `{row.provider_id}`, with all that is in it?"
        return f"Give up your sandbox `{row.provider_id}`? It is kept {where.place(row)}, and stays there."

    def _ended(self, row: SandboxRow) -> str:
        done = "deleted" if self.sandboxes.whereabouts.reaches(row) else "given up"
        return f"Your sandbox is {done}. {FRESH}"

    def _costs(self, message: Message, lost: Lost) -> str:
        home = "Its home goes too: installed programs, settings, and what agents remember."
        unsure = " I could not look into all of it, so there may be more." if lost.doubt else ""
        if not (lost.sessions or lost.beside):
            none = "" if lost.doubt else "No work that is not published was found."
            return f"{none}{unsure} {home}".strip()
        return f"{home} So does work that is not published:{unsure}\n{listed(lost, self._surfaces, message)}"

    async def _confirmed(self, message: Message, person: Person, number: int) -> str:
        reset = await self._store.reset(number)
        if reset is not None and reset.sandbox.key.person != person.id:
            raise Denied("Only the owner of that sandbox may reset it.")
        if reset is None or reset.deadline <= self._clock.now():
            return await self._answers.note(message, "over", OVER)
        row = reset.sandbox
        if not row.provider_id:  # also when this very message did it, before a crash
            return await self._answers.note(message, "deleted", self._ended(row))
        if row.provider_id != reset.provider_id or row.key != self.sandboxes.key(person):
            return await self._answers.note(message, "over", OVER)
        if busy := await self._store.open_sessions(row.key.person):
            return await self._busy(message, busy)
        lost = await self._losses.of(row)
        if more := [name for name in lost.names if name not in reset.told]:
            text = "More would be lost by now than I told you."
            if more == [UNSURE]:
                text = (
                    f"More may be lost than I told you, since I cannot look into all of it now. {lost.doubt}"
                )
            text += " Say `sandbox reset` again to see what."
            return await self._answers.note(message, "more lost", text)
        if busy := await self.sandboxes.delete(
            row, BY_OWNER, f"{message.author.tenant}/{message.author.user}"
        ):
            return await self._busy(message, busy)
        await self._answers.note(message, "deleted", self._ended(row))
        if reset.thread.id:  # where everybody sees that it was asked
            key = _key(reset)
            text = f"{message.author.name} reset the sandbox `{reset.provider_id}`."
            over = Saying(f"{key}:over", SayingKind.ASKED, reset.thread, text, amends=key)
            await self._store.say(over)
        return "deleted"

    async def _busy(self, message: Message, sessions: Sequence[Session]) -> str:
        turns = self._named(sessions, message)
        text = f"A turn of yours is open. Say `stop` there first, then this again:\n{turns}"
        return await self._answers.note(message, "busy", text)

    def _named(self, sessions: Sequence[Session], message: Message) -> str:
        return named(sessions, self._surfaces, message)


def _key(reset: Reset) -> str:
    return f"reset:{reset.number}"
