"""Packages reach a box in the default egress mode: the real pip and npm, from registries on loopback."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable
from bot.models import Launch
from sandbox.local import LocalSandbox, local_provider
from tests.boxes import cannot_be_tested
from tests.npm_registry import NpmRegistry
from tests.python_index import PythonIndex

Create = Callable[..., Awaitable[LocalSandbox]]


@pytest.fixture
async def create(tmp_path: Path) -> AsyncIterator[Create]:
    """Make a sandbox that reaches a service of this machine, with these tools."""
    made = []

    async def create(port: int, tool: Path) -> LocalSandbox:
        tools = () if tool.is_relative_to("/usr") else (str(tool),)
        provider = local_provider(tmp_path / "boxes", tools=tools, loopback=(f"127.0.0.1:{port}",))
        try:
            await provider.check()
        except ProviderUnavailable as error:
            cannot_be_tested(str(error))
        made.append(await provider.create({}))
        return made[0]

    yield create
    for sandbox in made:
        await sandbox.delete()


async def sh(sandbox: LocalSandbox, script: str, **env: str) -> str:
    result = await sandbox.run(Launch(("sh", "-ec", script), sandbox.home, env=env), timeout=100)
    assert result.code == 0, result.out.decode() + result.err.decode()
    return result.out.decode().strip().splitlines()[-1]


async def test_pip_installs_in_the_default_mode(create: Create) -> None:
    pip = importlib.util.find_spec("pip")
    if pip is None or pip.origin is None:
        pytest.skip("pip is not installed")
    packages = Path(pip.origin).parents[1]
    async with PythonIndex() as index:
        index.publish("greeting", "1.0", "WORD = 'hello from a wheel'")
        sandbox = await create(index.port, packages)
        install = "python3 -m pip install --no-cache-dir --target ~/site --index-url"
        said = await sh(
            sandbox,
            f"PYTHONPATH={packages} {install} {index.url} greeting;"
            " PYTHONPATH=~/site python3 -c 'import greeting; print(greeting.WORD)'",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
        )
        assert said == "hello from a wheel"


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
async def test_npm_ci_installs_from_a_lock_in_the_default_mode(create: Create, tmp_path: Path) -> None:
    async with NpmRegistry() as registry:
        registry.publish("greeting", "1.0.0", "greet", "#!/bin/sh\necho hello from a package\n")
        npm = Path(shutil.which("npm") or "").resolve()
        sandbox = await create(int(registry.url.rpartition(":")[2]), npm.parents[3])
        about = {"name": "app", "version": "1.0.0", "dependencies": {"greeting": "1.0.0"}}
        (tmp_path / "package.json").write_text(json.dumps(about))
        await sandbox.upload(tmp_path / "package.json", f"{sandbox.home}/package.json")
        quiet = {"npm_config_registry": registry.url, "npm_config_update_notifier": "false"}
        await sh(sandbox, "npm install --package-lock-only --no-audit; ls package-lock.json", **quiet)
        assert await sh(sandbox, "npm ci --no-audit; node_modules/.bin/greet", **quiet) == (
            "hello from a package"
        )


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
async def test_a_package_cache_is_its_owners_and_outlives_a_stop(tmp_path: Path) -> None:
    """The registry goes away: who has installed it before still can, and nobody else."""
    npm = Path(shutil.which("npm") or "").resolve().parents[3]
    tools = () if npm.is_relative_to("/usr") else (str(npm),)
    async with NpmRegistry() as registry:
        registry.publish("greeting", "1.0.0", "greet", "#!/bin/sh\necho hello from a package\n")
        port = registry.url.rpartition(":")[2]
        provider = local_provider(tmp_path / "boxes", tools=tools, loopback=(f"127.0.0.1:{port}",))
        try:
            await provider.check()
        except ProviderUnavailable as error:
            cannot_be_tested(str(error))
        anas, bens = await provider.create({"person": "ana"}), await provider.create({"person": "ben"})
        quiet = {
            "npm_config_registry": registry.url,
            "npm_config_update_notifier": "false",
            "npm_config_fetch_retries": "0",
        }
        install = "mkdir $1; cd $1; npm install --no-audit --no-fund greeting; node_modules/.bin/greet"
        first = f"set -- one; {install}"
        assert await sh(anas, first, **quiet) == "hello from a package"
    await anas.stop()
    await anas.start()
    again = f"set -- two; {install.replace('npm install', 'npm install --offline')}"
    assert await sh(anas, again, **quiet) == "hello from a package"
    refused = await bens.run(Launch(("sh", "-ec", again), bens.home, env=quiet), timeout=100)
    assert refused.code != 0 and b"ENOTCACHED" in refused.err
    for sandbox in (anas, bens):
        await sandbox.delete()
