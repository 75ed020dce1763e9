"""The agents that an installation offers: from its settings to codecs and programs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bot.agents.acp.codec import AcpCodec
from bot.agents.acp.known import known
from bot.agents.claude.codec import ClaudeCodec
from bot.agents.codec import Codec, Permissions, Steering
from bot.agents.codex.codec import CodexCodec
from bot.agents.credentials import without_refresh
from bot.agents.inside import program
from bot.agents.opencode.codec import OpenCodeCodec
from bot.agents.registry import by_name, chosen
from bot.agents.scripted import ScriptedCodec
from bot.agents.side_tools import SideTools
from bot.errors import AgentUnknown, SettingsError
from bot.models import Choice
from bot.programs import Program
from bot.settings import AgentSpec, Settings

SCRIPTED = program("scripted_agent")
BRIDGE = program("opencode_bridge")

# What of a spec a protocol has no use for: it would be set in vain.
UNUSED: Mapping[str, tuple[str, ...]] = {
    "claude": ("secrets", "steering"),
    "codex": ("secrets", "steering"),
    "opencode": ("env", "secrets", "steering"),
    "acp": ("base_url", "api_key"),
}

# Whose credentials have settings of their own.
CREDENTIALS: Mapping[str, str] = {
    "claude": "SANDPIPER_ANTHROPIC_API_KEY or SANDPIPER_ANTHROPIC_AUTH_TOKEN",
    "codex": "SANDPIPER_OPENAI_API_KEY",
}

# What we know how to install, at the versions that this release was tested with.
PINS: Mapping[str, tuple[str, ...]] = {
    "claude": ("@anthropic-ai/claude-code@2.1.329",),
    "codex": ("@openai/codex@0.169.0",),
    "opencode": ("opencode-ai@1.18.33",),
}


def agents_of(settings: Settings) -> tuple[Mapping[str, Codec], Mapping[str, Program]]:
    """Codecs and programs by name. Raises SettingsError that names the variable."""
    specs = {"claude": AgentSpec(), **settings.agents}
    if settings.openai.api_key.get_secret_value():
        specs.setdefault("codex", AgentSpec())
    codecs: list[Codec] = []
    programs: dict[str, Program] = {}
    for name, spec in specs.items():
        protocol = spec.protocol or (name if name in PINS else "acp")
        if vain := [field for field in UNUSED[protocol] if field in spec.model_fields_set]:
            raise SettingsError(
                f"SANDPIPER_AGENTS: {name!r} has {', '.join(vain)}, for which {protocol} has no use.",
                "docs/agents.md says which agent takes what.",
            )
        command = _command(settings, name, protocol, spec)
        codecs.append(_codec(settings, name, protocol, command, spec))
        if command == spec.command or not Path(command[0]).is_absolute():
            of_claude = name == "claude" and name not in settings.agents
            setting = "SANDPIPER_AGENT_CLAUDE" if of_claude else "SANDPIPER_AGENTS"
            packages, version = _packages(protocol, command, spec), _version(protocol, command, spec)
            programs[name] = Program(command, version, packages, settings.agent.registry, setting)
    if settings.agent.scripted:
        codecs.append(_with_side_tools(settings, ScriptedCodec(SCRIPTED, pace=settings.agent.scripted_pace)))
    agents = by_name(codecs)
    check(settings, agents)
    return agents, programs


def _command(settings: Settings, name: str, protocol: str, spec: AgentSpec) -> tuple[str, ...]:
    if spec.command:
        return spec.command
    if protocol == "claude":
        # A program named on our own PATH is one inside the box only where the box sees that place.
        given = settings.agent.claude
        found = shutil.which(given)
        return (str(Path(found).resolve()) if found and "/" in given else given,)
    if protocol == "acp":
        raise SettingsError(
            f"SANDPIPER_AGENTS: {name!r} has no command.",
            'Give the one that makes it speak ACP, such as ["gemini", "--acp"].',
        )
    return (protocol,)


def _packages(protocol: str, command: tuple[str, ...], spec: AgentSpec) -> tuple[str, ...]:
    """What npm is to install; a program that goes by another name than we know is not ours to install."""
    if spec.packages is not None or command != (protocol,):
        return spec.packages or ()
    pins = PINS[protocol]
    return (f"{pins[0].rpartition('@')[0]}@{spec.version}",) if spec.version else pins


def _version(protocol: str, command: tuple[str, ...], spec: AgentSpec) -> str:
    """The pin. A program of ours is at ours, where nobody says otherwise."""
    if spec.version or spec.packages is not None or command != (protocol,):
        return spec.version
    return PINS[protocol][0].rpartition("@")[2]


def _codec(settings: Settings, name: str, protocol: str, command: tuple[str, ...], spec: AgentSpec) -> Codec:
    ours = "SANDPIPER_AGENTS"
    secrets = {key: _credential(ours, value.get_secret_value()) for key, value in spec.secrets.items()}
    env = {key: _credential(ours, value) for key, value in spec.env.items()}
    key = _credential(ours, spec.api_key.get_secret_value())
    usual = settings.default_model if name == settings.default_agent else ""
    model = spec.model or usual
    codec: ClaudeCodec | CodexCodec | OpenCodeCodec | AcpCodec
    match protocol:
        case "claude":
            anthropic = settings.anthropic
            theirs = _credential("SANDPIPER_ANTHROPIC_API_KEY", anthropic.api_key.get_secret_value())
            login = _credential("SANDPIPER_ANTHROPIC_AUTH_TOKEN", anthropic.auth_token.get_secret_value())
            codec = ClaudeCodec(
                api_key=key or theirs,
                oauth_token="" if key else login,
                base_url=spec.base_url or anthropic.base_url,
                model=model,
                command=command,
                env=env,
            )
        case "codex":
            codec = CodexCodec(
                api_key=key
                or _credential("SANDPIPER_OPENAI_API_KEY", settings.openai.api_key.get_secret_value()),
                base_url=spec.base_url or settings.openai.base_url,
                model=model,
                command=command,
                env=env,
            )
        case "opencode":
            codec = OpenCodeCodec(BRIDGE, api_key=key, base_url=spec.base_url, model=model, command=command)
        case _:
            steering = Steering(spec.steering)
            codec = AcpCodec(
                name,
                command,
                env=env,
                secrets=secrets,
                model=model,
                capabilities=replace(known(command).capabilities, steering=steering),
            )
    codec.name = name
    version = _version(protocol, command, spec)
    credential = _credential_setting(name, protocol, spec)
    codec.capabilities = replace(
        codec.capabilities, models=spec.models, version=version, credential=credential
    )
    return _with_side_tools(settings, codec, (key, *secrets.values()))


def _credential_setting(name: str, protocol: str, spec: AgentSpec) -> str:
    """Where an operator sets the key or login of an agent, in words."""
    field = "secrets" if protocol == "acp" else "api_key"
    if spec.api_key.get_secret_value() or protocol not in CREDENTIALS:
        return f"{field} of {name!r} in SANDPIPER_AGENTS"
    return CREDENTIALS[protocol]


def _credential(variable: str, value: str) -> str:
    """What of a credential may enter a sandbox. Raises SettingsError for what may not."""
    try:
        return without_refresh(value)
    except ValueError as error:
        raise SettingsError(
            f"{variable} holds {error}, which never enters a sandbox.",
            "Give an access token (`claude setup-token` makes one) or an API key.",
        ) from error


def _with_side_tools(settings: Settings, codec: Codec, secrets: Sequence[str] = ()) -> Codec:
    if not settings.agent.side_tools or not codec.capabilities.side_tools:
        return codec
    given = (settings.anthropic.api_key, settings.anthropic.auth_token, settings.openai.api_key)
    known = (*secrets, *(secret.get_secret_value() for secret in given))
    return SideTools(codec, secrets=tuple(filter(None, known)))


def check(settings: Settings, agents: Mapping[str, Codec]) -> None:
    """Raises SettingsError for what these agents cannot be."""
    if settings.default_agent not in agents:
        raise SettingsError(
            f"SANDPIPER_DEFAULT_AGENT is {settings.default_agent!r}, which is not configured.",
            f"Choose one of: {', '.join(sorted(agents))}.",
        )
    usual = Choice(settings.default_agent, settings.default_model, settings.default_effort)
    try:
        chosen(agents, usual, Choice())
    except AgentUnknown as error:
        raise SettingsError(f"The defaults cannot be used: {error.what}", error.mend) from error
    if settings.permissions is Permissions.AUTO:
        return
    cannot = sorted(name for name, codec in agents.items() if not codec.capabilities.approvals)
    if cannot:
        raise SettingsError(
            f"SANDPIPER_PERMISSIONS is '{settings.permissions}', but {', '.join(cannot)} cannot ask.",
            "Set it to auto, or leave them out of SANDPIPER_AGENTS.",
        )
