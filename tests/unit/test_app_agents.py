"""Settings become agents: what is offered, how it is called, what is installed, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    assert agents["gemini"].capabilities.version == "0.61.0" and not agents["claude"].capabilities.version
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
