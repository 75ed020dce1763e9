"""The demo: the playground, and the real bot between its Slack and its GitHub, in one command."""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from handlers.playground.bot_process import BotFailed, BotProcess
from handlers.playground.page_guard import is_loopback_name
from handlers.playground.playground import Playground

PORT = 8150
ORPHAN_SECONDS = 300
_ROUNDS = 100
# -P: a directory called "bot" where it is started is not the program.
BOT = (sys.executable, "-P", "-m", "bot", "serve")

Say = Callable[[str], None]

# What a child needs of its surroundings to run at all, and what an operator may set for the sandboxes.
_KEPT = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LD_LIBRARY_PATH",
)
_SETTINGS = ("SANDPIPER_SANDBOX_", "SANDPIPER_EGRESS_", "SANDPIPER_AGENT_", "SANDPIPER_LOG_LEVEL")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Where Claude's credentials are found in people's environments, by the setting that takes them.
_CLAUDE = {
    "SANDPIPER_ANTHROPIC_API_KEY": ("ANTHROPIC_API_KEY",),
    "SANDPIPER_ANTHROPIC_AUTH_TOKEN": ("CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"),
    "SANDPIPER_ANTHROPIC_BASE_URL": ("ANTHROPIC_BASE_URL",),
}


class DemoFailed(RuntimeError):
    """The demo can't run; the message is for the person at the terminal and says what to do."""


async def run_demo(
    *,
    agent: str = "scripted",
    port: int | None = None,
    data_dir: Path | None = None,
    bot: Sequence[str] = BOT,
    say: Say = print,
) -> None:
    """Run the demo until Ctrl-C, or SIGTERM.

    agent: "scripted" needs nothing; "claude" is the real Claude Code with the caller's credentials.
    port: where the page is served; None takes PORT, or a free one where that is taken. data_dir: the
    run's data goes into a new directory there and is kept; None takes one under the user's cache, which
    is removed at the end. Raises DemoFailed.
    """
    chosen = _agent_settings(agent, os.environ)
    with _stopped_by_signals() as stopped, _run_directory(data_dir) as directory:
        async with _playground(directory / "github", port) as playground:
            settings = {
                **playground.environment(),
                **chosen,
                "SANDPIPER_DATA_DIR": str(directory / "bot"),
                # What the agent left behind by a killed demo ends itself after this time.
                "SANDPIPER_SANDBOX_ORPHAN": str(ORPHAN_SECONDS),
                "SANDPIPER_SANDBOX_PORTS_HOST": "127.0.0.1",
            }
            process = BotProcess(
                bot,
                {**surroundings(os.environ), **settings},
                directory=directory,
                log=directory / "bot.log",
                health_url=playground.health_url,
                say=say,
            )
            playground.bot = process
            try:
                say("Starting Slack and GitHub on this machine, and the bot …")
                if await _done_before(stopped, process.start()):
                    say(_welcome(playground.url, agent, directory, kept=data_dir is not None))
                await stopped.wait()
                say("Stopping …")
            except BotFailed as error:
                raise DemoFailed(str(error)) from error
            finally:
                await process.stop()
                await end_left_over(directory)


def _welcome(url: str, agent: str, directory: Path, *, kept: bool) -> str:
    fate = "is kept" if kept else "is removed at the end"
    return (
        f"\n  Open {url}\n\n"
        f"  Slack and GitHub there are simulated, on this machine only. The bot, its sandboxes,\n"
        f"  git and the pull requests are real; the agent is {agent}.\n"
        f"  Data and the bot's log: {directory} ({fate})\n"
        f"  Stop: Ctrl-C\n"
    )


