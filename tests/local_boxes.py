"""Local sandboxes, and what is tried in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bot.models import ExecResult, Launch
from sandbox.bubblewrap import Options
from sandbox.cgroups import Limits
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider, LocalSandbox


def make(
    directory: Path,
    *,
    together: Limits | None = None,
    uids: str = "",
    data_dir: Path | None = None,
    **options: Any,
) -> LocalProvider:
    isolation = Bubblewrap(Options(**options), ("registry.npmjs.org:443",), together)
    return LocalProvider(directory, isolation, uids=uids, data_dir=data_dir)


async def attempt(
    sandbox: LocalSandbox, script: str, *args: str, visible: tuple[str, ...] = (), **more: Any
) -> ExecResult:
    launch = Launch(("sh", "-c", script, "sh", *args), cwd=sandbox.home, visible=visible, **more)
    return await sandbox.run(launch)


async def sh(sandbox: LocalSandbox, script: str, *args: str, **more: Any) -> str:
    result = await attempt(sandbox, script, *args, **more)
    assert result.code == 0, result.err.decode()
    return result.out.decode().strip()
