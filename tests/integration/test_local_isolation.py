"""What a program in a local sandbox can't see or do. Run as this user, and as an unprivileged one."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.errors import ProviderUnavailable, SandboxError
from bot.models import DeniedHost, Launch
from sandbox.bubblewrap import FILTER_FD, Command
from sandbox.egress_modes import MODES, EgressMode
from sandbox.execute import execute
from sandbox.isolation import Unisolated, mend
from sandbox.local import LocalProvider, LocalSandbox, local_provider
from sandbox.process import HANDOVER_FD
from tests.boxes import cannot_be_tested, passed_by_nobody
from tests.local_boxes import attempt, make, sh

ROOT = Path(__file__).parents[2]
SECRET = "bot-secret-" + secrets.token_hex(8)
Create = Callable[..., Awaitable[LocalSandbox]]


@pytest.fixture
async def create(tmp_path: Path) -> AsyncIterator[Create]:
    """Make a sandbox, of a provider with these options."""

    async def create(**options: Any) -> LocalSandbox:
        return await make(tmp_path / "sandboxes", **options).create({})

    yield create
    for sandbox in await make(tmp_path / "sandboxes").find({}):
        await sandbox.delete()


@pytest.fixture(scope="module", autouse=True)
def _bubblewrap_works(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        asyncio.run(make(tmp_path_factory.mktemp("check")).check())
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))


@pytest.fixture
async def sandbox(create: Create) -> LocalSandbox:
    return await create()


@pytest.fixture(autouse=True)
def _secret_of_the_bot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDPIPER_SLACK_BOT_TOKEN", SECRET)


# Files


@pytest.mark.parametrize(
    "target",
    ["/usr/bin/x", "/etc/x", "/x", "/var/x", "/run/x", "/dev/x", "/workspace/x", "/run/sandpiper/forward.py"],
)
async def test_the_system_is_read_only(sandbox: LocalSandbox, target: str) -> None:
    assert b"Read-only" in (await attempt(sandbox, 'echo x >"$1"', target)).err


async def test_the_kernels_switches_are_read_only(sandbox: LocalSandbox) -> None:
    assert await sh(sandbox, "find /proc/sys -type f -writable 2>/dev/null | wc -l") == "0"
    assert (await attempt(sandbox, "ls /sys")).code != 0


async def test_other_sandboxes_sessions_and_repositories_are_not_there(
    create: Create, sandbox: LocalSandbox
) -> None:
    other = await create()
    await sh(other, "echo theirs >~/note")
    await sh(sandbox, "echo other >/workspace/s2/note", visible=("/workspace/s2", "/repositories/2.git"))
    seen = await sh(
        sandbox, "ls -A ~ /workspace /repositories", visible=("/workspace/s1", "/repositories/1.git")
    )
    assert "s1" in seen
    assert "1.git" in seen
    for hidden in ("note", "s2", "2.git"):
        assert hidden not in seen


async def test_the_bots_files_and_the_spool_are_not_there(sandbox: LocalSandbox, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(SECRET)
    process = await sandbox.spawn("p", Launch(("cat",), sandbox.home), fence=1, orphan_after=60)
    for path in (tmp_path, tmp_path / ".env", ROOT / "pyproject.toml", Path.home(), tmp_path / "sandboxes"):
        assert (await attempt(sandbox, 'ls "$1"', str(path))).code != 0, path
    found = await sh(sandbox, "find / -xdev -name keeper -o -name '*.sock' 2>/dev/null; ls -A /run/egress")
    assert found == "proxy.sock"
    assert (await process.status()).running


async def test_only_directories_that_no_agent_can_replace_are_shown(sandbox: LocalSandbox) -> None:
    for path in (
        "/etc",
        "/workspace",
        "/workspace/..",
        "/workspace/s1/deeper",
        "/workspace/../s1",
        "/home/agent/x",
    ):
        with pytest.raises(SandboxError):
            await sh(sandbox, "true", visible=(path,))


async def test_a_planted_link_leads_neither_upload_nor_download_out(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("the bot's")
    (tmp_path / "source").write_text("new")
    await sh(sandbox, 'ln -s "$1" /workspace/s1/link', str(outside), visible=("/workspace/s1",))
    with pytest.raises(SandboxError):
        await sandbox.upload(tmp_path / "source", "/workspace/s1/link/file")
    with pytest.raises(SandboxError):
        await sandbox.download("/workspace/s1/link/file", tmp_path / "target", limit=100)
    assert (outside / "file").read_text() == "the bot's"


async def test_scratch_space_is_bounded_and_private(create: Create) -> None:
    sandbox = await create(tmp_size=1 << 20, shm_size=1 << 20)
    for place in ("/tmp", "/dev/shm"):
        full = await attempt(sandbox, f"head -c 3000000 /dev/zero >{place}/big")
        assert b"No space left" in full.err
    assert await sh(sandbox, "ls -A /tmp /var/tmp /dev/shm | grep -v :$ || true") == ""


async def test_the_keys_of_the_machines_own_services_are_not_there(sandbox: LocalSandbox) -> None:
    assert await sh(sandbox, "find /etc/ssl/private /etc/pki/tls/private -type f 2>/dev/null || true") == ""
    assert (await attempt(sandbox, "cat /etc/shadow")).code != 0


async def test_named_tools_are_there_and_on_the_path(create: Create, tmp_path: Path) -> None:
    tool = tmp_path / "toolchain"
    (tool / "bin").mkdir(parents=True)
    (tool / "bin" / "hello").write_text("#!/bin/sh\necho hello")
    (tool / "bin" / "hello").chmod(0o755)
    sandbox = await create(tools=(tool,))
    assert await sh(sandbox, "hello") == "hello"
    assert b"Read-only" in (await attempt(sandbox, f"echo x >{tool}/x")).err


# Processes and rights


async def test_no_process_but_its_own_is_seen_or_reached(sandbox: LocalSandbox) -> None:
    names = await sh(sandbox, "cat /proc/[0-9]*/comm")
    assert set(names.split()) <= {"bwrap", "python3", "sh", "cat"}
    assert (await attempt(sandbox, "kill -0 $1", str(os.getpid()))).code != 0


async def test_no_environment_in_the_box_has_a_secret_of_the_bot(sandbox: LocalSandbox) -> None:
    assert SECRET in os.environ.values()
    environments = await sh(sandbox, "cat /proc/[0-9]*/environ | tr '\\0' '\\n'; env")
    assert "HOME=/home/agent" in environments
    assert SECRET not in environments
    assert "SANDPIPER_SLACK" not in environments


async def test_a_program_whose_interpreter_is_missing_is_not_called_missing_itself(
    sandbox: LocalSandbox,
) -> None:
    await sh(sandbox, "printf '#!/opt/none/node\\n' >~/claude; chmod +x ~/claude")
    here = await sandbox.run(Launch((f"{sandbox.home}/claude",), sandbox.home))
    assert (here.code, b"is there, but not the interpreter" in here.err) == (127, True)
    nowhere = await sandbox.run(Launch(("claude",), sandbox.home))
    assert (nowhere.code, b"claude cannot be started" in nowhere.err) == (127, True)


async def test_a_stopped_sandbox_that_is_touched_gets_no_proxy(sandbox: LocalSandbox, tmp_path: Path) -> None:
    await sandbox.stop()
    await sandbox.touch(60.0)
    assert not list((tmp_path / "sandboxes").glob("local-*/run/egress/egress.json"))


async def test_the_agents_secrets_stand_in_no_argv_and_in_no_file(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    secret = "model-key-" + secrets.token_hex(8)
    launch = Launch(
        ("sh", "-c", "cat /proc/1/environ; echo ready; cat"), sandbox.home, secrets={"KEY": secret}
    )
    process = await sandbox.spawn("p", launch, fence=1, orphan_after=60)
    out = b""
    while b"ready\n" not in out:
        out += (await process.read(1, len(out), ack=0, wait=20)).data
    assert secret.encode() not in out, "process 1 of the box has a clean environment"
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            assert secret.encode() not in (directory / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
    for file in (tmp_path / "sandboxes").rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()


async def test_it_has_no_rights_and_gets_none(sandbox: LocalSandbox) -> None:
    status = await sh(sandbox, "grep -E '^(Cap...|NoNewPrivs):' /proc/self/status")
    rights = dict(line.split(":\t") for line in status.splitlines())
    assert rights.pop("NoNewPrivs") == "1"
    assert set(rights.values()) == {"0" * 16}
    assert await sh(sandbox, "id -u; id -un") == "1000\nagent"
    for script in ("unshare --user true", "mount -t tmpfs x /tmp", "mknod ~/disk b 8 0"):
        assert (await attempt(sandbox, script)).code != 0, script


async def test_limits_hold(create: Create) -> None:
    sandbox = await create(limits={"nofile": 128, "nproc": 60, "core": 0})
    assert await sh(sandbox, "ulimit -n; ulimit -c") == "128\n0"
    if os.geteuid() == 0:
        return  # the kernel does not count root's processes
    bomb = "import os, time\nfor _ in range(200):\n  if os.fork() == 0: time.sleep(30); os._exit(0)"
    assert b"BlockingIOError" in (await attempt(sandbox, 'python3 -c "$1"', bomb)).err


async def test_what_is_handed_over_is_not_where_a_box_puts_its_filter() -> None:
    """A bot that has few files open would get that very descriptor."""
    given: list[int] = []

    def build(fd: int, life: int) -> Command:
        given.extend((fd, life))
        read = "import os, sys; sys.stdout.write(os.fdopen(int(sys.argv[1])).read())"
        return Command((sys.executable, "-c", read, str(fd)), handover="handed over")

    assert (await execute(build, stdin=b"", timeout=20)).out == b"handed over"
    assert min(given) >= HANDOVER_FD > FILTER_FD


async def test_nothing_of_a_short_program_stays(sandbox: LocalSandbox) -> None:
    beating = "while :; do echo beat >>~/beats; sleep 0.02; done"
    await sh(
        sandbox, f"setsid sh -c '{beating}' >/dev/null 2>&1 & while ! test -s ~/beats; do sleep 0.01; done"
    )
    before, after = (await sh(sandbox, "wc -l <~/beats; sleep 0.2; wc -l <~/beats")).split()
    assert before == after


async def test_the_end_of_a_process_ends_everything_in_its_box(sandbox: LocalSandbox) -> None:
    beating = "while :; do echo beat >>~/beats; sleep 0.02; done"
    script = f"setsid sh -c '{beating}' & while ! test -s ~/beats; do sleep 0.01; done; echo ready; cat"
    process = await sandbox.spawn("p", Launch(("sh", "-c", script), sandbox.home), fence=1, orphan_after=60)
    assert (await process.read(1, 0, ack=0, wait=20)).data == b"ready\n"
    await process.signal("KILL")
    while not (await process.read(1, 6, ack=0, wait=20)).eof:
        pass
    before, after = (await sh(sandbox, "wc -l <~/beats; sleep 0.2; wc -l <~/beats")).split()
    assert before == after


# Network


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from the host")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


FETCH = """
import sys, urllib.error, urllib.request as u
try:
    print(u.urlopen(sys.argv[1]).read().decode())
