"""An ACP agent's tool calls in words that people read: "Ran pytest -q · 2 failed", "Edited src/app.py".

Agents give a title of their own, often a bare command or path, sometimes only the tool's name; the kind,
the input and the locations say more.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from bot.agents.acp.state import ENDED, Tool
from bot.agents.results import change_size, line_count, patch_size, titled, verdict
from bot.agents.steps import MOST_APPROVED
from bot.agents.wire import (
    RESULT_BYTES,
    SUBJECT_CHARS,
    TITLE_CHARS,
    Frame,
    clip,
    frames,
    one_line,
    part,
    string,
    token,
)
from bot.events import PlanEntry, PlanStatus, ToolKind, ToolStatus

# Their input is the plan; the timeline has a place of its own for it.
PLAN_TOOLS = frozenset({"todowrite", "todo_write", "todoread", "todo_read", "write_todos", "update_plan"})

KINDS: Mapping[str, ToolKind] = {kind.value: kind for kind in ToolKind} | {"switch_mode": ToolKind.THINK}

# While it runs, when it has ended, and what stands for what it is about while that is not known.
_WORDS: Mapping[ToolKind, tuple[str, str, str]] = {
    ToolKind.READ: ("Reading", "Read", "a file"),
    ToolKind.EDIT: ("Editing", "Edited", "a file"),
    ToolKind.DELETE: ("Deleting", "Deleted", "a file"),
    ToolKind.MOVE: ("Moving", "Moved", "a file"),
    ToolKind.SEARCH: ("Searching:", "Searched:", "the code"),
    ToolKind.EXECUTE: ("Running", "Ran", "a command"),
    ToolKind.FETCH: ("Fetching", "Fetched", "a page"),
}
_OF_FILES = (ToolKind.READ, ToolKind.EDIT, ToolKind.DELETE, ToolKind.MOVE)

MOST_ENTRIES = 60
_PATHS = ("file_path", "filePath", "path", "abs_path", "absolute_path", "notebook_path")
_SHELLS = ("sh", "bash", "zsh", "/bin/sh", "/bin/bash", "/bin/zsh", "/usr/bin/bash", "/usr/bin/zsh")
# What may stand beside a command without changing what it does.
_BESIDE_A_COMMAND = frozenset({"command", "description", "timeout"})
_CODES = ("exit_code", "exitCode", "exit")

_ABORTED = re.compile(r"\b(?:abort|cancell?|interrupt)ed\b", re.IGNORECASE)


def learn(tool: Tool, update: Frame, cwd: str) -> None:
    """Take in what an update says of a call; what it does not mention stays as it was."""
    for name in ("kind", "title", "status"):
        if value := string(update, name):
            setattr(tool, name, value if name != "title" else one_line(value, SUBJECT_CHARS))
    vendor = part(update, "_meta", "claudeCode")
    tool.parent = token(vendor, "parentToolUseId") or tool.parent
    tool.name = string(update, "name") or string(vendor, "toolName") or tool.name
    given = part(update, "rawInput")
    if given:
        tool.known = True
        tool.command = clip(_command(given), SUBJECT_CHARS * 4) or tool.command
    if given or not tool.exact:
        tool.exact = _exactly(given, update)[:MOST_APPROVED] or tool.exact
    if tool.status in ("completed", "failed"):
        tool.exact = ""
    path = next((string(place, "path") for place in frames(update, "locations")), "")
    path = path or next((string(given, key) for key in _PATHS if string(given, key)), "")
    if path:
        tool.path = clip(_shorten(path, cwd), SUBJECT_CHARS * 4)
    _learn_result(tool, update, cwd)


def described(tool: Tool, *, waits: bool) -> tuple[ToolKind, str, ToolStatus, str, str]:
    """Kind, title, status, subject and result, for an event. waits: a person is asked about it."""
    kind = KINDS.get(tool.kind, ToolKind.OTHER)
    status = _status(tool, waits=waits)
    subject = _subject(tool, kind)
    ended = status in (ToolStatus.COMPLETED, ToolStatus.FAILED)
    if tool.question:
        title = f"{'Asked' if ended else 'Asking'}: {one_line(tool.title, TITLE_CHARS)}"
        return kind, title, status, one_line(subject, SUBJECT_CHARS), ""
    if kind not in _WORDS:
        return kind, one_line(tool.title or tool.name or "a tool", TITLE_CHARS), status, subject, tool.result
    doing, done, nothing = _WORDS[kind]
    about = one_line(subject, TITLE_CHARS) or nothing
    title = titled(f"{done} {about}", tool.outcome) if ended else f"{doing} {about}"
    return kind, title, status, one_line(subject, SUBJECT_CHARS), tool.result


def _status(tool: Tool, *, waits: bool) -> ToolStatus:
    try:
        return ToolStatus(tool.status or "pending") if not waits else ToolStatus.PENDING
    except ValueError:
        return ToolStatus.IN_PROGRESS


def _subject(tool: Tool, kind: ToolKind) -> str:
    if kind is ToolKind.EXECUTE and tool.command:
        return tool.command
    if kind in _OF_FILES and tool.path:
        return tool.path
    # Before the input is there, a title is often a mere name.
    return tool.title if tool.known or tool.status != "pending" else ""


def _learn_result(tool: Tool, update: Frame, cwd: str) -> None:
    content = frames(update, "content")
    raw = part(update, "rawOutput")
    details = part(raw, "metadata")
    diffs = [item for item in content if string(item, "type") == "diff"]
    sizes = [_size(string(diff, "oldText"), string(diff, "newText")) for diff in diffs]
    change = change_size(sum(added for added, _ in sizes), sum(removed for _, removed in sizes))
    change = change or patch_size(string(details, "diff").splitlines())
    if diffs and not tool.path:
        tool.path = clip(_shorten(string(diffs[0], "path"), cwd), SUBJECT_CHARS * 4)
    for name in _CODES:
        for where in (raw, details):
            if isinstance(code := where.get(name), int) and abs(code) < 2**31:
                tool.code = int(code)
    if change:
        tool.result = change
    elif tool.status in ENDED and (text := _output(tool, update, raw, content)):
        # While a call has not ended, its content is as often a description of it as its output.
        _came_out(tool, text)
    if tool.status in ENDED and tool.refused:
        tool.result, tool.outcome = "Not allowed.", ""


def _output(tool: Tool, update: Frame, raw: Frame, content: Sequence[Frame]) -> str:
    texts = [string(part(item, "content"), "text") for item in content if string(item, "type") == "content"]
    shown = _unfenced("\n".join(filter(None, texts)))
    output = update.get("rawOutput")
    came = output if isinstance(output, str) else string(raw, "output") or string(raw, "formatted_output")
    # What a client is to show of a file that was read is the file; the raw output may have more around it. Of
    # what is too long for its model Claude Code's raw output is the beginning.
    kind = KINDS.get(tool.kind)
    if kind is ToolKind.READ or (kind is ToolKind.EXECUTE and len(shown) > len(came)):
        return shown or came
    return came or shown


def _came_out(tool: Tool, text: str) -> None:
    """What people are told of a call's output: not the file that was read."""
    kind = KINDS.get(tool.kind, ToolKind.OTHER)
    if kind is ToolKind.EXECUTE:
        tool.outcome = verdict(tool.command or tool.title, text, tool.code)
    if tool.status == "failed":
        text = text.removeprefix("<tool_use_error>").removesuffix("</tool_use_error>")
    elif kind is ToolKind.READ:
        text = line_count(text)
    elif kind in _OF_FILES:
        text = tool.result
    tool.result = clip(text.strip(), RESULT_BYTES * 2)


