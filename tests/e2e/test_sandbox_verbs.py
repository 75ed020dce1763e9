"""Words about sandboxes, through the real Slack and GitHub SDKs, a local sandbox and the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from handlers.playground.demo import BOT
from handlers.slack.ids import RESET_ACTION
from tests.e2e.rig import DEV, REPOSITORY, Rig, marker, rig
from tests.e2e.test_github_path import LABEL, final, issue, told

pytestmark = pytest.mark.asyncio(loop_scope="module")


def boxes(it: Rig) -> list[str]:
    return sorted(path.name for path in (it.directory / "bot" / "sandboxes").glob("local-*"))


async def operator(it: Rig, *words: str) -> tuple[int | None, str]:
    command = [BOT[0], *BOT[1:-1], "sandboxes", *words]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=it.directory,
        env={
            **it.playground.environment(),
            "SANDPIPER_DATA_DIR": str(it.directory / "bot"),
            "PATH": "/usr/bin:/bin",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode, out.decode()


async def test_a_button_deletes_the_sandbox_and_the_next_turn_gets_a_fresh_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        root = it.mention("!answer Hello.")
        await it.final(root)
        (old,) = boxes(it)
        it.reply(root, "sandbox reset")

        def question() -> str:
            return next((post.ts for post in it.thread(root) if marker(post).startswith("reset:")), "")

        await it.slack_until(lambda: bool(question()))
        await it.slack.click("U_BEN", DEV, question(), RESET_ACTION)
        await it.slack_until(
            lambda: any("Only the owner" in post.text for post in it.slack.ephemerals("U_BEN"))
        )
        await it.slack.click("U_ANA", DEV, question(), RESET_ACTION)
        await it.slack_until(lambda: any("ana reset" in post.shown for post in it.thread(root)))
        assert RESET_ACTION not in str([post.blocks for post in it.thread(root)])
        assert boxes(it) == []
        it.reply(root, "!answer Again.")
        assert "Again." in (await it.final(root, 2)).shown
        await it.shows(root, "Your earlier sandbox was deleted")
        (new,) = boxes(it)
        assert new != old

        await it.slack.slash("U_ANA", DEV, "/sandpiper", "sandbox reset")
        await it.slack_until(
            lambda: any(RESET_ACTION in str(post.blocks) for post in it.slack.ephemerals("U_ANA"))
        )
        (whisper,) = [post for post in it.slack.ephemerals("U_ANA") if RESET_ACTION in str(post.blocks)]
        await it.slack.click("U_ANA", DEV, whisper.ts, RESET_ACTION)
        await it.slack_until(
            lambda: sum("Your sandbox is deleted" in post.text for post in it.slack.ephemerals("U_ANA")) == 2
        )
        assert boxes(it) == []


async def test_a_comment_resets_on_github_and_the_command_line_speaks_to_the_bot(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        number = issue(it, "!answer Hello.")
        it.github.label(REPOSITORY, number, LABEL, "ana")
        await final(it, number)
        (box,) = boxes(it)
        it.github.comment(REPOSITORY, number, "ana", f"@{it.github.slug} sandbox pin")
        await told(it, number, "pinned:")
        assert "pinned" in (await operator(it, "list"))[1]
        code, said = await operator(it, "delete", box)
        assert code == 2 and "was not deleted" in said and "--yes" in said

        it.github.comment(REPOSITORY, number, "ana", f"@{it.github.slug} sandbox reset")
        asked = await told(it, number, "reset:")
        assert "`@" in asked.body and " reset 1`" in asked.body
        it.github.comment(REPOSITORY, number, "ana", "reset 1")
        await told(it, number, "deleted:")
        assert boxes(it) == [] and await operator(it, "list") == (0, "There is no sandbox.\n")

        await it.bot.stop()
        assert await operator(it, "list") == (0, "There is no sandbox.\n")
        assert (await operator(it, "stop", box))[0] == 2
