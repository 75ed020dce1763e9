"""What the contract suite needs of each forge: one repository, and the hands of those who work on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from bot.ports import Forge


class ForgeRig(Protocol):
    """A forge with a repository whose default branch is main.

    name: the repository. scratch: an empty directory. writer, reader, stranger: accounts with the roles
    write, read and none that is known; the repository is public.
    """

    forge: Forge
    name: str
    scratch: Path
    writer: str
    reader: str
    stranger: str

    async def push(self, branch: str, files: Mapping[str, str | None]) -> str:
        """Somebody commits to a branch (a new one starts at main). Returns the commit."""
        ...

    async def delete(self, branch: str) -> None:
        """Somebody deletes a branch."""
        ...

    async def heads(self) -> Mapping[str, str]:
        """Branch → commit, as the forge has them."""
        ...

    async def add_pull_request(self, branch: str, title: str, body: str) -> int:
        """Somebody opens a pull request to main."""
        ...

    async def edit_pull_request(self, number: int, title: str, body: str) -> None: ...

    async def close_pull_request(self, number: int) -> None: ...

    async def merge_pull_request(self, number: int) -> None: ...

    async def pull_requests(self) -> Mapping[int, tuple[str, str]]:
        """All of them: number → title and body."""
        ...

    def lose_next_answer(self) -> None:
        """The next pull request is opened, but nobody hears of it."""
        ...

    def lend(self, turn: int) -> None:
        """From here on the repository counts as large, and this turn is open."""
        ...

    def end(self, turn: int) -> None:
        """The turn has ended."""
        ...

    def decline_next_push(self, reason: str) -> None:
        """A rule of the forge stands against the next push."""
        ...
