"""Settings: what is wrong is named by its variable, and what is half set is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import SettingsError
from bot.settings import GitHubSettings, Settings, load, unknown
from bot.settings_sandboxes import Section

GITHUB = {
    "SANDPIPER_GITHUB_APP_ID": "7",
    "SANDPIPER_GITHUB_PRIVATE_KEY": "-----BEGIN RSA PRIVATE KEY-----",
    "SANDPIPER_GITHUB_WEBHOOK_SECRET": "s",
}


def loaded(tmp_path: Path, **values: str) -> Settings:
    """As from a .env file: the environment of the test stays as it is."""
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return load(file)


def test_nothing_set_is_a_start_without_surfaces(tmp_path: Path) -> None:
    settings = loaded(tmp_path)
    assert not settings.slack_on and not settings.github_on


def test_lists_are_written_with_commas(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SANDPIPER_ALLOW_PEOPLE="U1, U2,,", SANDPIPER_EGRESS_ALLOW="a.example:443")
    assert settings.allow.people == ("U1", "U2")
    assert settings.egress.allow == ("a.example:443",)


NUMBERS = [
    f"SANDPIPER_{section}_{name}".upper()
    for section, about in Settings.model_fields.items()
    if isinstance(about.default, Section)
    for name, field in type(about.default).model_fields.items()
    if field.annotation is float
]


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_no_number_is_without_an_end(tmp_path: Path, value: str) -> None:
    assert {"SANDPIPER_SANDBOX_IDLE_STOP", "SANDPIPER_DEADLINE_TURN"} < set(NUMBERS)
    for name in NUMBERS:
        with pytest.raises(SettingsError, match=name):
            loaded(tmp_path, **{name: value})


@pytest.mark.parametrize("left_out", [name for name in GITHUB if name != "SANDPIPER_GITHUB_APP_ID"])
def test_half_of_github_names_what_is_missing(tmp_path: Path, left_out: str) -> None:
    with pytest.raises(SettingsError, match=left_out):
        loaded(tmp_path, **{name: value for name, value in GITHUB.items() if name != left_out})


def test_slack_without_a_way_in_or_without_code_names_both(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        loaded(tmp_path, SANDPIPER_SLACK_BOT_TOKEN="xoxb-1")
    assert "SANDPIPER_SLACK_APP_TOKEN" in str(error.value)
    assert "SANDPIPER_GITHUB_APP_ID" in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SANDPIPER_DEADLINE_TURN", "soon"),
        ("SANDPIPER_DEADLINE_PREPARE", "-1"),
        ("SANDPIPER_WEB_PORT", "70000"),
        ("SANDPIPER_STEER_POLICY", "everybody"),
        ("SANDPIPER_SANDBOX_PROVIDER", "cloud"),
        ("SANDPIPER_SANDBOX_PORTS_HOST", "0.0.0.0"),
        ("SANDPIPER_SANDBOX_MEMORY", "lots"),
        ("SANDPIPER_SANDBOX_PIDS", "-1"),
        ("SANDPIPER_SANDBOX_CPUS", "inf"),
        ("SANDPIPER_EGRESS_MODE", "everything"),
        ("SANDPIPER_OPENAI_BASE_URL", "https://ana:secret@models.example/v1"),
        ("SANDPIPER_AGENT_REGISTRY", "https://ana:secret@npm.example/"),
        ("SANDPIPER_AGENTS", '{"opencode": {"base_url": "https://ana:secret@models.example"}}'),
        ("SANDPIPER_E2B_EXTRA", "envs=1"),
        ("SANDPIPER_E2B_EXTRA", "[1]"),
    ],
)
def test_a_wrong_value_is_named_by_its_variable(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as refused:
        loaded(tmp_path, **{name: value})
    assert "secret" not in str(refused.value)


def test_limits_are_read_as_people_write_them(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SANDPIPER_SANDBOX_MEMORY="4GiB", SANDPIPER_SANDBOX_CPUS="1.5")
    assert (settings.sandbox.memory, settings.sandbox.pids, settings.sandbox.cpus) == (4 << 30, 0, 1.5)
    assert loaded(tmp_path, SANDPIPER_SANDBOX_MEMORY="").sandbox.memory == 0


def test_a_provider_in_the_cloud_needs_its_key(tmp_path: Path) -> None:
    for provider, key in (("daytona", "SANDPIPER_DAYTONA_API_KEY"), ("e2b", "SANDPIPER_E2B_API_KEY")):
        with pytest.raises(SettingsError, match=key):
            loaded(tmp_path, SANDPIPER_SANDBOX_PROVIDER=provider)


def test_parameters_for_the_cloud_are_a_json_object(tmp_path: Path) -> None:
    settings = loaded(tmp_path, SANDPIPER_E2B_EXTRA='{"envs": {"TZ": "UTC"}}')
    assert settings.e2b.extra == {"envs": {"TZ": "UTC"}}


def test_secrets_do_not_show(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path, **GITHUB, SANDPIPER_SLACK_BOT_TOKEN="xoxb-secret", SANDPIPER_SLACK_APP_TOKEN="x"
    )
    assert "xoxb-secret" not in repr(settings) + str(settings)


def test_the_private_key_may_be_a_file(tmp_path: Path) -> None:
    pem = tmp_path / "app.pem"
    pem.write_text("-----BEGIN RSA PRIVATE KEY-----\nabc\n")
    assert GitHubSettings(private_key=str(pem)).pem() == pem.read_text()  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="SANDPIPER_GITHUB_PRIVATE_KEY"):
        GitHubSettings(private_key=str(tmp_path / "none.pem")).pem()  # type: ignore[arg-type]


def test_a_misspelt_variable_is_found() -> None:
    assert unknown({"SANDPIPER_SLAK_BOT_TOKEN": "x", "SANDPIPER_WEB_PORT": "1", "PATH": "/"}) == [
        "SANDPIPER_SLAK_BOT_TOKEN"
    ]


def test_a_misspelt_variable_in_the_env_file_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / ".env"
    file.write_text("SANDPIPER_DATADIR=/data\nsandpiper_log_level=info\nOTHER=1\n")
    load(file)
    told = [record.getMessage() for record in caplog.records if "DATADIR" in record.getMessage()]
    assert told == ["SANDPIPER_DATADIR is no setting. Did you mean SANDPIPER_DATA_DIR?"]


def test_every_key_is_known_to_be_one(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        **GITHUB,
        SANDPIPER_SLACK_BOT_TOKEN="xoxb-1",
        SANDPIPER_SLACK_APP_TOKEN="xapp-1",
        SANDPIPER_ANTHROPIC_API_KEY="sk-ant-1",
        SANDPIPER_AGENTS='{"goose": {"command": ["goose", "acp"], "secrets": {"KEY": "goose-1"}}}',
    )
    pem = GITHUB["SANDPIPER_GITHUB_PRIVATE_KEY"]
    assert set(settings.secrets()) == {"xoxb-1", "xapp-1", "sk-ant-1", "goose-1", "s", pem}
