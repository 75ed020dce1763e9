"""Bells: who waits for news of a topic is woken when it is rung. They carry nothing else."""

from __future__ import annotations

import asyncio
from weakref import WeakSet, WeakValueDictionary

from bot.ports import Clock


class Bell:
    """One listener of a topic (bot.ports.Watch). What was rung before a wait ends that wait at once."""

    def __init__(self, clock: Clock, topic: WeakSet[Bell]) -> None:
        self._clock = clock
        self._rung = asyncio.Event()
        self._topic = topic  # lives as long as one of its bells
        topic.add(self)

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, timeout: float) -> None:
        """Return when rung since the last wait, else after `timeout` seconds of the clock."""
        if not self._rung.is_set():
            rung = asyncio.ensure_future(self._rung.wait())
            late = asyncio.ensure_future(self._clock.sleep(timeout))
            try:
                await asyncio.wait((rung, late), return_when=asyncio.FIRST_COMPLETED)
            finally:
                rung.cancel()
                late.cancel()
        self._rung.clear()


class Bells:
    """The bells of one process, by topic. Bells and topics that nobody holds any more are forgotten."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._topics: WeakValueDictionary[str, WeakSet[Bell]] = WeakValueDictionary()

    def watch(self, topic: str) -> Bell:
        return Bell(self._clock, self._topics.setdefault(topic, WeakSet()))

    def ring(self, topic: str) -> None:
        for bell in self._topics.get(topic, ()):
            bell.ring()
