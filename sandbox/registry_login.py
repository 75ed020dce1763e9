"""The operator's logins at image registries, where `docker login` keeps them: in the configuration file of
the bot's user (DOCKER_CONFIG, else ~/.docker/config.json), or behind the credential helper that it names.

The only file that knows the package `docker`, an extra, which reads that file and asks those helpers. What it
finds goes to the engine with a pull, and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

READS_LOGINS = "pip install 'docker>=7.1,<8'"


@dataclass(frozen=True, slots=True)
class Login:
    """registry: where the image is. auth: what its engine is told; None: nothing is known. trouble: why that
    could not be found out."""

    registry: str
    auth: Mapping[str, str] | None = field(default=None, repr=False)
    trouble: str = ""


def login_of(image: str) -> Login:
    """It may run a program, and wait for it. Raises nothing: most images can be had without."""
    registry = _registry(image)
    try:
        from docker.auth import load_config
        from docker.credentials import StoreError
        from docker.errors import DockerException
    except ImportError:
        return Login(registry, trouble=f"that needs `{READS_LOGINS}`")
    try:
        found = load_config().resolve_authconfig(registry)
    except (DockerException, StoreError) as error:
        why = " ".join(str(error.__cause__ or error).split()).rstrip(".")
        log.warning("the login at %s: %s", registry, why)
        return Login(registry, trouble=why)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:  # not the form that it has
        log.warning("the login at %s: %s", registry, type(error).__name__)
        return Login(registry, trouble="Docker's configuration file is not as `docker login` writes it")
    return Login(registry, found or None)


def mend(login: Login) -> str:
    """What an operator does when the registry did not let us have the image."""
    where = "" if login.registry == "docker.io" else f" {login.registry}"
    again = f"`docker login{where}` as the bot's user, or `docker pull` it on the engine's machine"
    if login.trouble:
        return f"If it is private: the bot's login could not be read ({login.trouble}). Mend that: {again}."
    if login.auth:
        return f"The bot's login at {login.registry} does not open it: {again}."
    return f"If it is private: {again}. If not, check SANDPIPER_DOCKER_IMAGE."


def _registry(image: str) -> str:
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"
