"""No space left: nothing is lost, nothing is taken that cannot be kept, and who can mend it is told."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.rig import REPOSITORY, at_gate, rig
from tests.e2e.test_serve import GITHUB, serve

MB = 1024 * 1024


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[None]:
    """A file system of its own. Skips the test where it may not be made."""
    place.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,mode=700"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "small", place], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> Path:
    """A file that takes all the room that is left."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (MB, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler


async def test_a_full_data_directory_loses_nothing(tmp_path: Path) -> None:
    data = tmp_path / "bot"
    with ExitStack() as disks:
        disks.enter_context(small_disk(data, 16))
        disks.enter_context(small_disk(data / "sandboxes", 64))
        async with rig(tmp_path) as r, httpx.AsyncClient(trust_env=False, timeout=20.0) as github:
            root = r.mention(f"{at_gate('full')}\n!write work.txt work\n!commit Work")
            await r.reached("full")
            pid = r.bot.pid
            filler = fill(data)
            r.open_gate("full")
            # Larger than what the database has left in reserve: so it is not taken, and can be sent again.
            body = b'{"padding": "' + b"x" * 20 * MB + b'"}'
            headers = r.github.signed_headers("issues", body)
            assert r.github.webhook_url is not None
            assert (await github.post(r.github.webhook_url, content=body, headers=headers)).status_code == 500
            assert (await github.get(r.playground.health_url)).status_code == 200
            filler.unlink()
            final = await r.final(root)
            assert "+work" in await r.diff(final)
            assert "Nothing is running here" in await r.status(root)
            assert len(r.finals(root)) == len(r.github.pull_requests(REPOSITORY)) == 1
            assert r.bot.pid == pid
            assert "disk is full. Check the data directory's disk" in r.log


async def test_a_full_sandbox_ends_the_turn_with_the_cause(tmp_path: Path) -> None:
    with small_disk(tmp_path / "bot" / "sandboxes", 16):
        async with rig(tmp_path) as r:
            root = r.mention("!write work.txt work\n!commit Work\n!run head -c 99000000 /dev/zero > big")
            assert "No space left on device" in (await r.final(root)).shown
            assert "Nothing is running here" in await r.status(root)


async def test_a_full_disk_at_the_start_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with small_disk(data, 2):
        fill(data)
        ended = await serve(tmp_path, GITHUB)
    assert ended.code == 2
    assert str(data) in ended.said and "disk" in ended.said
    assert "Traceback" not in ended.said
