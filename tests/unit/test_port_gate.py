"""Who gets through the gate before a preview, and what goes on of what they send."""

from __future__ import annotations

import asyncio
import re

import pytest

from bot.ports import Guard
from sandbox.port_gate import ASK_EVERY, OPEN_WITHIN, Answer, Gate, OpenGate, Request, last_on_its_connection

AUTHORITY = "Host: box.example:4000\r\n"
OWN = "Origin: http://box.example:4000"
ELSEWHERE = (
    "Origin: http://box.example:4001",  # another preview, or a shared port: of the same site
    "Origin: http://box.example",
    "Origin: https://box.example:4000",
    "Origin: http://elsewhere.example",
    "Origin: null",  # a page that hides where it comes from
    "Origin: http://box.example:4000, http://box.example:4001",
    f"{OWN}\r\nOrigin: http://box.example:4001",
    "Origin:",
)


class Door:
    """A gate, and somebody before it."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.refusal = ""
        self.asked = 0
        self.gate = Gate(Guard(3600.0, self._refused, "Port 3000, for <Ana>."), lambda: self.time)

    async def _refused(self) -> str:
        self.asked += 1
        return self.refusal

    async def send(self, raw: str) -> Request:
        reader = asyncio.StreamReader()
        reader.feed_data(raw.encode("latin-1"))
        reader.feed_eof()
        return await self.gate.pass_on(reader)

    async def get(self, target: str = "/", *fields: str, method: str = "GET") -> Request:
        """As a browser sends it for a page of the same origin, if the fields say nothing else of that."""
        said = any(field.startswith("Origin:") for field in fields)
        own = () if method in ("GET", "HEAD") or said else (OWN,)
        head = "".join(f"{field}\r\n" for field in (*own, *fields))
        return await self.send(f"{method} {target} HTTP/1.1\r\n{AUTHORITY}{head}\r\n")

    async def answer(self, target: str = "/", *fields: str, method: str = "GET") -> str:
        with pytest.raises(Answer) as answered:
            await self.get(target, *fields, method=method)
        return answered.value.bytes.decode()

    async def opened(self) -> str:
        """The cookie of the browser that opened it, as it sends it."""
        answer = await self.answer(self.gate.link, method="POST")
        assert answer.startswith("HTTP/1.1 303 ") and "\r\nLocation: /\r\n" in answer
        found = re.search(r"Set-Cookie: (\S+=\S+); HttpOnly; SameSite=Lax; Path=/; Max-Age=3600\r\n", answer)
        assert found is not None
        return found[1]


async def test_nobody_gets_in_before_it_is_opened_or_without_its_cookie() -> None:
    door = Door()
    for cookie in ("", "sandpiper_=", "a=b"):
        assert (await door.answer("/", f"Cookie: {cookie}")).startswith("HTTP/1.1 403 ")
    mine = await door.opened()
    name, _, value = mine.partition("=")
    for cookie in ("", f"{name}=", f"{name}=guess", f"x{name}={value}", f"other={value}"):
        assert (await door.answer("/", f"Cookie: {cookie}")).startswith("HTTP/1.1 403 ")
    assert (await door.get("/app.js?v=1", f"Cookie: {mine}")).head.startswith(b"GET /app.js?v=1 HTTP/1.1\r\n")


async def test_looking_at_the_link_opens_nothing_a_click_does_once() -> None:
    door = Door()
    for _ in range(3):  # whoever unfolds links
        page = await door.answer(door.gate.link)
        assert page.startswith("HTTP/1.1 200 ") and 'method="post"' in page and "&lt;Ana&gt;" in page
        assert "frame-ancestors 'none'" in page and "Cache-Control: no-store" in page
    assert (await door.answer("/.sandpiper/open?key=guess", method="POST")).startswith("HTTP/1.1 410 ")
    assert (await door.answer("/.sandpiper/open", method="POST")).startswith("HTTP/1.1 410 ")
    await door.opened()
    for method in ("GET", "POST"):
        assert (await door.answer(door.gate.link, method=method)).startswith("HTTP/1.1 410 ")


async def test_two_clicks_at_once_open_it_for_one() -> None:
    door = Door()
    both = await asyncio.gather(*(door.answer(door.gate.link, method="POST") for _ in range(2)))
    assert sorted(answer[9:12] for answer in both) == ["303", "410"]


async def test_a_link_that_nobody_opened_ends() -> None:
    door = Door()
    door.time += OPEN_WITHIN + 1
    assert (await door.answer(door.gate.link, method="POST")).startswith("HTTP/1.1 410 ")


async def test_the_person_is_asked_about_when_it_is_opened_and_while_they_look() -> None:
    door = Door()
    door.refusal = "Ana may not."
    assert "403" in (await door.answer(door.gate.link, method="POST"))[:16]
    door.refusal = ""
    mine = await door.opened()
    for _ in range(5):
        await door.get("/", f"Cookie: {mine}")
    assert door.asked == 2, "a page has many parts"
    door.refusal = "<b>not any more"
    door.time += ASK_EVERY + 1
    for _ in range(2):
        answer = await door.answer("/", f"Cookie: {mine}")
        assert answer.startswith("HTTP/1.1 403 ") and "&lt;b&gt;not any more" in answer


async def test_what_is_behind_sees_neither_key_nor_cookie() -> None:
    door = Door()
    mine = await door.opened()
    key = door.gate.link.partition("=")[2]
    request = await door.get(
        "/",
        f"Cookie: theirs=1; {mine}; sandpiper_other=2",
        f"Referer: http://box{door.gate.link}",
        "Accept: a",
    )
    assert b"cookie: theirs=1\r\n" in request.head and b"accept: a\r\n" in request.head
    assert b"connection: close\r\n" in request.head
    assert mine.partition("=")[2].encode() not in request.head and key.encode() not in request.head
    assert b"sandpiper_" not in request.head


@pytest.mark.parametrize(
    "raw",
    [
        "GET / HTTP/1.0\r\n",
        "GET http://elsewhere/ HTTP/1.1\r\n",
        "CONNECT box:22 HTTP/1.1\r\n",
        "GET  / HTTP/1.1\r\n",
        "G\x00T / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\n folded: yes\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n",
        "GET / HTTP/1.1\r\nA: b\nC: d\r\n",
        "GET / HTTP/1.1\r\nName : x\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
    ],
)
async def test_what_could_be_read_in_two_ways_is_not_passed_on(raw: str) -> None:
    door = Door()
    mine = await door.opened()
    with pytest.raises(Answer) as answered:
        await door.send(f"{raw}{AUTHORITY}{OWN}\r\nCookie: {mine}\r\n\r\n")
    assert answered.value.bytes[9:12] in (b"400", b"411")


@pytest.mark.parametrize("raw", ["", "GET / HTTP/1.1\r\n", "x" * 200_000])
async def test_what_is_no_request_is_let_go(raw: str) -> None:
    with pytest.raises(OSError, match="no request"):
        await Door().send(raw)


async def test_pages_of_elsewhere_may_link_to_it_and_no_more() -> None:
    door = Door()
    cookie = f"Cookie: {await door.opened()}"
    await door.get("/", cookie, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
    await door.get("/", cookie, "Sec-Fetch-Site: same-origin", method="POST")
    for site in ("same-site", "cross-site"):  # another preview is of the same site
        for fields in ((), ("Sec-Fetch-Mode: no-cors",)):
            assert "403" in (await door.answer("/", cookie, f"Sec-Fetch-Site: {site}", *fields))[:16]
        field = (f"Sec-Fetch-Site: {site}", "Sec-Fetch-Mode: navigate")
        assert "403" in (await door.answer("/", cookie, *field, method="POST"))[:16]


@pytest.mark.parametrize("origin", ELSEWHERE)
async def test_by_their_origin_pages_of_elsewhere_are_known_at_any_address(origin: str) -> None:
    """To a plain address browsers send no Sec-Fetch-Site."""
    door = Door()
    cookie = f"Cookie: {await door.opened()}"
    upgrade = ("Connection: Upgrade", "Upgrade: websocket")
    for method, fields in (("GET", ()), ("HEAD", ()), ("POST", ()), ("OPTIONS", ()), ("GET", upgrade)):
        answer = await door.answer("/", cookie, origin, *fields, method=method)
        assert answer.startswith("HTTP/1.1 403 ") and "another page" in answer


@pytest.mark.parametrize("site", [(), ("Sec-Fetch-Site: none",), ("Sec-Fetch-Site: same-origin",)])
async def test_what_does_something_says_whose_page_it_is_of(site: tuple[str, ...]) -> None:
    door = Door()
    cookie = f"Cookie: {await door.opened()}"
    for line in ("POST / HTTP/1.1", "DELETE / HTTP/1.1", "GET / HTTP/1.1\r\nUpgrade: websocket"):
        head = "\r\n".join([line, cookie, *site, "Host: box.example:4000"])
        with pytest.raises(Answer) as refused:
            await door.send(f"{head}\r\n\r\n")
        assert refused.value.bytes.startswith(b"HTTP/1.1 403 ")
        await door.send(f"{head}\r\n{OWN}\r\n\r\n")
    for method in ("GET", "HEAD"):  # of which browsers say no origin to a page's own server
        await door.get("/", cookie, *site, method=method)


async def test_a_page_that_sends_no_referrer_is_known_where_the_browser_says_that_it_is_the_same() -> None:
    """By such a page's policy, the Origin of what it sends is `null`. No page can write a Sec-Fetch-Site."""
    door = Door()
    cookie, hidden = f"Cookie: {await door.opened()}", "Origin: null"
    await door.get("/", cookie, hidden, "Sec-Fetch-Site: same-origin", method="POST")
    for more in ((), ("Sec-Fetch-Site: none",), ("Sec-Fetch-Site: same-site",)):
        assert "403" in (await door.answer("/", cookie, hidden, *more, method="POST"))[:16]
    twice = ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: same-site")
    for wrong in (twice, tuple(reversed(twice)), (twice[0], hidden), (twice[0], OWN)):
        assert "403" in (await door.answer("/", cookie, hidden, *wrong, method="POST"))[:16]


