"""Every setting of the product, read once, from the environment or `.env`. Names: SANDPIPER_<NAME>."""

from __future__ import annotations

import difflib
import json
import logging
import os
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ByteSize, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, NoDecode, SettingsConfigDict

from bot.agents.codec import Permissions
from bot.errors import SettingsError
from bot.settings_sandboxes import (
    DaytonaSettings,
    DockerSettings,
    E2BSettings,
    EgressSettings,
    Listed,
    SandboxSettings,
    Section,
    split,
)
from bot.trust import read_bundle

log = logging.getLogger(__name__)

PREFIX = "SANDPIPER_"

Worded = Annotated[tuple[str, ...], NoDecode]


def _as_words(value: object) -> object:
    """A command line as people write it, as well as a list."""
    return tuple(shlex.split(value)) if isinstance(value, str) else value


def _without_login(url: str) -> str:
    """An agent's command line may name it, and whoever is in the sandbox reads that."""
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ValueError("must not have a name or password in it: a key has a setting of its own.")
    return url


def _agents_of(value: object) -> object:
    """JSON, or the path of a file that has it, or TOML, inside."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    is_toml = False
    if not text.startswith("{"):
        path = Path(text).expanduser()
        is_toml = path.suffix == ".toml"
        try:
            text = path.read_text()
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    try:
        return tomllib.loads(text) if is_toml else json.loads(text)
    except ValueError as error:
        raise ValueError(f"is neither JSON nor the path of a JSON or TOML file ({error})") from error


class SlackSettings(Section):
    """Slack is on when a bot token is set. With an app token it connects by Socket Mode, else Slack
    calls us over HTTP and signs with the signing secret."""

    bot_token: SecretStr = SecretStr("")
    app_token: SecretStr = SecretStr("")
    signing_secret: SecretStr = SecretStr("")
    api_url: str = "https://slack.com/api/"


class GitHubSettings(Section):
    """The GitHub App. The private key is the PEM text, or the path of a file that holds it."""

    app_id: int = 0
    private_key: SecretStr = SecretStr("")
    webhook_secret: SecretStr = SecretStr("")
    label: str = "sandpiper"
    api_url: str = "https://api.github.com"
    web_url: str = "https://github.com"

    def pem(self) -> str:
        """The private key itself. Raises SettingsError when its file cannot be read."""
        value = self.private_key.get_secret_value()
        if "BEGIN" in value:
            return value.replace("\\n", "\n")
        try:
            return Path(value).expanduser().read_text()
        except OSError as error:
            raise SettingsError(
                f"{PREFIX}GITHUB_PRIVATE_KEY names a file that cannot be read ({error.strerror}).",
                "Put the PEM text or the path of the .pem file there.",
            ) from error


class WebSettings(Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
        raise ValueError("is no address: write it as https://code.example.com.")
    return _without_login(url)


class CodeSettings(Section):
    """Code on demand. on_demand_from: bytes of a repository from which on its code is not brought into
    sandboxes whole, 0: never. host, port: where the bot lends it; port 0: a free one, and the same one in the
    bot's next life. url: the address by which sandboxes in a cloud reach that; "": they get bundles."""

    on_demand_from: ByteSize = ByteSize(256 * 1024 * 1024)
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)
    url: Annotated[str, AfterValidator(_base_url)] = ""


class AllowSettings(Section):
    """Who may, until people link their GitHub account. Closed by default; "*" opens a list."""

    people: Listed = ()
    channels: Listed = ()
    repositories: Listed = ()

    _lists = field_validator("people", "channels", "repositories", mode="before")(split)


class DeadlineSettings(Section):
    """Seconds that a turn's phases may take; 0: no deadline. approval: how long people have to answer an
    agent; no answer is a no."""

    prepare: float = Field(default=600, ge=0)
    silence: float = Field(default=1800, ge=0)
    turn: float = Field(default=0, ge=0)
    publish: float = Field(default=300, ge=0)
    approval: float = Field(default=3600, ge=30)


class CapSettings(Section):
    """How many turns may run at once; sandboxes: how many sandboxes of a tenant. 0: no limit."""

    total: int = Field(default=50, ge=0)
    tenant: int = Field(default=0, ge=0)
    person: int = Field(default=4, ge=0)
    sandboxes: int = Field(default=0, ge=0)


