"""A real agent program, driven by its codec over plain pipes: no sandbox, no supervisor, no store.

Everything that happened is kept as a transcript: what was given to the codec, in order, one entry each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bot.agents.codec import (
    Answered,
    Codec,
    Decided,
    Exited,
    Happening,
    Interrupt,
    LineBuffer,
    Lines,
    Permissions,
    Prompt,
    State,
    Steer,
    Step,
    Task,
)
from bot.events import ApprovalAsked, Completed, Event, Question, Text, ToolCall

PROGRAMS = Path(__file__).parents[2] / "sandbox" / "inside"

Entry = dict[str, Any]


@dataclass
class DrivenAgent:
    """Use `async with DrivenAgent.started(codec, task) as agent:`. Waits have a deadline in seconds.

    again: the bot is started again in the middle of each line, with a codec that this makes: it goes on
    from the stored state, and reads on from the stored offset.
    """

    codec: Codec
    task: Task
    process: asyncio.subprocess.Process
    transcript: list[Entry] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    state: State = field(default_factory=dict)
    stderr: bytes = b""
    spool: bytearray = field(default_factory=bytearray)  # its stdout, as a supervisor keeps it
    again: Callable[[], Codec] | None = None
    deadline: float = 60.0
    _lines: LineBuffer = field(default_factory=LineBuffer)
    _heard: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _started_at: float = field(default_factory=time.monotonic)

    @classmethod
    @contextlib.asynccontextmanager
    async def started(
        cls, codec: Codec, task: Task, again: Callable[[], Codec] | None = None
    ) -> AsyncIterator[DrivenAgent]:
        launch = codec.launch(task)
        path = f"{task.home}/.local/bin:{os.environ['PATH']}"  # as it is in a sandbox
        known = {"PATH": path, "HOME": task.home, "SANDPIPER_PROGRAMS": str(PROGRAMS)}
        env = {**known, **launch.env, **launch.secrets}
        process = await asyncio.create_subprocess_exec(
            *launch.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=launch.cwd,
            env=env,
            start_new_session=True,
        )
        agent = cls(codec, task, process, again=again)
        reading = asyncio.create_task(agent._read())
        complaining = asyncio.create_task(agent._read_stderr())
        try:
            agent._take({"begin": _task_entry(task)}, codec.begin(task))
            yield agent
        finally:
            agent.kill()
            await process.wait()
            await asyncio.gather(reading, complaining)

    # what a driver does

    def steer(self, prompt: Prompt) -> None:
        self._on({"steer": _prompt_entry(prompt)}, Steer(prompt))

    def interrupt(self) -> None:
        self._on({"interrupt": True}, Interrupt())

    def decide(self, id: str, *, allowed: bool, reason: str = "") -> None:
        self._on({"decide": {"id": id, "allowed": allowed, "reason": reason}}, Decided(id, allowed, reason))

    def answer(self, id: str, text: str, reason: str = "") -> None:
        self._on({"answer": {"id": id, "text": text, "reason": reason}}, Answered(id, text, reason))

    def write_to_its_stdout(self, line: bytes) -> None:
        """As something else does that has got hold of it: a library, a child, a crash reporter."""
        with Path(f"/proc/{self.process.pid}/fd/1").open("wb", buffering=0) as stdout:
            stdout.write(line + b"\n")

    def kill(self) -> None:
        """With all that it started, which would outlive it otherwise, in groups of its own even."""
        if self.process.returncode is None:
            for pid in [self.process.pid, *_descendants(self.process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    async def close(self) -> int:
        """End of input; returns the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await asyncio.wait_for(self.process.wait(), self.deadline)

    # what a test waits for

    async def until(self, met: Callable[[Self], bool], what: str) -> None:
        """Raises AssertionError with what was seen when the deadline passes or the program has ended."""
        end = time.monotonic() + self.deadline
        while not met(self):
            if self.ended or time.monotonic() > end:
                tail = "\n".join(map(str, self.events[-20:]))
                raise AssertionError(f"never: {what}\n{tail}\n{self.stderr.decode(errors='replace')}")
            self._changed.clear()
            # Some of what is waited for (a file of the agent's) does not ring.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.1)

    async def until_completed(self, times: int = 1) -> Completed:
        await self.until(lambda agent: len(agent.completions) >= times, f"completed, {times} times")
        return self.completions[times - 1]

    async def until_ended(self) -> int:
        await self.until(lambda agent: agent.ended, "the end of the program")
        assert self.process.returncode is not None
        return self.process.returncode

    async def until_running(self, word: str) -> None:
        """Until a tool whose title has this word runs."""

        def runs(agent: Self) -> bool:
            return any(call.status == "in_progress" and word in call.title for call in agent.tool_calls)

        await self.until(runs, f"a running tool with {word!r} in its title")

    async def until_approval(self, times: int = 1) -> ApprovalAsked:
        """Until the agent has asked for an approval, so many times; returns the last one."""
        await self.until(lambda agent: len(agent.approvals) >= times, f"an approval asked, {times} times")
        return self.approvals[times - 1]

    async def until_question(self, times: int = 1) -> Question:
        """Until the agent has put an open question to people, so many times; returns the last one."""
        await self.until(lambda agent: len(agent.questions) >= times, f"an open question, {times} times")
        return self.questions[times - 1]

    @property
    def ended(self) -> bool:
        return bool(self.transcript) and "exited" in self.transcript[-1]

    @property
    def completions(self) -> list[Completed]:
        return [step.completed for step in self.steps if step.completed is not None]

    @property
    def consumed(self) -> list[int]:
        return [input for step in self.steps for input in step.consumed]

    @property
    def deferred(self) -> list[int]:
        return [input for step in self.steps for input in step.deferred]

    @property
    def resume_token(self) -> str:
        return next((step.resume_token for step in self.steps if step.resume_token), "")

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Text)]

    @property
    def tool_calls(self) -> list[ToolCall]:
        return [event for event in self.events if isinstance(event, ToolCall)]

    @property
    def approvals(self) -> list[ApprovalAsked]:
        return [event for event in self.events if isinstance(event, ApprovalAsked)]

    @property
    def questions(self) -> list[Question]:
        """Those that wait for people."""
        return [event for event in self.events if isinstance(event, Question) and event.open]

    # inside

    def _on(self, entry: Entry, happening: Happening) -> None:
        # A driver stores the state between two steps, so it has to survive that here too.
        state = json.loads(json.dumps(self.state))
        self._take(entry, self.codec.on(state, happening))

    def _take(self, entry: Entry, step: Step) -> None:
        self.transcript.append({"at": round(time.monotonic() - self._started_at, 2), **entry})
        self.state = step.state
        self.steps.append(step)
        self.events += step.events
        if step.write and self.process.stdin is not None and not self.process.stdin.is_closing():
            self.process.stdin.write(step.write)
        self._changed.set()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(65536):
            self.spool += data
            while self.again and (end := self.spool.find(b"\n", self._lines.offset)) >= 0:
                start = self._lines.offset
                self._hear((start + end) // 2)
                self.codec, self._lines, self._heard = self.again(), LineBuffer(offset=start), start
                self._hear(end + 1)
            self._hear(len(self.spool))
        code = await self.process.wait()
        self._on({"exited": code}, Exited(code, self.stderr.decode(errors="replace")[-4000:]))

    def _hear(self, end: int) -> None:
        data = bytes(self.spool[self._heard : end])
        self._heard += len(data)
        for line in self._lines.feed(data):
            self._on(line_entry(line), Lines((line,)))

    async def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(65536):
            self.stderr += data


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, file.read_text().split()):
                found += [child, *_descendants(child)]
    return found


