"""Links to ports of boxes at Daytona: its real SDK makes them and takes them back."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from bot.errors import ProviderUnavailable, SandboxError, SandboxGone, SandboxUnreachable
from bot.ports import Guard, Sandbox
from sandbox.daytona import DaytonaBox, DaytonaProvider
from sandbox.daytona_account import Account
from sandbox.remote import RemoteSandbox
from sandbox.remote_ports import AT_ONCE, SHARED_SECONDS, RemotePorts
from sandbox.remote_supervisor import DOOR_PORT
from tests.daytona_server import KEY, DaytonaServer
from tests.port_people import Person, browser, leads, serving, shown, until
from tests.remote_boxes import entered, free_port

pytest.importorskip("daytona", reason="the extra `daytona` is not installed")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[DaytonaServer]:
    server = DaytonaServer(tmp_path / "daytona")
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def provider(server: DaytonaServer) -> AsyncIterator[DaytonaProvider]:
    provider = DaytonaProvider(Account(KEY, f"{server.url}/api"))
    yield provider
    await provider.close()


@pytest.fixture
async def sandbox(provider: DaytonaProvider) -> Sandbox:
    return await entered(provider.create({"person": "ana"}))


async def test_a_link_shows_the_page_without_a_header_and_ends_with_its_time(
    server: DaytonaServer, sandbox: Sandbox
) -> None:
    port = free_port()
    async with serving(sandbox, port) as entrance, browser() as anybody:
        link = await shown(sandbox, port, entrance, Person().guard(600.0))
        assert link.bearer == 600.0
        assert (await anybody.get(f"{link.url}a?b=c")).json()["path"] == "/a?b=c"
        server.later = 599.0
        assert await leads(anybody, link.url)
        server.later = 601.0
        assert not await leads(anybody, link.url)


async def test_a_link_says_nothing_of_the_keys_behind_it(server: DaytonaServer, sandbox: Sandbox) -> None:
    port = free_port()
    async with serving(sandbox, port) as entrance, browser() as anybody:
        link = await shown(sandbox, port, entrance, Person().guard())
        page = (await anybody.get(link.url)).text
        assert link.url not in repr(link)
        for secret in (KEY, server.tokens[sandbox.id]):
            assert secret not in page and secret not in link.url


async def test_what_an_agent_shares_ends_with_its_turn_or_after_an_hour(
    server: DaytonaServer, provider: DaytonaProvider, sandbox: Sandbox
) -> None:
    port = free_port()
    async with serving(sandbox, port) as entrance, browser() as anybody:
        await shown(sandbox, port, entrance, Person().guard())
        link = await sandbox.expose(port, "way")
        assert link.bearer == SHARED_SECONDS and await leads(anybody, link.url)
        await (await provider.get(sandbox.id)).conceal("way")
        assert not await leads(anybody, link.url)


@pytest.mark.parametrize("port", [DOOR_PORT, 2280, 22222, 33333])
async def test_no_link_leads_to_the_providers_programs_and_ours(
    server: DaytonaServer, sandbox: Sandbox, port: int
) -> None:
    for guard in (Person().guard(), None):
        with pytest.raises(SandboxError, match="not the agent's"):
            await sandbox.expose(port, "", guard=guard)
    assert not server.signed


async def test_where_strangers_read_no_link_is_made(server: DaytonaServer, sandbox: Sandbox) -> None:
    for guard in (Person().guard(), None):
        with pytest.raises(SandboxError, match="Anybody can read this thread"):
            await sandbox.expose(3000, "way", guard=guard, strangers=True)
    assert not server.signed


async def taken_back(server: DaytonaServer) -> bool:
    return not server.signed


@contextlib.asynccontextmanager
async def asked_often(provider: DaytonaProvider, guard: Guard) -> AsyncIterator[str]:
    """A link whose holder is asked about all the time."""
    box: DaytonaBox = await provider.make({"person": "ana"})
    ports = RemotePorts(ask_every=0.01)
    async with httpx.AsyncClient(trust_env=False) as client:
        sandbox = RemoteSandbox(box, client, ports=ports)
        await sandbox.start()
        await sandbox.enter()
        port = free_port()
        async with serving(sandbox, port) as entrance:
            yield (await shown(sandbox, port, entrance, guard)).url
    await ports.close()


async def test_nobody_who_may_not_steer_any_more_keeps_a_link(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    ana = Person()
    async with asked_often(provider, ana.guard()) as link, browser() as anybody:

        async def asked() -> bool:
            return ana.asked >= 3

        async def over() -> bool:
            return not await leads(anybody, link)

        await until(asked)
        assert await leads(anybody, link)
        ana.refusal = "Ana may not."
        await until(over)
        assert not server.signed


async def test_a_link_whose_holder_cannot_be_asked_about_ends_and_the_log_says_why(
    server: DaytonaServer, provider: DaytonaProvider, caplog: pytest.LogCaptureFixture
) -> None:
    async def refusal() -> str:
        raise LookupError("the store is gone")

    async with asked_often(provider, Guard(3600.0, refusal, "A port, for Ana.")) as link:
        await until(partial(taken_back, server))
        assert link and "a link to its port" in caplog.text and "the store is gone" in caplog.text


async def test_a_link_that_could_not_be_taken_back_is_taken_back_later(
    server: DaytonaServer, provider: DaytonaProvider, caplog: pytest.LogCaptureFixture
) -> None:
    ana = Person()
    server.fail("expire$", 400, message="not now", times=2)
    async with asked_often(provider, ana.guard()):
        ana.refusal = "Ana may not."
        await until(partial(taken_back, server))
        assert "holds on" in caplog.text and "not now" in caplog.text


async def test_an_account_without_previews_is_a_clear_no(server: DaytonaServer, sandbox: Sandbox) -> None:
    server.previews = False
    port = free_port()
    async with serving(sandbox, port) as entrance:
        with pytest.raises(ProviderUnavailable, match="SANDPIPER_DAYTONA_API_KEY"):
            await shown(sandbox, port, entrance, Person().guard())


async def test_a_link_that_daytona_does_not_know_is_no_box_that_is_gone(
    server: DaytonaServer, sandbox: Sandbox
) -> None:
    server.fail("signed-preview-url", 404, message="Sandbox not found", times=-1)
    with pytest.raises(SandboxError) as refused:
        await sandbox.expose(free_port(), "way")
    assert not isinstance(refused.value, SandboxGone)


@pytest.mark.parametrize("what", ["signed-preview-url$", "ports/\\d+/preview-url$"])
async def test_an_answer_without_a_link_is_none(
    server: DaytonaServer, provider: DaytonaProvider, what: str
) -> None:
    box = await provider.make({"person": "ana"})
    server.fail(what, says="null")
    with pytest.raises(SandboxUnreachable, match="without a link"):
        await (box.sign(3000, 60.0) if "signed" in what else box.door(3000))


async def test_a_lost_answer_is_asked_for_again(server: DaytonaServer, sandbox: Sandbox) -> None:
    server.fail("signed-preview-url$", after=True)
    link = await sandbox.expose(free_port(), "way")
    assert link.url.split("/")[-2] in server.signed
    server.fail("expire$", 503)
    await sandbox.conceal("way")
    assert link.url.split("/")[-2] not in server.signed


async def test_what_cannot_be_taken_back_holds_nobody_up(server: DaytonaServer, sandbox: Sandbox) -> None:
    await sandbox.expose(free_port(), "way")
    await server.vanish(sandbox.id)
    await sandbox.conceal("way")


async def test_the_oldest_of_many_links_goes(server: DaytonaServer, sandbox: Sandbox) -> None:
    port = free_port()
    first = (await sandbox.expose(port, "way")).url.split("/")[-2]
    for _ in range(AT_ONCE):
        await sandbox.expose(port, "way")
    assert first not in server.signed and len(server.signed) == AT_ONCE


async def test_a_bot_that_ends_leaves_links_to_their_time(server: DaytonaServer, sandbox: Sandbox) -> None:
    port = free_port()
    another = DaytonaProvider(Account(KEY, f"{server.url}/api"))
    async with serving(sandbox, port) as entrance, browser() as anybody:
        link = await shown(await another.get(sandbox.id), port, entrance, Person().guard())
        await another.close()
        assert await leads(anybody, link.url)
