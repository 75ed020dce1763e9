"""Servers that agents have in boxes, and the people who look at them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx

from bot.errors import SandboxError
from bot.models import Launch
from bot.ports import Guard, Link, Sandbox
from bot.workspace import own_directory

# Says what it was asked and with which headers. A POST is answered with its body.
SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.say(json.dumps({"path": self.path, "headers": dict(self.headers)}).encode())
    def do_POST(self):
        self.say(self.rfile.read(int(self.headers["content-length"])))
    def say(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Person:
    """Whom a port is shown to. refusal: why they may not see it (any more)."""

    def __init__(self) -> None:
        self.refusal = ""
        self.asked = 0

    async def _refused(self) -> str:
        self.asked += 1
        return self.refusal

    def guard(self, seconds: float = 3600.0) -> Guard:
        return Guard(seconds, self._refused, "A port, for Ana.")


@contextlib.asynccontextmanager
async def serving(sandbox: Sandbox, port: int, program: str = SERVER) -> AsyncIterator[str]:
    """An agent that serves; the entrance of its launch."""
    entrance = f"{own_directory(sandbox, '1a2b3c4d')}/shared/at-1-1"
    seen = (f"{sandbox.workspaces}/1a2b3c4d",)
    launch = Launch(("python3", "-c", program, str(port)), sandbox.home, visible=seen, entrance=entrance)
    process = await sandbox.spawn(f"turn-{secrets.token_hex(4)}", launch, fence=1, orphan_after=600.0)
    try:
        yield entrance
    finally:
        with contextlib.suppress(SandboxError):
            await process.signal("KILL")


async def shown(sandbox: Sandbox, port: int, entrance: str, guard: Guard) -> Link:
    """A link, as soon as the server is there."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await sandbox.expose(port, "", entrance=entrance, guard=guard)
            except SandboxError as error:
                if "listens on port" not in str(error) and "no server behind" not in str(error):
                    raise
            await asyncio.sleep(0.05)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            if await true():
                return
            await asyncio.sleep(0.01)


def browser() -> httpx.AsyncClient:
    """Says of what it sends that it is of the same server's page."""

    async def say(request: httpx.Request) -> None:
        if request.method not in ("GET", "HEAD"):
            request.headers["Origin"] = str(request.url.copy_with(raw_path=b"/")).rstrip("/")

    return httpx.AsyncClient(trust_env=False, timeout=20, event_hooks={"request": [say]})


async def opened(browser: httpx.AsyncClient, link: Link) -> httpx.Response:
    """What is at a link, after the button of a gate."""
    if link.bearer:
        return await browser.get(link.url)
    return await browser.post(link.url, follow_redirects=True)


async def leads(browser: httpx.AsyncClient, url: str) -> bool:
    """Whether something of the box is still to be seen there."""
    try:
        return (await browser.get(url)).status_code == 200
    except httpx.TransportError:
        return False
