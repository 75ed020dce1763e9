"""What a full disk or a power cut leaves of one local sandbox is that sandbox's own trouble."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.errors import SandboxError, SandboxGone
from bot.models import Launch
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider
from sandbox.users import Users
from tests.disks import full_disk

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="users of their own are for a bot that is root")


def provider_in(directory: Path) -> LocalProvider:
    return LocalProvider(directory, Bubblewrap(Options(), allow=()))


@pytest.fixture(params=["", "{}", "null", '{"labels": {"person": "1"}, "uid"'])
def left(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


async def test_a_box_json_that_says_nothing_keeps_nobody_else_from_their_sandbox(
    tmp_path: Path, left: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider = provider_in(tmp_path)
    await provider.check()
    one = await provider.create({"person": "1"})
    file = tmp_path / one.id / "box.json"
    file.write_text(left)
    again = provider_in(tmp_path)
    await again.check()
    other = await again.create({"person": "2"})
    assert [box.id for box in await again.find({"person": "2"})] == [other.id]
    assert await again.find({"person": "1"}) == []
    assert str(file) in caplog.text
    with pytest.raises(SandboxError, match="says nothing") as told:
        await again.get(one.id)
    assert str(file) in str(told.value)
    assert not isinstance(told.value, SandboxGone)


@as_root
async def test_what_a_box_json_does_not_say_of_its_user_its_files_do(tmp_path: Path) -> None:
    directory = tmp_path / "sandboxes"
    directory.mkdir()
    users = Users(directory, "2000000000-2000000002")
    await users.ready()
    homes = [directory / name / "home" for name in ("local-1", "local-2")]
    for home in homes:
        home.mkdir(parents=True)
    uid = users.settle(homes[0].parent, {"labels": {}})
    os.chown(homes[0], uid, uid)
    (homes[0].parent / "box.json").write_text("")
    assert users.settle(homes[1].parent, {"labels": {}}) != uid


async def test_a_full_disk_at_the_start_of_the_bot_leaves_what_programs_see_of_etc(tmp_path: Path) -> None:
    provider = provider_in(tmp_path)
    await provider.check()
    one = await provider.create({})
    await one.run(Launch(("true",), "/"))
    run = tmp_path / one.id / "run"
    files = [*(run / "etc").iterdir(), run / "filter"]
    before = {file: file.read_bytes() for file in files if file.exists()}
    again = provider_in(tmp_path)
    await again.check()
    here = await again.get(one.id)
    try:
        with full_disk(), contextlib.suppress(SandboxError):
            await here.run(Launch(("true",), "/"))
        assert before == {file: file.read_bytes() for file in before}
    finally:
        await here.delete()


async def test_a_box_that_cannot_be_written_is_told_as_such(tmp_path: Path) -> None:
    provider = provider_in(tmp_path)
    await provider.check()
    one = await provider.create({})
    try:
        with full_disk(), pytest.raises(SandboxError, match="could not be made ready"):
            await one.run(Launch(("true",), "/"))
        assert (await one.run(Launch(("true",), "/"))).code == 0
    finally:
        await one.delete()


async def test_rules_of_the_way_out_that_a_power_cut_left_empty_are_written_anew(tmp_path: Path) -> None:
    provider = provider_in(tmp_path)
    await provider.check()
    one = await provider.create({})
    rules = tmp_path / one.id / "run" / "egress" / "egress.json"
    rules.parent.mkdir(exist_ok=True)
    rules.write_text("")
    try:
        assert (await one.run(Launch(("true",), "/"))).code == 0
        assert rules.read_text()
    finally:
        await one.delete()
