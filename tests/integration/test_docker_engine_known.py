"""Whether the engine that answers is the one that has the sandboxes: another one, or one without its disk,
does not make them gone (rule 9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable, SandboxGone, SandboxUnreachable
from sandbox.container import Engine
from sandbox.container_sandbox import DockerSandbox
from sandbox.docker import DockerProvider
from tests.docker_engine import IMAGE, DockerEngine
from tests.remote_boxes import remove_tree

pytest.importorskip("aiodocker", reason="the extra `docker` is not installed")

LABELS = {"sandpiper.installation": "here", "sandpiper.tenant": "T1", "sandpiper.person": "7"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data" / "docker"


@pytest.fixture
async def provider(engine: DockerEngine, directory: Path) -> AsyncIterator[DockerProvider]:
    provider = DockerProvider(directory, Engine(engine.url, IMAGE), allow=())
    yield provider
    for sandbox in await provider.find({}):
        await sandbox.delete()
    await provider.close()


@pytest.fixture
async def sandbox(provider: DockerProvider) -> DockerSandbox:
    return await provider.create(LABELS)


async def test_another_engine_does_not_make_sandboxes_gone(
    engine: DockerEngine, provider: DockerProvider, sandbox: DockerSandbox
) -> None:
    await provider.check()
    engine.id, kept = "ANOTHER", dict(engine.volumes)
    engine.volumes.clear()
    with pytest.raises(SandboxUnreachable, match="another Docker engine"):
        await provider.get(sandbox.id)
    with pytest.raises(ProviderUnavailable, match="another Docker engine"):
        await provider.check()
    engine.id = "ENGINE"
    engine.volumes |= {name: volume for name, volume in kept.items() if name != sandbox.id}
    with pytest.raises(SandboxGone):
        await provider.get(sandbox.id)
    engine.volumes = kept


async def test_an_engine_without_its_disk_does_not_make_sandboxes_gone(
    engine: DockerEngine, provider: DockerProvider, sandbox: DockerSandbox
) -> None:
    kept = dict(engine.volumes)
    engine.volumes.clear()  # it says the same id when its data root is not mounted
    with pytest.raises(SandboxUnreachable, match="none of this bot's volumes"):
        await provider.get(sandbox.id)
    with pytest.raises(SandboxUnreachable, match="none of this bot's volumes"):
        await provider.create(LABELS)  # which would be proof that the disk is there
    with pytest.raises(ProviderUnavailable, match="none of this bot's volumes") as refused:
        await provider.check()
    assert "data root" in refused.value.mend
    engine.volumes |= kept
    await provider.check()
    assert (await provider.get(sandbox.id)).id == sandbox.id


async def test_a_bot_of_before_asks_for_its_sandboxes_instead(
    engine: DockerEngine, provider: DockerProvider, sandbox: DockerSandbox
) -> None:
    await engine.prune({sandbox.id})  # an earlier release made no other one
    kept = engine.volumes.pop(sandbox.id)
    with pytest.raises(ProviderUnavailable, match="none of this bot's volumes"):
        await provider.check()
    engine.volumes[sandbox.id] = kept
    await provider.check()
    assert provider.engine.disk in engine.volumes


async def test_a_bot_that_begins_anew_has_its_disk(
    engine: DockerEngine, provider: DockerProvider, sandbox: DockerSandbox, directory: Path
) -> None:
    await engine.halt()
    engine.containers.clear()
    await engine.prune(())
    await asyncio.to_thread(remove_tree, directory / sandbox.id)
    await provider.check()
    with pytest.raises(SandboxGone):
        await provider.get(sandbox.id)


async def test_unused_volumes_that_were_pruned_are_gone(
    engine: DockerEngine, provider: DockerProvider, sandbox: DockerSandbox
) -> None:
    other = await provider.create({**LABELS, "sandpiper.person": "8"})
    await engine.halt()
    engine.containers.clear()
    await engine.prune({other.id})
    with pytest.raises(SandboxGone):
        await provider.get(sandbox.id)
    await other.delete()
    with pytest.raises(SandboxGone):
        await provider.get(other.id)


async def test_without_sandboxes_everything_may_be_pruned(
    engine: DockerEngine, provider: DockerProvider, sandbox: DockerSandbox
) -> None:
    await sandbox.delete()
    await engine.prune(())
    await provider.check()
    assert await provider.create(LABELS)


async def test_where_a_full_disk_left_no_name_of_the_engine_it_is_the_one_that_is_there(
    provider: DockerProvider, directory: Path
) -> None:
    (directory / "engine").touch()
    await provider.check()
    assert (directory / "engine").read_text()
