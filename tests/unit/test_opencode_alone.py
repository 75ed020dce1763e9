"""Programs of vendors where people are asked: what they find in the home and in the repository."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from bot.agents.inside import program

OPENCODE_ALONE = program("opencode_alone")
INSIDE = Path(__file__).parents[2] / "sandbox/inside"

FOUND = 'cd "$1" && echo "$1" && ls -A && { cat CLAUDE.md; ls projects; } 2>/dev/null; exit 3'


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "home/deep/work"
    work.mkdir(parents=True)
    return work


def run(by: Sequence[str], variable: str, work: Path) -> subprocess.CompletedProcess[str]:
    """A program that shows the directory in a variable, and ends with 3."""
    command = ["sh", "-c", f'set -- "${variable}"; {FOUND}']
    env = {**os.environ, "HOME": str(work.parents[1]), "SANDPIPER_PROGRAMS": str(INSIDE)}
    return subprocess.run(
        [*by, *command],
        cwd=work,
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_opencode_finds_nothing(work: Path) -> None:
    (work / "opencode.json").write_text('{"mcp": {}}')
    done = run(OPENCODE_ALONE, "XDG_CONFIG_HOME", work)
    directory, *found = done.stdout.splitlines()
    assert (found, done.returncode, done.stderr) == (["opencode"], 3, "")
    assert not Path(directory).exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".opencode/plugin/x.js", ""),
        (".opencode/plugins/.x.ts", ""),
        ("opencode.json", '{"plugins": ["./x.js"]}'),
        (".opencode/opencode.jsonc", '{"\\u0070lugins": ["./x.js"]}'),
        ("../opencode.json", '{"plugins": ["./x.js"]}'),
    ],
)
def test_opencode_is_not_started_where_it_would_start_plugins(work: Path, name: str, text: str) -> None:
    file = work / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    done = run(OPENCODE_ALONE, "XDG_CONFIG_HOME", work)
    assert (done.returncode, done.stdout) == (78, "")
    assert "plugins before people are asked" in done.stderr and file.name in done.stderr


def database(work: Path, *statements: str, name: str = "conversations/opencode.db") -> Path:
    """OpenCode's, as far as it matters here."""
    file = work.parents[1] / ".local/share/opencode" / name
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(file)) as made, made:
        for statement in (*statements, "INSERT INTO session (id, permission) VALUES ('s', '[1]')"):
            made.execute(statement)
    return file


@pytest.mark.parametrize("name", ["conversations/opencode.db", "opencode.db"])
def test_what_opencode_was_allowed_for_good_is_forgotten(work: Path, name: str) -> None:
    again = "CREATE TRIGGER again AFTER UPDATE ON session BEGIN UPDATE session SET permission = '[1]'; END"
    file = database(
        work,
        "CREATE TABLE session (id text, permission text)",
        "CREATE TABLE permission (id text)",
        "INSERT INTO permission VALUES ('p')",
        again,
        name=name,
    )
    assert run(OPENCODE_ALONE, "XDG_CONFIG_HOME", work).returncode == 3
    with closing(sqlite3.connect(file)) as found:
        assert found.execute("SELECT id, permission FROM session").fetchall() == [("s", None)]
        assert found.execute("SELECT * FROM permission").fetchall() == []
        assert found.execute("SELECT * FROM sqlite_master WHERE type = 'trigger'").fetchall() == []


@pytest.mark.parametrize(
    "column", ["permission text DEFAULT '[1]'", "permission text, x GENERATED ALWAYS AS (1)"]
)
def test_a_database_that_allows_by_itself_is_not_used(work: Path, column: str) -> None:
    database(work, f"CREATE TABLE session (id text, {column})")
    done = run(OPENCODE_ALONE, "XDG_CONFIG_HOME", work)
    assert (done.returncode, done.stdout) == (78, "") and "choose another agent" in done.stderr


def test_what_is_no_database_is_not_used(work: Path) -> None:
    file = database(work, "CREATE TABLE session (id text, permission text)")
    file.write_text("no database at all, but some words")
    assert run(OPENCODE_ALONE, "XDG_CONFIG_HOME", work).returncode == 78
