"""Settings become agents: what is offered, how it is called, what is installed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.agents.claude.codec import ClaudeCodec
from bot.agents.codec import Prompt, Task
from bot.agents.side_tools import SideTools
from bot.app_agents import PINS, agents_of, check
from bot.errors import SettingsError
from bot.settings import PREFIX, Settings, load
from tests.world import LineCodec


def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(f"{PREFIX}{name.upper()}", value)
    return load(tmp_path / "none")


def test_claude_is_offered_at_its_pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agents, programs = agents_of(settings(tmp_path, monkeypatch))
    assert set(agents) == {"claude"}
    assert programs["claude"].command == ("claude",) and programs["claude"].packages == PINS["claude"]


def test_a_program_of_another_name_is_not_ours_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, programs = agents_of(settings(tmp_path, monkeypatch, agent_claude="my-claude"))
    assert programs["claude"].packages == () and programs["claude"].setting == "SANDPIPER_AGENT_CLAUDE"


def test_an_agent_of_ours_is_pinned_where_nobody_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older one on the box's PATH would be called otherwise."""
    _, programs = agents_of(settings(tmp_path, monkeypatch, openai_api_key="sk-1"))
    for name in ("claude", "codex"):
        assert programs[name].packages[0].endswith(f"@{programs[name].version}")


def test_without_side_tools_an_agent_is_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agents, _ = agents_of(settings(tmp_path, monkeypatch))
    assert isinstance(agents["claude"], SideTools)
    agents, _ = agents_of(settings(tmp_path, monkeypatch, agent_side_tools="false"))
    assert isinstance(agents["claude"], ClaudeCodec)


def test_an_agent_knows_where_its_key_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = json.dumps({"claude": {"api_key": "k"}, "opencode": {}, "goose": {"command": "goose acp"}})
    agents, _ = agents_of(settings(tmp_path, monkeypatch, agents=mine, openai_api_key="sk-1"))
    assert {name: codec.capabilities.credential for name, codec in agents.items()} == {
        "claude": "api_key of 'claude' in SANDPIPER_AGENTS",
        "codex": "SANDPIPER_OPENAI_API_KEY",
        "opencode": "api_key of 'opencode' in SANDPIPER_AGENTS",
        "goose": "secrets of 'goose' in SANDPIPER_AGENTS",
    }
    agents, _ = agents_of(settings(tmp_path, monkeypatch, agents="{}"))
    assert "SANDPIPER_ANTHROPIC_API_KEY" in agents["claude"].capabilities.credential


LOGIN = {"accessToken": "sk-ant-oat01-a", "refreshToken": "sk-ant-ort01-r", "expiresAt": 1}


def test_what_renews_a_login_never_enters_a_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login = json.dumps({"claudeAiOauth": LOGIN, "tokens": [{"refresh_token": "x"}]})
    acp = {"command": "goose acp", "secrets": {"LOGIN": login}, "env": {"ALSO": login}}
    agents, _ = agents_of(
        settings(tmp_path, monkeypatch, anthropic_auth_token=login, agents=json.dumps({"goose": acp}))
    )
    task = Task(Prompt("k", "go"), "/w", "/home/agent")
    for name in ("claude", "goose"):
        launch = agents[name].launch(task)
        told = str({**launch.env, **launch.secrets})
        assert (
            "sk-ant-oat01-a" in told and "sk-ant-ort01-r" not in told and '"refresh_token": "x"' not in told
        )


@pytest.mark.parametrize("variable", ["anthropic_auth_token", "anthropic_api_key", "openai_api_key"])
def test_a_refresh_token_is_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    with pytest.raises(SettingsError, match=f"SANDPIPER_{variable.upper()} holds a refresh token"):
        agents_of(settings(tmp_path, monkeypatch, **{variable: "sk-ant-ort01-secret"}))


def test_codex_comes_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agents, programs = agents_of(settings(tmp_path, monkeypatch, openai_api_key="sk-1"))
    assert set(agents) == {"claude", "codex"} and programs["codex"].packages == PINS["codex"]


def test_more_agents_come_from_json_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "agents.toml"
    file.write_text(
        '[gemini]\ncommand = "gemini --acp"\npackages = ["@google/gemini-cli@0.61.0"]\nversion = "0.61.0"\n'
        'secrets = { GEMINI_API_KEY = "g-key" }\nmodels = ["pro", "flash"]\n[opencode]\nversion = "1.18.0"\n'
    )
    agents, programs = agents_of(settings(tmp_path, monkeypatch, agents=str(file)))
    assert set(agents) == {"claude", "gemini", "opencode"}
    assert programs["gemini"].command == ("gemini", "--acp") and programs["gemini"].version == "0.61.0"
    assert agents["gemini"].capabilities.models == ("pro", "flash")
    assert agents["gemini"].capabilities.version == "0.61.0"
    assert agents["claude"].capabilities.version == programs["claude"].version != ""
    assert programs["opencode"].packages == ("opencode-ai@1.18.0",)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"agents": '{"goose": {}}'}, "'goose' has no command"),
        ({"agents": "nowhere.toml"}, "SANDPIPER_AGENTS: nowhere.toml cannot be read"),
        ({"agents": "{not json"}, "neither JSON"),
        ({"agents": '{"x": {"comand": "x"}}'}, "SANDPIPER_AGENTS"),
        ({"agents": '{"opencode": {"env": {"A": "b"}}}'}, "'opencode' has env"),
        ({"agents": '{"goose": {"command": "goose acp", "api_key": "k"}}'}, "'goose' has api_key"),
        ({"default_agent": "codex"}, "SANDPIPER_DEFAULT_AGENT"),
        ({"default_effort": "hihg"}, "no effort 'hihg'.*high"),
        ({"default_model": "opsu", "agents": '{"claude": {"models": ["opus"]}}'}, "no model 'opsu'.*opus"),
    ],
)
def test_what_cannot_be_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        agents_of(settings(tmp_path, monkeypatch, **values))


def test_an_agent_that_cannot_ask_is_not_offered_where_it_is_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings(tmp_path, monkeypatch, permissions="ask", default_agent="lines")
    with pytest.raises(SettingsError, match="SANDPIPER_PERMISSIONS is 'ask', but lines cannot ask"):
        check(wanted, {"lines": LineCodec()})
