"""A turn whose agent's process answers what nobody expected."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bot.models import Chunk, Launch, Outcome
from tests.town import town
from tests.world import HostSandbox, Script, ScriptedProcess


class OddProcess(ScriptedProcess):
    """odd: the output in whose reading there is a mistake, once it has been given its words."""

    odd = 1

    async def read(self, fd: int, offset: int, *, ack: int, wait: float, limit: int = 1 << 18) -> Chunk:
        if fd == self.odd:
            await self.take()
            raise TypeError("'int' object is not iterable")
        return await super().read(fd, offset, ack=ack, wait=wait, limit=limit)


class OddSandbox(HostSandbox):
    def __init__(self, root: Path, agents: list[Script], odd: int) -> None:
        super().__init__(root, agents)
        self.odd = odd

    async def spawn(self, key: str, launch: Launch, *, fence: int, orphan_after: float) -> ScriptedProcess:
        process = OddProcess(key, Path(launch.cwd))
        process.odd = self.odd
        return self.processes.setdefault(key, process)


@pytest.mark.parametrize("fd", [1, 2])
async def test_a_mistake_in_reading_an_agent_ends_its_turn_and_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fd: int
) -> None:
    async with town(tmp_path) as t:
        t.provider.make = lambda root, scripts: OddSandbox(root, scripts, fd)
        await t.say("one")
        final = await t.final()
    assert final.outcome is Outcome.FAILED and "Something went wrong on my side" in final.reason
    (told,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert told.exc_info and "'int' object is not iterable" in str(told.exc_info[1])
