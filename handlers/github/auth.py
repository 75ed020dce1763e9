"""Our GitHub App at work: tokens no wider than the call at hand, calls in threads, writes at a pace."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from json import JSONDecodeError
from typing import TypeVar

import jwt
import requests
from github import Auth, Github, GithubException

from bot.errors import SettingsError
from bot.ports import Clock
from handlers.github.failures import CallFailed, MintFailed, explained
from handlers.github.parse import Ourselves

T = TypeVar("T")

API_URL = "https://api.github.com"
WEB_URL = "https://github.com"

Permissions = tuple[tuple[str, str], ...]
READ_METADATA: Permissions = (("metadata", "read"),)
READ_CODE: Permissions = (("contents", "read"),)
WRITE_CODE: Permissions = (("contents", "write"),)
READ_PULLS: Permissions = (("pull_requests", "read"),)
WRITE_PULLS: Permissions = (("contents", "read"), ("pull_requests", "write"))
TALK: Permissions = (("issues", "write"), ("pull_requests", "write"))

SIGNED_WITH = "RS256"  # docs.github.com, "Generating a JSON Web Token (JWT) for a GitHub App"
TIMEOUT = 20  # seconds, for one request
THREADS = 16
READ_TRIES = 3
KEPT_SCOPES = 256
RENEW_BEFORE = 300.0  # a token lives an hour; a long fetch must not begin with its last minute
WRITE_PAUSE = 1.0  # GitHub asks for a second between writes ("Best practices for using the REST API")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is for. repository 0: all repositories of the installation."""

    installation: int
    repository: int
    permissions: Permissions


class GitHubApp:
    """Calls GitHub as our App. All of PyGithub runs in threads of its own.

    private_key: PEM. api_url, web_url: elsewhere for GitHub Enterprise Server and for the playground.
    Raises SettingsError when made with a key that cannot sign.
    """

    def __init__(
        self,
        app_id: int,
        private_key: str,
        clock: Clock,
        *,
        api_url: str = API_URL,
        web_url: str = WEB_URL,
    ) -> None:
        self.app_id = app_id
        self.web_url = web_url.rstrip("/")
        self._api_url = api_url.rstrip("/")
        self._clock = clock
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="github")
        self._as_app = _Clients(_app_auth(app_id, private_key), self._api_url)
        self._scoped: OrderedDict[Scope, _Clients] = OrderedDict()
        self._paces: dict[int, Pace] = {}

    async def introduce(self, label: str) -> Ourselves:
        """Who we are, as GitHub knows it. Raises ForgeError: a wrong id or key shows here."""
        _, app = await self.as_app(lambda github: github.requester.requestJsonAndCheck("GET", "/app"))
        return Ourselves(self.app_id, str(app["slug"]), label)

    async def as_app(self, work: Callable[[Github], T]) -> T:
        """Call as the App itself (its JWT): only reads are made so. Raises ForgeError."""
        return await self._patiently(self._as_app, work)

    async def read(self, scope: Scope, work: Callable[[Github], T]) -> T:
        """Call something that changes nothing, so it may be called again. Raises ForgeError."""
        return await self._patiently(self._clients(scope), work)

    async def write(self, scope: Scope, work: Callable[[Github], T]) -> T:
        """Call something that changes GitHub: once, when the installation's turn has come.

        Raises ForgeError; after a CallFailed of status 0 it may have happened all the same.
        """
        pace = self.pace(scope.installation)
        await pace.turn()
        try:
            return await self._call(self._clients(scope), work)
        except CallFailed as failed:
            if failed.limited:
                pace.close(failed.retry_after)
            raise

    async def token(self, scope: Scope) -> str:
        """A token for git. Raises ForgeError."""
        return await self._patiently(self._clients(scope), lambda github: _token_of(github))

    def forget_token(self, scope: Scope) -> None:
        """git says that it is not good (any more)."""
        self._clients(scope).forget_token()

    def pace(self, installation: int) -> Pace:
        return self._paces.setdefault(installation, Pace(self._clock))

    async def close(self) -> None:
        """Let calls under way end, and close all connections."""
        await asyncio.to_thread(self._threads.shutdown)
        for clients in (self._as_app, *self._scoped.values()):
            clients.close()

    async def _patiently(self, clients: _Clients, work: Callable[[Github], T]) -> T:
        for attempt in range(READ_TRIES):
            try:
                return await self._call(clients, work)
            except CallFailed as failed:
                if not failed.retryable or failed.limited or attempt == READ_TRIES - 1:
                    raise
            await self._clock.sleep(0.5 * 2**attempt)
        raise AssertionError("unreachable")

    async def _call(self, clients: _Clients, work: Callable[[Github], T]) -> T:
        def called() -> T:
            github = clients.take()
            try:
                return work(github)
            finally:
                clients.give_back(github)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, called)
        except (GithubException, requests.RequestException, JSONDecodeError) as error:
            failed = explained(error, as_app=clients is self._as_app)
            if failed.status == 401:
                clients.forget_token()
            raise failed from error

    def _clients(self, scope: Scope) -> _Clients:
        found = self._scoped.get(scope)
        if found is None:
            token = InstallationToken(scope, self._as_app)
            found = self._scoped[scope] = _Clients(token, self._api_url)
            if len(self._scoped) > KEPT_SCOPES:
                _, oldest = self._scoped.popitem(last=False)
                oldest.close()
        self._scoped.move_to_end(scope)
        return found


