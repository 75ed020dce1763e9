"""What every provider promises about sandboxes: their life, short programs, files."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

import pytest

from bot.errors import ProcessGone, SandboxError, SandboxGone, SandboxNotRunning, SandboxUnreachable
from bot.models import ExecResult, Launch, SandboxState
from bot.ports import Provider, Sandbox
from tests.contracts.provider.conftest import Make

MB = 1 << 20


async def sh(sandbox: Sandbox, script: str, *args: str, visible: tuple[str, ...] = (), **more: str) -> str:
    """A shell script's output, where it succeeds."""
    launch = Launch(("sh", "-c", script, "sh", *args), cwd=sandbox.home, env=more, visible=visible)
    result = await sandbox.run(launch)
    assert result.code == 0, result.err.decode()
    return result.out.decode().strip()


# Life


async def test_a_sandbox_is_found_by_its_labels_and_got_by_its_id(provider: Provider) -> None:
    ana = await provider.create({"tenant": "T1", "person": "ana"})
    bo = await provider.create({"tenant": "T1", "person": "bo"})
    assert {each.id for each in await provider.find({"tenant": "T1"})} == {ana.id, bo.id}
    assert [each.id for each in await provider.find({"tenant": "T1", "person": "bo"})] == [bo.id]
    assert not await provider.find({"tenant": "T2"})
    again = await provider.get(ana.id)
    assert (again.id, again.labels) == (ana.id, {"tenant": "T1", "person": "ana"})
    assert [dict(each.labels) for each in await provider.find({"person": "bo"})] == [
        {"tenant": "T1", "person": "bo"}
    ]


async def test_a_new_sandbox_is_running(sandbox: Sandbox) -> None:
    assert await sandbox.state() is SandboxState.RUNNING


async def test_a_sandbox_that_does_not_exist_is_gone(provider: Provider) -> None:
    for id in ("local-0000000000000000", "../other", ""):
        with pytest.raises(SandboxGone):
            await provider.get(id)


async def test_a_stopped_sandbox_keeps_its_files_and_runs_nothing(sandbox: Sandbox) -> None:
    await sh(sandbox, "echo kept >~/note")
    await sandbox.stop()
    assert await sandbox.state() is SandboxState.STOPPED
    with pytest.raises(SandboxNotRunning):
        await sh(sandbox, "true")
    with pytest.raises(SandboxNotRunning):
        await sandbox.spawn("p", Launch(("cat",), sandbox.home), fence=1, orphan_after=60)
    with pytest.raises(SandboxNotRunning):
        await sandbox.attach("p", fence=1)
    await sandbox.start()
    assert await sh(sandbox, "cat ~/note") == "kept"


async def test_stopping_ends_what_runs_in_it(sandbox: Sandbox) -> None:
    process = await sandbox.spawn("p", Launch(("sleep", "600"), sandbox.home), fence=7, orphan_after=60)
    running = asyncio.ensure_future(sandbox.run(Launch(("sleep", "600"), sandbox.home), timeout=600))
    await sh(sandbox, "true")
    await sandbox.stop()
    with pytest.raises(SandboxNotRunning):
        await running
    await sandbox.start()
    assert not (await process.status()).running


async def test_starting_and_stopping_twice_is_no_error(sandbox: Sandbox) -> None:
    await sandbox.start()
    await sandbox.stop()
    await sandbox.stop()
    await sandbox.start()
    assert await sandbox.state() is SandboxState.RUNNING


async def test_a_deleted_sandbox_is_gone_for_every_verb(provider: Provider, sandbox: Sandbox) -> None:
    await sh(sandbox, "mkdir -p ~/locked/inside && chmod 000 ~/locked")
    await sandbox.delete()
    for verb in (
        sandbox.state(),
        sandbox.start(),
        sandbox.stop(),
        sandbox.touch(60),
        provider.get(sandbox.id),
    ):
        with pytest.raises(SandboxGone):
            await verb
    with pytest.raises(SandboxGone):
        await sh(sandbox, "true")
    assert not await provider.find({})


