"""Who may, from a surface whose people have no account of the forge."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.access import Access, Allowlist
from bot.errors import Denied
from bot.models import Identity, ThreadKey
from tests.world import DirectoryForge, MemorySurface

ANA = Identity("slack", "slack:T1", "U_ANA", "Ana")
ALONE = ThreadKey("slack", "T1/alone", "1")
CHANNEL = ThreadKey("slack", "T1/D_AY", "1")


@pytest.mark.parametrize(("listed", "allowed", "denied"), [("dm", ALONE, CHANNEL), ("D_AY", CHANNEL, ALONE)])
async def test_direct_messages_are_listed_as_dm_and_only_the_surface_knows_which_they_are(
    tmp_path: Path, listed: str, allowed: ThreadKey, denied: ThreadKey
) -> None:
    access = Access(
        DirectoryForge(tmp_path), {"slack": MemorySurface()}, Allowlist(("U_ANA",), (listed,), ("*",))
    )
    await access.may_work(ANA, allowed, None)
    with pytest.raises(Denied, match="channel"):
        await access.may_work(ANA, denied, None)
