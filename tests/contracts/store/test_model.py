"""Any interleaving of people and drivers: no word is lost, none goes twice, turns never overlap."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from bot.errors import LeaseLost
from bot.models import (
    Caps,
    Claim,
    Disposition,
    Fate,
    Input,
    Mark,
    Mode,
    Outcome,
    Record,
    SayingKind,
    StopOutcome,
    TurnState,
    Waiting,
)
from tests.contracts.store.conftest import OPENINGS
from tests.contracts.store.stage import ANN, BOB, ZOE, Opening, Stage, slack

T = TypeVar("T")

CAPS = (Caps(total=2, person=1), Caps(sandboxes=1))
OWNERS = {"s1": ANN, "s2": BOB, "s3": BOB, "s4": ZOE}  # Bob's two sessions share his one place
SESSIONS = tuple(OWNERS)

DRIVING = (
    "run",
    "run",
    "write",
    "consume",
    "defer",
    "start the agent again",
    "claim again",
    "begin to finish",
    "end",
    "fail",
)
# One list, weighted by repetition: hypothesis likes to leave whole rules out of a story.
HAPPENINGS = (
    *("write",) * 4,
    "write at once",
    "stop",
    "withdraw",
    *("drive",) * 12,
    "wake a frozen driver",
    "restart",
)
UNSETTLED = (Fate.PENDING, Fate.WRITTEN, Fate.DEFERRED, Fate.HELD)


class Story(RuleBasedStateMachine):
    """The store beside the little that must be true of it."""

    opening: Opening
    caps: Caps

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        # In memory where that can be had: this is about order, not about disks.
        shared = Path("/dev/shm")
        self._directory = tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None)
        self.stage = Stage(Path(self._directory.name) / "data", self.opening)
        self._do(self.stage.open())
        self._numbers = itertools.count(1)
        self.admitted: dict[str, list[str]] = {session: [] for session in SESSIONS}
        self.turns: dict[int, str] = {}
        self.claims: dict[int, Claim] = {}
        self.stale: list[Claim] = []
        self.ended: set[int] = set()
        self.dropped: set[str] = set()
        self.opened: dict[int, set[int]] = {}  # what was in a turn when its agent began to run

    def teardown(self) -> None:
        try:
            self._do(self._end_in_peace())
        finally:
            self._do(self.stage.store.close())
            self._runner.close()
            self._directory.cleanup()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    @initialize()
    def ann_starts(self) -> None:
        self._do(self._write("s1", Mode.STEER))

    @rule(
        what=st.sampled_from(HAPPENINGS),
        session=st.sampled_from(SESSIONS),
        mode=st.sampled_from(Mode),
        which=st.integers(0, 20),
        act=st.sampled_from(DRIVING),
    )
    def happens(self, what: str, session: str, mode: Mode, which: int, act: str) -> None:
        known = self.admitted[session]
        match what:
            case "write":
                self._do(self._write(session, mode))
            case "write at once":
                self._do(self._write_at_once(session))
            case "stop" if known:
                self._do(self._stop(session))
            case "withdraw" if known:
                self._do(self._withdraw(known[which % len(known)]))
            case "drive":
                self._do(self._drive(which, act))
            case "wake a frozen driver" if self.stale:
                self._do(self._write_late(self.stale[which % len(self.stale)]))
            case "restart":
                self._do(self._restart())

    # people

    async def _write_at_once(self, session: str) -> None:
        await asyncio.gather(*(self._write(session, Mode.STEER) for _ in range(3)))

    async def _stop(self, session: str) -> None:
        open_turn = await self.stage.store.open_turn(session)
        outcome = await self.stage.store.request_stop(f"stop-{next(self._numbers)}", session, "Ann")
        assert outcome is (StopOutcome.NOTHING if open_turn is None else StopOutcome.STOPPING)

    async def _withdraw(self, key: str) -> None:
        before = await self.stage.store.revise(f"withdraw-{next(self._numbers)}", key, None)
        assert before is not None
        if before.fate in (Fate.PENDING, Fate.DEFERRED, Fate.HELD):
            self.dropped.add(key)

    async def _write(self, session: str, mode: Mode) -> None:
        number = next(self._numbers)
        words = self.stage.words(f"{number}", key=f"m{number}", sent=f"{number:08}", mode=mode)
        new = await self.stage.session(session, by=OWNERS[session], thread=slack(session))
        admitted = await self.stage.store.admit(new, words, new.thread)
        assert admitted.disposition is not Disposition.DUPLICATE and admitted.session == session
        again = await self.stage.store.admit(new, words, new.thread)
        assert again.disposition is Disposition.DUPLICATE
        self.admitted[session].append(words.message_key)
        if admitted.turn is not None:
            self.turns[admitted.turn] = session

    # drivers

    async def _drive(self, which: int, act: str) -> None:
        """Claim the turn when nobody has, else do something with it."""
        open_turns = [turn for turn in self.turns if turn not in self.ended]
        if not open_turns:
            return
        turn = open_turns[which % len(open_turns)]
        claim = self.claims.get(turn)
        if claim is None:
            await self._claim(turn, self.caps)
        else:
            await self._act(claim, act)

    async def _claim(self, turn: int, caps: Caps) -> Claim | None:
        answer = await self.stage.store.claim(turn, "here", 60.0, caps)
        assert answer is not None, "an open turn is claimed, or waits"
        if isinstance(answer, Waiting):
            assert turn not in self.claims and answer.place >= 1
            return None
        if turn in self.claims:
            assert answer.fence > self.claims[turn].fence
            self.stale.append(self.claims[turn])
        self.claims[turn] = answer
        return answer

    async def _act(self, claim: Claim, act: str) -> None:
        store, turn, fence = self.stage.store, claim.turn.id, claim.fence
        state = (await store.turn(turn)).state
        taken = tuple(one.id for one in (await self.stage.pending(turn))[:1])
        match act:
            case "run" if state is TurnState.PREPARING:
                await store.advance(turn, fence, TurnState.RUNNING)
                self.opened[turn] = {one.id for one in await store.prompt_inputs(turn)}
            case "write":
                await store.record(turn, fence, Record(written=taken))
            case "consume":
                await store.record(turn, fence, Record(written=taken, consumed=taken))
            case "defer":
                await store.record(turn, fence, Record(deferred=taken))
            case "start the agent again":
                await self._start_again(claim)
            case "claim again":
                await self._claim(turn, self.caps)
            case "begin to finish":
                inbox = await store.begin_finishing(turn, fence)
                closed = (await store.turn(turn)).state is TurnState.FINISHING
                assert closed == (not inbox.stop_by and not inbox.inputs)
            case "end" | "fail":
                stopped = (await store.inbox(turn)).stop_by
                ended = TurnState.DONE if act == "end" else TurnState.FAILED
                await self._end(claim, TurnState.STOPPED if stopped else ended)

    async def _start_again(self, claim: Claim) -> None:
        before = await self.stage.store.prompt_inputs(claim.turn.id)
        await self.stage.store.new_attempt(claim.turn.id, claim.fence)
        again = {one.id for one in await self.stage.pending(claim.turn.id)}
        assert again == {one.id for one in before if one.fate in (Fate.PENDING, Fate.WRITTEN)}

    async def _write_late(self, stale: Claim) -> None:
        with pytest.raises(LeaseLost):
            await self.stage.store.set_ready(stale.turn.id, stale.fence, "late")
        with pytest.raises(LeaseLost):
            await self.stage.finish(stale)

    async def _restart(self) -> None:
        await self.stage.reopen()
        open_turns = await self.stage.store.boot("here")
        assert list(open_turns) == sorted(turn for turn in self.turns if turn not in self.ended)

    async def _end(self, claim: Claim, state: TurnState) -> None:
        turn, session = claim.turn.id, claim.session.id
        waiting = [held for held in await self._log(session) if held.fate is Fate.HELD]
        left = [
            one for one in await self._log(session) if one.fate in UNSETTLED and one.fate is not Fate.HELD
        ]
        given = (Fate.WRITTEN, Fate.DEFERRED)
        opened = self.opened.get(turn)
        handed_back = [
            one
            for one in left
            if one.turn == turn and one.fate in given and (opened is None or one.id in opened)
        ]
        interrupted = any(one.turn is None and one.mode is Mode.INTERRUPT for one in left)
        follow_up = await self.stage.finish(claim, state, outcome=Outcome.ANSWERED)
        del self.claims[turn]
        self.stale.append(claim)
        self.ended.add(turn)
        if state is TurnState.STOPPED:
            assert (follow_up is not None) == interrupted
        elif state is TurnState.DONE:
            assert (follow_up is not None) == (len(left) > len(handed_back))
        if follow_up is not None:
            self.turns[follow_up] = session
            opening = await self.stage.store.prompt_inputs(follow_up)
            assert {one.id for one in left + waiting} <= {one.id for one in opening}
            assert [one.sent for one in opening] == sorted(one.sent for one in opening)

    # what is always true

    @invariant()
    def the_caps_hold(self) -> None:
        running = [turn for turn in self.claims if not self._do(self.stage.store.inbox(turn)).stop_by]
        owners = [OWNERS[self.turns[turn]] for turn in running]
        if self.caps.sandboxes:
            assert len({owner for owner in owners if owner.tenant == ANN.tenant}) <= self.caps.sandboxes
        else:
            assert len(running) <= self.caps.total
            assert owners.count(BOB) <= self.caps.person

    @invariant()
    def every_word_has_its_place(self) -> None:
        for session in SESSIONS:
            log = self._do(self._log(session))
            keys = [one.message_key for one in log]
            assert sorted(keys) == sorted(self.admitted[session]), "none lost, none twice"
            open_turn = self._do(self.stage.store.open_turn(session))
            for one in log:
                if one.message_key in self.dropped:
                    assert one.fate is Fate.DROPPED
                elif one.fate in (Fate.WRITTEN, Fate.DEFERRED) or (
                    one.fate is Fate.PENDING and one.turn is not None
                ):
                    assert open_turn is not None and one.turn == open_turn.id
                elif one.fate is Fate.PENDING:
                    assert open_turn is not None, "what waits for the next turn has one before it"

    @invariant()
    def words_go_in_in_the_order_they_were_written(self) -> None:
        for turn in self.claims:
            sent = [one.sent for one in self._do(self.stage.pending(turn))]
            assert sent == sorted(sent)

    # helpers

    async def _log(self, session: str) -> list[Input]:
        """All inputs of a session, wherever they are now."""
        inputs = []
        for key in self.admitted[session]:
            # An edit of a message by a key that was seen before changes nothing, and shows the input.
            found = await self.stage.store.revise(key, key, "unused")
            assert found is not None
            inputs.append(found)
        return inputs

    async def _end_in_peace(self) -> None:
        """Driven to the end, every turn ends, everybody is answered, and only what was held is left."""
        await self.stage.store.boot("here")
        woken = [turn for turn in self.turns if turn not in self.ended]
        self.stage.woken.taken()
        while woken:
            claims = [await self._claim(turn, self.caps) for turn in woken if turn not in self.ended]
            for claim in filter(None, claims):
                turn = claim.turn.id
                stopped = (await self.stage.store.inbox(turn)).stop_by
                if not stopped:
                    everything = tuple(one.id for one in await self.stage.store.prompt_inputs(turn))
                    await self.stage.store.record(turn, claim.fence, Record(consumed=everything))
                await self._end(claim, TurnState.STOPPED if stopped else TurnState.DONE)
            woken = list(dict.fromkeys(self.stage.woken.taken()))  # to be woken twice is no harm
        assert self.ended == set(self.turns), "whoever waits is woken when a place is free"
        said = await self.stage.said()
        finals = [one.turn for one in said if one.kind is SayingKind.FINAL]
        assert sorted(turn for turn in finals if turn) == sorted(self.turns), (
            "every turn ends in its thread, once"
        )
        assert len([one for one in said if one.mark is Mark.DROPPED]) == len(self.dropped)
        for session in SESSIONS:
            for one in await self._log(session):
                assert one.fate in (Fate.CONSUMED, Fate.HELD, Fate.DROPPED)


@pytest.mark.parametrize("caps", CAPS, ids=("turns", "sandboxes"))
@pytest.mark.parametrize("name", sorted(OPENINGS))
def test_any_story_keeps_the_contract(name: str, caps: Caps) -> None:
    class ThisStory(Story):
        opening = staticmethod(OPENINGS[name])

    ThisStory.caps = caps

    # Without shrinking, which takes longer than a test may: for a shorter story, add Phase.shrink.
    run_state_machine_as_test(
        ThisStory,
        settings=settings(
            max_examples=20,
            stateful_step_count=40,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
