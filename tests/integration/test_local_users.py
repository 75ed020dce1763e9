"""One user of the machine per local sandbox, where the bot is root: what is left to who gets out of a box.

A plain program of that user, without any box, stands for one that got out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bot.errors import ProviderUnavailable, SandboxError, SandboxFull, SandpiperError
from bot.models import Launch
from bot.ports import Process
from sandbox.bubblewrap import Options, Place
from sandbox.cgroups import Groups, Limits
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider, LocalSandbox
from sandbox.users import USUAL
from tests.boxes import cannot_be_tested
from tests.local_boxes import attempt, make, sh

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give programs another user")

ROOT = Path(__file__).parents[2]
Create = Callable[..., Awaitable[LocalSandbox]]


@pytest.fixture(scope="module", autouse=True)
def _users_work(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        asyncio.run(make(tmp_path_factory.mktemp("check") / "sandboxes", uids=USUAL).check())
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))


@pytest.fixture
async def create(tmp_path: Path) -> AsyncIterator[Create]:
    async def create(**options: Any) -> LocalSandbox:
        return await make(tmp_path / "data" / "sandboxes", uids=USUAL, **options).create({})

    (tmp_path / "data").mkdir(mode=0o711)
    yield create
    for sandbox in await make(tmp_path / "data" / "sandboxes", uids=USUAL).find({}):
        await sandbox.delete()


def root_of(directory: Path, sandbox: LocalSandbox) -> Path:
    return directory / "data" / "sandboxes" / sandbox.id


def uid_of(root: Path) -> int:
    return int(json.loads((root / "box.json").read_text())["uid"])


def outside(uid: int, *argv: str, groups: str = "--clear-groups") -> subprocess.CompletedProcess[str]:
    """A program of a sandbox's user that no box holds."""
    command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", groups, "--", *argv]
    env = {"PATH": os.defpath}  # an interpreter of root's own would be out of reach
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)


async def kept(sandbox: LocalSandbox, script: str = "echo ready; cat") -> Process:
    process = await sandbox.spawn("p", Launch(("sh", "-c", script), sandbox.home), fence=1, orphan_after=60)
    assert (await process.read(1, 0, ack=0, wait=30)).data
    return process


def running(words: str) -> dict[int, int]:
    """The processes whose command line has these words, and whose they are."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if words.encode() in (directory / "cmdline").read_bytes():
                found[int(directory.name)] = directory.stat().st_uid
        except OSError:
            continue  # it has just ended
    return found


def owner_of_process(pid: int) -> int:
    """Its directory in /proc is root's where it cannot be traced."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"^Uid:\t(\d+)", status, re.MULTILINE)[0])


# Whose is what


async def test_all_of_a_box_and_its_proxy_are_a_user_of_their_own(create: Create, tmp_path: Path) -> None:
    one, other = await create(), await create()
    for sandbox in (one, other):
        await kept(sandbox)
    uids = [uid_of(root_of(tmp_path, sandbox)) for sandbox in (one, other)]
    assert len({0, *uids}) == 3
    for sandbox, uid in zip((one, other), uids, strict=True):
        owners = {owner_of_process(pid) for pid in running(f"{sandbox.id}/home")}
        assert owners == {uid}, "bubblewrap"
        assert {owner_of_process(pid) for pid in running(f"{sandbox.id}/run/egress\0")} == {uid}
        assert {owner_of_process(pid) for pid in running(f"{sandbox.id}/spool")} == {0}, "the keeper"
        assert await sh(sandbox, "id -u; id -un; id -g; id -G") == "1000\nagent\n1000\n1000", "as ever inside"
        groups = f"grep -E '^(Uid|Gid|Groups)' /proc/{next(iter(running(f'{sandbox.id}/home')))}/status"
        assert outside(uid, "sh", "-c", groups).stdout.split() == [
            *("Uid:", *[str(uid)] * 4, "Gid:", *[str(uid)] * 4, "Groups:"),
        ]


