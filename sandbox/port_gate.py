"""The gates before ports of sandboxes. That of a preview is opened once, by a link, for one browser; that of
a port which an agent shares is open, and only keeps from it what is the other gates'.

What is behind them was made by agents. It has an origin of its own (a TCP port), but browsers send cookies to
all ports of a host, so no request goes in unlooked at, each connection carries one, and no answer goes out
without saying whose it is.
"""

from __future__ import annotations

import asyncio
import hmac
import html
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bot.ports import Guard

OPEN = "/.sandpiper/open"
COOKIE = "sandpiper_"  # all that begin so are the gates' own
LARGEST_HEAD = 64 * 1024
HEAD_WITHIN = 15.0  # seconds
OPEN_WITHIN = 600.0  # seconds
ASK_EVERY = 30.0  # seconds

_STATUS = {
    200: "OK",
    303: "See Other",
    400: "Bad Request",
    403: "Forbidden",
    410: "Gone",
    411: "Length Required",
    502: "Bad Gateway",
}
# By a policy of no referrer at all, the form would come with an Origin that says nothing.
_OURS = (
    "Content-Security-Policy: default-src 'none'; form-action 'self'; frame-ancestors 'none'\r\n"
    "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n"
    "Referrer-Policy: origin\r\nX-Content-Type-Options: nosniff\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\nConnection: close\r\n"
)
_NOT_PASSED = frozenset(
    {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "cookie", "te", "referer"}
)

_OF_CONNECTIONS = (b"connection", b"keep-alive")
_CORP = b"Cross-Origin-Resource-Policy"
_READ_BY_ITSELF = (_CORP + b": same-origin", b"Content-Security-Policy: frame-ancestors 'self'")
_NO_REFERRER = re.compile(rb"\bno-referrer(?![\w-])", re.IGNORECASE)
_READ_ONLY = ("GET", "HEAD")  # with these browsers send no Origin to a page's own server


class Answer(Exception):
    """What the gate itself says to a request."""

    def __init__(self, status: int, text: str, *, more: str = "", form: str = "") -> None:
        super().__init__(text)
        body = f"<!doctype html><title>Preview</title><p>{html.escape(text)}</p>{form}".encode()
        head = f"HTTP/1.1 {status} {_STATUS[status]}\r\n{_OURS}{more}Content-Length: {len(body)}\r\n\r\n"
        self.bytes = head.encode() + body


@dataclass(frozen=True, slots=True)
class Request:
    """One that goes on: its head without what is the gate's, and how long its body is. upgrade: what follows
    is no HTTP."""

    head: bytes
    length: int
    upgrade: bool


class OpenGate:
    """For whoever comes."""

    async def pass_on(self, reader: asyncio.StreamReader) -> Request:
        """Raises Answer where nothing is passed on, and OSError."""
        method, target, fields = await _asked(reader)
        return _rewritten(method, target, fields, _cookies(fields))

    def pass_back(self, head: bytes) -> bytes:
        """An answer's head as it goes on, or what there is of one that ended early. Raises Answer."""
        return last_on_its_connection(head) if head.endswith(b"\r\n\r\n") else head

    async def goes_on(self) -> bool:
        """Whether what was passed on may stay connected. It is asked now, whenever it was asked before."""
        return True


class Gate(OpenGate):
    """For one person."""

    def __init__(self, guard: Guard, now: Callable[[], float] = time.monotonic) -> None:
        self._guard = guard
        self._now = now
        self._key = secrets.token_urlsafe(24)
        self._name = f"{COOKIE}{secrets.token_hex(8)}"
        self._cookie = ""
        self._made = now()
        self._asked = 0.0
        self._refusal: str | None = None

    @property
    def link(self) -> str:
        return f"{OPEN}?key={self._key}"

    async def pass_on(self, reader: asyncio.StreamReader) -> Request:
        method, target, fields = await _asked(reader)
        _not_from_elsewhere(method, fields)
        path, _, query = target.partition("?")
        if path == OPEN:
            await self._open(method, query)
        cookies = _cookies(fields)
        mine = next((one.partition("=")[2] for one in cookies if one.startswith(f"{self._name}=")), "")
        if not self._cookie or not _same(mine, self._cookie):
            raise Answer(403, "This preview is open for somebody else, or not opened yet. Say preview again.")
        await self._ask()
        return _rewritten(method, target, fields, cookies)

    def pass_back(self, head: bytes) -> bytes:
        """Says that no page but its own may use or frame it, whatever the server says about that, and that
        its own may say to it whose they are."""
        if not head.endswith(b"\r\n\r\n") or not head.startswith(b"HTTP/1.") or _torn(head):
            raise Answer(502, "What the server there answers is no HTTP that can be passed on.")
        return last_on_its_connection(_telling(head), without=(_CORP.lower(),), more=_READ_BY_ITSELF)

    async def _open(self, method: str, query: str) -> None:
        """By a click, since whoever unfolds links in a thread would otherwise open it. Raises Answer."""
        fresh = not self._cookie and self._now() - self._made < OPEN_WITHIN
        if not fresh or not _same(query, f"key={self._key}"):
            raise Answer(410, "This link was opened already, or is too old. Say preview again.")
        if method != "POST":
            form = f'<form method="post" action="{self.link}"><button>Open</button></form>'
            raise Answer(200, self._guard.what, form=form)
        await self._ask()
        if self._cookie:  # another click came first
            raise Answer(410, "This link was opened already. Say preview again.")
        self._cookie = secrets.token_urlsafe(24)
        attributes = f"HttpOnly; SameSite=Lax; Path=/; Max-Age={int(self._guard.seconds)}"
        cookie = f"Set-Cookie: {self._name}={self._cookie}; {attributes}\r\n"
        raise Answer(303, "Opened.", more=f"Location: /\r\n{cookie}")

    async def goes_on(self) -> bool:
        self._refusal = None
        try:
            await self._ask()
        except Answer:
            return False
        return True

    async def _ask(self) -> None:
        """Raises Answer when the person for whom it was made may not (any more)."""
        if self._refusal is None or self._refusal or self._now() - self._asked > ASK_EVERY:
            self._refusal = await self._guard.refusal()
            self._asked = self._now()
        if self._refusal:
            raise Answer(403, self._refusal)


