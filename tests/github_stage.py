"""Our side of GitHub, on stage with the playground's: the real PyGithub and git between them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from bot.models import Delivery, Identity
from handlers.github.accounts import Accounts
from handlers.github.auth import GitHubApp
from handlers.github.forge import GitHubForge, OnDemand
from handlers.github.grants import Grants
from handlers.github.lender import Lender
from handlers.github.mirrors import Mirrors
from handlers.github.parse import Ourselves
from handlers.github.repositories import Repositories
from handlers.github.surface import GitHubSurface
from handlers.playground.github import GitHubPlayground
from handlers.web.server import WebServer

WEB = "acme/web"


class FlyingClock:
    """Half a minute passes between any two looks at it, so that nobody waits for a pace to allow a call."""

    def __init__(self) -> None:
        self._now = 1_700_000_000.0

    def now(self) -> float:
        self._now += 30.0
        return self._now

    async def sleep(self, seconds: float) -> None:
        self._now += seconds


@dataclass(frozen=True)
class Stage:
    """acme/web with ada (admin) and mallory (read), and all that we have on our side. lending: the port where
    code is to be had on demand. open: turns that have not ended. lending_from: the forge, with code on
    demand from so many bytes on."""

    github: GitHubPlayground
    app: GitHubApp
    ourselves: Ourselves
    repositories: Repositories
    forge: GitHubForge
    surface: GitHubSurface
    data: Path
    mirrors: Mirrors
    lending: int
    open: set[int]
    lending_from: Callable[[int], GitHubForge]

    @property
    def repository_id(self) -> int:
        return self.github.repository(WEB).id

    def account(self, login: str) -> str:
        """The id of somebody's account, which is made where it is not there."""
        return str(self.github.add_user(login))

    def identity(self, login: str) -> Identity:
        return Identity("github", f"github:{self.github.install(WEB)}", self.account(login), login)

    def latest_delivery(self, event: str) -> Delivery:
        """The playground's newest webhook of this event, as our door would store it."""
        sent = next(d for d in reversed(self.github.deliveries) if d.event == event)
        return Delivery("github", sent.guid, sent.event, sent.body, sent.delivered_at)


@contextlib.asynccontextmanager
async def github_stage(
    root: Path, *, token_life: float = 3600.0, on_demand_from: int = 1 << 40
) -> AsyncIterator[Stage]:
    """on_demand_from: bytes of a repository from which on its code comes on demand."""
    github = GitHubPlayground(root / "forge", token_life=token_life)
    async with github.serve() as server:
        await github.add_repository(WEB, {"README.md": "hello\n", "src/app.py": "print(1)\n"})
        github.add_user("ada", {WEB: "admin"})
        github.add_user("mallory", {WEB: "read"})
        clock = FlyingClock()
        app = GitHubApp(github.app_id, github.private_key_pem, clock, api_url=server.url, web_url=server.url)
        ourselves = await app.introduce("sandpiper")
        repositories = Repositories(app, ourselves)
        data = root / "data"
        accounts = Accounts(app)
        mirrors = Mirrors(data / "mirrors", server.url)
        grants, open = Grants(b"k" * 32), {1}

        async def is_open(turn: int) -> bool:
            return turn in open

        lending = WebServer(Lender(mirrors, grants, is_open, 60.0), "127.0.0.1", 0)
        await lending.start()

        def lending_from(size: int) -> GitHubForge:
            demand = OnDemand(grants, f"http://127.0.0.1:{lending.port}", size)
            return GitHubForge(app, repositories, accounts, mirrors, clock, demand)

        forge = lending_from(on_demand_from)
        surface = GitHubSurface(app, repositories, accounts, ourselves)
        try:
            yield Stage(
                *(github, app, ourselves, repositories, forge, surface, data, mirrors, lending.port, open),
                lending_from=lending_from,
            )
        finally:
            await lending.stop()
            await app.close()
