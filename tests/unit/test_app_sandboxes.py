"""The settings' provider of sandboxes, and what they say that it cannot do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from bot.app_sandboxes import hosts_of, provider_of
from bot.errors import SettingsError
from bot.settings import PREFIX, load

pytest.importorskip("daytona", reason="the extra `daytona` is not installed")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SANDBOX_MEMORY", "4GiB", "SANDPIPER_SANDBOX_MEMORY is for sandboxes on this machine"),
        ("SANDBOX_UNSAFE", "true", "SANDPIPER_SANDBOX_UNSAFE is for sandboxes on this machine"),
        ("EGRESS_LOOPBACK", "127.0.0.1:9", "SANDPIPER_EGRESS_LOOPBACK is for sandboxes on this machine"),
        (
            "SANDBOX_PORTS_HOST",
            "127.0.0.1",
            "SANDPIPER_SANDBOX_PORTS_HOST leads to ports through",
        ),
        ("EGRESS_MODE", "list", "SANDPIPER_EGRESS_ALLOW is empty"),
        ("DAYTONA_EXTRA", '{"labels": {}}', "SANDPIPER_DAYTONA_EXTRA: 'labels' cannot be set there"),
        ("DAYTONA_EXTRA", "{labels", "SANDPIPER_DAYTONA_EXTRA: is not JSON"),
        ("DAYTONA_EXTRA", "[1]", "SANDPIPER_DAYTONA_EXTRA: Input should be a valid dictionary"),
        ("DAYTONA_AUTO_DELETE", "-1", "SANDPIPER_DAYTONA_AUTO_DELETE"),
        ("DAYTONA_API_KEY", "", "Missing: SANDPIPER_DAYTONA_API_KEY"),
        ("CODE_URL", "https://code.example.com", "make 21"),  # one name more than there is room for
        ("CODE_URL", "code.example.com", "SANDPIPER_CODE_URL: is no address"),
        ("CODE_URL", "https://me:secret@code.example.com", "SANDPIPER_CODE_URL: must not have a name"),
    ],
)
async def test_what_cannot_be_said_to_daytona_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, words: str
) -> None:
    given = {"SANDBOX_PROVIDER": "daytona", "DAYTONA_API_KEY": "dtn_1", "DATA_DIR": str(tmp_path)}
    _refused(monkeypatch, given, name, value, words)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SANDBOX_CPUS", "2", "SANDPIPER_SANDBOX_CPUS is for sandboxes on this machine: those at E2B"),
        ("EGRESS_MODE", "list", "SANDPIPER_EGRESS_ALLOW is empty"),
        ("EGRESS_ALLOW", "db.example.com:5432", "SANDPIPER_EGRESS_ALLOW: E2B lets no host through"),
        ("E2B_EXTRA", '{"colour": "red"}', "SANDPIPER_E2B_EXTRA: 'colour' cannot be said there"),
        ("E2B_EXTRA", "[1]", "SANDPIPER_E2B_EXTRA: Input should be a valid dictionary"),
        ("E2B_API_KEY", "", "Missing: SANDPIPER_E2B_API_KEY"),
        ("CODE_URL", "https://code.example.com:8443", "E2B lets no host through"),
    ],
)
async def test_what_cannot_be_said_to_e2b_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, words: str
) -> None:
    given = {"SANDBOX_PROVIDER": "e2b", "E2B_API_KEY": "e2b_1", "DATA_DIR": str(tmp_path)}
    _refused(monkeypatch, given, name, value, words)


def _set(monkeypatch: pytest.MonkeyPatch, given: Mapping[str, str]) -> None:
    """These settings, and no others."""
    for known in [known for known in os.environ if known.startswith(PREFIX)]:
        monkeypatch.delenv(known)
    for name, text in given.items():
        monkeypatch.setenv(f"{PREFIX}{name}", text)


def _refused(
    monkeypatch: pytest.MonkeyPatch, given: Mapping[str, str], name: str, value: str, words: str
) -> None:
    _set(monkeypatch, {**given, name: value})
    with pytest.raises(SettingsError) as caught:
        provider_of(load(None))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SANDBOX_TOOLS", "/opt/node", "SANDPIPER_SANDBOX_TOOLS is for local sandboxes"),
        ("SANDBOX_UNSAFE", "true", "SANDPIPER_SANDBOX_UNSAFE is for local sandboxes"),
        ("EGRESS_LOOPBACK", "10.0.0.1:9", "SANDPIPER_EGRESS_LOOPBACK"),
        ("EGRESS_MODE", "list", "SANDPIPER_EGRESS_ALLOW is empty"),
        ("DOCKER_HOST", "tcp://10.0.0.1:2375", "SANDPIPER_DOCKER_HOST"),
        ("DOCKER_USER", "0:0", "SANDPIPER_DOCKER_USER"),
    ],
)
async def test_what_cannot_be_said_to_docker_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, words: str
) -> None:
    given = {"SANDBOX_PROVIDER": "docker", "DATA_DIR": str(tmp_path)}
    _refused(monkeypatch, given, name, value, words)


@pytest.mark.parametrize(
    ("mode", "allow", "refused"),
    [
        ("registries", "", "https://example.com/"),
        ("list", "example.com:443", "https://www.iana.org/"),
        ("registries", "example.com:443,*.iana.org:443", "https://www.kernel.org/"),
        ("list", "*:443", "http://169.254.169.254/"),
        ("open", "", "http://169.254.169.254/"),
    ],
)
def test_the_doctor_tries_a_host_that_no_rule_lets_through(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str, allow: str, refused: str
) -> None:
    _set(monkeypatch, {"EGRESS_MODE": mode, "EGRESS_ALLOW": allow, "DATA_DIR": str(tmp_path)})
    assert hosts_of(load(None)).refused == refused
