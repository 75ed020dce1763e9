"""Requests that the playground stops before they act, or before they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import httpx
import pytest

from handlers.playground.github import GitHubPlayground
from handlers.playground.holds import Hold
from handlers.playground.slack import SlackPlayground
from handlers.playground.slack_limits import NO_RATES
from tests.integration.playground_bot import Bot, web_client
from tests.integration.test_playground_git import Client, client
from tests.integration.test_playground_github import WEB, as_installation, github, receiver

__all__ = ["client", "github", "receiver"]  # fixtures


@pytest.fixture
async def slack() -> AsyncIterator[SlackPlayground]:
    async with SlackPlayground(rates=NO_RATES).served() as slack:
        yield slack


async def stands(hold: Hold) -> None:
    await asyncio.wait_for(hold.arrived.wait(), 10)


async def test_a_call_that_is_held_before_it_acts_acts_when_it_is_released(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "ana", "one")
    hold = github.hold_next("POST", r"/comments$")
    async with await as_installation(github) as client:
        call = asyncio.create_task(client.post(f"/repos/{WEB}/issues/{number}/comments", json={"body": "x"}))
        await stands(hold)
        assert not github.comments(WEB, number)
        hold.release()
        assert (await call).status_code == 201
    assert len(github.comments(WEB, number)) == 1


async def test_a_call_that_is_cut_never_acts(github: GitHubPlayground) -> None:
    number = github.open_issue(WEB, "ana", "one")
    hold = github.hold_next("POST", r"/comments$")
    async with await as_installation(github) as client:
        call = asyncio.create_task(client.post(f"/repos/{WEB}/issues/{number}/comments", json={"body": "x"}))
        await stands(hold)
        hold.cut()
        with pytest.raises(httpx.RemoteProtocolError):
            await call
    assert not github.comments(WEB, number)


@pytest.mark.parametrize("acted", [False, True])
async def test_a_push_is_held_before_and_after_its_refs_move(
    github: GitHubPlayground, client: Client, acted: bool
) -> None:
    work = await client.clone(github)
    made = await client.commit(work, {"a.txt": "a\n"})
    hold = github.hold_next("POST", "git-receive-pack$", acted=acted)
    push = asyncio.create_task(client.git("push", "origin", "HEAD:topic", cwd=work))
    await stands(hold)
    assert ((await github.branches(WEB)).get("topic") == made) is acted
    assert not push.done()
    hold.release()
    assert (await push).code == 0
    assert (await github.branches(WEB))["topic"] == made


@pytest.mark.parametrize("acted", [False, True])
async def test_a_call_of_slack_is_held_before_and_after_it_acts(slack: SlackPlayground, acted: bool) -> None:
    hold = slack.hold_next("chat.postMessage", "two", acted=acted)
    client = web_client(slack)
    await client.chat_postMessage(channel="C_DEV", text="one")
    call = asyncio.create_task(client.chat_postMessage(channel="C_DEV", text="two"))
    await stands(hold)
    assert [post.text for post in slack.messages("C_DEV")] == (["one", "two"] if acted else ["one"])
    hold.release()
    await call
    assert [post.text for post in slack.messages("C_DEV")] == ["one", "two"]


async def test_a_call_of_slack_that_is_cut_has_no_answer(slack: SlackPlayground) -> None:
    hold = slack.hold_next("chat.postMessage")
    call = asyncio.create_task(web_client(slack).chat_postMessage(channel="C_DEV", text="x"))
    await stands(hold)
    hold.cut()
    with pytest.raises(aiohttp.ClientConnectionError):
        await call
    assert not slack.messages("C_DEV")


async def test_a_lost_acknowledgement_brings_the_same_event_again(slack: SlackPlayground) -> None:
    slack.lose_ack_next()
    async with Bot(slack).connected() as bot:
        slack.post("U_ANA", "C_DEV", "hello")
        await slack.wait_for(lambda: bot.events("message"))
        assert len(slack.undelivered) == 1
        slack.cut_connections()
        await slack.wait_for(lambda: not slack.undelivered)
        assert len({body["event_id"] for body in bot.bodies}) == 1 and len(bot.bodies) == 2
