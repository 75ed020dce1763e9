"""What Daytona says of boxes, and how it fails, in our words: its real SDK against its routes on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable, SandboxError, SandboxGone, SandboxUnreachable
from bot.models import SandboxState
from sandbox.daytona import Account, DaytonaBox, DaytonaProvider
from tests.daytona_server import KEY, DaytonaServer

pytest.importorskip("daytona", reason="the extra `daytona` is not installed")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[DaytonaServer]:
    server = DaytonaServer(tmp_path / "daytona")
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def provider(server: DaytonaServer) -> AsyncIterator[DaytonaProvider]:
    provider = DaytonaProvider(Account(KEY, f"{server.url}/api"))
    yield provider
    await provider.close()


@pytest.fixture
async def box(server: DaytonaServer, provider: DaytonaProvider) -> DaytonaBox:
    return await provider.make({"person": "ana"})


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("started", SandboxState.RUNNING),
        ("starting", SandboxState.STOPPED),
        ("stopping", SandboxState.STOPPED),
        ("archiving", SandboxState.ARCHIVED),
        ("archived", SandboxState.ARCHIVED),
        ("error", SandboxState.ERROR),
    ],
)
async def test_states(server: DaytonaServer, box: DaytonaBox, theirs: str, ours: SandboxState) -> None:
    server.boxes[box.id]["state"] = theirs
    assert await box.state() is ours


async def test_destroyed_is_gone_and_unknown_is_not(server: DaytonaServer, box: DaytonaBox) -> None:
    server.boxes[box.id]["state"] = "unknown"
    with pytest.raises(SandboxUnreachable):
        await box.state()
    server.boxes[box.id]["state"] = "destroyed"
    with pytest.raises(SandboxGone):
        await box.state()


async def test_an_archived_box_starts_again(server: DaytonaServer, box: DaytonaBox) -> None:
    server.boxes[box.id]["state"] = "archived"
    await box.start()
    assert await box.state() is SandboxState.RUNNING


async def test_an_error_is_recovered_where_that_can_be(server: DaytonaServer, box: DaytonaBox) -> None:
    server.boxes[box.id] |= {"state": "error", "recoverable": False, "errorReason": "disk lost"}
    with pytest.raises(SandboxError, match=r"disk lost.*Reset it"):
        await box.start()
    server.boxes[box.id]["recoverable"] = True
    await box.start()
    assert await box.state() is SandboxState.RUNNING


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, -1])
async def test_what_does_not_answer_is_not_gone(server: DaytonaServer, box: DaytonaBox, fault: int) -> None:
    server.fault = fault
    with pytest.raises(SandboxUnreachable):
        await box.state()
    with pytest.raises(SandboxUnreachable):
        await box.run("true", timeout=5)


async def test_use_sets_when_it_stops_itself(server: DaytonaServer, box: DaytonaBox) -> None:
    await box.touch(3601)
    assert server.boxes[box.id]["autoStopInterval"] == 61


async def test_a_wrong_key_names_the_setting(server: DaytonaServer) -> None:
    provider = DaytonaProvider(Account("wrong", f"{server.url}/api"))
    with pytest.raises(ProviderUnavailable, match="SANDPIPER_DAYTONA_API_KEY"):
        await provider.check()
    await provider.close()
