"""A key of another account at Daytona: its boxes are out of reach, never gone. The real SDK, on loopback."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.errors import ProviderAway, SandboxElsewhere, SandboxUnreachable, SandpiperError
from bot.losses import Losses
from bot.models import Identity, SandboxRow
from bot.operators import Operators
from bot.reconcile import Reconcile
from bot.sandboxes import Ages, Sandboxes
from sandbox.daytona import DaytonaProvider
from sandbox.daytona_account import Account
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore
from tests.daytona_server import ANOTHER_KEY, KEY, DaytonaServer
from tests.fakes import FakeClock

pytest.importorskip("daytona", reason="the extra `daytona` is not installed")

ANA = Identity("slack", "slack:T1", "U_ANA", "Ana")
BEN = Identity("slack", "slack:T1", "U_BEN", "Ben")
TTL = 30 * 86_400.0
WHOSE = "GET /api/api-keys/current"


@dataclass
class Bot:
    """One life of it, with one key."""

    store: SqliteStore
    clock: FakeClock
    provider: DaytonaProvider
    sandboxes: Sandboxes
    reconcile: Reconcile
    operators: Operators

    async def box(self, who: Identity = ANA) -> str:
        return (await self.sandboxes.ready(await self.store.person(who))).sandbox.id

    async def row(self, who: Identity = ANA) -> SandboxRow:
        row = await self.store.sandbox(self.sandboxes.key(await self.store.person(who)))
        assert row is not None
        return row


Life = Callable[..., Bot]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[DaytonaServer]:
    server = DaytonaServer(tmp_path / "daytona")
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def life(server: DaytonaServer, tmp_path: Path) -> AsyncIterator[Life]:
    clock = FakeClock()
    store = await SqliteStore.open(tmp_path / "data", clock, QueueDispatcher())
    made = []

    def bot(key: str = KEY) -> Bot:
        provider = DaytonaProvider(Account(key, f"{server.url}/api"))
        made.append(provider)
        sandboxes = Sandboxes(store, provider, clock, "here", Ages(1800.0, TTL))
        reconcile = Reconcile(store, sandboxes)
        losses = Losses(store, sandboxes, None)
        operators = Operators(store, sandboxes, reconcile, losses, {}, clock)
        return Bot(store, clock, provider, sandboxes, reconcile, operators)

    yield bot
    for provider in made:
        await provider.close()
    await store.close()


async def test_a_single_box_is_not_gone_for_a_key_of_another_account(
    server: DaytonaServer, life: Life
) -> None:
    box = await life().box()

    another = life(ANOTHER_KEY)
    with pytest.raises(SandboxElsewhere) as told:
        await another.box()
    assert "in another account at daytona (org-1) than that of the API key (org-2)" in told.value.what
    assert "SANDPIPER_DAYTONA_API_KEY" in told.value.mend and "sandbox reset" in told.value.mend
    assert list(server.boxes) == [box]
    row = await another.row()
    assert (row.provider_id, row.lost) == (box, "")

    assert await life().box() == box


async def test_a_reset_gives_a_fresh_box_whatever_else_has_its_owners_labels(
    server: DaytonaServer, life: Life
) -> None:
    bot = life()
    first = await bot.box()
    stranger = await bot.provider.make((await bot.row()).key.labels())  # two bots, and a list that came late
    for _ in range(2):
        row = await bot.row()
        bot.clock.advance(60)
        await bot.sandboxes.delete(row, "its owner did", "them")
        fresh = await bot.box()
        assert fresh not in (first, row.provider_id, stranger.id)
        assert set(server.boxes) == {stranger.id, fresh}
        assert await life().box() == fresh
        await bot.reconcile.run()
        assert [one.id for one in await bot.reconcile.strangers()] == [stranger.id]


async def test_nothing_that_runs_by_itself_forgets_a_box_of_another_account(
    server: DaytonaServer, life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    bot = life()
    box = await bot.box()
    bot.clock.advance(TTL + 60)

    another = life(ANOTHER_KEY)
    await another.box(BEN)  # so that there is one of ours in that account, too
    with caplog.at_level(logging.WARNING, "bot.reconcile"):
        for _ in range(2):
            await another.reconcile.run()
    await another.sandboxes.stop_idle()
    await another.sandboxes.delete_expired()
    row = await another.row()
    assert (row.provider_id, row.lost) == (box, "") and box in server.boxes
    (told,) = [record.getMessage() for record in caplog.records]
    assert box in told and "another account" in told and "SANDPIPER_DAYTONA_API_KEY" in told


@pytest.mark.parametrize("do", ["stop", "start", "pin", "delete"])
async def test_an_operator_is_told_that_a_box_is_in_another_account(
    server: DaytonaServer, life: Life, do: str
) -> None:
    box = await life().box()
    another = life(ANOTHER_KEY)
    listed = await another.operators.obey("list")
    assert f"{box}  Ana (slack:T1)  in another account at daytona (org-1)" in listed
    assert "SANDPIPER_DAYTONA_API_KEY" in listed
    with pytest.raises(SandpiperError, match=r"another account .*SANDPIPER_DAYTONA_API_KEY"):
        await another.operators.obey(do, box, yes=True)
    assert (await another.row()).provider_id == box and box in server.boxes


async def test_who_resets_a_sandbox_of_another_account_gets_one_in_this(
    server: DaytonaServer, life: Life
) -> None:
    old = await life().box()
    another = life(ANOTHER_KEY)
    await another.sandboxes.delete(await another.row(), "its owner deleted it", "Ana")
    new = await another.box()
    assert {box.id: box.organization_id for box in server.boxes.values()} == {old: "org-1", new: "org-2"}
    assert await another.box() == new
    with pytest.raises(SandboxElsewhere, match=r"account at daytona \(org-2\)"):
        await life().box()


async def test_a_box_that_is_gone_in_its_own_account_is_replaced(server: DaytonaServer, life: Life) -> None:
    """Also where it was the last of several, since the account is known."""
    bot = life()
    for who in (ANA, BEN):
        await server.vanish(await bot.box(who))
    assert "no longer exists" in (await bot.sandboxes.ready(await bot.store.person(ANA))).lost
    await bot.reconcile.run()
    assert (await bot.row(BEN)).lost
    assert list(server.boxes) == [(await bot.row()).provider_id]


async def unplaced(bot: Bot, *who: Identity) -> None:
    """As rows are that were made before accounts were noted."""
    for one in who:
        made = await bot.provider.create(bot.sandboxes.key(await bot.store.person(one)).labels())
        await bot.store.save_sandbox(bot.sandboxes.key(await bot.store.person(one)), made.id, "")


async def test_the_account_of_an_older_box_is_noted_when_it_is_found(
    server: DaytonaServer, life: Life
) -> None:
    bot = life()
    await unplaced(bot, ANA, BEN)
    before = await bot.row(BEN)
    await bot.store.pin_sandbox(before.id, True)
    assert (await bot.row()).host == ""
    await bot.box()
    assert ((await bot.row()).host, (await bot.row(BEN)).host) == ("account:org-1", "")
    bot.clock.advance(60)
    await bot.reconcile.run()
    row = await bot.row(BEN)
    assert row.host == "account:org-1"
    assert (row.provider_id, row.pinned, row.created_at) == (before.provider_id, True, before.created_at)


async def test_of_several_older_boxes_none_is_gone_for_a_key_of_another_account(
    server: DaytonaServer, life: Life
) -> None:
    await unplaced(life(), ANA, BEN)
    another = life(ANOTHER_KEY)
    await another.reconcile.run()
    with pytest.raises(SandboxElsewhere, match="None of the 2 sandboxes"):
        await another.box()
    assert len(server.boxes) == 2 and (await another.row()).host == ""


async def test_a_daytona_that_is_away_at_the_start_is_asked_for_the_account_later(
    server: DaytonaServer, life: Life
) -> None:
    box = await life().box()
    another = life(ANOTHER_KEY)
    server.fail("/api/", 503, times=-1)
    with pytest.raises(ProviderAway):
        await another.provider.check()
    assert another.provider.host == ""
    server.faults.clear()
    with pytest.raises(SandboxElsewhere, match="another account"):
        await another.box()
    assert list(server.boxes) == [box] and (await another.row()).provider_id == box

    back = life()
    server.fail(WHOSE, 503)
    with pytest.raises(ProviderAway):
        await back.provider.check()
    assert await back.box() == box


@pytest.mark.parametrize("fault", [0, 429, 502, 503])
async def test_no_box_is_gone_while_it_cannot_be_asked_whose_the_key_is(
    server: DaytonaServer, life: Life, fault: int
) -> None:
    box = await life().box()
    another = life(ANOTHER_KEY)
    server.fail(WHOSE, fault, times=-1)
    with pytest.raises(ProviderAway):
        await another.provider.get(box)
    with pytest.raises(ProviderAway):
        await another.provider.find({})
    with pytest.raises(ProviderAway):
        await another.provider.create({})
    assert another.provider.host == "" and list(server.boxes) == [box]


@pytest.mark.parametrize("silent", [None, 403, 404])
async def test_a_daytona_that_does_not_say_whose_a_key_is(
    server: DaytonaServer, life: Life, silent: int | None
) -> None:
    """As one of an older release. What it has is used; that an account which is known has lost a box is not
    believed of it."""
    known = await life().box()
    if silent is None:
        server.says_whose = False
    else:
        server.fail(WHOSE, silent, times=-1)
    mute = life()
    await mute.provider.check()
    assert mute.provider.host == ""
    assert await mute.box() == known
    await mute.box(BEN)
    assert (await mute.row(BEN)).host == "" and (await mute.row()).host == "account:org-1"

    with pytest.raises(SandboxUnreachable, match="does not say of which account"):
        await life(ANOTHER_KEY).box()
    assert known in server.boxes
