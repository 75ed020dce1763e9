"""An agent apart from what earlier turns left in the home."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from bot.agents.apart import GIT, apart

LOOK = 'echo "$HOME"; echo "$PATH"; ls -A "$HOME"; cat "$HOME/.agent/talks/one"; echo late > "$HOME/.npm/new"'


def run(home: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = (*apart(".agent/talks", (".npm", ".cargo")), "/bin/sh", "-c", script)
    given = {"PATH": f"{home}/bin:bin::{os.environ['PATH']}", "HOME": str(home), **env}
    return subprocess.run(argv, env=given, capture_output=True, text=True, check=False, timeout=20)


def test_its_home_has_conversations_and_stores_alone(tmp_path: Path) -> None:
    home = tmp_path / "the home"
    (home / ".agent/talks").mkdir(parents=True)
    (home / ".agent/talks/one").write_text("said\n")
    (home / ".agent/settings").write_text("allow everything")
    (home / ".npm").mkdir()
    (home / ".bashrc").touch()
    done = run(home, LOOK)
    own, path, *found = done.stdout.splitlines()
    assert own != str(home) and found == [".agent", ".npm", "said"]
    assert path == os.environ["PATH"]
    assert (home / ".npm/new").read_text() == "late\n"
    # It goes with the program, and nothing of the real one does.
    assert not Path(own).exists() and (home / ".agent/talks/one").exists()
    assert (done.returncode, done.stderr) == (0, "")


def test_what_a_killed_one_left_goes_and_what_is_used_stays(tmp_path: Path) -> None:
    argv = (*apart(".agent/talks", ()), "/bin/sh", "-c", 'echo "$HOME"; exec sleep 600')
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    homes, agents = [], []
    for _ in range(2):
        agent = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert agent.stdout is not None
        homes.append(Path(agent.stdout.readline().strip()))
        agents.append(agent)
    try:
        os.killpg(agents[0].pid, signal.SIGKILL)
        agents[0].wait()
        assert homes[0].exists(), "nobody was there to clear it away"
        run(tmp_path, "true")
        assert [home.exists() for home in homes] == [False, True]
    finally:
        os.killpg(agents[1].pid, signal.SIGKILL)
        agents[1].communicate()
        agents[0].communicate()
        shutil.rmtree(homes[1], ignore_errors=True)


def test_it_hands_on_what_comes_in_and_how_it_ends(tmp_path: Path) -> None:
    assert run(tmp_path, "exit 7").returncode == 7
    assert (tmp_path / ".agent/talks").is_dir()


@pytest.mark.parametrize("name", ["BASH_ENV", "ENV", "XDG_CONFIG_HOME"])
def test_nothing_is_sourced_or_read_by_name(name: str, tmp_path: Path) -> None:
    assert run(tmp_path, f'echo "${{{name}-none}}"', **{name: "/x"}).stdout == "none\n"


def test_git_runs_neither_hooks_nor_a_monitor_of_the_clone(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(("git", *words), cwd=tmp_path, env={**os.environ, **GIT}, check=True, timeout=20)

    planted = tmp_path / "planted"
    planted.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    planted.chmod(0o755)
    git("init", "-q")
    hook = tmp_path / ".git/hooks/post-index-change"
    hook.parent.mkdir(exist_ok=True)
    hook.symlink_to(planted)
    git("config", "core.fsmonitor", str(planted))
    git("add", "planted")
    git("status", "--short")
    assert not (tmp_path / "ran").exists()