except urllib.error.HTTPError as error:
    raise SystemExit(error.read().decode())
"""
CONNECT = "import sys, socket; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"


async def test_the_hosts_loopback_is_not_reached(sandbox: LocalSandbox, service: int) -> None:
    refused = await attempt(sandbox, 'python3 -c "$1" 127.0.0.1 "$2"', CONNECT, str(service))
    assert b"ConnectionRefusedError" in refused.err


@pytest.mark.parametrize("address", ["93.184.216.34", "169.254.169.254", "10.0.0.1"])
async def test_no_address_is_reached_directly(sandbox: LocalSandbox, address: str) -> None:
    unreachable = await attempt(sandbox, 'python3 -c "$1" "$2" 80', CONNECT, address)
    assert b"Network is unreachable" in unreachable.err


@pytest.mark.usefixtures("create")  # which deletes what is made in that directory
@pytest.mark.parametrize("mode", MODES)
async def test_a_clouds_metadata_service_is_not_reached_by_the_proxy(
    tmp_path: Path, mode: EgressMode
) -> None:
    """... whatever the mode, also where the list has every host, and nothing is said to help."""
    provider = local_provider(tmp_path / "sandboxes", mode=mode, allow=("*:80",))
    sandbox = await provider.create({})
    for host in ("169.254.169.254", "[::ffff:169.254.169.254]", "2852039166"):
        refused = await attempt(sandbox, 'python3 -c "$1" "http://$2/latest/meta-data/"', FETCH, host)
        assert b"not a public address" in refused.err
    hosts = await sandbox.denied_hosts(0)
    assert [host.host for host in hosts] == [
        "169.254.169.254:80",
        "::ffff:169.254.169.254:80",
        "2852039166:80",
    ]
    assert {host.setting for host in hosts} == {""}


async def test_the_hosts_abstract_sockets_are_not_reached(sandbox: LocalSandbox) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        name = f"\0sandpiper-test-{os.getpid()}"
        listener.bind(name)
        listener.listen()
        abstract = "import sys, socket; socket.socket(socket.AF_UNIX).connect(chr(0) + sys.argv[1])"
        assert b"refused" in (await attempt(sandbox, 'python3 -c "$1" "$2"', abstract, name[1:])).err


async def test_a_service_the_operator_named_has_its_own_address_in_the_box(
    sandbox: LocalSandbox, service: int
) -> None:
    url = f"http://127.0.0.1:{service}/"
    assert await sh(sandbox, 'python3 -c "$1" "$2"', FETCH, url, loopback=(service,)) == "hello from the host"
    assert (await attempt(sandbox, 'python3 -c "$1" "$2"', FETCH, url)).code != 0, "only where it was named"


async def test_a_refused_host_is_named_to_the_agent_and_to_us(sandbox: LocalSandbox) -> None:
    before = await sandbox.denied_hosts(0)
    refused = await attempt(sandbox, 'python3 -c "$1" https://evil.example/', FETCH)
    assert b"SANDPIPER_EGRESS_ALLOW" in refused.err
    assert before == ()
    assert await sandbox.denied_hosts(0) == (DeniedHost("evil.example:443", "SANDPIPER_EGRESS_ALLOW"),)
    assert await sandbox.denied_hosts(time.time() + 1) == ()


async def touches(sandbox: LocalSandbox) -> None:
    await sandbox.touch(60.0)


async def attaches(sandbox: LocalSandbox) -> None:
    await sandbox.attach("p", fence=1)


@pytest.mark.parametrize("bot", [touches, attaches])
@pytest.mark.parametrize("restarted", [False, True])
async def test_the_way_out_survives_its_proxys_death(
    sandbox: LocalSandbox,
    service: int,
    tmp_path: Path,
    bot: Callable[[LocalSandbox], Awaitable[None]],
    restarted: bool,
) -> None:
    """Nobody starts a program meanwhile: the bot only minds the one that runs."""
    script = 'echo ready; read go; python3 -c "$1" "$2"'
    launch = Launch(
        ("sh", "-c", script, "sh", FETCH, f"http://127.0.0.1:{service}/"), sandbox.home, loopback=(service,)
    )
    process = await sandbox.spawn("p", launch, fence=1, orphan_after=60)
    assert (await process.read(1, 0, ack=0, wait=20)).data == b"ready\n"
    [pid] = (tmp_path / "sandboxes").glob("local-*/run/egress/pid")
    os.kill(json.loads(pid.read_text())["pid"], signal.SIGKILL)
    await process.write(0, b"go\n")
    minded = await make(tmp_path / "sandboxes").get(sandbox.id) if restarted else sandbox
    said = b""
    async with asyncio.timeout(20):
        while not said:
            await bot(minded)
            said = (await process.read(1, 6, ack=0, wait=0.5)).data
    assert said == b"hello from the host\n"


# Lives


SPAWN = """
    import asyncio, sys, time
    from pathlib import Path
    from bot.models import Launch
    from sandbox.bubblewrap import Options
    from sandbox.isolation import Bubblewrap
    from sandbox.local import LocalProvider

    async def main():
        provider = LocalProvider(Path(sys.argv[1]), Bubblewrap(Options(), allow=()))
        sandbox = await provider.create({})
        launch = Launch(("sh", "-c", "echo one; read line; echo $line"), sandbox.home)
        await sandbox.spawn("p", launch, fence=1, orphan_after=60)
        print(sandbox.id, flush=True)
        time.sleep(600)

    asyncio.run(main())
