"""The providers that the contract holds for. A new one adds a way to be made, and its known failures."""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bot.errors import ProviderUnavailable, SandboxGone
from bot.ports import Provider, Sandbox
from sandbox.bubblewrap import Options
from sandbox.container import Engine
from sandbox.daytona import DaytonaBox, DaytonaProvider
from sandbox.daytona_account import Account
from sandbox.docker import DockerProvider
from sandbox.isolation import Bubblewrap, Unisolated
from sandbox.local import LocalProvider
from sandbox.local_ports import LocalPorts
from tests.boxes import cannot_be_tested
from tests.daytona_server import KEY, DaytonaServer
from tests.docker_engine import IMAGE, LIVE_HOST, LIVE_IMAGE, DockerEngine, leave_no_disk
from tests.e2b_server import E2BServer, NearE2B
from tests.remote_boxes import DirectoryProvider

# What makes a provider, afresh each time: two of them on one directory are one bot before and after
# a restart.
Make = Callable[[], Provider]

LOOPBACK = "127.0.0.1"

PROVIDERS: dict[str, Callable[[Path], Provider]] = {
    "local": lambda directory: LocalProvider(
        directory, Bubblewrap(Options(), allow=()), ports=LocalPorts(LOOPBACK)
    ),
    "local-unsafe": lambda directory: LocalProvider(directory, Unisolated()),
    "remote": lambda directory: DirectoryProvider(directory, ports_host=LOOPBACK),
    "remote-exec": lambda directory: DirectoryProvider(directory, door=False),
}


# A real account, where the contract makes, uses and deletes boxes. Snapshot and target are optional.
LIVE_KEY = "SANDPIPER_TEST_DAYTONA_API_KEY"


class LiveDaytona(DaytonaProvider):
    """At Daytona itself. It knows the boxes of this run only: the contract deletes all that it finds."""

    run = {"sandpiper.purpose": "contract", "sandpiper.run": secrets.token_hex(8)}  # noqa: RUF012

    async def create(self, labels: Mapping[str, str]) -> Sandbox:
        return await super().create({**labels, **self.run})

    async def find(self, labels: Mapping[str, str]) -> Sequence[Sandbox]:
        return await super().find({**labels, **self.run})

    def _box(self, sandbox: Any) -> DaytonaBox:
        box = super()._box(sandbox)
        box.labels = {name: value for name, value in box.labels.items() if name not in self.run}
        return box

    @classmethod
    def of_the_environment(cls) -> LiveDaytona:
        def asked(name: str, default: str = "") -> str:
            return os.environ.get(f"SANDPIPER_TEST_DAYTONA_{name}", default)

        url = asked("API_URL", "https://app.daytona.io/api")
        return cls(Account(os.environ[LIVE_KEY], url, target=asked("TARGET"), snapshot=asked("SNAPSHOT")))


# test name → provider → reason
NO_PORTS = {
    "local-unsafe": "programs are not started by ours there, which has the entrance",
    "remote-exec": "without a door there is no way to a port",
}
KNOWN_FAILURES: dict[str, dict[str, str]] = {
    "test_a_port_is_shown_to_people_until_it_is_concealed": NO_PORTS,
    "test_where_nothing_listens_there_is_no_link": NO_PORTS,
}

# why a provider cannot work here ("" = it can), asked once
UNAVAILABLE: dict[str, str] = {}


@asynccontextmanager
async def cloud(name: str, tmp_path: Path) -> AsyncIterator[Make]:
    """A provider at its own API, or at one on loopback."""
    if name == "daytona-live":
        yield LiveDaytona.of_the_environment
    elif name == "daytona":
        daytona = DaytonaServer(tmp_path / "daytona")
        await daytona.start()
        yield lambda: DaytonaProvider(Account(KEY, f"{daytona.url}/api"))
        await daytona.close()
    else:
        e2b = E2BServer(tmp_path / "e2b")
        await e2b.start()
        yield lambda: NearE2B(e2b.account(), ports_host=LOOPBACK)
        await e2b.close()


async def containers(tmp_path: Path, *, live: bool) -> AsyncIterator[Make]:
    made: list[DockerProvider] = []
    mark = f"sandpiper-test-{secrets.token_hex(4)}"  # a real engine may have others
    engine = DockerEngine(tmp_path / "engine")
    if not live:
        await engine.start()
    about = Engine(LIVE_HOST, LIVE_IMAGE) if live else Engine(engine.url, IMAGE)

    def provider() -> Provider:
        try:
            made.append(DockerProvider(tmp_path / "docker", about, (), mark=mark, ports_host=LOOPBACK))
        except ProviderUnavailable as error:
            pytest.skip(str(error))
        return made[-1]

    yield provider
    if live and made:
        await leave_no_disk(made[-1])
    for one in made:
        await one.close()
    if not live:
        await engine.close()


@pytest.fixture(
    params=[*PROVIDERS, "daytona", "daytona-live", "e2b", "docker", *(["docker-live"] if LIVE_IMAGE else [])]
)
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    reason = KNOWN_FAILURES.get(request.function.__name__, {}).get(request.param)
    if reason:
        pytest.skip(reason)
    if request.param in ("docker", "docker-live"):
        async for make in containers(tmp_path, live=request.param == "docker-live"):
            yield make
        return
    if request.param == "daytona-live" and not os.environ.get(LIVE_KEY):
        pytest.skip(f"{LIVE_KEY} is not set: it needs an account at Daytona, and costs what boxes cost")
    if request.param in ("daytona", "daytona-live", "e2b"):
        made: list[Provider] = []
        async with cloud(request.param, tmp_path) as there:

            def near() -> Provider:
                try:
                    made.append(there())
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
    await sandbox.enter()
    yield sandbox
    try:
        await sandbox.delete()
    except SandboxGone:
        pass  # the test did it