def _telling(head: bytes) -> bytes:
    """By a policy of no referrer at all, forms of the page come with an Origin that says nothing."""
    lines = head.split(b"\r\n")
    for number, line in enumerate(lines):
        name, _, policies = line.partition(b":")
        if name.strip().lower() == b"referrer-policy":
            lines[number] = name + b":" + _NO_REFERRER.sub(b"same-origin", policies)
    return b"\r\n".join(lines)


def last_on_its_connection(head: bytes, without: Sequence[bytes] = (), more: Sequence[bytes] = ()) -> bytes:
    """The head of an answer, which says that the connection ends with it."""
    first, *lines = head[:-4].split(b"\r\n")
    dropped = (*_OF_CONNECTIONS, *without)
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in dropped]
    return b"\r\n".join([first, *kept, *more, b"Connection: close", b"", b""])


async def _asked(reader: asyncio.StreamReader) -> tuple[str, str, list[tuple[str, str]]]:
    try:
        async with asyncio.timeout(HEAD_WITHIN):
            raw = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError) as error:
        raise OSError("that is no request") from error
    return _parsed(raw)


def _cookies(fields: list[tuple[str, str]]) -> list[str]:
    return [pair.strip() for name, value in fields if name == "cookie" for pair in value.split(";")]


def _torn(head: bytes) -> bool:
    """Whether somebody may read another end of lines in it than we."""
    return any(byte in line for line in head.split(b"\r\n") for byte in (b"\r", b"\n", b"\0"))


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def _parsed(raw: bytes) -> tuple[str, str, list[tuple[str, str]]]:
    """Strict, so that nobody behind us reads it otherwise. Raises Answer."""
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[0].isalpha() or not words[1].startswith("/") or words[2] != "HTTP/1.1":
        raise Answer(400, "That is no request that can be passed on.")
    fields = []
    for line in lines:
        name, colon, value = line.partition(":")
        token = name.replace("-", "").replace("_", "")
        if not colon or not (token.isascii() and token.isalnum()) or any(ord(char) < 32 for char in line):
            raise Answer(400, "That is no request that can be passed on.")
        fields.append((name.lower(), value.strip()))
    return words[0], words[1], fields


def _not_from_elsewhere(method: str, fields: list[tuple[str, str]]) -> None:
    """Pages of other origins may link here, and no more: other previews are of the same site as this one, and
    the browser sends them our cookie. It says Origin always, if only `null` where a page hides whose it is,
    and the Sec-Fetch-* to some addresses only. No page can write either."""
    own = [f"http://{host}" for host in _values(fields, "host")]
    origin, sites = _values(fields, "origin"), _values(fields, "sec-fetch-site")
    needed = method not in _READ_ONLY or bool(_values(fields, "upgrade"))
    known = origin == own or (origin == ["null"] and sites == ["same-origin"])
    if (origin or needed) and (len(own) != 1 or not known):
        raise Answer(403, "That request came from another page.")
    linked = method == "GET" and _values(fields, "sec-fetch-mode") == ["navigate"]
    if not linked and any(site not in ("none", "same-origin") for site in sites):
        raise Answer(403, "That request came from another page.")


def _values(fields: list[tuple[str, str]], name: str) -> list[str]:
    return [value for key, value in fields if key == name]


def _rewritten(method: str, target: str, fields: list[tuple[str, str]], cookies: list[str]) -> Request:
    lengths = [value for name, value in fields if name == "content-length"]
    if any(name == "transfer-encoding" for name, _ in fields):
        raise Answer(411, "Send it with a Content-Length.")
    if len(lengths) > 1 or not all(value.isascii() and value.isdecimal() for value in lengths):
        raise Answer(400, "That is no request that can be passed on.")
    upgrade = any(name == "upgrade" for name, _ in fields)
    passed = [f"{name}: {value}" for name, value in fields if name not in _NOT_PASSED]
    passed.append(f"connection: {'upgrade' if upgrade else 'close'}")
    theirs = [cookie for cookie in cookies if cookie and not cookie.startswith(COOKIE)]
    if theirs:
        passed.append(f"cookie: {'; '.join(theirs)}")
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *passed, "", ""])
    return Request(head.encode("latin-1"), int(lengths[0][:15]) if lengths else 0, upgrade)
