"""Remote boxes in which our programs cannot run: an agent may do that to its own. Their life goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.errors import SandboxError, SandboxFull, SandboxUnreachable
from bot.models import Launch, SandboxRow, SandboxState
from bot.reconcile import Reconcile
from bot.sandboxes import Ages, Sandboxes
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.bench.processes import PROVIDERS
from tests.fakes import FakeClock
from tests.integration.test_sandboxes import ANA, IDLE, house
from tests.remote_boxes import DirectoryBox, DirectoryProvider

IN_THE_WAY = "rm -rf ~/.sandpiper; echo mine >~/.sandpiper"


@dataclass(frozen=True)
class Stage:
    store: SqliteStore
    clock: FakeClock
    sandboxes: Sandboxes
    row: SandboxRow

    async def state(self) -> SandboxState:
        return await (await self.sandboxes.get(self.row)).state()

    async def noted(self) -> SandboxState | None:
        row = await self.store.sandbox(self.row.key)
        return row.state if row else None


@asynccontextmanager
async def broken(tmp_path: Path) -> AsyncIterator[Stage]:
    clock, provider = FakeClock(), DirectoryProvider(tmp_path / "boxes")
    store = await SqliteStore.open(tmp_path / "data", clock, QueueDispatcher())
    sandboxes = Sandboxes(store, provider, clock, "here", Ages(IDLE))
    box = (await sandboxes.ready(await store.person(ANA))).sandbox
    try:
        with pytest.raises(SandboxError):  # so it is its own last one
            await box.run(Launch(("sh", "-c", IN_THE_WAY), box.home))
        (row,) = await sandboxes.rows()
        yield Stage(store, clock, sandboxes, row)
    finally:
        for left in await provider.find({}):
            await left.delete()
        await provider.close()
        await store.close()


async def test_it_is_stopped_when_nobody_uses_it(tmp_path: Path) -> None:
    async with broken(tmp_path) as it:
        it.clock.advance(IDLE + 1)
        await it.sandboxes.stop_idle()
        assert await it.state() is SandboxState.STOPPED
        assert await it.noted() is SandboxState.STOPPED


async def test_it_is_stopped_started_and_restarted_by_people(tmp_path: Path) -> None:
    async with broken(tmp_path) as it:
        assert await it.sandboxes.restart(it.row) == ()
        assert await it.state() is SandboxState.RUNNING
        assert await it.sandboxes.stop(it.row) == ()
        assert await it.state() is SandboxState.STOPPED
        await it.sandboxes.start(it.row)
        assert await it.state() is await it.noted() is SandboxState.RUNNING


async def test_a_look_at_it_says_how_it_is(tmp_path: Path) -> None:
    async with broken(tmp_path) as it:
        await (await it.sandboxes.get(it.row)).stop()
        await Reconcile(it.store, it.sandboxes).run()
        assert await it.noted() is SandboxState.STOPPED


@pytest.mark.parametrize("stopped", [False, True])
async def test_a_turn_in_it_is_told_what_is_broken_and_the_mend(tmp_path: Path, stopped: bool) -> None:
    async with broken(tmp_path) as it:
        if stopped:
            await it.sandboxes.stop(it.row)
        with pytest.raises(SandboxError, match=r"\.sandpiper.* If it could be used before, `sandbox reset`"):
            await it.sandboxes.ready(await it.store.person(ANA))
        assert await it.state() is await it.noted() is SandboxState.RUNNING
        assert await it.sandboxes.delete(it.row, "its owner did", "them") == ()
        assert (await it.sandboxes.ready(await it.store.person(ANA))).lost


async def test_one_that_nobody_has_written_down_is_its_owners_to_reset(tmp_path: Path) -> None:
    """Since a bot died over its making."""
    async with broken(tmp_path) as it:
        await (await it.sandboxes.get(it.row)).stop()
        store = await SqliteStore.open(tmp_path / "later", it.clock, QueueDispatcher())
        try:
            later = Sandboxes(store, it.sandboxes.provider, it.clock, "here", Ages(IDLE))
            with pytest.raises(SandboxError, match="`sandbox reset`"):
                await later.ready(await store.person(ANA))
            (row,) = await later.rows()
            assert (row.provider_id, row.state) == (it.row.provider_id, SandboxState.RUNNING)
        finally:
            await store.close()


async def test_one_without_room_for_our_programs_can_only_be_reset(tmp_path: Path) -> None:
    """As after an update, when those of a new release are to be put there."""
    async with house(tmp_path) as it:
        box = await it.box(ANA)
        box.troubles = [SandboxFull("There is no space left in the box.", "Delete files in it.")]
        with pytest.raises(
            SandboxFull, match=r"^There is no space left in the box\. No agent .*`sandbox reset`"
        ):
            await it.box(ANA)


async def test_one_that_cannot_be_entered_for_a_moment_is_tried_again(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        box = await it.box(ANA)
        box.troubles = [SandboxUnreachable("It is busy.")]
        again = asyncio.create_task(it.box(ANA))
        await it.until_done(again)
        assert await again is box


@pytest.mark.parametrize("kind", ["daytona", "e2b"])
async def test_of_an_image_that_cannot_be_entered_one_box_is_made_and_its_owner_told_how_to_be_rid_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    start = DirectoryBox.start

    async def with_a_file_in_the_way(box: DirectoryBox) -> None:
        await start(box)
        (box.home / ".sandpiper").write_text("mine")

    monkeypatch.setattr(DirectoryBox, "start", with_a_file_in_the_way)
    (tmp_path / "boxes").mkdir()
    clock = FakeClock()
    store = await SqliteStore.open(tmp_path / "data", clock, QueueDispatcher())
    async with PROVIDERS[kind](tmp_path / "boxes") as provider:
        sandboxes = Sandboxes(store, provider, clock, "here", Ages(IDLE))
        for _ in range(2):
            with pytest.raises(SandboxError, match=r"\.sandpiper.* `sandbox reset`"):
                await sandboxes.ready(await store.person(ANA))
            (row,) = await sandboxes.rows()
            assert [box.id for box in await provider.find({})] == [row.provider_id]
        await (await sandboxes.get(row)).delete()
    await store.close()
