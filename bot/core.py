"""The core's parts put together over its ports, and its loops. Knows no vendor."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

from bot.access import Access, Allowlist
from bot.agents.codec import Codec, Permissions
from bot.attempts import Attempts
from bot.choosing import Choosing
from bot.departures import Departures
from bot.driver import Deadlines
from bot.endings import Endings
from bot.file_verb import FileVerb
from bot.hooks import Hooks, HookSeconds
from bot.intake import Intake
from bot.losses import Losses
from bot.models import Caps
from bot.operators import Operators
from bot.outbox import Outbox
from bot.ports import Clock, Dispatcher, Forge, Provider, Store, Surface
from bot.preparation import Preparation
from bot.programs import Program, Programs
from bot.pull_requests import PullRequests
from bot.put_away import SECONDS, PutAway
from bot.reconcile import Reconcile
from bot.recovery import resume_open_turns
from bot.sandbox_verbs import SandboxVerbs
from bot.sandboxes import Ages, Sandboxes
from bot.sessions import Defaults, Sessions
from bot.shared_files import SharedFiles
from bot.sharing import Sharing
from bot.steerers import Steerers
from bot.trust import Trust
from bot.turns import Turns
from bot.workspace import Workspaces

log = logging.getLogger(__name__)

HOUSEKEEPING = 60.0
RECONCILE_EVERY = 5  # rounds of housekeeping
ASK_AROUND_EVERY = 1440


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator decides. Seconds where it is about time."""

    installation: str = "sandpiper"
    defaults: Defaults = field(default_factory=Defaults)
    allowlist: Allowlist = field(default_factory=Allowlist)
    steer_policy: str = "collaborators"
    caps: Caps = field(default_factory=Caps)
    deadlines: Deadlines = field(default_factory=Deadlines)
    ages: Ages = field(default_factory=lambda: Ages(1800.0))
    hooks: HookSeconds = field(default_factory=HookSeconds)
    orphan_after: float = 86400.0
    permissions: Permissions = Permissions.AUTO
    git_name: str = "sandpiper[bot]"
    git_email: str = "sandpiper[bot]@users.noreply.github.com"


class Core:
    """Everything between the surfaces and the sandboxes."""

    def __init__(
        self,
        *,
        store: Store,
        dispatcher: Dispatcher,
        surfaces: Mapping[str, Surface],
        forge: Forge,
        provider: Provider,
        agents: Mapping[str, Codec],
        clock: Clock,
        scratch: Path,
        shared: Path,
        owner: str,
        policy: Policy,
        programs: Mapping[str, Program] = MappingProxyType({}),
        secrets: Iterable[str] = (),
        certificates: bytes = b"",
    ) -> None:
        self.store = store
        self._dispatcher = dispatcher
        self._clock = clock
        self._owner = owner
        self.sandboxes = Sandboxes(
            store, provider, clock, policy.installation, policy.ages, most=policy.caps.sandboxes
        )
        self.reconcile = Reconcile(store, self.sandboxes)
        access = Access(forge, surfaces, policy.allowlist, policy.steer_policy, self.sandboxes.within_reach)
        patient = partial(Workspaces, store, forge, scratch, policy.git_name, policy.git_email)
        workspaces = patient(patience=policy.deadlines.git)
        brief = patient(patience=SECONDS)
        self.worktrees = PutAway(store, self.sandboxes, brief, clock, policy.ages.worktree)
        pull_requests = PullRequests(forge, workspaces, clock)
        endings = Endings(store, surfaces, self.sandboxes, workspaces, pull_requests, clock, policy.deadlines)
        trust = Trust(certificates)
        hooks = Hooks(workspaces, clock, policy.hooks, trust)
        self._programs = installed = Programs(programs, trust)
        self._usual_agent = policy.defaults.agent
        steerers = Steerers(
            store,
            access,
            surfaces,
            clock,
            together=not provider.separates_sessions,
            patience=policy.deadlines.prepare,
        )
        preparation = Preparation(
            store,
            self.sandboxes,
            workspaces,
            installed,
            hooks,
            access,
            steerers,
            clock,
            trust,
            deadlines=policy.deadlines,
        )
        self._shared = SharedFiles(shared, secrets)
        attempts = Attempts(
            store,
            surfaces,
            self.sandboxes,
            workspaces,
            preparation,
            steerers,
            endings,
            Sharing(store, clock, self._shared),
            agents,
            clock,
            policy.deadlines,
            orphan_after=policy.orphan_after,
            scratch=scratch,
            permissions=policy.permissions,
            trust=trust,
        )
        self.turns = Turns(
            store,
            surfaces,
            preparation,
            attempts,
            endings,
            clock,
            owner=owner,
            caps=policy.caps,
            deadlines=policy.deadlines,
            warning=provider.warning,
        )
        losses = Losses(store, self.sandboxes, workspaces)
        files = FileVerb(store, self.sandboxes, workspaces, self._shared)
        boxes = SandboxVerbs(store, surfaces, self.sandboxes, losses, clock)
        self.operators = Operators(store, self.sandboxes, self.reconcile, losses, surfaces, clock)
        choosing = Choosing(store, agents, policy.permissions)
        self.sessions = Sessions(
            store, surfaces, forge, access, clock, choosing, boxes, files, policy.defaults, provider.warning
        )
        self.departures = Departures(store, surfaces, self.sandboxes, clock)
        self.intake = Intake(store, surfaces, self.sessions, self.departures, clock)
        self.outbox = Outbox(store, surfaces, clock, self.turns.picture, self._shared)

    async def run(self) -> None:
        """Until cancelled: take in, drive, say, keep house. What was open before goes on first."""
        self._shared.sweep(await self.store.shared_files())
        await resume_open_turns(self.store, self._dispatcher, self._owner)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.intake.run())
            group.create_task(self._dispatcher.run(self.turns.drive))
            group.create_task(self.outbox.run())
            group.create_task(self._keep_house())
            group.create_task(self._keep_sandboxes())
            group.create_task(self._keep_worktrees())
            group.create_task(self._programs.ahead(self.sandboxes.provider, self._usual_agent))

    async def _keep_house(self) -> None:
        while True:
            try:
                await self.store.wake_forgotten()
                await self.store.sweep(self._clock.now())
            except Exception:  # housekeeping must never take the bot down; it tries again
                log.exception("housekeeping failed")
            await self._clock.sleep(HOUSEKEEPING)

    async def _keep_sandboxes(self) -> None:
        """Beside the housekeeping, which a slow provider must not hold up."""
        for round in itertools.count():
            try:
                if round % RECONCILE_EVERY == 0:
                    await self.reconcile.run()
                await self.sandboxes.stop_idle()
                await self.sandboxes.delete_expired()
                if round % ASK_AROUND_EVERY == 0:
                    await self.departures.ask_around()
                await self.departures.delete_due()
            except Exception:  # as above
                log.exception("looking after the sandboxes failed")
            await self._clock.sleep(HOUSEKEEPING)

    async def _keep_worktrees(self) -> None:
        """Beside the sandboxes' own, which large worktrees must not hold up."""
        while True:
            try:
                await self.worktrees.run()
            except Exception:  # as above
                log.exception("putting worktrees away failed")
            await self._clock.sleep(HOUSEKEEPING * RECONCILE_EVERY)
