"""The providers that the contract holds for. A new one adds a way to be made, and its known failures."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable, SandboxGone
from bot.ports import Provider, Sandbox
from sandbox.box import Box
from sandbox.bubblewrap import Options
from sandbox.daytona import Account, DaytonaProvider
from sandbox.isolation import Bubblewrap, Unisolated
from sandbox.local import LocalProvider
from sandbox.remote import RemoteSandbox
from tests.boxes import cannot_be_tested
from tests.daytona_server import KEY, DaytonaServer
from tests.e2b_server import E2BServer, NearE2B
from tests.remote_boxes import DirectoryProvider

# What makes a provider, afresh each time: two of them on one directory are one bot before and after
# a restart.
Make = Callable[[], Provider]

PROVIDERS: dict[str, Callable[[Path], Provider]] = {
    "local": lambda directory: LocalProvider(directory, Bubblewrap(Options(), allow=())),
    "local-unsafe": lambda directory: LocalProvider(directory, Unisolated()),
    "remote": DirectoryProvider,
    "remote-exec": lambda directory: DirectoryProvider(directory, door=False),
}


class NearDaytona(DaytonaProvider):
    """Its boxes share one machine, so each has a port of its own for the door."""

    def _sandbox(self, box: Box) -> RemoteSandbox:
        return RemoteSandbox(box, self._http, port=int(box.id.rpartition("-")[2]), host="127.0.0.1")


# test name → provider → reason
KNOWN_FAILURES: dict[str, dict[str, str]] = {}

# why a provider cannot work here ("" = it can), asked once
UNAVAILABLE: dict[str, str] = {}


@pytest.fixture
async def daytona(tmp_path: Path) -> AsyncIterator[DaytonaServer]:
    server = DaytonaServer(tmp_path / "daytona")
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def e2b_server(tmp_path: Path) -> AsyncIterator[E2BServer]:
    server = E2BServer(tmp_path / "e2b")
    await server.start()
    yield server
    await server.close()


@pytest.fixture(params=[*PROVIDERS, "daytona", "e2b"])
async def make(
    request: pytest.FixtureRequest, tmp_path: Path, daytona: DaytonaServer, e2b_server: E2BServer
) -> AsyncIterator[Make]:
    reason = KNOWN_FAILURES.get(request.function.__name__, {}).get(request.param)
    if reason:
        pytest.skip(reason)
    in_the_cloud: dict[str, Make] = {
        "daytona": lambda: NearDaytona(Account(KEY, f"{daytona.url}/api")),
        "e2b": lambda: NearE2B(e2b_server.account()),
    }
    if request.param in in_the_cloud:
        made: list[Provider] = []

        def near() -> Provider:
            try:
                made.append(in_the_cloud[request.param]())
            except ProviderUnavailable as error:
                pytest.skip(str(error))
            return made[-1]

        yield near
        for provider in made:  # an SDK may warn of each session that was left open
            await provider.close()
        return
    make = functools.partial(PROVIDERS[request.param], tmp_path / "sandboxes")
    if request.param not in UNAVAILABLE:
        try:
            await make().check()
            UNAVAILABLE[request.param] = ""
        except ProviderUnavailable as error:
            UNAVAILABLE[request.param] = str(error)
    if UNAVAILABLE[request.param]:
        cannot_be_tested(f"{request.param}: {UNAVAILABLE[request.param]}")
    yield make


@pytest.fixture
async def provider(make: Make) -> AsyncIterator[Provider]:
    provider = make()
    yield provider
    for sandbox in await provider.find({}):
        await sandbox.delete()
    await provider.close()


@pytest.fixture
async def sandbox(provider: Provider) -> AsyncIterator[Sandbox]:
    sandbox = await provider.create({"person": "ana"})
    yield sandbox
    try:
        await sandbox.delete()
    except SandboxGone:
        pass  # the test did it
