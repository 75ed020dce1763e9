"""Agents that are started, spoken to, taken over and ended over and over, while their bot is killed.

    python -m tests.soak DIRECTORY --cycles N --seed S      prints what it saw as JSON; exit code 1: a leak

The referee starts a bot in a process of its own, kills it (SIGKILL) at random moments and starts the next
one, which goes on with what the journal has, as a bot does with its store. Whatever those processes leave
behind becomes the referee's child, so that nothing can hide.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bot.errors import ProcessGone
from bot.models import Launch
from bot.ports import Process, Sandbox
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider

LABELS = {"purpose": "soak"}
STEERS = 3
LATEST_KILL = 1.5  # seconds after a bot came up
PATIENCE = 30.0
SUBREAPER = 36  # prctl's PR_SET_CHILD_SUBREAPER
# An agent with a child that does not end by itself, in a group of its own.
AGENT = 'setsid sleep 600 & while read -r line; do echo "got $line"; done; exit 5'


# The bot's side


@dataclass
class Journal:
    """What a bot knows after it was killed."""

    path: Path
    cycle: int = 0
    fence: int = 0
    heard: str = ""
    spawned: list[float] = field(default_factory=list)  # seconds
    steered: list[float] = field(default_factory=list)

    @classmethod
    def opened(cls, path: Path) -> Journal:
        return cls(path, **json.loads(path.read_text())) if path.exists() else cls(path)

    def save(self) -> None:
        kept = {name: value for name, value in asdict(self).items() if name != "path"}
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(kept))
        fresh.replace(self.path)


def provider_in(directory: Path) -> LocalProvider:
    return LocalProvider(directory / "sandboxes", Bubblewrap(Options(), allow=()))


async def bot(directory: Path, cycles: int, seed: int) -> None:
    """One life of a bot. Raises AssertionError where something was lost, doubled or leaked."""
    provider = provider_in(directory)
    found = await provider.find(LABELS)
    sandbox = found[0] if found else await provider.create(LABELS)
    journal = Journal.opened(directory / "journal.json")
    journal.fence += 1
    journal.save()
    print("up", flush=True)
    open_files = 0
    while journal.cycle < cycles:
        await _cycle(sandbox, journal, random.Random(f"{seed}-{journal.cycle}"))
        if open_files:
            await _until(functools.partial(_has_at_most, open_files), "descriptors leak")
        else:
            open_files = _open_files()
        await _until(lambda: not any(p.zombie for p in below(os.getpid())), "zombies stay")
    await provider.close()


async def _cycle(sandbox: Sandbox, journal: Journal, dice: random.Random) -> None:
    key = f"turn-{journal.cycle}"
    words = "".join(f"{journal.cycle}-{step}\n" for step in range(STEERS))
    expected = "".join(f"got {line}\n" for line in words.splitlines())
    with contextlib.suppress(ProcessGone):  # it was forgotten, but the journal did not hear of it
        process = await _started(sandbox, journal, key, over=journal.heard == expected)
        while journal.heard != expected:
            lines = words.splitlines(keepends=True)
            before = len("".join(lines[: journal.heard.count("\n")]))
            upto = len("".join(lines[: journal.heard.count("\n") + 1]))
            began = time.monotonic()
            again = dice.randint(0, before)  # a bot that is not sure sends some of it once more
            await process.write(again, words[again:upto].encode())
            said = await process.read(1, len(journal.heard), ack=len(journal.heard), wait=PATIENCE)
            assert said.data, f"{key} has ended with {journal.heard!r}"
            journal.heard += said.data.decode()
            journal.steered.append(time.monotonic() - began)
            journal.save()
            assert expected.startswith(journal.heard), f"{key} said {journal.heard!r}"
            if dice.random() < 0.3:
                await sandbox.run(Launch(("sh", "-c", "sleep 0.1; sleep 60 & echo done"), sandbox.home))
        await _ended(process, len(words), dice.choice(("eof", "INT", "KILL")))
    journal.cycle += 1
    journal.heard = ""
    journal.save()


async def _started(sandbox: Sandbox, journal: Journal, key: str, *, over: bool) -> Process:
    if over:
        return await sandbox.attach(key, fence=journal.fence)
    began = time.monotonic()
    launch = Launch(("sh", "-c", AGENT), sandbox.home)
    process = await sandbox.spawn(key, launch, fence=journal.fence, orphan_after=600)
    journal.spawned.append(time.monotonic() - began)
    return process


async def _ended(process: Process, written: int, how: str) -> None:
    if how == "eof":
        await process.write(written, b"", eof=True)
    else:
        await process.signal("INT" if how == "INT" else "KILL")
    async with asyncio.timeout(PATIENCE):
        while (await process.status()).running:
            await asyncio.sleep(0.01)
            if how == "INT":  # a shell that reads does not have to obey it
                await process.signal("KILL")
    await process.forget()


async def _until(true: Callable[[], bool], trouble: str) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, trouble
        await asyncio.sleep(0.02)


def _has_at_most(most: int) -> bool:
    return _open_files() <= most


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def end(directory: Path) -> None:
    provider = provider_in(directory)
    for sandbox in await provider.find(LABELS):
        await sandbox.delete()
    await provider.close()


# The referee


@dataclass(frozen=True, slots=True)
class Seen:
    pid: int
    zombie: bool
    command: str


def below(root: int) -> Iterator[Seen]:
    """The processes below one."""
    parents, about = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            parents[int(entry.name)] = int(words[1])
            about[int(entry.name)] = Seen(int(entry.name), words[0] == "Z", command)
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        for pid in [pid for pid, its in parents.items() if its == parent]:
            waiting.append(pid)
            yield about[pid]


@dataclass
class Figures:
    """What a soak came to; lists are empty where nothing was left."""

    cycles: int
    seed: int
    kills: int = 0
    seconds: float = 0.0
    spawned: list[float] = field(default_factory=list)
    steered: list[float] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def referee(directory: Path, cycles: int, seed: int) -> Figures:
    ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)
    dice = random.Random(seed)
    figures = Figures(cycles, seed)
    began = time.monotonic()
    mounts = Path("/proc/self/mountinfo").read_text().count("\n")
    while _life(directory, figures, dice):
        pass
    figures.left += [f"process beside the proxy: {one}" for one in _settled(2, "egress.py")]
    kept = directory.glob("sandboxes/*/spool/*")
    figures.left += [f"spool: {path.name}" for path in kept]
    subprocess.run([*_me(directory, figures), "--as", "end"], check=True)
    figures.left += [f"process: {one}" for one in _settled(0, "")]
    boxes = directory / "sandboxes"
    figures.left += [f"directory: {path.name}" for path in [*boxes.glob("local-*"), *boxes.glob(".*")]]
    if (now := Path("/proc/self/mountinfo").read_text().count("\n")) != mounts:
        figures.left.append(f"mounts: {mounts} → {now}")
    journal = Journal.opened(directory / "journal.json")
    if journal.cycle != cycles:
        figures.trouble.append(f"{journal.cycle} cycles of {cycles}")
    figures.spawned, figures.steered = journal.spawned, journal.steered
    figures.seconds = time.monotonic() - began
    return figures


def _me(directory: Path, figures: Figures) -> list[str]:
    named = ["--cycles", str(figures.cycles), "--seed", str(figures.seed)]
    return [sys.executable, "-m", "tests.soak", str(directory), *named]


def _life(directory: Path, figures: Figures, dice: random.Random) -> bool:
    """One bot until it is killed (True: there is a next one) or has done all."""
    with subprocess.Popen([*_me(directory, figures), "--as", "bot"], stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        kill = figures.kills < max(3, figures.cycles // 2)
        try:
            code = child.wait(dice.uniform(0.0, LATEST_KILL) if kill else None)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
            figures.kills += 1
            return True
    if code != 0:
        figures.trouble.append(f"a bot ended with {code}")
    return False


def _settled(most: int, expected: str) -> list[str]:
    """The processes that do not go, but for `most` whose command has the expected words; those that have
    ended are ours to collect, unless somebody else is still their parent."""
    until = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        there = list(below(os.getpid()))
        wanted = [one for one in there if expected and expected in one.command and not one.zombie]
        others = [one for one in there if one not in wanted]
        if len(wanted) > most:
            others += wanted
        if not others or time.monotonic() > until:
            return [f"{'zombie ' if one.zombie else ''}{one.pid} {one.command[-300:]}" for one in others]
        time.sleep(0.05)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--as", dest="who", choices=("referee", "bot", "end"), default="referee")
    given = parser.parse_args()
    if given.who == "bot":
        asyncio.run(bot(given.directory, given.cycles, given.seed))
        return 0
    if given.who == "end":
        asyncio.run(end(given.directory))
        return 0
    figures = referee(given.directory, given.cycles, given.seed)
    print(json.dumps(asdict(figures)))
    return 1 if figures.left or figures.trouble else 0


if __name__ == "__main__":
    sys.exit(main())
