"""Which repository is meant, and by which installation of our App it is reached."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace
from typing import Any

from bot.errors import RepositoryUnknown
from bot.models import Repository
from handlers.github.auth import READ_METADATA, GitHubApp, Scope
from handlers.github.failures import CallFailed
from handlers.github.parse import Ourselves

REMEMBERED_FOR = 600.0  # seconds that a repository's installation is believed without asking

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}")
_ID = re.compile(r"[0-9]{1,19}")


class Repositories:
    """Looks repositories up, by name or by the id that survives renames.

    Paths by id (`/repositories/{id}/…`) are what GitHub itself redirects to after a rename.
    """

    def __init__(self, app: GitHubApp, ourselves: Ourselves) -> None:
        self._app = app
        self._ourselves = ourselves
        self._names: dict[int, str] = {}
        self._installations: dict[int, tuple[int, float]] = {}

    async def find(self, name: str) -> Repository:
        """By "owner/name" or by id in digits, as it is now. Raises RepositoryUnknown, ForgeError."""
        if _ID.fullmatch(name):
            path = f"/repositories/{name}"
        elif _NAME.fullmatch(name):
            path = f"/repos/{name}"
        else:
            raise RepositoryUnknown(f"'{name[:100]}' is not a repository.", "Write it as owner/name.")
        try:
            installation, found = await self._told(path, self._likely(name))
        except CallFailed as failed:
            if failed.status == 404:
                raise self._unknown(name) from failed
            raise
        repository = Repository(
            id=int(found["id"]),
            full_name=str(found["full_name"]),
            default_branch=str(found["default_branch"]),
            private=bool(found["private"]),
            installation=installation,
        )
        self.learn(repository.id, repository.full_name, installation)
        return repository

    async def current(self, repository: Repository) -> Repository:
        """With its name and installation of today. Raises RepositoryUnknown, ForgeError."""
        installation = await self.installation(repository.id)
        return replace(repository, full_name=self._names[repository.id], installation=installation)

    async def installation(self, id: int) -> int:
        """The installation that reaches a repository. Raises RepositoryUnknown, ForgeError."""
        installation, until = self._installations.get(id, (0, 0.0))
        if until <= time.monotonic():
            installation = (await self.find(str(id))).installation
        return installation

    async def id_of(self, name: str) -> int:
        """The id of "owner/name". Raises RepositoryUnknown, ForgeError."""
        for id, known in self._names.items():
            if known == name:
                return id
        return (await self.find(name)).id

    def learn(self, id: int, full_name: str, installation: int) -> None:
        """What a delivery of GitHub's says about a repository saves asking."""
        self._names[id] = full_name
        self._installations[id] = (installation, time.monotonic() + REMEMBERED_FOR)

    def forget(self, id: int) -> None:
        """GitHub denies what we remember: ask again next time."""
        self._installations.pop(id, None)

    def name_of(self, id: str) -> str:
        """The last known "owner/name", or ""."""
        return self._names.get(int(id), "") if _ID.fullmatch(id) else ""

    def _likely(self, name: str) -> int:
        """The installation that reached it the last time; 0: it was never asked for."""
        for id, known in self._names.items():
            if name in (known, str(id)):
                return self._installations.get(id, (0, 0.0))[0]
        return 0

    async def _told(self, path: str, likely: int) -> tuple[int, dict[str, Any]]:
        """The installation, and what it is told of the repository. Both are asked for at once where the
        installation is likely the same as before: people wait for the first sign of life."""
        if not likely:
            installation = await self._installation(path)
            return installation, await self._get(installation, path)
        installed, found = await asyncio.gather(
            self._installation(path), self._get(likely, path), return_exceptions=True
        )
        if isinstance(installed, BaseException):
            raise installed
        if installed != likely or isinstance(found, BaseException):
            found = await self._get(installed, path)
        return installed, found

    async def _installation(self, path: str) -> int:
        _, found = await self._app.as_app(
            lambda github: github.requester.requestJsonAndCheck("GET", f"{path}/installation")
        )
        return int(found["id"])

    async def _get(self, installation: int, path: str) -> dict[str, Any]:
        _, found = await self._app.read(
            Scope(installation, 0, READ_METADATA),
            lambda github: github.requester.requestJsonAndCheck("GET", path),
        )
        return dict(found)

    def _unknown(self, name: str) -> RepositoryUnknown:
        shown = self.name_of(name) or name
        return RepositoryUnknown(
            f"There is no repository {shown} that I can reach.",
            f"Check its name, or install the App on {shown}: "
            f"{self._app.web_url}/apps/{self._ourselves.slug}/installations/new",
        )
