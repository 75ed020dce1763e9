"""What Daytona's refusals mean, and who can mend them. Its words are those of v0.190's sandbox.service.ts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bot.errors import (
    ProviderAway,
    ProviderUnavailable,
    SandboxError,
    SandboxFull,
    SandboxGone,
)

KEY = "SANDPIPER_DAYTONA_API_KEY"
SNAPSHOT = "SANDPIPER_DAYTONA_SNAPSHOT"
IMAGE = "SANDPIPER_DAYTONA_IMAGE"
API_URL = "SANDPIPER_DAYTONA_API_URL"
TARGET = "SANDPIPER_DAYTONA_TARGET"
EXTRA = "SANDPIPER_DAYTONA_EXTRA"
LIMITS = "The account's limits are at app.daytona.io/dashboard/limits."


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the SDK's error carries. status 0: there was no answer; None: none that it understands. made_of:
    image or snapshot of a new box, "" where none was asked for. id: the box that was asked for, without which
    404 is not gone."""

    status: int | None
    text: str
    headers: Mapping[str, str]
    id: str = ""
    made_of: str = ""

    @property
    def words(self) -> str:
        """Its message, without what the SDK puts before it, on one line."""
        line = self.text.strip().partition("\n")[0]
        return re.sub(r"^(?:Fail\w+ [^:]{0,60}: )+", "", line).rstrip(". ") or "without a reason"


def meaning(no: Refusal) -> SandboxError:
    """Never SandboxGone but where it was asked for one box, and Daytona says that it has none."""
    status, words = no.status, no.words
    if status is None:
        return SandboxError(
            f"Daytona's SDK does not understand what it is answered: {words}.",
            f"Is {API_URL} right, and the SDK as new as the service?",
        )
    if status in (0, 408):
        return ProviderAway(f"Daytona does not answer: {words}.")
    if status == 429:
        return ProviderAway("Daytona says that we ask too often.", retry_after=retry_after(no.headers))
    if status >= 500 and status != 507:
        return ProviderAway(
            f"Daytona answers {status} just now: {words}.", retry_after=retry_after(no.headers)
        )
    if status in (404, 410) and no.id:
        return SandboxGone(f"Daytona has no sandbox {no.id}.")
    if status == 401:
        return ProviderUnavailable("Daytona does not accept the API key.", f"Set {KEY}.")
    if status == 507:
        return SandboxFull("The sandbox's disk is full.", "Delete files in its home.")
    return _of_limits(words) or _of_new_box(no) or _other(no)


def _of_limits(words: str) -> SandboxError | None:
    if used_up := re.search(r"Total (\w+) limit exceeded", words):
        return SandboxError(
            f"The Daytona account's quota of {used_up[1]} is used up: {words}.",
            "Stop, archive or delete sandboxes (`sandpiper sandboxes list`), or have it raised. " + LIMITS,
        )
    if re.search(r"exceeds maximum allowed per|only ephemeral sandboxes", words, re.I):
        return SandboxError(
            f"Daytona's plan allows no sandbox of that size: {words}.",
            f"Ask for less (`resources` in {EXTRA}, or a smaller {SNAPSHOT}). " + LIMITS,
        )
    if re.search(r"limit reached|quota|suspended|depleted", words, re.I):
        return SandboxError(f"The Daytona account is at a limit: {words}.", LIMITS)
    return None


def _of_new_box(no: Refusal) -> SandboxError | None:
    if not no.made_of:
        return None
    if re.search(r"\bsnapshot\b", no.words, re.I):
        return SandboxError(
            f"Daytona cannot use the {no.made_of}: {no.words}.",
            f"Set {SNAPSHOT} to one that is active in the region of {TARGET}.",
        )
    if re.search(r"\bregion\b", no.words, re.I):
        return SandboxError(f"Daytona refuses the region: {no.words}.", f"Set {TARGET}.")
    return None


def _other(no: Refusal) -> SandboxError:
    if no.status == 403:
        return ProviderUnavailable(
            f"Daytona refuses: {no.words}.", f"Look at the account, and at the rights of {KEY}."
        )
    of = f" the {no.made_of}" if no.made_of else ""
    mend = f"Look at {EXTRA}." if no.made_of else ""
    return SandboxError(f"Daytona refuses{of}: {no.words}.", mend)


def not_made(made_of: str, reason: str) -> SandboxError:
    """A new box that ended in an error before it ran once."""
    where = IMAGE if made_of.startswith("image") else SNAPSHOT
    return SandboxError(
        f"Daytona could not make a sandbox of the {made_of}: {reason or 'without a reason'}.",
        f"Look at {where}: is its name right, and may Daytona pull it?",
    )


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, from Retry-After and the Retry-After-<throttler> of each limit; 0: it does not say."""
    waits = [0.0]
    for name, value in headers.items():
        if name.lower().startswith("retry-after"):
            try:
                waits.append(float(value))
            except ValueError:
                continue  # a date; our own pauses do
    return max(waits)
