"""Previews in a real browser, at a plain address as people have them: over HTTP it says less of where a
request comes from than on localhost. Beside them a page of another port, which another agent made."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Page

from sandbox.port_ways import shown
from tests.e2e.browser import browser, needs_a_browser
from tests.port_people import Person

WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PICTURE = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")

# Tries all that a page may try with what is at `base`, and says in its title what it had of it.
TRIES = """<!doctype html><title>...</title>{meta}<script>
const base = "{base}", had = [];
const element = (name, from) => new Promise((done) => {{
    const one = document.createElement(name);
    one.onload = () => done(had.push(name));
    one.onerror = () => done();
    one.src = base + from;
    document.documentElement.append(one);
}});
const socket = () => new Promise((done) => {{
    const one = new WebSocket(base.replace("http", "ws") + "/socket");
    one.onmessage = (said) => done(had.push("socket"));
    one.onclose = () => done();
}});
const read = (how) => fetch(base + "/secret.js", {{credentials: "include", ...how}})
    .then((answer) => answer.ok || answer.type == "opaque" ? had.push(how.mode) : 0).catch(() => 0);
const write = (how) => fetch(base + "/delete",
    {{method: "POST", mode: "no-cors", credentials: "include", ...how}}).catch(() => 0);
const send = () => new Promise((done) => {{
    document.body.insertAdjacentHTML("beforeend",
        `<iframe name="there"></iframe><form method="post" target="there" action="${{base}}/form"></form>`);
    document.querySelector("iframe").onload = () => done();
    document.forms[0].submit();
}});
if (window == top) (async () => {{
    await Promise.all([
        element("script", "/secret.js"), element("img", "/picture.gif"), socket(), read({{mode: "cors"}}),
        read({{mode: "no-cors"}}), write({{}}),
        write({{referrerPolicy: "no-referrer", headers: {{"Sec-Fetch-Site": "same-origin"}}}}),
    ]);
    await send();
    if (window.secret) had.push("secret");
    document.title = ["had", ...had.sort()].join(" ");
}})();
</script><body></body>"""

FRAMED = """(to) => new Promise((done) => {
    document.body.innerHTML = `<iframe name=framed src=${to}></iframe><a href=${to}>see</a>`;
    document.querySelector("iframe").onload = () => done();
})"""


@dataclass
class App:
    """A development server: a script, a picture, a WebSocket that tells something, requests that do."""

    page: Callable[[], str]
    more: str = ""  # of its answers' heads
    done: list[str] = field(default_factory=list)
    port: int = 0

    @contextlib.asynccontextmanager
    async def serving(self, host: str) -> AsyncIterator[None]:
        async with await asyncio.start_server(self._answer, host, 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = first.split(" ")
            fields = dict(line.lower().split(": ", 1) for line in lines if line)
            if "upgrade" in fields:
                key = next(line for line in lines if line.lower().startswith("sec-websocket-key"))
                word = hashlib.sha1(f"{key.split(': ')[1]}{WEBSOCKET}".encode()).digest()
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + base64.b64encode(word) + b"\r\n\r\n\x81\x06secret"
                )
                await reader.read()
            else:
                if method != "GET":
                    self.done.append(path)
                kind, body = {
                    "/secret.js": ("text/javascript", b"window.secret = 1"),
                    "/picture.gif": ("image/gif", PICTURE),
                }.get(path, ("text/html", self.page().encode()))
                # It says itself that everybody may have it: that counts where nothing is kept from others.
                writer.write(
                    f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                    f"Cross-Origin-Resource-Policy: cross-origin\r\n{self.more}\r\n".encode()
                    + body
                )
        writer.close()


def address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing
        here = str(probe.getsockname()[0])
    here = os.environ.get("SANDPIPER_TEST_ADDRESS") or here
    if here.startswith("127."):
        pytest.skip("this machine has no address but its loopback (SANDPIPER_TEST_ADDRESS)")
    return here


async def said(page: Page) -> str:
    await page.wait_for_function("document.title.startsWith('had')")
    return await page.title()


@needs_a_browser
@pytest.mark.parametrize(
    ("where", "more", "meta"),
    [
        (address, "", ""),
        (address, "Referrer-Policy: no-referrer\r\n", ""),
        # At such an address only, it is said whose page it is all the same.
        (lambda: "127.0.0.1", "", '<meta name="referrer" content="no-referrer">'),
    ],
)
async def test_a_page_of_another_port_has_nothing_of_a_preview_which_has_all_of_itself(
    where: Callable[[], str], more: str, meta: str
) -> None:
    here = where()
    base = ""
    mine, theirs = (App(lambda: TRIES.format(base=base, meta=meta), more) for _ in range(2))
    async with mine.serving("127.0.0.1"), theirs.serving(here), browser() as launched:
        way, link = await shown(
            here, lambda: asyncio.open_connection("127.0.0.1", mine.port), Person().guard()
        )
        base = link.url.partition("/.sandpiper")[0]
        page = await launched.new_page()
        await page.goto(link.url)
        await page.get_by_role("button").click()
        assert await said(page) == "had cors img no-cors script secret socket"
        assert page.url == f"{base}/" and sorted(mine.done) == ["/delete", "/delete", "/form"]

        mine.done.clear()
        await page.goto(f"http://{here}:{theirs.port}/")
        assert (await said(page), mine.done) == ("had", [])
        # A link to it may stand anywhere, but what it leads to is shown in no frame of another page.
        await page.evaluate(FRAMED, base)
        frame = page.frame("framed")
        assert frame is not None and await frame.title() != "..."
        await page.get_by_role("link").click()
        await page.wait_for_url(f"{base}/")
        assert "socket" in await said(page)
        way.close()