async def _done_before(stopped: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, unless people stop the demo before; was it done?"""
    working, waiting = asyncio.create_task(work), asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        return working.done() and working.result() is None
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.wait([working, waiting])


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[asyncio.Event]:
    """An event that the first signal sets; the second one is as deadly as ever."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopped.set()
        forget()

    def forget() -> None:
        for one in _SIGNALS:
            loop.remove_signal_handler(one)

    for one in _SIGNALS:
        loop.add_signal_handler(one, stop)
    try:
        yield stopped
    finally:
        forget()


@contextlib.asynccontextmanager
async def _playground(root: Path, port: int | None) -> AsyncIterator[Playground]:
    """The playground on `port`, which is not to be taken; None: on PORT, or wherever there is room."""
    playground = Playground(root, port=PORT if port is None else port)
    async with contextlib.AsyncExitStack() as exits:
        try:
            await exits.enter_async_context(playground)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if port is not None:
                raise DemoFailed(f"Port {port} is taken. Choose another one, or 0 for any.") from error
            playground = await exits.enter_async_context(Playground(root, port=0))
        yield playground


# The agent and the environment


def _agent_settings(agent: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The settings that choose the agent. Raises DemoFailed for one that can't run here."""
    if agent == "scripted":
        return {"SANDPIPER_AGENT_SCRIPTED": "true", "SANDPIPER_DEFAULT_AGENT": "scripted"}
    if agent != "claude":
        raise DemoFailed(f"The demo has no agent {agent!r}. Choose scripted or claude.")
    return {"SANDPIPER_DEFAULT_AGENT": "claude", **claude_settings(environment)}


def claude_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Claude Code's program and credentials, as settings. Raises DemoFailed if one is missing."""
    wanted = environment.get("SANDPIPER_AGENT_CLAUDE") or "claude"
    found = shutil.which(wanted, path=environment.get("PATH"))
    if found is None:
        raise DemoFailed(
            f"Claude Code is not installed: there is no {wanted!r} on the PATH.\n"
            "Install it (npm install -g @anthropic-ai/claude-code), set SANDPIPER_AGENT_CLAUDE to its path, "
            "or run the demo with the scripted agent."
        )
    settings = {}
    for name, sources in _CLAUDE.items():
        value = next((environment[key] for key in (name, *sources) if environment.get(key)), "")
        if value:
            settings[name] = value
    if not settings.keys() & {"SANDPIPER_ANTHROPIC_API_KEY", "SANDPIPER_ANTHROPIC_AUTH_TOKEN"}:
        raise DemoFailed(
            "Claude Code needs credentials: set ANTHROPIC_API_KEY, or CLAUDE_CODE_OAUTH_TOKEN "
            "(from `claude setup-token`), and start the demo again."
        )
    way_out = _way_out(settings.get("SANDPIPER_ANTHROPIC_BASE_URL", ""), environment)
    return {**_tools(Path(found), environment), **way_out, **settings}


def _tools(program: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What boxes have to see for the program to run in them; all of /usr they see anyway."""
    real = program.resolve()
    if "SANDPIPER_SANDBOX_TOOLS" in environment or real.is_relative_to("/usr"):
        return {}
    # npm puts a link into PREFIX/bin, to a script in PREFIX/lib/node_modules that PREFIX/bin/node runs.
    modules = next((parent for parent in real.parents if parent.parts[-2:] == ("lib", "node_modules")), None)
    if modules is not None:
        return {"SANDPIPER_SANDBOX_TOOLS": str(modules.parent.parent)}
    return {"SANDPIPER_SANDBOX_TOOLS": str(real.parent), "SANDPIPER_AGENT_CLAUDE": str(real)}


def _way_out(base_url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Boxes reach the models' usual hosts, and services of this machine that are named; others are added."""
    parts = urlsplit(base_url)
    if not parts.hostname or is_loopback_name(parts.netloc):
        return {}
    port = parts.port or (80 if parts.scheme == "http" else 443)
    others = [environment["SANDPIPER_EGRESS_ALLOW"]] if environment.get("SANDPIPER_EGRESS_ALLOW") else []
    return {"SANDPIPER_EGRESS_ALLOW": ",".join([*others, f"{parts.hostname}:{port}"])}


def surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the caller's environment that the bot gets; settings of a real bot stay out of it."""
    kept = {name: value for name, value in environment.items() if name in _KEPT or name.startswith(_SETTINGS)}
    for name in _PROXIES:
        kept |= {key: environment[key] for key in (name, name.lower()) if key in environment}
    # The simulators are on this machine, whatever the way to the rest of the world is.
    own = "127.0.0.1,localhost,::1"
    others = environment.get("NO_PROXY") or environment.get("no_proxy")
    return {**kept, "NO_PROXY": f"{others},{own}" if others else own}


# Places and processes


@contextlib.contextmanager
def _run_directory(data_dir: Path | None) -> Iterator[Path]:
    """A new directory for one run: in `data_dir`, or below the user's cache and removed at the end."""
    if data_dir is not None:
        data_dir.mkdir(parents=True, exist_ok=True)
        yield Path(tempfile.mkdtemp(prefix=time.strftime("demo-%Y%m%d-%H%M%S-"), dir=data_dir)).resolve()
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sandpiper"
    cache.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="demo-", dir=cache)).resolve()
    try:
        yield directory
    finally:
        _remove(directory)


def _remove(directory: Path) -> None:
    """Delete a tree, also where an agent took the rights to its own directories away."""
    for parent, names, _ in os.walk(directory):
        for child in (Path(parent, name) for name in names):
            if not child.is_symlink():
                child.chmod(stat.S_IRWXU)
    shutil.rmtree(directory)


async def end_left_over(directory: Path) -> None:
    """Kill what the bot leaves running on purpose when it ends: the keepers of agents, and their proxies.

    They are known by their `--dir`, which is below `directory`; what they have started goes with them.
    """
    for _ in range(_ROUNDS):
        parents, roots = _processes(directory)
        doomed = set(roots)
        while more := {pid for pid, parent in parents.items() if parent in doomed} - doomed:
            doomed |= more
        if not doomed:
            return
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.05)


def _processes(directory: Path) -> tuple[dict[int, int], list[int]]:
    """Every process's parent, and those that keep something below `directory`."""
    parents: dict[int, int] = {}
    roots = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            # The fields after the name, which stands in parentheses and may hold anything: state, parent.
            status = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            words = (entry / "cmdline").read_text(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if status[0] == "Z":
            continue
        parents[int(entry.name)] = int(status[1])
        if "--dir" in words[:-1] and words[words.index("--dir") + 1].startswith(f"{directory}/"):
            roots.append(int(entry.name))
    return parents, roots
