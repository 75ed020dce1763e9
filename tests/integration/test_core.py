"""The core's loops as a whole: what one of them misses, another finds."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bot.core import HOUSEKEEPING, Policy
from bot.driver import Deadlines
from bot.models import Outcome
from bot.ports import Store
from bot.sessions import Defaults
from storage.dispatch import QueueDispatcher
from tests.integration.test_turns import is_running, writes_a_file
from tests.moody import MoodyStore, moody
from tests.town import OPEN, town
from tests.world import ScriptedProcess

# Time flies here, also while a slow machine is at work.
UNHURRIED = Policy(
    defaults=Defaults("acme/web", "lines"),
    allowlist=OPEN,
    deadlines=Deadlines(prepare=0, silence=0, publish=0),
)


class Forgetful(QueueDispatcher):
    """Loses all wakes as long as it is `asleep`."""

    asleep = True

    def wake(self, turn: int) -> None:
        if not self.asleep:
            super().wake(turn)


async def test_a_turn_whose_wake_was_lost_is_driven_a_minute_later(tmp_path: Path) -> None:
    dispatcher = Forgetful()
    async with town(tmp_path, [writes_a_file], UNHURRIED, dispatcher=dispatcher) as t:
        await t.say("add hello")
        session = await t.store.session_of("slack:T1/C1:t1")
        assert session is not None

        async def is_drawn() -> bool:  # that wakes once more
            turn = await t.store.open_turn(session.id)
            return turn is not None and turn.timeline is not None

        await t.until(is_drawn)
        dispatcher.asleep = False
        assert (await t.after_time(step=HOUSEKEEPING)).outcome is Outcome.PUBLISHED


async def test_a_store_that_is_away_for_a_while_fails_no_turn(tmp_path: Path) -> None:
    moods: list[MoodyStore] = []

    def sometimes_away(store: Store) -> Store:
        it, seen = moody(store)
        moods.append(it)
        return seen

    async def goes_on(agent: ScriptedProcess) -> None:
        await agent.take()
        agent.say(text="Working.")
        await back.wait()
        await agent.write_file("hello.txt", "hello\n", commit="Say hello")
        agent.say(done="Done.")

    back = asyncio.Event()
    async with town(tmp_path, [goes_on], dispatcher=QueueDispatcher(0.01), seen=sometimes_away) as t:
        await t.say("add hello")
        await t.until(lambda: is_running(t))
        moods[0].away = {"*"}
        t.box().say(text="Nobody can write this down now.")
        await t.until(lambda: bool({"record", "claim", "turn"} & set(moods[0].turned_away)))

        def all_are_turned_away() -> bool:  # a loop that was not asleep yet sleeps from now on
            missing = {"due", "received", "wake_forgotten"} - set(moods[0].turned_away)
            if missing - {"received"}:
                t.clock.advance(1)
            return not missing

        await t.until(all_are_turned_away)
        moods[0].away = set()
        back.set()
        final = await t.final()
        assert final.outcome is Outcome.PUBLISHED and final.text == "Done."
        assert len(t.slack.finals()) == 1
