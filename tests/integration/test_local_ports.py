"""A server in a box, looked at from outside of it; and what an agent must not make of that."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from bot.errors import SandboxError
from bot.models import Launch
from bot.ports import Process
from bot.workspace import own_directory
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap, Isolation, Unisolated
from sandbox.local import LocalProvider, LocalSandbox
from sandbox.local_ports import LocalPorts
from sandbox.port_ways import CONNECTIONS
from tests.boxes import must_work

# Runs a server and shares its port, as an agent would.
SERVING = """
cd "$HOME" && echo 'hello from the box' >page.txt
python3 -m http.server "$1" --bind 127.0.0.1 >&2 &
up='import socket; socket.create_connection(("127.0.0.1", int(__import__("sys").argv[1])))'
until python3 -c "$up" "$1" 2>/dev/null; do sleep 0.1; done
"""
SHARING = """
python3 "$SANDPIPER_PROGRAMS/mcp_call.py" share_port "{\\"port\\": $1}" /bin/sh "$2/serve"
"""


def own(sandbox: LocalSandbox) -> str:
    return own_directory(sandbox, "1a2b3c4d-5e6f")


def beside(sandbox: LocalSandbox, port: int, script: str) -> Launch:
    """A script with side tools beside it. Its directory is its own also where nothing is isolated."""
    directory = f"/tmp/tools-{secrets.token_hex(4)}"
    run = 'exec python3 "$SANDPIPER_PROGRAMS/side_tools.py" "$2" "$4" share_port sh -c "$3" agent "$1" "$2"'
    words = ("/bin/sh", "-c", run, "tools", str(port), directory, script, f"{own(sandbox)}/shared")
    return Launch(words, "/", visible=(f"{sandbox.workspaces}/1a2b3c4d",))


def serving(sandbox: LocalSandbox, port: int) -> Launch:
    return beside(sandbox, port, f"{SERVING}{SHARING}wait\n")


@pytest.fixture(params=["boxed", "unsafe"])
async def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalSandbox]:
    isolation: Isolation = Unisolated() if request.param == "unsafe" else Bubblewrap(Options(), allow=())
    provider = LocalProvider(tmp_path / "sandboxes", isolation, ports=LocalPorts("127.0.0.1"))
    await must_work(provider, request.param)
    sandbox = await provider.create({})
    yield sandbox
    await sandbox.delete()
    await provider.close()


@pytest.fixture
def port() -> int:
    """One that is free; where nothing is isolated, the box's ports are this machine's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def line(process: Process) -> bytes:
    heard = b""
    async with asyncio.timeout(60):
        while b"\n" not in heard:
            heard += (await process.read(1, len(heard), ack=0, wait=10)).data
    return heard.split(b"\n")[0]


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


async def test_people_reach_a_server_in_the_box(sandbox: LocalSandbox, port: int) -> None:
    process = await sandbox.spawn("agent", serving(sandbox, port), fence=1, orphan_after=60)
    path = json.loads(await line(process))["arguments"]["path"]
    url = (await sandbox.expose(port, path)).url
    assert (await get(f"{url}page.txt")).text == "hello from the box\n"
    several = await asyncio.gather(*(get(f"{url}page.txt") for _ in range(20)))
    assert {answer.status_code for answer in several} == {200}
    assert (await get(f"{url}nothing")).status_code == 404
    # Again, as after a restart of the bot: another way, and the earlier one is no more.
    again = (await sandbox.expose(port, path)).url
    assert (await get(f"{again}page.txt")).status_code == 200
    await sandbox.conceal(path)
    await sandbox.conceal(path)
    for gone in (url, again):
        with pytest.raises(httpx.TransportError):
            await get(gone)


async def test_a_way_ends_with_its_program(sandbox: LocalSandbox, port: int) -> None:
    process = await sandbox.spawn("agent", serving(sandbox, port), fence=1, orphan_after=60)
    path = json.loads(await line(process))["arguments"]["path"]
    url = (await sandbox.expose(port, path)).url
    await process.signal("KILL")
    while not (await process.read(1, 0, ack=0, wait=10)).eof:
        pass
    with pytest.raises(httpx.TransportError):
        await get(url)