"""


async def test_an_agent_outlives_a_killed_bot(create: Create, tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SPAWN), str(tmp_path / "sandboxes")]
    bot = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert bot.stdout is not None
    id = (await bot.stdout.readline()).decode().strip()
    os.killpg(bot.pid, signal.SIGKILL)
    await bot.wait()
    sandbox = await make(tmp_path / "sandboxes").get(id)
    process = await sandbox.attach("p", fence=2)
    await process.write(0, b"two\n")
    out = b""
    while not (chunk := await process.read(1, len(out), ack=0, wait=20)).eof:
        out += chunk.data
    assert out + chunk.data == b"one\ntwo\n"


STARTING = """
    import asyncio, sys
    from pathlib import Path
    from bot.models import Launch
    from sandbox.bubblewrap import Options
    from sandbox.isolation import Bubblewrap
    from sandbox.local import LocalProvider

    async def main():
        provider = LocalProvider(Path(sys.argv[1]), Bubblewrap(Options(), allow=()))
        sandbox = await provider.create({})
        await sandbox.run(Launch(("true",), sandbox.home))
        print(sandbox.id, flush=True)
        launch = Launch(("sh", "-c", "setsid sleep 600 & sleep 600"), sandbox.home)
        await asyncio.gather(*(sandbox.run(launch, timeout=600) for _ in range(6)))

    asyncio.run(main())
