"""At boot: whatever was open is driven on, to its end."""

from __future__ import annotations

import logging

from bot.ports import Dispatcher, Store

log = logging.getLogger(__name__)


async def resume_open_turns(store: Store, dispatcher: Dispatcher, owner: str) -> int:
    """Wake every turn that a former process left open; returns how many.

    run_turn itself knows where it stands: preparing starts over, running attaches to the agent's
    process at the recorded offsets, finishing publishes what was not published. Deliveries without
    an outcome and unsent sayings need no help: their loops read them from the store.
    """
    turns = await store.boot(owner)
    for turn in turns:
        dispatcher.wake(turn)
    if turns:
        log.info("going on with %d open turn(s)", len(turns))
    return len(turns)
