"""Who is not there any more, out of what Slack and GitHub tell."""

from __future__ import annotations

from typing import Any

import pytest

from bot.models import Standing
from handlers.github import standings as github
from handlers.slack import standings as slack

BOT = "U0BOT"


def callback(event: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "event_callback", "team_id": "T1", "event": event, **more}


def changed(**user: Any) -> dict[str, Any]:
    return {"type": "user_change", "user": {"id": "U1ANA", "team_id": "T1", **user}}


def test_an_account_that_is_deactivated_has_left() -> None:
    (told,) = slack.standings(callback(changed(deleted=True)), BOT)
    assert told == Standing("slack:T1", "U1ANA", why=slack.DEACTIVATED)


def test_in_an_organisation_it_is_the_tenant_that_messages_have() -> None:
    (told,) = slack.standings(callback(changed(deleted=True), enterprise_id="E1"), BOT)
    assert told.tenant == "slack:E1"


@pytest.mark.parametrize(
    "event",
    [
        changed(deleted=False),
        changed(),
        changed(deleted="yes"),
        {"type": "user_change", "user": "U1ANA"},
        {"type": "user_change", "user": {"deleted": True}},
        {"type": "message", "user": "U1ANA"},
        {"type": "tokens_revoked", "tokens": {"oauth": ["U1ANA"], "bot": []}},
        {"type": "tokens_revoked", "tokens": {"bot": ["U0OTHER"]}},
        {"type": "tokens_revoked", "tokens": BOT},
        {},
    ],
)
def test_other_events_say_nothing_of_that(event: dict[str, Any]) -> None:
    assert slack.standings(callback(event), BOT) == ()


@pytest.mark.parametrize(
    "event", [{"type": "app_uninstalled"}, {"type": "tokens_revoked", "tokens": {"bot": [BOT]}}]
)
def test_a_workspace_without_the_app_has_left(event: dict[str, Any]) -> None:
    assert slack.standings(callback(event), BOT) == (Standing("slack:T1", why=slack.UNINSTALLED),)


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("deleted", github.UNINSTALLED),
        ("suspend", github.SUSPENDED),
        ("unsuspend", ""),
        ("created", ""),
    ],
)
def test_an_installation_that_ends_or_begins(action: str, why: str) -> None:
    payload = {"action": action, "installation": {"id": 7}}
    assert github.standings("installation", payload) == (Standing("github:7", installation=7, why=why),)


def test_repositories_that_are_taken_away() -> None:
    payload = {
        "action": "removed",
        "installation": {"id": 7},
        "repositories_removed": [{"id": 1}, {"id": "2"}, None, {"id": 3}],
    }
    told = github.standings("installation_repositories", payload)
    assert [(one.repository, one.why) for one in told] == [(1, github.WITHDRAWN), (3, github.WITHDRAWN)]
    assert not any(one.tenant or one.installation for one in told)


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        ("issues", {"action": "deleted", "installation": {"id": 7}}),
        ("installation", {"action": "new_permissions_accepted", "installation": {"id": 7}}),
        ("installation", {"action": ["deleted"], "installation": {"id": 7}}),
        ("installation", {"action": "deleted", "installation": {"id": True}}),
        ("installation", {"action": "deleted", "installation": {"id": 2**70}}),
        ("installation", {"action": "deleted"}),
        ("installation", []),
        ("installation_repositories", {"action": "added", "installation": {"id": 7}}),
        ("installation_repositories", {"action": "removed", "installation": {"id": 7}}),
    ],
)
def test_what_says_nothing_of_that_or_has_another_shape(event: str, payload: Any) -> None:
    assert github.standings(event, payload) == ()
