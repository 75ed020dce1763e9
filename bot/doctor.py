"""Proves a provider before anybody's work is trusted to it: one box is made, tried and deleted.

What is tried is in bot/doctor_checks.py, over the port alone, so it holds for any provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from bot.errors import SandboxError, SandboxGone, SandpiperError
from bot.models import Launch
from bot.ports import Process, Provider, Sandbox

PURPOSE, RUN, OF, AT = "sandpiper.purpose", "sandpiper.doctor", "sandpiper.doctor-of", "sandpiper.doctor-at"
LEFT_OVER = 3600.0  # seconds after which a box of the doctor's belongs to no run that still goes on
PATIENCE = 120.0  # seconds for a check; one that makes or starts a box may take as long as its provider
SLOW = 900.0
CLEANING = 120.0
CLEAN = "nothing of it is left"
REACHED = "known sandboxes are within reach"


class Outcome(StrEnum):
    OK = "ok"
    FAILED = "failed"
    NOT_OFFERED = "not offered"  # the provider says itself that it has no such thing
    SKIPPED = "not tried"  # what it stands on has failed


class Failed(Exception):
    """A check's finding: what was seen instead."""


class NotOffered(Exception):
    """Why this cannot be asked of the provider."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """URLs that a sandbox shall and shall not reach; "": there is none to try. loopback: ports of this
    machine that the first one needs (as Launch.loopback)."""

    allowed: str = ""
    refused: str = ""
    loopback: tuple[int, ...] = ()


@dataclass
class Patient:
    """What the checks share. `make` gives the provider as another life of the bot would have it."""

    make: Callable[[], Provider]
    labels: Mapping[str, str]
    hosts: Hosts
    scratch: Path
    lives: list[Provider] = field(default_factory=list)
    made: Sandbox | None = None
    kept: Process | None = None

    def another_life(self) -> Provider:
        self.lives.append(self.make())
        return self.lives[-1]

    @property
    def provider(self) -> Provider:
        return self.lives[0] if self.lives else self.another_life()

    @property
    def sandbox(self) -> Sandbox:
        if self.made is None:
            raise Failed("no sandbox was made")
        return self.made

    @property
    def process(self) -> Process:
        if self.kept is None:
            raise Failed("no process was started")
        return self.kept

    async def sh(self, script: str, *args: str, visible: tuple[str, ...] = ()) -> str:
        """What a shell script in the box says, where it succeeds."""
        launch = Launch(("sh", "-c", script, "sh", *args), self.sandbox.home, visible=visible)
        result = await self.sandbox.run(launch)
        if result.code != 0:
            said = result.err.decode(errors="replace").strip()
            raise Failed(f"a shell command in the box ended with {result.code}: {said}")
        return result.out.decode(errors="replace").strip()


@dataclass(frozen=True, slots=True)
class Check:
    """mend: what to do where it fails. needs: the checks without which it tells nothing."""

    name: str
    run: Callable[[Patient], Awaitable[None]]
    mend: str
    needs: tuple[str, ...] = ()
    patience: float = PATIENCE


@dataclass(frozen=True, slots=True)
class Result:
    """found: what was seen, for all but ok. mend: what to do, for failures."""

    check: str
    outcome: Outcome
    seconds: float
    found: str = ""
    mend: str = ""


async def examine(
    make: Callable[[], Provider],
    checks: Sequence[Check],
    *,
    hosts: Hosts,
    installation: str,
    tell: Callable[[Result], None] = lambda _: None,
) -> Sequence[Result]:
    """Try one check after the other, each told as soon as it is done; the last result is of what was left.

    The box is deleted whatever happens, also when this is cancelled.
    """
    results: list[Result] = []

    def note(result: Result) -> None:
        results.append(result)
        tell(result)

    labels = {PURPOSE: "doctor", RUN: secrets.token_hex(8), OF: installation, AT: str(int(time.time()))}
    with tempfile.TemporaryDirectory(prefix="sandpiper-doctor-") as scratch:
        patient = Patient(make, labels, hosts, Path(scratch))
        try:
            for check in checks:
                stands = {result.check for result in results if result.outcome is Outcome.OK}
                missing = [name for name in check.needs if name not in stands]
                if missing:
                    note(Result(check.name, Outcome.SKIPPED, 0.0, f"it stands on: {', '.join(missing)}"))
                else:
                    note(await _tried(check, patient))
        finally:
            note(await _carried_through(_clean_up(patient)))
    return results


def out_of_reach(missing: Sequence[tuple[str, str]]) -> Result:
    """missing: of each sandbox that is known here, but not within reach, where it is, and the mend."""
    found = "\n    ".join(where for where, _ in missing)
    mend = " ".join(sorted({mend for _, mend in missing}))
    return Result(REACHED, Outcome.FAILED, 0.0, found, mend)


async def _tried(check: Check, patient: Patient) -> Result:
    began = time.monotonic()

    def result(outcome: Outcome, found: str = "", mend: str = "") -> Result:
        return Result(check.name, outcome, time.monotonic() - began, found, mend)

    try:
        async with asyncio.timeout(check.patience):
            await check.run(patient)
    except NotOffered as no:
        return result(Outcome.NOT_OFFERED, str(no))
    except Failed as failed:
        return result(Outcome.FAILED, str(failed), check.mend)
    except SandpiperError as error:  # its own advice knows more than ours
        return result(Outcome.FAILED, error.what, error.mend or check.mend)
    except TimeoutError:
        return result(Outcome.FAILED, f"it took longer than {check.patience:g} s", check.mend)
    except Exception as error:  # noqa: BLE001 a provider's mistake is a finding
        return result(Outcome.FAILED, f"{type(error).__name__}: {error}", check.mend)
    return result(Outcome.OK)


async def _clean_up(patient: Patient) -> Result:
    """Delete our box, found by its labels: its making may have been cut short. And those that earlier runs
    could not delete."""
    began = time.monotonic()
    left: list[str] = []
    why = ""
    try:
        async with asyncio.timeout(CLEANING):
            mine = {PURPOSE: patient.labels[PURPOSE], OF: patient.labels[OF]}
            boxes = {box.id: box for box in await patient.provider.find(mine) if _is_left(box, patient)}
            if patient.made is not None:
                boxes.setdefault(patient.made.id, patient.made)
            left = list(boxes)
            for box in boxes.values():
                with contextlib.suppress(SandboxGone):
                    await box.delete()
                left.remove(box.id)
            left = [box.id for box in await patient.provider.find(mine) if _is_left(box, patient)]
    except SandboxError as error:
        why = error.what
    except TimeoutError:
        why = f"deleting took longer than {CLEANING:g} s"
    except Exception as error:  # noqa: BLE001 whatever it is, what is left must be told
        why = f"{type(error).__name__}: {error}"
    for life in patient.lives:
        with contextlib.suppress(Exception):
            await life.close()
    took = time.monotonic() - began
    if not left and not why:
        return Result(CLEAN, Outcome.OK, took)
    named = ", ".join(left) or "perhaps a box"
    found = f"left at the provider: {named}" + (f" ({why})" if why else "")
    mend = f"Delete it there: its label {RUN} is {patient.labels[RUN]}. Runs after an hour try it again, too."
    return Result(CLEAN, Outcome.FAILED, took, found, mend)


def _is_left(box: Sandbox, patient: Patient) -> bool:
    """Of this run, or so old that its own run is over. A provider may give us more than we asked for."""
    if box.labels.get(PURPOSE) != "doctor" or box.labels.get(OF) != patient.labels[OF]:
        return False
    at = box.labels.get(AT, "")
    old = at.isdecimal() and int(at) < time.time() - LEFT_OVER
    return old or box.labels.get(RUN) == patient.labels[RUN]


async def _carried_through(cleaning: Awaitable[Result]) -> Result:
    """To its end, however often somebody asks us to stop meanwhile: nothing comes after it."""
    task = asyncio.ensure_future(cleaning)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()


def line(result: Result) -> str:
    """A row of the table, with what was found and what to do below it."""
    told = f"{result.check:36}  {result.outcome.value:11}  {result.seconds * 1000:8,.0f} ms"
    if result.outcome is Outcome.SKIPPED:
        told = f"{result.check:36}  {result.outcome.value:11}"
    if result.found:
        told += f"\n    {result.found}"
    if result.mend:
        told += f"\n    → {result.mend}"
    return told
