"""What a repository wants run before an agent works on it: its setup, once per worktree and content, and its
start, after every start of the sandbox.

A hook has what an agent has, and no more: the session's directories, the way out, and no secrets. What comes
of it is shown and told; it ends no turn.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bot import hook_scripts as scripts
from bot.devcontainer import command_of
from bot.driver import Driver
from bot.errors import SandboxError, SandboxGone, SandboxNotRunning, SandboxUnreachable
from bot.events import ToolCall, ToolKind, ToolStatus
from bot.last_words import LastWords
from bot.models import TREE, ExecResult, Launch, Place, Session
from bot.patience import patiently
from bot.ports import Clock, Sandbox
from bot.prompts import hook_failed
from bot.timeline import HOOK
from bot.trust import NO_TRUST, Trust
from bot.workspace import Workspaces

GRACE = 30.0  # seconds beyond the time of a hook, and of one before it that goes on without its caller
TRIES = 2
LATE = (124, 137)  # exit codes of `timeout`
READING = 10.0  # seconds for what an agent may have written; other turns go on meanwhile
SETUP, START = "setup", "start"
COMMANDS = {SETUP: "postCreateCommand", START: "postStartCommand"}


@dataclass(frozen=True, slots=True)
class HookSeconds:
    """How long a repository's hooks may take; 0: they are not run."""

    setup: int = 300
    start: int = 60


@dataclass(frozen=True, slots=True)
class _Hook:
    """row: its id in the picture. stamp: what is run; the same one is not run again. mark: of what was run
    before."""

    name: str
    row: str
    title: str
    command: str
    stamp: str
    mark: str
    seconds: int

    def earlier(self, asker: str) -> bool:
        """Was it run already, and told of to somebody else than this turn?"""
        stamp, by = (*self.mark.split(" "), "")[:2]
        return stamp == self.stamp and by != asker


class Hooks:
    def __init__(
        self, workspaces: Workspaces, clock: Clock, seconds: HookSeconds, trust: Trust = NO_TRUST
    ) -> None:
        self._trust = trust
        self._workspaces = workspaces
        self._clock = clock
        self._seconds = seconds

    async def run(
        self, driver: Driver, sandbox: Sandbox, place: Place, started: float, *, opened: bool
    ) -> Place:
        """What there is to run, run and shown; the place's notes then say what failed. started: when the
        sandbox was. opened: the workspace was, so its setup may be due."""
        notes: list[str] = []
        first, *others = driver.session.each()
        notes += await self._of_one(driver, sandbox, place, first, started, opened=opened)
        for session, beside in zip(others, place.beside, strict=True):
            there = replace(place, directory=beside.directory)
            notes += await self._of_one(driver, sandbox, there, session, started, opened=opened)
        return replace(place, notes=(*place.notes, *notes))

    async def _of_one(
        self,
        driver: Driver,
        sandbox: Sandbox,
        place: Place,
        session: Session,
        started: float,
        *,
        opened: bool,
    ) -> Sequence[str]:
        """Those of one of the session's repositories, whose worktree is the place's directory."""
        asker = str(driver.turn.id)
        lines = await patiently(self._clock, lambda: self._workspaces.hooks(session, sandbox))
        where = "" if session.tree == TREE else f"{session.tree}/"
        found, trouble = await _read(lines, place.directory, started, self._seconds, where)
        notes = list(trouble)
        for text in driver.untold(trouble):
            await driver.tell(text)
        for hook in found:
            due = hook.seconds > 0 and not hook.earlier(asker) and (opened or hook.name == START)
            if due and (note := await self._one(driver, sandbox, place, hook, asker)):
                notes.append(note)
        return notes

    async def _one(self, driver: Driver, sandbox: Sandbox, place: Place, hook: _Hook, asker: str) -> str:
        """Run it, and say what came of it; what the agent is told of that, if anything."""
        row = ToolCall(HOOK + hook.row, ToolKind.EXECUTE, f"Running {hook.title}", ToolStatus.IN_PROGRESS)
        await driver.tell(row)
        arguments = (place.directory, hook.name, hook.stamp, asker, str(hook.seconds), hook.command)
        launch = Launch(("sh", "-c", scripts.RUN, "hook", *arguments), "/", visible=place.visible)
        launch = self._trust.into(sandbox, launch)
        try:
            done = await patiently(
                self._clock, lambda: sandbox.run(launch, timeout=2 * hook.seconds + GRACE), TRIES
            )
            how, last = _came_of(done, hook.seconds)
        except SandboxUnreachable:
            how, last = "could not be watched to its end: the sandbox did not answer", ""
        except (SandboxGone, SandboxNotRunning):
            raise
        except SandboxError as error:
            how, last = "could not be run", error.what
        failed = ToolStatus.FAILED if how else ToolStatus.COMPLETED
        title = f"{hook.title} {how}" if how else f"Ran {hook.title}"
        await driver.tell(replace(row, title=title, status=failed, result=last))
        if not how:
            return ""
        told = f"{hook.title} {how}. The agent is told, and starts all the same."
        for notice in driver.untold([told]):
            await driver.tell(notice)
        return hook_failed(hook.title, how, last)


async def _read(
    lines: Sequence[str], directory: str, started: float, seconds: HookSeconds, where: str
) -> tuple[list[_Hook], list[str]]:
    try:
        async with asyncio.timeout(READING):
            return await asyncio.to_thread(_found, lines, directory, started, seconds, where)
    except TimeoutError:
        return [], [f"What {where}devcontainer.json wants run takes too long to read, so no hooks are run."]


def _found(
    lines: Sequence[str], directory: str, started: float, seconds: HookSeconds, where: str
) -> tuple[list[_Hook], list[str]]:
    """The hooks of LOOK's lines, and what is wrong with what should say them. where: the worktree, for
    people; "" for the first."""
    lines = (*lines, *[""] * 6)
    hooks: list[_Hook] = []
    trouble: list[str] = []
    start_file = shlex.quote(f"{directory}.start.sh")
    sides = (
        (SETUP, lines[0], lines[1], lines[2], scripts.SETUP_FILE, "", seconds.setup),
        (START, lines[3], lines[4], lines[5], f"exec {start_file}", f"{started:.3f}-", seconds.start),
    )
    for name, file, config, mark, of_file, before, most in sides:
        title, command = f"{where}.sandpiper/{name}.sh", of_file
        if file == "-":
            key = COMMANDS[name]
            title = f"{key} of {where.rstrip('/')}" if where else key
            try:
                text = base64.b64decode(config).decode(errors="replace")
                command = command_of(text, key, directory) if text.strip() else ""
            except ValueError as error:
                trouble.append(f"{where}devcontainer.json has no {key} for us: {error}.")
                continue
            file = hashlib.sha256(command.encode()).hexdigest()
        if file and command:
            hooks.append(_Hook(name, where + name, title, command, before + file, mark, most))
    return hooks, trouble


def _came_of(done: ExecResult, seconds: int) -> tuple[str, str]:
    """What went wrong ("": nothing), and the end of the output, without secrets."""
    first, _, out = done.out.partition(b"\n")
    words = LastWords(cut=len(out) >= scripts.MOST_SAID)
    words.hear(out if done.code == 0 else done.err)
    numbers = first.decode(errors="replace").split(" ")
    if done.code != 0 or len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        return "could not be run", words.text()
    code, took = (int(number[:9]) for number in numbers)
    if code in LATE and took >= seconds:
        return f"took longer than {seconds} s and was ended", words.text()
    return (f"failed with exit code {code}" if code else ""), words.text()
