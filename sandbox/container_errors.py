"""What a container engine refuses, in our words and with the mend."""

from __future__ import annotations

import re
from typing import Any

from bot.errors import ProviderAway, ProviderUnavailable, SandboxError, SandboxFull, SandboxUnreachable
from sandbox.registry_login import Login, mend

# What registries and engines say where a login is missing or wrong; many say it of what is not there, too.
NO_ENTRY = r"denied|unauthorized|authentication required|no basic auth|incorrect username|\b40[13]\b"


def in_our_words(error: Any, host: str, image: str, login: Login | None = None) -> SandboxError:
    """error: the SDK's; its status 900 stands for a connection that was not made. image, login: what was
    pulled, and with what."""
    why = str(error.message).strip().rstrip(".")
    cause = getattr(error.__context__, "os_error", None)
    if isinstance(cause, PermissionError):
        return ProviderUnavailable(
            f"The bot's user may not use the Docker engine's socket ({host}).",
            "Add it to the group of that socket (usually `docker`), which makes it as good as root.",
        )
    if error.status == 900 and isinstance(cause, FileNotFoundError | ConnectionRefusedError):
        return ProviderAway(
            f"No Docker engine answers at {host}.", "Start the engine, or set SANDPIPER_DOCKER_HOST."
        )
    if error.status == 900:
        return SandboxUnreachable(f"The Docker engine at {host} does not answer: {why}.")
    if "no space left" in why.lower():
        return SandboxFull(f"The Docker engine's disk is full: {why}.", "See `docker system df`.")
    if image:
        refused = login and re.search(NO_ENTRY, why, re.IGNORECASE)
        return SandboxError(
            f"Docker could not pull the image {image}: {why}.",
            mend(login)
            if login and refused
            else "Check SANDPIPER_DOCKER_IMAGE, or `docker pull` or build it on the engine's machine.",
        )
    if error.status == 503:
        return ProviderAway(f"The Docker engine has no time just now: {why}.")
    if error.status == 409 or (error.status >= 500 and "OCI runtime" not in why):
        return SandboxUnreachable(f"The Docker engine answers {error.status}: {why}.")
    return SandboxError(f"The Docker engine refuses: {why}.")
