"""How long we wait before we try again what did not answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from bot.errors import SandboxUnreachable
from bot.patience import patiently
from sandbox import remote_supervisor


class Noted:
    """A clock that only notes how long it was to sleep."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def after(*errors: Exception) -> tuple[list[Exception], Callable[[], Awaitable[str]]]:
    left = list(errors)

    async def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return left, call


async def test_a_provider_that_names_a_time_is_not_asked_sooner() -> None:
    clock = Noted()
    _, call = after(SandboxUnreachable("busy", retry_after=42.0), SandboxUnreachable("away"))
    assert await patiently(clock, call) == "done"
    assert clock.slept == [42.0, 2.0]


async def test_a_long_time_is_left_to_whoever_called() -> None:
    left, call = after(SandboxUnreachable("busy", retry_after=3600.0), SandboxUnreachable("never asked"))
    with pytest.raises(SandboxUnreachable) as caught:
        await remote_supervisor.persistently(call)
    assert caught.value.retry_after == 3600.0
    assert len(left) == 1
