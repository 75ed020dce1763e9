"""Side tools of ours for an agent: `share_file`, `ask_person`, `open_pr` and the like. They are served beside
its process (sandbox/inside/side_tools.py), whose lines come between the agent's own; nothing depends on them.

`SideTools` is a codec around the agent's own codec, and as pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bot.agents.asking import NOBODY, UNANSWERED
from bot.agents.codec import Answered, Codec, Exited, Happening, Lines, State, Step, Task
from bot.agents.inside import program
from bot.agents.mcp import TOOLS, is_side_tool
from bot.agents.steps import StepBuilder
from bot.agents.wire import (
    RESULT_BYTES,
    SUBJECT_CHARS,
    TEXT_BYTES,
    Frame,
    frame,
    number,
    part,
    string,
    strings,
    token,
)
from bot.events import FileOffered, Named, PortOffered, Progress, Question, ToolCall, ToolKind, Withdrawn
from bot.models import Launch

MARK = b'{"sandpiper":'
LONGEST = 1 << 20  # bytes of a call; the program beside the agent takes no longer ones
CALL = "side-tool:"  # how our names of their calls begin, so that they are no other's of the agent
MOST_WAITING = 20
MOST_HIDDEN = 50
MOST_OPTIONS = 10

# How often a tool may be called in an attempt: each call costs people's attention, or the bot's disk.
MOST_CALLS = {"ask_person": 30, "share_file": 20, "share_port": 10, "set_title": 50, "open_pr": 50}
MOST_NOTES = 500

RUN = program("side_tools")

NAMED = "Done. A pull request that is opened when you finish with commits on your branch has this title."
NOTED = "People see it."
WANTED = (
    "Noted. Commit your work and finish: the pull request is then opened with this title and description. "
    "One that is open already keeps its title. Call this again if they change."
)


class SideTools:
    """An agent with side tools. tools: which ones it is offered. secrets: what must not be shown of what it
    says with them."""

    def __init__(self, agent: Codec, tools: Sequence[str] = TOOLS, secrets: Sequence[str] = ()) -> None:
        self.name = agent.name
        self.capabilities = agent.capabilities
        self._agent = agent
        self._tools = tuple(tools)
        self._secrets = tuple(secrets)

    def launch(self, task: Task) -> Launch:
        directory = _directory(task)
        launch = self._agent.launch(replace(task, side_tools=f"{directory}/serve"))
        return replace(launch, argv=(*RUN, directory, task.shared, ",".join(self._tools), *launch.argv))

    def begin(self, task: Task) -> Step:
        step = self._agent.begin(replace(task, side_tools=f"{_directory(task)}/serve"))
        return replace(
            step, state={"agent": step.state, "answerable": task.answerable, "key": task.prompt.key[:8]}
        )

    def on(self, state: State, happening: Happening) -> Step:
        calls = _Calls(state, self._secrets)
        if isinstance(happening, Answered) and happening.id.startswith(CALL):
            calls.answer(happening)  # unless it is for a call of an earlier process
            return calls.step(Step(part(state, "agent")))
        ours: tuple[bytes, ...] = ()
        if isinstance(happening, Lines):
            ours = tuple(line for line in happening.lines if line.startswith(MARK))
            happening = Lines(tuple(line for line in happening.lines if not line.startswith(MARK)))
        if isinstance(happening, Exited):
            calls.end()
        for line in ours:
            calls.hear(line)
        agent = part(state, "agent")
        silent = isinstance(happening, Lines) and not happening.lines
        return calls.step(Step(agent) if silent else self._agent.on(agent, happening))


def _directory(task: Task) -> str:
    """Where they are served, in the box's own /tmp: a name of this attempt's."""
    return f"/tmp/sandpiper-{task.prompt.key}"  # noqa: S108 made by the side tools, which clear away what is there


class _Calls:
    """The calls of one step. waiting: the tools of calls that have no answer yet, by their ids. hidden: the
    agent's own ids of such calls, which the timeline shows in another way."""

    def __init__(self, state: State, secrets: tuple[str, ...]) -> None:
        self._state = state
        self._prefix = f"{CALL}{string(state, 'key')}:"
        self._called = {tool: number(part(state, "called"), tool) for tool in TOOLS}
        self._waiting = {id: str(tool) for id, tool in part(state, "waiting").items()}
        self._hidden = strings(state, "hidden")
        self._out = StepBuilder(secrets)

    def step(self, agents: Step) -> Step:
        events = tuple(
            event for event in agents.events if not (isinstance(event, ToolCall) and self._hides(event))
        )
        state = {
            **self._state,
            "agent": agents.state,
            "waiting": self._waiting,
            "hidden": self._hidden,
            "called": {tool: count for tool, count in self._called.items() if count},
        }
        write = b"".join([agents.write, *self._out.write])
        return replace(agents, state=state, events=(*events, *self._out.events), write=write)

    def hear(self, line: bytes) -> None:
        told = (frame(line) if len(line) <= LONGEST else None) or {}
        id = token(told, "id")
        match string(told, "sandpiper"):
            case "call" if id:
                self._call(id, string(told, "tool"), part(told, "arguments"))
            case "gone" if self._waiting.pop(id, "") == "ask_person":
                self._out.events.append(Withdrawn(f"{self._prefix}{id}"))
            case "gone":
                pass
            case other:
                self._out.unknown(f"side tools: {other}", line)

    def answer(self, answered: Answered) -> None:
        id = answered.id.removeprefix(self._prefix)
        if tool := self._waiting.pop(id, ""):
            text = answered.text or answered.reason or UNANSWERED
            self._reply(id, text, error=tool != "ask_person" and not answered.text)

    def end(self) -> None:
        """Nobody is there any more to be answered."""
        asked = [id for id, tool in self._waiting.items() if tool == "ask_person"]
        self._out.events += [Withdrawn(f"{self._prefix}{id}") for id in asked]
        self._waiting = {}

    def _call(self, id: str, tool: str, given: Frame) -> None:
        title = self._out.line(string(given, "title"))
        name = f"{self._prefix}{id}"
        if id in self._waiting:  # only a program that is not ours says that
            return
        if tool in self._called:
            self._called[tool] += 1
            if self._called[tool] > MOST_CALLS.get(tool, MOST_NOTES):
                self._reply(id, f"{tool} was called too often in this turn.", error=True)
                return
        match tool:
            case "set_title" if title:
                self._out.events.append(Named(title))
                self._reply(id, NAMED)
            case "open_pr" if title:
                self._out.events.append(Named(title, self._out.clean(string(given, "body"), TEXT_BYTES)))
                self._reply(id, WANTED)
            case "note_progress" if text := self._out.line(string(given, "text")):
                self._out.events.append(Progress(text))
                self._reply(id, NOTED)
            case "ask_person" if text := self._out.clean(string(given, "question"), RESULT_BYTES * 4):
                listed = strings(given, "options")[:MOST_OPTIONS]
                options = tuple(filter(None, (self._out.clean(one, SUBJECT_CHARS) for one in listed)))
                waits = self._state.get("answerable") is True and self._wait(id, tool)
                self._out.events.append(Question(name, text, options, open=waits))
                if not waits:
                    self._reply(id, NOBODY)
            case "share_file" if token(given, "path") and self._wait(id, tool):
                file = self._out.line(string(given, "name")) or "file"
                self._out.events.append(
                    FileOffered(name, token(given, "path"), file, title, number(given, "size"))
                )
            case "share_port" if token(given, "path") and self._wait(id, tool):
                self._out.events.append(PortOffered(name, number(given, "port"), token(given, "path"), title))
            case _ if len(self._waiting) >= MOST_WAITING:
                self._reply(id, "Too many calls wait for an answer. Wait for those.", error=True)
            case _ if tool in TOOLS:
                self._reply(id, f"{tool} was called without what it needs.", error=True)
            case _:
                self._reply(id, "There is no such tool.", error=True)

    def _wait(self, id: str, tool: str) -> bool:
        if len(self._waiting) >= MOST_WAITING:
            return False
        self._waiting[id] = tool
        return True

    def _reply(self, id: str, text: str, *, error: bool = False) -> None:
        self._out.send({"sandpiper": "answer", "id": id, "text": text, "error": error})

    def _hides(self, call: ToolCall) -> bool:
        if call.id not in self._hidden:
            if call.kind is not ToolKind.OTHER or not is_side_tool(call.title):
                return False
            self._hidden = [*self._hidden, call.id][-MOST_HIDDEN:]
        return True
