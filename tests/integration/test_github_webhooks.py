"""Webhook deliveries over real HTTP: verified, stored, acknowledged, in this order."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from bot.models import Delivery
from handlers.github.webhooks import LARGEST_BODY, PATH, Webhooks
from handlers.playground.server import LoopbackServer

SECRET = "it is a secret"
APP_ID = 77
COMMENTED = {
    "action": "created",
    "repository": {"id": 5, "full_name": "acme/web"},
    "issue": {"number": 7},
    "comment": {"id": 9},
    "sender": {"login": "ada", "type": "User"},
}


class Shelf:
    """Where accepted deliveries are put down."""

    def __init__(self) -> None:
        self.deliveries: dict[str, Delivery] = {}

    async def accept(self, delivery: Delivery) -> bool:
        new = delivery.id not in self.deliveries
        self.deliveries.setdefault(delivery.id, delivery)
        return new


class Hook:
    """Posts to our webhook as GitHub does."""

    def __init__(self, client: httpx.AsyncClient, shelf: Shelf) -> None:
        self._client = client
        self.shelf = shelf
        self.url = client.base_url

    async def send(self, payload: object, *, event: str = "issue_comment", **more: str) -> httpx.Response:
        return await self.post(json.dumps(payload).encode(), event=event, **more)

    async def post(
        self, body: bytes, *, event: str = "issue_comment", guid: str = "guid-1", secret: str = SECRET
    ) -> httpx.Response:
        return await self._client.post(PATH, content=body, headers=headers(body, event, guid, secret))

    async def raw(self, content: Any, headers: dict[str, str]) -> httpx.Response:
        return await self._client.post(PATH, content=content, headers=headers)


def headers(body: bytes, event: str, guid: str, secret: str = SECRET) -> dict[str, str]:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": guid,
        "X-Hub-Signature-256": f"sha256={signature}",
    }


async def serve(secret: str) -> AsyncIterator[Hook]:
    shelf = Shelf()
    app = Starlette(routes=[Webhooks(shelf.accept, secret, APP_ID, lambda: 123.5).route])
    async with LoopbackServer(app) as server, httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        yield Hook(client, shelf)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    async for hook in serve(SECRET):
        yield hook


async def test_a_delivery_is_stored_raw_before_it_is_acknowledged(hook: Hook) -> None:
    body = json.dumps(COMMENTED, indent=3).encode()
    answer = await hook.post(body)
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    assert hook.shelf.deliveries == {
        "guid-1": Delivery("github", "guid-1", "issue_comment", body, 123.5, lane="5/7")
    }


async def test_the_same_delivery_again_is_acknowledged_and_has_no_effect(hook: Hook) -> None:
    await hook.send(COMMENTED)
    answer = await hook.send(COMMENTED)
    assert (answer.status_code, answer.json()) == (202, {"status": "known already"})
    assert len(hook.shelf.deliveries) == 1


async def refused(hook: Hook, answer: httpx.Response, status: int, why: str) -> None:
    assert answer.status_code == status
    assert why in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert hook.shelf.deliveries == {}


async def test_a_wrong_signature_is_401(hook: Hook) -> None:
    await refused(hook, await hook.send(COMMENTED, secret="another"), 401, "signature does not match")


async def test_a_signature_of_other_bytes_is_401(hook: Hook) -> None:
    signed = headers(json.dumps(COMMENTED).encode(), "issue_comment", "guid-1")
    await refused(hook, await hook.raw(b'{"action": "forged"}', signed), 401, "signature does not match")


@pytest.mark.parametrize("secret", ["", "anything"])
async def test_without_a_secret_of_ours_every_delivery_is_401(secret: str) -> None:
    async for hook in serve(""):
        await refused(hook, await hook.send(COMMENTED, secret=secret), 401, "no webhook secret")


@pytest.mark.parametrize("name", ["X-GitHub-Event", "X-GitHub-Delivery", "X-Hub-Signature-256"])
async def test_a_missing_header_is_400_and_named(hook: Hook, name: str) -> None:
    body = json.dumps(COMMENTED).encode()
    sent = headers(body, "issue_comment", "guid-1")
    del sent[name]
    await refused(hook, await hook.raw(body, sent), 400, name)


async def test_an_endless_delivery_id_is_400(hook: Hook) -> None:
    await refused(hook, await hook.send(COMMENTED, guid="g" * 500), 400, "X-GitHub-Delivery")


async def test_a_body_that_says_it_is_too_large_is_413_unread(hook: Hook) -> None:
    sent = headers(b"", "issue_comment", "guid-1") | {"Content-Length": str(30 * 2**20), "Host": "us"}
    reader, writer = await asyncio.open_connection(hook.url.host, hook.url.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    writer.write(f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode())  # and not a byte of the body
    status = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    assert b" 413 " in status
    assert hook.shelf.deliveries == {}


async def test_a_body_that_turns_out_too_large_is_413(hook: Hook) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 2**20

    try:
        answer = await hook.raw(pieces(), headers(b"", "issue_comment", "guid-1"))
    except httpx.WriteError:  # the server hung up in the middle of it: just as well
        assert hook.shelf.deliveries == {}
    else:
        await refused(hook, answer, 413, str(LARGEST_BODY))


@pytest.mark.parametrize("body", [b"", b"{", b"payload=%7B%7D", b"\xff"])
async def test_a_signed_body_that_is_not_json_is_400_with_the_mend(hook: Hook, body: bytes) -> None:
    await refused(hook, await hook.post(body), 400, "application/json")


@pytest.mark.parametrize(
    "payload",
    [
        {"zen": "Design for failure."},
        [1, 2],
        "text",
        None,
        {"action": "created", "repository": 5, "issue": [], "sender": {"type": "User"}},
        {"action": {"odd": 1}, "repository": {"id": "x"}, "issue": {"number": None}},
    ],
)
async def test_a_shape_that_we_do_not_know_is_stored_all_the_same(hook: Hook, payload: object) -> None:
    answer = await hook.send(payload)
    assert answer.status_code == 202
    assert hook.shelf.deliveries["guid-1"].lane == ""


async def test_json_too_deep_to_look_into_is_stored(hook: Hook) -> None:
    answer = await hook.post(b"[" * 100_000 + b"]" * 100_000)
    assert answer.status_code == 202
    assert len(hook.shelf.deliveries) == 1


async def test_a_large_delivery_is_looked_into_too(hook: Hook) -> None:
    await hook.send(COMMENTED | {"padding": "x" * 2**20})
    assert hook.shelf.deliveries["guid-1"].lane == "5/7"


def bot(payload: dict[str, Any]) -> dict[str, Any]:
    return payload | {"sender": {"login": "sandpiper[bot]", "type": "Bot"}}


def by_our_app(payload: dict[str, Any]) -> dict[str, Any]:
    return payload | {"comment": {"id": 9, "performed_via_github_app": {"id": 77}}}


def closed(payload: dict[str, Any]) -> dict[str, Any]:
    return payload | {"action": "pinned"}


@pytest.mark.parametrize("change", [bot, by_our_app, closed])
async def test_what_we_never_use_is_acknowledged_and_not_stored(
    hook: Hook, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    answer = await hook.send(change(COMMENTED))
    assert (answer.status_code, answer.json()) == (202, {"status": "ignored"})
    assert hook.shelf.deliveries == {}


PULL = {
    "action": "closed",
    "repository": {"id": 5},
    "pull_request": {"number": 8, "head": {"ref": "sandpiper/7-fix-12345678"}},
    "sender": {"login": "merge-queue[bot]", "type": "Bot"},
}


async def test_that_a_pull_request_of_ours_is_done_with_is_stored_whoever_did_it(hook: Hook) -> None:
    assert (await hook.send(PULL, event="pull_request")).json() == {"status": "accepted"}
    assert hook.shelf.deliveries["guid-1"].lane == "5/8"
    theirs = PULL | {"pull_request": {"number": 9, "head": {"ref": "feature"}}}
    answer = await hook.send(theirs, event="pull_request", guid="guid-2")
    assert answer.json() == {"status": "ignored"}


@pytest.mark.parametrize("event", ["ping", "push", "star"])
async def test_events_that_we_never_use_are_acknowledged(hook: Hook, event: str) -> None:
    assert (await hook.send({}, event=event)).status_code == 202
    assert hook.shelf.deliveries == {}
    wrong = await hook.send({}, event=event, secret="another")
    assert wrong.status_code == 401
