"""The REST side of the loopback GitHub: who calls, may they, and errors, limits and pages in GitHub's form.

The endpoints themselves are in `github_rest_app`, `_repositories`, `_issues` and `_pulls`.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from handlers.playground.faults import call_of
from handlers.playground.github_auth import Credentials, InstallationToken, check_reach
from handlers.playground.github_errors import Refusal, invalid, not_found
from handlers.playground.github_issues import issue_numbered
from handlers.playground.github_limits import RateLimiter
from handlers.playground.github_shapes import Json
from handlers.playground.github_state import Comment, GitHubState, Issue, Repository, User

_T = TypeVar("_T")
_IN_REPOSITORY = "/repos/{owner}/{repo}"
_BY_ID = "/repositories/{repository_id:int}"
_LARGEST_PAGE = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answers; `body` None sends no content."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, with its caller known and its body read."""

    request: Request
    state: GitHubState
    token: InstallationToken | None
    body: Any
    _repository: Repository | None

    @property
    def repository(self) -> Repository:
        if self._repository is None:
            raise RuntimeError("this endpoint is not about a repository")
        return self._repository

    @property
    def installation_token(self) -> InstallationToken:
        if self.token is None:
            raise RuntimeError("this endpoint is for the App itself")
        return self.token

    @property
    def bot(self) -> User:
        """Whatever is written with a token of the App is written by its bot."""
        return self.state.app.bot

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])

    def number(self, name: str) -> int:
        try:
            return int(self.path(name))
        except ValueError:
            raise not_found() from None

    def query(self, name: str, default: str = "") -> str:
        return self.request.query_params.get(name, default)

    def field(self, name: str, kind: type[_T], resource: str = "Request") -> _T | None:
        """A field of the JSON body, None when absent or null. Raises Refusal (422) if of another type."""
        value = self.body.get(name) if isinstance(self.body, dict) else None
        if value is not None and not isinstance(value, kind):
            raise invalid(resource, "invalid", name)
        return value

    def strings(self, name: str, resource: str = "Request") -> list[str] | None:
        values = self.field(name, list, resource)
        if values is not None and not all(isinstance(value, str) for value in values):
            raise invalid(resource, "invalid", name)
        return values

    def issue(self) -> Issue:
        return issue_numbered(self.repository, self.number("number"))

    def comment(self) -> Comment:
        found = self.repository.comments.get(self.number("comment_id"))
        if found is None:
            raise not_found()
        return found


Act = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation of the API. `needs` are the permissions of which any one is enough.

    A path that starts with a slash stands by itself; any other is under a repository. `by` says with what
    it is called: an App JWT ("app"), an installation token ("installation"), or either ("any").
    """

    method: str
    path: str
    act: Act
    needs: Mapping[str, str] = field(default_factory=dict)
    by: str = "installation"
    creates_content: bool = False

    @property
    def paths(self) -> list[str]:
        if self.path.startswith("/"):
            return [self.path]
        tail = f"/{self.path}" if self.path else ""
        return [_IN_REPOSITORY + tail, _BY_ID + tail]


class Rest:
    """Serves endpoints: authentication, reach, limits, JSON in and out."""

    def __init__(self, state: GitHubState, credentials: Credentials, limiter: RateLimiter) -> None:
        self._state = state
        self._credentials = credentials
        self._limiter = limiter

    def routes(self, endpoints: Sequence[Endpoint]) -> list[Route]:
        """One route per path, so that the wrong method is not another endpoint's business."""
        by_path: dict[str, dict[str, Endpoint]] = {}
        for endpoint in endpoints:
            for path in endpoint.paths:
                by_path.setdefault(path, {})[endpoint.method] = endpoint
        return [Route(path, self._serve(methods), methods=list(methods)) for path, methods in by_path.items()]

    def _serve(self, methods: Mapping[str, Endpoint]) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            endpoint = methods["GET" if request.method == "HEAD" else request.method]
            limits: dict[str, str] = {}
            try:
                call = await self._admit(endpoint, request, limits)
                answer = await endpoint.act(call)
            except Refusal as refusal:
                return refused(refusal, limits)
            return respond(answer, limits)

        return serve

    async def _admit(self, endpoint: Endpoint, request: Request, limits: dict[str, str]) -> Call:
        if not request.headers.get("user-agent"):
            raise Refusal(
                403,
                "Request forbidden by administrative rules. "
                "Please make sure your request has a User-Agent header.",
            )
        record = call_of(request.scope)
        token = self._credentials.caller(request.headers.get("authorization"))
        record.caller = "app" if token is None else f"installation {token.installation.id}"
        who = f"{'app' if token is None else 'installation'} ID {_id_of(self._state, token)}"
        self._limiter.admit(who, request.method, endpoint.creates_content)
        limits.update(self._limiter.headers(who))
        if endpoint.by == "app" and token is not None:
            raise Refusal(401, "A JSON web token could not be decoded")
        if endpoint.by == "installation" and token is None:
            raise Refusal(
                403, "You must authenticate with an installation access token to call this endpoint."
            )
        repository = self._repository(request)
        if token is not None and repository is not None:
            check_reach(token, repository, endpoint.needs)
        record.body = await _json_of(request)
        return Call(request, self._state, token, record.body, repository)

    def _repository(self, request: Request) -> Repository | None:
        found: Repository | None
        if "repository_id" in request.path_params:
            found = self._state.repositories.get(request.path_params["repository_id"])
        elif "repo" in request.path_params:
            found = self._state.repository_named("{owner}/{repo}".format(**request.path_params))
        else:
            return None
        if found is None:
            raise not_found()
        return found


