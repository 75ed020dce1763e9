"""The forge contract over GitHub: the real PyGithub and git, against the playground."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.contracts.forge.suite import ForgeContract
from tests.github_stage import WEB, Stage, github_stage


class GitHubRig:
    name = WEB
    stranger = "999999999"

    def __init__(self, stage: Stage, scratch: Path) -> None:
        self.forge = stage.forge
        self.scratch = scratch
        self.writer = stage.account("ada")
        self.reader = stage.account("mallory")
        self._github = stage.github
        self._stage = stage

    async def push(self, branch: str, files: Mapping[str, str | None]) -> str:
        return await self._github.push_commit(WEB, branch, dict(files), "ada")

    async def delete(self, branch: str) -> None:
        await self._github.delete_branch(WEB, branch, "ada")

    async def heads(self) -> Mapping[str, str]:
        return await self._github.branches(WEB)

    async def add_pull_request(self, branch: str, title: str, body: str) -> int:
        return await self._github.open_pull_request(WEB, "ada", branch, title, body)

    async def edit_pull_request(self, number: int, title: str, body: str) -> None:
        self._github.edit_issue(WEB, number, "ada", title=title, body=body)

    async def close_pull_request(self, number: int) -> None:
        self._github.close_issue(WEB, number, "ada")

    async def merge_pull_request(self, number: int) -> None:
        await self._github.merge(WEB, number, "ada")

    async def pull_requests(self) -> Mapping[int, tuple[str, str]]:
        return {pull.number: (pull.title, pull.body or "") for pull in self._github.pull_requests(WEB)}

    def lose_next_answer(self) -> None:
        self._github.lose_answer_next("POST", "/pulls$")

    def lend(self, turn: int) -> None:
        self.forge = self._stage.lending_from(1)
        self._stage.open.add(turn)

    def end(self, turn: int) -> None:
        self._stage.open.discard(turn)

    def decline_next_push(self, reason: str) -> None:
        self._github.refuse_push_next(f"error: {reason}")


class TestGitHubForge(ForgeContract):
    @pytest.fixture
    async def rig(self, tmp_path: Path) -> AsyncIterator[GitHubRig]:
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        async with github_stage(tmp_path) as stage:
            yield GitHubRig(stage, scratch)