async def test_a_port_that_nobody_serves_is_not_shared(sandbox: LocalSandbox, port: int) -> None:
    done = await sandbox.run(beside(sandbox, port, SHARING))
    assert done.code == 1 and done.out.startswith(b"Not shared: ")


def listening(directory: Path, name: str) -> socket.socket:
    """By the directory's descriptor: its path is longer than a socket's may be."""
    listener = socket.socket(socket.AF_UNIX)
    fd = os.open(directory, os.O_PATH)
    listener.bind(f"/proc/self/fd/{fd}/{name}")
    os.close(fd)
    listener.listen()
    return listener


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Path]:
    """A socket of this machine's that is none of the agent's business."""
    listener = listening(tmp_path, "private.sock")
    yield tmp_path / "private.sock"
    listener.close()


def workspace_of(sandbox: LocalSandbox, tmp_path: Path) -> Path:
    directory = tmp_path / "sandboxes" / sandbox.id / "workspaces" / "1a2b3c4d"
    directory.mkdir(exist_ok=True)
    return directory


async def test_a_link_is_no_way_to_another_socket(
    sandbox: LocalSandbox, another: Path, tmp_path: Path
) -> None:
    shared = workspace_of(sandbox, tmp_path) / ".sandpiper" / "shared"
    shared.mkdir(parents=True)
    (shared / "0123456789abcdef").symlink_to(another)
    with pytest.raises(SandboxError):
        await sandbox.expose(80, f"{own(sandbox)}/shared/0123456789abcdef")


async def test_a_link_on_the_way_is_none_either(sandbox: LocalSandbox, another: Path, tmp_path: Path) -> None:
    (workspace_of(sandbox, tmp_path) / ".sandpiper").symlink_to(another.parent)
    with pytest.raises(SandboxError):
        await sandbox.expose(80, f"{own(sandbox)}/private.sock")
    with pytest.raises(SandboxError):
        await sandbox.expose(80, f"{sandbox.workspaces}/../../../private.sock")
    with pytest.raises(SandboxError):
        await sandbox.expose(80, str(another))


async def test_a_socket_that_becomes_a_link_later_leads_nowhere(
    sandbox: LocalSandbox, port: int, another: Path, tmp_path: Path
) -> None:
    process = await sandbox.spawn("agent", serving(sandbox, port), fence=1, orphan_after=60)
    path = json.loads(await line(process))["arguments"]["path"]
    url = (await sandbox.expose(port, path)).url
    here = workspace_of(sandbox, tmp_path).parent / path.removeprefix(f"{sandbox.workspaces}/")
    here.unlink()
    here.symlink_to(another)
    with pytest.raises(httpx.TransportError):
        await get(url)


async def test_what_all_sessions_could_listen_in_the_place_of_is_not_shared(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    home = tmp_path / "sandboxes" / sandbox.id / "home"
    with listening(home, "way"), pytest.raises(SandboxError, match="no session's workspace"):
        await sandbox.expose(80, f"{sandbox.home}/way")


async def test_connections_are_counted_and_end_with_the_way(tmp_path: Path) -> None:
    with listening(tmp_path, "way") as server:
        server.listen(CONNECTIONS + 10)
        ports = LocalPorts("127.0.0.1")
        url = (await ports.expose(tmp_path, "way")).url
        port = int(url.rstrip("/").rpartition(":")[2])
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        async with asyncio.timeout(20):
            for _, near_out in held:  # all of them lead somewhere
                near_out.write(b"x")
                await near_out.drain()
            one_more, out = await asyncio.open_connection("127.0.0.1", port)
            assert await one_more.read() == b"", "it was kept waiting"
            out.close()
            await ports.conceal(tmp_path / "way")
            for near_in, near_out in held:
                assert await near_in.read() == b""
                near_out.close()


async def test_where_nobody_named_an_address_no_port_is_shared(tmp_path: Path) -> None:
    with pytest.raises(SandboxError) as refused:
        await LocalPorts().expose(tmp_path, "x")
    assert "SANDPIPER_SANDBOX_PORTS_HOST" in str(refused.value)


async def test_an_address_of_another_machine_is_no_address(tmp_path: Path) -> None:
    with listening(tmp_path, "way"), pytest.raises(SandboxError) as refused:
        await LocalPorts("192.0.2.1").expose(tmp_path, "way")
    assert "SANDPIPER_SANDBOX_PORTS_HOST" in str(refused.value)
