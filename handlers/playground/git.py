"""git's smart HTTP protocol, by the real `git http-backend` behind an ASGI endpoint.

Bodies stream both ways; gzipped requests and protocol version 2 are the backend's own. Who may read or
push is asked of the one who makes this endpoint, and he is told which refs a push has moved.
Sources: git-http-backend(1), gitprotocol-http(5), githooks(5).
"""

import asyncio
import contextlib
import os
import re
import signal
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from handlers.playground.git_records import RefUpdate
from handlers.playground.git_repository import clean_environment

Service = Literal["git-upload-pack", "git-receive-pack"]
_CHUNK = 64 * 1024
_PATH = re.compile(
    r"^/(?P<owner>[\w.-]+)/(?P<name>[\w.-]+?)(?:\.git)?/(?P<tail>info/refs|git-upload-pack|git-receive-pack)$"
)


class GitRefused(Exception):
    """The caller may not; `status` and message are what git gets. 401 makes git ask for a password."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class GitRequest:
    """What is asked for. A fetch or push first asks which refs there are; that request `only_lists_refs`."""

    owner: str
    name: str
    service: Service
    only_lists_refs: bool
    authorization: str | None


@dataclass(frozen=True, slots=True)
class GitAccess:
    """Where the repository is, as whom the caller goes on, and more environment for git's hooks."""

    path: Path
    login: str
    environment: Mapping[str, str] = field(default_factory=dict)


Authorize = Callable[[GitRequest], GitAccess]
Pushed = Callable[[GitRequest, Sequence[RefUpdate]], Awaitable[None]]


class GitHttp:
    """An ASGI endpoint for `/{owner}/{name}.git/…`.

    `authorize` raises GitRefused; `pushed` is awaited before the answer to a push ends, so whoever pushed
    finds everything up to date.
    """

    def __init__(self, authorize: Authorize, pushed: Pushed) -> None:
        self._authorize = authorize
        self._pushed = pushed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            request, tail = _understand(scope, headers)
            access = self._authorize(request)
        except GitRefused as refused:
            asks = {"WWW-Authenticate": 'Basic realm="GitHub"'} if refused.status == 401 else {}
            answer = PlainTextResponse(f"{refused.message}\n", refused.status, headers=asks)
            await answer(scope, receive, send)
            return
        with tempfile.TemporaryDirectory(prefix="playground-push-") as scratch:
            log = Path(scratch) / "pushed"
            environment = _environment(scope, headers, access, tail) | {"PLAYGROUND_PUSHED": str(log)}
            await _relay(environment, receive, send)
            if log.exists():
                await self._pushed(request, _updates(log.read_text()))
        await send({"type": "http.response.body", "body": b""})


def _understand(scope: Scope, headers: Headers) -> tuple[GitRequest, str]:
    match = _PATH.match(scope["path"])
    if match is None:
        raise GitRefused(404, "Not Found")
    tail = match["tail"]
    service = tail if tail != "info/refs" else scope["query_string"].decode().removeprefix("service=")
    known: Service
    if service == "git-upload-pack":
        known = "git-upload-pack"
    elif service == "git-receive-pack":
        known = "git-receive-pack"
    else:
        raise GitRefused(403, "Please upgrade your git client.\nOnly the smart HTTP protocol is served here.")
    listing = tail == "info/refs"
    return GitRequest(match["owner"], match["name"], known, listing, headers.get("authorization")), tail


def _environment(scope: Scope, headers: Headers, access: GitAccess, tail: str) -> dict[str, str]:
    """The CGI environment. REMOTE_USER is what lets the backend accept a push."""
    environment = clean_environment(access.path.parent) | {
        "GIT_PROJECT_ROOT": str(access.path),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": f"/{tail}",
        "REQUEST_METHOD": scope["method"],
        "QUERY_STRING": scope["query_string"].decode(),
        "CONTENT_TYPE": headers.get("content-type", ""),
        "REMOTE_USER": access.login,
        "REMOTE_ADDR": (scope.get("client") or ("127.0.0.1", 0))[0],
        **access.environment,
    }
    for name, variable in (
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "HTTP_GIT_PROTOCOL"),
    ):
        if name in headers:
            environment[variable] = headers[name]
    if "git-protocol" in headers:
        environment["GIT_PROTOCOL"] = headers["git-protocol"]
    return environment


async def _relay(environment: Mapping[str, str], receive: Receive, send: Send) -> None:
    """Run the backend for one request and send its answer, but for the end of the body."""
    process = await asyncio.create_subprocess_exec(
        "git",
        "http-backend",
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_CHUNK,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - both are pipes
    feeding = asyncio.create_task(_feed(process, process.stdin, receive))
    try:
        await _answer(process.stdout, send)
        await process.wait()
    finally:
        feeding.cancel()
        await asyncio.wait([feeding])
        _kill(process)
        process.stdin.close()
        await process.communicate()


def _kill(process: asyncio.subprocess.Process) -> None:
    """End the backend, if it still runs, and the git that it has started, which shares its output."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _feed(process: asyncio.subprocess.Process, stdin: asyncio.StreamWriter, receive: Receive) -> None:
    """Pass the request's body on. A client that goes away in the middle of it ends the process."""
    # The backend may end before it has read everything, for instance when it refuses.
    with contextlib.suppress(ConnectionError):
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                _kill(process)
                return
            stdin.write(message.get("body", b""))
            await stdin.drain()
            more = message.get("more_body", False)
        stdin.close()
        await stdin.wait_closed()


async def _answer(stdout: asyncio.StreamReader, send: Send) -> None:
    try:
        head = await stdout.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = b"Status: 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n"
    status, headers = 200, []
    for line in head.strip().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"status":
            status = int(value.split()[0])
        else:
            headers.append((name.lower(), value.strip()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while chunk := await stdout.read(_CHUNK):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})


def _updates(log: str) -> list[RefUpdate]:
    """The refs that moved, from what git gives its post-receive hook."""
    found = []
    for line in log.splitlines():
        before, after, ref = line.split(" ", 2)
        found.append(RefUpdate(ref, before, after))
    return found
