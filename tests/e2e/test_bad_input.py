"""What is wrong with a message is told to whoever can mend it, and nobody else notices. Over real HTTP."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from handlers.playground.playground import WEBHOOKS, Playground
from handlers.playground.slack_limits import NO_RATES
from tests.e2e.rig import REPOSITORY, Rig, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLACK = "/slack/events"
TOO_LARGE = 30 * 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    """A bot that Slack calls over HTTP too."""
    directory = tmp_path_factory.mktemp("rig")
    async with Playground(directory / "github", rates=NO_RATES) as playground:
        settings = {
            "SANDPIPER_SLACK_APP_TOKEN": "",
            "SANDPIPER_SLACK_SIGNING_SECRET": playground.slack.signing_secret,
        }
        playground.slack.request_url = f"http://127.0.0.1:{playground.web_port}{SLACK}"
        async with running(Rig(playground, directory, settings)) as made:
            yield made


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(shared: Rig) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody on the network; what he sends must not keep the bot from answering others."""
    address = f"http://127.0.0.1:{shared.playground.web_port}"
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=20.0) as client:
        yield client
        assert (await client.get("/healthz")).json()["ok"] is True
    root = shared.mention("status")
    await shared.slack_until(lambda: bool(shared.notes(root)))
    assert "I have no session in this thread" in shared.notes(root)[0]
    assert "Traceback" not in shared.log


def by_slack(body: bytes, secret: str, *, age: int = 0) -> dict[str, str]:
    stamp = str(int(time.time()) - age)
    signed = hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-Slack-Request-Timestamp": stamp,
        "X-Slack-Signature": f"v0={signed}",
    }


def mention(shared: Rig, event_id: str) -> bytes:
    """An event that would start work, were it let in."""
    event = {
        "type": "app_mention",
        "user": "U_ANA",
        "channel": "C_DEV",
        "ts": "1700000000.000100",
        "text": f"<@{shared.slack.bot_user_id}> !answer I was let in.",
    }
    body = {"type": "event_callback", "event_id": event_id, "team_id": "T_ACME", "event": event}
    return json.dumps({**body, "api_app_id": "A_BOT", "authorizations": []}).encode()


def labelled(shared: Rig) -> bytes:
    """A webhook that would start work, were it let in."""
    issue = {"number": 1, "title": "In", "body": "", "updated_at": "2026-01-01T00:00:00Z"}
    return json.dumps(
        {
            "action": "labeled",
            "label": {"name": "sandpiper"},
            "issue": {**issue, "user": {"login": "ana"}, "html_url": ""},
            "repository": {"id": shared.github.repository(REPOSITORY).id, "full_name": REPOSITORY},
            "sender": {"login": "ana", "type": "User"},
            "installation": {"id": 1},
        }
    ).encode()


def webhook(shared: Rig, body: bytes, **changed: str) -> dict[str, str]:
    return {**shared.github.signed_headers("issues", body), **changed}


def nothing_started(shared: Rig) -> bool:
    return not shared.github.calls_to("GET", r"\.git/info/refs$") and not shared.github.comments(
        REPOSITORY, 1
    )


async def test_a_wrong_signature_is_turned_away(shared: Rig, stranger: httpx.AsyncClient) -> None:
    body = mention(shared, "Ev_FORGED")
    answer = await stranger.post(SLACK, content=body, headers=by_slack(body, "not the secret"))
    assert answer.status_code == 401
    answer = await stranger.post(SLACK, content=body)
    assert answer.status_code == 401
    body = labelled(shared)
    forged = webhook(shared, body, **{"X-Hub-Signature-256": "sha256=" + "0" * 64})
    answer = await stranger.post(WEBHOOKS, content=body, headers=forged)
    assert answer.status_code == 401 and "signature does not match" in answer.json()["error"]
    assert nothing_started(shared)


async def test_a_replayed_request_of_slack_is_turned_away(shared: Rig, stranger: httpx.AsyncClient) -> None:
    body = mention(shared, "Ev_REPLAYED")
    old = by_slack(body, shared.slack.signing_secret, age=301)
    assert (await stranger.post(SLACK, content=body, headers=old)).status_code == 401
    assert nothing_started(shared)


async def test_a_body_of_30_mb_is_turned_away(shared: Rig, stranger: httpx.AsyncClient) -> None:
    body = b" " * TOO_LARGE
    for path, headers in (
        (WEBHOOKS, webhook(shared, body)),
        (SLACK, by_slack(body, shared.slack.signing_secret)),
    ):
        try:
            answer = await stranger.post(path, content=body, headers=headers)
        except httpx.WriteError:  # the bot hung up in the middle of it: just as well
            continue
        assert answer.status_code == 413


@pytest.mark.parametrize("body", [b"{", b"[1", b"\xff\xfe", b'{"event": '])
async def test_broken_json_is_turned_away(shared: Rig, stranger: httpx.AsyncClient, body: bytes) -> None:
    answer = await stranger.post(WEBHOOKS, content=body, headers=webhook(shared, body))
    assert answer.status_code == 400 and "not JSON" in answer.json()["error"]
    answer = await stranger.post(SLACK, content=body, headers=by_slack(body, shared.slack.signing_secret))
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'"text"', b"null", b'{"authorizations": 5}', b'{"event": {"type": "message"}}']
)
async def test_json_of_an_unknown_shape_breaks_nothing(
    shared: Rig, stranger: httpx.AsyncClient, body: bytes
) -> None:
    answer = await stranger.post(WEBHOOKS, content=body, headers=webhook(shared, body))
    assert answer.status_code == 202
    answer = await stranger.post(SLACK, content=body, headers=by_slack(body, shared.slack.signing_secret))
    assert answer.status_code < 500


async def test_the_same_event_again_is_one_effect(shared: Rig, stranger: httpx.AsyncClient) -> None:
    root = shared.mention("!answer Only once.")
    await shared.final(root)
    (event,) = [
        delivery.payload
        for delivery in shared.slack.deliveries
        if delivery.kind == "events_api"
        and delivery.payload["event"]["type"] == "app_mention"
        and delivery.payload["event"]["ts"] == root
    ]
    for event_id in (event["event_id"], "Ev_ANOTHER"):
        body = json.dumps({**event, "event_id": event_id}).encode()
        headers = by_slack(body, shared.slack.signing_secret)
        assert (await stranger.post(SLACK, content=body, headers=headers)).status_code == 200
    assert "Nothing is running here" in await shared.status(root)
    assert len(shared.finals(root)) == len(shared.timelines(root)) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("repo=acme/nowhere Fix it", ("no repository acme/nowhere", "install the App")),
        ("repo=nowhere Fix it", ("`repo=nowhere` is not a repository", "`repo=owner/name`")),
        ("repo=acme/web repo=acme/docs Fix it", ("given twice",)),
        ("agent=nobody Fix it", ("nobody", "scripted")),
        ("", ("What shall I do?",)),
    ],
)
async def test_a_message_that_cannot_be_worked_on_says_what_to_write(
    shared: Rig, words: str, told: tuple[str, ...]
) -> None:
    root = shared.mention(words)
    await shared.slack_until(lambda: bool(shared.notes(root)))
    (note,) = shared.notes(root)
    for part in told:
        assert part in note
    assert not shared.timelines(root)
    assert "I have no session" in await shared.status(root)
