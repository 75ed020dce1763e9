"""The local provider as its operator describes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bot.errors import SandboxError, SandboxGone, SandboxUnreachable, SettingsError
from bot.models import Launch
from sandbox.bubblewrap import Options, Place, build, on_host, reaching
from sandbox.egress_modes import MODES, EgressMode
from sandbox.inside.egress import Rules
from sandbox.isolation import Unisolated
from sandbox.local import LocalProvider, local_provider


@pytest.mark.parametrize(
    "service", ["8791", "example.com:443", "127.0.0.1:", "127.0.0.1:99999", "10.0.0.1:80"]
)
def test_a_loopback_service_that_is_none_names_its_setting(tmp_path: Path, service: str) -> None:
    with pytest.raises(SettingsError, match="SANDPIPER_EGRESS_LOOPBACK"):
        local_provider(tmp_path, loopback=[service])


@pytest.mark.parametrize("pattern", ["example.com", "https://example.com", "example.com:https", "a b:443"])
def test_an_egress_pattern_that_is_none_names_its_setting(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(SettingsError, match="SANDPIPER_EGRESS_ALLOW"):
        local_provider(tmp_path, allow=[pattern])


@pytest.mark.parametrize(
    "pattern",
    [
        *("api*.example.com:443", "*example.com:443", "*.*.example.com:443", "example.*:443", "**:443"),
        *("*.:443", "a..b:443", "example.com:80:443", "a-.example:443", "[example.com]:443"),
    ],
)
def test_an_egress_pattern_that_matches_nothing_is_an_error(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(SettingsError, match=r"SANDPIPER_EGRESS_ALLOW.*names no host") as told:
        local_provider(tmp_path, mode="list", allow=["api.anthropic.com:443", pattern])
    assert pattern in str(told.value)


@pytest.mark.parametrize(
    ("pattern", "mend"),
    [
        ("10.0.0.7:443", "take it out"),
        ("[fd00::7]:443", "take it out"),
        ("169.254.169.254:80", "take it out"),
        ("0x0a000007:443", "take it out"),
        ("localhost:5432", "SANDPIPER_EGRESS_LOOPBACK=127.0.0.1:5432"),
        ("db.localhost:5432", "SANDPIPER_EGRESS_LOOPBACK=127.0.0.1:5432"),
        ("127.1:5432", "SANDPIPER_EGRESS_LOOPBACK=127.0.0.1:5432"),
        ("[::1]:5432", "SANDPIPER_EGRESS_LOOPBACK=127.0.0.1:5432"),
    ],
)
def test_a_private_address_that_no_entry_can_let_through_is_an_error(
    tmp_path: Path, pattern: str, mend: str
) -> None:
    with pytest.raises(SettingsError, match=r"SANDPIPER_EGRESS_ALLOW.*no public address") as told:
        local_provider(tmp_path, allow=[pattern])
    assert mend in str(told.value)


@pytest.mark.parametrize(
    "pattern",
    [
        *("*:443", "*.example.com:443", "Example.COM.:443", "xn--bcher-kva.example:8080", "a_b.example:1"),
        *("93.184.215.14:443", "[2606:4700::1]:443", " registry:443"),
    ],
)
def test_an_egress_pattern_that_can_match_is_taken(tmp_path: Path, pattern: str) -> None:
    local_provider(tmp_path, mode="list", allow=[pattern])


def test_the_unsafe_mode_is_only_there_by_name_and_says_so(tmp_path: Path) -> None:
    assert local_provider(tmp_path).warning == ""
    assert "without isolation" in local_provider(tmp_path, unsafe=True).warning


def test_a_list_that_lets_nothing_through_names_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SANDPIPER_EGRESS_ALLOW"):
        local_provider(tmp_path, mode="list")
    local_provider(tmp_path, mode="list", allow=["api.anthropic.com:443"])


@pytest.mark.parametrize(
    ("mode", "lets_through"),
    [
        ("open", {"api.anthropic.com:443", "pypi.org:443", "anything.example:443"}),
        ("registries", {"api.anthropic.com:443", "pypi.org:443"}),
        ("list", set()),
    ],
)
def test_what_each_egress_mode_lets_through(mode: EgressMode, lets_through: set[str]) -> None:
    rules = Rules({"allow": list(MODES[mode])})
    hosts = ("api.anthropic.com", "pypi.org", "anything.example")
    asked = {(host, port) for host in hosts for port in (443, 80, 22)}
    assert {f"{host}:{port}" for host, port in asked if rules.names(host, port)} == lets_through


async def test_what_an_earlier_life_left_half_made_is_cleared_away(tmp_path: Path) -> None:
    provider = LocalProvider(tmp_path, Unisolated(), scrap_after=0)
    (tmp_path / ".scrap-1234" / "home").mkdir(parents=True)
    await provider.check()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agents", "host"]


async def test_a_sandbox_is_deleted_however_deep_its_directories_go(tmp_path: Path) -> None:
    provider = LocalProvider(tmp_path, Unisolated())
    sandbox = await provider.create({})
    deep = "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\nos.mkdir('shut', 0)"
    assert (await sandbox.run(Launch(("python3", "-c", deep), sandbox.home))).code == 0
    await sandbox.delete()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agents", "host"]


async def test_what_a_bot_beside_this_one_makes_or_deletes_just_now_is_left_alone(tmp_path: Path) -> None:
    provider = local_provider(tmp_path, unsafe=True)
    making = tmp_path / ".scrap-1234"
    making.mkdir()
    deleting = tmp_path / "local-old"
    deleting.mkdir()
    os.utime(deleting, (0, 0))  # a box that has been there for long
    deleting.rename(tmp_path / ".scrap-5678")
    await provider.check()
    assert {".scrap-1234", ".scrap-5678"} <= {path.name for path in tmp_path.iterdir()}


def test_the_host_of_local_sandboxes_stays_the_same(tmp_path: Path) -> None:
    assert local_provider(tmp_path).host == local_provider(tmp_path).host
    assert local_provider(tmp_path).host != local_provider(tmp_path / "other").host


def test_secrets_and_environment_are_not_in_the_command_line(tmp_path: Path) -> None:
    launch = Launch(("agent",), "/home/agent", env={"PLAIN": "in-the-env"}, secrets={"KEY": "s3cret"})
    command = build(Place(tmp_path), launch, Options(), env_fd=100, life_fd=None)
    assert not any("s3cret" in word or "in-the-env" in word for word in command.argv)
    assert "s3cret" not in repr(command)
    assert command.env == {}
    assert command.handover is not None
    assert "s3cret" in command.handover


@pytest.mark.parametrize(
    ("name", "value"), [("A", "b\0LD_PRELOAD=c"), ("A=B", "c"), ("", "a"), ("A", "\ud83d")]
)
def test_a_variable_that_no_program_can_have_is_refused(tmp_path: Path, name: str, value: str) -> None:
    launch = Launch(("agent",), "/home/agent", secrets={name: value})
    with pytest.raises(SandboxError, match="cannot be set"):
        build(Place(tmp_path), launch, Options(), env_fd=100, life_fd=101)


def test_a_brief_program_dies_with_the_bot_and_a_kept_one_does_not(tmp_path: Path) -> None:
    launch = Launch(("agent",), "/home/agent")
    brief, kept = (
        build(Place(tmp_path), launch, Options(), env_fd=100, life_fd=life) for life in (101, None)
    )
    assert "--die-with-parent" in brief.argv
    assert "--die-with-parent" not in kept.argv
    assert (brief.shield, kept.shield) == (False, True)


def test_paths_in_the_box_lead_to_directories_that_no_agent_can_replace(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert on_host(place, "/workspace/s1") == tmp_path / "workspaces" / "s1"
    assert on_host(place, "/repositories/7.git") == tmp_path / "repositories" / "7.git"
    for path in (
        "/workspace",
        "/workspace/s1/deeper",
        "/workspace/..",
        "/etc/ssl",
        "workspace/s1",
        "/home/agent",
    ):
        with pytest.raises(SandboxError):
            on_host(place, path)


def test_a_file_is_reached_through_its_directory(tmp_path: Path) -> None:
    assert reaching("/workspace/s1/a/b") == ("/workspace/s1",)
    assert reaching("/home/agent/file") == ()
    for path in ("/tmp/file", "/workspace/s1", "/home/agent/../../etc/passwd", "/workspace/../etc/x"):
        with pytest.raises(SandboxError):
            reaching(path)


async def test_a_directory_that_is_away_says_nothing_of_its_sandboxes(tmp_path: Path) -> None:
    provider = local_provider(tmp_path / "disk", unsafe=True)
    made = await provider.create({})
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    with pytest.raises(SandboxUnreachable):
        await provider.get(made.id)
    (tmp_path / "elsewhere").rename(tmp_path / "disk")
    await (await provider.get(made.id)).delete()
    with pytest.raises(SandboxGone):
        await provider.get(made.id)
