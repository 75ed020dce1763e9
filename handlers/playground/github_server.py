"""The parts of the loopback GitHub put together: one state, and the ASGI app that serves it."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from handlers.playground.changes import Changes
from handlers.playground.faults import ApiCall, Faults, Recorded
from handlers.playground.github_auth import Credentials, app_key_pem
from handlers.playground.github_git import GitDoor
from handlers.playground.github_git_shapes import GitShapes
from handlers.playground.github_hooks import Hooks
from handlers.playground.github_installations import Installations
from handlers.playground.github_issues import Issues
from handlers.playground.github_limits import Limits, RateLimiter
from handlers.playground.github_pulls import Pulls
from handlers.playground.github_rest import Rest, nothing_here
from handlers.playground.github_rest_app import AppEndpoints
from handlers.playground.github_rest_issues import IssueEndpoints
from handlers.playground.github_rest_pulls import PullEndpoints
from handlers.playground.github_rest_repositories import RepositoryEndpoints
from handlers.playground.github_shapes import Shapes
from handlers.playground.github_state import GitHubState

_GIT_SERVICES = (("info/refs", "GET"), ("git-upload-pack", "POST"), ("git-receive-pack", "POST"))


class GitHubServer:
    """Everything that acts on one `state`. `app` is the ASGI app; its lifespan delivers the webhooks."""

    def __init__(
        self, state: GitHubState, *, clock: Callable[[], float], token_life: float, limits: Limits | None
    ) -> None:
        self.state = state
        self.changes = Changes()
        self.calls: list[ApiCall] = []
        self.faults = Faults()
        self.private_key_pem = app_key_pem()
        self.limiter = RateLimiter(limits, clock)
        self.credentials = Credentials(state.app, self.private_key_pem, clock, token_life)
        self._shapes = Shapes(state)
        self._git_shapes = GitShapes(state, self._shapes)
        self.hooks = Hooks(state, self._shapes, self.changes, secret=secrets.token_hex(20), clock=clock)
        self.installations = Installations(state, self._shapes, self.hooks)
        self.issues = Issues(state, self._shapes, self._git_shapes, self.hooks)
        self.pulls = Pulls(state, self._git_shapes, self.hooks, self.issues)
        self.app: ASGIApp = Recorded(self._starlette(), self.faults, self.calls, self.changes)

    def _starlette(self) -> Starlette:
        app = AppEndpoints(self.state, self._shapes, self.credentials, self.hooks, self.limiter)
        endpoints = [
            *app.endpoints(),
            *RepositoryEndpoints(self._shapes, self._git_shapes).endpoints(),
            *IssueEndpoints(self._shapes, self.issues).endpoints(),
            *PullEndpoints(self._git_shapes, self.issues, self.pulls).endpoints(),
        ]
        rest = Rest(self.state, self.credentials, self.limiter)
        git = GitDoor(self.state, self.credentials, self.faults, self.pulls).endpoint
        return Starlette(
            routes=[
                *rest.routes(endpoints),
                *(Route(f"/{{owner}}/{{name}}/{tail}", git, methods=[verb]) for tail, verb in _GIT_SERVICES),
            ],
            exception_handlers={404: nothing_here, 405: nothing_here},
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        delivering = asyncio.create_task(self.hooks.run(), name="github-webhooks")
        try:
            yield
        finally:
            delivering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await delivering