async def test_what_is_installed_is_everybodys_to_read_and_of_no_sandboxs_user(
    create: Create, tmp_path: Path
) -> None:
    one, other = await create(), await create()
    script = (
        "mkdir /opt/agents/tool && echo 'echo 1.0' >/opt/agents/tool/run && chmod +x /opt/agents/tool/run"
    )
    assert (await attempt(one, script, installs=True)).code == 0
    assert await sh(other, "sh /opt/agents/tool/run") == "1.0"
    agents = tmp_path / "data" / "sandboxes" / "agents"
    installer = (agents / "tool" / "run").stat().st_uid
    uids = {uid_of(root_of(tmp_path, sandbox)) for sandbox in (one, other)}
    assert installer not in {0, *uids}
    for uid in uids:
        assert "denied" in outside(uid, "sh", "-c", f"echo x >{agents}/tool/run").stderr
    groups = f"--groups={uid_of(root_of(tmp_path, one))}"
    assert outside(installer, "ls", str(root_of(tmp_path, one) / "home"), groups=groups).returncode != 0


# Out of the box


async def test_who_got_out_reads_and_changes_nothing_of_others_and_of_the_bot(
    create: Create, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.chmod(0o700)
    for name in ("sandpiper.db", "notes"):
        (data / name).write_text("of the bot")
        (data / name).chmod(0o644)
    one = await create(data_dir=data)
    other = await create()
    await sh(one, "echo mine >~/note; echo mine >/workspace/s1/note", visible=("/workspace/s1",))
    await sh(
        other,
        "umask 0; echo theirs >~/note; chmod 777 ~; echo w >/workspace/s2/w",
        visible=("/workspace/s2",),
    )
    for sandbox in (one, other):
        await kept(sandbox)
    mine, theirs = root_of(tmp_path, one), root_of(tmp_path, other)
    uid = uid_of(mine)
    assert outside(uid, "cat", str(mine / "home" / "note")).stdout == "mine\n", "it is that user"
    read = 'if test -d "$1"; then ls "$1"; else cat "$1"; fi'
    closed = [data / name for name in ("", "sandpiper.db", "notes", "sandboxes", "sandboxes/uids.lock")]
    closed += [theirs / name for name in ("", "box.json", "home", "home/note", "workspaces/s2/w", "run")]
    closed += [mine / name for name in ("", "spool", "spool/p/stdout", "workspaces", "run", "run/egress")]
    closed += [theirs / "run/egress/box/proxy.sock", theirs / "spool/p/sock", mine / "spool/p/sock"]
    for path in (*closed, theirs / "spool/p/stdout", mine / "run/egress/denied.jsonl"):
        assert "Permission denied" in outside(uid, "sh", "-c", read, "sh", str(path)).stderr, path
    write = 'echo x >>"$1"'
    closed = [data / "x", data / "sandboxes" / "x", theirs / "home/x"]
    closed += [mine / name for name in ("x", "box.json", "running", "spool/x", "workspaces/x", "run/x")]
    closed += [mine / "run" / name for name in ("filter", "etc/passwd", "egress/egress.json", "egress/box/x")]
    for path in closed:
        assert "Permission denied" in outside(uid, "sh", "-c", write, "sh", str(path)).stderr, path
    for path in (mine / "home", mine / "workspaces" / "s1", mine / "run" / "egress" / "box" / "proxy.sock"):
        assert "Permission denied" in outside(uid, "mv", str(path), f"{path}-away").stderr, path


TRACE = """
    import ctypes, errno, sys
    libc = ctypes.CDLL(None, use_errno=True)
    for pid in map(int, sys.argv[1:]):
        traced = libc.ptrace(16, pid, 0, 0)  # PTRACE_ATTACH
        print(pid, errno.errorcode[ctypes.get_errno()] if traced else "traced")
"""


async def test_who_got_out_signals_traces_and_looks_into_nobody_else(create: Create, tmp_path: Path) -> None:
    one, other = await create(), await create()
    for sandbox in (one, other):
        await kept(sandbox)
    uid = uid_of(root_of(tmp_path, one))
    [proxy] = running(f"{one.id}/run/egress\0")
    others = [os.getpid(), *running(f"{one.id}/spool"), *running(other.id)]
    assert len(others) >= 5
    for pid in others:
        assert outside(uid, "kill", "-0", str(pid)).returncode != 0
        for name in ("environ", "mem", "fd", "root/", "cwd/"):
            assert outside(
                uid, "ls" if "/" in name or name == "fd" else "cat", f"/proc/{pid}/{name}"
            ).returncode
    traced = outside(uid, "python3", "-c", textwrap.dedent(TRACE), *map(str, [proxy, *others])).stdout
    assert traced.splitlines() == [f"{pid} EPERM" for pid in (proxy, *others)]


async def test_what_got_out_is_ended_with_its_sandbox(create: Create, tmp_path: Path) -> None:
    one, other = await create(), await create()
    uids = [uid_of(root_of(tmp_path, sandbox)) for sandbox in (one, other)]
    mine, theirs = [
        await asyncio.create_subprocess_exec("setsid", "sleep", "600", user=uid, group=uid, extra_groups=[])
        for uid in uids
    ]
    await one.stop()
    assert await asyncio.wait_for(mine.wait(), 20) == -signal.SIGKILL
    assert theirs.returncode is None
    theirs.kill()
    await theirs.wait()


# Limits


BOMB = """
import os, time
try:
    for n in range(200):
        if not os.fork():
            time.sleep(60)
except BlockingIOError:
    print("full", flush=True)
time.sleep(60)
"""


async def test_a_fork_bomb_in_several_boxes_leaves_the_others_alone(create: Create) -> None:
    """Without control groups, and counted over all boxes of the sandbox."""
    bombed, well = await create(together=Limits(pids=60)), await create(together=Limits(pids=60))
    held = await kept(bombed, "sleep 60 & sleep 60 & sleep 60 & echo ready; cat")
    launch = Launch(("python3", "-c", BOMB), bombed.home)
    process = await bombed.spawn("bomb", launch, fence=1, orphan_after=60)
    assert (await process.read(1, 0, ack=0, wait=20)).data == b"full\n"
    with pytest.raises(SandboxError, match="SANDPIPER_SANDBOX_PIDS"):
        await sh(bombed, "true")
    assert await sh(well, "for n in 1 2 3 4 5 6 7 8; do sleep 0 & done; wait; echo well") == "well"
    assert (await held.status()).running
    await bombed.stop()
    await bombed.start()
    assert await sh(bombed, "echo well again") == "well again"


MANY = """
import os, time
while True:
    if os.fork() == 0:
        mine = bytearray(8 << 20)
        time.sleep(60)
    if os.waitpid(-1, os.WNOHANG)[1] == 9:
        raise SystemExit(70)
"""
BOT = """
    import asyncio, os, sys
    from pathlib import Path
    from bot.models import Launch
    from sandbox.users import USUAL
    from tests.local_boxes import make

    async def main():
        sandbox = await make(Path(sys.argv[1]), uids=USUAL).create({})
        await sandbox.run(Launch(("true",), sandbox.home))
        Path(sys.argv[2], "cgroup.procs").write_text(str(os.getpid()))
        mine = bytearray(100 << 20)
        print((await sandbox.run(Launch(("python3", "-c", sys.argv[3]), sandbox.home))).code)

    asyncio.run(main())
"""


@pytest.mark.usefixtures("create")  # which deletes what is made in that directory
async def test_where_memory_runs_out_programs_of_a_sandbox_end_first(tmp_path: Path) -> None:
    """In a control group, which stands for a machine: the bot has more than any of many small programs."""
    groups = Groups.here(Limits(memory=300 << 20))
    try:
        groups.check()
    except ProviderUnavailable as error:
        pytest.skip(str(error))
    name = f"sandpiper-machine-{os.getpid()}"
    groups.make(name)
    try:
        words = (str(tmp_path / "data" / "sandboxes"), str(groups.of(name)[0]), MANY)
        command = [sys.executable, "-c", textwrap.dedent(BOT), *words]
        bot = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        said, _ = await asyncio.wait_for(bot.communicate(), 60)
        assert (bot.returncode, said) == (0, b"70\n")
        assert groups.memory_kills(name) > 0
    finally:
        await groups.remove(name)


# From an earlier release, and to another machine


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A directory where no user but root gets to, so that sandboxes in it are root's, as they were."""
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data"


async def test_files_of_an_earlier_release_are_handed_over_and_links_not_followed(
    old: Path, tmp_path: Path
) -> None:
    for name in ("file", "directory/file"):
        (tmp_path / "outside" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "outside" / name).write_text("the bot's")
    before = await make(old / "sandboxes").create({})
    planted = """
        echo mine >~/note; cp /usr/bin/id ~/id; chmod 4755 ~/id; mkdir -p ~/closed/deep; chmod 0 ~/closed
        ln -s "$1/file" ~/link; ln -s "$1/directory" ~/directory; ln -s "$1" /workspace/s1/outside
        mkfifo ~/pipe; echo work >/workspace/s1/work
        python3 -c 'import os
for _ in range(1500): os.mkdir("d"); os.chdir("d")'
    """
    await sh(before, planted, str(tmp_path / "outside"), visible=("/workspace/s1",))
    root = old / "sandboxes" / before.id
    assert (root / "home" / "note").stat().st_uid == 0
    assert (
        await attempt(before, "echo 'echo 1.0' >/opt/agents/run; chmod 700 /opt/agents/run", installs=True)
    ).code == 0
    await before.stop()

    old.chmod(0o711)
    after = await make(old / "sandboxes", uids=USUAL).get(before.id)
    await after.start()
    seen = await sh(
        after,
        "cat ~/note /workspace/s1/work; sh /opt/agents/run; rm -r ~/d; chmod 700 ~/closed; ls ~/closed",
        visible=("/workspace/s1",),
    )
    assert seen == "mine\nwork\n1.0\ndeep"
    uid = uid_of(root)
    for path in ("home", "home/note", "home/link", "home/pipe", "home/closed/deep", "workspaces/s1/outside"):
        assert (root / path).lstat().st_uid == uid, path
    assert not (root / "home" / "id").stat().st_mode & stat.S_ISUID
    for path in ("", "file", "directory", "directory/file"):
        assert (tmp_path / "outside" / path).stat().st_uid == 0, path

    old.chmod(0o700)  # and back, where this release finds that it cannot be
    root_again = await make(old / "sandboxes").get(before.id)
    assert await sh(root_again, "cat ~/note") == "mine"
    assert (root / "home" / "note").stat().st_uid == 0
    await root_again.delete()


async def test_what_a_session_has_for_itself_is_handed_over_too(old: Path) -> None:
    own = {"visible": ("/workspace/s1",), "private": (".claude/projects",)}
    before = await make(old / "sandboxes").create({})
    await sh(before, "echo mine >~/.claude/projects/talk", **own)
    await before.stop()
    old.chmod(0o711)
    after = await make(old / "sandboxes", uids=USUAL).get(before.id)
    await after.start()
    assert (
        await sh(after, "echo more >>~/.claude/projects/talk; cat ~/.claude/projects/*", **own)
        == "mine\nmore"
    )
    root = old / "sandboxes" / after.id
    talk = root / "sessions" / "s1" / ".claude" / "projects" / "talk"
    assert talk.stat().st_uid == uid_of(root) > 0
    assert (root / "sessions").stat().st_uid == 0
    mask = os.umask(0o077)  # as the bot is started by a careful operator
    try:
        other = {**own, "visible": ("/workspace/s2",)}
        assert await sh(after, "touch ~/.claude/projects/a; ls ~/.claude/projects", **other) == "a"
    finally:
        os.umask(mask)
    await after.delete()


async def test_what_runs_from_an_earlier_release_is_let_go_on(old: Path) -> None:
    before = await make(old / "sandboxes").create({})
    await kept(before, "echo ready; read line; echo $line >~/note")
    old.chmod(0o711)
    after = await make(old / "sandboxes", uids=USUAL).get(before.id)
    process = await after.attach("p", fence=2)
    assert await sh(after, "echo short >~/short; cat ~/short") == "short"
    await process.write(0, b"words\n", eof=True)
    while (await process.status()).running:  # noqa: ASYNC110 another process ends
        await asyncio.sleep(0.02)
    assert await sh(after, "cat ~/note") == "words"
    root = old / "sandboxes" / after.id
    assert (root / "home" / "note").stat().st_uid == uid_of(root) > 0
    await after.delete()


async def test_a_hand_over_that_was_cut_off_is_done_again(create: Create, tmp_path: Path) -> None:
    sandbox = await create()
    await sh(sandbox, "echo mine >~/note; echo more >~/more")
    root = root_of(tmp_path, sandbox)
    about = json.loads((root / "box.json").read_text())
    (root / "box.json").write_text(json.dumps({**about, "owner": 0}))
    os.chown(root / "home" / "note", 0, 0)
    (root / "home" / "note").chmod(0o600)
    again = await make(tmp_path / "data" / "sandboxes", uids=USUAL).get(sandbox.id)
    assert await sh(again, "cat ~/note ~/more") == "mine\nmore"
    assert uid_of(root) == about["uid"]


# Which ids


async def test_each_id_is_given_once_until_its_sandbox_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o711)
    providers = [make(tmp_path / "data" / "sandboxes", uids="2000000000-2000000008") for _ in range(2)]
    boxes = await asyncio.gather(*(providers[n % 2].create({}) for n in range(8)))
    uids = {uid_of(root_of(tmp_path, box)) for box in boxes}
    installer = (tmp_path / "data" / "sandboxes" / "agents").stat().st_uid
    assert uids | {installer} == set(range(2000000000, 2000000009))
    with pytest.raises(SandboxFull, match="SANDPIPER_SANDBOX_UIDS"):
        await providers[0].create({})
    free = uid_of(root_of(tmp_path, boxes[3]))
    await boxes[3].delete()
    another = await providers[1].create({})
    assert uid_of(root_of(tmp_path, another)) == free
    for box in (*boxes[:3], *boxes[4:], another):
        await box.delete()