"""


@pytest.mark.parametrize("after", [0.02, 0.1])
@pytest.mark.usefixtures("create")  # which deletes what is made in that directory
async def test_short_programs_do_not_outlive_a_bot_that_is_killed_while_it_starts_them(
    tmp_path: Path, after: float
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(STARTING), str(tmp_path / "sandboxes")]
    bot = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert bot.stdout is not None
    id = (await bot.stdout.readline()).decode().strip()
    await asyncio.sleep(after)  # not for luck: each is another moment of their start
    bot.kill()  # alone: what it started has no other reason to end
    await bot.wait()
    boxes = re.compile(rf"bwrap\0.*/{id}/home\0".encode(), re.DOTALL)

    def left() -> list[str]:
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if boxes.match((directory / "cmdline").read_bytes()):
                    found.append(directory.name)
        return found

    async with asyncio.timeout(20):
        while left():  # noqa: ASYNC110 others end
            await asyncio.sleep(0.02)


async def test_a_start_that_is_cancelled_half_way_is_found_to_be_ended(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    launch = Launch(("cat",), sandbox.home)
    starting = asyncio.ensure_future(sandbox.spawn("p", launch, fence=1, orphan_after=60))
    while not list(tmp_path.glob("sandboxes/local-*/spool/p")):  # noqa: ASYNC110 another process makes it
        await asyncio.sleep(0.001)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    process = await sandbox.attach("p", fence=1)
    await process.signal("KILL")
    while (await process.status()).running:  # noqa: ASYNC110 another process ends
        await asyncio.sleep(0.01)


# Where it cannot work


async def test_a_missing_bubblewrap_is_named_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProviderUnavailable, match="apt install bubblewrap"):
        await make(tmp_path / "sandboxes").check()


def test_a_machine_without_user_namespaces_is_named_with_its_mend(tmp_path: Path) -> None:
    """In a box that forbids them, which is as near as a test comes to such a machine."""
    check = """
        import asyncio, sys
        from pathlib import Path
        from sandbox.bubblewrap import Options
        from sandbox.isolation import Bubblewrap
        from sandbox.local import LocalProvider
        asyncio.run(LocalProvider(Path(sys.argv[1]), Bubblewrap(Options(), ())).check())
    """
    box = ["bwrap", "--unshare-user", "--disable-userns", "--bind", "/", "/", "--dev", "/dev", "--"]
    done = subprocess.run(
        [*box, sys.executable, "-c", textwrap.dedent(check), str(tmp_path / "sandboxes")],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"ProviderUnavailable: Local sandboxes do not work here: bwrap: " in done.stderr
    assert b"namespace" in done.stderr.splitlines()[-1]


def test_each_kernel_switch_has_its_mend(tmp_path: Path) -> None:
    switch = tmp_path / "max_user_namespaces"
    switch.write_text("0\n")
    assert mend("bwrap: No permissions", [(str(switch), "0", "sysctl -w it=1")]) == "sysctl -w it=1"
    assert "0.8" in mend("bwrap: Unknown option --disable-userns", [])
    assert "container" in mend("bwrap: Creating new namespace failed: Operation not permitted", [])


def test_running_without_isolation_says_so(tmp_path: Path) -> None:
    assert make(tmp_path / "a").warning == ""
    assert "without isolation" in LocalProvider(tmp_path / "b", Unisolated()).warning


# The same for a bot that is not root


@pytest.mark.timeout(420)  # it is two files of tests
@pytest.mark.skipif(os.geteuid() != 0, reason="this run is unprivileged already")
@pytest.mark.timeout(450)
def test_all_of_this_holds_for_an_unprivileged_bot() -> None:
    here = Path(__file__).resolve()
    assert passed_by_nobody(here, here.with_name("test_local_hardening.py"), within=400)
