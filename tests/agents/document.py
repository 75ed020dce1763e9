"""Writes the tables of docs/agents.md: from what codecs declare, and from what the suite saw real agents do.

`make verify` runs it after the suite, which leaves docs/agents-verified.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bot.agents.acp.known import GENERIC, KNOWN
from bot.agents.claude.codec import ClaudeCodec
from bot.agents.codec import Capabilities, Listing, Steering
from bot.agents.codex.codec import CodexCodec
from bot.agents.opencode.codec import OpenCodeCodec
from bot.app_agents import PINS
from tests.agents.install import ALSO

DOCS = Path(__file__).parents[2] / "docs"
PAGE, VERIFIED = DOCS / "agents.md", DOCS / "agents-verified.json"
BEGIN, END = "<!-- {}: written by make verify -->\n", "<!-- end of {} -->"

BY_ACP = " (ACP)"

CAPABLE: Mapping[str, Capabilities] = {
    "claude": ClaudeCodec.capabilities,
    "codex": CodexCodec.capabilities,
    "opencode": OpenCodeCodec.capabilities,
    f"claude-agent-acp{BY_ACP}": KNOWN["claude-agent-acp"].capabilities,
    f"opencode acp{BY_ACP}": KNOWN["opencode"].capabilities,
    f"any other{BY_ACP}": GENERIC,
}

TESTED: Mapping[str, str] = {
    **{name: packages[0] for name, packages in PINS.items()},
    f"claude-agent-acp{BY_ACP}": ALSO[0],
    f"opencode acp{BY_ACP}": PINS["opencode"][0],
}

STEERED = {
    Steering.NATIVE: "the running turn takes it in",
    Steering.INTERRUPT: "the agent is interrupted and goes on with it in the same turn, and people are told; "
    "where it says that it can be steered, it is",
    Steering.QUEUE: "the next turn gets it",
}

LISTED = {
    Listing.NONE: "no: any is tried",
    Listing.SOME: "yes, but it takes others too: one that it does not list is tried, and people are told",
    Listing.ALL: "yes: one that it does not list is refused",
}

# Of what is true of one agent and not of another: how it is with any.
VARIES: Mapping[str, str] = {
    "goes on in a new process": "where it says that it can; else it starts anew, with a summary",
    "asks before it acts (`ask`, `plan`)": "as far as it asks by itself",
    "puts questions to people": "where it asks by forms (`elicitation/create`)",
    "its sub-agents are shown": "as far as it tells of them",
    "has side tools of ours": "in `auto`, where it takes MCP servers",
    "shows its plan": "where it tells it",
    "tells what it costs": "where it tells it",
    "lists its models, for `model=`": "where it does: one that it does not list is refused",
}

ROWS: Sequence[tuple[str, Callable[[Capabilities], str]]] = (
    ("a message during a turn", lambda can: STEERED[can.steering]),
    ("goes on in a new process", lambda can: _yes(can.resume)),
    ("asks before it acts (`ask`, `plan`)", lambda can: _yes(can.approvals)),
    ("puts questions to people", lambda can: _yes(can.questions)),
    (
        "its sub-agents are shown",
        lambda can: "yes" if can.sub_agents else "it has none: they are switched off",
    ),
    ("has side tools of ours", lambda can: _yes(can.side_tools)),
    ("shows its plan", lambda can: _yes(can.plan)),
    ("tells what it costs", lambda can: _yes(can.cost)),
    ("is shown pictures", lambda can: "yes" if can.images else "is told their paths"),
    ("lists its models, for `model=`", lambda can: LISTED[can.listing]),
    ("`effort=`", lambda can: _efforts(can)),
)

SIGNS = {"passed": "✓", "failed": "✗", "skipped": "–"}


def tables(verified: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    return {"capabilities": _capabilities(), "verified": _verified(verified)}


def _capabilities() -> str:
    lines = [["", *CAPABLE], ["tested with", *(TESTED.get(name, "–") for name in CAPABLE)]]
    for title, told in ROWS:
        lines.append([title, *(_cell(name, title, told) for name in CAPABLE)])
    return _table(lines)


def _cell(name: str, title: str, told: Callable[[Capabilities], str]) -> str:
    can = CAPABLE[name]
    if can.varies and title in VARIES:
        return VARIES[title]
    if name.endswith(BY_ACP) and can.side_tools and "side tools" in title:
        return "in `auto`"
    return told(can)


def _verified(verified: Mapping[str, Mapping[str, str]]) -> str:
    agents = sorted({agent for outcomes in verified.values() for agent in outcomes} - {"scripted"})
    if not agents:
        return "Not run since the page was made: `make verify`.\n"
    lines = [["", *agents]]
    for scenario, outcomes in sorted(verified.items()):
        lines.append([scenario.replace("_", " "), *(_sign(outcomes.get(agent, "")) for agent in agents)])
    return _table(lines)


def _sign(outcome: str) -> str:
    """How often, where it is a number."""
    return SIGNS.get(outcome, outcome)


def _table(lines: Sequence[Sequence[str]]) -> str:
    rows = [f"| {' | '.join(line)} |\n" for line in lines]
    return "".join([rows[0], f"|{'---|' * len(lines[0])}\n", *rows[1:]])


def _efforts(can: Capabilities) -> str:
    if can.efforts:
        return ", ".join(can.efforts)
    return "no" if can.listing is Listing.NONE else "those that it lists"


def _yes(can: bool) -> str:
    return "yes" if can else "no"


def written(page: str, verified: Mapping[str, Mapping[str, str]]) -> str:
    """The page with its tables as they should be."""
    for name, table in tables(verified).items():
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = f"{before}{begin}{table}{end}{after}"
    return page


def main() -> None:
    PAGE.write_text(written(PAGE.read_text(), json.loads(VERIFIED.read_text())))


if __name__ == "__main__":
    main()
