"""The composition root: settings become objects, objects a running bot. Only this place knows every part."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import logging
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeVar

from bot.access import Allowlist
from bot.app_agents import agents_of
from bot.app_code import lending
from bot.app_sandboxes import build_snapshot, hosts_of, provider_of, works_here
from bot.clock import SystemClock
from bot.core import Core, Policy
from bot.doctor import Result, examine, out_of_reach
from bot.doctor_checks import CHECKS
from bot.driver import Deadlines
from bot.errors import ForgeError, SandpiperError, SettingsError, SurfaceBusy
from bot.hooks import HookSeconds
from bot.losses import Losses
from bot.models import Caps
from bot.operators import Operators
from bot.ports import Surface
from bot.reconcile import Reconcile
from bot.sandboxes import Ages, Sandboxes
from bot.sessions import Defaults
from bot.settings import AgentSpec, Settings
from bot.trust import trust_it_ourselves
from handlers.github.accounts import Accounts
from handlers.github.auth import GitHubApp
from handlers.github.forge import GitHubForge
from handlers.github.mirrors import Mirrors
from handlers.github.repositories import Repositories
from handlers.github.surface import GitHubSurface
from handlers.github.webhooks import Webhooks
from handlers.operator import ask_the_bot, operators_door
from handlers.slack.install import PATH as SLACK_PATH
from handlers.slack.install import Slack, connect
from handlers.web.server import Later, WebServer, application
from sandbox.daytona_snapshots import Size
from storage.database import DATABASE_FILE
from storage.dispatch import QueueDispatcher
from storage.store import SqliteStore

log = logging.getLogger(__name__)

VERSION = importlib.metadata.version("sandpiper-bot")
AWAY_RETRY = 5.0  # seconds

T = TypeVar("T")

# Where our own programs are in a box is told in its environment.

NOTHING_ON = (
    "Neither Slack nor GitHub is configured, so there is nobody to talk to.\n"
    "  GitHub: SANDPIPER_GITHUB_APP_ID, SANDPIPER_GITHUB_PRIVATE_KEY, SANDPIPER_GITHUB_WEBHOOK_SECRET\n"
    "  Slack:  SANDPIPER_SLACK_BOT_TOKEN, SANDPIPER_SLACK_APP_TOKEN (and GitHub, where the code is)\n"
    "Put them into the environment or into .env (see .env.example). To look around first: make demo"
)


async def serve(settings: Settings) -> None:
    """The product, until cancelled. Raises SettingsError, ProviderUnavailable, ForgeError, SurfaceError."""
    if not settings.github_on:
        raise SettingsError(NOTHING_ON)
    async with _running(settings) as core:
        await core.run()


async def operate(settings: Settings, do: str, id: str, *, yes: bool) -> str:
    """What an operator wants of the sandboxes: asked of the bot where one runs, else done here (see
    docs/decisions/0015-the-operators-door.md). Raises SandpiperError."""
    data_dir = settings.data_dir
    if not data_dir.is_dir():
        raise SettingsError(f"There is no data directory {data_dir}.", "Set SANDPIPER_DATA_DIR to the bot's.")
    said = await ask_the_bot(data_dir, do, id, yes)
    if said is not None:
        return said
    _trust(settings)
    async with _without_a_bot(settings) as operators:
        return await operators.obey(do, id, yes=yes)


@asynccontextmanager
async def _without_a_bot(settings: Settings) -> AsyncIterator[Operators]:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        store = await SqliteStore.open(settings.data_dir, clock, QueueDispatcher())
        stack.push_async_callback(store.close)
        provider = provider_of(settings)
        stack.push_async_callback(provider.close)
        sandboxes = Sandboxes(
            store, provider, clock, settings.installation, _ages(settings), most=settings.cap.sandboxes
        )
        reconcile = Reconcile(store, sandboxes)
        losses = Losses(store, sandboxes, None)
        yield Operators(store, sandboxes, reconcile, losses, {}, clock)


async def prove(settings: Settings, tell: Callable[[Result], None]) -> Sequence[Result]:
    """Try whether the provider that the settings name does what sandboxes need. Raises SandpiperError."""
    _trust(settings)
    results = await examine(
        lambda: provider_of(settings),
        CHECKS,
        hosts=hosts_of(settings),
        installation=settings.installation,
        tell=tell,
    )
    if (settings.data_dir / DATABASE_FILE).is_file():
        try:
            async with _without_a_bot(settings) as operators:
                missing = await operators.out_of_reach()
        except SandpiperError as error:  # a bot has the store, and looks for itself; or nothing answers
            log.info("whether all sandboxes are within reach was not looked at: %s", error)
        else:
            if missing:
                results = [*results, out_of_reach(missing)]
                tell(results[-1])
    return results


async def build(settings: Settings, text: str, name: str, size: Size, say: Callable[[str], None]) -> None:
    """Have the account at Daytona build a Dockerfile. Raises SandpiperError."""
    _trust(settings)
    await build_snapshot(settings, text, name, size, say)


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[Core]:
    """Everything connected, with the edges open; closed again in the reverse order."""
    _trust(settings)
    policy = _policy(settings)
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        dispatcher = QueueDispatcher()
        store = await SqliteStore.open(settings.data_dir, clock, dispatcher)
        stack.push_async_callback(store.close)
        waiting_for = {"github", "slack"} if settings.slack_on else {"github"}
        ready: list[Core] = []

        async def obey(do: str, id: str, yes: bool) -> str:
            if not ready:
                who = " and ".join(sorted(waiting_for))
                raise SandpiperError(f"The bot is being started, and waits for {who}.", "Ask again later.")
            return await ready[0].operators.obey(do, id, yes=yes)

        await stack.enter_async_context(operators_door(settings.data_dir, obey))
        agents, programs = agents_of(settings)
        git_seconds = policy.deadlines.git
        mirrors = Mirrors(settings.data_dir / "mirrors", settings.github.web_url, git_seconds)
        lent = await stack.enter_async_context(lending(settings, store, mirrors, git_seconds))
        provider = provider_of(settings, lent.port)
        stack.push_async_callback(provider.close)
        await works_here(provider)
        anthropic, claude = settings.anthropic, settings.agents.get("claude", AgentSpec())
        if settings.default_agent == "claude" and not (
            anthropic.api_key or anthropic.auth_token or claude.api_key
        ):
            where = agents["claude"].capabilities.credential
            log.warning("Claude Code has no credential, so its turns will fail. Set %s.", where)

        app = GitHubApp(
            settings.github.app_id,
            settings.github.pem(),
            clock,
            api_url=settings.github.api_url,
            web_url=settings.github.web_url,
        )
        stack.push_async_callback(app.close)

        # Stored from here on, whoever is away: GitHub sends an event once.
        secret = settings.github.webhook_secret.get_secret_value()
        routes = [Webhooks(store.accept, secret, settings.github.app_id, clock.now).route]
        slack_door = Later(SLACK_PATH)
        if settings.slack_over_http:
            routes.append(slack_door.route)

        async def health() -> Mapping[str, object]:
            running = await store.running()
            told = {"version": VERSION, "turns_running": running, "warning": provider.warning}
            return {**told, "waiting_for": sorted(waiting_for)}

        web = WebServer(application(routes, health), settings.web.host, settings.web.port)
        await web.start()
        stack.push_async_callback(web.stop)
        ourselves = await _patiently("GitHub", lambda: app.introduce(settings.github.label))
        waiting_for.discard("github")
        repositories = Repositories(app, ourselves)
        accounts = Accounts(app)
        forge = GitHubForge(app, repositories, accounts, mirrors, clock, lent.on_demand)
        surfaces: dict[str, Surface] = {"github": GitHubSurface(app, repositories, accounts, ourselves)}

        if settings.slack_on:
            slack = await _patiently("Slack", lambda: _slack(settings, store))
            stack.push_async_callback(slack.stop)
            surfaces["slack"] = slack.surface
            if settings.slack_over_http:
                slack_door.becomes(slack.route())
            await _patiently("Slack", slack.start)
            waiting_for.discard("slack")

        core = Core(
            store=store,
            dispatcher=dispatcher,
            surfaces=surfaces,
            forge=forge,
            provider=provider,
            agents=agents,
            programs=programs,
            clock=clock,
            scratch=_scratch(settings.data_dir),
            shared=settings.data_dir / "shared",
            owner=f"{socket.gethostname()}:{os.getpid()}",
            policy=policy,
            secrets=settings.secrets(),
            certificates=settings.certificates(),
        )
        ready.append(core)
        log.info("sandpiper %s is ready: %s", VERSION, ", ".join(sorted(surfaces)))
        yield core


async def _slack(settings: Settings, store: SqliteStore) -> Slack:
    return await connect(
        bot_token=settings.slack.bot_token.get_secret_value(),
        accept=store.accept,
        app_token=settings.slack.app_token.get_secret_value(),
        signing_secret=settings.slack.signing_secret.get_secret_value(),
        base_url=settings.slack.api_url,
    )


async def _patiently(who: str, call: Callable[[], Awaitable[T]]) -> T:
    """A surface that is away at our start is waited for; a wrong token or key is not."""
    while True:
        try:
            return await call()
        except SurfaceBusy as busy:
            wait, error = busy.retry_after, str(busy)
        except ForgeError as failed:
            if not failed.retryable:
                raise
            wait, error = AWAY_RETRY, str(failed)
        log.warning("%s does not answer yet: %s", who, error)
        await asyncio.sleep(max(AWAY_RETRY, wait))


def _policy(settings: Settings) -> Policy:
    allow, deadline = settings.allow, settings.deadline
    return Policy(
        installation=settings.installation,
        defaults=Defaults(
            settings.default_repository,
            settings.default_agent,
            settings.default_model,
            settings.default_effort,
        ),
        allowlist=Allowlist(allow.people, allow.channels, allow.repositories),
        steer_policy=settings.steer_policy,
        permissions=settings.permissions,
        caps=_caps(settings),
        deadlines=Deadlines(
            deadline.prepare,
            deadline.silence,
            deadline.turn,
            deadline.publish,
            approval=deadline.approval,
        ),
        ages=_ages(settings),
        hooks=HookSeconds(settings.hook.setup, settings.hook.start),
        orphan_after=settings.sandbox.orphan,
        git_name=settings.git_name,
        git_email=settings.git_email,
    )


def _caps(settings: Settings) -> Caps:
    cap = settings.cap
    return Caps(cap.total, cap.tenant, cap.person, cap.sandboxes)


def _trust(settings: Settings) -> None:
    """From here on, OpenSSL, requests and git are told of the operator's certificates too."""
    if bundle := settings.certificates():
        os.environ.update(trust_it_ourselves(bundle, settings.data_dir))


def _ages(settings: Settings) -> Ages:
    about = settings.sandbox
    # What stops itself at Daytona loses its programs; at E2B it keeps them, and plans limit the time.
    busy = about.orphan if about.provider == "daytona" else 0.0
    return Ages(about.idle_stop, about.ttl, about.retention, about.worktree_ttl, busy_stop=busy)


def _scratch(data_dir: Path) -> Path:
    """Bundles on their way in and out; what a crash left there is of no use."""
    scratch = data_dir / "scratch"
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(scratch)
    scratch.mkdir(mode=0o700)
    return scratch