async def test_a_sandbox_that_vanished_at_its_provider_is_gone_and_so_are_its_processes(
    make: Make, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Whoever deleted it was not this life of the bot."""
    (tmp_path / "source").write_text("x")
    launch = Launch(("cat",), sandbox.home)
    process = await sandbox.spawn("p", launch, fence=1, orphan_after=60)
    elsewhere = make()
    await (await elsewhere.get(sandbox.id)).delete()
    await elsewhere.close()
    for verb in (
        sandbox.state(),
        sandbox.run(launch),
        sandbox.upload(tmp_path / "source", f"{sandbox.home}/file"),
        sandbox.download(f"{sandbox.home}/file", tmp_path / "target", limit=100),
        sandbox.spawn("q", launch, fence=1, orphan_after=60),
        sandbox.attach("p", fence=1),
    ):
        with pytest.raises(SandboxGone):
            await verb
    for call in (process.read(1, 0, ack=0, wait=5), process.write(0, b"x"), process.status()):
        with pytest.raises((SandboxGone, ProcessGone)):
            await call


async def test_touching_keeps_it_running(sandbox: Sandbox) -> None:
    await sandbox.touch(600)
    assert await sandbox.state() is SandboxState.RUNNING


async def test_another_life_of_the_bot_finds_the_same_sandbox(make: Make, sandbox: Sandbox) -> None:
    await sh(sandbox, "echo kept >~/note")
    later, another = make(), make()
    again = await later.get(sandbox.id)
    assert await again.state() is SandboxState.RUNNING
    await again.enter()
    assert (again.home, again.workspaces) == (sandbox.home, sandbox.workspaces)
    assert (again.repositories, again.agents) == (sandbox.repositories, sandbox.agents)
    assert await sh(again, "cat ~/note") == "kept"
    await another.get(sandbox.id)
    assert later.host == another.host


# Short programs


async def test_a_non_zero_code_is_a_result(sandbox: Sandbox) -> None:
    result = await sandbox.run(Launch(("sh", "-c", "echo out; echo err >&2; exit 7"), sandbox.home))
    assert result == ExecResult(7, b"out\n", b"err\n")


async def test_a_missing_program_is_code_127(sandbox: Sandbox) -> None:
    result = await sandbox.run(Launch(("no-such-program",), sandbox.home))
    assert result.code == 127
    assert b"no-such-program" in result.err


async def test_a_program_gets_its_stdin_environment_and_directory(sandbox: Sandbox) -> None:
    await sh(sandbox, "mkdir -p ~/deep/down")
    launch = Launch(
        ("sh", "-c", 'cat; printf "|%s|%s|%s" "$PLAIN" "$KEY" "$PWD"'),
        cwd=f"{sandbox.home}/deep/down",
        env={"PLAIN": "a b"},
        secrets={"KEY": "s3cret"},
    )
    result = await sandbox.run(launch, stdin=b"in")
    assert result.out.decode() == f"in|a b|s3cret|{sandbox.home}/deep/down"


async def test_home_and_user_are_what_the_box_says_they_are(sandbox: Sandbox) -> None:
    asked = 'cd && touch mine && pwd -P && id -u && id -un && stat -c %u . && echo "$USER $LOGNAME"'
    said = await sh(sandbox, asked)
    home, uid, user, owner, names = said.splitlines()
    assert home == sandbox.home
    assert owner == uid
    assert names == f"{user} {user}"


async def test_large_input_reaches_a_program_that_answers_before_it_has_read_all(sandbox: Sandbox) -> None:
    result = await sandbox.run(Launch(("cat",), sandbox.home), stdin=b"x" * (3 * MB))
    assert result.out == b"x" * (3 * MB)
    ignoring = await sandbox.run(Launch(("true",), sandbox.home), stdin=b"x" * (3 * MB))
    assert ignoring.code == 0


async def test_output_is_clipped(sandbox: Sandbox) -> None:
    result = await sandbox.run(Launch(("head", "-c", str(20 * MB), "/dev/zero"), sandbox.home))
    assert (result.code, len(result.out)) == (0, 8 * MB)


async def test_a_program_that_takes_too_long_is_killed(sandbox: Sandbox) -> None:
    beating = "while :; do echo beat >>~/beats; sleep 0.02; done"
    with pytest.raises(SandboxUnreachable):
        await sandbox.run(Launch(("sh", "-c", beating), sandbox.home), timeout=1)
    before, after = (await sh(sandbox, "wc -l <~/beats; sleep 0.2; wc -l <~/beats")).split()
    assert before == after


async def test_what_a_short_program_leaves_running_is_not_waited_for(sandbox: Sandbox) -> None:
    began = time.monotonic()
    assert await sh(sandbox, "sleep 60 & echo done") == "done"
    assert time.monotonic() - began < 30


async def test_a_directory_that_does_not_exist_is_the_sandboxes_error(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError):
        await sandbox.run(Launch(("true",), cwd=f"{sandbox.home}/nowhere"))


async def test_only_what_is_visible_is_seen(provider: Provider, sandbox: Sandbox) -> None:
    mine, other = f"{sandbox.workspaces}/mine", f"{sandbox.workspaces}/other"
    bare = f"{sandbox.repositories}/1.git"
    await sh(sandbox, "echo hidden >$1/note", other, visible=(other,))
    directories = (sandbox.workspaces, sandbox.repositories)
    seen = await sh(sandbox, "ls -d $1/* $2/*", *directories, visible=(mine, bare))
    hidden = [] if provider.separates_sessions else [other]
    assert seen.split("\n") == [bare, mine, *hidden]
    assert await sh(sandbox, "cat $1/note", other, visible=(other,)) == "hidden"


# Files


async def test_a_file_goes_in_and_comes_out_unchanged(sandbox: Sandbox, tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    (tmp_path / "source").write_bytes(content)
    path = f"{sandbox.workspaces}/s1/made/on/the way/file"
    await sandbox.upload(tmp_path / "source", path)
    await sandbox.download(path, tmp_path / "target", limit=len(content))
    assert (tmp_path / "target").read_bytes() == content


async def test_fifty_megabytes_under_an_odd_name_go_in_and_come_out(sandbox: Sandbox, tmp_path: Path) -> None:
    content = secrets.token_bytes(MB) * 50
    (tmp_path / "source").write_bytes(content)
    path = f"{sandbox.home}/two  words/-it's $HOME, pâté & 名前 🐦.bin"
    await sandbox.upload(tmp_path / "source", path)
    assert await sh(sandbox, 'wc -c <"$1"', path) == str(len(content))
    await sandbox.download(path, tmp_path / "target", limit=len(content))
    assert (tmp_path / "target").read_bytes() == content


async def test_uploading_again_replaces_the_file(sandbox: Sandbox, tmp_path: Path) -> None:
    for text in ("first", "second, longer", "3rd"):
        (tmp_path / "source").write_text(text)
        await sandbox.upload(tmp_path / "source", f"{sandbox.home}/file")
    assert await sh(sandbox, "cat ~/file; ls ~") == "3rdfile"


async def test_a_file_beyond_the_limit_is_not_downloaded(sandbox: Sandbox, tmp_path: Path) -> None:
    await sh(sandbox, "head -c 1000 /dev/zero >~/file")
    with pytest.raises(SandboxError, match="larger than 999 bytes"):
        await sandbox.download(f"{sandbox.home}/file", tmp_path / "target", limit=999)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("made_by", ["true", "mkdir ~/file", "mkfifo ~/file", "ln -s /etc/passwd ~/file"])
async def test_what_is_no_regular_file_is_not_downloaded(
    sandbox: Sandbox, tmp_path: Path, made_by: str
) -> None:
    await sh(sandbox, made_by)
    with pytest.raises(SandboxError, match="not a regular file"):
        await sandbox.download(f"{sandbox.home}/file", tmp_path / "target", limit=MB)
    assert not (tmp_path / "target").exists()


async def test_a_path_outside_the_sandbox_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")
    for path in ("/etc/cron.d/x", f"{sandbox.home}/../../x", f"{sandbox.workspaces}/../../x/y"):
        with pytest.raises(SandboxError):
            await sandbox.upload(tmp_path / "source", path)