@pytest.mark.parametrize("hosts", [(), ("box.example:4000", "box.example:4001")])
async def test_whose_page_it_is_of_is_known_by_one_name_of_the_preview(hosts: tuple[str, ...]) -> None:
    door = Door()
    lines = [f"Cookie: {await door.opened()}", OWN, *(f"Host: {host}" for host in hosts)]
    with pytest.raises(Answer, match="another page"):
        await door.send("\r\n".join(["POST / HTTP/1.1", *lines, "", ""]))


async def test_nobody_elses_page_opens_it() -> None:
    door = Door()
    for origin in ELSEWHERE:
        assert "403" in (await door.answer(door.gate.link, origin, method="POST"))[:16]
    await door.opened()


async def test_a_websocket_goes_through() -> None:
    door = Door()
    cookie = f"Cookie: {await door.opened()}"
    request = await door.get("/ws", cookie, OWN, "Connection: Upgrade", "Upgrade: websocket")
    assert (
        request.upgrade
        and b"connection: upgrade\r\n" in request.head
        and b"upgrade: websocket" in request.head
    )


async def test_a_shared_port_gets_no_cookie_of_a_preview_on_the_same_host() -> None:
    door = Door()
    mine = await door.opened()
    reader = asyncio.StreamReader()
    reader.feed_data(f"GET / HTTP/1.1\r\n{AUTHORITY}Cookie: {mine}; theirs=1\r\n\r\n".encode())
    request = await OpenGate().pass_on(reader)
    assert b"cookie: theirs=1\r\n" in request.head and b"sandpiper_" not in request.head
    assert b"connection: close\r\n" in request.head


