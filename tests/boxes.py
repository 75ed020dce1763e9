"""Tests that need local sandboxes, where there can be none."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from bot.errors import ProviderUnavailable
from bot.ports import Provider

ROOT = Path(__file__).parents[1]
NOBODY = 65534

# CI installs bubblewrap, so there it is a failure that it is missing or does not work.
REQUIRED = os.environ.get("SANDPIPER_TEST_SANDBOX") == "required"


def cannot_be_tested(reason: str) -> NoReturn:
    """Skip the test, or fail it where it is required."""
    if REQUIRED:
        pytest.fail(f"SANDPIPER_TEST_SANDBOX=required, but: {reason}")
    pytest.skip(reason)


_working: set[str] = set()


async def must_work(provider: Provider, kind: str) -> None:
    """Skip the test, or fail it where it is required, if boxes of this kind cannot be made here.

    Trying that takes longer than many a test, so it is done once for each kind.
    """
    if kind in _working:
        return
    try:
        await provider.check()
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))
    _working.add(kind)


def passed_by_nobody(*words: object, within: float) -> bool:
    """Run tests as a user who is nobody, in so many seconds, and see that some pass and none fails. Skips
    where no interpreter can be had for that."""
    found = _interpreter_for(NOBODY)
    if found is None:
        pytest.skip("no interpreter here can be used by another user")
    command, env = found
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *map(str, words)]
    done = subprocess.run(
        [*command, *tests], cwd=ROOT, env=env, capture_output=True, check=False, timeout=within
    )
    assert done.returncode == 0, done.stdout.decode()[-6000:] + done.stderr.decode()[-2000:]
    return b" passed" in done.stdout


def _interpreter_for(user: int) -> tuple[list[str], dict[str, str]] | None:
    """A command that runs our tests as another user, and its environment; None: there is none."""
    drop = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
    packages = ":".join([str(ROOT), *site.getsitepackages()])
    for python in (sys.executable, shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin")):
        if python:
            env = {"PATH": os.environ["PATH"], "PYTHONPATH": packages, "PYTHONDONTWRITEBYTECODE": "1"}
            check = "import sys, subprocess, pytest_asyncio, pytest_timeout, bot.models"
            probe = [*drop, python, "-c", f"{check}; subprocess.run([sys.executable, '-c', ''], check=True)"]
            if subprocess.run(probe, env=env, capture_output=True, check=False).returncode == 0:
                return [*drop, python], env
    return None
