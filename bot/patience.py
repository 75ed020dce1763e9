"""Trying again what may only be away for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

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
        except SandboxUnreachable as away:
            pause = max(pause, away.retry_after)
        except ForgeError as error:
            if not error.retryable:
                raise
        await clock.sleep(pause)
    return await call()


async def in_time(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What comes of the work, unless the time is over first: it is then cancelled. Raises TimeoutError."""
    task = asyncio.ensure_future(work)
    late = asyncio.ensure_future(clock.sleep(max(seconds, 0.0)))
    try:
        await asyncio.wait((task, late), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise TimeoutError
    finally:
        task.cancel()
        late.cancel()
        await asyncio.gather(task, late, return_exceptions=True)
