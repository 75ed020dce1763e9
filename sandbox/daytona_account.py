"""What an operator says of the account at Daytona, and of the boxes that are made there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.daytona_network import OPEN, Network

# Parameters of a new box that are ours to set, and why an operator cannot.
OURS = {
    **dict.fromkeys(("labels", "name"), "sandboxes are found by them"),
    **dict.fromkeys(("ephemeral", "ttl_minutes", "linked_sandbox", "spot"), "sandboxes are kept"),
    **dict.fromkeys(("image", "snapshot", "target"), "it has a setting of its own"),
    "auto_stop_interval": "SANDPIPER_SANDBOX_IDLE_STOP says it",
    "auto_pause_interval": "SANDPIPER_SANDBOX_IDLE_STOP says it",
    "auto_archive_interval": "SANDPIPER_DAYTONA_AUTO_ARCHIVE says it",
    "auto_delete_interval": "SANDPIPER_DAYTONA_AUTO_DELETE says it",
    **dict.fromkeys(
        ("network_block_all", "network_allow_list", "domain_allow_list"), "SANDPIPER_EGRESS_MODE says it"
    ),
}


@dataclass(frozen=True, slots=True)
class Account:
    """api_key: sent to `api_url` alone, never into a box. target: a region of Daytona's. snapshot, image:
    what boxes are made of, the image if both are there, and without them the account's own default.
    idle_stop: seconds without use until a new box stops itself. auto_archive, auto_delete: seconds that a box
    is stopped until Daytona archives or deletes it; 0: its own default of seven days, and never. extra: more
    parameters of the SDK's `create`, as they are there."""

    api_key: str = field(repr=False)
    api_url: str
    target: str = ""
    snapshot: str = ""
    image: str = ""
    idle_stop: float = 1800.0
    auto_archive: float = 0.0
    auto_delete: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    network: Network = OPEN

    @property
    def made_of(self) -> str:
        return f"image {self.image}" if self.image else f"snapshot {self.snapshot or '(the default)'}"


def intervals(account: Account) -> tuple[int | None, int]:
    """Minutes until a stopped box is archived (None: as Daytona does) and deleted (-1: never)."""
    archive = math.ceil(account.auto_archive / 60) if account.auto_archive else None
    return archive, math.ceil(account.auto_delete / 60) if account.auto_delete else -1
