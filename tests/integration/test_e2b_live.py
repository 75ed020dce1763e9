"""What only E2B itself can prove. It costs some minutes of a few sandboxes, which are deleted at the end:

SANDPIPER_TEST_E2B_API_KEY=… [SANDPIPER_TEST_E2B_TEMPLATE=…] pytest tests/integration/test_e2b_live.py
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator

import httpx
import pytest

from bot.errors import ProviderUnavailable, SandboxGone, SandboxNotRunning
from bot.models import Launch, SandboxState
from bot.ports import Sandbox
from sandbox.e2b import Account, E2BProvider
from sandbox.e2b_network import network_of

KEY = os.environ.get("SANDPIPER_TEST_E2B_API_KEY", "")
TEMPLATE = os.environ.get("SANDPIPER_TEST_E2B_TEMPLATE", "base")

pytestmark = [
    pytest.mark.skipif(not KEY, reason="SANDPIPER_TEST_E2B_API_KEY is not set: it needs an account at E2B"),
    pytest.mark.timeout(600),
]


@pytest.fixture
async def provider() -> AsyncIterator[E2BProvider]:
    provider = E2BProvider(
        Account(KEY, template=TEMPLATE, life=300, network=network_of("list", ["pypi.org:443"]))
    )
    yield provider
    await provider.close()


@pytest.fixture
async def sandbox(provider: E2BProvider) -> AsyncIterator[Sandbox]:
    sandbox = await provider.create({"sandpiper.purpose": "test", "sandpiper.test": secrets.token_hex(8)})
    await sandbox.enter()
    yield sandbox
    try:
        await sandbox.delete()
    except SandboxGone:
        pass  # the test did it


async def sh(sandbox: Sandbox, script: str) -> str:
    result = await sandbox.run(Launch(("sh", "-c", script), sandbox.home))
    return (result.out + result.err).decode().strip()


async def test_a_wrong_key_is_told() -> None:
    with pytest.raises(ProviderUnavailable, match="SANDPIPER_E2B_API_KEY"):
        await E2BProvider(Account("e2b_" + "0" * 40)).check()


async def test_a_template_that_is_missing_is_told() -> None:
    with pytest.raises(ProviderUnavailable, match="SANDPIPER_E2B_TEMPLATE"):
        await E2BProvider(Account(KEY, template="no-such-template-" + secrets.token_hex(4))).make({})


async def test_its_labels_find_it_and_its_end_is_told(provider: E2BProvider, sandbox: Sandbox) -> None:
    assert [found.id for found in await provider.find(sandbox.labels)] == [sandbox.id]
    await sandbox.delete()
    with pytest.raises(SandboxGone):
        await sandbox.state()
    assert not await provider.find(sandbox.labels)


async def test_stopped_it_keeps_what_was_written_and_nothing_that_ran(sandbox: Sandbox) -> None:
    process = await sandbox.spawn("p", Launch(("sleep", "3600"), sandbox.home), fence=1, orphan_after=3600)
    assert await sh(sandbox, "echo kept >~/note") == ""
    await sandbox.stop()
    assert await sandbox.state() is SandboxState.STOPPED
    with pytest.raises(SandboxNotRunning):
        await sh(sandbox, "true")
    assert await sandbox.state() is SandboxState.STOPPED
    await sandbox.start()
    assert await sh(sandbox, "cat ~/note; pgrep -x sleep") == "kept"
    assert not (await process.status()).running


async def test_asleep_with_its_memory_the_next_call_wakes_it(provider: E2BProvider, sandbox: Sandbox) -> None:
    echo = Launch(("sh", "-c", "while read line; do echo got $line; done"), sandbox.home)
    process = await sandbox.spawn("p", echo, fence=1, orphan_after=3600)
    await process.write(0, b"one\n")
    await provider._client.pause(sandbox.id)  # what the end of its time does
    assert await sandbox.state() is SandboxState.STOPPED
    await process.write(4, b"two\n")
    said = b""
    while said.count(b"\n") < 2:
        said += (await process.read(1, len(said), ack=0, wait=20)).data
    assert said == b"got one\ngot two\n"


async def test_it_reaches_what_its_rules_name_and_nothing_else(sandbox: Sandbox) -> None:
    ask = "curl -s -o /dev/null -m 20 -w '%{http_code}' https://"
    assert await sh(sandbox, f"{ask}pypi.org/simple/") == "200"
    for elsewhere in ("example.com", "1.1.1.1", "169.254.169.254"):
        assert await sh(sandbox, f"{ask}{elsewhere}/ || true") == "000"


async def test_a_port_wants_its_token(provider: E2BProvider, sandbox: Sandbox) -> None:
    serve = Launch(("python3", "-m", "http.server", "8080"), sandbox.home)
    await sandbox.spawn("p", serve, fence=1, orphan_after=3600)
    [box] = await provider._boxes(sandbox.labels)
    address = await box.door(8080)
    assert address is not None
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=5)) as people:
        assert (await people.get(address.url)).status_code == 403
        assert (await people.get(address.url, headers=dict(address.headers))).status_code == 200
