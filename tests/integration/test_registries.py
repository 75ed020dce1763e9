"""Packages reach a box in the default egress mode: the real pip and npm, from registries of our own.

Nothing names these to the proxy: they stand, in a network of their own, where the world's registries do.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable
from bot.models import Launch
from sandbox.local import LocalSandbox, local_provider
from tests.boxes import ROOT, cannot_be_tested
from tests.certificates import make_authority
from tests.integration.public_registries import FILES, INDEX, MIRROR, NAMES, NPM, WORD
from tests.npm_registry import NpmRegistry
from tests.own_network import in_own_network

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")

# What this machine says to its own pip and npm does not count.
QUIET = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_RETRIES": "1",
    "npm_config_globalconfig": os.devnull,
    "npm_config_update_notifier": "false",
    "npm_config_fetch_retries": "0",
}
APP = {"name": "app", "version": "1.0.0", "dependencies": {"greeting": "1.0.0"}}
LOCK = {
    "name": "app",
    "version": "1.0.0",
    "lockfileVersion": 3,
    "packages": {
        "": APP,
        "node_modules/greeting": {
            "version": "1.0.0",
            "resolved": f"https://{NPM}/greeting/-/1.0.0.tgz",
            "bin": {"greet": "run.sh"},
        },
    },
}
NPM_CI = f"""
mkdir -p app; cd app
echo '{json.dumps(APP)}' >package.json
echo '{json.dumps(LOCK)}' >package-lock.json
npm ci --no-audit --no-fund
node_modules/.bin/greet
"""
PIP = """
PYTHONPATH={packages} python3 -m pip install --no-cache-dir --target ~/{goal} {words} greeting
PYTHONPATH=~/{goal} python3 -c 'import greeting; print(greeting.WORD)'
"""


@dataclass(frozen=True)
class Tried:
    """What became of each script (its end where it went well, else all that it said), and which hosts the
    proxy refused them."""

    said: dict[str, str]
    refused: list[str]


def tries(directory: Path, scripts: Mapping[str, str], **settings: str) -> Tried:
    """Run them in a fresh box of a bot whose settings are these, and otherwise the default."""
    authority = make_authority(directory, *NAMES)
    program = [sys.executable, "-m", "tests.integration.public_registries", str(authority.served)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SANDPIPER_")}
    done = subprocess.run(
        in_own_network(directory, NAMES, program),
        input=json.dumps([(script, QUIET) for script in scripts.values()]),
        env={
            **kept,
            "SANDPIPER_DATA_DIR": str(directory / "data"),
            "SANDPIPER_CA_BUNDLE": str(authority.bundle),
            "SANDPIPER_SANDBOX_TOOLS": ",".join(tools()),
            **settings,
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout)
    if "cannot" in told:
        cannot_be_tested(told["cannot"])
    said = [
        f"failed: {one['out']}{one['err']}" if one["code"] else one["out"].rstrip().rpartition("\n")[2]
        for one in told["told"]
    ]
    return Tried(dict(zip(scripts, said, strict=True)), told["refused"])


@pytest.fixture(scope="module")
def by_default(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """A bot with no setting of egress, and a mirror that no mode but `open` knows."""
    return tries(tmp_path_factory.mktemp("default"), {"pip": pip(), **npm_ci(), "mirror": from_mirror()})


def packages() -> Path:
    """Where pip is."""
    pip = importlib.util.find_spec("pip")
    if pip is None or pip.origin is None:
        pytest.skip("pip is not installed")
    return Path(pip.origin).parents[1]


def tools() -> list[str]:
    """What boxes have to be shown of pip and npm."""
    npm = shutil.which("npm")
    found = [packages(), *([Path(npm).resolve().parents[3]] if npm else [])]
    return [str(tool) for tool in found if not tool.is_relative_to("/usr")]


def pip(words: str = "", goal: str = "site") -> str:
    return PIP.format(packages=packages(), words=words, goal=goal)


def from_mirror() -> str:
    return pip(f"--index-url https://{MIRROR}/simple", goal="mirrored")


def npm_ci() -> dict[str, str]:
    return {"npm": NPM_CI} if shutil.which("npm") else {}


def assert_refused(said: str, host: str) -> None:
    """It is the proxy that has said no, and its words have reached who reads the tool's."""
    assert said.startswith("failed: ") and f"403 egress to {host}:443 is not allowed" in said, said


def test_pip_installs_in_the_default_mode(by_default: Tried) -> None:
    assert by_default.said["pip"] == WORD


@needs_npm
def test_npm_ci_installs_from_a_lock_in_the_default_mode(by_default: Tried) -> None:
    assert by_default.said["npm"] == WORD


def test_the_default_mode_refuses_a_registry_that_it_does_not_know(by_default: Tried) -> None:
    assert_refused(by_default.said["mirror"], MIRROR)
    assert by_default.refused == [f"{MIRROR}:443"]


def test_the_same_registry_is_reached_where_the_mode_is_open(tmp_path: Path) -> None:
    opened = tries(tmp_path, {"mirror": from_mirror()}, SANDPIPER_EGRESS_MODE="open")
    assert opened == Tried({"mirror": WORD}, [])


@needs_npm
def test_neither_installs_where_only_the_operators_list_counts(tmp_path: Path) -> None:
    """Here, too, the registries are there: so it is the mode that has let them through."""
    listed = {"SANDPIPER_EGRESS_MODE": "list", "SANDPIPER_EGRESS_ALLOW": f"{FILES}:443"}
    tried = tries(tmp_path, {"pip": pip(), **npm_ci()}, **listed)
    assert_refused(tried.said["pip"], INDEX)
    assert_refused(tried.said["npm"], NPM)
    assert tried.refused == [f"{INDEX}:443", f"{NPM}:443"]


async def sh(sandbox: LocalSandbox, script: str, env: Mapping[str, str]) -> str:
    result = await sandbox.run(Launch(("sh", "-ec", script), sandbox.home, env=env), timeout=100)
    assert result.code == 0, result.out.decode() + result.err.decode()
    return result.out.decode().strip().splitlines()[-1]


@needs_npm
async def test_a_package_cache_is_its_owners_and_outlives_a_stop(tmp_path: Path) -> None:
    """The registry goes away: who has installed it before still can, and nobody else."""
    npm = Path(shutil.which("npm") or "").resolve().parents[3]
    tools = () if npm.is_relative_to("/usr") else (str(npm),)
    async with NpmRegistry() as registry:
        registry.publish("greeting", "1.0.0", "greet", f"#!/bin/sh\necho {WORD}\n")
        provider = local_provider(tmp_path / "boxes", tools=tools, loopback=(f"127.0.0.1:{registry.port}",))
        try:
            await provider.check()
        except ProviderUnavailable as error:
            cannot_be_tested(str(error))
        anas, bens = await provider.create({"person": "ana"}), await provider.create({"person": "ben"})
        env = {**QUIET, "npm_config_registry": registry.url}
        install = "mkdir $1; cd $1; npm install --no-audit --no-fund greeting; node_modules/.bin/greet"
        assert await sh(anas, f"set -- one; {install}", env) == WORD
    await anas.stop()
    await anas.start()
    again = f"set -- two; {install.replace('npm install', 'npm install --offline')}"
    assert await sh(anas, again, env) == WORD
    refused = await bens.run(Launch(("sh", "-ec", again), bens.home, env=env), timeout=100)
    assert refused.code != 0 and b"ENOTCACHED" in refused.err
    for sandbox in (anas, bens):
        await sandbox.delete()