def line_entry(line: bytes) -> Entry:
    """A line of stdout, readable where it is JSON."""
    try:
        told = json.loads(line)
    except ValueError:
        return {"raw": line.decode("latin-1")}
    return {"out": told} if isinstance(told, dict) else {"raw": line.decode("latin-1")}


def line_of(entry: Entry) -> bytes:
    if "raw" in entry:
        return str(entry["raw"]).encode("latin-1")
    return json.dumps(entry["out"], separators=(",", ":")).encode()


def happening_of(entry: Entry) -> Happening:
    if "steer" in entry:
        return Steer(_prompt_of(entry["steer"]))
    if "decide" in entry:
        decide = entry["decide"]
        return Decided(decide["id"], decide["allowed"], decide["reason"])
    if "answer" in entry:
        answer = entry["answer"]
        return Answered(answer["id"], answer["text"], answer["reason"])
    if "interrupt" in entry:
        return Interrupt()
    if "exited" in entry:
        return Exited(entry["exited"], "")
    return Lines((line_of(entry),))


def task_of(entry: Entry) -> Task:
    """Options that an entry does not name are as they are by default."""
    begin = entry["begin"]
    return Task(
        _prompt_of(begin["prompt"]),
        cwd=begin["cwd"],
        home=begin["home"],
        resume_token=begin["resume_token"],
        model=begin.get("model", ""),
        effort=begin.get("effort", ""),
        permissions=Permissions(begin.get("permissions", Permissions.AUTO)),
        answerable=begin.get("answerable", False),
    )


def _task_entry(task: Task) -> Entry:
    entry: Entry = {
        "prompt": _prompt_entry(task.prompt),
        "cwd": task.cwd,
        "home": task.home,
        "resume_token": task.resume_token,
    }
    options = {"model": task.model, "effort": task.effort, "answerable": task.answerable}
    if task.permissions is not Permissions.AUTO:
        options["permissions"] = task.permissions.value
    return entry | {name: value for name, value in options.items() if value}


def _prompt_of(entry: Entry) -> Prompt:
    return Prompt(entry["key"], entry["text"], tuple(entry["inputs"]), tuple(entry.get("images", ())))


def _prompt_entry(prompt: Prompt) -> Entry:
    entry: Entry = {"key": prompt.key, "text": prompt.text, "inputs": list(prompt.inputs)}
    return entry | ({"images": list(prompt.images)} if prompt.images else {})


def load(path: Path) -> list[Entry]:
    return [json.loads(line) for line in path.read_text().splitlines()]
