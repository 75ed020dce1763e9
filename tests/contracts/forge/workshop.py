"""A clone as sandboxes have it: fed by bundles, worked on with the real git, emptied by bundles."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Mapping
from pathlib import Path

from bot.models import Repository, Work
from bot.ports import Forge

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Agent",
    "GIT_AUTHOR_EMAIL": "agent@example.com",
    "GIT_COMMITTER_NAME": "Agent",
    "GIT_COMMITTER_EMAIL": "agent@example.com",
}


class Workshop:
    """One session's clone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count(1)

    @classmethod
    async def made(cls, directory: Path) -> Workshop:
        directory.mkdir()
        workshop = cls(directory)
        await workshop.git("init", "--quiet", "--initial-branch=nothing", ".")
        return workshop

    async def git(self, *args: str, stdin: bytes = b"") -> str:
        process = await asyncio.create_subprocess_exec(
            "git",
            *args,
            cwd=self.directory,
            env=ENVIRONMENT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin)
        assert process.returncode == 0, err.decode()
        return out.decode().strip()

    async def bring_in(self, forge: Forge, repository: Repository) -> None:
        """What is new on the forge, as refs/remotes/origin/*."""
        path = self._file("in")
        have = (await self.git("for-each-ref", "--format=%(objectname)", "refs/remotes")).split()
        code = await forge.bundle(repository, have, path)
        if not code.empty:
            await self.git("fetch", "--quiet", str(path), "+refs/heads/*:refs/incoming/*")
        for name, sha in code.refs.items():
            await self.git("update-ref", f"refs/remotes/origin/{name}", sha)

    async def start(self, branch: str, at: str = "origin/main") -> None:
        await self.git("checkout", "--quiet", "-B", branch, at)

    async def commit(self, files: Mapping[str, str | None], message: str = "Work") -> str:
        for name, text in files.items():
            path = self.directory / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        await self.git("add", "--all")
        await self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return await self.git("rev-parse", "HEAD")

    async def work(self, branch: str, base: str = "main") -> Work:
        """The commits of HEAD on their way out to `branch`."""
        head = await self.git("rev-parse", "HEAD")
        base_sha = await self.git("merge-base", "HEAD", f"origin/{base}")
        count = int(await self.git("rev-list", "--count", f"{base_sha}..{head}"))
        return Work(branch, base, base_sha, head, count)

    async def bundle(self, *without: str, ref: str = "HEAD") -> Path:
        path = self._file("out")
        await self.git("update-ref", "refs/sandpiper/outgoing/x", await self.git("rev-parse", ref))
        known = [f"^{sha}" for sha in without]
        await self.git("bundle", "create", "--quiet", str(path), "refs/sandpiper/outgoing/x", *known)
        return path

    def _file(self, name: str) -> Path:
        return self.directory.with_name(f"{self.directory.name}-{name}-{next(self._numbers)}.bundle")
