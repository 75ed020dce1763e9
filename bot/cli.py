"""The command line: `sandpiper serve`, `sandpiper sandboxes`, `sandpiper doctor` and `sandpiper demo`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from bot.app import VERSION, build, operate, prove, serve
from bot.doctor import Outcome, Result, line
from bot.doctor_checks import CHECKS
from bot.errors import SandpiperError, SettingsError
from bot.redact import redact
from bot.settings import Settings, load
from sandbox.daytona_snapshots import Size
from sandbox.template import dockerfile, named

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Exit codes: 0 ended as asked, 1 the doctor found something, 2 it could not start or go
    on."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.command == "doctor":
            return _doctor(arguments)
        commands = {"serve": _serve, "sandboxes": _sandboxes, "snapshot": _snapshot, "demo": _demo}
        commands[arguments.command](arguments)
    except SandpiperError as error:
        print(f"sandpiper: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 1 if arguments.command == "doctor" else 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sandpiper", description="A coding agent in Slack and GitHub.")
    parser.add_argument("--version", action="version", version=f"sandpiper {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve", help="run the bot, with the settings of the environment or .env")
    serving.add_argument("--env-file", type=Path, help="default: .env, where there is one")
    boxes = commands.add_parser(
        "sandboxes", help="look after people's sandboxes, whether the bot runs or not"
    )
    boxes.add_argument("--env-file", type=Path, help="default: .env, where there is one")
    doing = boxes.add_subparsers(dest="do", required=True)
    doing.add_parser("list", help="all that the bot knows, and those that it does not")
    for do, what in (
        ("stop", "stop it; its files stay"),
        ("start", "start it"),
        ("delete", "delete it with all that is in it"),
        ("pin", "never stop it for idleness nor delete it for age"),
        ("unpin", "take that back"),
    ):
        one = doing.add_parser(do, help=what)
        one.add_argument("id", help="as list shows it")
        if do == "delete":
            one.add_argument("--yes", action="store_true", help="whatever is lost with it")
    doctor = commands.add_parser("doctor", help="try whether the provider of sandboxes does what it has to")
    doctor.add_argument("--provider", nargs="?", const="", default="", help="default: the configured one")
    doctor.add_argument("--env-file", type=Path, help="default: .env, where there is one")
    snapshot = commands.add_parser("snapshot", help="what remote sandboxes are made of")
    making = snapshot.add_subparsers(dest="do", required=True)
    build = making.add_parser("build", help="have Daytona build it, and say the setting to use")
    build.add_argument("--env-file", type=Path, help="default: .env, where there is one")
    build.add_argument("--name", default="", help="default: made of the Dockerfile's content and the size")
    build.add_argument("--cpu", type=_amount, default=2, help="of each sandbox; default: 2")
    build.add_argument("--memory", type=_amount, default=4, help="GiB of each sandbox; default: 4")
    build.add_argument("--disk", type=_amount, default=10, help="GiB of each sandbox; default: 10")
    shown = making.add_parser("dockerfile", help="print it, for Docker and E2B")
    for one in (build, shown):
        one.add_argument("--from", dest="more", type=Path, help="a Dockerfile of yours that goes on with it")
    demo = commands.add_parser("demo", help="try everything on this machine, without any account")
    demo.add_argument("--agent", choices=("scripted", "claude"), default="scripted")
    demo.add_argument("--port", type=int, default=None, help="of the page")
    demo.add_argument("--data-dir", type=Path, default=None, help="keep the demo's data there")
    return parser


def _amount(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _snapshot(arguments: argparse.Namespace) -> None:
    try:
        more = arguments.more.read_text(encoding="utf-8") if arguments.more else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{arguments.more} cannot be read: {error}.") from error
    text = dockerfile(more)
    if arguments.do == "dockerfile":
        print(text, end="")
        return
    size = Size(arguments.cpu, arguments.memory, arguments.disk)
    name = arguments.name or named(text, VERSION, size.cpu, size.memory, size.disk)
    settings = load(_named(arguments.env_file))
    asyncio.run(build(settings, text, name, size, lambda line: print(line, flush=True)))
    print(f"Put this into the bot's settings:\n\nSANDPIPER_DAYTONA_SNAPSHOT={name}")


def _demo(arguments: argparse.Namespace) -> None:
    # Imported here: the product never loads the playground.
    from handlers.playground.demo import DemoFailed, run_demo

    try:
        asyncio.run(run_demo(agent=arguments.agent, port=arguments.port, data_dir=arguments.data_dir))
    except DemoFailed as error:
        raise SandpiperError(str(error)) from error


def _sandboxes(arguments: argparse.Namespace) -> None:
    os.umask(0o077)
    settings = load(_named(arguments.env_file))
    id, yes = getattr(arguments, "id", ""), getattr(arguments, "yes", False)
    print(asyncio.run(operate(settings, arguments.do, id, yes=yes)))


def _doctor(arguments: argparse.Namespace) -> int:
    os.umask(0o077)
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    settings = load(_named(arguments.env_file), provider=arguments.provider)
    print(f"One box of {settings.sandbox.provider} is made, tried and deleted.\n", flush=True)
    told: list[Result] = []

    def tell(result: Result) -> None:
        told.append(result)
        print(redact(line(result)), flush=True)

    asyncio.run(_until_told_to_stop(_proved(settings, tell)))
    failed = sum(result.outcome is Outcome.FAILED for result in told)
    ended = len(told) > len(CHECKS)  # one more: that nothing is left
    print(f"\n{'Interrupted. ' if not ended else ''}{failed or 'Nothing'} failed.")
    return 0 if ended and not failed else 1


async def _proved(settings: Settings, tell: Callable[[Result], None]) -> None:
    await prove(settings, tell)


def _serve(arguments: argparse.Namespace) -> None:
    os.umask(0o077)  # what the bot stores, people wrote in confidence
    logging.basicConfig(stream=sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Redacting(FORMAT))
    settings = load(_named(arguments.env_file))
    logging.getLogger().setLevel(settings.log_level.upper())
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(_until_told_to_stop(serve(settings)))


def _named(env_file: Path | None) -> Path:
    """The file of the settings: one that was named has to be there, .env need not."""
    if env_file is None:
        return Path(".env")
    file = env_file.expanduser()
    if not (file.is_file() and os.access(file, os.R_OK)):
        raise SettingsError(
            f"--env-file {env_file} is not there, or is no file that can be read.",
            "Name the file that has the settings, or leave the option out.",
        )
    return file


async def _until_told_to_stop(work: Coroutine[Any, Any, None]) -> None:
    """SIGINT and SIGTERM end the bot calmly; agents go on without it and are found again."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


class _Redacting(logging.Formatter):
    """Whatever gets into a line of the log, no secret leaves with it."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