class InstallationToken(Auth.Auth):
    """A token of one installation for one repository and a few permissions.

    PyGithub's own AppInstallationAuth can name no repositories, mints once per thread that asks at
    the same time, and renews only 20 s before the end.
    """

    def __init__(self, scope: Scope, as_app: _Clients) -> None:
        self._scope = scope
        self._as_app = as_app
        self._lock = threading.Lock()
        self._token = ""
        self._good_until = 0.0

    @property
    def token_type(self) -> str:
        return "token"

    @property
    def token(self) -> str:
        with self._lock:
            if time.time() >= self._good_until:
                self._mint()
            return self._token

    def forget(self) -> None:
        with self._lock:
            self._good_until = 0.0

    def _mint(self) -> None:
        wanted: dict[str, object] = {"permissions": dict(self._scope.permissions)}
        if self._scope.repository:
            wanted["repository_ids"] = [self._scope.repository]
        path = f"/app/installations/{self._scope.installation}/access_tokens"
        github = self._as_app.take()
        try:
            _, minted = github.requester.requestJsonAndCheck("POST", path, input=wanted)
        except GithubException as error:
            raise MintFailed(error.status, error.data, error.headers, error.message) from error
        finally:
            self._as_app.give_back(github)
        self._token = str(minted["token"])
        ends = datetime.fromisoformat(str(minted["expires_at"])).timestamp()
        # A short-lived token (a test's) is used for the first half of its life.
        self._good_until = max(ends - RENEW_BEFORE, (time.time() + ends) / 2)


class _Clients:
    """Idle PyGithub clients that share one credential. A client is used by one thread at a time: it
    keeps the request that it is about to send on its connection, where another thread's would land."""

    def __init__(self, auth: Auth.Auth, api_url: str) -> None:
        self._auth = auth
        self._api_url = api_url
        self._idle: deque[Github] = deque()
        self._closed = False

    def take(self) -> Github:
        try:
            return self._idle.pop()
        except IndexError:
            # No retries of its own: urllib3's would repeat a POST whose answer was lost. No throttle:
            # it sleeps per client, where GitHub counts per installation.
            return Github(
                auth=self._auth,
                base_url=self._api_url,
                timeout=TIMEOUT,
                user_agent="sandpiper",
                per_page=100,
                retry=None,
                seconds_between_requests=0,
                seconds_between_writes=0,
                lazy=True,
            )

    def give_back(self, github: Github) -> None:
        if self._closed or len(self._idle) >= 4:
            github.close()
        else:
            self._idle.append(github)

    def forget_token(self) -> None:
        if isinstance(self._auth, InstallationToken):
            self._auth.forget()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()


class Pace:
    """Lets an installation's writes go one after the other, a second apart, in the order they came.

    After a rate limit nobody goes until it is over: whoever comes is told how long, and waits elsewhere.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._next = 0.0
        self._opens = 0.0

    async def turn(self) -> None:
        """Raises CallFailed (retryable, with the seconds left) while GitHub limits us."""
        async with self._lock:
            closed = self._opens - self._clock.now()
            if closed > 0:
                raise CallFailed(
                    "GitHub's rate limit is reached; I keep still until it ends.",
                    status=429,
                    retryable=True,
                    retry_after=closed,
                    limited=True,
                )
            pause = self._next - self._clock.now()
            if pause > 0:
                await self._clock.sleep(pause)
            self._next = self._clock.now() + WRITE_PAUSE

    def close(self, seconds: float) -> None:
        self._opens = max(self._opens, self._clock.now() + seconds)


def _app_auth(app_id: int, private_key: str) -> Auth.AppAuth:
    try:
        # Reading a key checks it, which takes many times as long as signing: so once, not for each call.
        key = jwt.get_algorithm_by_name(SIGNED_WITH).prepare_key(private_key)
        auth = Auth.AppAuth(app_id, sign_func=lambda claims: jwt.encode(claims, key, SIGNED_WITH))
        auth.create_jwt()
    except (AssertionError, AttributeError, ValueError, TypeError, jwt.PyJWTError) as error:
        raise SettingsError(
            "The GitHub App's private key cannot be used.",
            "Put the PEM text or the path of the .pem file into SANDPIPER_GITHUB_PRIVATE_KEY.",
        ) from error
    return auth


def _token_of(github: Github) -> str:
    auth = github.requester.auth
    assert auth is not None  # noqa: S101 - every client is made with one
    return auth.token
