"""The providers that the contract holds for. A new one adds a way to be made, and its known failures."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable, SandboxGone
from bot.ports import Provider, Sandbox
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap, Unisolated
from sandbox.local import LocalProvider
from tests.boxes import cannot_be_tested
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

# test name → provider → reason
KNOWN_FAILURES: dict[str, dict[str, str]] = {
    "test_only_what_is_visible_is_seen": {
        "local-unsafe": "it has no box to hide things in",
        "remote": "one user and one file system, as separates_sessions says",
        "remote-exec": "one user and one file system, as separates_sessions says",
    },
}

# why a provider cannot work here ("" = it can), asked once
UNAVAILABLE: dict[str, str] = {}


@pytest.fixture(params=PROVIDERS)
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    reason = KNOWN_FAILURES.get(request.function.__name__, {}).get(request.param)
    if reason:
        pytest.skip(reason)
    make = functools.partial(PROVIDERS[request.param], tmp_path / "sandboxes")
    if request.param not in UNAVAILABLE:
        try:
            await make().check()
            UNAVAILABLE[request.param] = ""
        except ProviderUnavailable as error:
            UNAVAILABLE[request.param] = str(error)
    if UNAVAILABLE[request.param]:
        cannot_be_tested(f"{request.param}: {UNAVAILABLE[request.param]}")
    return make


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
