"""A server in a box that one person looks at: through the gate, the entrance and the box's walls."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bot.errors import SandboxError
from bot.models import Launch
from bot.ports import Guard
from bot.workspace import own_directory
from sandbox.bubblewrap import PROXY_PORT, Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider, LocalSandbox
from sandbox.local_ports import LocalPorts
from tests.boxes import must_work
from tests.port_people import browser

PORT = 3000
SESSION = "1a2b3c4d"
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{self.path} {self.headers.get('cookie')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        self.path = self.rfile.read(int(self.headers["content-length"])).decode()
        self.do_GET()
    def log_message(self, *args):
        print("asked", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def may() -> str:
    return ""


def guard(seconds: float = 3600.0) -> Guard:
    return Guard(seconds, may, "Port 3000, for Ana.")


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[LocalSandbox]:
    ports = LocalPorts("127.0.0.1")
    provider = LocalProvider(tmp_path / "sandboxes", Bubblewrap(Options(), allow=()), ports=ports)
    await must_work(provider, "bubblewrap")
    sandbox = await provider.create({})
    yield sandbox
    await sandbox.delete()
    await provider.close()


@contextlib.asynccontextmanager
async def serving(sandbox: LocalSandbox) -> AsyncIterator[str]:
    """An agent that serves; the entrance of its launch."""
    entrance = f"{own_directory(sandbox, SESSION)}/shared/at-1-1"
    seen = (f"{sandbox.workspaces}/{SESSION}",)
    launch = Launch(("python3", "-c", SERVER, str(PORT)), "/", visible=seen, entrance=entrance)
    process = await sandbox.spawn("turn-1-1", launch, fence=1, orphan_after=600.0)
    try:
        yield entrance
    finally:
        await process.signal("KILL")


async def shown(sandbox: LocalSandbox, entrance: str, guard: Guard) -> str:
    """The link, as soon as the server is there."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(SandboxError):
                return (await sandbox.expose(PORT, "", entrance=entrance, guard=guard)).url
            await asyncio.sleep(0.05)


async def test_whoever_opens_the_link_sees_what_the_agent_serves_and_nobody_else_does(
    sandbox: LocalSandbox,
) -> None:
    async with serving(sandbox) as entrance, browser() as mine, browser() as other:
        link = await shown(sandbox, entrance, guard())
        base = link.partition("/.sandpiper")[0]
        assert (await other.get(f"{base}/")).status_code == 403
        assert (await mine.get(link)).status_code == 200
        page = await mine.post(link, follow_redirects=True)
        assert (page.status_code, page.text) == (200, "/ None")
        assert (await mine.get(f"{base}/a?b=c")).text == "/a?b=c None"
        assert (await mine.post(f"{base}/", content=b"/said" * 50_000)).text == "/said" * 50_000 + " None"
        for answer in (await other.get(f"{base}/a"), await other.post(link)):
            assert answer.status_code in (403, 410)
        await sandbox.conceal(entrance)
        with pytest.raises(httpx.TransportError):
            await mine.get(f"{base}/")


async def test_one_connection_carries_one_request(sandbox: LocalSandbox) -> None:
    async with serving(sandbox) as entrance, browser() as mine:
        link = await shown(sandbox, entrance, guard())
        host, _, port = link.removeprefix("http://").partition("/")[0].partition(":")
        cookie = (await mine.post(link)).headers["set-cookie"].partition(";")[0]
        reader, writer = await asyncio.open_connection(host, int(port))
        one = f"GET /one HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n"
        writer.write(f"{one}GET /two HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n".encode())
        answered = await asyncio.wait_for(reader.read(-1), 30)
        writer.close()
        assert b"/one None" in answered and b"/two" not in answered and answered.count(b"HTTP/1.1 200") == 1
        assert b"\r\nConnection: close\r\n" in answered, "or the browser would send the next one there"


async def test_a_preview_ends_with_its_time(sandbox: LocalSandbox) -> None:
    async with serving(sandbox) as entrance, browser() as mine:
        link = await shown(sandbox, entrance, guard(0.2))
        async with asyncio.timeout(20):
            with pytest.raises(httpx.TransportError):
                while True:
                    await mine.get(link)
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("port", [PORT + 1, PROXY_PORT])
async def test_where_nothing_of_the_agents_listens_is_said(sandbox: LocalSandbox, port: int) -> None:
    async with serving(sandbox) as entrance:
        await shown(sandbox, entrance, guard())
        with pytest.raises(SandboxError, match=f"Nothing listens on port {port}"):
            await sandbox.expose(port, "", entrance=entrance, guard=guard())


async def test_without_a_turn_nothing_is_served(sandbox: LocalSandbox) -> None:
    with pytest.raises(SandboxError, match="end with their turn"):
        await sandbox.expose(PORT, "", guard=guard())


async def test_an_entrance_that_leads_out_of_the_box_is_not_taken(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    ours = tmp_path / "ours.sock"
    server = await asyncio.start_unix_server(lambda reader, writer: writer.write(b"+"), str(ours))
    async with server:
        seen = f"{sandbox.workspaces}/{SESSION}"
        entrance = f"{seen}/at"
        await sandbox.run(Launch(("ln", "-s", str(ours), entrance), "/", visible=(seen,)))
        with pytest.raises(SandboxError, match="no server behind"):
            await sandbox.expose(PORT, "", entrance=entrance, guard=guard())
