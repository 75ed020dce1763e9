"""An agent's process, attempt by attempt: started or found again, talked with, and resumed when it dies."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bot.agents import conversations
from bot.agents.codec import Codec, Permissions, Prompt, Task, more_careful
from bot.agents.registry import find
from bot.attachments import Attachments
from bot.conversation import Conversation, prompt_key
from bot.driver import Deadlines, Driver, TurnStopped
from bot.endings import Endings
from bot.errors import (
    InputsChanged,
    LeaseLost,
    ProcessGone,
    SandboxGone,
    SandboxNotRunning,
    SandpiperError,
    StoreUnavailable,
)
from bot.events import Cause
from bot.failures import AgentDied, AgentFailed
from bot.models import Fate, Input, Launch, Memory, Past, Record, Remark, TurnState
from bot.patience import patiently
from bot.ports import Clock, Process, Store, Surface
from bot.preparation import Box, Preparation
from bot.prompts import first_prompt, next_prompt, resumed_prompt
from bot.records import memory_of, record_of
from bot.sandboxes import Sandboxes
from bot.sharing import Sharing, copies, entrance, nobody_waits
from bot.steerers import Asked, Steerers
from bot.trust import NO_TRUST, Trust
from bot.workspace import Workspaces

# How long to wait before each further attempt: an agent that dies at once gets no more than these.
PAUSES = (2.0, 15.0)
REMEMBERED = 20  # earlier turns that an agent without memory is told of at most
LOST = (AgentDied, ProcessGone, SandboxNotRunning, SandboxGone)  # the agent, or the box under it


class Attempts:
    """permissions: what agents do without asking at most, whatever was chosen for a session."""

    def __init__(
        self,
        store: Store,
        surfaces: Mapping[str, Surface],
        sandboxes: Sandboxes,
        workspaces: Workspaces,
        preparation: Preparation,
        steerers: Steerers,
        endings: Endings,
        sharing: Sharing,
        agents: Mapping[str, Codec],
        clock: Clock,
        deadlines: Deadlines,
        *,
        orphan_after: float,
        scratch: Path,
        permissions: Permissions = Permissions.AUTO,
        trust: Trust = NO_TRUST,
    ) -> None:
        self._trust = trust
        self._store = store
        self._surfaces = surfaces
        self._sandboxes = sandboxes
        self._workspaces = workspaces
        self._preparation = preparation
        self._steerers = steerers
        self._endings = endings
        self._sharing = sharing
        self._agents = agents
        self._clock = clock
        self._deadlines = deadlines
        self._orphan_after = orphan_after
        self._permissions = permissions
        self._scratch = scratch

    async def converse(self, driver: Driver, box: Box) -> Box:
        """Talk with the agent until it is done; when its process dies, or its box stops, resume it. Returns
        where it ended: a box that was gone has been replaced.

        Raises what a Conversation raises: AgentDied when it died once more than there are pauses.
        """
        codec = find(self._agents, driver.session.agent)
        while True:
            try:
                async with self._sandboxes.in_use(driver.session, box.sandbox):
                    await self._attempt(driver, codec, box)
                return box
            except (*LOST, AgentFailed) as error:
                again = driver.turn.attempt - 1
                if again >= len(PAUSES):
                    raise
                if isinstance(error, AgentFailed):
                    if not await self._could_not_resume(driver, error):
                        raise
                    await driver.record(Record(memory=Memory("")))
                    told = "The agent could not go on with its earlier conversation. It starts a new one."
                else:
                    told = f"{error.what.splitlines()[0]} Resuming it."
                    if isinstance(error, SandboxNotRunning):
                        told = "The sandbox stopped under the agent. Starting both again."
                driver.turn = await self._store.new_attempt(driver.turn.id, driver.fence)
                driver.session = await self._store.session(driver.session.id)
                await driver.notice(told)
                if not isinstance(error, AgentFailed):
                    await driver.within("prepare", 0, self._clock.sleep(PAUSES[again]))
                found = self._preparation.again(driver)
                box = await driver.within("prepare", self._deadlines.prepare, found)
                box = await driver.within("hooks", 0, self._preparation.hooked(driver, box))

    async def _could_not_resume(self, driver: Driver, error: AgentFailed) -> bool:
        """It was to continue a conversation that is not there, or failed before it took in a word."""
        if not driver.session.memory.token:
            return False
        if error.cause is Cause.RESUME:
            return True
        inputs = await self._store.prompt_inputs(driver.turn.id)
        untouched = all(item.fate is not Fate.CONSUMED for item in inputs)
        return untouched and error.cause is Cause.UNKNOWN

    async def _attempt(self, driver: Driver, codec: Codec, box: Box) -> None:
        memory = self._memory(driver, codec, box)
        launch = self._trust.into(box.sandbox, codec.launch(self._task(driver, codec, box, memory)))
        # What other agents have kept for it is not to lie open while this one works.
        private = tuple(dict.fromkeys((*launch.private, *conversations.ALL)))
        launch = replace(launch, entrance=entrance(box.sandbox, driver.turn), private=private)
        attachments = Attachments(self._surfaces, box.sandbox, driver.session.id, self._clock, self._scratch)
        starting = self._attach_or_spawn(driver, codec, launch, memory, box, attachments)
        process = await driver.within("prepare", self._deadlines.prepare, starting)
        conversation = Conversation(
            driver,
            codec,
            launch,
            process,
            box.sandbox,
            self._workspaces,
            self._sharing,
            attachments,
            self._steerers,
            self._deadlines,
        )
        try:
            await conversation.hold()
        except LOST:  # one that lives is ended once it is written down why
            await self._endings.end_process(driver, process)
            await self._sharing.end(driver, box.sandbox)
            await driver.tell(*nobody_waits(driver.timeline))
            raise
        except (LeaseLost, StoreUnavailable):  # the agent works on, and the next driver finds it
            raise
        except Exception:  # also a mistake of ours ends the turn
            await self._sharing.end(driver, box.sandbox)
            raise
        await self._sharing.end(driver, box.sandbox)

    async def _attach_or_spawn(
        self,
        driver: Driver,
        codec: Codec,
        launch: Launch,
        memory: Memory,
        box: Box,
        attachments: Attachments,
    ) -> Process:
        """The agent's process of this attempt: attached when it runs already, else started."""
        turn = driver.turn
        key = f"turn-{turn.id}-{turn.attempt}"
        if turn.state is TurnState.RUNNING and turn.codec_state:
            return await box.sandbox.attach(key, fence=driver.fence)
        await self._end_earlier(driver, box)
        await driver.phase("agent", f"Starting {codec.name}")
        past = () if memory.token else await self._store.past(turn.id, REMEMBERED)
        remarks = await self._remarks(driver) if not memory.token else ()
        process = await box.sandbox.spawn(key, launch, fence=driver.fence, orphan_after=self._orphan_after)
        if not turn.codec_state:
            while not await self._begin(driver, codec, memory, box, attachments, remarks, past):
                pass
            if past:
                told = "does not remember the earlier conversation here: it was told what was said and done."
                await driver.notice(f"{codec.name} {told}")
        if turn.state is TurnState.PREPARING:
            await self._store.advance(turn.id, driver.fence, TurnState.RUNNING)
            driver.turn = await self._store.turn(turn.id)
        return process

    async def _begin(
        self,
        driver: Driver,
        codec: Codec,
        memory: Memory,
        box: Box,
        attachments: Attachments,
        remarks: Sequence[Remark],
        past: Sequence[Past],
    ) -> bool:
        """The first prompt, recorded. False: people changed their words, which they can until then."""
        asked = await self._unsaid(driver, memory)
        while attachments.missing(asked.inputs):
            await driver.phase("files", "Bringing in what people attached")
            await attachments.bring(asked.inputs)
            asked = await self._unsaid(driver, memory)
        inputs = asked.inputs
        pictures = attachments.pictures(inputs) if codec.capabilities.images else ()
        told = attachments.told(inputs)
        step = codec.begin(self._task(driver, codec, box, memory, told, remarks, past, pictures))
        record = record_of(step, given=inputs, events=driver.untold(attachments.trouble(inputs)))
        memory_then = memory_of(step, codec, box.sandbox)
        try:
            await driver.record(replace(record, memory=memory_then, newest=asked.newest))
        except InputsChanged:
            return False
        return True

    def _memory(self, driver: Driver, codec: Codec, box: Box) -> Memory:
        """What the agent continues; none where it is another's, or was kept in another sandbox."""
        memory = driver.session.memory
        ours = memory.agent in ("", codec.name) and memory.box in ("", box.sandbox.id)
        return memory if ours and codec.capabilities.resume else Memory("")

    async def _end_earlier(self, driver: Driver, box: Box) -> None:
        """What an earlier turn or attempt left running while nobody could reach it: there is one agent in
        a worktree."""
        earlier = await self._store.turn_before(driver.turn.id)
        attempts = [] if earlier is None else [(earlier.id, earlier.attempt)]
        attempts += [(driver.turn.id, attempt) for attempt in range(1, driver.turn.attempt)]
        for turn, attempt in attempts:
            with contextlib.suppress(ProcessGone):
                process = await box.sandbox.attach(f"turn-{turn}-{attempt}", fence=driver.fence)
                await self._endings.end_process(driver, process)

    async def _remarks(self, driver: Driver) -> Sequence[Remark]:
        """What was said in the thread before, for an agent that starts a new conversation."""
        turn = driver.turn
        inputs = await self._store.prompt_inputs(turn.id)
        before = next((item.sent for item in inputs if item.thread == turn.thread), "")
        surface = self._surfaces[turn.thread.surface]
        return await patiently(self._clock, lambda: surface.remarks(turn.thread, before))

    async def _unsaid(self, driver: Driver, memory: Memory) -> Asked:
        """The inputs that go into this attempt's first prompt."""
        # Some may have come in while we prepared, which can take long.
        asked = await self._steerers.permitted(driver)
        now = await self._store.session(driver.session.id)
        if now.works_with != driver.session.works_with:
            raise SandpiperError(
                "Whoever chose this turn's agent, model or effort may not steer here any more.",
                f"Write here to go on with {now.agent}.",
            )
        if not asked.inputs:  # deleted while we prepared
            raise TurnStopped("the deletion of its message")
        if memory.token:
            pending = tuple(item for item in asked.inputs if item.fate is Fate.PENDING)
            return replace(asked, inputs=pending)
        return asked

    def _task(
        self,
        driver: Driver,
        codec: Codec,
        box: Box,
        memory: Memory,
        inputs: Sequence[Input] = (),
        remarks: Sequence[Remark] = (),
        past: Sequence[Past] = (),
        pictures: tuple[str, ...] = (),
    ) -> Task:
        turn, session = driver.turn, driver.session
        if not memory.token:
            asks = codec.capabilities.questions
            text = first_prompt(session, box.place, inputs, remarks, past=past, asks=asks)
        elif turn.attempt > 1:
            text = resumed_prompt(box.place, inputs)
        else:
            text = next_prompt(box.place, inputs)
        ids = tuple(item.id for item in inputs)
        return Task(
            Prompt(prompt_key(turn.id, turn.attempt, "first"), text, ids, pictures),
            cwd=box.place.directory,
            home=box.sandbox.home,
            model=session.model,
            resume_token=memory.token,
            session_uuid=prompt_key(turn.id, turn.attempt, "session"),
            visible=box.place.visible,
            effort=session.effort,
            permissions=more_careful(self._permissions, Permissions(session.permissions or Permissions.AUTO)),
            answerable=True,
            command=box.command,
            shared=copies(box.sandbox, session.id),
        )
