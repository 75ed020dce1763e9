"""Sessions of one person in Docker: each in a room of its own, that shows nothing of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.errors import ProcessGone, SandboxError, SandboxNotRunning, SandboxUnreachable
from bot.models import Launch, SandboxState
from sandbox.cgroups import Limits
from sandbox.container import Engine, Room, reaching, showing
from sandbox.container_box import RoomBox
from sandbox.container_sandbox import DockerSandbox
from sandbox.docker import DockerProvider
from sandbox.process import KeptProcess
from tests.docker_engine import IMAGE, DockerEngine

pytest.importorskip("aiodocker", reason="the extra `docker` is not installed")

ALL = "/sandbox"
# Ways of a program to what is another session's: each line of its output is one that led there.
ATTACK = f"""
word=s3; word=${{word}}cret
try() {{ out=$(eval "$1" 2>/dev/null); case $out in *"$word"*) echo "$1" ;; esac; }}
try 'cat {ALL}/workspace/theirs/note'
try 'cat {ALL}/repositories/2.git/note'
try 'find / -name note -exec cat {{}} +'
try 'ln -sfn {ALL}/workspace/theirs ~/link; cat ~/link/note'
try 'ln -sfn ../../workspace/theirs .; cat theirs/note'
try 'cat /proc/[0-9]*/root{ALL}/workspace/theirs/note'
try 'cat /proc/[0-9]*/cwd/note'
try 'cat /proc/[0-9]*/environ | tr "\\0" "\\n"'
try 'cat /proc/[0-9]*/cmdline | tr "\\0" "\\n"'
try 'cat {ALL}/rooms/*/processes/*/stdout'
try 'cat /run/sandpiper/own/processes/*/stdout'
try 'cat /tmp/note /dev/shm/note /var/tmp/note'
true
"""


@pytest.fixture
async def provider(engine: DockerEngine, tmp_path: Path) -> AsyncIterator[DockerProvider]:
    about = Engine(engine.url, IMAGE, private=(".agent/talks", ".share/agent/talks"))
    provider = DockerProvider(tmp_path / "docker", about, allow=())
    yield provider
    for sandbox in await provider.find({}):
        await sandbox.delete()
    await provider.close()


@pytest.fixture
async def sandbox(provider: DockerProvider) -> DockerSandbox:
    return await provider.create({"person": "ana"})


def theirs(sandbox: DockerSandbox) -> tuple[str, str]:
    return f"{sandbox.workspaces}/theirs", f"{sandbox.repositories}/2.git"


def mine(sandbox: DockerSandbox) -> tuple[str, str]:
    return f"{sandbox.workspaces}/mine", f"{sandbox.repositories}/1.git"


def name_of(sandbox: DockerSandbox, session: tuple[str, str]) -> str:
    return f"{sandbox.id}-{showing(*session).name}"


async def sh(sandbox: DockerSandbox, script: str, visible: tuple[str, ...] = ()) -> str:
    launch = Launch(("sh", "-c", script), cwd=visible[0] if visible else sandbox.home, visible=visible)
    result = await sandbox.run(launch)
    assert result.code == 0, result.err.decode()
    return result.out.decode().strip()


async def at_work(sandbox: DockerSandbox) -> KeptProcess:
    """The other session: its files, and an agent that runs and has a key."""
    script = 'for d in . "$1" /tmp /var/tmp /dev/shm; do echo s3cret >$d/note; done; echo s3cret; sleep 600'
    visible = theirs(sandbox)
    launch = Launch(
        ("sh", "-c", script, "s3cret", visible[1]), visible[0], secrets={"KEY": "s3cret"}, visible=visible
    )
    process = await sandbox.spawn("agent", launch, fence=1, orphan_after=600)
    assert (await process.read(1, 0, ack=0, wait=30)).data == b"s3cret\n"
    return process


async def test_no_way_leads_from_one_session_to_another(sandbox: DockerSandbox, tmp_path: Path) -> None:
    await at_work(sandbox)
    assert await sh(sandbox, ATTACK, theirs(sandbox)), "the attack finds what is there"
    for visible in (mine(sandbox), ()):
        assert await sh(sandbox, ATTACK, visible) == ""
    for path in (f"{mine(sandbox)[0]}/theirs/note", f"{sandbox.home}/link/note"):  # links that it has left
        with pytest.raises(SandboxError):
            await sandbox.download(path, tmp_path / "note", limit=100)


async def test_a_session_has_conversations_for_itself_whatever_lies_in_the_home(
    engine: DockerEngine, sandbox: DockerSandbox
) -> None:
    home = Path(engine.volumes[sandbox.id]["Mountpoint"]) / "home"
    (home / ".agent" / "talks").mkdir(parents=True)
    (home / ".agent" / "talks" / "old").write_text("s3cret")
    (home / ".share").symlink_to("/sandbox/workspace")
    own = "~/.agent/talks ~/.share/agent/talks"
    write = f"ls {own}; for d in {own}; do echo s3cret >$d/one; done"
    look = f"cat {own.replace(' ', '/* ')}/*"
    read = f"{look}; find / -name old -exec cat {{}} +; echo mine >~/.agent/talks/two"
    for session, script, said in (
        (theirs(sandbox), write, 0),
        (mine(sandbox), f"{read}; true", 0),
        ((), f"{read}; true", 0),
        (theirs(sandbox), look, 2),
    ):
        assert (await sh(sandbox, f"({script}) 2>/dev/null", session)).count("s3cret") == said
    kept = [path.read_text() for path in (home.parent / "sessions" / ".earlier").rglob("old")]
    assert kept == ["s3cret"]


@pytest.mark.parametrize("attack", ["closed", "moved aside"])
async def test_what_an_agent_does_to_its_home_keeps_no_session_from_running(
    sandbox: DockerSandbox, attack: str
) -> None:
    await sh(sandbox, "true", theirs(sandbox))
    done = "chmod 000 ~/.agent; chmod 500 ~" if attack == "closed" else "rm -rf ~/.agent; ln -s /etc ~/.agent"
    await sh(sandbox, done)
    assert await sh(sandbox, "touch ~/.agent/talks/one && echo on", mine(sandbox)) == "on"


async def test_links_in_the_home_move_and_delete_nothing_of_another_session(
    engine: DockerEngine, sandbox: DockerSandbox
) -> None:
    files = "tree/talks/one tree/programs/one tree/processes/one tree/agents/one"
    await sh(sandbox, f"for f in {files}; do mkdir -p ${{f%/*}}; echo s3cret >$f; done", theirs(sandbox))
    links = (
        "rm -rf ~/.agent ~/.sandpiper ~/workspace; for l in .agent .sandpiper; do ln -s $1/tree ~/$l; done"
    )
    planted = "mkdir -p ~/workspace/planted ~/repositories/9.git"
    await sh(sandbox, f"set -- {theirs(sandbox)[0]}; {links}; {planted}")
    await sandbox.stop()
    await sandbox.start()
    await sh(sandbox, "true", mine(sandbox))
    assert await sh(sandbox, f"cat {files}", theirs(sandbox)) == "\n".join(["s3cret"] * 4)
    data = Path(engine.volumes[sandbox.id]["Mountpoint"])
    assert not (data / "repositories" / "9.git").exists() and not (data / "workspace" / "planted").exists()


async def test_a_process_whose_room_cannot_be_looked_up_is_not_taken_for_gone(
    sandbox: DockerSandbox, tmp_path: Path
) -> None:
    await at_work(sandbox)
    (where,) = (tmp_path / "docker" / sandbox.id / "where").iterdir()
    where.unlink()
    where.mkdir()
    with pytest.raises(SandboxUnreachable):
        await sandbox.attach("agent", fence=1)


async def test_one_session_reaches_no_socket_of_another(sandbox: DockerSandbox) -> None:
    await at_work(sandbox)
    found = "find / -type s 2>/dev/null; cut -c 57- /proc/net/unix; cut -c 1-40 /proc/net/tcp"
    sockets = (await sh(sandbox, found, mine(sandbox))).splitlines()
    processes = {line.split("/")[5] for line in sockets if "/own/processes/" in line}
    assert all(name.startswith("run-") for name in processes), processes


async def test_the_home_is_of_all_and_installed_agents_are_changed_by_who_installs(
    sandbox: DockerSandbox,
) -> None:
    await sh(sandbox, "echo logged in >~/login", theirs(sandbox))
    assert await sh(sandbox, "cat ~/login", mine(sandbox)) == "logged in"
    install = Launch(
        ("sh", "-c", 'ls -A ~; echo pinned >"$1/agent"; ls -d /sandbox/*', "sh", sandbox.agents),
        sandbox.home,
        installs=True,
    )
    done = await sandbox.run(install)
    assert done.out.decode().split() == ["/sandbox/agents", "/sandbox/home"], done.err
    change = f"cat {sandbox.agents}/agent; ! echo changed >{sandbox.agents}/agent"
    assert await sh(sandbox, change, mine(sandbox)) == "pinned"


async def test_a_sandbox_that_is_started_again_has_its_sessions_files_and_none_of_their_programs(
    engine: DockerEngine, sandbox: DockerSandbox, provider: DockerProvider
) -> None:
    process = await at_work(sandbox)
    await sandbox.stop()
    assert list(engine.containers) == [sandbox.id], "rooms are made anew"
    await sandbox.start()
    assert await sh(sandbox, "cat note", theirs(sandbox)) == "s3cret"
    again = await (await provider.get(sandbox.id)).attach("agent", fence=1)
    for one in (process, again):
        assert not (await one.status()).running
    with pytest.raises(ProcessGone):
        await sandbox.attach("nobody", fence=1)


async def test_a_room_whose_container_was_killed_is_made_again(
    engine: DockerEngine, sandbox: DockerSandbox
) -> None:
    process = await at_work(sandbox)
    (name,) = set(engine.containers) - {sandbox.id}
    await engine._end(engine.containers[name])
    assert await sandbox.state() is SandboxState.RUNNING
    assert not (await process.status()).running
    assert await sh(sandbox, "cat note", theirs(sandbox)) == "s3cret"


async def test_a_room_that_somebody_has_paused_goes_on(
    engine: DockerEngine, sandbox: DockerSandbox, provider: DockerProvider
) -> None:
    process = await at_work(sandbox)
    (name,) = set(engine.containers) - {sandbox.id}
    engine.containers[name].paused = True
    again = await provider.get(sandbox.id)
    assert await sh(again, "cat note", theirs(sandbox)) == "s3cret"
    assert (await process.status()).running and not engine.containers[name].paused


async def test_two_bots_that_want_a_room_make_one(
    engine: DockerEngine, sandbox: DockerSandbox, provider: DockerProvider
) -> None:
    again = await provider.get(sandbox.id)
    said = await asyncio.gather(*(sh(one, "echo on", mine(sandbox)) for one in (sandbox, again)))
    assert said == ["on", "on"] and len(engine.containers) == 2


@pytest.mark.parametrize("fault", ["drop", "lose", 500])
@pytest.mark.parametrize("what", ["POST /containers/create", "POST /containers/.*/start", "GET /volumes/"])
async def test_making_a_room_bears_a_lost_connection(
    engine: DockerEngine, sandbox: DockerSandbox, what: str, fault: int | str
) -> None:
    engine.faults = [(what, fault)]
    assert await sh(sandbox, "echo on", mine(sandbox)) == "on"
    assert not engine.faults


async def test_a_stopped_sandbox_gets_no_room(
    engine: DockerEngine, sandbox: DockerSandbox, provider: DockerProvider
) -> None:
    await sandbox.stop()
    volume = provider.volume_box(sandbox.id, {})
    for begin in (RoomBox(provider.engine, volume, Room(), ()).start(), sh(sandbox, "true", mine(sandbox))):
        with pytest.raises(SandboxNotRunning):
            await begin
    assert list(engine.containers) == [sandbox.id]


async def an_hour_passes(sandbox: DockerSandbox, provider: DockerProvider) -> None:
    older = "find /run/sandpiper/own -maxdepth 3 -exec touch -d '2 hours ago' {} +"
    for room in await provider.volume_box(sandbox.id, {}).rooms():
        await room.run(older, timeout=20)


async def ended(process: KeptProcess) -> None:
    await process.signal("KILL")
    while not (await process.read(1, len("s3cret\n"), ack=0, wait=20)).eof:
        pass


async def test_a_room_is_put_away_when_nothing_ran_in_it_for_an_hour(
    engine: DockerEngine, sandbox: DockerSandbox, provider: DockerProvider
) -> None:
    process = await at_work(sandbox)
    await sh(sandbox, "true", mine(sandbox))

    async def rooms() -> int:
        await (await provider.get(sandbox.id)).touch(60)
        return len(engine.containers) - 1

    assert await rooms() == 2
    await an_hour_passes(sandbox, provider)
    assert await rooms() == 1 and (await process.status()).running
    await ended(process)
    async with asyncio.timeout(30):
        while await rooms():
            await an_hour_passes(sandbox, provider)


@pytest.mark.parametrize("step", ["POST /containers/{}/exec", "DELETE /containers/{}"])
async def test_a_program_that_starts_while_its_idle_room_is_put_away_runs_on(
    engine: DockerEngine, sandbox: DockerSandbox, provider: DockerProvider, step: str
) -> None:
    await sh(sandbox, "true", mine(sandbox))
    await an_hour_passes(sandbox, provider)
    come, go = engine.hold(step.format(name_of(sandbox, mine(sandbox))))
    putting_away = asyncio.create_task((await provider.get(sandbox.id)).touch(60))
    async with asyncio.timeout(20):
        await come.wait()
    launch = Launch(("sh", "-c", "echo on; cat"), sandbox.home, visible=mine(sandbox))
    process = await sandbox.spawn("agent", launch, fence=1, orphan_after=600)
    go.set()
    await putting_away
    assert (await process.read(1, 0, ack=0, wait=20)).data == b"on\n"
    assert (await process.status()).running


async def test_an_idle_room_in_which_a_program_is_just_starting_is_not_put_away(
    engine: DockerEngine, sandbox: DockerSandbox, provider: DockerProvider
) -> None:
    await sh(sandbox, "true", mine(sandbox))
    room = provider.volume_box(sandbox.id, {}).room(showing(*mine(sandbox)).name)
    starting = "fcntl.flock(os.open('/run/sandpiper/own/processes', 0), fcntl.LOCK_SH)"
    await room.run(
        f'python3 -c "import fcntl, os, time; {starting}; os.fork() or time.sleep(600)"', timeout=20
    )
    await an_hour_passes(sandbox, provider)
    await sandbox.touch(60)
    assert await room.state() is SandboxState.RUNNING


async def test_a_room_that_would_be_made_otherwise_now_is_made_anew_when_nothing_runs_in_it(
    engine: DockerEngine, sandbox: DockerSandbox, provider: DockerProvider, tmp_path: Path
) -> None:
    process = await at_work(sandbox)
    await sh(sandbox, "true", mine(sandbox))
    about = Engine(engine.url, IMAGE, limits=Limits(memory=1 << 30), private=(".new/talks",))
    changed = DockerProvider(tmp_path / "docker", about, allow=())
    again = await changed.get(sandbox.id)

    def memory(session: tuple[str, str]) -> int:
        host = engine.containers[name_of(sandbox, session)].config["HostConfig"]
        return int(host.get("Memory", 0))

    look = "grep -o ~/.new/talks /proc/mounts; true"  # what it has for itself is a mount
    assert await sh(again, look, mine(sandbox)) and memory(mine(sandbox)) == 1 << 30
    assert not await sh(again, look, theirs(sandbox)) and memory(theirs(sandbox)) == 0
    assert (await process.status()).running
    await ended(process)
    again = await changed.get(sandbox.id)
    assert await sh(again, look, theirs(sandbox)) and memory(theirs(sandbox)) == 1 << 30
    assert (await (await again.attach("agent", fence=1)).read(1, 0, ack=0, wait=0)).data == b"s3cret\n"
    made = len(engine.created)
    await sh(again, look, mine(sandbox))
    assert len(engine.created) == made, "which is as it is wanted"
    await changed.close()


async def test_programs_that_ended_for_memory_are_counted_for_their_own_session(
    engine: DockerEngine, sandbox: DockerSandbox
) -> None:
    await at_work(sandbox)
    launch = Launch(("sleep", "600"), sandbox.home, visible=mine(sandbox))
    await sandbox.spawn("mine", launch, fence=1, orphan_after=600)
    engine.ends_for_memory(name_of(sandbox, theirs(sandbox)))
    assert (await sandbox.memory_kills("mine"), await sandbox.memory_kills("agent")) == (0, 1)
    await sandbox.stop()
    assert (await sandbox.memory_kills("agent"), await sandbox.memory_kills("nobody")) == (0, 0)
    assert list(engine.containers) == [sandbox.id]


async def test_a_sandbox_of_an_earlier_release_is_made_anew_with_its_work(
    engine: DockerEngine, sandbox: DockerSandbox, provider: DockerProvider
) -> None:
    """All was in the home then, and programs ran in the container of the whole volume."""
    home = Path(engine.volumes[sandbox.id]["Mountpoint"]) / "home"
    for path in (
        "workspace/mine/note",
        "repositories/1.git/HEAD",
        ".claude/login",
    ):
        (home / path).parent.mkdir(parents=True)
        (home / path).write_text(path)
    (home / "workspace" / "evil").symlink_to("/etc")
    engine.containers[sandbox.id].config["Labels"] = {}
    again = await provider.get(sandbox.id)
    assert await again.state() is SandboxState.STOPPED
    await again.start()
    look = "cat note ~/workspace/mine/note ../../repositories/1.git/HEAD ~/.claude/login"
    said = await sh(again, look, mine(again))
    assert said == "workspace/mine/noteworkspace/mine/noterepositories/1.git/HEAD.claude/login"
    assert await sh(again, "ls -A", (f"{again.workspaces}/evil",)) == "", "a link is not taken along"


@pytest.mark.parametrize(
    "path",
    [
        "/etc",
        "/sandbox/home",
        "/sandbox/workspace",
        "/sandbox/workspace/..",
        "/sandbox/workspace/a/b",
        "/sandbox/workspace/.x",
    ],
)
def test_what_cannot_be_shown(path: str) -> None:
    with pytest.raises(SandboxError, match="cannot be shown"):
        showing(path)


def test_where_a_path_is_reached() -> None:
    assert (
        reaching("/sandbox/workspace/a/b/c")
        == reaching("/sandbox/workspace/a/d")
        == Room(("/sandbox/workspace/a",))
    )
    assert reaching("/sandbox/home/a") == Room()
    for path in (
        "/tmp/a",
        "/sandbox/home",
        "/sandbox/workspace/a",
        "/sandbox/home/../workspace/a/b",
        "/sandbox/rooms/a/b",
    ):
        with pytest.raises(SandboxError, match="not kept"):
            reaching(path)