class HookSettings(Section):
    """Seconds that a repository's own scripts may take before an agent starts: its setup in a new worktree,
    its start after each start of a sandbox. 0: they are not run."""

    setup: int = Field(default=300, ge=0)
    start: int = Field(default=60, ge=0)


class AgentSpec(Section):
    """One agent of SANDPIPER_AGENTS. Of the agents that we know (claude, codex, opencode) all that is left
    out has its default; any other one needs a command that makes it speak ACP.

    protocol: claude, codex, opencode or acp. command: program and arguments. version: its pin, compared
    before each start; "" takes what is there. packages: what npm installs where it is missing or another
    version, each with its version; [] = the program is yours to install. model: where nobody names one;
    models: the only ones. base_url, api_key: of its model's API (all but ACP). env: its environment (all
    but OpenCode). secrets: the part of that which is secret (ACP); the agent can read it. steering: what
    becomes of a message during a turn where the agent cannot be steered: interrupt or queue (ACP).
    """

    protocol: Literal["", "claude", "codex", "opencode", "acp"] = ""
    command: Worded = ()
    version: str = ""
    packages: Listed | None = None
    model: str = ""
    models: Listed = ()
    env: dict[str, str] = Field(default_factory=dict)
    secrets: dict[str, SecretStr] = Field(default_factory=dict)
    base_url: Annotated[str, AfterValidator(_without_login)] = ""
    api_key: SecretStr = SecretStr("")
    steering: Literal["interrupt", "queue"] = "interrupt"

    _lists = field_validator("packages", "models", mode="before")(split)
    _words = field_validator("command", mode="before")(_as_words)


class AgentSettings(Section):
    """Agents' programs. claude: name on PATH or path of Claude Code. scripted: also offer the
    scripted agent of the demo and the tests. registry: the npm registry that they are installed from.
    side_tools: whether they get tools of ours, to share files, ask people, name their work."""

    claude: str = "claude"
    scripted: bool = False
    scripted_pace: float = Field(default=1.0, ge=0)
    registry: Annotated[str, AfterValidator(_without_login)] = ""
    side_tools: bool = True


class AnthropicSettings(Section):
    """Claude's key (raw: the agent can read it) or OAuth token, and an own base URL."""

    api_key: SecretStr = SecretStr("")
    auth_token: SecretStr = SecretStr("")
    base_url: Annotated[str, AfterValidator(_without_login)] = ""


class OpenAISettings(Section):
    """Codex' key (raw: the agent can read it) and an own base URL of the Responses API."""

    api_key: SecretStr = SecretStr("")
    base_url: Annotated[str, AfterValidator(_without_login)] = ""


class Settings(BaseSettings):
    """The tree. A nested name is SANDPIPER_<SECTION>_<NAME>, e.g. SANDPIPER_SLACK_BOT_TOKEN."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        env_file=".env",
        extra="ignore",
        frozen=True,
    )

    data_dir: Path = Path("data")
    ca_bundle: Path | None = None
    installation: str = "sandpiper"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    default_repository: str = ""
    default_agent: str = "claude"
    default_model: str = ""
    default_effort: str = ""
    agents: Annotated[dict[str, AgentSpec], NoDecode] = Field(default_factory=dict)
    steer_policy: Literal["collaborators", "owner"] = "collaborators"
    permissions: Permissions = Permissions.AUTO
    git_name: str = "sandpiper[bot]"
    git_email: str = "sandpiper[bot]@users.noreply.github.com"

    slack: SlackSettings = SlackSettings()
    github: GitHubSettings = GitHubSettings()
    web: WebSettings = WebSettings()
    code: CodeSettings = CodeSettings()
    allow: AllowSettings = AllowSettings()
    deadline: DeadlineSettings = DeadlineSettings()
    cap: CapSettings = CapSettings()
    hook: HookSettings = HookSettings()
    sandbox: SandboxSettings = SandboxSettings()
    daytona: DaytonaSettings = DaytonaSettings()
    e2b: E2BSettings = E2BSettings()
    docker: DockerSettings = DockerSettings()
    egress: EgressSettings = EgressSettings()
    agent: AgentSettings = AgentSettings()
    anthropic: AnthropicSettings = AnthropicSettings()
    openai: OpenAISettings = OpenAISettings()

    _agents = field_validator("agents", mode="before")(_agents_of)

    @property
    def slack_on(self) -> bool:
        return bool(self.slack.bot_token.get_secret_value())

    @property
    def slack_over_http(self) -> bool:
        return self.slack_on and not self.slack.app_token.get_secret_value()

    @property
    def github_on(self) -> bool:
        return bool(self.github.app_id)

    def certificates(self) -> bytes:
        """Of certificate authorities that are trusted besides the usual ones; empty: none. Raises
        SettingsError when their file cannot be read or is none."""
        return read_bundle(self.ca_bundle, f"{PREFIX}CA_BUNDLE") if self.ca_bundle else b""

    def secrets(self) -> tuple[str, ...]:
        """Every key that is set. Raises SettingsError when the private key's file cannot be read."""
        named = [
            secret for secret in _secrets_in(self) if secret != self.github.private_key.get_secret_value()
        ]
        return (*named, self.github.pem()) if self.github_on else tuple(named)


