"""What a thread hears of hosts that its sandbox was not let through to."""

from __future__ import annotations

from pathlib import Path

from bot.core import Policy
from bot.hooks import HookSeconds
from bot.models import DeniedHost, Outcome, Verb
from bot.sessions import Defaults
from tests.integration.test_hooks import SETUP, has
from tests.integration.test_workspace import answers
from tests.town import OPEN, Town, town
from tests.world import ScriptedProcess

CLOSED = [
    DeniedHost("evil.example:443", "SANDPIPER_EGRESS_ALLOW"),
    DeniedHost("127.0.0.1:5432", "SANDPIPER_EGRESS_LOOPBACK"),
    DeniedHost("169.254.169.254:80", ""),
]
SAID = [
    "Not allowed: evil.example:443. SANDPIPER_EGRESS_ALLOW would let it through.",
    "Not allowed: 127.0.0.1:5432. SANDPIPER_EGRESS_LOOPBACK would let it through.",
    "Not allowed: 169.254.169.254:80. It is no public address, and no setting would let it through.",
]


def refuse(t: Town, *hosts: DeniedHost) -> None:
    [box] = t.provider.boxes.values()
    box.denied += [(t.clock.now(), host) for host in hosts]


def told(t: Town) -> list[str]:
    """In the newest picture."""
    return [row.title for row in t.slack.pictures[-1].rows if row.title.startswith("Not allowed")]


async def test_each_host_that_was_refused_is_told_once_with_the_setting_that_would_let_it_through(
    tmp_path: Path,
) -> None:
    async def meets_closed_doors(agent: ScriptedProcess) -> None:
        await agent.take()
        refuse(t, *CLOSED, CLOSED[0])
        agent.say(done="I could not get out.")

    async with town(tmp_path, [meets_closed_doors]) as t:
        await t.say("go out")
        await t.final()
        assert told(t) == SAID


async def test_what_an_earlier_turn_met_is_not_told_again(tmp_path: Path) -> None:
    async def meets_a_closed_door(agent: ScriptedProcess) -> None:
        await agent.take()
        refuse(t, CLOSED[0])
        agent.say(done="I could not get out.")

    async with town(tmp_path, [meets_a_closed_door, answers]) as t:
        await t.say("go out")
        await t.final()
        t.clock.advance(1)
        await t.say("again", addressed=False)
        await t.final(2)
        assert told(t) == []


async def test_what_a_hook_met_is_told(tmp_path: Path) -> None:
    policy = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN, hooks=HookSeconds(60, 60))
    async with town(tmp_path, [answers], policy) as t:
        await has(t, SETUP, "touch ../runs; while ! test -e ../go; do sleep 0.05; done")
        await t.say("go")
        await t.until(lambda: any((tmp_path / "boxes").rglob("runs")))
        refuse(t, CLOSED[0])
        [runs] = (tmp_path / "boxes").rglob("runs")
        runs.with_name("go").touch()
        await t.final()
        assert told(t) == SAID[:1]


async def test_what_an_agent_met_before_it_died_is_told_and_told_once(tmp_path: Path) -> None:
    async def dies(agent: ScriptedProcess) -> None:
        await agent.take()
        refuse(t, CLOSED[0])
        agent.exit(1)

    async def meets_it_again(agent: ScriptedProcess) -> None:
        await agent.take()
        refuse(t, *CLOSED[:2])
        agent.say(done="I could not get out.")

    async with town(tmp_path, [dies, meets_it_again]) as t:
        await t.say("go out")
        await t.after_time(step=1.0)
        assert told(t) == SAID[:2]


async def test_what_a_hook_met_that_hung_until_it_was_stopped_is_told(tmp_path: Path) -> None:
    policy = Policy(defaults=Defaults("acme/web", "lines"), allowlist=OPEN, hooks=HookSeconds(60, 60))
    async with town(tmp_path, [answers], policy) as t:
        await has(t, SETUP, "touch ../runs; sleep 1000")
        await t.say("go")
        await t.until(lambda: any((tmp_path / "boxes").rglob("runs")))
        refuse(t, CLOSED[0])
        await t.say("", verb=Verb.STOP)
        assert (await t.final()).outcome is Outcome.STOPPED
        assert told(t) == SAID[:1]
