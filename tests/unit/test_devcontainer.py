from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bot.devcontainer import MOST_COMMAND, command_of
from bot.hook_scripts import MOST_CONFIG

NAME = "postCreateCommand"


def of(command: object) -> str:
    return command_of(json.dumps({NAME: command}), NAME, "/workspace/code")


def ran(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], cwd=cwd, capture_output=True, text=True, check=False)


def test_a_string_is_for_the_shell_and_a_list_is_not(tmp_path: Path) -> None:
    assert ran(of("echo a; echo $((1+1))"), tmp_path).stdout == "a\n2\n"
    assert ran(of(["echo", "a; echo $HOME", "it's"]), tmp_path).stdout == "a; echo $HOME it's\n"


def test_the_commands_of_an_object_run_side_by_side_and_each_must_succeed(tmp_path: Path) -> None:
    # Each waits for the other: one after the other they would never end.
    waits = "until test -e {0}; do sleep 0.01; done"
    both = {"a": f"touch a; {waits.format('b')}", "b": ["sh", "-c", f"touch b; {waits.format('a')}"]}
    assert ran(of(both), tmp_path).returncode == 0
    assert ran(of({"good": "true", "bad": "exit 7", "late": ["true"]}), tmp_path).returncode == 7
    assert ran(of({"broken": "if", "good": "echo good"}), tmp_path).stdout == "good\n"


@pytest.mark.parametrize("nothing", [None, "", " ", [], {}, {"a": ""}])
def test_where_nothing_is_said_nothing_is_run(nothing: object) -> None:
    assert of(nothing) == ""
    assert command_of("{}", NAME, "/") == ""


def test_comments_and_trailing_commas_are_tolerated_but_not_in_strings() -> None:
    text = """
    // made by hand
    {
        /* "postCreateCommand": "old", */
        "image": "https://example.com/x", // an address
        "postCreateCommand": "echo '// no comment' /* nor this */ \\"quoted\\" ,]",
        "features": ["a", "b",],
    }
    """
    assert command_of(text, NAME, "/") == "echo '// no comment' /* nor this */ \"quoted\" ,]"


def test_the_folder_of_the_workspace_is_known() -> None:
    assert of("cd ${containerWorkspaceFolder} && ls") == "cd /workspace/code && ls"
    assert of(["ls", "${localWorkspaceFolder}/a b"]) == "ls '/workspace/code/a b'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "no JSON"),
        ('{"a": "never closed', "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("{} /* never closed", "no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "number"),
        ("[]", "no JSON object"),
        ('{"postCreateCommand": 7}', "neither a string"),
        ('{"postCreateCommand": ["a", 7]}', "neither a string"),
        ('{"postCreateCommand": {"a": {"b": "c"}}}', "neither a string"),
        (r'{"postCreateCommand": "echo a\u0000b"}', "no program can be given"),
        (r'{"postCreateCommand": ["echo", "a\ud800"]}', "no program can be given"),
        (r'{"postCreateCommand": {"a": "true", "b": "\udc80"}}', "no program can be given"),
        ('{"postCreateCommand": "true # ' + "x" * MOST_COMMAND + '"}', "longer than 64 KiB"),
        ('{"postCreateCommand": ["' + "','" * 20_000 + '"]}', "longer than 64 KiB"),
    ],
)
def test_what_is_wrong_is_said_in_words(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        command_of(text, NAME, "/")


@pytest.mark.parametrize(
    "piece",
    ['"', '\\"', "\\", "/", "/* ", "/**/", "//\n", ",", ", ", "[", '{"a":', "9"],
    ids=repr,
)
def test_the_longest_file_that_is_read_holds_nobody_up_whatever_is_in_it(piece: str) -> None:
    # Parts of a second, or, if the time grows with the square of the length, more than a test has.
    for start in ("", '"', '{"postCreateCommand": "', "[1,"):
        with pytest.raises(ValueError, match=r"^it "):
            command_of((start + piece * MOST_CONFIG)[:MOST_CONFIG], NAME, "/")