def stopped(tool: Tool) -> None:
    """A call that ended after its prompt was cancelled. Agents have words of their own for it, of a refusal
    that nobody gave, and some call it completed."""
    if tool.status == "failed" or _ABORTED.search(tool.result[-200:]):
        tool.status, tool.result, tool.outcome = "failed", "Stopped.", ""


def plan_in(update: Frame) -> tuple[PlanEntry, ...] | None:
    """The plan that a tool of the agent's own sets, where it sends no `plan` update."""
    todos = frames(part(update, "rawInput"), "todos")
    return plan_of(todos) if todos else None


def plan_of(entries: Sequence[Frame]) -> tuple[PlanEntry, ...]:
    known = {status.value: status for status in PlanStatus}
    return tuple(
        PlanEntry(
            one_line(string(entry, "content") or string(entry, "description"), SUBJECT_CHARS),
            known.get(string(entry, "status"), PlanStatus.PENDING),
        )
        for entry in entries[:MOST_ENTRIES]
    )


def is_plan(tool: Tool) -> bool:
    return (tool.name or tool.title).lower() in PLAN_TOOLS


def _exactly(given: Frame, update: Frame) -> str:
    """All that a call would do: its whole command, or all that it is given, and how files would change; ""
    when the agent does not tell."""
    command = given.get("command")
    if isinstance(command, str) and command and not set(given) - _BESIDE_A_COMMAND:
        told = command
    else:
        told = json.dumps(given, ensure_ascii=False, indent=1) if given else ""
    diffs = [_diff(item) for item in frames(update, "content") if string(item, "type") == "diff"]
    return "\n".join(filter(None, (told, *diffs)))


def _diff(item: Frame) -> str:
    old, new = string(item, "oldText"), string(item, "newText")
    lines = [f"-{line}" for line in old.split("\n") if old] + [f"+{line}" for line in new.split("\n")]
    return "\n".join([string(item, "path"), *lines])


def _command(given: Frame) -> str:
    value = given.get("command", given.get("cmd"))
    if isinstance(value, list):
        words = [word for word in value if isinstance(word, str)]
        # A shell with one script is that script.
        shell = len(words) == 3 and words[0] in _SHELLS and words[1] in ("-c", "-lc")
        return words[-1] if shell else shlex.join(words)
    return value if isinstance(value, str) else ""


def _size(old: str, new: str) -> tuple[int, int]:
    """How many lines were added and removed; in linear time, so a line that moved counts as neither."""
    before, after = Counter(old.splitlines()), Counter(new.splitlines())
    return (after - before).total(), (before - after).total()


def _unfenced(text: str) -> str:
    """Without the one code fence around all of it."""
    first, _, rest = text.partition("\n")
    body, _, last = rest.rpartition("\n")
    return body if first.startswith("```") and last.strip() == "```" else text


def _shorten(path: str, cwd: str) -> str:
    path = path.removeprefix(cwd.rstrip("/") + "/") if cwd else path
    return path.removeprefix("./")
