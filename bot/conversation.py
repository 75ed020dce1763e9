"""One agent process and what is said to it: output in, inputs out, every step recorded first."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bot.agents.codec import (
    Answered,
    Codec,
    Exited,
    Happening,
    Interrupt,
    LineBuffer,
    Lines,
    Prompt,
    Steer,
    Step,
)
from bot.approvals import answer_of, asked, settled, withdrawn
from bot.attachments import Attachments
from bot.driver import Deadlines, Driver, TurnStopped
from bot.errors import (
    DeadlinePassed,
    InputGap,
    InputsChanged,
    LeaseLost,
    SandboxError,
    SandboxUnreachable,
    StaleFence,
)
from bot.events import (
    Cause,
    Completed,
    Event,
    FileOffered,
    Phase,
    PortOffered,
    Shared,
    Steered,
    StopReason,
    Unknown,
)
from bot.failures import AgentDied, AgentFailed, mend_of, not_started
from bot.feed import STDERR, STDOUT, Broke, Ended, Feed, Item, Late, Lost, Output, Rung, Tick, WordsReady
from bot.last_words import KEPT_BYTES, LastWords
from bot.models import Inbox, Input, Launch, Record, Session
from bot.patience import patiently
from bot.ports import Process, Sandbox
from bot.prompts import finish_up, said
from bot.records import memory_of, offers_of, record_of
from bot.refusals import tell_denied
from bot.sharing import ShareOutcome, Sharing
from bot.steerers import Asked, Steerers
from bot.workspace import Unfinished, Workspaces

log = logging.getLogger(__name__)

NOT_FOUND = 127  # the exit code of a program that is not there, by the shell's convention
LONGEST_WORDS = 2000  # bytes; an unfinished line that is longer is half a frame
NAMESPACE = uuid.UUID("6f1d1f0e-2f0c-5a6e-9c0a-7a1d5b0c9a11")


def prompt_key(turn: int, attempt: int, what: str) -> str:
    """The UUID that names a prompt to the agent: the same again after a crash."""
    return str(uuid.uuid5(NAMESPACE, f"{turn}:{attempt}:{what}"))


class Conversation:
    """Holds the conversation of one attempt at a turn. Nobody else touches its codec or stdin."""

    def __init__(
        self,
        driver: Driver,
        codec: Codec,
        launch: Launch,
        process: Process,
        sandbox: Sandbox,
        workspaces: Workspaces,
        sharing: Sharing,
        attachments: Attachments,
        steerers: Steerers,
        deadlines: Deadlines,
    ) -> None:
        self._driver = driver
        self._codec = codec
        self._process = process
        self._sandbox = sandbox
        self._workspaces = workspaces
        self._sharing = sharing
        self._attachments = attachments
        self._steerers = steerers
        self._asked = Asked()
        self._readying = False
        self._deadlines = deadlines
        self._lines = LineBuffer(offset=driver.turn.out_offset)
        # Read again after a restart, so that the cause of a death that was said before is still known.
        self._err_offset = max(0, driver.turn.err_offset - KEPT_BYTES)
        self._last_words = LastWords(launch.secrets.values(), cut=self._err_offset > 0)
        self._stopping = ""
        self._bringing = asyncio.Lock()
        self._end: Ended | None = None
        self._memory_kills_before = 0
        self._unsent = False
        self._word: Completed | None = None  # that the agent is done, whatever step it came with
        self._asking: dict[str, float] = {}  # the agent's names of what people are asked, until when

    async def hold(self) -> Completed:
        """To the agent's last word; the turn is then in `finishing`.

        Raises TurnStopped, DeadlinePassed, AgentDied, AgentMissing, AgentFailed, SandboxError.
        """
        driver, turn = self._driver, self._driver.turn
        self._memory_kills_before = await self._memory_kills()
        await self._write_journal()
        feed = Feed(
            self._process,
            driver.store.watch(f"turn:{turn.id}"),
            driver.clock,
            self._deadlines,
            offsets=(turn.out_offset, self._err_offset),
            started_at=turn.started_at or turn.queued_at,
        )
        open_asks = await driver.store.open_asks(turn.session)
        self._asking = {ask.name: ask.deadline for ask in open_asks if ask.turn == turn.id}
        # Heard before a restart, which came before what follows from it.
        self._word = driver.timeline.last_word
        async with feed:
            # Of before a restart: what was not brought yet, and ways that ended with the bot.
            self._share((*driver.timeline.offers, *driver.timeline.ports), feed)
            if word := await self._last_word(feed):
                return word
            async for item in feed.items():
                await self._on(item, feed)
                feed.wait_for_people(bool(self._asking))
                if word := await self._last_word(feed):
                    return word
        raise AssertionError("a feed never ends by itself")

    async def _last_word(self, feed: Feed) -> Completed | None:
        """The agent's word that it is done, if nothing more is to be said to it."""
        while (word := self._word) is not None and not self._on_its_way(word):
            self._word = None
            if await self._is_over(word, feed):
                return word
        if self._word is None and self._end is not None:  # nobody is there to say one
            await self._ended(self._end.code)
        return None

    def _on_its_way(self, word: Completed) -> bool:
        """What it shares is brought before the turn ends, or people would look for it in vain. What comes
        with words for it is awaited where it would hear them."""
        hears = word.reason is StopReason.END and not self._stopping
        return bool(self._driver.timeline.offers) or (self._readying and hears)

    async def _on(self, item: Item, feed: Feed) -> None:
        match item:
            case Output(fd=fd, data=data):
                if fd == STDERR:
                    await self._complaint(data, feed)
                    return
                lines = self._lines.feed(data)
                if lines:
                    step = await self._step(Lines(lines), out_offset=self._lines.offset)
                    self._remember_unreadable(step)
                    self._share(step.events, feed)
                elif self._lines.offset > self._driver.turn.out_offset:  # a line too long to be one
                    await self._driver.record(Record(out_offset=self._lines.offset))
                feed.acked[STDOUT] = self._driver.turn.out_offset
            case Rung():
                await self._take_in(await self._driver.store.inbox(self._driver.turn.id), feed)
            case Tick():
                if self._unsent:
                    await self._write_journal()
                await tell_denied(self._driver, self._sandbox)
                if any(deadline <= self._driver.clock.now() for deadline in self._asking.values()):
                    await self._driver.store.expire_asks(self._driver.turn.id, self._driver.fence)
            case WordsReady(asked=asked):
                self._readying, self._asked = False, asked
                await self._take_in(await self._driver.store.inbox(self._driver.turn.id), feed)
            case ShareOutcome(offer=offer, done=done, text=text, told=told):
                answer = Answered(offer.id, told if done else "", told)
                await self._step(answer, events=(Shared(offer.id, text, done),))
                if offer not in self._driver.timeline.ports:
                    await self._sharing.tidy(self._driver, self._sandbox, offer)
            case Broke(error=error):
                raise error
            case Late(phase="interrupt"):
                raise TurnStopped(self._stopping)
            case Late(phase=phase, seconds=seconds):
                raise DeadlinePassed(phase, seconds)
            case Lost(error=error):
                raise error
            case Ended():
                self._end = item

    def _share(self, events: Iterable[Event], feed: Feed) -> None:
        for event in events:
            if isinstance(event, FileOffered | PortOffered):
                feed.beside(self._bring(event))

    async def _bring(self, offer: FileOffered | PortOffered) -> ShareOutcome:
        """One at a time, since each may be large."""
        async with self._bringing:
            return await self._sharing.share(self._driver, self._sandbox, offer)

    async def _is_over(self, completed: Completed, feed: Feed) -> bool:
        """Nothing more to say to the agent? Else it was said, and its next word is awaited."""
        await tell_denied(self._driver, self._sandbox)
        driver = self._driver
        await self._end_if_stopped()
        if completed.reason is not StopReason.END:
            why = completed.error or "The agent gave up without a reason."
            raise AgentFailed(why, completed.cause, await self._mend(completed.cause))
        if not driver.turn.asked_to_commit:
            left = {one.tree: await self._left_over(one) for one in driver.session.each()}
            if any(one.askable for one in left.values()):
                prompt = Prompt(
                    prompt_key(driver.turn.id, driver.turn.attempt, "commit"),
                    finish_up(left, driver.session.branch),
                )
                files = any(one.files for one in left.values())
                what = "commit what is left over" if files else "finish what is left over"
                asked = Phase("commit", f"Asked the agent to {what}")
                await self._step(Steer(prompt), events=(asked,), asked_to_commit=True)
                return False
        inbox = await driver.store.begin_finishing(driver.turn.id, driver.fence)
        if not await self._take_in(inbox, feed):
            self._word = completed  # there will be no other
        return not inbox.inputs and not inbox.stop_by

    async def _left_over(self, session: Session) -> Unfinished:
        turn = self._driver.turn.id
        return await patiently(
            self._driver.clock, lambda: self._workspaces.unfinished(session, self._sandbox, turn)
        )

    async def _end_if_stopped(self) -> None:
        """The agent's last word or its end may be heard before the bell of the stop that it obeyed, as after
        a restart: the store knows."""
        by = self._stopping or (await self._driver.store.inbox(self._driver.turn.id)).stop_by
        if by:
            raise TurnStopped(by)

    async def _take_in(self, inbox: Inbox, feed: Feed) -> bool:
        """Was the agent told anything that it will say a word to?"""
        if inbox.stop_by and not self._stopping:
            self._stopping = inbox.stop_by
            feed.interrupt_within(self._deadlines.interrupt)
            await self._step(Interrupt())
            return True
        if not self._stopping:
            for ask in inbox.answers:
                told = answer_of(ask, self._deadlines.approval)
                await self._step(told, events=(settled(ask),), told=(ask.id,))
                self._asking.pop(ask.name, None)
            if self._unready(inbox.inputs):
                if not self._readying:
                    self._readying = True
                    feed.beside(self._ready(inbox.inputs))
            elif inbox.inputs:
                return await self._steer(inbox.inputs, feed)
        return False

    def _unready(self, inputs: Sequence[Input]) -> bool:
        asked = not self._steerers.unasked(self._driver, inputs, self._asked)
        return not asked or self._attachments.missing(inputs)

    async def _ready(self, inputs: Sequence[Input]) -> WordsReady:
        """Beside all else. What came with them first, since that can take long."""
        await self._attachments.bring(inputs)
        return WordsReady(await self._steerers.waiting(self._driver))

    async def _steer(self, inputs: Sequence[Input], feed: Feed) -> bool:
        turn = self._driver.turn
        ids = tuple(item.id for item in inputs)
        key = prompt_key(turn.id, turn.attempt, ",".join(map(str, ids)))
        steered = tuple(Steered(item.author.name, item.text) for item in inputs)
        events: tuple[Event, ...] = (*self._driver.untold(self._attachments.trouble(inputs)), *steered)
        prompt = Prompt(key, said(self._attachments.told(inputs)), ids, self._pictures(inputs))
        word, self._word = self._word, None  # what it says to these words counts
        try:
            await self._step(Steer(prompt), given=inputs, events=events)
        except InputsChanged:
            self._word, self._asked = word, Asked()
            return await self._take_in(await self._driver.store.inbox(turn.id), feed)
        return True

    def _pictures(self, inputs: Sequence[Input]) -> tuple[str, ...]:
        return self._attachments.pictures(inputs) if self._codec.capabilities.images else ()

    async def _step(
        self,
        happening: Happening,
        *,
        given: Sequence[Input] = (),
        events: tuple[Event, ...] = (),
        out_offset: int | None = None,
        asked_to_commit: bool | None = None,
        told: tuple[int, ...] = (),
    ) -> Step:
        """Ask the codec, record its answer, then write to the agent: in this order."""
        driver = self._driver
        step = self._codec.on(driver.turn.codec_state, happening)
        offset = driver.turn.in_offset
        asks = asked(step.events, driver.clock.now() + self._deadlines.approval)
        gone = withdrawn(step.events)
        record = record_of(
            step, given=given, events=events, out_offset=out_offset, asked_to_commit=asked_to_commit
        )
        newest = self._asked.newest if given else None
        memory = memory_of(step, self._codec, self._sandbox)
        offers = offers_of(step, self._codec)
        await driver.record(
            replace(
                record, memory=memory, offers=offers, asked=asks, withdrawn=gone, told=told, newest=newest
            )
        )
        self._asking |= {ask.id: ask.deadline for ask in asks}
        for name in gone:
            self._asking.pop(name, None)
        if step.write:
            await self._write(offset, step.write)
        self._word = step.completed or self._word
        return step

    async def _write_journal(self) -> None:
        """Give stdin what is recorded and did not reach it: after a crash, or while it was away."""
        turn = self._driver.turn
        self._unsent = False
        try:
            have = (await self._process.status()).in_offset
        except SandboxUnreachable:
            self._unsent = True
            return
        except SandboxError as error:  # the feed tells that story
            log.info("turn %s: stdin is gone: %s", turn.id, error)
            return
        if have < turn.in_offset:
            await self._write(have, await self._driver.store.journal(turn.id, turn.attempt, have))

    async def _write(self, offset: int, data: bytes) -> None:
        """What cannot be written now is in the journal, and written at the next tick. A process that is
        gone is the feed's to report."""
        try:
            await self._process.write(offset, data)
        except StaleFence as error:
            raise LeaseLost(f"Turn {self._driver.turn.id} is driven by somebody else now.") from error
        except (InputGap, SandboxUnreachable) as error:
            log.warning("turn %s: stdin waits: %s", self._driver.turn.id, error)
            self._unsent = True
        except SandboxError as error:
            log.info("turn %s: stdin is gone: %s", self._driver.turn.id, error)

    async def _ended(self, code: int | None) -> None:
        rest = self._lines.rest()
        if 0 < len(rest) <= LONGEST_WORDS:
            self._last_words.hear_line(rest)
        tail = self._last_words.text()
        await self._step(Exited(code, tail))
        await self._end_if_stopped()
        if code == NOT_FOUND and not self._driver.turn.out_offset:
            raise not_started(self._codec.name, tail)
        raise AgentDied(code, tail, starved=await self._memory_kills() > self._memory_kills_before)

    async def _memory_kills(self) -> int:
        with contextlib.suppress(SandboxError):
            return await self._sandbox.memory_kills(self._process.key)
        return 0

    async def _mend(self, cause: Cause) -> str:
        can, session = self._codec.capabilities, self._driver.session
        known = can.models
        if cause is Cause.NO_MODEL and not known and session.repository is not None:
            offered = await self._driver.store.offered(
                self._codec.name, can.version, session.owner.id, session.repository.id
            )
            known = offered.names if offered else ()
        return mend_of(cause, can, session.model, known)

    async def _complaint(self, data: bytes, feed: Feed) -> None:
        """Acknowledged, so that the supervisor never waits for stderr to be read, but for its end."""
        self._last_words.hear(data)
        self._err_offset += len(data)
        if self._err_offset > self._driver.turn.err_offset:
            await self._driver.record(Record(err_offset=self._err_offset))
            feed.acked[STDERR] = max(feed.acked[STDERR], self._err_offset - KEPT_BYTES)

    def _remember_unreadable(self, step: Step) -> None:
        """Plain words between the frames may say why the agent ends."""
        for event in step.events:
            if isinstance(event, Unknown):
                self._last_words.hear_line(event.raw.encode())
