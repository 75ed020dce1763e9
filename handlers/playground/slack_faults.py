"""Faults on purpose: what the next calls of a Web API method meet instead of a plain answer."""

from collections import defaultdict, deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """With `error` that is the answer; without, the connection breaks, after the call's effect if `acts`."""

    error: str = ""
    status: int = 200
    retry_after: int = 1
    acts: bool = False


class Faults:
    """The faults that are still to come, per method, each for one call."""

    def __init__(self) -> None:
        self._coming: dict[str, deque[Fault | None]] = defaultdict(deque)

    def add(self, method: str, fault: Fault, times: int, after: int = 0) -> None:
        self._coming[method].extend([None] * after + [fault] * times)

    def take(self, method: str) -> Fault | None:
        return self._coming[method].popleft() if self._coming[method] else None
