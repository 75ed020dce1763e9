"""Code on demand: git in a sandbox fetches from our mirrors, with a grant, and reads only.

It is git's smart HTTP protocol, version 2 and nothing else of it, by `git upload-pack`. The listener is one
of its own: whoever is led to it finds no other door of ours. Sources: gitprotocol-http(5),
gitprotocol-v2(5), git-upload-pack(1).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import IO

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from handlers.github.git import reading
from handlers.github.grants import Grant, Grants
from handlers.github.mirrors import Mirrors

log = logging.getLogger(__name__)

AT_ONCE = 3  # of one turn: the others of it wait, and nobody else does
MOST_WAITING = 100  # of one turn
LARGEST_REQUEST = 64 * 1024 * 1024  # bytes: the names of a million objects
STALLED = 120.0  # seconds without a byte from or to the sandbox
_CHUNK = 64 * 1024
_PATH = re.compile(r"/([0-9]{1,19})\.git/(info/refs|git-upload-pack)")

# Names below refs/heads are all that is told. By version 2 of the protocol, whoever knows an object's name
# can fetch it wherever it is reached from: so a mirror holds nothing that is not its repository's.
_CONFIG = {
    "uploadpack.allowFilter": "true",
    "transfer.hideRefs": "refs",
    "uploadpack.hideRefs": "!refs/heads",
    "pack.threads": "1",
}

REFUSED = (
    "sandpiper: there is nothing to be had here. Git reads one repository here, as long as a turn runs that "
    "works on it; with the next turn it does again."
)
READ_ONLY = "sandpiper: this is for reading. Commits are pushed by the bot, when the turn has ended."
TOO_OLD = "sandpiper: this wants version 2 of git's protocol, as git has spoken it since 2.26."
TOO_MUCH = "sandpiper: too much is asked for at once in this turn."


class _Answer(Exception):
    """What is answered instead of code."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@dataclass(slots=True)
class _Lane:
    """The requests of one turn."""

    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    requests: int = 0


class Lender:
    """An ASGI application: `/<repository>.git/info/refs` and `…/git-upload-pack`, for who shows its grant.

    is_open: whether a turn has not ended. patience: seconds that one answer may take.
    """

    def __init__(
        self,
        mirrors: Mirrors,
        grants: Grants,
        is_open: Callable[[int], Awaitable[bool]],
        patience: float,
    ) -> None:
        self._mirrors = mirrors
        self._grants = grants
        self._is_open = is_open
        self._patience = patience
        self._lanes: dict[int, _Lane] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            grant, what = await self._allowed(scope)
            async with self._place(grant.turn):
                await self._lend(grant, what, scope, receive, send)
        except _Answer as answer:
            response = PlainTextResponse(f"{answer.text}\n", answer.status)
            await response(scope, receive, send)

    async def _allowed(self, scope: Scope) -> tuple[Grant, str]:
        """Whatever is wrong, who has no good grant hears the same."""
        path, method, headers = scope["path"], scope["method"], Headers(scope=scope)
        grant = self._grants.read(headers.get("authorization", "").removeprefix("Bearer "))
        if grant is None or not await self._is_open(grant.turn):
            raise _Answer(403, REFUSED)  # never 401: git would ask people for a password
        query = scope["query_string"]
        if path.endswith("/git-receive-pack") or query == b"service=git-receive-pack":
            raise _Answer(403, READ_ONLY)
        found = _PATH.fullmatch(path)
        wanted = {"info/refs": ("GET", b"service=git-upload-pack"), "git-upload-pack": ("POST", b"")}
        if found is None or int(found[1]) != grant.repository or wanted[found[2]] != (method, query):
            raise _Answer(403, REFUSED)
        if "version=2" not in headers.get("git-protocol", "").split(":"):
            raise _Answer(400, TOO_OLD)
        return grant, found[2]

    @contextlib.asynccontextmanager
    async def _place(self, turn: int) -> AsyncIterator[None]:
        lane = self._lanes.setdefault(turn, _Lane())
        if lane.requests >= MOST_WAITING:
            raise _Answer(503, TOO_MUCH)
        lane.requests += 1
        try:
            async with lane.places:
                yield
        finally:
            lane.requests -= 1
            if not lane.requests:
                self._lanes.pop(turn, None)

    async def _lend(self, grant: Grant, what: str, scope: Scope, receive: Receive, send: Send) -> None:
        mirror = self._mirrors.path(grant.repository)
        if not mirror.is_dir():
            raise _Answer(503, "sandpiper: the code is not here just now. Try again.")
        listing = what == "info/refs"
        words = ("upload-pack", "--stateless-rpc", *(["--advertise-refs"] if listing else []), ".")
        kind = f"application/x-git-upload-pack-{'advertisement' if listing else 'result'}"
        headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-cache")]
        with tempfile.TemporaryFile() as asked:
            if not listing:
                await _take(receive, Headers(scope=scope), asked)
            try:
                async with (
                    asyncio.timeout(self._patience),
                    reading(*words, cwd=mirror, config=_CONFIG, stdin=asked, protocol="version=2") as out,
                ):
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                    await _give(out, receive, send)
            except TimeoutError:  # what git has of it is no whole pack, and git says so
                log.warning("code of repository %d for turn %d took too long", grant.repository, grant.turn)
        await send({"type": "http.response.body", "body": b""})


async def _take(receive: Receive, headers: Headers, into: IO[bytes]) -> None:
    """The request's body, unpacked, into a file."""
    encoding = headers.get("content-encoding", "identity")
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise _Answer(415, f"sandpiper: {encoding[:40]!r} is not understood here.")
    unzip = zlib.decompressobj(wbits=31) if encoding != "identity" else None
    room, more = LARGEST_REQUEST, True
    while more:
        try:
            message = await asyncio.wait_for(receive(), STALLED)
        except TimeoutError:
            raise _Answer(408, "sandpiper: the request does not go on.") from None
        if message["type"] == "http.disconnect":
            raise _Answer(400, "sandpiper: the request broke off.")  # nobody is there to read it
        rest, more = message.get("body", b""), message.get("more_body", False)
        while rest:
            try:
                part = unzip.decompress(rest, _CHUNK) if unzip else rest
            except zlib.error:
                raise _Answer(400, "sandpiper: the request is not gzip, as it says.") from None
            rest = unzip.unconsumed_tail if unzip else b""
            room -= len(part)
            if room < 0:
                raise _Answer(413, TOO_MUCH)
            into.write(part)
            await asyncio.sleep(0)  # a little of gzip can be much
    into.seek(0)


async def _give(out: asyncio.StreamReader, receive: Receive, send: Send) -> None:
    """git's answer as it comes, as long as somebody is there. Raises TimeoutError for who does not read."""
    gone = asyncio.ensure_future(_gone(receive))
    try:
        while True:
            read = asyncio.ensure_future(out.read(_CHUNK))
            await asyncio.wait({read, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not read.done():
                read.cancel()
                return
            if not read.result():
                return
            body = {"type": "http.response.body", "body": read.result(), "more_body": True}
            await asyncio.wait_for(send(body), STALLED)
    finally:
        gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
