"""The Slack app's manifest: valid, and asking for what the code uses and nothing else."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]

from handlers.slack.standings import EVENTS
from handlers.slack.web import SCOPES

ROOT = Path(__file__).parent.parent.parent
SCHEMA = Path(__file__).parent.parent / "data" / "slack-manifest.schema.2.0.0.json"

# Why each scope is there (docs.slack.dev, each method's and event's own page).
CONVERSATIONS = ("channels", "groups", "im", "mpim")
NEEDED = {
    "app_mention": ["app_mentions:read"],
    "message.channels": ["channels:history"],
    "message.groups": ["groups:history"],
    "message.im": ["im:history"],
    "message.mpim": ["mpim:history"],
    "slash commands": ["commands"],
    "chat_postMessage": ["chat:write"],
    "chat_update": ["chat:write"],
    "reactions_add": ["reactions:write"],
    "reactions_remove": ["reactions:write"],
    "files_getUploadURLExternal": ["files:write"],
    "files_completeUploadExternal": ["files:write"],
    "files_info": ["files:read"],
    "users_info": ["users:read"],
    "user_change": ["users:read"],
    "conversations_info": [f"{kind}:read" for kind in CONVERSATIONS],
    "conversations_history": [f"{kind}:history" for kind in CONVERSATIONS],
    "conversations_replies": [f"{kind}:history" for kind in CONVERSATIONS],
}


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "manifest.yml").read_text())
    return loaded


def test_it_is_what_slack_takes(manifest: dict[str, Any]) -> None:
    jsonschema.validate(manifest, json.loads(SCHEMA.read_text()))


def test_it_asks_for_the_scopes_that_are_needed_and_no_other(manifest: dict[str, Any]) -> None:
    needed = {scope for scopes in NEEDED.values() for scope in scopes}
    assert sorted(manifest["oauth_config"]["scopes"]["bot"]) == sorted(needed)
    assert needed == SCOPES


def test_each_event_it_subscribes_to_is_one_we_listen_to(manifest: dict[str, Any]) -> None:
    events = set(manifest["settings"]["event_subscriptions"]["bot_events"])
    said = {name for name in NEEDED if name == "app_mention" or name.startswith("message.")}
    assert events == {*said, *EVENTS}


def test_each_method_that_wants_a_scope_is_still_called() -> None:
    code = "".join(path.read_text() for path in (ROOT / "handlers" / "slack").glob("*.py"))
    for method in (name for name in NEEDED if "_" in name and name not in ("app_mention", *EVENTS)):
        assert f".{method}(" in code