def load(env_file: Path | None = Path(".env"), *, provider: str = "") -> Settings:
    """Read the settings. provider: instead of the one that they name. Raises SettingsError that names each
    wrong or missing variable."""
    named: dict[str, Any] = {"sandbox": {"provider": provider}} if provider else {}
    try:
        settings = Settings(_env_file=env_file, **named)  # type: ignore[call-arg]
    except ValidationError as error:
        wrong = "; ".join(
            f"{_variable(problem['loc'])}: {problem['msg'].removeprefix('Value error, ')}"
            for problem in error.errors(include_input=False)
        )
        raise SettingsError(f"Settings that cannot be used: {wrong}.") from None
    _complete(settings)
    in_file = DotEnvSettingsSource(Settings, env_file=env_file).env_vars
    for name in unknown([*in_file, *os.environ]):
        near = difflib.get_close_matches(name, variables(), 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        log.warning("%s is no setting.%s", name, hint)
    return settings


def variables() -> list[str]:
    """The names of all settings."""
    names = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            names += [f"{PREFIX}{name}_{inner}".upper() for inner in section.model_fields]
        else:
            names.append(f"{PREFIX}{name}".upper())
    return names


def unknown(environment: Iterable[str]) -> list[str]:
    """Variables with our prefix that no setting has: most likely misspelt. Case does not matter."""
    ours = {name.upper() for name in environment if name.upper().startswith(PREFIX)}
    return sorted(ours - set(variables()))


def _secrets_in(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        if text := value.get_secret_value():
            yield text
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _secrets_in(inner)


def _complete(settings: Settings) -> None:
    """What is half set is an error, not a surprise later."""
    missing = []
    slack, github = settings.slack, settings.github
    if settings.slack_on and not (
        slack.app_token.get_secret_value() or slack.signing_secret.get_secret_value()
    ):
        missing.append(f"{PREFIX}SLACK_APP_TOKEN (Socket Mode) or {PREFIX}SLACK_SIGNING_SECRET (HTTP)")
    if not settings.slack_on and (
        slack.app_token.get_secret_value() or slack.signing_secret.get_secret_value()
    ):
        missing.append(f"{PREFIX}SLACK_BOT_TOKEN")
    if settings.slack_on and not settings.github_on:
        missing.append(f"{PREFIX}GITHUB_APP_ID (the code comes from GitHub, also for Slack threads)")
    elif not settings.github_on and (
        github.private_key.get_secret_value() or github.webhook_secret.get_secret_value()
    ):
        missing.append(f"{PREFIX}GITHUB_APP_ID")
    if settings.sandbox.provider == "daytona" and not settings.daytona.api_key.get_secret_value():
        missing.append(f"{PREFIX}DAYTONA_API_KEY")
    if settings.sandbox.provider == "e2b" and not settings.e2b.api_key.get_secret_value():
        missing.append(f"{PREFIX}E2B_API_KEY")
    if settings.github_on and not github.private_key.get_secret_value():
        missing.append(f"{PREFIX}GITHUB_PRIVATE_KEY")
    if settings.github_on and not github.webhook_secret.get_secret_value():
        missing.append(f"{PREFIX}GITHUB_WEBHOOK_SECRET")
    settings.certificates()
    if missing:
        raise SettingsError(f"Missing: {', '.join(missing)}.", "Set it in the environment or in .env.")


def _variable(location: tuple[int | str, ...]) -> str:
    names = [str(part) for part in location if isinstance(part, str)]
    return PREFIX + "_".join(names).upper()
