"""Whose words a turn's agent is given. People were asked about when they wrote; what the sandbox holds, and
who they are, may have changed since.

Where a sandbox does not keep its owner's sessions apart, this has two sides (docs/decisions/0024): words are
given only as long as nothing lies there that their author may not read, and code comes in only when no agent
there follows words of somebody who may not read it. The store decides which of the two was first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bot.access import Access, is_owner
from bot.driver import Driver
from bot.errors import Denied, ForgeError, NothingLeft, SandpiperError, SurfaceBusy
from bot.models import Fate, Identity, Input, Saying, SayingKind, Session, ThreadKey, Turn
from bot.patience import patiently
from bot.ports import Clock, Store, Surface, Watch
from bot.timeline import span

POLL = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Words that may be given. newest: of their session's owner, the newest turn when it was asked; None:
    nobody else wrote any of them."""

    inputs: tuple[Input, ...] = ()
    newest: int | None = None


class Steerers:
    def __init__(
        self,
        store: Store,
        access: Access,
        surfaces: Mapping[str, Surface],
        clock: Clock,
        *,
        together: bool,
        patience: float,
    ) -> None:
        """together: sandboxes do not keep sessions apart. patience: seconds for which code waits until a turn
        that follows others' words has ended; 0: for ever."""
        self._store = store
        self._access = access
        self._surfaces = surfaces
        self._clock = clock
        self._together = together
        self._patience = patience

    # words

    async def permitted(self, driver: Driver) -> Asked:
        """The turn's words, without those that were taken back, and those of others than the owner who may
        not steer here now. What of it no agent has been given is dropped, and they are told.

        Raises NothingLeft, and a ForgeError when it cannot be asked.
        """

        async def read() -> Sequence[Input]:
            inputs = await self._store.prompt_inputs(driver.turn.id)
            return [one for one in inputs if one.fate is not Fate.DROPPED]

        asked, refused = await self._sift(driver, read, partial(self._refusal, driver.session))
        if refused and not asked.inputs:
            raise NothingLeft(
                "Nothing is left to do: whoever wrote may not steer here any more.",
                f"{driver.session.owner.identity.name} can write here to go on.",
            )
        return asked

    async def waiting(self, driver: Driver) -> Asked:
        """The same for what has come in for the running turn. Who cannot be asked about is refused, since
        that ends no turn."""

        async def read() -> Sequence[Input]:
            return (await self._store.inbox(driver.turn.id)).inputs

        async def refusal(author: Identity, thread: ThreadKey) -> Denied | None:
            try:
                return await self._refusal(driver.session, author, thread)
            except (ForgeError, SurfaceBusy) as error:
                return Denied(f"Whether they may could not be found out: {error}", "It can be written again.")

        asked, _ = await self._sift(driver, read, refusal)
        return asked

    def unasked(self, driver: Driver, inputs: Sequence[Input], asked: Asked) -> bool:
        """Are there others' words among these that were not asked about, as they are?"""
        owner = driver.session.owner
        return any(not is_owner(one.author, owner) and one not in asked.inputs for one in inputs)

    async def _sift(
        self,
        driver: Driver,
        read: Callable[[], Awaitable[Sequence[Input]]],
        refusal: Callable[[Identity, ThreadKey], Awaitable[Denied | None]],
    ) -> tuple[Asked, bool]:
        """What may be given, and whether anything may not."""
        owner, refusals = driver.session.owner, dict[tuple[Identity, ThreadKey], Denied | None]()
        newest = await self._store.newest_turn(owner.id)  # before all that is asked
        while True:
            inputs = await read()
            for one in inputs:
                who = (one.author, one.thread)
                if who not in refusals and not is_owner(one.author, owner):
                    refusals[who] = await refusal(*who)
            allowed, changed = list[Input](), False
            for one in inputs:
                denied = refusals.get((one.author, one.thread))
                if denied is None:
                    allowed.append(one)
                elif one.fate is Fate.PENDING:
                    changed |= not await self._refuse(driver, one, denied)
            if not changed:  # by an edit meanwhile, and it may be another's words now
                asked = Asked(tuple(allowed), newest if refusals else None)
                return asked, any(refusals.values())

    async def _refusal(self, session: Session, author: Identity, thread: ThreadKey) -> Denied | None:
        async def ask() -> Denied | None:
            try:
                for repository in session.repositories or (None,):
                    await self._access.may_steer(author, thread, repository, session.owner)
            except Denied as denied:
                return denied
            return None

        return await patiently(self._clock, ask)

    async def _refuse(self, driver: Driver, refused: Input, denied: Denied) -> bool:
        """False: it was edited or taken back since it was read."""
        author, thread = refused.author, refused.thread
        text = f"What {author.name} wrote does not go to the agent any more. {denied}"
        key = f"refused:{driver.turn.id}:{thread}:{author.surface}:{author.tenant}:{author.user}"
        saying = Saying(key, SayingKind.NOTE, thread, text=text, ref=refused.ref, turn=driver.turn.id)
        done = await self._store.refuse_input(driver.turn.id, driver.fence, refused, saying)
        if done:
            await self._store.audit(f"{author.tenant}/{author.user}", "denied", str(thread), denied.what)
        return done

    # code

    async def apart(self, driver: Driver) -> None:
        """Before the turn's code comes in: wait until no other turn in its sandbox follows the words of
        somebody who may not read it. Whoever steers there from now on is asked about it.

        Raises SandpiperError when that takes too long.
        """
        if not self._together:
            return
        since = self._clock.now()
        bells: dict[int, Watch] = {}
        while (found := await self._in_the_way(driver.session)) is not None:
            turn, who = found
            where = self._called(turn, driver)
            if turn.id not in bells:  # looked at again, lest it has ended since
                bells[turn.id] = self._store.watch(f"turn:{turn.id}")
                await driver.phase(
                    "apart",
                    f"Waiting until the turn in {where} has ended: {who.name} has steered it, and may not "
                    "read the code that comes into the same sandbox now. Say `stop` there to go on at once.",
                )
                continue
            waited = self._clock.now() - since
            if self._patience and waited >= self._patience:
                raise SandpiperError(
                    f"I waited {span(self._patience)} for the turn in {where} to end. {who.name} has steered "
                    "it, and may not read the code of this thread, which would lie in the same sandbox.",
                    "Say `stop` there or wait for its end, then write here to try again.",
                )
            left = self._patience - waited if self._patience else POLL
            await bells[turn.id].wait(min(POLL, left))

    async def _in_the_way(self, session: Session) -> tuple[Turn, Identity] | None:
        """A turn beside this session's, and whose words it follows who may not read all of its code."""
        asked = set[tuple[Identity, ThreadKey]]()
        for one in await self._store.given_beside(session.id):
            who = (one.author, one.thread)
            if one.turn is None or who in asked or is_owner(one.author, session.owner):
                continue
            asked.add(who)
            reads = partial(self._access.may_read, *who, session.repositories)
            if not await patiently(self._clock, reads):
                return await self._store.turn(one.turn), one.author
        return None

    def _called(self, turn: Turn, driver: Driver) -> str:
        """A link only where those who read along can see that thread, too."""
        there, here, owner = turn.thread, driver.turn.thread, driver.session.owner.identity.name
        surface = self._surfaces.get(there.surface)
        alone = here.surface in self._surfaces and self._surfaces[here.surface].direct(here)
        if surface is None or not (alone or (there.surface, there.scope) == (here.surface, here.scope)):
            return f"another thread of {owner}'s (`sandbox status` names it)"
        return surface.link(there)
