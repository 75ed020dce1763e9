"""The agents that the tests can drive, by name."""

from __future__ import annotations

from collections.abc import Mapping

from tests.agents import acp, claude, codex, opencode, scripted
from tests.agents.playing import Rig

RIGS: Mapping[str, Rig] = {
    rig.name: rig for rig in (acp.CLAUDE, acp.OPENCODE, claude.RIG, codex.RIG, opencode.RIG, scripted.RIG)
}
