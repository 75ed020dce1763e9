"""Who may fetch and push over HTTP at the loopback GitHub, and what a push sets going."""

from collections.abc import Sequence

from handlers.playground.faults import Faults
from handlers.playground.git import GitAccess, GitHttp, GitRefused, GitRequest
from handlers.playground.git_records import RefUpdate
from handlers.playground.github_auth import Credentials, basic_password
from handlers.playground.github_errors import Refusal
from handlers.playground.github_pulls import Pulls
from handlers.playground.github_state import GitHubState, Repository


class GitDoor:
    """Lets installation tokens in as the password of any user name; GitHub names it `x-access-token`."""

    def __init__(self, state: GitHubState, credentials: Credentials, faults: Faults, pulls: Pulls) -> None:
        self._state = state
        self._credentials = credentials
        self._faults = faults
        self._pulls = pulls
        self.endpoint = GitHttp(self._authorize, self._pushed)

    def _authorize(self, request: GitRequest) -> GitAccess:
        scheme, _, encoded = (request.authorization or "").partition(" ")
        if scheme.lower() != "basic":
            raise GitRefused(401, "No anonymous access.")
        try:
            token = self._credentials.find(basic_password(encoded.strip()))
        except Refusal:
            raise GitRefused(
                401, "Invalid username or token. Password authentication is not supported for Git operations."
            ) from None
        bot = self._state.app.bot
        repository = self._state.repository_named(f"{request.owner}/{request.name}")
        covered = repository is not None and token.covers(repository)
        if repository is None or (repository.private and not covered):
            raise GitRefused(404, "Repository not found.")
        pushes = request.service == "git-receive-pack"
        if pushes and not (covered and token.allows({"contents": "write"})):
            raise GitRefused(403, f"Permission to {repository.full_name}.git denied to {bot.login}.")
        if repository.private and not token.allows({"contents": "read"}):
            raise GitRefused(403, "Write access to repository not granted.")
        environment = {}
        if pushes and not request.only_lists_refs:
            environment["PLAYGROUND_REFUSAL"] = self._faults.take_push_refusal() or ""
            environment["PLAYGROUND_NO_WORKFLOWS"] = "" if token.allows({"workflows": "write"}) else "yes"
        return GitAccess(repository.path, bot.login, environment)

    async def _pushed(self, request: GitRequest, updates: Sequence[RefUpdate]) -> None:
        repository: Repository | None = self._state.repository_named(f"{request.owner}/{request.name}")
        if repository is not None:
            await self._pulls.pushed(repository, updates, self._state.app.bot)
