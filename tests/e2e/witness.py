"""What can be seen from outside of a bot that was killed: its database, its agents, what people see."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlers.playground.github_state import Issue
from handlers.slack.ids import STOP_ACTION
from tests.e2e.rig import CONSUMED, DEV, REPOSITORY, WAIT, Rig

Row = dict[str, Any]

# A thread has its last words and nothing of it is on its way any more.
OPEN = """
SELECT 1 FROM turns WHERE thread = :thread AND state IN ('queued', 'preparing', 'running', 'finishing')
UNION ALL SELECT 1 FROM outbox WHERE lane = :thread AND state IN ('pending', 'sending')
UNION ALL SELECT 1 FROM deliveries WHERE state = 'received'
"""


@dataclass(frozen=True)
class Agent:
    """The box that an attempt's agent runs in, and its keeper, as processes of this machine."""

    keeper: int
    box: int
    birth: str

    def alive(self) -> bool:
        return _stat(self.box)[19:20] == [self.birth]


class Witness:
    """Reads a rig's database (also while the bot writes it) and the processes that it has started."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._data = rig.directory / "bot"

    def rows(self, sql: str, **values: object) -> list[Row]:
        uri = f"file:{self._data / 'sandpiper.db'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(sql, values)]

    def turns(self, root: str) -> list[Row]:
        return self.rows("SELECT * FROM turns WHERE thread = :thread ORDER BY id", thread=self.thread(root))

    def events(self, turn: int, type: str = "") -> list[Row]:
        found = self.rows("SELECT body FROM events WHERE turn = :turn ORDER BY seq", turn=turn)
        events = [json.loads(row["body"]) for row in found]
        return [event for event in events if not type or event["type"] == type]

    def thread(self, root: str) -> str:
        return f"slack:{self._rig.slack.workspace.team.id}/{DEV}:{root}"

    async def quiet(self, root: str) -> None:
        """Wait until the thread has ended all that was asked for in it."""
        await until(lambda: bool(self.turns(root)) and not self.rows(OPEN, thread=self.thread(root)))

    # its agents

    def spool(self, root: str, attempt: int = 1) -> Path | None:
        """What the keeper of the newest turn's agent writes."""
        turns = self.turns(root)
        name = f"sandboxes/*/spool/turn-{turns[-1]['id']}-{attempt}" if turns else "none"
        return next(iter(self._data.glob(name)), None)

    def agent(self, root: str, attempt: int = 1) -> Agent | None:
        spool = self.spool(root, attempt)
        if spool is None or not (spool / "keeper").exists():
            return None
        kept = json.loads((spool / "keeper").read_text())
        return Agent(kept["pid"], kept["child"], kept["birth"])

    async def started(self, root: str, attempt: int = 1) -> Agent:
        await until(lambda: self.agent(root, attempt) is not None)
        agent = self.agent(root, attempt)
        assert agent is not None
        return agent

    def program(self, agent: Agent) -> int:
        """The agent itself, inside of its box."""
        stats = {pid: _stat(pid) for pid in _pids()}
        parents = {pid: int(stat[1]) for pid, stat in stats.items() if stat}
        inside = {agent.box}
        while more := {pid for pid, parent in parents.items() if parent in inside} - inside:
            inside |= more
        (found,) = [pid for pid in inside if any(word.endswith("/scripted_agent.py") for word in _words(pid))]
        return found

    def left_running(self, root: str) -> list[str]:
        """Keepers of this thread's agents that are still there."""
        names = tuple(f"/turn-{turn['id']}-" for turn in self.turns(root))
        words = [" ".join(_words(pid)) for pid in _pids()]
        return [line for line in words if str(self._data) in line and any(name in line for name in names)]

    # what must hold when all is over

    async def once(
        self, root: str, *, commits: Sequence[str], attempts: int = 1, told: Sequence[str] = ()
    ) -> None:
        """One turn was asked for in this thread and told `told`; each thing has happened exactly once."""
        rig = self._rig
        await self.quiet(root)
        (turn,) = self.turns(root)
        assert (turn["state"], turn["attempt"]) == ("done", attempts)
        assert len(rig.finals(root)) == 1
        await self.settled(root)
        await until(lambda: all(rig.reactions(ts) == {CONSUMED} for ts in (root, *told)))
        inputs = self.rows("SELECT fate FROM inputs WHERE turn = :turn", turn=turn["id"])
        assert [row["fate"] for row in inputs] == ["consumed"] * (1 + len(told))
        self.no_event_twice(turn["id"], attempts)
        pulls = self.pulls(root)
        assert len(pulls) == bool(commits)
        assert all(f"/pull/{pull.number}" in str(rig.finals(root)[0].blocks) for pull in pulls)
        assert await self.commits(root) == list(commits)
        assert not self.left_running(root)

    def said(self, root: str) -> str:
        """The bot's posts in a thread, for whoever wonders why a test failed."""
        return "\n".join(f"    {post.shown!r}" for post in self._rig.thread(root))

    async def settled(self, root: str) -> None:
        """The thread has one picture, and nothing spins in it."""
        (picture,) = self._rig.timelines(root)
        assert "in_progress" not in str(picture.blocks) and STOP_ACTION not in str(picture.blocks)

    def no_event_twice(self, turn: int, attempts: int = 1) -> None:
        calls = Counter((event["id"], event["status"]) for event in self.events(turn, "tool_call"))
        taken = Counter(id for event in self.events(turn, "consumed") for id in event["inputs"])
        texts = Counter(event["text"] for event in self.events(turn, "text"))
        twice = [what for many in (calls, taken, texts) for what, times in many.items() if times > 1]
        assert not twice
        assert len(self.events(turn, "agent_started")) == attempts

    def pulls(self, root: str) -> list[Issue]:
        branch = self.branch(root)
        all_of_them = self._rig.github.pull_requests(REPOSITORY)
        return [issue for issue in all_of_them if issue.pull is not None and issue.pull.head == branch]

    def session(self, root: str) -> Row:
        (session,) = self.rows("SELECT * FROM sessions WHERE thread = :thread", thread=self.thread(root))
        return session

    def branch(self, root: str) -> str:
        return str(self.session(root)["branch"])

    async def commits(self, root: str) -> list[str]:
        """The subjects of the published commits, oldest first."""
        bare = self._rig.github.repository(REPOSITORY).path
        git = await asyncio.create_subprocess_exec(
            *("git", "log", "--reverse", "--format=%s", f"main..{self.branch(root)}", "--"),
            cwd=bare,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await git.communicate()
        return out.decode().splitlines()


async def until(true: Callable[[], bool], every: float = 0.02) -> None:
    """Wait for what has no bell that could be heard out here."""
    async with asyncio.timeout(WAIT):
        while True:
            if true():
                return
            await asyncio.sleep(every)


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _stat(pid: int) -> list[str]:
    """State, parent and so on; nothing when it is gone, or only its exit code is left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] == "Z" else fields


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
