"""Local sandboxes keep a person's sessions apart: who steers in one of them, and may read its repository
only, gets nothing of another one's code by it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.agents import conversations
from bot.errors import ProviderUnavailable, SandboxError
from bot.models import Launch
from bot.workspace import own_directory
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider, LocalSandbox
from tests.boxes import cannot_be_tested, passed_by_nobody

SECRET = "def of_the_private_repository(): ..."
SERVES = f"mkdir -p d; echo '{SECRET}' >d/secret.py; cd d; exec python3 -m http.server 3000"
# Every socket that a program finds, and the port that agents' servers usually have.
LOOKS = """
import os, socket, stat
for top in (os.path.expanduser("~"), "/workspace", "/repositories", "/tmp", "/run"):
    for above, _, names in os.walk(top):
        for name in names:
            path = os.path.join(above, name)
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                continue
            print("found", path, flush=True)
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(5)
                link.connect(path)
                link.sendall(b"3000\\n")
                if link.recv(1) == b"+":
                    link.sendall(b"GET /secret.py HTTP/1.0\\r\\n\\r\\n")
                    print(link.makefile().read())
"""


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[LocalSandbox]:
    provider = LocalProvider(tmp_path / "sandboxes", Bubblewrap(Options(), allow=()))
    try:
        await provider.check()
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))
    assert provider.separates_sessions
    sandbox = await provider.create({})
    yield sandbox
    await sandbox.delete()


def program(session: str, *argv: str, entrance: str = "") -> Launch:
    where = f"/workspace/{session}"
    return Launch(argv, where, visible=(where,), entrance=entrance, private=conversations.ALL)


async def sh(sandbox: LocalSandbox, session: str, script: str) -> str:
    done = await sandbox.run(program(session, "sh", "-c", script))
    return (done.out + done.err).decode()


async def test_a_session_does_not_reach_what_listens_in_anothers_box(sandbox: LocalSandbox) -> None:
    entrance = f"{own_directory(sandbox, 'private')}/shared/at-1-1"
    serves = program("private", "sh", "-c", SERVES, entrance=entrance)
    process = await sandbox.spawn("turn-1-1", serves, fence=1, orphan_after=600.0)
    try:
        async with asyncio.timeout(60):
            own = ""
            while "200 OK" not in own:  # the looking works
                own = (await sandbox.run(program("private", "python3", "-c", LOOKS))).out.decode()
        assert SECRET in own
        other = (await sandbox.run(program("public", "python3", "-c", LOOKS))).out.decode()
        assert entrance not in other and SECRET not in other
    finally:
        await process.signal("KILL")


TALK = "mkdir -p ~/.claude/projects/a && echo '{}' >~/.claude/projects/a/1.jsonl"
READ = "cat ~/.claude/projects/*/*"


async def test_a_session_does_not_read_anothers_conversation(sandbox: LocalSandbox) -> None:
    await sh(sandbox, "private", TALK.format(SECRET))
    assert SECRET in await sh(sandbox, "private", READ), "its own it has in every turn"
    assert "No such file" in await sh(sandbox, "public", READ)
    everything = "grep -rs of_the_private_repository ~ /workspace; true"
    assert await sh(sandbox, "public", everything) == ""
    # Nor does a program that has nothing for itself.
    plain = Launch(("sh", "-c", everything), "/", visible=("/workspace/public",))
    assert (await sandbox.run(plain)).out == b""


async def test_logins_and_settings_are_all_sessions(sandbox: LocalSandbox) -> None:
    files = ".claude/.credentials.json .claude/settings.json .codex/auth.json .local/share/opencode/auth.json"
    await sh(sandbox, "one", f"cd; for each in {files}; do echo mine >$each; done")
    assert await sh(sandbox, "other", f"cd; cat {files}") == "mine\n" * 4


async def test_conversations_outlive_a_stop(sandbox: LocalSandbox) -> None:
    await sh(sandbox, "private", TALK.format(SECRET))
    await sandbox.stop()
    await sandbox.start()
    assert SECRET in await sh(sandbox, "private", READ)


async def test_what_an_earlier_release_left_in_the_home_is_nobodys(sandbox: LocalSandbox) -> None:
    """Whose it was is not known any more. It is kept with the sandbox."""
    await sandbox.run(Launch(("sh", "-c", TALK.format(SECRET)), "/"))
    assert "No such file" in await sh(sandbox, "private", READ)
    left = Launch(("sh", "-c", READ), "/", visible=("/workspace/public",))
    assert SECRET.encode() not in (await sandbox.run(left)).out


@pytest.mark.parametrize(
    "plants",
    [
        "ln -s /home/agent/elsewhere ~/.claude",
        "mkdir ~/.claude; ln -s ../elsewhere ~/.claude/projects",
        "mkdir ~/.claude; ln -s /nonexistent ~/.claude/projects",
        "mkdir ~/.claude; touch ~/.claude/projects",
        "mkdir ~/.claude; chmod 000 ~/.claude",
    ],
)
async def test_what_another_session_plants_gets_nothing_and_stops_nothing(
    sandbox: LocalSandbox, plants: str
) -> None:
    await sandbox.run(Launch(("sh", "-c", f"mkdir ~/elsewhere; {plants}"), "/"))
    assert await sh(sandbox, "private", TALK.format(SECRET)) == ""
    assert SECRET in await sh(sandbox, "private", READ)
    assert await sh(sandbox, "public", "grep -rs of_the_private_repository ~; true") == ""


@pytest.mark.parametrize("mode", ["000", "500", "444"])
async def test_a_home_that_an_agent_has_shut_is_open_for_the_next_program(
    sandbox: LocalSandbox, mode: str
) -> None:
    shuts = f"chmod {mode} ~"
    assert await sh(sandbox, "private", TALK.format(SECRET)) == ""
    assert await sh(sandbox, "private", shuts) == ""
    assert SECRET in await sh(sandbox, "private", READ)
    assert await sh(sandbox, "private", shuts) == ""
    assert await sh(sandbox, "public", "touch ~/there") == ""
    assert await sh(sandbox, "public", shuts) == ""
    plain = Launch(("touch", f"{sandbox.home}/here"), "/", visible=("/workspace/public",))
    assert (await sandbox.run(plain)).code == 0
    assert await sh(sandbox, "public", shuts) == ""
    await sandbox.stop()
    await sandbox.start()
    assert "here" in await sh(sandbox, "private", "ls ~")


@pytest.mark.skipif(os.geteuid() != 0, reason="this run is unprivileged already")
def test_so_it_is_where_the_bot_is_not_root() -> None:
    assert passed_by_nobody(Path(__file__), "-k", "shut or plants", within=200)


@pytest.mark.parametrize("path", ["../workspaces", "/etc", ".claude/../../x"])
async def test_nothing_but_a_place_in_the_home_is_a_sessions_own(sandbox: LocalSandbox, path: str) -> None:
    launch = Launch(("true",), "/", visible=("/workspace/one",), private=(path,))
    with pytest.raises(SandboxError, match="cannot be a session's own"):
        await sandbox.run(launch)
