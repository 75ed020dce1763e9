"""Code on demand in whole turns: the bot's own process lends it, and is killed meanwhile."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.rig import REPOSITORY, Rig, at_gate, rig

MISSING = "git rev-list --objects --all --missing=print | grep -c '^?'"


async def with_history(r: Rig) -> None:
    for word in ("one", "two", "three"):
        await r.github.push_commit(REPOSITORY, "main", {"changing.txt": f"{word}\n"}, "ana")


async def test_what_is_missing_is_fetched_when_the_bot_is_back_after_a_kill(tmp_path: Path) -> None:
    async with rig(tmp_path, SANDPIPER_CODE_ON_DEMAND_FROM="1") as r:
        await with_history(r)
        root = r.mention(
            f"!run {MISSING}\n{at_gate('mid')}\n"
            "!run touch ~/at-dead; git show HEAD~1:changing.txt >seen.txt\n"
            "!commit Add seen\n!answer It is there."
        )
        await r.reached("mid")
        port = (r.directory / "bot" / "code.port").read_text()
        await r.kill()
        r.open_gate("mid")
        await r.reached("dead")
        await r.start_again()
        final = await r.final(root)
        assert "+two" in await r.diff(final)
        assert (r.directory / "bot" / "code.port").read_text() == port
        assert "large" in " ".join(r.notes(root)) + r.picture(root)
        shown = " ".join(post.shown for post in r.thread(root)) + r.picture(root) + r.log
        assert "spc_" not in shown


async def test_the_next_turn_goes_on_and_publishes_again(tmp_path: Path) -> None:
    async with rig(tmp_path, SANDPIPER_CODE_ON_DEMAND_FROM="1") as r:
        await with_history(r)
        root = r.mention("!write a.txt a\n!commit Add a\n!answer a is there.")
        first = await r.final(root)
        await r.github.push_commit(REPOSITORY, "main", {"changing.txt": "four\n"}, "ana")
        r.mention(
            "!run git merge -q -m Merge origin/main && git show origin/main~2:changing.txt >seen.txt\n"
            "!commit Add seen\n!answer Merged.",
            thread=root,
        )
        final = await r.final(root, 2)
        diff = await r.diff(final)
        assert "+two" in diff and "a.txt" in diff
        assert r.branch(first) == r.branch(final)
