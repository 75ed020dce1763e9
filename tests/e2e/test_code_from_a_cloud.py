"""Code on demand in a box at Daytona: by the address that the operator names, which its rules let through."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daytona_server import KEY, DaytonaServer
from tests.e2e.rig import REPOSITORY, rig
from tests.remote_boxes import free_port

pytest.importorskip("daytona", reason="the extra `daytona` is not installed")


async def test_a_large_repository_is_read_by_the_operators_address(tmp_path: Path) -> None:
    server = DaytonaServer(tmp_path / "daytona")
    await server.start()
    port = free_port()
    settings = {
        "SANDPIPER_SANDBOX_PROVIDER": "daytona",
        "SANDPIPER_DAYTONA_API_KEY": KEY,
        "SANDPIPER_DAYTONA_API_URL": f"{server.url}/api",
        "SANDPIPER_DAYTONA_SNAPSHOT": "sandpiper-1",
        "SANDPIPER_EGRESS_MODE": "list",
        "SANDPIPER_EGRESS_ALLOW": "203.0.113.1:443",
        "SANDPIPER_CODE_ON_DEMAND_FROM": "1",
        "SANDPIPER_CODE_PORT": str(port),
        "SANDPIPER_CODE_URL": f"http://127.0.0.1:{port}",
    }
    try:
        async with rig(tmp_path, **settings) as r:
            for word in ("one", "two", "three"):
                await r.github.push_commit(REPOSITORY, "main", {"changing.txt": f"{word}\n"}, "ana")
            root = r.mention(
                "!run git rev-list --objects --all --missing=print | grep '^?'\n"
                "!run git show HEAD~1:changing.txt >seen.txt\n!commit Add seen\n!answer It is there."
            )
            assert "+two" in await r.diff(await r.final(root))
            (box,) = server.boxes.values()
            assert "127.0.0.1/32" in str(box.network_allow_list)
    finally:
        await server.close()
