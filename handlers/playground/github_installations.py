"""Where the App is installed: one installation per account, for the repositories that were selected."""

from handlers.playground.github_hooks import Hooks
from handlers.playground.github_shapes import Json, Shapes
from handlers.playground.github_state import GitHubState, Installation, Repository, User


class Installations:
    """Gives the App repositories and takes them away, and tells it so; tokens feel it at once."""

    def __init__(self, state: GitHubState, shapes: Shapes, hooks: Hooks) -> None:
        self._state = state
        self._shapes = shapes
        self._hooks = hooks

    def add(self, repository: Repository) -> Installation:
        """The installation of the repository's owner, made if there is none, with the repository in it."""
        owner = repository.owner
        found = next((i for i in self._state.installations.values() if i.account is owner), None)
        lite = [self._shapes.repository_lite(repository)]
        if found is None:
            permissions = dict(self._state.app.permissions)
            found = Installation(self._state.next_id(), owner, permissions, self._state.now())
            self._state.installations[found.id] = found
            found.repository_ids.add(repository.id)
            self._announce("installation", "created", found, {"repositories": lite})
        elif repository.id not in found.repository_ids:
            found.repository_ids.add(repository.id)
            self._announce_selection("added", found, added=lite, removed=[])
        return found

    def remove(self, repository: Repository) -> None:
        found = self._state.installation_of(repository)
        if found is not None:
            found.repository_ids.discard(repository.id)
            lite = [self._shapes.repository_lite(repository)]
            self._announce_selection("removed", found, added=[], removed=lite)

    def end(self, account: User) -> None:
        """Its owner removes the App."""
        for found in self._of(account):
            del self._state.installations[found.id]
            found.repository_ids.clear()
            self._announce("installation", "deleted", found, {"repositories": []})

    def suspend(self, account: User, suspended: bool) -> None:
        for found in self._of(account):
            found.suspended_at = self._state.now() if suspended else None
            self._announce("installation", "suspend" if suspended else "unsuspend", found, {})

    def _of(self, account: User) -> list[Installation]:
        return [one for one in self._state.installations.values() if one.account is account]

    def _announce_selection(
        self, action: str, installation: Installation, *, added: list[Json], removed: list[Json]
    ) -> None:
        selection = {
            "repository_selection": "selected",
            "repositories_added": added,
            "repositories_removed": removed,
        }
        self._announce("installation_repositories", action, installation, selection)

    def _announce(self, event: str, action: str, installation: Installation, more: Json) -> None:
        shape = self._shapes.installation(installation)
        payload = {"action": action, "installation": shape, **more, "requester": None}
        self._hooks.announce(event, payload, by=installation.account, installation=installation)
