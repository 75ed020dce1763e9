"""What a local sandbox's system call filter refuses, and how its limits hold. Run as this user, and (by
test_local_isolation.py) as an unprivileged one."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable
from bot.models import Launch
from sandbox.cgroups import Groups, Limits
from sandbox.local import LocalSandbox
from sandbox.seccomp import ARCHITECTURES, CLONE3, COMMON, X32
from tests.boxes import cannot_be_tested
from tests.local_boxes import attempt, make, sh

MACHINE = platform.machine()
Create = Callable[..., Awaitable[LocalSandbox]]


@pytest.fixture
async def create(tmp_path: Path) -> AsyncIterator[Create]:
    """Make a sandbox with these limits."""
    made = []

    async def create(**limits: float) -> LocalSandbox:
        provider = make(tmp_path / "sandboxes", together=Limits(**limits))  # type: ignore[arg-type]
        made.append(await provider.create({}))
        return made[-1]

    yield create
    for sandbox in made:
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


# The filter

filtered = pytest.mark.skipif(MACHINE not in ARCHITECTURES, reason="there is no filter for this machine")
on_x86 = pytest.mark.skipif(MACHINE != "x86_64", reason="only x86-64 has these")

CALL = """
    import ctypes, errno, sys
    libc = ctypes.CDLL(None, use_errno=True)
    for number in map(int, sys.argv[1:]):
        result = libc.syscall(number, 0, 0, 0, 0, 0, 0)
        print(number, errno.errorcode[ctypes.get_errno()] if result == -1 else "done")
"""


async def called(sandbox: LocalSandbox, *numbers: int) -> dict[int, str]:
    """What becomes of system calls."""
    words = (str(number) for number in numbers)
    said = await sh(sandbox, 'script=$1; shift; python3 -c "$script" "$@"', textwrap.dedent(CALL), *words)
    return {int(number): word for number, word in (line.split() for line in said.splitlines())}


@filtered
async def test_system_calls_that_no_agent_needs_are_refused(sandbox: LocalSandbox) -> None:
    calls = {**ARCHITECTURES[MACHINE].refused, **COMMON}
    assert await called(sandbox, *calls.values()) == dict.fromkeys(calls.values(), "EPERM")
    assert await called(sandbox, CLONE3) == {CLONE3: "ENOSYS"}


@filtered
async def test_there_are_no_nested_namespaces(sandbox: LocalSandbox) -> None:
    for what in ("--user", "--net", "--mount", "--pid", "--user --map-root-user"):
        refused = await attempt(sandbox, f"unshare {what} true")
        assert b"Operation not permitted" in refused.err, what
    assert (await attempt(sandbox, "bwrap --ro-bind / / true 2>/dev/null")).code != 0
    clone = "import ctypes, sys; print(ctypes.CDLL(None).syscall(int(sys.argv[1]), 0x10000011, 0, 0, 0, 0))"
    number = str(ARCHITECTURES[MACHINE].clone)
    assert await sh(sandbox, 'python3 -c "$1" "$2"', clone, number) == "-1"


@filtered
async def test_nothing_is_typed_into_a_terminal(sandbox: LocalSandbox) -> None:
    script = "import fcntl, pty, termios; fcntl.ioctl(pty.openpty()[1], termios.TIOCSTI, b'x')"
    assert b"PermissionError" in (await attempt(sandbox, 'python3 -c "$1"', script)).err


@filtered
@pytest.mark.parametrize("family", ["AF_VSOCK", "AF_PACKET", "AF_ALG", "AF_BLUETOOTH"])
async def test_no_sockets_but_the_common_ones(sandbox: LocalSandbox, family: str) -> None:
    script = "import socket, sys; socket.socket(getattr(socket, sys.argv[1]), socket.SOCK_RAW)"
    assert b"PermissionError" in (await attempt(sandbox, 'python3 -c "$1" "$2"', script, family)).err


INT_80 = """
    import ctypes, mmap
    code = mmap.mmap(-1, 4096, prot=7)
    code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20 (getpid); int 0x80; ret
    print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
