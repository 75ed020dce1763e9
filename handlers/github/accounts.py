"""Who has which login now: logins are renamed and then taken by others, an account's id stays."""

from __future__ import annotations

import re

from handlers.github.auth import GitHubApp, Scope
from handlers.github.failures import CallFailed

_ID = re.compile(r"[1-9][0-9]{0,18}")


class Accounts:
    """Account ids (as text) to logins. Deliveries tell most of them, GitHub is asked for the others."""

    def __init__(self, app: GitHubApp) -> None:
        self._app = app
        self._logins: dict[str, str] = {}

    def learn(self, account: str, login: str) -> None:
        self._logins[account] = login

    def forget(self, account: str) -> None:
        """Somebody else has that login by now: ask again next time."""
        self._logins.pop(account, None)

    async def login(self, account: str, scope: Scope) -> str:
        """The account's login, or "" when there is no such account. Raises ForgeError.

        docs.github.com, "Get a user using their ID": any token of the installation may ask.
        """
        if not _ID.fullmatch(account):
            return ""
        if account not in self._logins:
            try:
                _, found = await self._app.read(
                    scope, lambda github: github.requester.requestJsonAndCheck("GET", f"/user/{account}")
                )
            except CallFailed as failed:
                if failed.status == 404:
                    return ""
                raise
            self.learn(account, str(found["login"]))
        return self._logins[account]
