"""What a thread hears of hosts that the egress rules refused."""

from __future__ import annotations

import logging

from bot.driver import Driver
from bot.errors import SandboxError
from bot.models import DeniedHost
from bot.ports import Sandbox

log = logging.getLogger(__name__)


async def tell_denied(driver: Driver, sandbox: Sandbox) -> None:
    """Tell each host that was refused since the turn started, by a hook or while the bot was away too, once
    in the turn. Nothing while the sandbox is away: it is asked again."""
    try:
        hosts = await sandbox.denied_hosts(driver.turn.started_at or driver.turn.queued_at)
    except SandboxError as error:
        log.debug("denied hosts of %s: %s", sandbox.id, error)
        return
    # Rows go when there are many, and with them what the picture knows to be told.
    new = [text for text in dict.fromkeys(map(not_allowed, hosts)) if text not in driver.refusals]
    driver.refusals.update(new)
    if untold := driver.untold(new):
        await driver.tell(*untold)


def not_allowed(denied_host: DeniedHost) -> str:
    way = f"{denied_host.setting} would let it through"
    if not denied_host.setting:
        way = "It is no public address, and no setting would let it through"
    return f"Not allowed: {denied_host.host}. {way}."
