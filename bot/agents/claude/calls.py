"""Claude Code's tool calls and its plan, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

from bot.agents.claude.state import Running, State
from bot.agents.claude.tools import DELEGATING, PLAN_TOOLS, QUESTION_TOOL, answers, describe, kind_of, outcome
from bot.agents.results import titled, verdict
from bot.agents.steps import StepBuilder
from bot.agents.wire import (
    RESULT_BYTES,
    SUBJECT_CHARS,
    Frame,
    frames,
    number,
    part,
    string,
    to_line,
    token,
)
from bot.events import Plan, ToolCall, ToolKind, ToolStatus

GIVES_WAY = (
    "A sub-agent was at work, and Claude hears nothing while it waits for one: the sub-agent was stopped, "
    "and Claude goes on with the new message."
)


@dataclass(slots=True)
class Calls:
    state: State
    out: StepBuilder

    def start(self, block: Frame, told: Frame, status: ToolStatus) -> None:
        id, name = token(block, "id"), token(block, "name")
        if name in PLAN_TOOLS:
            self._plan_call(name, part(block, "input"), status)
            return
        if not id:
            self.out.unknown(f"{name} without an id", to_line(block))
            return
        given = part(block, "input")
        tool = describe(name, given, self.state.cwd)
        doing, done, subject = (
            self.out.clean(text, SUBJECT_CHARS * 4) for text in (tool.doing, tool.done, tool.subject)
        )
        self.state.tools[id] = Running(name, done, subject)
        parent = token(told, "parent_tool_use_id")
        self.out.events.append(ToolCall(id, tool.kind, doing, status, subject, parent=parent))

    def end(self, block: Frame, told: Frame) -> None:
        id = token(block, "tool_use_id")
        failed = block.get("is_error") is True
        details = part(told, "tool_use_result")
        self.state.calls.pop(id, None)
        running = self.state.tools.pop(id, None)
        if running is None:
            self._plan_result(details)
        elif running.name == QUESTION_TOOL:
            self._ended(id, running, ToolStatus.COMPLETED, "" if failed else answers(details))
        elif failed and self.state.stopping:
            # Claude's own words about a stopped call speak of a refusal that nobody gave.
            self._ended(id, running, ToolStatus.FAILED, "Stopped.")
        elif (
            failed
            and self.state.giving_way
            and (running.name in DELEGATING or token(told, "parent_tool_use_id"))
        ):
            self._ended(id, running, ToolStatus.FAILED, "Stopped for a new message.")
        else:
            came_out, code = outcome(running.name, block, details)
            if failed and _never_ran(id, told):
                running.not_run()
            elif kind_of(running.name) is ToolKind.EXECUTE:
                running.done = titled(running.done, verdict(running.about, came_out, code))
            self._ended(id, running, ToolStatus.FAILED if failed else ToolStatus.COMPLETED, came_out.strip())

    def close_all(self) -> None:
        """A call that has no result when its round is over will never get one."""
        for id, running in self.state.tools.items():
            self._ended(id, running, ToolStatus.FAILED, "It did not run to its end.")
        self.state.tools.clear()

    # sub-agents: Claude waits for them, and takes no message in meanwhile

    def helper(self, told: Frame) -> None:
        """A frame about a task of Claude's."""
        id = token(told, "task_id")
        if string(told, "subtype") == "task_started":
            mine = string(told, "task_type") == "local_agent" and number(told, "spawn_depth") < 2
            if id and mine and told.get("is_backgrounded") is not True:
                self.state.helpers.append(id)
                if any(not prompt.started for prompt in self.state.open.values()):
                    self.give_way()  # the message came just before
        elif id in self.state.helpers and string(part(told, "patch"), "status") != "running":
            self.state.helpers.remove(id)

    def give_way(self) -> None:
        """Stop the sub-agents that Claude waits for, so that it takes in what people have written."""
        if not self.state.helpers:
            return
        self.out.notice(GIVES_WAY)
        self.state.giving_way = True
        for id in self.state.helpers:
            self.state.requests += 1
            request = {"subtype": "stop_task", "task_id": id}
            key = f"sandpiper-task-{self.state.requests}"
            self.out.send({"type": "control_request", "request_id": key, "request": request})
        self.state.helpers.clear()

    def _ended(self, id: str, running: Running, status: ToolStatus, result: str) -> None:
        result = self.out.clean(result, RESULT_BYTES)
        self.out.events.append(ToolCall(id, kind_of(running.name), running.done, status, result=result))

    # the plan: TaskCreate and TaskUpdate change Claude's list call by call, TodoWrite all of it

    def _plan_call(self, name: str, given: Frame, status: ToolStatus) -> None:
        if status is ToolStatus.PENDING:
            return
        if name == "TodoWrite":
            self.state.tasks.clear()
            for index, todo in enumerate(frames(given, "todos")):
                self._set_task(f"todo-{index}", string(todo, "content"), string(todo, "status"))
        elif name == "TaskUpdate":
            self._set_task(token(given, "taskId"), string(given, "subject"), string(given, "status"))
        else:
            return
        self._plan_changed()

    def _plan_result(self, details: Frame) -> None:
        task, listed = part(details, "task"), frames(details, "tasks")
        if not listed and not (string(task, "id") and string(task, "subject")):
            return
        for item in listed or [task]:
            self._set_task(token(item, "id"), string(item, "subject"), string(item, "status"))
        self._plan_changed()

    def _set_task(self, id: str, text: str, status: str) -> None:
        self.state.set_task(id, self.out.line(text), status)

    def _plan_changed(self) -> None:
        self.out.events.append(Plan(self.state.plan()))


def _never_ran(id: str, told: Frame) -> bool:
    """Was the call refused before it began?"""
    return any(
        token(meta, "id") == id and string(meta, "non_execution_kind") == "permission-rule"
        for meta in frames(told, "tool_result_meta")
    )
