"""The settings of what makes sandboxes: one section for each provider that needs one, and what they share."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ByteSize, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

Listed = Annotated[tuple[str, ...], NoDecode]


def split(value: object) -> object:
    """ "a, b" as well as a tuple: lists are written with commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _an_address(host: str) -> str:
    if host in ("0.0.0.0", "::", "*"):  # noqa: S104 refused
        raise ValueError("name the one address on which people reach this machine.")
    return host


def _json_object(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error


class Section(BaseModel):
    model_config = {"extra": "forbid", "frozen": True, "allow_inf_nan": False}


class SandboxSettings(Section):
    """provider: what makes sandboxes. unsafe: run agents without isolation, as the bot's own user.
    idle_stop: seconds without a turn after which a sandbox is stopped; ttl: after which it is deleted with
    all that is in it, 0 = never; retention: after which it is deleted when its owner has left, 0 = never.
    worktree_ttl: seconds after a thread's last turn until its worktree is put away, 0 = never.
    orphan: seconds without the bot after which an agent ends itself. tools: read-only host directories that
    boxes see. ports_host: the address of this machine where people reach ports of boxes; without it they
    don't, but by links that a provider signs. memory (bytes, or as in 4GiB), pids (processes and threads),
    cpus (processors' time): limits of each sandbox; 0: none. uids: where the bot is root,
    the range that each local sandbox gets a user id from; without it a range that nobody uses, if that
    works."""

    provider: Literal["local", "daytona", "e2b", "docker"] = "local"
    unsafe: bool = False
    idle_stop: float = Field(default=1800, gt=0)
    ttl: float = Field(default=0, ge=0)
    retention: float = Field(default=30 * 86400, ge=0)
    worktree_ttl: float = Field(default=30 * 86400, ge=0)
    orphan: float = Field(default=86400, gt=0)
    tools: Listed = ()
    ports_host: Annotated[str, AfterValidator(_an_address)] = ""
    memory: ByteSize = ByteSize(0)
    pids: int = Field(default=0, ge=0)
    cpus: float = Field(default=0.0, ge=0)
    uids: str = ""

    _lists = field_validator("tools", mode="before")(split)


class DaytonaSettings(Section):
    """The account at Daytona. target: a region. snapshot, image: what sandboxes are made of, the image if
    both are there; without them the account's own default. auto_archive, auto_delete: seconds that a sandbox
    is stopped until Daytona archives or deletes it; 0: as Daytona does, and never. extra: more of what its
    SDK takes for a new sandbox."""

    api_key: SecretStr = SecretStr("")
    api_url: str = "https://app.daytona.io/api"
    target: str = ""
    snapshot: str = ""
    image: str = ""
    auto_archive: float = Field(default=0, ge=0)
    auto_delete: float = Field(default=0, ge=0)
    extra: Annotated[dict[str, Any], NoDecode] = Field(default_factory=dict)

    _extra = field_validator("extra", mode="before")(_json_object)


class E2BSettings(Section):
    """The account at E2B. domain, api_url, sandbox_url: of an E2B that is not e2b.app; sandbox_url: one
    address that leads to all sandboxes. template: what sandboxes are made of. extra: more parameters of the
    SDK's `create`, as a JSON object."""

    api_key: SecretStr = SecretStr("")
    domain: str = "e2b.app"
    api_url: str = ""
    sandbox_url: str = ""
    template: str = "base"
    extra: Annotated[dict[str, Any], NoDecode] = Field(default_factory=dict)

    _object = field_validator("extra", mode="before")(_json_object)


class DockerSettings(Section):
    """The engine on the bot's own machine. host: its socket. image: what containers are made of. runtime: the
    engine's name of another one than its default, as runsc. user: uid:gid of all that runs in them."""

    host: str = "unix:///var/run/docker.sock"
    image: str = "node:24-bookworm"
    runtime: str = ""
    user: str = "1000:1000"


class EgressSettings(Section):
    """mode: which hosts boxes reach. open: any public one on port 443; registries: the agents' models and
    the common package registries; list: those of `allow` alone. allow: host:port patterns that boxes reach
    besides. loopback: host:port services
    on this machine that boxes reach at the same port of their own loopback."""

    mode: Literal["open", "registries", "list"] = "registries"
    allow: Listed = ()
    loopback: Listed = ()

    _lists = field_validator("allow", "loopback", mode="before")(split)
