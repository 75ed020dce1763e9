"""OpenCode where people are asked, and nothing may answer for them. Standard library only, Python 3.9+.

    opencode_alone.py COMMAND [argument …]

Runs the command, which is OpenCode or starts it, so that it finds no more than conversations in the home: no
configuration, no plugins, no logins (which bring configuration). They lie elsewhere than all that, in a
database, from which yeses for good are taken out, and what could bring them back. Of the repository OpenCode
reads its AGENTS.md; what else it has is for the variables OPENCODE_DISABLE_PROJECT_CONFIG and OPENCODE_PURE.

Plugins of a repository are started by OpenCode 1.18.33 whatever is set, so where there are some the command
is not run. Ends as the command does, or with 78 when it says why it did not run it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

NOT_RUN = 78  # EX_CONFIG of sysexits.h

CONFIGURATIONS = ("opencode.json", "opencode.jsonc", ".opencode/opencode.json", ".opencode/opencode.jsonc")
PLUGINS = (".opencode/plugin", ".opencode/plugins")

# In its configuration's directory OpenCode installs this by npm, unless it finds it noted as installed.
NOTED = {"packages": {"": {"dependencies": {"@opencode-ai/plugin": "*"}}}}


class Refused(Exception):
    """Says why the command is not run."""


def refuse_plugins(work: Path) -> None:
    """In the workspace, and in all directories above it: OpenCode looks there too."""
    for directory in (work, *work.parents):
        found = [file for place in PLUGINS for file in sorted((directory / place).glob("*.[jt]s"))]
        found += [directory / name for name in CONFIGURATIONS if names_plugins(directory / name)]
        if found:
            raise Refused(
                f"OpenCode would start plugins before people are asked: {found[0]}. "
                "Take them out, or choose another agent."
            )


def names_plugins(file: Path) -> bool:
    """A letter may be written as its code."""
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}.") from error
    return b"plugin" in text or b"\\u" in text


def forget_yeses(data: Path) -> None:
    """In the databases that OpenCode may have there; an earlier turn can have written anything into them."""
    for file in sorted([*data.glob("opencode*.db"), *data.glob("conversations/opencode*.db")]):
        try:
            import sqlite3  # not every Python has it, and not every home a database

            with closing(sqlite3.connect(str(file), timeout=30)) as database, database:
                forget_in(database)
        except Exception as error:
            raise Refused(
                f"OpenCode's conversations ({file}) cannot be freed of what was allowed before: {error}. "
                "Take that file away, or choose another agent."
            ) from error


def forget_in(database: object) -> None:
    run = database.execute  # type: ignore[attr-defined]
    made = run("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchall()
    for kind, name in made:
        quoted = name.replace('"', '""')
        run(f'DROP {kind} "{quoted}"')
    for table in ("session", "permission", "account_state", "control_account"):
        columns = {row[1]: row for row in run(f"PRAGMA table_xinfo({table})").fetchall()}
        if any(row[6] for row in columns.values()):
            raise ValueError(f"{table} has a column that fills itself")
        if table == "session" and "permission" in columns:
            if columns["permission"][4] is not None:
                raise ValueError("what is allowed has a default")
            run("UPDATE session SET permission = NULL WHERE permission IS NOT NULL")
        elif table != "session" and columns:
            run(f"DELETE FROM {table}")  # noqa: S608 one of the names above


def main(command: list[str]) -> int:
    home = Path(os.environ.get("HOME") or "~").expanduser()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "opencode"
    try:
        refuse_plugins(Path.cwd())
        forget_yeses(data)
    except Refused as reason:
        sys.stderr.write(f"{reason}\n")
        return NOT_RUN
    alone = Path(tempfile.mkdtemp(prefix="opencode-"))
    try:
        (alone / "opencode/node_modules").mkdir(parents=True)
        (alone / "opencode/package-lock.json").write_text(json.dumps(NOTED))
        (alone / "opencode/AGENTS.md").symlink_to(Path.cwd() / "AGENTS.md")
        env = {
            **os.environ,
            "XDG_CONFIG_HOME": str(alone),
            "OPENCODE_TEST_HOME": str(alone),
            "OPENCODE_AUTH_CONTENT": "{}",
        }
        process = subprocess.Popen(command, env=env)
        for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(one, lambda number, _: process.send_signal(number))
        code = process.wait()
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 127
    finally:
        shutil.rmtree(alone, ignore_errors=True)
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
