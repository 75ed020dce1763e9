"""What a devcontainer.json says is to be run (containers.dev, "Lifecycle scripts"). Pure."""

from __future__ import annotations

import json
import re
import shlex

# Strings are matched first, so that what looks like a comment in one stays. Whoever writes the file may want
# us to be long over it: nothing is looked at twice, and what has no end is one match up to the text's end.
_STRING = r'"(?:[^"\\]++|\\.)*+"?'
_COMMENT = re.compile(rf"({_STRING})|//[^\n]*+|/\*.*?\*/|(/\*.*+)", re.DOTALL)
_TRAILING_COMMA = re.compile(rf"({_STRING})|,(?=\s*+[\]}}])", re.DOTALL)
MOST_COMMAND = 64 * 1024  # bytes; the system has room for twice as many in one argument
_FOLDER = re.compile(r"\$\{(?:local|container)WorkspaceFolder\}")


def command_of(text: str, name: str, directory: str) -> str:
    """A script for sh that does what the lifecycle command `name` says; "" when there is none. directory:
    what stands for the workspace's folder. Raises ValueError with what is wrong, in words."""
    try:
        about = json.loads(_TRAILING_COMMA.sub(_kept, _COMMENT.sub(_kept, text)))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg}, line {error.lineno})") from None
    except ValueError:
        raise ValueError("it has a number that is too long") from None
    if not isinstance(about, dict):
        raise ValueError("it is no JSON object")
    command = about.get(name)
    if isinstance(command, dict):
        script = _together([_one(name, each, directory) for each in command.values()])
    else:
        script = _one(name, command, directory)
    _can_be_given(name, script)
    return script


def _can_be_given(name: str, script: str) -> None:
    """As an argument, that is."""
    try:
        size = len(script.encode())
    except UnicodeEncodeError:
        size = -1
    if size < 0 or "\0" in script:
        raise ValueError(f"its {name} has a character that no program can be given")
    if size > MOST_COMMAND:
        raise ValueError(f"its {name} is longer than {MOST_COMMAND // 1024} KiB")


def _kept(match: re.Match[str]) -> str:
    return match[match.lastindex] if match.lastindex else " "


def _one(name: str, command: object, directory: str) -> str:
    """A string is for the shell, a list is a program and its arguments."""
    if command is None:
        return ""
    if isinstance(command, str):
        return _placed(command, directory).strip()
    if isinstance(command, list) and all(isinstance(word, str) for word in command):
        return shlex.join(_placed(word, directory) for word in command)
    raise ValueError(f"its {name} is neither a string, nor a list of strings, nor an object of these")


def _placed(text: str, directory: str) -> str:
    return _FOLDER.sub(lambda _: directory, text)


def _together(commands: list[str]) -> str:
    """Side by side, as the format wants it; it fails when one of them does."""
    commands = [command for command in commands if command]
    if not commands:
        return ""
    lines = [f"sh -c {shlex.quote(command)} & p{number}=$!" for number, command in enumerate(commands)]
    waits = [f"wait $p{number} || code=$?" for number in range(len(commands))]
    return "\n".join([*lines, "code=0", *waits, "exit $code"])
