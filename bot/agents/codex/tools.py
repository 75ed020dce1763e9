"""Codex's items in words that people read: "Ran pytest -q · 2 failed", "Edited src/app.py"."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass

from bot.agents.codex.state import Running
from bot.agents.results import change_size, line_count, titled, verdict
from bot.agents.wire import (
    SUBJECT_CHARS,
    TITLE_CHARS,
    Frame,
    frames,
    number,
    one_line,
    part,
    shorten,
    string,
)
from bot.events import ToolKind, ToolStatus

# Items that are calls of tools. The others are words, and Codex's notes to its client.
TOOLS = frozenset(
    {
        "commandExecution",
        "fileChange",
        "mcpToolCall",
        "dynamicToolCall",
        "webSearch",
        "imageView",
        "imageGeneration",
        "sleep",
        "collabAgentToolCall",
    }
)


@dataclass(frozen=True, slots=True)
class Described:
    """What an item does. thing: what stands for the subject while that is not known."""

    kind: ToolKind
    verb: str
    subject: str = ""
    thing: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """verdict: what is added to the title."""

    status: ToolStatus
    result: str = ""
    verdict: str = ""


# As a request, while it runs, and once it is over.
_VERBS = {
    "run": ("Run", "Running", "Ran"),
    "read": ("Read", "Reading", "Read"),
    "list": ("List", "Listing", "Listed"),
    "search": ("Search for", "Searching for", "Searched for"),
    "edit": ("Edit", "Editing", "Edited"),
    "write": ("Write", "Writing", "Wrote"),
    "delete": ("Delete", "Deleting", "Deleted"),
    "move": ("Move", "Moving", "Moved"),
    "use": ("Use", "Using", "Used"),
    "web": ("Search the web for", "Searching the web for", "Searched the web for"),
    "open": ("Open", "Opening", "Opened"),
    "look": ("Look at", "Looking at", "Looked at"),
    "draw": ("Draw", "Drawing", "Drew"),
    "wait": ("Wait for", "Waiting for", "Waited for"),
    "delegate": ("Delegate:", "Delegating:", "Delegated:"),
    "tell": ("Tell", "Telling", "Told"),
    "end": ("End", "Ending", "Ended"),
}

_AGENT_TOOLS = {
    "spawnAgent": ("delegate", "a task"),
    "sendInput": ("tell", "a sub-agent"),
    "sendMessage": ("tell", "a sub-agent"),
    "followupTask": ("tell", "a sub-agent"),
    "wait": ("wait", "a sub-agent"),
    "closeAgent": ("end", "a sub-agent"),
    "interruptAgent": ("end", "a sub-agent's work"),
    "listAgents": ("list", "sub-agents"),
    "resumeAgent": ("use", "an earlier sub-agent"),
}


def describe(item: Frame, cwd: str) -> Described:
    match string(item, "type"):
        case "commandExecution":
            return _command(item, cwd)
        case "fileChange":
            return _files(item, cwd)
        case "mcpToolCall":
            label = ": ".join(filter(None, (string(item, "server"), string(item, "tool"))))
            return _described(ToolKind.OTHER, "use", label, "a tool")
        case "webSearch":
            return _web(item)
        case "imageView":
            return _described(ToolKind.READ, "look", shorten(string(item, "path"), cwd), "a picture")
        case "imageGeneration":
            return _described(ToolKind.OTHER, "draw", "", "a picture")
        case "sleep":
            return _described(ToolKind.THINK, "wait", f"{number(item, 'durationMs') / 1000:g} s")
        case "collabAgentToolCall":
            words, nothing = _AGENT_TOOLS.get(string(item, "tool"), ("use", "a sub-agent"))
            about = string(item, "prompt") if words == "delegate" else ""
            return _described(ToolKind.THINK, words, about, nothing)
        case _:
            return _described(ToolKind.OTHER, "use", string(item, "tool"), "a tool")


def outcome(item: Frame, cwd: str) -> Outcome:
    """What came out of an item that is over."""
    status = string(item, "status")
    failed = ToolStatus.FAILED if status in ("failed", "declined", "interrupted") else ToolStatus.COMPLETED
    if status == "declined":
        return Outcome(failed, "Not allowed.")
    match string(item, "type"):
        case "commandExecution":
            output = string(item, "aggregatedOutput")
            code = item.get("exitCode")
            code = code if isinstance(code, int) and not isinstance(code, bool) else None
            if (about := describe(item, cwd)).kind is ToolKind.READ and not code:
                return Outcome(failed, line_count(output))
            if about.kind is ToolKind.SEARCH and code == 1 and not output:
                return Outcome(ToolStatus.COMPLETED, "Nothing found.")
            said = verdict(about.subject, output, code) if code != -1 else ""
            return Outcome(failed, output or ("Stopped." if code == -1 else ""), said)
        case "fileChange":
            return Outcome(failed, changes(item))
        case "mcpToolCall":
            if message := string(part(item, "error"), "message"):
                return Outcome(ToolStatus.FAILED, message)
            return Outcome(failed, _contents(part(item, "result"), "content"))
        case "dynamicToolCall":
            success = item.get("success") is not False
            return Outcome(failed if success else ToolStatus.FAILED, _contents(item, "contentItems"))
        case "imageGeneration":
            broken = bool(part(item, "failure"))
            return Outcome(ToolStatus.FAILED if broken else failed, string(item, "revisedPrompt"))
        case _:
            return Outcome(failed)


def ask(call: Running) -> str:
    return _title(call, 0)


def doing(call: Running) -> str:
    return _title(call, 1)


def done(call: Running, came: Outcome | None = None) -> str:
    return titled(_title(call, 2), came.verdict if came else "")


def _title(call: Running, tense: int) -> str:
    verb = _VERBS.get(call.verb, _VERBS["use"])[tense]
    return f"{verb} {one_line(call.about, TITLE_CHARS) or call.thing}"


# The system's own. Another program of that name can be anything, so that it is shown.
_SHELLS = frozenset(f"{place}/{name}" for place in ("/bin", "/usr/bin") for name in ("bash", "sh", "zsh"))


def command_of(text: str) -> str:
    """The command that the model wrote, without the shell that Codex runs it in."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[2] if len(words) == 3 and words[0] in _SHELLS and words[1] in ("-lc", "-c") else text


