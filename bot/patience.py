"""Trying again what may only be away for a moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from bot.errors import ForgeError, SandboxUnreachable, SurfaceBusy
from bot.ports import Clock

T = TypeVar("T")

TRIES = 5


async def patiently(clock: Clock, call: Callable[[], Awaitable[T]], tries: int = TRIES) -> T:
    """The call's result, after a few tries with growing pauses where trying again may help.

    Tried again: SurfaceBusy, SandboxUnreachable and a retryable ForgeError; the last one is raised.
    The call must do no harm when it is repeated.
    """
    for attempt in range(tries - 1):
        pause = 2.0**attempt
        try:
            return await call()
        except SurfaceBusy as busy:
            pause = max(pause, busy.retry_after)
        except SandboxUnreachable:
            pass
        except ForgeError as error:
            if not error.retryable:
                raise
        await clock.sleep(pause)
    return await call()
