"""OpenCode's tools in words that people read: "Ran pytest -q", "Edited src/app.py"."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from bot.agents.results import change_size, line_count, patch_size, titled, verdict
from bot.agents.wire import (
    SUBJECT_CHARS,
    TITLE_CHARS,
    Frame,
    frames,
    items,
    one_line,
    part,
    shorten,
    string,
)
from bot.events import ToolKind

# Its calls are the plan; the timeline has a place of its own for it.
PLAN_TOOL = "todowrite"

_TAGS = re.compile(r"</?(?:task|task_result|shell_metadata)\b[^>]*>")


@dataclass(frozen=True, slots=True)
class _Words:
    kind: ToolKind
    doing: str
    done: str
    subject: tuple[str, ...] = ()  # the input's field that says what it is about; the first one there
    nothing: str = ""  # what stands for the subject while it is not known yet


_PATH = ("filePath", "path")

_TOOLS = {
    "bash": _Words(ToolKind.EXECUTE, "Running", "Ran", ("command",), "a command"),
    "read": _Words(ToolKind.READ, "Reading", "Read", _PATH, "a file"),
    "list": _Words(ToolKind.READ, "Listing", "Listed", _PATH, "a directory"),
    "edit": _Words(ToolKind.EDIT, "Editing", "Edited", _PATH, "a file"),
    "multiedit": _Words(ToolKind.EDIT, "Editing", "Edited", _PATH, "a file"),
    "write": _Words(ToolKind.EDIT, "Writing", "Wrote", _PATH, "a file"),
    "apply_patch": _Words(ToolKind.EDIT, "Patching", "Patched", (), "files"),
    "glob": _Words(ToolKind.SEARCH, "Looking for", "Looked for", ("pattern",), "files"),
    "grep": _Words(ToolKind.SEARCH, "Searching for", "Searched for", ("pattern",), "text"),
    "lsp": _Words(ToolKind.SEARCH, "Looking up", "Looked up", ("operation",), "a symbol"),
    "codesearch": _Words(ToolKind.FETCH, "Searching code for", "Searched code for", ("query",), "something"),
    "webfetch": _Words(ToolKind.FETCH, "Fetching", "Fetched", ("url",), "a page"),
    "websearch": _Words(
        ToolKind.FETCH, "Searching the web for", "Searched the web for", ("query",), "something"
    ),
    "task": _Words(ToolKind.THINK, "Delegating:", "Delegated:", ("description",), "a task"),
    "skill": _Words(ToolKind.OTHER, "Using the skill", "Used the skill", ("name",), "…"),
    "question": _Words(ToolKind.OTHER, "Asking:", "Asked:", (), "a question"),
    # What a call becomes that the model got wrong; its input says which tool was meant.
    "invalid": _Words(ToolKind.OTHER, "Calling", "Called", ("tool",), "a tool"),
}

_REFUSED = re.compile(r"^The user rejected permission to use this .{0,40} with the following feedback: ")
_PATCHED = re.compile(r"^\*\*\* (?:Add|Update|Delete) File: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Described:
    kind: ToolKind
    doing: str
    done: str
    subject: str = ""


def kind_of(name: str) -> ToolKind:
    words = _TOOLS.get(name)
    return words.kind if words else ToolKind.OTHER


def describe(name: str, given: Frame, cwd: str) -> Described:
    """What a call does. `given` is empty while its input is still being written."""
    words = _TOOLS.get(name)
    if words is None:
        label = one_line(name, TITLE_CHARS) or "a tool"
        return Described(ToolKind.OTHER, f"Using {label}", f"Used {label}")
    subject = next((string(given, key) for key in words.subject if string(given, key)), "")
    if words.subject is _PATH:
        subject = shorten(subject, cwd)
    if name == "question":
        subject = " ".join(string(one, "question") for one in frames(given, "questions"))
    if name == "apply_patch":
        subject = ", ".join(shorten(path, cwd) for path in _PATCHED.findall(string(given, "patchText")))
    about = one_line(subject, TITLE_CHARS) or words.nothing
    return Described(
        words.kind, f"{words.doing} {about}", f"{words.done} {about}", one_line(subject, SUBJECT_CHARS)
    )


def failed(name: str, state: Frame) -> bool:
    """A command that ran and failed is "completed" to OpenCode."""
    if string(state, "status") == "error" or name == "invalid":
        return True
    code = part(state, "metadata").get("exit")
    return name == "bash" and isinstance(code, int) and code != 0


def outcome(name: str, state: Frame) -> str:
    """What came out of a call, for people: not the file that was read, but the lines that changed."""
    if string(state, "status") == "error":
        return _REFUSED.sub("Not allowed: ", string(state, "error"))
    given, details = part(state, "input"), part(state, "metadata")
    if name == "invalid":
        return string(given, "error")
    if name == "read":
        return line_count(string(part(details, "display"), "text"))
    if name == "question":
        return ", ".join(
            text
            for answer in items(details, "answers")
            if isinstance(answer, list)
            for text in answer
            if isinstance(text, str)
        )
    if kind_of(name) is ToolKind.EDIT:
        return _changes(given, details)
    return _TAGS.sub("", string(state, "output")).strip().removeprefix("(no output)").strip()


def done_with(tool: Described, name: str, state: Frame) -> str:
    """Its title once it has ended: "Ran pytest · 2 failed"."""
    code = part(state, "metadata").get("exit")
    if name != "bash" or isinstance(code, bool) or not isinstance(code, int):
        return tool.done
    command = string(part(state, "input"), "command")
    return titled(tool.done, verdict(command, string(state, "output"), code))


def aborted(state: Frame) -> bool:
    """Was the call broken off, with the run that it belonged to?"""
    if part(state, "metadata").get("interrupted") is True:
        return True
    return "User aborted the command" in string(state, "output")[-200:]


def _changes(given: Frame, details: Frame) -> str:
    """The size of an edit, "+12 −3", from its patch; a new file is told without one."""
    if details.get("exists") is False:
        return change_size(len(string(given, "content").splitlines()), 0)
    return patch_size(string(details, "diff").splitlines())


# What it asks for before it acts

_MAY = {
    "bash": (ToolKind.EXECUTE, "Run"),
    "edit": (ToolKind.EDIT, "Edit"),
    "webfetch": (ToolKind.FETCH, "Fetch"),
    "websearch": (ToolKind.FETCH, "Search the web for"),
    "codesearch": (ToolKind.FETCH, "Search code for"),
}


def wish(asked: Frame, cwd: str) -> tuple[ToolKind, str, str]:
    """A request for permission: its kind, its title, and exactly what would be done."""
    name, details = string(asked, "permission"), part(asked, "metadata")
    patterns = [pattern for pattern in items(asked, "patterns") if isinstance(pattern, str)]
    kind, verb = _MAY.get(name, (ToolKind.OTHER, f"Use {one_line(name, TITLE_CHARS) or 'a tool'}:"))
    detail = string(details, "command") or string(details, "url") or string(details, "query")
    about = detail or ", ".join(patterns)
    if name == "edit":
        path = string(details, "filepath")
        about = shorten(path, cwd) or about
        detail = f"{path}\n{string(details, 'diff')}".strip()
    if not detail:
        detail = json.dumps(details, ensure_ascii=False) if details else about
    return kind, f"{verb} {one_line(about, TITLE_CHARS)}", detail
