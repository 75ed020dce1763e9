"""What a thread hears of hosts that its sandbox was not let through to."""

from __future__ import annotations

from pathlib import Path

from bot.models import DeniedHost
from tests.town import town
from tests.world import ScriptedProcess


async def test_each_host_that_was_refused_is_told_once_with_the_setting_that_would_let_it_through(
    tmp_path: Path,
) -> None:
    async def meets_closed_doors(agent: ScriptedProcess) -> None:
        await agent.take()
        [box] = t.provider.boxes.values()
        box.denied += [
            DeniedHost("evil.example:443", "SANDPIPER_EGRESS_ALLOW"),
            DeniedHost("127.0.0.1:5432", "SANDPIPER_EGRESS_LOOPBACK"),
            DeniedHost("169.254.169.254:80", ""),
        ]
        agent.say(done="I could not get out.")

    async with town(tmp_path, [meets_closed_doors]) as t:
        await t.say("go out")
        await t.final()
        told = [row.title for row in t.slack.pictures[-1].rows if row.title.startswith("Not allowed")]
    assert told == [
        "Not allowed: evil.example:443. SANDPIPER_EGRESS_ALLOW would let it through.",
        "Not allowed: 127.0.0.1:5432. SANDPIPER_EGRESS_LOOPBACK would let it through.",
        "Not allowed: 169.254.169.254:80. It is no public address, and no setting would let it through.",
    ]
