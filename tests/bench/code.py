"""The code of a repository with a long history in a sandbox: for its first thread, for another one,
after a few commits more, and on demand, each against a full clone of it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from bot.errors import ProviderUnavailable
from bot.models import Person, Session, ThreadKey
from bot.ports import Sandbox, Store
from bot.workspace import Workspaces
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider
from tests.bench.table import Row, Skipped
from tests.github_stage import WEB, Stage, github_stage

COMMITS = 20_000
FILES = 800
TIMES = 3
MEANS = "Code: a full `git clone` of the same repository, by git's own transport, on the same disk."


class _NoStore:
    """Workspaces only tell the store where they are."""

    async def set_workspace(
        self, session: str, branch: str, base: str, base_sha: str, repository: int
    ) -> None:
        pass


async def measure(directory: Path) -> Sequence[Row]:
    async with github_stage(directory) as stage:
        provider = LocalProvider(directory / "sandboxes", Bubblewrap(Options(bot=stage.lending), allow=()))
        try:
            await provider.check()
        except ProviderUnavailable as error:
            raise Skipped(str(error)) from error
        bare = stage.github.repository(WEB).path
        await _git(bare, "fast-import", "--quiet", "--force", stdin=_history(COMMITS))
        (directory / "scratch").mkdir()
        workspaces, on_demand = [
            Workspaces(cast(Store, _NoStore()), forge, directory / "scratch", "bot", "bot@x.test")
            for forge in (stage.forge, stage.lending_from(1))
        ]
        clone = min([await _clone(bare, directory / f"clone-{number}") for number in range(TIMES)])
        sandbox, lent = await provider.create({}), await provider.create({})
        try:
            first = await _opened(workspaces, stage, sandbox)
            second = min([await _opened(workspaces, stage, sandbox) for _ in range(TIMES)])
            await _git(bare, "fast-import", "--quiet", stdin=_more(10))
            third = await _opened(workspaces, stage, sandbox)
            fetched = await _opened(on_demand, stage, lent)
            size, whole = [_megabytes(directory / "sandboxes" / box.id) for box in (lent, sandbox)]
        finally:
            await sandbox.delete()
            await lent.delete()
            await provider.close()
    rows = (
        ("the first thread", first),
        ("another thread", second),
        ("another, after 10 new commits", third),
        ("the first thread, on demand", fetched),
    )
    means = "Code on demand: the clone of a sandbox that has all of it, in MB."
    return [
        *(
            Row(f"code of {COMMITS:,} commits, {who}", "ms", took * 1000, clone * 1000, MEANS)
            for who, took in rows
        ),
        Row(f"code of {COMMITS:,} commits, what lies in the box on demand", "MB", size, whole, means),
    ]


def _megabytes(box: Path) -> float:
    """What the clones of a box take on the disk."""
    files = (path for path in (box / "repositories").rglob("objects/**/*") if path.is_file())
    return sum(path.stat().st_size for path in files) / 1e6


async def _opened(workspaces: Workspaces, stage: Stage, sandbox: Sandbox) -> float:
    repository = await stage.forge.repository(WEB)
    owner = Person(1, "github:1", stage.identity("ada"))
    id = uuid.uuid4().hex
    session = Session(
        id, owner.tenant, owner, ThreadKey("slack", "T1/C1", id), repository, "scripted", "", "Work"
    )
    began = time.perf_counter()
    place = await workspaces.open(session, sandbox, 1)
    took = time.perf_counter() - began
    assert place.base_sha
    return took


async def _clone(bare: Path, to: Path) -> float:
    """Packed and unpacked as by the forge, but for HTTP."""
    began = time.perf_counter()
    await _git(bare, "clone", "--quiet", f"file://{bare}", str(to))
    return time.perf_counter() - began


async def _git(bare: Path, *words: str, stdin: bytes = b"") -> None:
    git = await asyncio.create_subprocess_exec(
        "git", *words, cwd=bare, stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    _, said = await git.communicate(stdin)
    if git.returncode:
        raise RuntimeError(f"git {words[0]}: {said.decode(errors='replace')}")


def _history(commits: int) -> bytes:
    return b"".join(_commits(range(commits), first=True))


def _more(commits: int) -> bytes:
    return b"".join(_commits(range(COMMITS, COMMITS + commits), first=False))


def _commits(numbers: range, *, first: bool) -> Iterator[bytes]:
    """As fast-import reads them: each changes one file of some KB."""
    for number in numbers:
        text = "".join(f"line {line} of {number * 7919 % (line + 13)}\n" for line in range(100)).encode()
        message = f"Change {number}"
        parent = "" if number else "reset refs/heads/main\n"
        beyond = "from refs/heads/main^0\n" if not first and number == numbers[0] else ""
        yield (
            (
                f"{parent}commit refs/heads/main\ncommitter A <a@x.test> {1_600_000_000 + number} +0000\n"
                f"data {len(message)}\n{message}\n{beyond}M 100644 inline src/{number % FILES}.txt\n"
                f"data {len(text)}\n"
            ).encode()
            + text
            + b"\n"
        )
