""".env.example is what people set the bot up with: every name in it is real, and none is missing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from bot.errors import SettingsError
from bot.settings import PREFIX, Settings, load

EXAMPLE = Path(__file__).parents[2] / ".env.example"
LINE = re.compile(rf"^(?P<off># )?(?P<name>{PREFIX}\w+)=(?P<value>.*)$", re.MULTILINE)

FILLED_IN = {
    "SANDPIPER_SLACK_BOT_TOKEN": "xoxb-1",
    "SANDPIPER_SLACK_APP_TOKEN": "xapp-1",
    "SANDPIPER_GITHUB_APP_ID": "1",
    "SANDPIPER_GITHUB_PRIVATE_KEY": "-----BEGIN RSA PRIVATE KEY-----",
    "SANDPIPER_GITHUB_WEBHOOK_SECRET": "s",
}


@pytest.fixture(autouse=True)
def without_settings_of_this_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


def every_setting() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for inner in field.annotation.model_fields:
                yield f"{PREFIX}{name}_{inner}".upper()
        else:
            yield f"{PREFIX}{name}".upper()


def lines(*, off: bool) -> dict[str, str]:
    found = LINE.finditer(EXAMPLE.read_text())
    return {line["name"]: line["value"] for line in found if bool(line["off"]) is off}


def env(path: Path, values: dict[str, str]) -> Path:
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return path


def test_every_name_in_the_example_is_a_setting_and_every_setting_is_in_the_example() -> None:
    assert sorted([*lines(off=True), *lines(off=False)]) == sorted(every_setting())


def test_what_has_to_be_filled_in_is_enough(tmp_path: Path) -> None:
    assert lines(off=False) == dict.fromkeys(FILLED_IN, "")
    settings = load(env(tmp_path / "env", FILLED_IN))
    assert settings.slack_on and settings.github_on


@pytest.mark.parametrize("left_out", [name for name in FILLED_IN if name != "SANDPIPER_SLACK_BOT_TOKEN"])
def test_nothing_of_it_can_be_left_out(tmp_path: Path, left_out: str) -> None:
    values = {name: value for name, value in FILLED_IN.items() if name != left_out}
    with pytest.raises(SettingsError, match=left_out):
        load(env(tmp_path / "env", values))


def test_without_the_slack_lines_it_is_a_bot_for_issues(tmp_path: Path) -> None:
    settings = load(env(tmp_path / "env", {n: v for n, v in FILLED_IN.items() if "SLACK" not in n}))
    assert settings.github_on and not settings.slack_on


def test_the_defaults_shown_are_the_defaults(tmp_path: Path) -> None:
    shown = load(env(tmp_path / "shown", {**FILLED_IN, **lines(off=True)}))
    assert shown == load(env(tmp_path / "env", FILLED_IN))