"""


@on_x86
async def test_the_entry_point_for_32_bits_is_shut(sandbox: LocalSandbox) -> None:
    killed = await attempt(sandbox, 'exec python3 -c "$1"', textwrap.dedent(INT_80))
    assert killed.code == 128 + 31, "by SIGSYS"


@on_x86
async def test_the_entry_point_of_x32_is_shut(sandbox: LocalSandbox) -> None:
    getpid = X32 | 39
    assert await called(sandbox, getpid) == {getpid: "ENOSYS"}


@pytest.mark.parametrize(
    ("program", "script", "said"),
    [
        ("git", "git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x"
         " && git log --format=%s", "x"),
        ("node", "node -e 'const w = require(\"worker_threads\");"
         " const code = \"console.log(require(\\\"os\\\").networkInterfaces().lo.length)\";"
         " new w.Worker(code, {eval: true})' | grep -c .", "1"),
        ("python3", "python3 -c 'import multiprocessing as m;"
         " print(m.get_context(\"fork\").Pool(2).map(abs, [-1, -2]))'", "[1, 2]"),
        ("gcc", "echo 'int main() { return 0; }' >a.c && gcc a.c && ./a.out && echo built", "built"),
        ("strace", "strace -o trace true && tail -1 trace", "+++ exited with 0 +++"),
        ("go", "printf 'package main\nfunc main() { println(1) }\n' >a.go && go run a.go 2>&1", "1"),
        ("/usr/lib/chromium/chromium", "/usr/lib/chromium/chromium --headless --no-sandbox --disable-gpu"
         " --dump-dom 'data:text/html,<script>document.write(1+1)</script>' 2>/dev/null"
         " | grep -o 2.*y", "2</body"),
    ],
)  # fmt: skip
async def test_what_agents_use_still_works(
    sandbox: LocalSandbox, program: str, script: str, said: str
) -> None:
    if shutil.which(program, path="/usr/bin:/bin") is None:
        pytest.skip(f"{program} is not installed")
    assert await sh(sandbox, script) == said


async def test_a_machine_without_a_filter_says_so(tmp_path: Path) -> None:
    provider = make(tmp_path, machine="riscv64")
    assert "no system call filter on riscv64" in provider.warning
    sandbox = await provider.create({})
    assert "Seccomp:\t0" in await sh(sandbox, "cat /proc/self/status")
    await sandbox.delete()


# The limits


def groups_or_skip(**limits: float) -> Groups:
    groups = Groups.here(Limits(**limits))  # type: ignore[arg-type]
    try:
        groups.check()
    except ProviderUnavailable as error:
        pytest.skip(str(error))
    return groups


async def test_a_fork_bomb_hurts_its_own_sandbox_only(create: Create, sandbox: LocalSandbox) -> None:
    if os.geteuid() != 0:  # root's sandboxes have a user each, whose processes are counted without groups
        groups_or_skip(pids=64)
    bombed = await create(pids=64)
    bomb = "import os, time\nfor n in range(200):\n  print(n, flush=True)\n  if not os.fork(): time.sleep(60)"
    process = await bombed.spawn(
        "bomb",
        Launch(("sh", "-c", 'python3 -c "$1"; sleep 60', "sh", bomb), bombed.home),
        fence=1,
        orphan_after=60,
    )
    err = b""
    while b"BlockingIOError" not in err:
        err += (await process.read(2, len(err), ack=0, wait=20)).data
    count = len((await process.read(1, 0, ack=0, wait=20)).data.split())
    assert 40 < count < 64
    assert await sh(sandbox, "echo well") == "well"
    await bombed.stop()
    await bombed.start()
    assert await sh(bombed, "echo well again") == "well again"


async def test_a_memory_hog_is_killed_and_its_sandbox_goes_on(create: Create) -> None:
    groups_or_skip(memory=128 << 20)
    sandbox = await create(memory=128 << 20)
    assert await sandbox.memory_kills("any") == 0
    assert (await attempt(sandbox, "exec python3 -c 'bytearray(1 << 30)'")).code == 128 + 9
    assert await sandbox.memory_kills("any") == 1
    assert await sh(sandbox, "echo well") == "well"


async def test_a_filled_tmp_counts_as_memory(create: Create) -> None:
    groups_or_skip(memory=128 << 20)
    sandbox = await create(memory=128 << 20)
    assert (await attempt(sandbox, "head -c 500000000 /dev/zero >/tmp/big")).code != 0
    assert await sh(sandbox, "ls /tmp; echo well") == "well"


async def test_processor_time_is_shared_out(create: Create) -> None:
    groups_or_skip(cpus=0.2)
    sandbox = await create(cpus=0.2)
    spin = "from time import monotonic, process_time\nend = monotonic() + 1\nwhile monotonic() < end: pass\n"
    spin += "print(process_time())"
    assert float(await sh(sandbox, 'python3 -c "$1"', spin)) < 0.5


async def test_nothing_is_left_of_a_stopped_sandboxs_limits(create: Create) -> None:
    groups = groups_or_skip(memory=256 << 20, cpus=1)
    sandbox = await create(memory=256 << 20, cpus=1)
    await sandbox.spawn("p", Launch(("sleep", "60"), sandbox.home), fence=1, orphan_after=60)
    directories = groups.of(f"sandpiper-{sandbox.id}")
    assert all(directory.is_dir() for directory in directories)
    await sandbox.stop()
    assert not any(directory.exists() for directory in directories)
