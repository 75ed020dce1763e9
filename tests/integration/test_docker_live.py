"""What a real engine makes of what it is asked for. SANDPIPER_TEST_DOCKER=<image> runs it, on the engine of
SANDPIPER_DOCKER_HOST; the image needs python3 and git."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.models import Launch
from sandbox.cgroups import Limits
from sandbox.container import Engine
from sandbox.container_sandbox import DockerSandbox
from sandbox.docker import DockerProvider
from tests.docker_engine import LIVE_HOST, LIVE_IMAGE, leave_no_disk

pytestmark = [
    pytest.mark.skipif(
        not LIVE_IMAGE, reason="SANDPIPER_TEST_DOCKER names no image to try on a Docker engine"
    ),
    pytest.mark.timeout(600),
]

LIMITS = Limits(memory=256 << 20, pids=100, cpus=1)
HOG = "held = []\nwhile True: held.append(bytearray(1 << 24))"
FORKS = """
import os, time
made = 0
try:
    while made < 1000:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError:
    print(made)
"""
ASK = """
import urllib.request
try:
    urllib.request.urlopen("https://denied.example", timeout=20)
except OSError as error:
    print(error)
"""


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[DockerProvider]:
    engine = Engine(LIVE_HOST, LIVE_IMAGE, limits=LIMITS)
    mark = f"sandpiper-test-{secrets.token_hex(4)}"
    provider = DockerProvider(tmp_path / "docker", engine, allow=("allowed.example:443",), mark=mark)
    await provider.check()
    yield provider
    for sandbox in await provider.find({}):
        await sandbox.delete()
    await leave_no_disk(provider)
    await provider.close()


@pytest.fixture
async def sandbox(provider: DockerProvider) -> DockerSandbox:
    return await provider.create({"person": "ana"})


async def said(sandbox: DockerSandbox, *argv: str) -> str:
    result = await sandbox.run(Launch(argv, cwd=sandbox.home), timeout=120)
    return (result.out + result.err).decode()


async def test_a_program_has_no_rights_and_gets_none(sandbox: DockerSandbox) -> None:
    status = dict(
        line.split(":", 1) for line in (await said(sandbox, "cat", "/proc/self/status")).splitlines()
    )
    assert all(int(status[name], 16) == 0 for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    assert status["Uid"].split() == ["1000"] * 4 and status["Groups"].split() in ([], ["1000"])


@pytest.mark.parametrize(
    "attack",
    [
        "echo x >/usr/bin/x",
        "echo x >/etc/x",
        "echo x >/run/sandpiper/out/x",
        "rm -f /run/sandpiper/out/proxy.sock",
        "mount -t tmpfs none /mnt",
        "unshare --user true",
        "cat /proc/1/mem",
        "echo 1 >/proc/sys/kernel/panic",
        "cat /proc/kcore",
        "mknod /tmp/disk b 8 0",
        "ls /var/run/docker.sock",
    ],
)
async def test_what_is_not_allowed_fails(sandbox: DockerSandbox, attack: str) -> None:
    result = await sandbox.run(Launch(("sh", "-c", attack), cwd=sandbox.home))
    assert result.code != 0, result.out.decode()


async def test_there_is_no_network_but_loopback_and_the_proxy_tells_whom_it_refused(
    sandbox: DockerSandbox,
) -> None:
    devices = (await said(sandbox, "cat", "/proc/net/dev")).splitlines()[2:]
    assert [line.partition(":")[0].strip() for line in devices] == ["lo"]
    assert "403" in await said(sandbox, "python3", "-c", ASK)
    assert [host.host for host in await sandbox.denied_hosts(0)] == ["denied.example:443"]


TALK = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20) as link:
    link.sendall(b"hello")
    print(link.recv(100).decode())
"""


async def test_a_service_of_this_machine_that_is_named_is_reached_and_no_other(
    sandbox: DockerSandbox,
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        launch = Launch(("python3", "-c", TALK, str(port)), sandbox.home)
        assert b"refused" in (await sandbox.run(launch)).err
        for _ in range(2):
            assert (await sandbox.run(replace(launch, loopback=(port,)))).out == b"hello\n"


async def test_who_takes_too_much_memory_is_killed_and_counted(sandbox: DockerSandbox) -> None:
    before = await sandbox.memory_kills("hog")
    hog = Launch(("python3", "-c", HOG), cwd=sandbox.home)
    process = await sandbox.spawn("hog", hog, fence=1, orphan_after=120)
    while not (await process.read(1, 0, ack=0, wait=20)).eof:
        pass
    assert (await process.status()).exit_code == 137
    assert await sandbox.memory_kills("hog") > before
    assert await said(sandbox, "echo", "on") == "on\n"


async def test_an_idle_container_ends_itself_and_one_in_which_something_runs_does_not(
    sandbox: DockerSandbox, provider: DockerProvider
) -> None:
    process = await sandbox.spawn("agent", Launch(("cat",), sandbox.home), fence=1, orphan_after=120)
    (room,) = await provider.volume_box(sandbox.id, {}).rooms()
    assert not await room.end_if_idle(0) and (await process.status()).running
    await process.signal("KILL")
    while not (await process.read(1, 0, ack=0, wait=20)).eof:
        pass
    assert not await room.end_if_idle(60), "something ran there just now"
    assert await room.end_if_idle(0)
    await room.remove(running=False)
    assert await said(sandbox, "echo", "on") == "on\n"


async def test_who_makes_too_many_processes_makes_no_more(sandbox: DockerSandbox) -> None:
    made = int((await said(sandbox, "python3", "-c", FORKS)).split()[0])
    assert 10 < made < LIMITS.pids


async def test_the_door_is_used(sandbox: DockerSandbox, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await said(sandbox, "echo", "on") == "on\n"
    assert not [one for one in caplog.records if "the door" in one.message]


async def test_no_container_sees_anothers_home(provider: DockerProvider, sandbox: DockerSandbox) -> None:
    await said(sandbox, "sh", "-c", "echo mine >~/note")
    other = await provider.create({"person": "bo"})
    assert "note" not in await said(other, "sh", "-c", "find / -name note -not -path '/proc/*' 2>/dev/null")
