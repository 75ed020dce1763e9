"""Codex's items as calls of tools: begun, over, or still running when the turn ends.

A command can outlive the turn that started it, and so can a sub-agent. A sub-agent has a conversation of
its own, whose frames come between those of the main one; its calls stand under the call that made it.
"""

from __future__ import annotations

from dataclasses import dataclass

from bot.agents.codex.state import Running, State, SubAgent
from bot.agents.codex.tools import TOOLS, Outcome, ask, describe, doing, done, exactly, outcome
from bot.agents.steps import StepBuilder
from bot.agents.wire import (
    RESULT_BYTES,
    SUBJECT_CHARS,
    TEXT_BYTES,
    THOUGHT_BYTES,
    Frame,
    frames,
    items,
    part,
    string,
    token,
)
from bot.events import Text, Thought, ToolCall, ToolStatus

# Items that are known and tell people nothing that other frames do not tell better.
SILENT = frozenset(
    {
        "enteredReviewMode",  # nobody asks Codex for its review mode
        "exitedReviewMode",
        "functionCallOutput",  # of tools that a client gives; we give none
        "hookPrompt",  # what a hook says to the model
        "subAgentActivity",  # the calls and turns of sub-agents say the same
        "userMessage",
    }
)


UNASKED = "Codex did not ask, as a rule in the sandbox allows it:"
# They begin, and then Codex asks whether it may.
ASKED_ABOUT = frozenset({"commandExecution", "fileChange"})
MOST_CLOSED = 20


@dataclass(slots=True)
class Items:
    state: State
    out: StepBuilder

    def begun(self, item: Frame, thread: str) -> bool:
        """False: we don't know such an item."""
        type = string(item, "type")
        if type in TOOLS and (id := token(item, "id")):
            running = self._running(item, thread)
            self.state.tools[id] = running
            waits = self.state.asks and type in ASKED_ABOUT
            if waits and item.get("processId") is not None:
                self.out.notice(f"{UNASKED} {ask(running)}")
            status = ToolStatus.PENDING if waits else ToolStatus.IN_PROGRESS
            self._tell(id, running, doing(running), status, subject=running.about)
            return True
        return type in SILENT or type in ("agentMessage", "reasoning", "plan", "contextCompaction")

    def ended(self, item: Frame, thread: str) -> bool:
        """False: we don't know such an item."""
        type = string(item, "type")
        main = thread == self.state.thread
        if type in TOOLS and (id := token(item, "id")):
            self._tool_ended(id, item, thread)
        elif type == "agentMessage":
            # A sub-agent's words are for the agent, which sums them up.
            if main and (text := self.out.clean(string(item, "text").strip(), TEXT_BYTES)):
                self.out.events.append(Text(text))
        elif type == "reasoning":
            said = [
                text for text in items(item, "summary") or items(item, "content") if isinstance(text, str)
            ]
            if main and (text := self.out.clean("\n\n".join(said), THOUGHT_BYTES)):
                self.out.events.append(Thought(text))
        elif type == "plan":
            if main:
                self.state.plan = string(item, "text").strip()[:TEXT_BYTES]  # as it is: people approve it
        elif type == "contextCompaction":
            if main:
                self.out.notice("Codex summed up the conversation so far to make room.")
        else:
            return type in SILENT
        return True

    def agent_ended(self, thread: str, turn: Frame) -> None:
        """A sub-agent has ended its turn. Its last words are the result of the call that made it."""
        agent = self.state.agents[thread]
        agent.turn = ""
        self.close(thread)
        if running := self.state.tools.pop(agent.call, None):
            said = [string(item, "text") for item in frames(turn, "items")]
            failed = string(turn, "status") != "completed"
            status = ToolStatus.FAILED if failed else ToolStatus.COMPLETED
            result = string(part(turn, "error"), "message") or (said[-1] if said else "")
            result = result or (self._stopped() if failed else "")
            self._tell(agent.call, running, done(running), status, result)

    def agent_began(self, thread: str, turn: str) -> None:
        """Its first turn may begin before the call that made it says so."""
        made = (id for id, running in self.state.tools.items() if running.tool == "spawnAgent")
        known = {agent.call for agent in self.state.agents.values()}
        if thread not in self.state.agents:
            self.state.agents[thread] = SubAgent(next((id for id in made if id not in known), ""))
        self.state.agents[thread].turn = turn

    def running(self) -> list[str]:
        """What would go on after the turn's end: commands, and sub-agents at work."""
        commands = [f"`{r.about}`" for r in self.state.tools.values() if r.type == "commandExecution"]
        return commands + ["the work of a sub-agent" for agent in self.state.agents.values() if agent.turn]

    @property
    def waits_for_agent(self) -> bool:
        main = self.state.thread
        return any(r.tool == "wait" and r.thread == main for r in self.state.tools.values())

    def close(self, thread: str) -> None:
        """When its turn is over, a call without an outcome will get none; but a command may run on."""
        working = {agent.call for agent in self.state.agents.values() if agent.turn}
        for id, running in list(self.state.tools.items()):
            if running.thread == thread and running.type != "commandExecution" and id not in working:
                self._close(id)

    def close_all(self) -> None:
        """Of commands that are ended Codex tells after it has said that it has ended them."""
        self.state.closed = list(self.state.tools)[-MOST_CLOSED:]
        for id in list(self.state.tools):
            self._close(id)

    # inside

    def _running(self, item: Frame, thread: str) -> Running:
        tool = describe(item, self.state.cwd)
        about = self.out.clean(tool.subject, SUBJECT_CHARS * 4)
        detail = self.out.exact(exactly(item)) if self.state.asks else ""
        type, name = token(item, "type"), token(item, "tool")
        return Running(type, name, thread, tool.kind, tool.verb, about, tool.thing, detail)

    def _tool_ended(self, id: str, item: Frame, thread: str) -> None:
        known = self.state.tools.get(id)
        if known is None and (self.state.over or id in self.state.closed):
            return  # it was ended with the turn, and that was said
        made = [token({"id": one}, "id") for one in items(item, "receiverThreadIds")]
        if string(item, "tool") == "spawnAgent" and string(item, "status") == "completed" and made:
            for agent in made:
                self.state.agents.setdefault(agent, SubAgent(id)).call = id
            return  # it lasts as long as the sub-agent is at work
        self.state.tools.pop(id, None)
        running = known or self._running(item, thread)
        came = outcome(item, self.state.cwd)
        if (stopped := self._stopped()) and came.status is ToolStatus.FAILED:
            came = Outcome(ToolStatus.FAILED, stopped)
        # What is searched for may be known at the end only.
        told = self._running(item, thread) if running.type == "webSearch" else running
        self._tell(id, running, done(told, came), came.status, came.result)

    def _close(self, id: str) -> None:
        running = self.state.tools.pop(id)
        result = self._stopped() or "It did not run to its end."
        self._tell(id, running, done(running), ToolStatus.FAILED, result)

    def _stopped(self) -> str:
        """Why a call did not run to its end, if that was our doing."""
        if self.state.stopping or self.state.clearing:
            return "Stopped."
        return "Stopped for new words." if self.state.giving_way else ""

    def _tell(
        self, id: str, running: Running, title: str, status: ToolStatus, result: str = "", subject: str = ""
    ) -> None:
        agent = self.state.agents.get(running.thread)
        result = self.out.clean(result.strip(), RESULT_BYTES)
        parent = agent.call if agent else ""
        self.out.events.append(ToolCall(id, running.kind, title, status, subject, result, parent))
