"""`get path`: files of a thread's workspace, for those who may work in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bot.file_verb import NO_WORKSPACE
from bot.models import Identity, SayingKind, Verb
from bot.shared_files import LARGEST_FILE
from tests.town import ANA, BEN, EVE, Town, town
from tests.world import ScriptedProcess

KEY = "ghp_" + "a1B2c3D4" * 5


async def leaves_files(agent: ScriptedProcess) -> None:
    await agent.take()
    (agent.cwd / "docs").mkdir()
    (agent.cwd / "link.txt").symlink_to("docs/a report.txt")
    (agent.cwd / "out.txt").symlink_to("/etc/passwd")
    (agent.cwd / "up").symlink_to("..")
    (agent.cwd.parent / "beside.txt").write_text("not of the worktree")
    with (agent.cwd / "huge.bin").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    (agent.cwd / ".gitignore").write_text("huge.bin\n")
    await agent.write_file("docs/a report.txt", f"all green\ntoken {KEY}\n", commit="A report")
    agent.say(done="Done.")


async def get(t: Town, path: str, by: Identity = ANA, key: str = "") -> str:
    return await t.say("", by, verb=Verb.GET, options={"path": path}, addressed=False, key=key)


@pytest.mark.parametrize("path", ["docs/a report.txt", "./docs/../docs/a report.txt", "link.txt"])
async def test_a_file_comes_into_the_thread_without_keys(tmp_path: Path, path: str) -> None:
    async with town(tmp_path, [leaves_files]) as t:
        await t.say("report")
        await t.final()
        assert await get(t, path, by=BEN, key="the same") == "got"
        await t.until(lambda: bool(t.slack.files))
        await get(t, path, by=BEN, key="the same")
        assert list(t.slack.files) == ["a report.txt"]
        text = t.slack.files["a report.txt"].decode()
        assert text.startswith("all green\n") and KEY not in text
        await t.until(lambda: not list((tmp_path / "shared").iterdir()))
        assert len([item for item in t.slack.said if item.saying.kind is SayingKind.FILE]) == 1


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("out.txt", "not in this thread's workspace"),
        ("up/beside.txt", "not in this thread's workspace"),
        ("../beside.txt", "not in this thread's workspace"),
        ("/etc/passwd", "not in this thread's workspace"),
        ("nothing.txt", "no such file"),
        ("-rf/x.y", "no such file"),
        ("docs/", "a directory"),
        ("./.", "a directory"),
        ("huge.bin", "at most 21.0 MB"),
    ],
)
async def test_what_is_no_file_of_the_workspace_is_not_handed_out(
    tmp_path: Path, path: str, why: str
) -> None:
    async with town(tmp_path, [leaves_files]) as t:
        await t.say("report")
        await t.final()
        assert await get(t, path) == "not got"
        await t.until(lambda: any(why in note and "sentence" in note for note in t.slack.notes()))
        assert not t.slack.files and not list((tmp_path / "shared").iterdir())


@pytest.mark.parametrize(
    "path", ["docs/a\0b.txt", "docs/\ud800.txt", "d" * 5000], ids=["nul", "half", "long"]
)
async def test_a_name_that_no_file_can_have_is_answered(tmp_path: Path, path: str) -> None:
    async with town(tmp_path, [leaves_files]) as t:
        await t.say("report")
        await t.final()
        assert await get(t, path) == "not got"
        await t.until(lambda: any("No file can have that name" in note for note in t.slack.notes()))


async def test_a_disk_of_the_bots_that_fails_is_told(tmp_path: Path) -> None:
    async with town(tmp_path, [leaves_files]) as t:
        await t.say("report")
        await t.final()
        shutil.rmtree(tmp_path / "shared")
        assert await get(t, "docs/a report.txt") == "not got"
        await t.until(lambda: any("disk fails (No such file" in note for note in t.slack.notes()))


async def test_who_may_not_steer_gets_no_files(tmp_path: Path) -> None:
    async with town(tmp_path, [leaves_files]) as t:
        await t.say("report")
        await t.final()
        assert (await get(t, "docs/a report.txt", by=EVE)).startswith("denied")


async def test_where_nothing_was_opened_there_are_no_files(tmp_path: Path) -> None:
    async with town(tmp_path, []) as t:
        assert await t.say("", verb=Verb.GET, options={"path": "a.txt"}, thread="t9") == "no workspace"
        await t.until(lambda: NO_WORKSPACE in t.slack.notes())
