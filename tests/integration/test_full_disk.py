"""No space left on the bot's own disk: said by name, with what mends it, and mended by making room."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import subprocess
from pathlib import Path

import pytest

from bot.models import Final, Outcome, Verb
from tests.integration.test_turns import writes_a_file
from tests.town import town
from tests.world import ScriptedProcess


async def writes_much(agent: ScriptedProcess) -> None:
    await agent.take()
    noise = base64.b64encode(os.urandom(100_000)).decode()
    await agent.write_file("noise.txt", noise, commit="Make noise")
    agent.say(done="I added noise.txt.")


async def succeeds(*command: str) -> bool:
    program = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    return await program.wait() == 0


def is_full(final: Final) -> None:
    assert final.outcome is Outcome.UNPUBLISHED and final.text
    assert final.reason == "The bot's own disk is full."
    assert "SANDPIPER_DATA_DIR" in final.mend and "`publish`" in final.mend


async def test_what_does_not_fit_on_a_full_disk_is_published_when_there_is_room(tmp_path: Path) -> None:
    scratch = str(tmp_path / "scratch")
    async with town(tmp_path, [writes_much]) as t:
        if not await succeeds("mount", "-t", "tmpfs", "-o", "size=16k", "none", scratch):
            pytest.skip("only root may mount a small disk")
        try:
            await t.say("add noise")
            final = await t.final()
        finally:
            assert await succeeds("umount", scratch)
        is_full(final)
        await t.say("", verb=Verb.PUBLISH)
        assert (await t.final(2)).outcome is Outcome.PUBLISHED


async def test_a_forge_that_runs_out_of_space_is_named(tmp_path: Path) -> None:
    async with town(tmp_path, [writes_a_file]) as t:
        t.forge.trouble = [OSError(errno.ENOSPC, "No space left on device")]
        await t.say("add hello")
        is_full(await t.final())
        await t.say("", verb=Verb.PUBLISH)
        assert (await t.final(2)).outcome is Outcome.PUBLISHED
