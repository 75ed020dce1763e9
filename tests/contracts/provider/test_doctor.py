"""What `sandpiper doctor` tries, on every provider: the contract as its users see it."""

from __future__ import annotations

from bot.doctor import Hosts, Outcome, examine
from bot.doctor_checks import CHECKS
from tests.contracts.provider.conftest import Make

EGRESS = {
    "egress: an allowed host",
    "egress: a refused host",
    "egress: who was refused",
}  # there is no network


async def test_the_doctor_finds_nothing_wrong(make: Make) -> None:
    results = await examine(make, CHECKS, hosts=Hosts(), installation="here")
    assert not [result for result in results if result.outcome is Outcome.FAILED]
    not_ok = {result.check for result in results if result.outcome is not Outcome.OK}
    hidden = () if make().separates_sessions else ("sessions are hidden",)
    assert not_ok == EGRESS.union(hidden)
