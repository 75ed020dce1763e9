"""An operator's word about sandboxes, through the door that a running bot holds open, over a whole core."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bot.errors import SandpiperError
from bot.models import SandboxState, Verb
from handlers.operator import SOCKET, ask_the_bot, operators_door
from tests.integration.test_reconcile import Listing, answers, labels
from tests.integration.test_sandboxes import Box
from tests.integration.test_turns import is_running, obeys_stop
from tests.town import ANA, Town, town
from tests.world import Script, shell


class Desk:
    def __init__(self, t: Town, directory: Path) -> None:
        self.town = t
        self.directory = directory

    async def say(self, do: str, id: str = "", *, yes: bool = False) -> str:
        said = await ask_the_bot(self.directory, do, id, yes)
        assert said is not None
        return said

    def box(self) -> Box:
        box = self.town.provider.boxes["box-0"]
        assert isinstance(box, Box)
        return box


@asynccontextmanager
async def desk(tmp_path: Path, *scripts: Script) -> AsyncIterator[Desk]:
    directory = tmp_path / ("a-directory-with-a-name-of-some-length" * 4)
    directory.mkdir()
    async with town(tmp_path, scripts, provider=Listing) as t:
        t.provider.make = Box
        obey = t.core.operators.obey
        async with operators_door(directory, lambda do, id, yes: obey(do, id, yes=yes)):
            yield Desk(t, directory)


async def test_sandboxes_are_listed_with_what_one_has_to_know(tmp_path: Path) -> None:
    async with desk(tmp_path, obeys_stop) as it:
        assert await it.say("list") == "There is no sandbox."
        await it.town.say("add it")
        await it.town.until(lambda: is_running(it.town))
        strange = {**await labels(it.town, ANA), "sandpiper.person": "99"}
        await it.town.provider.create(strange)
        await it.say("pin", "box-0")
        mine, stranger = (await it.say("list")).splitlines()
        assert mine == "box-0  running   Ana (slack:T1)  used 0s ago  pinned  open turns: 1"
        assert stranger == "box-1  of this installation, but of nobody known here"
        await it.town.say("", verb=Verb.STOP)
        await it.town.final()


async def test_sandboxes_at_a_former_provider_are_listed_with_the_way_to_them(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        key = it.town.core.sandboxes.key(await it.town.store.person(ANA))
        await it.town.store.save_sandbox(replace(key, provider="e2b"), "box-7", "")
        where, mend = (await it.say("list")).splitlines()
        assert where == "box-7  Ana (slack:T1)  at e2b, where this bot stops and deletes nothing any more"
        assert mend == "To delete it, set SANDPIPER_SANDBOX_PROVIDER=e2b for that."
        with pytest.raises(SandpiperError, match="box-7 is at e2b"):
            await it.say("delete", "box-7", yes=True)


async def test_a_sandbox_is_stopped_started_and_deleted(tmp_path: Path) -> None:
    async with desk(tmp_path, answers) as it:
        await it.town.say("hello")
        await it.town.final()
        assert await it.say("stop", "box-0") == "box-0 is stopped."
        assert it.box().now is SandboxState.STOPPED
        assert await it.say("start", "box-0") == "box-0 runs."
        assert it.box().now is SandboxState.RUNNING
        await shell("echo x >README.md; git stash -q; echo since then >later.txt", cwd=it.town.box().cwd)
        lost = r"would be lost:\n• “hello” .*\n• .* stashes, in acme/web\n Say it again with --yes"
        with pytest.raises(SandpiperError, match=lost):
            await it.say("delete", "box-0")
        assert await it.say("delete", "box-0", yes=True) == "box-0 is deleted."
        assert not it.town.provider.boxes and await it.say("list") == "There is no sandbox."


@pytest.mark.parametrize("do", ["stop", "delete"])
async def test_nothing_is_ended_while_a_turn_is_open(tmp_path: Path, do: str) -> None:
    async with desk(tmp_path, obeys_stop) as it:
        await it.town.say("add it")
        await it.town.until(lambda: is_running(it.town))
        with pytest.raises(SandpiperError, match=r"turns of its owner are open\.\n• “add it”"):
            await it.say(do, "box-0", yes=True)
        assert it.box().stopping == 0
        await it.town.say("", verb=Verb.STOP)
        await it.town.final()


async def test_of_strangers_only_our_own_are_deleted(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        strange = {**await labels(it.town, ANA), "sandpiper.person": "99"}
        await it.town.provider.create(strange)
        await it.town.provider.create({**strange, "sandpiper.installation": "another"})
        with pytest.raises(SandpiperError, match="it can only be deleted"):
            await it.say("pin", "box-0")
        assert await it.say("delete", "box-0") == "box-0 is deleted."
        with pytest.raises(SandpiperError, match="There is no sandbox box-1"):
            await it.say("delete", "box-1", yes=True)
        assert list(it.town.provider.boxes) == ["box-1"]


async def test_a_second_sandbox_of_somebody_is_not_deleted_while_their_turn_is_open(tmp_path: Path) -> None:
    async with desk(tmp_path, obeys_stop) as it:
        await it.town.say("add it")
        await it.town.until(lambda: is_running(it.town))
        await it.town.provider.create(await labels(it.town, ANA))
        with pytest.raises(SandpiperError, match="Nothing was done: turns of its owner are open"):
            await it.say("delete", "box-1", yes=True)
        await it.town.say("", verb=Verb.STOP)
        await it.town.final()
        assert await it.say("delete", "box-1") == "box-1 is deleted."
        assert list(it.town.provider.boxes) == ["box-0"]


async def test_a_sandbox_that_is_just_being_made_is_not_deleted(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        sandboxes = it.town.core.sandboxes
        key = sandboxes.key(await it.town.store.person(ANA))
        async with sandboxes.alone(key):
            await it.town.provider.create(key.labels())
            deleting = asyncio.create_task(it.say("delete", "box-0"))
            assert "box-0  of this installation" in await it.say("list")
            await it.town.store.save_sandbox(key, "box-0", sandboxes.provider.host)
        with pytest.raises(SandpiperError, match="box-0 was not deleted"):
            await deleting
        assert list(it.town.provider.boxes) == ["box-0"]


async def test_the_door_is_the_operators_alone_and_bears_any_question(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        socket = it.directory / SOCKET
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        link = tmp_path / "d"
        link.symlink_to(it.directory)
        for question in (b"\n", b"{}\n", b"[1]\n", b"\xff\xff\n", b'{"do": "list", "id": ""}\n'):
            reader, writer = await asyncio.open_unix_connection(link / SOCKET)
            writer.write(question)
            assert "refused" in json.loads(await reader.readline())
            writer.close()
        with pytest.raises(SandpiperError, match="'dance' is nothing"):
            await it.town.core.sandboxes.ready(await it.town.store.person(ANA))
            await it.say("dance", "box-0")


async def test_where_no_bot_runs_nobody_answers(tmp_path: Path) -> None:
    assert await ask_the_bot(tmp_path, "list", "", False) is None
    async with desk(tmp_path) as it:
        pass
    assert await ask_the_bot(it.directory, "list", "", False) is None