def test_an_answer_says_that_it_is_the_last_on_its_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nA: b\r\n\r\n"
    assert last_on_its_connection(head) == b"HTTP/1.1 200 OK\r\nA: b\r\nConnection: close\r\n\r\n"


def test_what_a_preview_answers_is_for_its_own_pages_whatever_its_server_says() -> None:
    head = b"HTTP/1.1 200 OK\r\ncross-origin-resource-policy: cross-origin\r\nA: b\r\n\r\n"
    lines = Door().gate.pass_back(head).split(b"\r\n")
    assert [line for line in lines if b"resource-policy" in line.lower()] == [
        b"Cross-Origin-Resource-Policy: same-origin"
    ]
    assert b"Content-Security-Policy: frame-ancestors 'self'" in lines and b"A: b" in lines
    assert lines[-3:] == [b"Connection: close", b"", b""]
    assert OpenGate().pass_back(head) == last_on_its_connection(head), "a shared port is for everybody"


@pytest.mark.parametrize(
    ("policy", "passed"),
    [
        (b"no-referrer", b"same-origin"),
        (b"No-Referrer ,strict-origin", b"same-origin ,strict-origin"),
        (b"no-referrer-when-downgrade", b"no-referrer-when-downgrade"),
        (b"unsafe-url", b"unsafe-url"),
    ],
)
def test_pages_of_a_preview_say_whose_they_are_to_itself(policy: bytes, passed: bytes) -> None:
    """A browser says no Origin with the forms of a page that sends no referrer."""
    head = b"HTTP/1.1 200 OK\r\nreferrer-policy:%s\r\nA: no-referrer\r\n\r\n"
    lines = Door().gate.pass_back(head % policy).split(b"\r\n")
    assert b"referrer-policy:%s" % passed in lines and b"A: no-referrer" in lines
    assert OpenGate().pass_back(head % policy) == last_on_its_connection(head % policy)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\n\nit ends earlier for some\r\n\r\n",
        b"HTTP/1.1 200 OK\r\rit ends earlier for some\r\n\r\n",
        b"no head at all",
        b"no head at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b",
    ],
)
def test_an_answer_that_could_be_read_in_two_ways_is_not_passed_back(head: bytes) -> None:
    with pytest.raises(Answer, match="no HTTP"):
        Door().gate.pass_back(head)
