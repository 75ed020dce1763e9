"""A turn ends in its thread also where something fails in a way that nobody thought of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bot.models import ExecResult, Launch, Outcome
from tests.town import town
from tests.world import HostProvider, HostSandbox, Script, ScriptedProcess


class StrangeSandbox(HostSandbox):
    """Once it is strange, every program in it fails with an error that is none of ours."""

    def __init__(self, root: Path, agents: list[Script]) -> None:
        super().__init__(root, agents)
        self.is_strange = False

    async def run(self, launch: Launch, *, stdin: bytes = b"", timeout: float = 60.0) -> ExecResult:
        if self.is_strange:
            raise RuntimeError("an SDK's own error")
        return await super().run(launch, stdin=stdin, timeout=timeout)


class StrangeProvider(HostProvider):
    async def create(self, labels: Mapping[str, str]) -> HostSandbox:
        self.make = StrangeSandbox
        return await super().create(labels)


async def test_what_fails_again_while_the_work_is_kept_is_told_and_not_tried_for_ever(
    tmp_path: Path,
) -> None:
    async def ends_in_a_strange_sandbox(agent: ScriptedProcess) -> None:
        await agent.take()
        for box in t.provider.boxes.values():
            assert isinstance(box, StrangeSandbox)
            box.is_strange = True
        agent.say(done="ok")

    async with town(tmp_path, [ends_in_a_strange_sandbox], provider=StrangeProvider) as t:
        await t.say("go")
        final = await t.final()
        assert (final.outcome, final.reason) == (Outcome.FAILED, "Something went wrong on my side.")
        [note] = final.notes
        assert note.startswith("What was done so far could not be put on a ref")
