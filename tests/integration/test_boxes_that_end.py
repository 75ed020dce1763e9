"""A box that stops, or is gone, while a turn is about to start its agent there, also in the repository's
hooks: not only under the agent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot.errors import SandboxGone, SandboxNotRunning
from bot.models import ExecResult, Launch, Outcome, SandboxState
from bot.timeline import RowStatus
from tests.integration.test_hooks import SETUP, has, policy, row
from tests.integration.test_sandbox_verbs import answers
from tests.town import Town, town
from tests.world import HostSandbox, ScriptedProcess


class Ending(HostSandbox):
    """ends: whether it does before this program. It is then stopped, or gone."""

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self.ends: Callable[[Launch], bool] = lambda launch: False
        self.vanishes = self.for_ever = False
        self.up, self.starts = True, 0

    async def state(self) -> SandboxState:
        return SandboxState.RUNNING if self.up else SandboxState.STOPPED

    async def start(self) -> None:
        self.up = True
        self.starts += 1

    async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
        self._goes_on(launch)
        return await super().run(launch, stdin=stdin, timeout=timeout)

    async def spawn(self, key: str, launch: Launch, *, fence: int, orphan_after: float) -> ScriptedProcess:
        self._goes_on(launch)
        return await super().spawn(key, launch, fence=fence, orphan_after=orphan_after)

    async def attach(self, key: str, *, fence: int) -> ScriptedProcess:
        self._goes_on(None)
        return await super().attach(key, fence=fence)

    def _goes_on(self, launch: Launch | None) -> None:
        if launch is not None and self.up and self.ends(launch):
            self.up = False
            if not self.for_ever:
                self.ends = lambda launch: False
            if self.vanishes:
                self.dropped()
        if not self.up:
            error = SandboxGone if self.vanishes else SandboxNotRunning
            raise error("The box is not there.")


def box(t: Town) -> Ending:
    ending = next(iter(t.provider.boxes.values()))
    assert isinstance(ending, Ending)
    return ending


def is_gits(launch: Launch) -> bool:
    return "git" in " ".join(launch.argv)


def is_a_hooks(launch: Launch) -> bool:
    return "hook" in launch.argv and "setup" in launch.argv


def is_the_agents(launch: Launch) -> bool:
    return launch.argv[0] == "agent"


@pytest.mark.parametrize("when", [is_gits, is_the_agents])
@pytest.mark.parametrize("vanishes", [False, True], ids=["stops", "vanishes"])
async def test_a_box_that_ends_before_the_agent_has_started_is_started_and_the_turn_goes_on(
    tmp_path: Path, when: Callable[[Launch], bool], vanishes: bool
) -> None:
    async with town(tmp_path, [answers] * 2) as t:
        t.provider.make = Ending
        await t.say("hello")
        await t.final()
        first = box(t)
        first.ends, first.vanishes, first.starts = when, vanishes, 0
        await t.say("again", addressed=False)
        final = await t.after_time(2, step=1.0)
        assert (final.outcome, final.text) == (Outcome.ANSWERED, "that is all"), final
        assert (box(t) is not first) is vanishes
        assert first.starts == (0 if vanishes else 1)


async def test_a_box_that_ends_each_time_ends_the_turn_in_words(tmp_path: Path) -> None:
    async with town(tmp_path, [answers] * 2) as t:
        t.provider.make = Ending
        await t.say("hello")
        await t.final()

        box(t).ends, box(t).for_ever = is_the_agents, True
        await t.say("again", addressed=False)
        final = await t.after_time(2, step=1.0)
        assert final.outcome is Outcome.FAILED and "not there" in final.reason
        assert box(t).starts == 2


@pytest.mark.parametrize("vanishes", [False, True], ids=["stops", "vanishes"])
async def test_a_box_that_ends_in_a_hook_is_started_and_the_hook_runs_before_the_agent(
    tmp_path: Path, vanishes: bool
) -> None:
    async with town(tmp_path, [answers] * 2, policy()) as t:
        t.provider.make = Ending
        await t.say("hello")
        await t.final()
        await has(t, SETUP, "echo set up")
        first = box(t)
        first.ends, first.vanishes, first.starts = is_a_hooks, vanishes, 0
        await t.say("in another thread", thread="t2")
        final = await t.after_time(2, step=1.0)
        assert (final.outcome, final.text) == (Outcome.ANSWERED, "that is all"), final
        assert (box(t) is not first) is vanishes
        assert first.starts == (0 if vanishes else 1)
        shown = row(t, "hook:setup")
    assert (shown.status, shown.result) == (RowStatus.COMPLETED, "set up")


async def test_a_box_that_ends_in_each_hook_ends_the_turn_in_words(tmp_path: Path) -> None:
    async with town(tmp_path, [answers] * 2, policy()) as t:
        t.provider.make = Ending
        await t.say("hello")
        await t.final()
        await has(t, SETUP, "echo set up")
        box(t).ends, box(t).for_ever = is_a_hooks, True
        await t.say("in another thread", thread="t2")
        final = await t.after_time(2, step=1.0)
        assert final.outcome is Outcome.FAILED and "not there" in final.reason
        assert box(t).starts == 1
