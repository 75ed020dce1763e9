"""Snapshots at Daytona: sandboxes that are made of one start with all that it has. By the SDK 0.226."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from bot.errors import ProviderUnavailable, SandboxError
from sandbox.daytona import told
from sandbox.daytona_account import Account
from sandbox.daytona_limits import Limit, limits_of
from sandbox.template import says_all

WITHIN = 3600.0  # seconds for a build
LIMITS = "Ask for less with --cpu, --memory or --disk. Your limits: app.daytona.io/dashboard/limits."
UNITS = {"cpu": "", "memory": " GiB", "disk": " GiB"}


@dataclass(frozen=True, slots=True)
class Size:
    """Of each sandbox that is made of it. memory, disk: GiB."""

    cpu: int = 2
    memory: int = 4
    disk: int = 10


async def build(account: Account, text: str, name: str, size: Size, say: Callable[[str], None]) -> None:
    """Have Daytona build the Dockerfile `text` and keep it as `name`; what it says on the way goes to `say`.
    One that is there already is kept, if it is that, and one that is larger than the account allows is not
    begun. Raises SandboxError, ProviderUnavailable."""
    try:
        from daytona import AsyncDaytona, DaytonaConfig
    except ImportError as error:
        raise ProviderUnavailable(
            "The SDK of Daytona is not installed.", "Install it: pip install 'daytona>=0.226,<0.227'."
        ) from error
    config = DaytonaConfig(api_key=account.api_key, api_url=account.api_url, target=account.target or None)
    async with AsyncDaytona(config) as client:
        if not await _is_there(client, text, name, size, say):
            within(size, await limits_of(account))
            await _create(client, text, name, size, say)


def within(size: Size, limits: Sequence[Limit]) -> None:
    """Raises SandboxError, which names what is too large, its limit, and the word to change."""
    over = [one for one in limits if getattr(size, one.name) > one.most]
    if over:
        each = "; ".join(
            f"--{one.name} {getattr(size, one.name)} is more than the {one.most:g}{UNITS[one.name]} that a"
            f" sandbox may have {one.where}"
            for one in over
        )
        raise SandboxError(f"Daytona's plan does not allow that size: {each}.", LIMITS)


async def _is_there(client: Any, text: str, name: str, size: Size, say: Callable[[str], None]) -> bool:
    from daytona import DaytonaNotFoundError

    with told("", f"snapshot {name}"):
        try:
            known = await client.snapshot.get(name)
        except DaytonaNotFoundError:
            return False
        state = str(getattr(known.state, "value", known.state))
        if state in ("error", "build_failed"):
            say(f"An earlier try at {name} failed, so it is made again.")
            await client.snapshot.delete(known)
            return False
        _same(known, text, name, size)
        if state == "inactive":
            await client.snapshot.activate(known)
    if state not in ("active", "inactive"):
        raise SandboxError(f"The snapshot {name} is {state} already.", "Wait until that is done.")
    say(f"The snapshot {name} is there already, made of the same Dockerfile.")
    return True


def _same(known: Any, text: str, name: str, size: Size) -> None:
    """Raises SandboxError, which says what is different."""
    has = {"cpu": known.cpu, "memory": known.mem, "disk": known.disk}
    differs = [
        f"--{what} {getattr(size, what)}, it has {amount:g}{UNITS[what]}"
        for what, amount in has.items()
        if amount != getattr(size, what)
    ]
    made_of = getattr(known.build_info, "dockerfile_content", None)
    if made_of is None:
        if not says_all(name, text, *astuple(size)):
            differs.append("Daytona does not say of which Dockerfile it was made")
    elif made_of.strip() != text.strip():
        differs.append("it was made of another Dockerfile")
    if differs:
        raise SandboxError(
            f"A snapshot {name} is there already, and is not what you ask for: {'; '.join(differs)}.",
            "Choose another --name, or delete it at Daytona: app.daytona.io/dashboard/snapshots.",
        )


async def _create(client: Any, text: str, name: str, size: Size, say: Callable[[str], None]) -> None:
    from daytona import CreateSnapshotParams, DaytonaError, Image, Resources

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "Dockerfile")
        file.write_text(text, encoding="utf-8")
        params = CreateSnapshotParams(
            name=name,
            image=Image.from_dockerfile(file),
            resources=Resources(cpu=size.cpu, memory=size.memory, disk=size.disk),
        )
        try:
            await client.snapshot.create(params, on_logs=say, timeout=WITHIN)
        except DaytonaError as error:
            why = str(error).strip().partition("\n")[0].rstrip(". ")
            if "exceeds maximum allowed" in why or "limit exceeded" in why:
                raise SandboxError(f"Daytona's plan does not allow that size: {why}.", LIMITS) from error
            _, failed, reason = why.partition("reason:")
            if error.status_code is None and failed:
                raise SandboxError(
                    f"Daytona could not build it: {reason.strip() or 'without a reason'}.",
                    "What it said above shows where. If that line is yours, mend it in your Dockerfile.",
                ) from error
            with told("", f"snapshot {name}"):
                raise
