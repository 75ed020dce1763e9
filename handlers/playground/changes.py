"""What has just changed in a playground: to wait for, and to follow from a page."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Change:
    """One change, numbered from 1. `kind` says what happened; `place` and `item` say to what.

    The kind "missed" stands for changes that are no longer kept: read everything again.
    """

    number: int
    kind: str
    place: str = ""
    item: str = ""


class Changes:
    """A numbered log of the latest changes that wakes those who wait on it; nobody polls."""

    def __init__(self, *, kept: int = 1000) -> None:
        self._recent: deque[Change] = deque(maxlen=kept)
        self._bell = asyncio.Event()
        self.number = 0

    def note(self, kind: str, place: str = "", item: str = "") -> None:
        """Write a change down and wake everybody."""
        self.number += 1
        self._recent.append(Change(self.number, kind, place, item))
        self._bell.set()
        self._bell = asyncio.Event()

    async def wait_for(
        self, predicate: Callable[[], Value | None], timeout: float, describe: Callable[[], str]
    ) -> Value:
        """Ask `predicate` now and after each change, until it gives something true, and give that.

        Raises TimeoutError after `timeout` seconds, with what `describe` tells about the state.
        """
        try:
            async with asyncio.timeout(timeout):
                while not (value := predicate()):
                    await self._bell.wait()
                return value
        except TimeoutError:
            raise TimeoutError(f"it did not come true within {timeout} s\n{describe()}") from None

    async def follow(self, after: int) -> AsyncGenerator[Change, None]:
        """Give every change with a number above `after`, as it comes, without end; close it when done."""
        while True:
            oldest = self._recent[0].number if self._recent else 1
            # A number from the future is one from before the playground was started again.
            if after + 1 < oldest or after > self.number:
                after = oldest - 1
                yield Change(after, "missed")
            for change in [change for change in self._recent if change.number > after]:
                after = change.number
                yield change
            if after >= self.number:
                await self._bell.wait()