@pytest.mark.parametrize(
    ("uids", "said"), [("65000-66000", "nobody"), ("4200000000-4200000001", "range"), ("5-x", "range")]
)
async def test_ids_that_somebody_has_or_nobody_can_have_are_refused(
    tmp_path: Path, uids: str, said: str
) -> None:
    with pytest.raises(SandpiperError, match=said) as refused:
        await make(tmp_path / "sandboxes", uids=uids).check()
    assert "SANDPIPER_SANDBOX_UIDS" in f"{refused.value} {refused.value.mend}"


async def test_a_directory_that_they_cannot_pass_is_named_with_its_mend(
    old: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ProviderUnavailable, match=f"chmod o.x {old}"):
        await make(old / "sandboxes", uids=USUAL).check()
    with caplog.at_level(logging.WARNING):
        await make(
            old / "sandboxes"
        ).check()  # nobody asked for ids, so it is as it was before there were any
    assert f"chmod o+x {old}" in caplog.text
    sandbox = await make(old / "sandboxes").create({})
    assert await sh(sandbox, "id -u") == "1000"
    await sandbox.delete()


async def test_tools_that_they_cannot_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir(mode=0o700)
    with pytest.raises(ProviderUnavailable, match=r"chmod -R o.rX .*/tools"):
        await make(tmp_path / "sandboxes", uids=USUAL, tools=(tmp_path / "tools",)).check()


class ForRootAlone(Bubblewrap):
    """As on a machine where only root makes namespaces, which a test cannot make of this one."""

    async def check(self, place: Place) -> None:
        if place.uid:
            raise ProviderUnavailable("bwrap: No permissions to create new namespace.", "Allow them.")
        await super().check(place)


async def test_where_only_root_makes_namespaces_it_is_as_before_unless_ids_were_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = ForRootAlone(Options(), ())
    with pytest.raises(ProviderUnavailable, match="namespace"):
        await LocalProvider(tmp_path / "sandboxes", boxes, uids=USUAL).check()
    provider = LocalProvider(tmp_path / "sandboxes", boxes)
    with caplog.at_level(logging.WARNING):
        await provider.check()
    assert "No permissions to create new namespace" in caplog.text
    sandbox = await provider.create({})
    assert await sh(sandbox, "echo well; echo x >/opt/agents/x", installs=True) == "well"
    assert uid_of(tmp_path / "sandboxes" / sandbox.id) == 0
    await sandbox.delete()
