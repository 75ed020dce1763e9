"""Without isolation, by the operator's word: every status says so."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.e2e.rig import at_gate, rig

WARNING = "agents run without isolation"


async def test_unsafe_mode_shows_in_every_status(tmp_path: Path) -> None:
    async with rig(tmp_path, SANDPIPER_SANDBOX_UNSAFE="true") as r:
        assert WARNING in r.log
        async with httpx.AsyncClient(trust_env=False) as probe:
            assert WARNING in (await probe.get(r.playground.health_url)).json()["warning"]
        root = r.mention(f"{at_gate('unsafe')}\n!answer Done.")
        await r.reached("unsafe")
        await r.shows(root, WARNING)
        assert WARNING in await r.status(root)
        r.open_gate("unsafe")
        await r.final(root)
        await r.shows(root, "Worked for")
        assert WARNING in r.picture(root)
        assert WARNING in await r.status(root)
