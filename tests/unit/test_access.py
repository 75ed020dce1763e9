"""Who may, from a surface whose people have no account of the forge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bot.access import Access, Allowlist
from bot.errors import Denied, RepositoryUnknown
from bot.models import Identity, Person, Repository, ThreadKey
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


async def test_code_of_a_repository_that_is_gone_may_be_read_by_nobody_else_and_is_not_named(
    tmp_path: Path,
) -> None:
    ann, ben = (Identity("github", "github:11", user, user) for user in ("7", "8"))
    forge = DirectoryForge(tmp_path, permissions={"8": "write"})

    async def reach(owner: Person) -> Sequence[Repository]:
        forge.unsure.append(RepositoryUnknown("There is no repository acme/secret."))
        return [Repository(2, "acme/secret", "main", True, 11)]

    access = Access(forge, {"github": MemorySurface("github")}, Allowlist(), within_reach=reach)
    web = Repository(1, "acme/web", "main", False, 11)
    with pytest.raises(Denied, match="may not read") as denied:
        await access.may_steer(ben, ThreadKey("github", "1", "1"), web, Person(1, "github:11", ann))
    assert "secret" not in str(denied.value)
