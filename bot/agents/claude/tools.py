"""Claude Code's tools in words that people read: "Ran pytest -q", "Edited src/app.py"."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from bot.agents.results import change_size, line_count
from bot.agents.wire import (
    SUBJECT_CHARS,
    TITLE_CHARS,
    Frame,
    frames,
    items,
    number,
    one_line,
    part,
    shorten,
    string,
)
from bot.events import ToolKind

# Their calls are the plan; the timeline has a place of its own for it.
PLAN_TOOLS = frozenset({"TaskCreate", "TaskUpdate", "TaskList", "TaskGet", "TodoWrite"})

_EXIT_CODE = re.compile(r"Exit code (\d{1,6})(?:\n|$)")
_PREVIEW = 600
_PLAN_FILE = re.compile(r"/\.claude/plans/[^/]+\.md$")
_NOTHING = re.compile(r"\(Bash completed with no output\)")

DELEGATING = frozenset({"Task", "Agent"})

QUESTION_TOOL = "AskUserQuestion"
PLAN_TOOL = "ExitPlanMode"


@dataclass(frozen=True, slots=True)
class _Words:
    kind: ToolKind
    ask: str
    doing: str
    done: str
    subject: tuple[str, ...] = ()  # the input's field that says what it is about; the first one there
    nothing: str = ""  # what stands for the subject while it is not known yet


_PATH = ("file_path", "notebook_path", "path")
_SEARCH_THE_WEB = _Words(
    ToolKind.FETCH,
    "Search the web for",
    "Searching the web for",
    "Searched the web for",
    ("query",),
    "something",
)
_DELEGATE = _Words(ToolKind.THINK, "Delegate:", "Delegating:", "Delegated:", ("description",), "a task")

_TOOLS = {
    "Bash": _Words(ToolKind.EXECUTE, "Run", "Running", "Ran", ("command",), "a command"),
    "BashOutput": _Words(ToolKind.READ, "Read", "Reading", "Read", (), "a command's output"),
    "KillShell": _Words(ToolKind.EXECUTE, "End", "Ending", "Ended", (), "a command"),
    "TaskStop": _Words(ToolKind.EXECUTE, "End", "Ending", "Ended", (), "a task"),
    "Read": _Words(ToolKind.READ, "Read", "Reading", "Read", _PATH, "a file"),
    "LS": _Words(ToolKind.READ, "List", "Listing", "Listed", _PATH, "a directory"),
    "Edit": _Words(ToolKind.EDIT, "Edit", "Editing", "Edited", _PATH, "a file"),
    "MultiEdit": _Words(ToolKind.EDIT, "Edit", "Editing", "Edited", _PATH, "a file"),
    "NotebookEdit": _Words(ToolKind.EDIT, "Edit", "Editing", "Edited", _PATH, "a notebook"),
    "Write": _Words(ToolKind.EDIT, "Write", "Writing", "Wrote", _PATH, "a file"),
    "Glob": _Words(ToolKind.SEARCH, "Look for", "Looking for", "Looked for", ("pattern",), "files"),
    "Grep": _Words(ToolKind.SEARCH, "Search for", "Searching for", "Searched for", ("pattern",), "text"),
    "LSP": _Words(ToolKind.SEARCH, "Look up", "Looking up", "Looked up", ("operation",), "a symbol"),
    "ToolSearch": _Words(ToolKind.SEARCH, "Look for", "Looking for", "Looked for", ("query",), "a tool"),
    "WebFetch": _Words(ToolKind.FETCH, "Fetch", "Fetching", "Fetched", ("url",), "a page"),
    "WebSearch": _SEARCH_THE_WEB,
    "web_search": _SEARCH_THE_WEB,
    "Task": _DELEGATE,
    "Agent": _DELEGATE,
    "Skill": _Words(
        ToolKind.OTHER, "Use the skill", "Using the skill", "Used the skill", ("skill", "command"), "…"
    ),
    "EnterPlanMode": _Words(ToolKind.THINK, "Start to", "Starting to", "Started to", (), "plan"),
    PLAN_TOOL: _Words(ToolKind.THINK, "Go ahead with", "Laying out", "Laid out", (), "a plan"),
    QUESTION_TOOL: _Words(ToolKind.OTHER, "Ask:", "Asking:", "Asked:", (), "a question"),
}


@dataclass(frozen=True, slots=True)
class Described:
    """A call in words: for who is asked for it, while it runs, and when it is done."""

    kind: ToolKind
    asked: str
    doing: str
    done: str
    subject: str = ""


def kind_of(name: str) -> ToolKind:
    words = _TOOLS.get(name)
    return words.kind if words else ToolKind.OTHER


def describe(name: str, given: Frame, cwd: str) -> Described:
    """What a call does. `given` may be empty while its input is still being written."""
    words = _TOOLS.get(name)
    if words is None:
        label = one_line(_label(name), TITLE_CHARS)
        return Described(ToolKind.OTHER, f"Use {label}", f"Using {label}", f"Used {label}")
    subject = next((string(given, key) for key in words.subject if string(given, key)), "")
    if words.subject is _PATH:
        subject = "its plan" if _PLAN_FILE.search(subject) else shorten(subject, cwd)
    if name == QUESTION_TOOL:
        subject = " ".join(string(one, "question") for one in frames(given, "questions"))
    about = one_line(subject, TITLE_CHARS) or words.nothing
    return Described(
        words.kind,
        f"{words.ask} {about}",
        f"{words.doing} {about}",
        f"{words.done} {about}",
        one_line(subject, SUBJECT_CHARS),
    )


def exactly(name: str, given: Frame) -> str:
    """All of what a call would do, for people to approve."""
    path = next((string(given, key) for key in _PATH if string(given, key)), "")
    known: tuple[str, ...]
    match name:
        case "Bash":
            known, words = ("command", "description", "timeout"), string(given, "command")
        case "Write":
            known, words = ("file_path", "content"), f"{path}\n{_lines('+', string(given, 'content'))}"
        case "Edit":
            known = ("file_path", "old_string", "new_string")
            old, new = string(given, "old_string"), string(given, "new_string")
            words = f"{path}\n{_lines('-', old)}{_lines('+', new)}"
        case "WebFetch":
            known, words = ("url", "prompt"), string(given, "url")
        case _ if name == PLAN_TOOL:
            known, words = ("plan", "planFilePath"), string(given, "plan")
        case _:
            known, words = (), ""
    # False is what these flags are when they are not given at all.
    rest = {key: value for key, value in given.items() if key not in known and value is not False}
    more = json.dumps(rest, ensure_ascii=False, indent=1) if rest else ""
    return "\n".join(part for part in (words.rstrip("\n"), more) if part)


def _lines(sign: str, text: str) -> str:
    return "".join(f"{sign}{line}\n" for line in text.removesuffix("\n").split("\n"))


def outcome(name: str, block: Frame, details: Frame) -> tuple[str, int | None]:
    """What came out of a call, for people: not the file that was read, but the lines that changed. And
    the exit code of a command, where Claude tells it (it does when that is not 0)."""
    text = _text_of(block)
    if block.get("is_error") is True:
        text = text.removeprefix("<tool_use_error>").removesuffix("</tool_use_error>").strip()
        if name == "Bash" and (told := _EXIT_CODE.match(text)):
            return text[told.end() :], int(told[1])
        return text, None
    if name == "Read":
        return line_count(string(part(details, "file"), "content")), None
    if kind_of(name) is ToolKind.EDIT:
        return _changes(details), None
    if name == PLAN_TOOL or _NOTHING.fullmatch(text):
        return "", None
    if name in DELEGATING:
        # The result for the model is wrapped in words about whom to trust.
        report = [string(item, "text") for item in frames(details, "content")]
        return report[-1] if report else text, None
    if size := number(details, "persistedOutputSize"):
        # Claude keeps the whole in a file, and has only the beginning here.
        return f"{size:,} bytes of output, which begin with:\n{string(details, 'stdout')[:_PREVIEW]}", None
    if text.startswith("<persisted-output>"):
        # That is a preview for the model, and this is the whole.
        return string(details, "stdout") or text, None
    return text, None


def _changes(details: Frame) -> str:
    """The size of an edit, "+12 −3", from its patch."""
    lines = [
        line
        for hunk in frames(details, "structuredPatch")
        for line in items(hunk, "lines")
        if isinstance(line, str)
    ]
    if not lines and string(details, "type") == "create":
        return change_size(len(string(details, "content").splitlines()), 0)
    # No headers of files stand among a hunk's lines.
    signs = [line[:1] for line in lines]
    return change_size(signs.count("+"), signs.count("-"))


def answers(details: Frame) -> str:
    """What people answered."""
    return " · ".join(text for text in part(details, "answers").values() if isinstance(text, str) and text)


def _text_of(block: Frame) -> str:
    content = block.get("content")
    if isinstance(content, str):
        return content
    texts = [string(item, "text") or f"({string(item, 'type')})" for item in frames(block, "content")]
    return "\n".join(texts)


def _label(name: str) -> str:
    """ "mcp__github__get_issue" is a tool of an MCP server."""
    if name.startswith("mcp__"):
        server, _, tool = name.removeprefix("mcp__").partition("__")
        return f"{server}: {tool}" if tool else server
    return name or "a tool"
