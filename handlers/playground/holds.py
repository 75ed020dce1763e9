"""Requests that stop on their way, so that a test can act, or kill the bot, between two of their steps."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Request = TypeVar("Request")


class Hold:
    """One request to come. With `acted` it has had its effect when it stops, but has no answer yet.

    `arrived` is set once it stands there; then either `release` or `cut` it.
    """

    def __init__(self, *, acted: bool) -> None:
        self.acted = acted
        self.arrived = asyncio.Event()
        self._over = asyncio.Event()
        self._cut = False

    def release(self) -> None:
        """Let it go on."""
        self._over.set()

    def cut(self) -> None:
        """Let it go no further: its connection breaks, and what it has not done yet it never does."""
        self._cut = True
        self._over.set()

    async def passes(self) -> bool:
        """For the one who serves the request: wait here; False when it was cut."""
        self.arrived.set()
        await self._over.wait()
        return not self._cut


class Holds(Generic[Request]):
    """The holds that are still to come. Each is used up by the first request that it fits."""

    def __init__(self) -> None:
        self._coming: list[tuple[Callable[[Request], bool], Hold]] = []

    def add(self, fits: Callable[[Request], bool], *, acted: bool) -> Hold:
        hold = Hold(acted=acted)
        self._coming.append((fits, hold))
        return hold

    def take(self, request: Request) -> Hold | None:
        for entry in self._coming:
            fits, hold = entry
            if fits(request):
                self._coming.remove(entry)
                return hold
        return None
