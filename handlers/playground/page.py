"""The page on which people use the playground's Slack and GitHub side by side, and its HTTP.

GET  /                         the page, and below GitHub's and Slack's own addresses, so that links work
GET  /playground/static/…      its script and style
GET  /playground/events        server-sent events: all parts first, then those that change
GET  /playground/pulls/{n}     a pull request's commits and diff
GET  /playground/commits       the default branch's commits; /{sha}: what one of them changed
GET  /playground/files/{id}    a file that was shared: a picture as a picture, all else to be saved
POST /playground/do/{action}   somebody does something
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handlers.playground.changes import Change, Changes
from handlers.playground.git_records import Commit
from handlers.playground.git_repository import GitRepository
from handlers.playground.github import GitHubPlayground
from handlers.playground.github_errors import Refusal
from handlers.playground.github_state import timestamp
from handlers.playground.page_actions import ActionRefused, PageActions
from handlers.playground.page_view import BotControl, Json, View
from handlers.playground.slack import SlackPlayground

STATIC = Path(__file__).parent / "static"
HEARTBEAT = 15.0
COALESCE = 0.05
LARGEST_ACTION = 256 * 1024
MOST_COMMITS = 100

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Page:
    """`routes` are to be served beside the simulators, behind LocalOnly. `bot` may be set later."""

    def __init__(
        self,
        slack: SlackPlayground,
        github: GitHubPlayground,
        repository: str,
        permitted: tuple[str, ...],
    ) -> None:
        self.bot: BotControl | None = None
        self._slack = slack
        self._github = github
        self._repository = repository
        self._view = View(slack, github, repository, permitted)
        self._actions = PageActions(slack, github, repository)
        self._bells: set[asyncio.Event] = set()
        self._closing = False

    @property
    def routes(self) -> list[BaseRoute]:
        ours = [
            Route("/events", self._events),
            Route("/pulls/{number:int}", self._pull),
            Route("/commits", self._commits),
            Route("/commits/{sha}", self._commit),
            Route("/files/{id}", self._file),
            Route("/do/{action}", self._do, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        home, channel = f"/{self._repository}", "/slack/archives/{channel}"
        pages = [
            *("/", home, f"{home}/issues", f"{home}/pulls", f"{home}/commits", f"{home}/commit/{{sha}}"),
            *(f"{home}/issues/{{number:int}}", f"{home}/pull/{{number:int}}"),
            *(channel, f"{channel}/{{message}}"),
        ]
        return [
            Mount("/playground", routes=ours, middleware=[Middleware(_Headers)]),
            *(Route(path, _index, middleware=[Middleware(_Headers)]) for path in pages),
        ]

    def close(self) -> None:
        """End the streams of events, which never end by themselves."""
        self._closing = True
        for bell in self._bells:
            bell.set()

    # What there is to see

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        bell = asyncio.Event()
        pushed = 0

        def slack_changed(change: Change) -> bool:
            return change.kind not in ("called", "sent", "acknowledged")

        def github_changed(change: Change) -> bool:
            nonlocal pushed
            if change.kind in ("push", "missed"):
                pushed = change.number
            # Reactions have no event of their own: any answered call but a read may have changed something.
            return change.kind != "called" and (change.kind, change.place) != ("answered", "GET")

        followed: list[tuple[Changes, Callable[[Change], bool]]] = [
            (self._slack.changes, slack_changed),
            (self._github.changes, github_changed),
        ]
        if self.bot is not None:
            followed.append((self.bot.changes, lambda change: True))
        following = [
            asyncio.create_task(_ring(bell, changes, changes.number, matters))
            for changes, matters in followed
        ]
        self._bells.add(bell)
        sent: dict[str, str] = {}
        try:
            yield "retry: 1000\n\n"
            while not self._closing:
                bell.clear()
                now = {**self._view.parts(self.bot), "pushed": pushed}
                parts = {name: json.dumps(value) for name, value in now.items()}
                changed = {name: value for name, value in parts.items() if sent.get(name) != value}
                gone = [name for name in sent if name not in parts]
                if changed or gone:
                    yield _event(changed, gone, first=not sent)
                sent = parts
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        await bell.wait()
                except TimeoutError:
                    yield ": still here\n\n"
                await asyncio.sleep(COALESCE)
        finally:
            self._bells.discard(bell)
            for task in following:
                task.cancel()

    async def _pull(self, request: Request) -> Response:
        try:
            issue = self._github.issue(self._repository, request.path_params["number"])
            diff = await self._github.diff(self._repository, issue.number)
        except Refusal as refusal:
            return JSONResponse({"error": refusal.message}, refusal.status)
        commits: list[Commit] = []
        if issue.pull is not None:
            span = f"{issue.pull.base_sha}..{issue.pull.head_sha}"
            commits = await self._git().commits(span, limit=MOST_COMMITS)
        return JSONResponse({"diff": diff, "commits": [_commit_json(commit) for commit in commits]})

    async def _commits(self, request: Request) -> Response:
        branch = self._github.repository(self._repository).default_branch
        commits = await self._git().commits(f"refs/heads/{branch}", limit=MOST_COMMITS)
        return JSONResponse({"commits": [_commit_json(commit) for commit in commits]})

    async def _commit(self, request: Request) -> Response:
        git = self._git()
        sha = await git.resolve_ref(request.path_params["sha"])
        if sha is None:
            return JSONResponse({"error": "There is no such commit."}, 404)
        [commit] = await git.commits(sha, limit=1)
        diff = await git.text("show", "--format=", "--no-ext-diff", "-M", "--diff-merges=first-parent", sha)
        return JSONResponse({"diff": diff, **_commit_json(commit)})

    async def _file(self, request: Request) -> Response:
        file = self._slack.file(request.path_params["id"])
        if file is None or file.data is None:
            return JSONResponse({"error": "There is no such file, or it was too old to be kept."}, 404)
        shown = "inline" if file.picture and "save" not in request.query_params else "attachment"
        disposition = f"{shown}; filename*=UTF-8''{quote(file.name, safe='')}"
        return Response(
            file.data,
            media_type=file.picture or "application/octet-stream",
            headers={"Content-Disposition": disposition},
        )

    def _git(self) -> GitRepository:
        return GitRepository(self._github.repository(self._repository).path)

    # What there is to do

    async def _do(self, request: Request) -> Response:
        # Browsers send both with every request of the page; a form of another site can send neither.
        if "origin" not in request.headers:
            return JSONResponse({"error": "Only the page itself may do this (no Origin)."}, 403)
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return JSONResponse({"error": "The body must be JSON."}, 415)
        try:
            fields = await _json_object(request)
            made = await self._actions.do(request.path_params["action"], fields, self.bot)
        except ActionRefused as refused:
            return JSONResponse({"error": str(refused)}, refused.status)
        return JSONResponse(made)


async def _index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _json_object(request: Request) -> Json:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_ACTION:
            raise ActionRefused(413, f"This is more than {LARGEST_ACTION} bytes.")
    try:
        fields = json.loads(body)
    except ValueError:
        raise ActionRefused(422, "The body is no JSON.") from None
    if not isinstance(fields, dict):
        raise ActionRefused(422, "The body is no JSON object.")
    return fields


async def _ring(bell: asyncio.Event, changes: Changes, after: int, matters: Callable[[Change], bool]) -> None:
    async with aclosing(changes.follow(after)) as following:
        async for change in following:
            if matters(change):
                bell.set()


def _event(changed: dict[str, str], gone: list[str], *, first: bool) -> str:
    parts = ",".join(f"{json.dumps(name)}:{value}" for name, value in changed.items())
    return f'data: {{"first":{json.dumps(first)},"set":{{{parts}}},"gone":{json.dumps(gone)}}}\n\n'


def _commit_json(commit: Commit) -> Json:
    return {
        "sha": commit.sha,
        "message": commit.message,
        "author": commit.author.name,
        "committer": commit.committer.name,
        "at": timestamp(commit.committer.at),
    }


class _Headers:
    """Says in every answer what the page may load, and that nobody may keep or frame it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        await self._app(scope, receive, with_headers)