async def nothing_here(request: Request, _: Exception) -> Response:
    """The answer to a path or method that is not an endpoint; GitHub gives 404 for both."""
    return refused(not_found(), {})


def refused(refusal: Refusal, limits: Mapping[str, str]) -> Response:
    return respond(Answer(refusal.body(), refusal.status, refusal.headers), limits)


def respond(answer: Answer, limits: Mapping[str, str]) -> Response:
    headers = {
        **limits,
        "X-GitHub-Api-Version-Selected": "2022-11-28",
        "X-GitHub-Media-Type": "github.v3; format=json",
        **answer.headers,
    }
    if answer.body is None:
        return Response(status_code=answer.status, headers=headers)
    content = json.dumps(answer.body, separators=(",", ":")).encode()
    return Response(content, answer.status, headers=headers, media_type="application/json; charset=utf-8")


def page(
    call: Call, items: Sequence[_T], shape: Callable[[_T], Json], wrapped_as: str | None = None
) -> Answer:
    """One page of `items` with GitHub's Link header, whose links name the repository by its id."""
    size = _positive(call.query("per_page"), 30, _LARGEST_PAGE)
    wanted = _positive(call.query("page"), 1, None)
    last = max(1, -(-len(items) // size))
    shown = [shape(item) for item in items[(wanted - 1) * size : wanted * size]]
    links: dict[str, int] = {}
    if wanted < last:
        links |= {"next": wanted + 1, "last": last}
    if wanted > 1:
        links |= {"prev": min(wanted - 1, last), "first": 1}
    headers = {"Link": ", ".join(f'<{_page_url(call, n)}>; rel="{rel}"' for rel, n in links.items())}
    body = shown if wrapped_as is None else {"total_count": len(items), wrapped_as: shown}
    return Answer(body, headers=headers if links else {})


def _page_url(call: Call, number: int) -> str:
    path = call.request.url.path
    if "repo" in call.request.path_params:
        named = _IN_REPOSITORY.format(**call.request.path_params)
        path = f"/repositories/{call.repository.id}{path[len(named) :]}"
    query = dict(call.request.query_params) | {"page": str(number)}
    return f"{call.state.base_url}{path}?{urlencode(query)}"


def _positive(text: str, default: int, most: int | None) -> int:
    number = int(text) if text.isdecimal() and int(text) > 0 else default
    return number if most is None else min(number, most)


def _id_of(state: GitHubState, token: InstallationToken | None) -> int:
    return state.app.id if token is None else token.installation.id


async def _json_of(request: Request) -> Any:
    raw = await request.body()
    if not raw.strip():
        return None
    try:
        return json.loads(raw)
    except ValueError:
        raise Refusal(400, "Problems parsing JSON") from None
