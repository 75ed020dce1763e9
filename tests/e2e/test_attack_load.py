"""An agent that says far too much: it is slowed down, cut and stopped, and nobody else notices."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import pytest

from tests.e2e.rig import WAIT, Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST_MEMORY = 400 << 20  # bytes: what the bot may ever hold
MOST_SPOOL = 100 << 20  # bytes of disk: what an agent may have said that nobody has read yet

MOST_KEPT = 60 << 20  # bytes of the database and its journal

# The agent's words, put past it where they go: whatever it runs can do this.
ALOUD = ">>/proc/$PPID/fd/1"
FLOOD = f'yes \'{{"type": "text", "text": "{"spam " * 200}"}}\' | head -c 500M {ALOUD}'
STEPS = """
import json
for n in range(10_000):
    for status in ("in_progress", "completed"):
        call = {"type": "tool", "id": f"t{n}", "kind": "execute", "title": f"Step {n}", "status": status}
        print(json.dumps({**call, "result": "r" * 300}))
"""
LAST_WORDS = """
import json
print(json.dumps({"type": "done", "reason": "end", "text": "word <!channel> " * 70_000}))
"""


def memory(shared: Rig) -> int:
    """The most that the bot ever held, in bytes."""
    status = Path(f"/proc/{shared.bot.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def spooled(shared: Rig) -> int:
    """Bytes of disk that agents' unread words take."""
    found = (shared.directory / "bot" / "sandboxes").glob("*/spool/*/stdout")
    return sum(path.stat().st_blocks * 512 for path in found)


def kept(shared: Rig) -> int:
    """Bytes of the database."""
    return sum(path.stat().st_size for path in (shared.directory / "bot").glob("sandpiper.db*"))


async def test_a_flood_is_held_back_and_others_go_on_working(shared: Rig) -> None:
    flooding = shared.mention(f"!run {FLOOD}\n!answer done")
    async with asyncio.timeout(WAIT):
        while spooled(shared) < 32 << 20:  # noqa: ASYNC110 the agent writes it, by itself
            await asyncio.sleep(0.05)
    before = time.monotonic()
    other = shared.mention("!write x.txt x\n!commit X\n!answer Not disturbed.", by="U_BEN")
    assert "Not disturbed." in (await shared.final(other)).text
    assert time.monotonic() - before < 30
    assert spooled(shared) < MOST_SPOOL
    await shared.stop(flooding)
    assert "Stopped" in (await shared.final(flooding)).text
    assert memory(shared) < MOST_MEMORY
    assert kept(shared) < MOST_KEPT


async def test_a_line_of_a_hundred_megabytes_is_left_out(shared: Rig) -> None:
    root = shared.mention(f"!run head -c 100M /dev/zero | tr '\\0' x {ALOUD}; echo {ALOUD}\n!answer done")
    assert "done" in (await shared.final(root)).text
    assert memory(shared) < MOST_MEMORY


async def test_ten_thousand_steps_are_a_picture_of_the_last_ones(shared: Rig) -> None:
    root = shared.mention(f"!run echo {encoded(STEPS)} | base64 -d | python3 - {ALOUD}\n!answer done")
    assert "done" in (await shared.final(root)).text
    await shared.shows(root, "Step 9999")
    assert "earlier steps" in shared.picture(root)
    assert len(shared.picture(root)) < 30_000
    assert kept(shared) < MOST_KEPT
    assert memory(shared) < MOST_MEMORY


async def test_endless_last_words_are_cut_and_call_nobody(shared: Rig) -> None:
    root = shared.mention(f"!run echo {encoded(LAST_WORDS)} | base64 -d | python3 - {ALOUD}\n!hang")
    final = await shared.final(root)
    assert len(final.text) <= 40_000 and "<!channel>" not in str((final.text, final.blocks))
    assert "bytes left out" in final.text or "shortened" in final.text


def encoded(program: str) -> str:
    return base64.b64encode(program.encode()).decode()
