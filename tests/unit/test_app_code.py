"""Where code is lent: at the same port in each life of the bot."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from bot.app_code import lending
from bot.ports import Store
from bot.settings import load
from handlers.github.mirrors import Mirrors
from tests.disks import full_disk


async def port_of(monkeypatch: pytest.MonkeyPatch, data: Path) -> int:
    given = {
        "GITHUB_APP_ID": "1",
        "GITHUB_PRIVATE_KEY": "key",
        "GITHUB_WEBHOOK_SECRET": "secret",
        "DATA_DIR": str(data),
    }
    for name, value in given.items():
        monkeypatch.setenv(f"SANDPIPER_{name}", value)
    nobody = cast("Store", None)  # it is asked about turns only
    async with lending(load(None), nobody, Mirrors(data / "mirrors", "http://127.0.0.1:9", 1.0), 1.0) as lent:
        return lent.port


async def test_the_next_life_has_the_same_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = await port_of(monkeypatch, tmp_path)
    assert first and await port_of(monkeypatch, tmp_path) == first


@pytest.mark.parametrize("left", [b"", b"80x", b"\xff", b"65536", b"-1"])
async def test_what_a_full_disk_has_left_of_the_port_keeps_no_bot_from_starting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "code.port").write_bytes(left)
    port = await port_of(monkeypatch, tmp_path)
    assert port and (tmp_path / "code.port").read_text() == str(port)


async def test_a_full_disk_does_not_take_the_port_from_what_runs_since_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = await port_of(monkeypatch, tmp_path)
    with full_disk():
        assert await port_of(monkeypatch, tmp_path) == first
    assert await port_of(monkeypatch, tmp_path) == first
