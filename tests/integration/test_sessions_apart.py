"""Local sandboxes keep a person's sessions apart: who steers in one of them, and may read its repository
only, gets nothing of another one's code by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.errors import ProviderUnavailable
from bot.models import Launch
from bot.workspace import own_directory
from sandbox.bubblewrap import Options
from sandbox.isolation import Bubblewrap
from sandbox.local import LocalProvider, LocalSandbox
from tests.boxes import cannot_be_tested

SECRET = "def of_the_private_repository(): ..."
SERVES = f"mkdir -p d; echo '{SECRET}' >d/secret.py; cd d; exec python3 -m http.server 3000"
# Every socket that a program finds, and the port that agents' servers usually have.
LOOKS = """
import os, socket, stat
for top in (os.path.expanduser("~"), "/workspace", "/repositories", "/tmp", "/run"):
    for above, _, names in os.walk(top):
        for name in names:
            path = os.path.join(above, name)
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                continue
            print("found", path, flush=True)
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(5)
                link.connect(path)
                link.sendall(b"3000\\n")
                if link.recv(1) == b"+":
                    link.sendall(b"GET /secret.py HTTP/1.0\\r\\n\\r\\n")
                    print(link.makefile().read())
"""


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[LocalSandbox]:
    provider = LocalProvider(tmp_path / "sandboxes", Bubblewrap(Options(), allow=()))
    try:
        await provider.check()
    except ProviderUnavailable as error:
        cannot_be_tested(str(error))
    assert provider.separates_sessions
    sandbox = await provider.create({})
    yield sandbox
    await sandbox.delete()


def program(session: str, *argv: str, entrance: str = "") -> Launch:
    where = f"/workspace/{session}"
    return Launch(argv, where, visible=(where,), entrance=entrance)


async def test_a_session_does_not_reach_what_listens_in_anothers_box(sandbox: LocalSandbox) -> None:
    entrance = f"{own_directory(sandbox, 'private')}/shared/at-1-1"
    serves = program("private", "sh", "-c", SERVES, entrance=entrance)
    process = await sandbox.spawn("turn-1-1", serves, fence=1, orphan_after=600.0)
    try:
        async with asyncio.timeout(60):
            own = ""
            while "200 OK" not in own:  # the looking works
                own = (await sandbox.run(program("private", "python3", "-c", LOOKS))).out.decode()
        assert SECRET in own
        other = (await sandbox.run(program("public", "python3", "-c", LOOKS))).out.decode()
        assert entrance not in other and SECRET not in other
    finally:
        await process.signal("KILL")