def exactly(item: Frame) -> str:
    """All of what an item would do, for people to approve."""
    if string(item, "type") == "fileChange":
        return "\n".join(_patch(change) for change in frames(item, "changes"))
    if string(item, "type") == "commandExecution":
        return command_of(string(item, "command"))
    return json.dumps(item.get("arguments"), ensure_ascii=False, indent=1)


# A command that people need not be asked about: a plain call of a program that can only read.
_PLAIN = re.compile(r"[\w\s./,:=@%+'\"*?\[\]|-]+")
_READERS = frozenset({"cat", "head", "tail", "wc", "ls", "pwd", "nl", "grep", "stat"})
_SED = re.compile(r"""sed -n (['"]?)\d+(,\d+)?p\1 [\w./-]+""")
_READING = frozenset({"read", "listFiles", "search"})


def only_reads(params: Frame) -> bool:
    """Does a command read and nothing else, as Codex parses it and by a strict look of ours?"""
    actions = frames(params, "commandActions")
    command = command_of(string(params, "command"))
    if not actions or not all(string(action, "type") in _READING for action in actions):
        return False
    if not _PLAIN.fullmatch(command) or "\n" in command or "||" in command:
        return False
    return all(_is_reader(part.strip()) for part in command.split("|"))


def _is_reader(command: str) -> bool:
    try:
        program, *arguments = shlex.split(command) or [""]
    except ValueError:
        return False
    if program == "rg":  # it can be told to run others
        return not any(word.startswith(("--pre", "--hostname-bin")) for word in arguments)
    return program in _READERS or _SED.fullmatch(command) is not None


def changes(item: Frame) -> str:
    """ "+12 −3": the size of all changes of files in an item."""
    added = removed = 0
    for change in frames(item, "changes"):
        diff = string(change, "diff")
        match string(part(change, "kind"), "type"):
            case "add":
                added += len(diff.splitlines())
            case "delete":
                removed += len(diff.splitlines())
            case _:  # hunks only: no headers of files stand among them
                signs = [line[:1] for line in diff.splitlines()]
                added, removed = added + signs.count("+"), removed + signs.count("-")
    return change_size(added, removed)


def _described(kind: ToolKind, verb: str, about: str, thing: str = "") -> Described:
    subject = one_line(about, SUBJECT_CHARS)
    return Described(kind, verb, subject, "" if subject else thing)


def _command(item: Frame, cwd: str) -> Described:
    command = command_of(string(item, "command"))
    actions = frames(item, "commandActions")
    if len(actions) == 1:
        [action] = actions
        path = shorten(string(action, "path"), cwd)
        match string(action, "type"):
            case "read":
                return _described(ToolKind.READ, "read", path or string(action, "name"), "a file")
            case "listFiles":
                return _described(ToolKind.READ, "list", path, "files")
            case "search" if query := string(action, "query"):
                return _described(ToolKind.SEARCH, "search", f"{query} in {path}" if path else query)
    return _described(ToolKind.EXECUTE, "run", command, "a command")


_CHANGES = {
    "add": (ToolKind.EDIT, "write"),
    "delete": (ToolKind.DELETE, "delete"),
    "update": (ToolKind.EDIT, "edit"),
}


def _files(item: Frame, cwd: str) -> Described:
    changed = frames(item, "changes")
    paths = [shorten(string(change, "path"), cwd) for change in changed]
    kinds = {string(part(change, "kind"), "type") for change in changed}
    kind, words = _CHANGES.get(kinds.pop(), _CHANGES["update"]) if len(kinds) == 1 else _CHANGES["update"]
    if len(changed) == 1 and (target := string(part(changed[0], "kind"), "move_path")):
        kind, words, paths = ToolKind.MOVE, "move", [f"{paths[0]} to {shorten(target, cwd)}"]
    return _described(kind, words, ", ".join(filter(None, paths)), "files")


def _patch(change: Frame) -> str:
    """One file's change as people read it."""
    kind, diff = string(part(change, "kind"), "type"), string(change, "diff")
    sign = {"add": "+", "delete": "-"}.get(kind, "")
    # Not splitlines: what else may look like a new line is to be seen as what it is.
    lines = [f"{sign}{line}" for line in diff.removesuffix("\n").split("\n")]
    target = string(part(change, "kind"), "move_path")
    path = f"{string(change, 'path')} → {target}" if target else string(change, "path")
    return "\n".join([path, *lines]).rstrip("\n")


def _web(item: Frame) -> Described:
    action = part(item, "action")
    if string(action, "type") == "openPage":
        return _described(ToolKind.FETCH, "open", string(action, "url"), "a page")
    if string(action, "type") == "findInPage":
        return _described(ToolKind.FETCH, "search", string(action, "pattern"), "text")
    return _described(ToolKind.FETCH, "web", string(action, "query") or string(item, "query"), "something")


def _contents(of: Frame, name: str) -> str:
    return "\n".join(string(one, "text") or f"({string(one, 'type')})" for one in frames(of, name))
