"""Slack, GitHub and the page to use them, on one loopback port."""

import contextlib
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from handlers.playground.github import GitHubPlayground
from handlers.playground.github_demo import REPOSITORY, seed_demo
from handlers.playground.page import Page
from handlers.playground.page_guard import LocalOnly
from handlers.playground.page_view import BotControl
from handlers.playground.server import LoopbackServer
from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_limits import DEFAULT_RATES, Rates

PERMITTED = ("ana", "ben")
HOST = "127.0.0.1"
WEBHOOKS = "/github/webhooks"


class Playground:
    """The demo's world: the workspace Acme, the repository acme/web, Ana, Ben, and Eve, who may not.

    `root` is where git repositories go. Use it as `async with Playground(root) as playground:`; the bot
    then talks to it with `environment()`. `port` 0 takes a free one; OSError is raised if it is taken.
    `rates` are Slack's unless given.
    """

    def __init__(self, root: Path, *, port: int = 0, rates: Rates = DEFAULT_RATES) -> None:
        self.slack = SlackPlayground(rates=rates)
        self.github = GitHubPlayground(root)
        self.web_port = free_port()
        self._page = Page(self.slack, self.github, REPOSITORY, PERMITTED)
        self._server = LoopbackServer(LocalOnly(_Together(self.slack, self.github, self._page)), port=port)
        self._exits = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """The page's address, without a slash at the end."""
        return self._server.url

    @property
    def health_url(self) -> str:
        """Where the bot says that it is well."""
        return f"http://{HOST}:{self.web_port}/healthz"

    @property
    def bot(self) -> BotControl | None:
        """The bot's process, if the page is to show it; set it before somebody opens the page."""
        return self._page.bot

    @bot.setter
    def bot(self, bot: BotControl | None) -> None:
        self._page.bot = bot

    def environment(self) -> dict[str, str]:
        """The settings with which `sandpiper serve` talks to this playground."""
        people = [user.id for user in self.slack.workspace.users.values() if user.name in PERMITTED]
        settings = {
            "SLACK_BOT_TOKEN": self.slack.bot_token,
            "SLACK_APP_TOKEN": self.slack.app_token,
            "SLACK_API_URL": self.slack.api_url,
            "GITHUB_APP_ID": str(self.github.app_id),
            "GITHUB_PRIVATE_KEY": self.github.private_key_pem,
            "GITHUB_WEBHOOK_SECRET": self.github.webhook_secret,
            "GITHUB_API_URL": self.github.base_url,
            "GITHUB_WEB_URL": self.github.web_url,
            "WEB_HOST": HOST,
            "WEB_PORT": str(self.web_port),
            "ALLOW_PEOPLE": ",".join(people),
            "ALLOW_CHANNELS": "*",
            "ALLOW_REPOSITORIES": "*",
            "DEFAULT_REPOSITORY": REPOSITORY,
        }
        return {f"SANDPIPER_{name}": value for name, value in settings.items()}

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as exits:
            await exits.enter_async_context(self._server)
            # In this order at the end: streams that would hold the server up, then deliveries.
            exits.push_async_callback(self.slack.close)
            exits.callback(self._page.close)
            self.slack.url = f"{self._server.url}/slack"
            self.github.base_url = self._server.url
            await seed_demo(self.github)
            self.github.webhook_url = f"http://{HOST}:{self.web_port}{WEBHOOKS}"
            for user in list(self.slack.workspace.users.values()):
                if not user.is_bot:
                    self.slack.direct_channel(user.id)
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exits.aclose()


class _Together:
    """Slack under /slack, the page at its addresses, and GitHub, which has git's paths, at all others."""

    def __init__(self, slack: SlackPlayground, github: GitHubPlayground, page: Page) -> None:
        routes = [*page.routes, Mount("/slack", slack.app)]
        self._router: ASGIApp = Router(routes, default=github.app, redirect_slashes=False)
        self._github = github

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # GitHub's part sends its webhooks between startup and shutdown.
        app = self._github.app if scope["type"] == "lifespan" else self._router
        await app(scope, receive, send)


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
