"""A store that is away when a test says so."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from bot.errors import StoreUnavailable

if TYPE_CHECKING:
    from bot.ports import Store


class MoodyStore:
    """A real store behind it; `away`: the verbs that cannot be used now ("*": none can be).

    `turned_away` remembers which of them were asked for all the same, `done` counts those that were done.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away: set[str] = set()
        self.turned_away: list[str] = []
        self.done: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if name == "watch":
            return verb

        async def asked(*args: Any, **more: Any) -> Any:
            if self.away & {name, "*"}:
                self.turned_away.append(name)
                raise StoreUnavailable("The database could not be used: disk I/O error.")
            answer = await verb(*args, **more)
            self.done[name] += 1
            return answer

        return asked


def moody(store: Store) -> tuple[MoodyStore, Store]:
    """The store that fails, and the same as those see it who know the port only."""
    it = MoodyStore(store)
    return it, cast("Store", it)
